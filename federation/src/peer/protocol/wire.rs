//! How questions get to other clusters: the seam between what clusters say and what carries it.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::bill::Cost;
use super::refusal::Refusal;
use crate::master::ByteStream;
use crate::types::MemberId;

/// The longest question or answer in JSON, in bytes: a version of 10,000 parts with all they say takes 4 MiB.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What was being done when a body of another cluster broke off, in [`crate::Error::Storage`].
pub const RECEIVING: &str = "receiving a body";

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WireError {
    /// It was surely not asked: there is no link, and none could be made.
    #[error("{why}")]
    NotSent {
        /// Why not.
        why: String,
    },
    /// It was asked, and what became of it is not known.
    #[error("{why}")]
    Unknown {
        /// What happened.
        why: String,
    },
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The answer was not one.
    #[error("{why}")]
    Nonsense {
        /// In which way.
        why: String,
    },
}

/// Carries questions to other clusters.
#[async_trait]
pub trait Wire: Send + Sync + fmt::Debug + 'static {
    /// Asks a question in JSON and brings its answer.
    async fn ask(&self, member: MemberId, path: &'static str, cost: Cost, question: Bytes) -> Result<Bytes, WireError>;

    /// Asks for a part of a body and brings its bytes as they come.
    async fn body(&self, member: MemberId, cost: Cost, question: Bytes) -> Result<ByteStream, WireError>;
}
