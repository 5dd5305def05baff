//! Links: connections to peers that are kept up, and requests that travel over them.
//!
//! The side that knows the other's address dials it twice: one connection on which it asks, one on which the other
//! side asks. So one reachable side is enough. What the requests mean is the [`Service`]'s business, but for one: the
//! links answer `/ping` themselves, to measure the round trip.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::transport::Transport;
use crate::clock::Clock;
use crate::error::BoxError;
use crate::ids::IdSource;
use crate::types::{ClusterId, PeerAddress, Timestamp};

mod backoff;
mod body;
mod book;
mod call;
mod dial;
mod http;
mod metered;
mod pace;
mod peer;
mod serve;

pub use body::{Body, empty_body, full_body};

use book::Book;

/// A request between clusters. Its URI is a path and a query.
pub type Request = ::http::Request<Body>;

/// The answer to a request.
pub type Response = ::http::Response<Body>;

/// Answers what other clusters ask.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers `peer`, which has proved its key. It may be a cluster that is no peer, if the transport admitted it: one
    /// that was invited and asks to join. Dropped if the connection ends.
    async fn serve(&self, peer: ClusterId, request: Request) -> Response;
}

/// A peer to keep a link to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPeer {
    /// Who it is.
    pub cluster: ClusterId,
    /// Where it can be reached, if it can.
    pub address: Option<PeerAddress>,
}

/// How long links wait and how much they hold.
#[derive(Debug, Clone)]
pub struct LinkLimits {
    /// For the head of an answer, once the request is on its way.
    pub answer_timeout: Duration,
    /// For the next byte of a body, on either side.
    pub progress_timeout: Duration,
    /// How many bytes of a body have to arrive in every [`LinkLimits::progress_timeout`] that is spent waiting for them.
    pub progress_bytes_min: u64,
    /// For the other side to take a piece of an answer. Longer than a pause between bytes: between us are buffers, and a
    /// reader says that it has room only when half of a window is empty.
    pub take_timeout: Duration,
    /// Between two measurements of the round trip.
    pub ping_interval: Duration,
    /// Before the first new attempt to dial; doubles with each.
    pub backoff_min: Duration,
    /// Before any new attempt to dial.
    pub backoff_max: Duration,
    /// Calls to one peer, and of one peer, up to the ends of their bodies. Others wait for a place.
    pub calls_max: u32,
    /// Clusters that are connected and no peers.
    pub strangers_max: usize,
    /// How long one of those may stay connected.
    pub stranger_lifetime: Duration,
    /// For requests that are being answered, when the links are closed.
    pub close_grace: Duration,
}

impl Default for LinkLimits {
    fn default() -> Self {
        LinkLimits {
            answer_timeout: Duration::from_secs(30),
            progress_timeout: Duration::from_secs(30),
            // 1 KiB/s, as of clients.
            progress_bytes_min: 30 * 1024,
            take_timeout: Duration::from_secs(320),
            ping_interval: Duration::from_secs(10),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            calls_max: 256,
            strangers_max: 16,
            stranger_lifetime: Duration::from_secs(60),
            close_grace: Duration::from_secs(5),
        }
    }
}

/// How a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// To whom.
    pub cluster: ClusterId,
    /// Whether it can be asked now.
    pub connected: bool,
    /// Since when that is so.
    pub since: Timestamp,
    /// What went wrong last, until it is connected again.
    pub last_error: Option<String>,
    /// How long an answer takes at least, as measured last while connected.
    pub round_trip: Option<Duration>,
    /// Bytes that went there over all connections, above TLS.
    pub bytes_sent: u64,
    /// Bytes that came from there.
    pub bytes_received: u64,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no connection, and none can be made. Nothing was sent.
    #[error("cluster {cluster} cannot be reached since {since}: {cause}")]
    Unreachable {
        /// Who.
        cluster: ClusterId,
        /// Since when there is no connection.
        since: Timestamp,
        /// What went wrong last.
        cause: String,
    },
    /// The cluster is no peer, or no longer. Something may have been sent if it was a peer until now.
    #[error("cluster {0} is no peer; invite it with `elton peer invite` or join it with `elton peer join TOKEN`")]
    UnknownPeer(ClusterId),
    /// The answer took too long. The request may have been carried out.
    #[error("cluster {0} did not answer in time; try again, and see `elton peer ls` for the state of the link")]
    TimedOut(ClusterId),
    /// The connection broke, or the request's own body did. The request may have been carried out.
    #[error("the connection to cluster {cluster} broke during the request; try again")]
    Broken {
        /// Who.
        cluster: ClusterId,
        /// How.
        source: BoxError,
    },
}

/// What every part of the links needs.
struct Context {
    transport: Arc<dyn Transport>,
    service: Arc<dyn Service>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    limits: LinkLimits,
}

/// The links of a cluster. Dropping them closes them at once.
pub struct Links(Arc<Book>);

impl Links {
    /// Takes what comes in through `transport`, on tasks of the current runtime, and knows no peer yet.
    #[must_use]
    pub fn start(
        transport: Arc<dyn Transport>,
        service: Arc<dyn Service>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        limits: LinkLimits,
    ) -> Arc<Self> {
        let book = Book::new(Context { transport, service, clock, ids, limits });
        book.clone().open();
        Arc::new(Links(book))
    }

    /// Keeps links to `peers` from now on and to no others: a peer that is not among them is cut off at once, with its
    /// requests; one whose address changed is dialled there. What came in from a peer stays.
    pub fn set_peers(&self, peers: Vec<LinkPeer>) {
        self.0.set_peers(peers);
    }

    /// Asks `cluster`. The answer's head has [`LinkLimits::answer_timeout`], its body has to make progress.
    ///
    /// Where there is no connection and the address is known, it is dialled at once. A request that was surely not sent
    /// is sent once more, over a new connection; whether to repeat any other is the caller's decision. Whoever has
    /// an answer reads it to its end or drops it: what lies unread takes room from the other answers.
    pub async fn call(&self, cluster: ClusterId, request: Request) -> Result<Response, LinkError> {
        self.call_within(cluster, request, self.0.limits().answer_timeout).await
    }

    /// Asks `cluster`, whose answer's head has `deadline`; it counts from when the request has left, and what of its body
    /// is still under way gets as long as a slow line takes.
    pub async fn call_within(
        &self,
        cluster: ClusterId,
        request: Request,
        deadline: Duration,
    ) -> Result<Response, LinkError> {
        let peer = self.0.peer(cluster).ok_or(LinkError::UnknownPeer(cluster))?;
        call::call(&peer, request, deadline).await
    }

    /// How the links to all peers are, in the order of their fingerprints.
    #[must_use]
    pub fn status(&self) -> Vec<LinkStatus> {
        self.0.status()
    }

    /// Takes nothing new, lets requests that are being answered finish within [`LinkLimits::close_grace`], and returns
    /// once nothing is left.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.0.cut_off();
    }
}

#[cfg(test)]
mod tests;
