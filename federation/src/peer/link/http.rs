//! HTTP/2 as links speak it: what its numbers are, and why.

use std::time::Duration;

use ::http::Uri;
use ::http::uri::{Authority, Parts, PathAndQuery, Scheme};
use hyper::client::conn::http2 as client;
use hyper::server::conn::http2 as server;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::metered::Metered;
use super::pace;
use crate::peer::transport::Io;

/// What may be under way of one question: the longest one.
pub(super) const QUESTION_WINDOW: u32 = 16 * 1024 * 1024;

/// What may be under way of one answer: one body should fill a line of 1 Gbit/s over 100 ms, on which 12.5 MB are under
/// way. h2 gives a window back when half of it was taken, so no more than the other half is sure to be.
const ANSWER_WINDOW: u32 = 32 * 1024 * 1024;

/// How many times one body's share may be under way over all: those whose readers stopped reading keep theirs. This
/// bounds the memory that they can take.
const SHARES: u32 = 4;

/// Frames are long enough for large bodies to be cheap, and short enough for a small answer between them to be quick.
const FRAME_MAX: u32 = 256 * 1024;

/// What is handed to a stream before the connection has sent it: a few frames, so that the line never waits.
const SEND_BUFFER: usize = 1024 * 1024;

/// The head of a message, its path included. What may be longer travels in bodies.
const HEADERS_MAX: u32 = 64 * 1024;

/// When a silent other side is asked, and how long it has: a dead one is noticed within 20 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams beyond the calls that a side may have open, for the measuring of round trips.
const SPARE_STREAMS: u32 = 8;

/// A connection's bytes, as hyper takes them.
type Bytes = TokioIo<Metered<Box<dyn Io>>>;

/// Where the tasks of one connection run: they end with it, in whatever state they are.
#[derive(Clone)]
pub(super) struct Tasks {
    pub(super) ended: CancellationToken,
    take_timeout: Duration,
}

impl Tasks {
    /// Tasks that end with `ended`; one that answers ends also when its answer is left for `take_timeout`.
    pub(super) fn new(ended: CancellationToken, take_timeout: Duration) -> Tasks {
        Tasks { ended, take_timeout }
    }
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        tokio::spawn(self.ended.clone().run_until_cancelled_owned(pace::watched(task, self.take_timeout)));
    }
}

/// The URI as HTTP/2 needs it. Who is asked is the connection's business, so all have the same name.
pub(super) fn uri(of: &Uri) -> Uri {
    let path = of.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(Authority::from_static("peer"));
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).expect("scheme, authority and path are there")
}

/// The side that asks.
pub(super) async fn ask(
    tasks: Tasks,
    io: Metered<Box<dyn Io>>,
) -> hyper::Result<(client::SendRequest<Body>, client::Connection<Bytes, Body, Tasks>)> {
    client::Builder::new(tasks)
        .timer(TokioTimer::new())
        .initial_stream_window_size(ANSWER_WINDOW)
        .initial_connection_window_size(SHARES * ANSWER_WINDOW)
        .max_frame_size(FRAME_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io))
        .await
}

/// The side that answers, up to `calls_max` calls at once.
pub(super) fn answer<S>(
    tasks: Tasks,
    io: Metered<Box<dyn Io>>,
    calls_max: u32,
    service: S,
) -> server::Connection<Bytes, S, Tasks>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    server::Builder::new(tasks)
        .timer(TokioTimer::new())
        .initial_stream_window_size(QUESTION_WINDOW)
        .initial_connection_window_size(SHARES * QUESTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX)
        .max_concurrent_streams(calls_max.saturating_add(SPARE_STREAMS))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        // Time comes in through the door, and nobody reads it here.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service)
}
