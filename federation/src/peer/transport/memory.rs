//! [`Transport`] in memory: named hosts on a network whose lines can be cut, silenced and blocked on demand.
//!
//! Keys are not proved here; the network vouches for its hosts.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::tcp::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT};
use super::{Admission, Connection, Direction, Transport, TransportError};
use crate::types::{ClusterId, PeerAddress};

mod wire;

use wire::{Wire, WireEnd};

/// What a connection holds in each direction, as the buffers of two kernels would.
const LINE_BYTES: usize = 256 * 1024;

/// Connections that nobody has accepted yet.
const ACCEPTED_WAITING_MAX: usize = 16;

/// A network of hosts.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    hosts: HashMap<PeerAddress, Host>,
    /// Between two clusters, the lesser one first.
    wires: HashMap<(ClusterId, ClusterId), Arc<Wire>>,
    /// Who cannot dial whom.
    blocked: HashSet<(ClusterId, ClusterId)>,
}

#[derive(Clone)]
struct Host {
    cluster: ClusterId,
    admission: Admission,
    accepted: mpsc::Sender<Connection>,
    closed: CancellationToken,
}

impl MemoryNetwork {
    /// Puts `cluster` on the network at `address`; whoever was there is gone.
    #[must_use]
    pub fn host(&self, address: PeerAddress, cluster: ClusterId, admission: Admission) -> MemoryTransport {
        let (sender, accepted) = mpsc::channel(ACCEPTED_WAITING_MAX);
        let closed = CancellationToken::new();
        let host = Host { cluster, admission, accepted: sender, closed: closed.clone() };
        self.state().hosts.insert(address.clone(), host);
        let accepted = tokio::sync::Mutex::new(accepted);
        MemoryTransport { network: self.clone(), own: cluster, address, accepted, closed }
    }

    /// Breaks every connection between two clusters and lets none be made, until [`heal`](Self::heal).
    pub fn cut(&self, one: ClusterId, other: ClusterId) {
        self.wire(one, other).cut();
    }

    /// Lets no byte arrive between two clusters, with no sign of it, until [`heal`](Self::heal).
    pub fn silence(&self, one: ClusterId, other: ClusterId) {
        self.wire(one, other).silence();
    }

    /// Lets two clusters reach each other again. What was cut stays broken, what was silenced arrives.
    pub fn heal(&self, one: ClusterId, other: ClusterId) {
        self.wire(one, other).heal();
    }

    /// Lets `from` make no further connections to `to`, as a firewall would.
    pub fn block(&self, from: ClusterId, to: ClusterId) {
        self.state().blocked.insert((from, to));
    }

    /// Takes [`block`](Self::block) back.
    pub fn unblock(&self, from: ClusterId, to: ClusterId) {
        self.state().blocked.remove(&(from, to));
    }

    fn wire(&self, one: ClusterId, other: ClusterId) -> Arc<Wire> {
        self.state().wires.entry((one.min(other), one.max(other))).or_default().clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.state().hosts.keys()).finish()
    }
}

/// One host's end of a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    own: ClusterId,
    address: PeerAddress,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Connection>>,
    closed: CancellationToken,
}

impl MemoryTransport {
    /// The host at `address`, once it can be reached.
    async fn reach(&self, address: &PeerAddress) -> Result<(Host, Arc<Wire>), TransportError> {
        let unreachable =
            |kind: io::ErrorKind| TransportError::Connect { address: address.clone(), source: kind.into() };
        let host = self.network.state().hosts.get(address).cloned();
        let host = host.ok_or_else(|| unreachable(io::ErrorKind::NotFound))?;
        let wire = self.network.wire(self.own, host.cluster);
        if wire.is_silent() {
            sleep(CONNECT_TIMEOUT).await;
            let step = "take the connection";
            return Err(TransportError::TimedOut { address: address.clone(), step, after: CONNECT_TIMEOUT });
        }
        let is_blocked = self.network.state().blocked.contains(&(self.own, host.cluster));
        if is_blocked || wire.is_cut() {
            return Err(unreachable(io::ErrorKind::HostUnreachable));
        }
        if host.closed.is_cancelled() {
            return Err(unreachable(io::ErrorKind::ConnectionRefused));
        }
        Ok((host, wire))
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn dial(
        &self,
        address: &PeerAddress,
        expect: ClusterId,
        direction: Direction,
    ) -> Result<Connection, TransportError> {
        let (host, wire) = self.reach(address).await?;
        if host.cluster != expect {
            let (expected, found) = (expect, host.cluster);
            return Err(TransportError::WrongKey { address: address.clone(), expected, found });
        }
        if !(host.admission)(self.own) {
            return Err(TransportError::Refused { address: address.clone(), own: self.own });
        }
        let (here, there) = tokio::io::duplex(LINE_BYTES);
        let [here, there] = [here, there].map(|line| WireEnd::new(wire.clone(), line));
        let remote = self.address.to_string();
        let taken = Connection { io: Box::new(there), peer: self.own, direction, remote };
        match timeout(HANDSHAKE_TIMEOUT, host.accepted.send(taken)).await {
            Ok(Ok(())) => Ok(Connection { io: Box::new(here), peer: expect, direction, remote: address.to_string() }),
            Ok(Err(_)) => {
                let source = io::ErrorKind::ConnectionRefused.into();
                Err(TransportError::Connect { address: address.clone(), source })
            }
            Err(_) => {
                let (step, after) = ("complete the handshake", HANDSHAKE_TIMEOUT);
                Err(TransportError::TimedOut { address: address.clone(), step, after })
            }
        }
    }

    async fn accept(&self) -> Option<Connection> {
        let mut accepted = self.accepted.lock().await;
        self.closed.run_until_cancelled(accepted.recv()).await.flatten()
    }

    fn close(&self) {
        self.closed.cancel();
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

#[cfg(test)]
mod tests;
