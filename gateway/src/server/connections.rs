//! The connections that are open, and who has to go when there is no place for another.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

use super::activity::Activity;
use super::limits::HttpLimits;

/// Whom a bound per peer is for: an IPv4 address, or the /64 of an IPv6 address, all of which one host may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PeerKey(IpAddr);

impl PeerKey {
    fn of(peer: SocketAddr) -> Self {
        PeerKey(match peer.ip().to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        })
    }
}

/// Why a connection has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Its peer has its share, and all of those are busy.
    Peer,
    /// All places are taken by connections that are busy.
    All,
}

/// The connections of a server.
#[derive(Debug)]
pub struct Connections {
    connections_max: usize,
    connections_per_peer_max: usize,
    requests_per_peer_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    open: HashMap<u64, Open>,
    peers: HashMap<PeerKey, PeerShare>,
}

#[derive(Debug)]
struct Open {
    peer: PeerKey,
    activity: Arc<Activity>,
    evicted: Arc<Notify>,
}

#[derive(Debug)]
struct PeerShare {
    connections: usize,
    requests: Arc<Semaphore>,
}

/// A connection's place; free again when it is dropped.
#[derive(Debug)]
pub struct Ticket {
    connections: Arc<Connections>,
    id: u64,
    /// What the connection does.
    pub activity: Arc<Activity>,
    /// The places for requests that its peer has.
    pub requests: Arc<Semaphore>,
    /// Told when the place was given to another.
    pub evicted: Arc<Notify>,
}

impl Connections {
    /// None so far.
    #[must_use]
    pub fn new(limits: &HttpLimits) -> Arc<Self> {
        Arc::new(Connections {
            connections_max: limits.connections_max,
            connections_per_peer_max: limits.connections_per_peer_max,
            requests_per_peer_max: limits.requests_in_flight_per_peer_max,
            table: Mutex::default(),
        })
    }

    /// A place for a connection with `peer`. Where there is none, the connection that was quiet the longest has to go:
    /// connections that do nothing must not keep others, and health probes, out.
    pub fn admit(self: &Arc<Self>, peer: SocketAddr) -> Result<Ticket, Full> {
        let peer = PeerKey::of(peer);
        let mut table = self.table();
        let of_peer = table.peers.get(&peer).map_or(0, |share| share.connections);
        if of_peer >= self.connections_per_peer_max {
            table.evict(|open| open.peer == peer).ok_or(Full::Peer)?;
        } else if table.open.len() >= self.connections_max {
            table.evict(|_| true).ok_or(Full::All)?;
        }
        let share = table.peers.entry(peer).or_insert_with(|| PeerShare {
            connections: 0,
            requests: Arc::new(Semaphore::new(self.requests_per_peer_max)),
        });
        share.connections += 1;
        let requests = share.requests.clone();
        table.last += 1;
        let id = table.last;
        let (activity, evicted) = (Activity::new(), Arc::new(Notify::new()));
        table.open.insert(id, Open { peer, activity: activity.clone(), evicted: evicted.clone() });
        Ok(Ticket { connections: self.clone(), id, activity, requests, evicted })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held; were it otherwise, the table would still be whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Ends the connection that was quiet the longest among those that `may_go`. `None` if all of them are busy.
    fn evict(&mut self, may_go: impl Fn(&Open) -> bool) -> Option<()> {
        let quiet = self.open.iter().filter(|(_, open)| may_go(open));
        let quiet = quiet.filter_map(|(id, open)| Some((open.activity.quiet_since()?, *id)));
        let (_, id) = quiet.min()?;
        let open = self.remove(id)?;
        open.evicted.notify_one();
        Some(())
    }

    fn remove(&mut self, id: u64) -> Option<Open> {
        let open = self.open.remove(&id)?;
        if let Some(share) = self.peers.get_mut(&open.peer) {
            share.connections -= 1;
            if share.connections == 0 {
                self.peers.remove(&open.peer);
            }
        }
        Some(open)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // It is gone already if it was evicted.
        drop(self.connections.table().remove(self.id));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn connections(all: usize, of_peer: usize) -> Arc<Connections> {
        let limits = HttpLimits { connections_max: all, connections_per_peer_max: of_peer, ..HttpLimits::default() };
        Connections::new(&limits)
    }

    fn peer(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().expect("an address"), 1)
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_was_quiet_the_longest_goes() {
        let all = connections(2, 2);
        let first = all.admit(peer("192.0.2.1")).expect("a place");
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = all.admit(peer("192.0.2.2")).expect("a place");
        let busy = first.activity.begin();
        let third = all.admit(peer("192.0.2.3")).expect("the second's place");
        second.evicted.notified().await;
        let _busy = (busy, third.activity.begin());
        assert_eq!(all.admit(peer("192.0.2.4")).map(|_| ()), Err(Full::All));
        drop(first);
        assert!(all.admit(peer("192.0.2.4")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_has_a_share() {
        let all = connections(9, 1);
        let one = all.admit(peer("2001:db8::1")).expect("a place");
        let _request = one.activity.begin();
        assert_eq!(all.admit(peer("2001:db8::2")).map(|_| ()), Err(Full::Peer), "of the same /64");
        assert!(all.admit(peer("2001:db8:0:1::1")).is_ok());
        drop(one);
        assert!(all.table().open.is_empty() && all.table().peers.is_empty());
    }
}
