//! Bodies: immutable bytes, known by the BLAKE3 hash of their content.
//!
//! Small bodies (up to [`crate::types::SMALL_BODY_MAX`]) are appended to *segments* and share their syncs; larger ones
//! are files of their own. What is stored is only bytes: which record owns a slot, which content a file
//! is and who refers to it are rows of the catalog, and so is the question of what may be removed.
//!
//! A file id or slot is never reused, so a write that no catalog transaction ever claimed is only dead
//! space: the sweep at start and the collector take it away. Until its transaction has run, a guard in
//! memory ([`SlotGuard`], [`FileGuard`]) keeps a fresh write from being taken for dead space.
//!
//! [`Blobs`] is the asynchronous face: [`Blobs::store`] takes a stream in, [`Blobs::persist`] makes it
//! durable, and after the catalog transaction that refers to it [`StagedBody::claimed`] lets go of it.

mod backend;
mod body;
mod digest;
mod group_map;
mod inbound;
mod partial;
mod read;
mod receive;
mod store;
mod syncer;
#[cfg(test)]
mod tests;

pub use backend::{
    APPEND_BYTES_MAX, Backend, BackendError, BodyReader, BodyWriter, FileGuard, Found, Item, LocalBackend,
    LocalOptions, MemoryBackend, SEGMENT_BYTES, SealedSegment, SlotGuard, SparseFile, SyncJob, Urgency, WrittenFile,
    conformance,
};
pub use body::{StagedBody, Stored, StoredBlob, StoredOutboard};
pub use digest::{Digest, GROUP_BYTES, LEAF_BYTES, Outboard, TreeHasher, leaf_values};
pub use group_map::GroupMap;
pub use partial::Partial;
pub use receive::{Proof, ReceiveError};
pub use store::{BlobLimits, Blobs, BoxError, Observer, StoreError, TRANSFER_BUFFER_BYTES};
pub use syncer::Syncer;
