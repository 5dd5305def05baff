//! Keeping a peer dialled: one task for each direction, for as long as the peer has its address.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::peer::Peer;
use crate::peer::transport::{Connection, Direction};
use crate::types::PeerAddress;

/// A connection that held so long was a good one: the next attempt begins with the shortest wait.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// Dials the peer at `address` and runs the connection, again and again. `wake` ends a wait.
pub(super) async fn keep(peer: Arc<Peer>, address: PeerAddress, direction: Direction, wake: Arc<Notify>) {
    let limits = &peer.context.limits;
    let mut backoff = Backoff::new(limits.backoff_min, limits.backoff_max);
    let closing = peer.life.closing.clone();
    while !closing.is_cancelled() {
        let dialled = closing.run_until_cancelled(peer.context.transport.dial(&address, peer.cluster, direction));
        match dialled.await {
            None => return,
            Some(Err(error)) => peer.note_failure(direction, &error),
            Some(Ok(connection)) => {
                let since = Instant::now();
                if direction == Direction::Forward {
                    // What can be reached one way can be reached the other way.
                    peer.wake_reverse();
                }
                peer.run_dialled(connection).await;
                if since.elapsed() >= GOOD_AFTER {
                    backoff.reset();
                }
            }
        }
        let wait = backoff.next(&*peer.context.ids);
        tokio::select! {
            // In this order always, so that a simulation repeats itself.
            biased;
            () = closing.cancelled() => return,
            () = wake.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

impl Peer {
    /// Runs a connection that we made, to its end.
    async fn run_dialled(self: &Arc<Self>, connection: Connection) {
        match connection.direction {
            Direction::Forward => self.ask(connection).await,
            Direction::Reverse => self.answer(connection).await,
        }
    }

    /// Runs a connection that the peer made, to its end.
    pub(super) async fn run_taken(self: &Arc<Self>, connection: Connection) {
        match connection.direction {
            Direction::Forward => self.answer(connection).await,
            Direction::Reverse => self.ask(connection).await,
        }
    }
}
