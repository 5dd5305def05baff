//! Bodies on their way in and out: watched for stalls, counted, and drained when nobody wants them.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::EXPECT;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use s3s::StdError;
use tokio::time::{Instant, Sleep};

use super::chunked::ChunkWatch;
use super::pace::Pace;
use super::record::RequestRecord;
use super::streams::ReplyWatch;

/// A client stopped in the middle of a body, or nearly.
#[derive(Debug, thiserror::Error)]
pub enum BodyStalled {
    /// It sent nothing for so long.
    #[error("the client sent nothing for {} seconds in the middle of a body", .0.as_secs())]
    Silent(Duration),
    /// It sends so little that it keeps others out.
    #[error("the client sends its body too slowly while others wait; send it again later")]
    Slow,
}

/// A reply of at most so many bytes that is complete in memory needs its place among the requests no longer.
const SMALL_REPLY_MAX: u64 = 64 * 1024;
/// Bytes that are handed to an HTTP/2 stream at a time: a slow client has to take so many within the stall timeout.
const H2_PIECE_BYTES: usize = 16 * 1024;
/// How long a refused request's body is read for.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// A request's body: fails when the client pauses for too long or falls behind, and counts what it yields.
///
/// Dropped before its end, it is read on in the background up to a bound: a server that closes a connection with
/// unread bytes in it makes the kernel reset it, and the client may never see why its request was refused.
pub struct RequestBody {
    // `None` only while being dropped.
    incoming: Option<Incoming>,
    stall: Stall,
    pace: Pace,
    counter: Arc<AtomicU64>,
    unread_body_max: u64,
    /// For a body that comes in chunks.
    chunks: Option<ChunkWatch>,
    state: ReadState,
}

/// What a request's body is bounded by.
pub struct BodyBounds {
    /// How long the client may pause.
    pub stall_timeout: Duration,
    /// How slow it may be.
    pub pace: Pace,
    /// Bytes that are drained of a body that nobody wants.
    pub unread_body_max: u64,
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
    /// Watches `incoming`, the body of a request with these headers; counts its bytes in `counter`.
    #[must_use]
    pub fn new(incoming: Incoming, headers: &HeaderMap, bounds: BodyBounds, counter: Arc<AtomicU64>) -> Self {
        let expects_continue = headers.contains_key(EXPECT);
        RequestBody {
            incoming: Some(incoming),
            stall: Stall::new(bounds.stall_timeout),
            pace: bounds.pace,
            counter,
            unread_body_max: bounds.unread_body_max,
            chunks: ChunkWatch::for_request(headers),
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
            return Poll::Ready(Some(Err(BodyStalled::Silent(this.stall.timeout).into())));
        };
        let waited = this.stall.reset();
        match frame {
            Some(Ok(frame)) => {
                if let (Some(chunks), Some(bytes)) = (&mut this.chunks, frame.data_ref()) {
                    chunks.read(bytes);
                }
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                this.counter.fetch_add(length, Ordering::Relaxed);
                if this.pace.moved(length, waited) {
                    this.state = ReadState::Ended;
                    return Poll::Ready(Some(Err(BodyStalled::Slow.into())));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.state = ReadState::Ended;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.state = ReadState::Ended;
                match this.chunks.take().map(|chunks| chunks.ended()) {
                    Some(Err(missing)) => Poll::Ready(Some(Err(missing.into()))),
                    Some(Ok(())) | None => Poll::Ready(None),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // Where chunks are watched, what the end is said of them is still to come.
        self.chunks.is_none() && self.incoming.as_ref().is_none_or(Body::is_end_stream)
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
    armed: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Stall {
    fn new(timeout: Duration) -> Self {
        Stall { timeout, armed: None }
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout = self.timeout;
        let (_, sleep) = self.armed.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(timeout))));
        sleep.as_mut().poll(cx)
    }

    /// Returns for how long it was armed.
    fn reset(&mut self) -> Duration {
        self.armed.take().map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }
}

/// A reply's body: counts what leaves and ends the request's record when it ends or is given up.
pub struct ReplyBody {
    body: s3s::Body,
    record: RequestRecord,
    rest: Rest,
    // HTTP/2 only: the stream's watch, and bytes that are still to be handed over.
    watch: Option<Arc<ReplyWatch>>,
    queued: Bytes,
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
    pub fn new(body: s3s::Body, mut record: RequestRecord) -> Self {
        let rest = body.size_hint().exact().map_or(Rest::Unknown, Rest::Bytes);
        if body.bytes().is_some_and(|bytes| bytes.len() as u64 <= SMALL_REPLY_MAX) {
            // All that is left is the client's to take, and refusing to must cost nobody else a place.
            record.release();
        }
        ReplyBody { body, record, rest, watch: ReplyWatch::current(), queued: Bytes::new() }
    }

    /// The next bytes to hand over: all of a frame, or a piece of it on HTTP/2.
    fn next_piece(&mut self, mut bytes: Bytes) -> Bytes {
        if self.watch.is_some() && bytes.len() > H2_PIECE_BYTES {
            self.queued = bytes.split_off(H2_PIECE_BYTES);
        }
        self.sent(bytes.len() as u64);
        bytes
    }

    fn sent(&mut self, bytes: u64) {
        self.record.sent(bytes);
        if let Rest::Bytes(rest) = &mut self.rest {
            *rest = rest.saturating_sub(bytes);
            if *rest == 0 && bytes <= SMALL_REPLY_MAX {
                self.record.release();
            }
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = self.get_mut();
        // Being asked for more says that what was handed over has found room.
        if let Some(watch) = &this.watch {
            watch.taken();
        }
        let queued = std::mem::take(&mut this.queued);
        let frame = match queued.is_empty() {
            false => Some(Ok(Frame::data(queued))),
            true => ready!(Pin::new(&mut this.body).poll_frame(cx)),
        };
        let frame = frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| this.next_piece(bytes))));
        match &frame {
            Some(Ok(_)) => {
                if let Some(watch) = &this.watch {
                    watch.offer();
                }
            }
            Some(Err(error)) => this.record.broke(error.as_ref()),
            None => this.rest = Rest::Nothing,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.queued.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let queued = self.queued.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + queued);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + queued);
        }
        hint
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        match self.rest {
            // On HTTP/2 bytes that were handed over may still be waiting for room.
            Rest::Nothing | Rest::Bytes(0) => {}
            Rest::Unknown if self.is_end_stream() => {}
            Rest::Unknown | Rest::Bytes(_) => self.record.cut_short(),
        }
    }
}
