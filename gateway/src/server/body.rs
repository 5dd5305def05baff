//! Bodies on their way in and out: watched for stalls, counted, and drained when nobody wants them.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use s3s::StdError;
use tokio::time::Sleep;

use super::record::RequestRecord;

/// A client stopped in the middle of a body.
#[derive(Debug, thiserror::Error)]
#[error("the client sent nothing for {} seconds in the middle of a body", .0.as_secs())]
pub struct BodyStalled(pub Duration);

/// How long a refused request's body is read for.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// A request's body: fails when the client pauses for too long, and counts what it yields.
///
/// Dropped before its end, it is read on in the background up to a bound: a server that closes a connection with
/// unread bytes in it makes the kernel reset it, and the client may never see why its request was refused.
pub struct RequestBody {
    // `None` only while being dropped.
    incoming: Option<Incoming>,
    stall: Stall,
    counter: Arc<AtomicU64>,
    unread_body_max: u64,
    state: ReadState,
}

#[derive(PartialEq, Eq)]
enum ReadState {
    /// A client that waits for `100 Continue` sends nothing unless it is asked, so there is nothing to drain.
    Untouched {
        expects_continue: bool,
    },
    Begun,
    Ended,
}

impl RequestBody {
    /// Watches `incoming`; counts its bytes in `counter`.
    #[must_use]
    pub fn new(
        incoming: Incoming,
        expects_continue: bool,
        stall_timeout: Duration,
        unread_body_max: u64,
        counter: Arc<AtomicU64>,
    ) -> Self {
        RequestBody {
            incoming: Some(incoming),
            stall: Stall::new(stall_timeout),
            counter,
            unread_body_max,
            state: ReadState::Untouched { expects_continue },
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = self.get_mut();
        let Some(incoming) = this.incoming.as_mut() else { return Poll::Ready(None) };
        if this.state != ReadState::Ended {
            this.state = ReadState::Begun;
        }
        let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
            ready!(this.stall.poll_expired(cx));
            this.state = ReadState::Ended;
            return Poll::Ready(Some(Err(BodyStalled(this.stall.timeout).into())));
        };
        this.stall.reset();
        match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                this.counter.fetch_add(length as u64, Ordering::Relaxed);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.state = ReadState::Ended;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.state = ReadState::Ended;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let wanted = match self.state {
            ReadState::Untouched { expects_continue } => !expects_continue,
            ReadState::Begun => true,
            ReadState::Ended => false,
        };
        let Some(incoming) = self.incoming.take().filter(|incoming| wanted && !incoming.is_end_stream()) else {
            return;
        };
        if incoming.size_hint().lower() > self.unread_body_max {
            return;
        }
        // Outside of a runtime (one that is shutting down) there is no connection left to be polite on.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(drain(incoming, self.unread_body_max));
        }
    }
}

async fn drain(mut incoming: Incoming, bytes_max: u64) {
    let read = async {
        let mut rest = bytes_max;
        while let Some(Ok(frame)) = incoming.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            let Some(left) = rest.checked_sub(length) else { return };
            rest = left;
        }
    };
    // Whether it ended or was cut off: nobody waits for these bytes.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, read).await;
}

/// A timer that is armed by the first poll after a reset.
struct Stall {
    timeout: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn new(timeout: Duration) -> Self {
        Stall { timeout, sleep: None }
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout = self.timeout;
        self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout))).as_mut().poll(cx)
    }

    fn reset(&mut self) {
        self.sleep = None;
    }
}

/// A reply's body: counts what leaves and ends the request's record when it ends or is given up.
pub struct ReplyBody {
    body: s3s::Body,
    record: RequestRecord,
    rest: Rest,
}

/// What is still to leave.
enum Rest {
    /// So many bytes.
    Bytes(u64),
    /// Nobody knows.
    Unknown,
    /// Nothing.
    Nothing,
}

impl ReplyBody {
    /// Counts `body` in `record`.
    #[must_use]
    pub fn new(body: s3s::Body, record: RequestRecord) -> Self {
        let rest = body.size_hint().exact().map_or(Rest::Unknown, Rest::Bytes);
        ReplyBody { body, record, rest }
    }

    fn sent(&mut self, bytes: u64) {
        self.record.sent(bytes);
        if let Rest::Bytes(rest) = &mut self.rest {
            *rest = rest.saturating_sub(bytes);
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => this.sent(frame.data_ref().map_or(0, Bytes::len) as u64),
            Some(Err(error)) => this.record.broke(error.as_ref()),
            None => this.rest = Rest::Nothing,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        match self.rest {
            Rest::Nothing | Rest::Bytes(0) => {}
            Rest::Unknown if self.body.is_end_stream() => {}
            Rest::Unknown | Rest::Bytes(_) => self.record.cut_short(),
        }
    }
}
