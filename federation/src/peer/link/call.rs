//! One call: a connection, the request, the head of the answer.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::body::{Arriving, Leaving, Progress};
use super::http;
use super::peer::{Asking, Peer};
use super::{LinkError, Request, Response};

/// After an attempt to dial has failed, calls fail alike for so long before one of them dials again: what is down is
/// not hammered by those who wait for it.
const REDIAL_PAUSE: Duration = Duration::from_millis(100);

/// How one sending ended without an answer.
enum Failed {
    /// Nothing of it was sent.
    NotSent(Request),
    /// It may have been carried out.
    Perhaps(LinkError),
}

/// Asks `peer`. `deadline` counts until the request is on its way, and again from then until the answer begins.
pub(super) async fn call(peer: &Arc<Peer>, mut request: Request, deadline: Duration) -> Result<Response, LinkError> {
    *request.uri_mut() = http::uri(request.uri());
    let start_by = Instant::now() + deadline;
    let cut_off = peer.life.over.clone();
    let called = cut_off.run_until_cancelled(async {
        let place = timeout_at(start_by, peer.calls.clone().acquire_owned()).await;
        let place = place.map_err(|_| LinkError::TimedOut(peer.cluster))?.map_err(|_| peer.unreachable())?;
        let (head, body) = request.into_parts();
        let (body, progress) = Leaving::boxed(body);
        let answer = send(peer, Request::from_parts(head, body), &progress, start_by, deadline).await?;
        Ok(receive(peer, answer, place))
    });
    called.await.unwrap_or_else(|| Err(peer.gone()))
}

async fn send(
    peer: &Arc<Peer>,
    request: Request,
    progress: &Progress,
    start_by: Instant,
    deadline: Duration,
) -> Result<::http::Response<Incoming>, LinkError> {
    let first = peer.connected(None, start_by).await?;
    let request = match try_send(peer, &first, request, progress, deadline).await {
        Ok(answer) => return Ok(answer),
        Err(Failed::Perhaps(error)) => return Err(error),
        Err(Failed::NotSent(request)) => request,
    };
    let second = peer.connected(Some(first.id), start_by).await?;
    try_send(peer, &second, request, progress, deadline).await.map_err(|failed| match failed {
        Failed::Perhaps(error) => error,
        Failed::NotSent(_) => peer.unreachable(),
    })
}

async fn try_send(
    peer: &Arc<Peer>,
    over: &Asking,
    request: Request,
    progress: &Progress,
    deadline: Duration,
) -> Result<::http::Response<Incoming>, Failed> {
    let take_within = peer.context.limits.progress_timeout;
    let mut sender = over.sender.clone();
    let mut answer = pin!(sender.try_send_request(request));
    loop {
        let due = progress.due(take_within, deadline);
        tokio::select! {
            biased;
            answered = answer.as_mut() => return answered.map_err(|mut failed| match failed.take_message() {
                Some(request) => Failed::NotSent(request),
                None => {
                    let source = failed.into_error().into();
                    Failed::Perhaps(LinkError::Broken { cluster: peer.cluster, source })
                }
            }),
            // The body may have come further meanwhile.
            () = sleep_until(due) => if progress.due(take_within, deadline) <= Instant::now() {
                return Err(Failed::Perhaps(LinkError::TimedOut(peer.cluster)));
            },
        }
    }
}

fn receive(peer: &Peer, answer: ::http::Response<Incoming>, place: OwnedSemaphorePermit) -> Response {
    answer.map(|body| Arriving::boxed(body, &peer.context.limits, place))
}

impl Peer {
    /// A connection on which we ask, other than `except`. Dials if there is none; all who wait share the attempt.
    async fn connected(&self, except: Option<u64>, by: Instant) -> Result<Arc<Asking>, LinkError> {
        let watched = self.state.subscribe();
        let seen = {
            let state = watched.borrow();
            if let Some(asking) = state.asking(except) {
                return Ok(asking);
            }
            let has_just_failed = state.failed_at.is_some_and(|at| at.elapsed() < REDIAL_PAUSE);
            if !state.has_address() || has_just_failed || self.life.closing.is_cancelled() {
                drop(state);
                return Err(self.unreachable());
            }
            state.failures
        };
        self.wake_forward();
        let decided =
            watched.wait_for(|state| state.asking(except).is_some() || state.failures > seen || !state.has_address());
        let found = match timeout_at(by, decided).await {
            Ok(Ok(state)) => state.asking(except),
            Ok(Err(_)) => None,
            Err(_) => return Err(LinkError::TimedOut(self.cluster)),
        };
        found.ok_or_else(|| self.unreachable())
    }
}
