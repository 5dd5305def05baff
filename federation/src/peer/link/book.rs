//! Who is a peer: the book that links are kept by.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::peer::{Peer, Standing};
use super::{Context, LinkLimits, LinkPeer, LinkStatus};
use crate::peer::transport::{Connection, Direction};
use crate::types::ClusterId;

/// What is over, for whom, and what still runs.
#[derive(Clone)]
pub(super) struct Life {
    /// Nothing new: connections finish what is under way.
    pub(super) closing: CancellationToken,
    /// Everything ends where it is.
    pub(super) over: CancellationToken,
    pub(super) tasks: TaskTracker,
    runtime: Handle,
}

impl Life {
    fn new() -> Self {
        Life {
            closing: CancellationToken::new(),
            over: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        }
    }

    /// A life within this one, which may be over before.
    fn within(&self) -> Life {
        Life { over: self.over.child_token(), ..self.clone() }
    }

    /// Runs `task` until it ends or all is over.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let until = self.over.clone().run_until_cancelled_owned(task);
        self.tasks.spawn_on(until, &self.runtime);
    }
}

/// The peers, and the strangers that are connected.
pub(super) struct Book {
    context: Arc<Context>,
    life: Life,
    entries: Mutex<BTreeMap<ClusterId, Arc<Peer>>>,
}

impl Book {
    pub(super) fn new(context: Context) -> Arc<Self> {
        Arc::new(Book { context: Arc::new(context), life: Life::new(), entries: Mutex::default() })
    }

    pub(super) fn limits(&self) -> &LinkLimits {
        &self.context.limits
    }

    /// Begins to take connections.
    pub(super) fn open(self: Arc<Self>) {
        let life = self.life.clone();
        life.spawn(async move {
            while let Some(connection) = self.context.transport.accept().await {
                self.clone().take(connection);
            }
        });
    }

    pub(super) fn set_peers(&self, peers: Vec<LinkPeer>) {
        if self.life.closing.is_cancelled() {
            return;
        }
        let wanted: BTreeMap<_, _> = peers.into_iter().map(|peer| (peer.cluster, peer.address)).collect();
        let mut entries = self.entries();
        entries.retain(|cluster, peer| {
            let stays = wanted.contains_key(cluster) || !peer.is_known();
            if !stays {
                peer.cut_off();
            }
            stays
        });
        for (cluster, address) in wanted {
            let peer = entries.entry(cluster).or_insert_with(|| self.new_peer(cluster));
            peer.settle(Standing::Known(address));
        }
    }

    fn new_peer(&self, cluster: ClusterId) -> Arc<Peer> {
        Peer::new(cluster, self.context.clone(), self.life.within())
    }

    /// Runs a connection that somebody made to us. Of strangers, those who ask are heard.
    fn take(self: Arc<Self>, connection: Connection) {
        let mut entries = self.entries();
        let peer = match entries.get(&connection.peer) {
            Some(peer) => peer.clone(),
            None => {
                let strangers = entries.values().filter(|peer| !peer.is_known()).count();
                if connection.direction == Direction::Reverse || strangers >= self.limits().strangers_max {
                    tracing::debug!(?connection, strangers, "a cluster that is no peer was hung up on");
                    return;
                }
                let stranger = self.new_peer(connection.peer);
                entries.insert(connection.peer, stranger.clone());
                stranger
            }
        };
        // Counted while the book is held, so that the entry outlives the connection.
        let visit = peer.visit();
        drop(entries);
        // It is there, so it can most likely be reached.
        peer.wake_forward();
        peer.wake_reverse();
        let (life, book) = (peer.life.clone(), self);
        life.spawn(async move {
            let peer = visit.peer().clone();
            peer.run_taken(connection).await;
            drop(visit);
            book.forget_stranger(&peer);
        });
    }

    /// Strikes a stranger out once its last connection has ended.
    fn forget_stranger(&self, peer: &Arc<Peer>) {
        let mut entries = self.entries();
        let is_current = entries.get(&peer.cluster).is_some_and(|current| Arc::ptr_eq(current, peer));
        if is_current && !peer.is_known() && !peer.has_visits() {
            entries.remove(&peer.cluster);
        }
    }

    pub(super) fn peer(&self, cluster: ClusterId) -> Option<Arc<Peer>> {
        self.entries().get(&cluster).filter(|peer| peer.is_known()).cloned()
    }

    pub(super) fn status(&self) -> Vec<LinkStatus> {
        self.entries().values().filter(|peer| peer.is_known()).map(|peer| peer.status()).collect()
    }

    pub(super) async fn close(&self) {
        self.context.transport.close();
        self.life.closing.cancel();
        self.life.tasks.close();
        if tokio::time::timeout(self.limits().close_grace, self.life.tasks.wait()).await.is_err() {
            tracing::warn!("requests of peers were cut off: they took longer than the grace at the end");
        }
        self.cut_off();
        self.life.tasks.wait().await;
    }

    pub(super) fn cut_off(&self) {
        self.life.closing.cancel();
        self.life.over.cancel();
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<ClusterId, Arc<Peer>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
