//! Bodies that arrive from elsewhere. Nothing of them counts before it was compared with the hash that names them.

use std::sync::Arc;

use bytes::Bytes;

use super::backend::BackendError;
use super::body::{StagedBody, StoredBlob};
use super::digest::{GROUP_BYTES, Outboard};
use super::read::stored_outboard;
use super::store::Blobs;
use crate::types::{BlobHash, SMALL_BODY_MAX};

/// Why what arrived was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It is not what was asked for. Whoever sent it has other bytes, or is no friend.
    #[error("what arrived is not the body that was asked for: {what} does not fit its hash")]
    Forged {
        /// What of it.
        what: &'static str,
    },
    /// It could not be kept.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// The hash tree of a body of which nothing else may be here yet: proved by the hash.
#[derive(Clone, Debug)]
pub struct Proof {
    hash: BlobHash,
    length: u64,
    outboard: Arc<Outboard>,
}

impl Proof {
    /// The tree of a body of `length` bytes; the bytes are those of its outboard, none for a body of one group.
    pub fn new(hash: BlobHash, length: u64, outboard: Bytes) -> Result<Proof, ReceiveError> {
        let forged = ReceiveError::Forged { what: "its hash tree" };
        match Outboard::from_bytes(outboard).filter(|tree| tree.verify_root(&hash, length)) {
            Some(outboard) => Ok(Proof { hash, length, outboard: Arc::new(outboard) }),
            None => Err(forged),
        }
    }

    /// The length of the outboard of a body, in bytes.
    #[must_use]
    pub fn outboard_length(length: u64) -> u64 {
        if length <= GROUP_BYTES as u64 { 0 } else { length.div_ceil(GROUP_BYTES as u64) * blake3::OUT_LEN as u64 }
    }

    /// The body's hash.
    #[must_use]
    pub fn hash(&self) -> BlobHash {
        self.hash
    }

    /// The body's length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The tree.
    #[must_use]
    pub fn outboard(&self) -> &Outboard {
        &self.outboard
    }

    /// Whether `bytes` stand in the body at `offset`, which is where a group begins; they end with a group, too.
    pub fn check(&self, offset: u64, bytes: &[u8]) -> Result<(), ReceiveError> {
        let forged = || ReceiveError::Forged { what: "a group of it" };
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.length).ok_or_else(forged)?;
        let group = GROUP_BYTES as u64;
        if !offset.is_multiple_of(group) || (!end.is_multiple_of(group) && end != self.length) {
            return Err(forged());
        }
        let sound = if self.length <= group {
            blake3::hash(bytes).as_bytes() == &self.hash.0
        } else {
            (offset / group..)
                .zip(bytes.chunks(GROUP_BYTES))
                .all(|(index, group)| self.outboard.verify_group(index, group))
        };
        if sound { Ok(()) } else { Err(forged()) }
    }
}

impl Blobs {
    /// A small body that arrived, compared with its hash.
    pub fn received_small(&self, hash: BlobHash, bytes: Bytes) -> Result<StagedBody, ReceiveError> {
        let forged = ReceiveError::Forged { what: "its content" };
        if bytes.len() as u64 > SMALL_BODY_MAX || BlobHash::from(blake3::hash(&bytes)) != hash {
            return Err(forged);
        }
        Ok(StagedBody::small(bytes, hash))
    }

    /// The hash tree of a large body that is here, as [`Proof::new`] takes it. May block.
    pub fn outboard(&self, blob: &StoredBlob) -> Result<Bytes, BackendError> {
        Ok(stored_outboard(self, blob)?.as_bytes().clone())
    }
}
