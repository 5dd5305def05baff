//! The `Transport` seam: connections to clusters whose keys were proved.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::types::{ClusterId, PeerAddress};

pub mod conformance;
mod memory;
mod tcp;
mod tls;

pub use memory::{MemoryNetwork, MemoryTransport};
pub use tcp::{TlsTransport, TransportLimits};

/// Who asks on a connection. Where only one side can be reached, it is dialled for both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The side that dialled asks.
    Forward,
    /// The side that was dialled asks.
    Reverse,
}

/// What a connection reads from and writes to.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to a cluster that has proved its key. Dropping it closes it.
pub struct Connection {
    /// Its bytes.
    pub io: Box<dyn Io>,
    /// Who is at the other end.
    pub peer: ClusterId,
    /// Who asks.
    pub direction: Direction,
    /// Where the other end is, for people.
    pub remote: String,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Connection { io: _, peer, direction, remote } = self;
        write!(f, "Connection({direction:?}, {peer} at {remote})")
    }
}

/// Whether a cluster may connect: it is a peer, or an invitation is open. Asked in every handshake, so it is quick.
pub type Admission = Arc<dyn Fn(ClusterId) -> bool + Send + Sync>;

/// Makes and takes connections. Both ends of a connection have proved their keys before either is handed out.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug + 'static {
    /// Connects to `address`, where `expect` has to be. Answers or fails within seconds, whatever the other side does;
    /// once it has answered, the other side has admitted us. Dropping the future gives the attempt up.
    async fn dial(
        &self,
        address: &PeerAddress,
        expect: ClusterId,
        direction: Direction,
    ) -> Result<Connection, TransportError>;

    /// The next connection that somebody made to us, after its handshake; `None` once closed. Several may wait.
    async fn accept(&self) -> Option<Connection>;

    /// Takes no further connections. Those that were handed out stay.
    fn close(&self);
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Nobody answers there.
    #[error("cannot connect to {address}; check that the cluster runs and that its peer port can be reached")]
    Connect {
        /// Where.
        address: PeerAddress,
        /// What the network said.
        source: io::Error,
    },
    /// Somebody else answers there.
    #[error(
        "{address} showed the key of cluster {found}, where {expected} was expected; if the cluster got a new key, \
         ask its operator for the fingerprint and use `elton peer trust NAME --fingerprint F`"
    )]
    WrongKey {
        /// Where.
        address: PeerAddress,
        /// Who should have answered.
        expected: ClusterId,
        /// Who did.
        found: ClusterId,
    },
    /// The other side does not know us.
    #[error("{address} does not admit cluster {own}; ask its operator for an invitation (`elton peer invite`)")]
    Refused {
        /// Where.
        address: PeerAddress,
        /// Who we are.
        own: ClusterId,
    },
    /// The two sides did not come to terms.
    #[error("the handshake with {address} failed; check that this is the peer port of a cluster")]
    Handshake {
        /// Where.
        address: PeerAddress,
        /// What went wrong.
        source: io::Error,
    },
    /// The other side took too long.
    #[error("{address} did not {step} within {} s", after.as_secs_f32())]
    TimedOut {
        /// Where.
        address: PeerAddress,
        /// What it did not do.
        step: &'static str,
        /// How long it had.
        after: Duration,
    },
}
