//! What clusters say to each other: questions and answers ([`message`]), why there is none ([`Refusal`]), who answers
//! ([`PeerServer`]), who asks ([`Wire`]), and what it costs ([`Bill`]).

mod bill;
mod client;
pub mod message;
mod refusal;
mod server;
mod service;
mod wire;

pub use bill::{Bill, Cost, Crossed};
pub use client::PeerClient;
pub(crate) use client::{call, read_whole};
pub use message::*;
pub(crate) use refusal::condition;
pub use refusal::{Asked, Refusal};
pub(crate) use server::json;
pub use server::{PeerServer, Reply};
pub use service::PeerService;
pub use wire::{MESSAGE_BYTES_MAX, RECEIVING, Wire, WireError};
