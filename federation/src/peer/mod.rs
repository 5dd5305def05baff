//! The protocol between clusters: who they are and how they prove it, how requests travel, and what they mean.
//!
//! A cluster is its key ([`Identity`]); a [`Transport`] makes connections whose both ends have proved theirs, and
//! [`Links`] keep them up; an [`Invitation`] is how two clusters learn of each other, [`Membership`] what they know of
//! each other since. [`PeerServer`] answers the questions of [`message`]; [`Wire`] carries them.

mod bill;
mod client;
pub mod conformance;
mod identity;
mod link;
mod membership;
mod memory;
pub mod message;
mod places;
mod quiet;
mod refusal;
mod server;
mod service;
mod tcp;
mod tls;
mod token;
mod transport;
mod wire;

pub use bill::{Bill, Cost, Crossed};
pub use client::PeerClient;
pub(crate) use client::{call, read_whole};
pub use identity::{Identity, InvalidIdentity};
pub use link::{
    Body, LinkError, LinkLimits, LinkPeer, LinkStatus, Links, Request, Response, Service, empty_body, full_body,
};
pub use membership::{INVITATION_LIFE, KnownCluster, Membership};
pub use memory::{MemoryNetwork, MemoryTransport};
pub use message::*;
pub(crate) use refusal::condition;
pub use refusal::{Asked, Refusal};
pub(crate) use server::json;
pub use server::{PeerServer, Reply};
pub use service::PeerService;
pub use tcp::{TlsTransport, TransportLimits};
pub use token::{InvalidToken, Invitation, Secret, SecretHash};
pub use transport::{Admission, Connection, Direction, Io, Transport, TransportError};
pub use wire::{MESSAGE_BYTES_MAX, Wire, WireError};
