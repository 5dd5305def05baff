//! One peer: where it is, what connects us, and how that has gone.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http2::SendRequest;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::book::Life;
use super::metered::{Metered, Traffic};
use super::{Context, LinkError, LinkStatus, dial};
use crate::peer::transport::{Connection, Direction, Io};
use crate::types::{ClusterId, PeerAddress, Timestamp};
use crate::watch;

/// What a cluster is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is connected and no peer.
    Stranger,
    /// It is a peer, and may have an address.
    Known(Option<PeerAddress>),
}

/// A connection on which we ask.
pub(super) struct Asking {
    /// Which one it is, of this peer.
    pub(super) id: u64,
    pub(super) sender: SendRequest<Body>,
}

/// What changes about a peer, and is waited for.
pub(super) struct State {
    standing: Standing,
    /// The newest last.
    asking: Vec<Arc<Asking>>,
    /// When `asking` became empty or ceased to be.
    since: Timestamp,
    last_error: Option<String>,
    round_trip: Option<Duration>,
    /// Attempts to get a connection on which we ask that came to nothing.
    pub(super) failures: u64,
    pub(super) failed_at: Option<Instant>,
}

impl State {
    /// The newest connection on which we ask, other than `except`.
    pub(super) fn asking(&self, except: Option<u64>) -> Option<Arc<Asking>> {
        let is_usable = |asking: &&Arc<Asking>| Some(asking.id) != except && !asking.sender.is_closed();
        self.asking.iter().rev().find(is_usable).cloned()
    }

    pub(super) fn has_address(&self) -> bool {
        matches!(self.standing, Standing::Known(Some(_)))
    }
}

/// The two tasks that keep a peer dialled, and how they are woken from their waits.
struct Dials {
    stop: CancellationToken,
    forward: Arc<Notify>,
    reverse: Arc<Notify>,
}

/// A peer, or a stranger that is connected.
pub(super) struct Peer {
    pub(super) cluster: ClusterId,
    pub(super) context: Arc<Context>,
    pub(super) life: Life,
    /// Places of calls under way.
    pub(super) calls: Arc<Semaphore>,
    pub(super) state: watch::Sender<State>,
    traffic: Arc<Traffic>,
    next_id: AtomicU64,
    visits: AtomicUsize,
    dials: Mutex<Option<Dials>>,
}

impl Peer {
    pub(super) fn new(cluster: ClusterId, context: Arc<Context>, life: Life) -> Arc<Self> {
        let state = State {
            standing: Standing::Stranger,
            asking: Vec::new(),
            since: context.clock.wall(),
            last_error: None,
            round_trip: None,
            failures: 0,
            failed_at: None,
        };
        Arc::new(Peer {
            cluster,
            calls: Arc::new(Semaphore::new(context.limits.calls_max as usize)),
            context,
            life,
            state: watch::Sender::new(state),
            traffic: Arc::default(),
            next_id: AtomicU64::new(0),
            visits: AtomicUsize::new(0),
            dials: Mutex::new(None),
        })
    }

    pub(super) fn is_known(&self) -> bool {
        self.state.borrow().standing != Standing::Stranger
    }

    /// Makes the cluster what it is from now on, and dials it where it is now.
    pub(super) fn settle(self: &Arc<Self>, standing: Standing) {
        if self.state.borrow().standing == standing {
            return;
        }
        let address = match &standing {
            Standing::Known(address) => address.clone(),
            Standing::Stranger => None,
        };
        self.state.send_modify(|state| state.standing = standing);
        let dials = address.map(|address| self.dial(address));
        let mut current = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = std::mem::replace(&mut *current, dials) {
            former.stop.cancel();
        }
    }

    fn dial(self: &Arc<Self>, address: PeerAddress) -> Dials {
        let stop = self.life.over.child_token();
        let [forward, reverse] = [Direction::Forward, Direction::Reverse].map(|direction| {
            let wake = Arc::new(Notify::new());
            let keep = dial::keep(self.clone(), address.clone(), direction, wake.clone());
            let stopped = stop.clone();
            self.life.spawn(async move {
                stopped.run_until_cancelled(keep).await;
            });
            wake
        });
        Dials { stop, forward, reverse }
    }

    /// Ends everything with the peer.
    pub(super) fn cut_off(&self) {
        self.life.over.cancel();
    }

    /// Dials at once, so that the peer can be asked.
    pub(super) fn wake_forward(&self) {
        if let Some(dials) = &*self.dials.lock().unwrap_or_else(PoisonError::into_inner) {
            dials.forward.notify_one();
        }
    }

