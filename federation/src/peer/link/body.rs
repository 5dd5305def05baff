//! Bodies of requests and answers between clusters, and what makes one that stands still an error.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::LinkLimits;
use super::http::QUESTION_WINDOW;
use super::pace::{Pace, Taking};
use crate::error::BoxError;

/// A body, of known or unknown length.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body without a byte.
#[must_use]
pub fn empty_body() -> Body {
    Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body that is in memory.
#[must_use]
pub fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// The other side sent nothing of a body for too long.
#[derive(Debug, thiserror::Error)]
#[error("no byte of the body arrived for {} s", .0.as_secs_f32())]
struct StoodStill(Duration);

/// The other side sends, but next to nothing.
#[derive(Debug, thiserror::Error)]
#[error("less than {bytes_min} bytes of the body arrived in {} s", .within.as_secs_f32())]
struct Dribbled {
    bytes_min: u64,
    within: Duration,
}

/// A body that arrives. Fails if its reader waits for too long without a byte, or long for next to nothing; a reader that
/// is busy costs nothing.
pub(super) struct Arriving<H> {
    inner: Incoming,
    limit: Duration,
    bytes_min: u64,
    pace: Pace,
    late: Pin<Box<Sleep>>,
    /// Since when the reader waits, and up to when the pace knows of that.
    waiting: Option<(Instant, Instant)>,
    // What is given back once the body is done with.
    _held: H,
}

impl<H: Send + Unpin + 'static> Arriving<H> {
    pub(super) fn boxed(inner: Incoming, limits: &LinkLimits, held: H) -> Body {
        let (limit, bytes_min) = (limits.progress_timeout, limits.progress_bytes_min);
        let (pace, late) = (Pace::new(limit, bytes_min), Box::pin(tokio::time::sleep(limit)));
        Arriving { inner, limit, bytes_min, pace, late, waiting: None, _held: held }.boxed_unsync()
    }
}

impl<H> Arriving<H> {
    fn dribbled(&self) -> BoxError {
        Dribbled { bytes_min: self.bytes_min, within: self.limit }.into()
    }
}

impl<H: Unpin> http_body::Body for Arriving<H> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            let waited = self.waiting.take().map_or(Duration::ZERO, |(_, counted)| counted.elapsed());
            if let Some(Ok(frame)) = &frame {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                if self.pace.moved(bytes, waited) {
                    return Poll::Ready(Some(Err(self.dribbled())));
                }
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let now = Instant::now();
        if self.waiting.is_none() {
            self.waiting = Some((now, now));
            let first = now + self.limit.min(self.pace.left());
            self.late.as_mut().reset(first);
        }
        loop {
            ready!(self.late.as_mut().poll(cx));
            let now = Instant::now();
            let (since, counted) = self.waiting.unwrap_or((now, now));
            let until = since + self.limit;
            if now >= until {
                return Poll::Ready(Some(Err(StoodStill(self.limit).into())));
            }
            if self.pace.moved(0, now - counted) {
                return Poll::Ready(Some(Err(self.dribbled())));
            }
            self.waiting = Some((since, now));
            let next = until.min(now + self.pace.left());
            self.late.as_mut().reset(next);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer, whose taker is watched.
pub(super) struct Answering {
    inner: Body,
    taking: Arc<Taking>,
}

impl Answering {
    pub(super) fn boxed(inner: Body) -> Body {
        match Taking::current() {
            Some(taking) => Answering { inner, taking }.boxed_unsync(),
            None => inner,
        }
    }
}

impl http_body::Body for Answering {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Whoever wants more has taken what there was.
        self.taking.taken();
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(&polled, Poll::Ready(Some(Ok(_)))) {
            self.taking.offer();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The slowest line that is waited for, in bytes per second: 1 Mbit/s. What of a body is under way gets that long.
const SLOWEST_LINE: u32 = 128 * 1024;

/// Whom a body that leaves waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// Whoever gives its bytes, who has limits of their own.
    Source,
    /// The other side, which has to take what there is, since then.
    Taker(Instant),
    /// The answer, since then: everything has left, and a window of it at most is on its way.
    Answer(Instant),
}

/// How far a body that leaves has come.
#[derive(Clone)]
pub(super) struct Progress(Arc<Mutex<Sent>>);

struct Sent {
    waits: WaitsFor,
    bytes: u64,
}

impl Progress {
    /// When the other side has taken too long, as things stand.
    pub(super) fn due(&self, take_within: Duration, answer_within: Duration) -> Instant {
        let Sent { waits, bytes } = *self.sent();
        match waits {
            WaitsFor::Source => Instant::now() + take_within,
            WaitsFor::Taker(since) => since + take_within,
            WaitsFor::Answer(since) => {
                let under_way = u32::try_from(bytes).unwrap_or(u32::MAX).min(QUESTION_WINDOW);
                since + answer_within + Duration::from_secs(under_way.into()) / SLOWEST_LINE
            }
        }
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that leaves, and notes how far it has come.
pub(super) struct Leaving {
    inner: Body,
    progress: Progress,
}

impl Leaving {
    pub(super) fn boxed(inner: Body) -> (Body, Progress) {
        let now = Instant::now();
        let waits = if inner.is_end_stream() { WaitsFor::Answer(now) } else { WaitsFor::Taker(now) };
        let progress = Progress(Arc::new(Mutex::new(Sent { waits, bytes: 0 })));
        (Leaving { inner, progress: progress.clone() }.boxed_unsync(), progress)
    }
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let now = Instant::now();
        let mut sent = self.progress.sent();
        sent.waits = match &polled {
            Poll::Pending => WaitsFor::Source,
            Poll::Ready(Some(Ok(_))) if !self.inner.is_end_stream() => WaitsFor::Taker(now),
            Poll::Ready(_) => WaitsFor::Answer(now),
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            sent.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        drop(sent);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
