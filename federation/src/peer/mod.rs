//! The protocol between clusters: who they are and how they prove it, how requests travel, and what they mean.
//!
//! A cluster is its key ([`Identity`]); a [`Transport`] makes connections whose both ends have proved theirs, and
//! [`Links`] keep them up; an [`Invitation`] is how two clusters learn of each other, [`Membership`] what they know of
//! each other since. [`PeerServer`] answers the questions of [`message`]; [`Wire`] carries them.

mod bounds;
mod link;
mod protocol;
mod transport;
mod who;

pub use link::{
    Body, LinkError, LinkLimits, LinkPeer, LinkStatus, Links, Request, Response, Service, empty_body, full_body,
};
pub use protocol::*;
pub(crate) use protocol::{call, condition, json, read_whole};
pub use transport::{
    Admission, Connection, Direction, Io, MemoryNetwork, MemoryTransport, TlsTransport, Transport, TransportError,
    TransportLimits, conformance,
};
pub use who::{
    INVITATION_LIFE, Identity, InvalidIdentity, InvalidToken, Invitation, KnownCluster, Membership, Secret, SecretHash,
};
