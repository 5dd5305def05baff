//! A stream that fails when a request's headers do not come in time.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::activity::Activity;

/// How an HTTP/2 connection begins.
const H2_PREFACE: &[u8] = b"PRI ";

/// Passes everything through to `inner`; reading fails when the connection's first request is not there in time, or
/// when the headers of a later one have begun and do not end.
///
/// hyper's own timer for headers counts the pause between two requests as well.
pub struct HeadWatch<S> {
    inner: S,
    activity: Arc<Activity>,
    first_request_timeout: Duration,
    header_read_timeout: Duration,
    protocol: Protocol,
    begun_head: Option<BegunHead>,
    late: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Unknown,
    Http1,
    /// Frames that belong to no request come at any time.
    Http2,
}

/// Bytes that came while there was no request.
#[derive(Clone, Copy)]
struct BegunHead {
    since: Instant,
    requests_before: u64,
}

impl<S> HeadWatch<S> {
    /// Watches what is read from `inner`, whose requests `activity` counts.
    pub fn new(
        inner: S,
        activity: Arc<Activity>,
        first_request_timeout: Duration,
        header_read_timeout: Duration,
    ) -> Self {
        HeadWatch {
            inner,
            activity,
            first_request_timeout,
            header_read_timeout,
            protocol: Protocol::Unknown,
            begun_head: None,
            late: None,
        }
    }

    fn came(&mut self, bytes: &[u8]) {
        if self.protocol == Protocol::Unknown && !bytes.is_empty() {
            let http2 = bytes.starts_with(H2_PREFACE);
            self.protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
        }
        let waiting = self.protocol == Protocol::Http1 && self.activity.quiet_since().is_some();
        if waiting && !bytes.is_empty() && self.current_head().is_none() {
            self.begun_head = Some(BegunHead { since: Instant::now(), requests_before: self.activity.begun() });
        }
    }

    fn current_head(&self) -> Option<BegunHead> {
        self.begun_head.filter(|head| head.requests_before == self.activity.begun())
    }

    fn deadline(&self) -> Option<Instant> {
        if self.activity.begun() == 0 {
            return Some(self.activity.opened() + self.first_request_timeout);
        }
        self.current_head().map(|head| head.since + self.header_read_timeout)
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline() else {
            self.late = None;
            return Poll::Pending;
        };
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if late.deadline() != deadline {
            late.as_mut().reset(deadline);
        }
        late.as_mut().poll(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadWatch<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                self.came(&buffer.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_late(cx).map(|()| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the headers of a request did not come in time"))
            }),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadWatch<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    fn watched() -> (HeadWatch<DuplexStream>, DuplexStream, Arc<Activity>) {
        let (near, far) = tokio::io::duplex(64);
        let activity = Activity::new();
        let watch = HeadWatch::new(near, activity.clone(), Duration::from_secs(10), Duration::from_secs(15));
        (watch, far, activity)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_request_has_to_come_in_time() {
        let (mut stream, mut far, _activity) = watched();
        let started = Instant::now();
        far.write_all(b"GET / HT").await.expect("written");
        let error = stream.read_exact(&mut [0; 9]).await.expect_err("never whole");
        assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn later_headers_have_to_end_once_they_began() {
        let (mut stream, mut far, activity) = watched();
        far.write_all(b"GET").await.expect("written");
        stream.read_exact(&mut [0; 3]).await.expect("there");
        drop(activity.begin());
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, stream.read_u8()).await.is_err(), "a pause is no head");
        far.write_all(b"G").await.expect("written");
        let started = Instant::now();
        let error = stream.read_exact(&mut [0; 2]).await.expect_err("never whole");
        assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::TimedOut, 15));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_of_http2_are_no_head() {
        let (mut stream, mut far, activity) = watched();
        far.write_all(H2_PREFACE).await.expect("written");
        stream.read_exact(&mut [0; 4]).await.expect("there");
        drop(activity.begin());
        far.write_all(b"p").await.expect("written");
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, stream.read_exact(&mut [0; 2])).await.is_err());
    }
}
