//! A stream that fails when its other end takes nothing for too long, or too little while others wait.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::pace::Pace;

/// Passes everything through to `inner`; a write or flush that is stuck for `timeout` fails, and so does one that falls
/// behind `pace`.
///
/// Without it a client that asks for a large object and never reads it holds a connection, a request and an open
/// body for ever.
pub struct WriteStall<S> {
    inner: S,
    timeout: Duration,
    pace: Pace,
    stuck: Option<Stuck>,
}

struct Stuck {
    since: Instant,
    expired: Pin<Box<Sleep>>,
}

impl<S> WriteStall<S> {
    /// Watches the writes of `inner`.
    pub fn new(inner: S, timeout: Duration, pace: Pace) -> Self {
        WriteStall { inner, timeout, pace, stuck: None }
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        let Poll::Ready(result) = result else {
            let timeout = self.timeout;
            let stuck = self
                .stuck
                .get_or_insert_with(|| Stuck { since: Instant::now(), expired: Box::pin(tokio::time::sleep(timeout)) });
            let late = |()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no more bytes"));
            return stuck.expired.as_mut().poll(cx).map(late);
        };
        let waited = self.stuck.take().map_or(Duration::ZERO, |stuck| stuck.since.elapsed());
        let bytes = result.as_ref().map_or(0, bytes) as u64;
        if self.pace.moved(bytes, waited) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes bytes too slowly")));
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteStall<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteStall<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, result, |written| *written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch(cx, result, |written| *written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, result, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watch(cx, result, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Semaphore;

    use super::super::limits::HttpLimits;
    use super::super::places::Places;
    use super::*;

    fn places() -> Arc<Places> {
        Places::new(&HttpLimits { requests_in_flight_max: 1, ..HttpLimits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_never_reads_ends_the_write() {
        let (near, _far) = tokio::io::duplex(16);
        let mut stream = WriteStall::new(near, Duration::from_secs(60), Pace::new(places(), 1024));
        let error = stream.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_trickles_ends_the_write_while_places_are_scarce() {
        let (near, mut far) = tokio::io::duplex(16);
        let places = places();
        let _held = places.take(&Arc::new(Semaphore::new(1))).expect("free");
        let mut stream = WriteStall::new(near, Duration::from_secs(60), Pace::new(places, 1024));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
                far.read_u8().await.expect("there");
            }
        });
        let started = Instant::now();
        let error = stream.write_all(&[0; 64]).await.expect_err("too slow");
        assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
    }
}