    /// Dials at once, so that the peer can ask.
    pub(super) fn wake_reverse(&self) {
        if let Some(dials) = &*self.dials.lock().unwrap_or_else(PoisonError::into_inner) {
            dials.reverse.notify_one();
        }
    }

    /// The connection's bytes, counted.
    pub(super) fn meter(&self, connection: Connection) -> Metered<Box<dyn Io>> {
        Metered::new(connection.io, self.traffic.clone())
    }

    /// Makes a connection known on which we ask, until what is returned is dropped.
    pub(super) fn list(self: &Arc<Self>, sender: SendRequest<Body>, remote: &str) -> Listed {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.state.send_modify(|state| {
            if state.asking.is_empty() {
                state.since = self.context.clock.wall();
                tracing::info!(cluster = %self.cluster, remote, "peer connected");
            }
            state.last_error = None;
            state.asking.push(Arc::new(Asking { id, sender }));
        });
        Listed { peer: self.clone(), id }
    }

    /// Notes that dialling came to nothing.
    pub(super) fn note_failure(&self, direction: Direction, error: &dyn Error) {
        self.note_error(error);
        if direction == Direction::Forward {
            self.state.send_modify(|state| {
                state.failures += 1;
                state.failed_at = Some(Instant::now());
            });
        }
    }

    /// Notes what went wrong. Logs it once, however often it is tried again.
    pub(super) fn note_error(&self, error: &dyn Error) {
        let text = with_causes(error);
        // Nobody waits for a text.
        self.state.modify_quietly(|state| {
            if state.last_error.as_ref() != Some(&text) {
                tracing::warn!(cluster = %self.cluster, error = text, "peer cannot be reached");
                state.last_error = Some(text);
            }
        });
    }

    pub(super) fn note_round_trip(&self, round_trip: Duration) {
        self.state.modify_quietly(|state| state.round_trip = Some(round_trip));
    }

    /// Why a call has no connection.
    pub(super) fn unreachable(&self) -> LinkError {
        let state = self.state.borrow();
        let cause = match &state.last_error {
            _ if self.life.closing.is_cancelled() => "this cluster's own links are closed",
            Some(error) => error,
            None if state.has_address() => "no connection could be made yet",
            None => "it is not connected, and no address of it is known; it has to dial this cluster",
        };
        LinkError::Unreachable { cluster: self.cluster, since: state.since, cause: cause.to_owned() }
    }

    /// Why a call ended with everything else: the peer was removed, or all links were closed.
    pub(super) fn gone(&self) -> LinkError {
        if self.life.closing.is_cancelled() { self.unreachable() } else { LinkError::UnknownPeer(self.cluster) }
    }

    pub(super) fn status(&self) -> LinkStatus {
        let state = self.state.borrow();
        LinkStatus {
            cluster: self.cluster,
            connected: !state.asking.is_empty(),
            since: state.since,
            last_error: state.last_error.clone(),
            round_trip: state.round_trip,
            bytes_sent: self.traffic.sent.load(Ordering::Relaxed),
            bytes_received: self.traffic.received.load(Ordering::Relaxed),
        }
    }

    /// Counts a connection that the peer made to us, until what is returned is dropped.
    pub(super) fn visit(self: &Arc<Self>) -> Visit {
        self.visits.fetch_add(1, Ordering::SeqCst);
        Visit(self.clone())
    }

    pub(super) fn has_visits(&self) -> bool {
        self.visits.load(Ordering::SeqCst) > 0
    }
}

/// A connection on which we ask is known.
pub(super) struct Listed {
    peer: Arc<Peer>,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let peer = &self.peer;
        peer.state.send_modify(|state| {
            state.asking.retain(|asking| asking.id != self.id);
            if state.asking.is_empty() {
                state.since = peer.context.clock.wall();
                state.round_trip = None;
                tracing::info!(cluster = %peer.cluster, "peer disconnected");
            }
        });
    }
}

/// A connection that a peer made to us.
pub(super) struct Visit(Arc<Peer>);

impl Visit {
    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.0
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.visits.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An error and its causes, in one line.
fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| match cause.downcast_ref::<io::Error>() {
        // What rustls says of it is about attackers.
        Some(ended) if ended.kind() == io::ErrorKind::UnexpectedEof => {
            format!("{text}: the other side ended the connection (has it removed this cluster? `elton peer ls` there)")
        }
        _ => format!("{text}: {cause}"),
    })
}
