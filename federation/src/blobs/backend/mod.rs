//! The `Backend` seam: where bodies are kept. It is synchronous and always called through `Blocking`.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;

use super::digest::Digest;
use crate::types::{BlobHash, FileId, SegmentId, Slot};

mod claims;
pub mod conformance;
mod file;
mod handles;
mod local;
mod memory;
mod segment;
mod space;
mod sparse;

pub use claims::{FileGuard, SlotGuard};
pub use local::{LocalBackend, LocalOptions};
pub use memory::MemoryBackend;

/// How long a segment grows before the next one begins, unless told otherwise.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The longest body that a segment takes: the hash tree of the largest part is 2.6 MB.
pub const APPEND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Whether a write may use the space that is kept in reserve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Urgency {
    /// Refused once less than the reserve is free.
    #[default]
    Normal,
    /// May use the reserve: what gives space back, as the collector does.
    Reserve,
}

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A small body.
    Slot(Slot),
    /// A segment.
    Segment(SegmentId),
    /// A large body.
    File(FileId),
    /// The store as a whole.
    Store,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Slot(slot) => {
                write!(f, "body {} in segment {:08x} at {}", slot.hash, slot.segment.0, slot.offset)
            }
            Item::Segment(segment) => write!(f, "segment {:08x}", segment.0),
            Item::File(file) => write!(f, "body file {:016x}", file.0),
            Item::Store => f.write_str("the store of bodies"),
        }
    }
}

/// Why a body could not be kept or given back.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BackendError {
    /// It is not there.
    #[error("{what} is missing")]
    Missing {
        /// What was asked for.
        what: Item,
    },
    /// It is there, but it is not what was stored.
    #[error("{what} is damaged")]
    Damaged {
        /// What was asked for.
        what: Item,
    },
    /// The disk is full, or only the reserve is left.
    #[error("no space is left for bodies")]
    NoSpace,
    /// The disk failed.
    #[error("{what} cannot be read or written")]
    Io {
        /// What was asked for.
        what: Item,
        /// What the disk said.
        source: Arc<io::Error>,
    },
}

impl BackendError {
    /// What an error of the disk means for `what`.
    pub(crate) fn from_io(what: Item, source: io::Error) -> BackendError {
        match source.kind() {
            io::ErrorKind::NotFound => BackendError::Missing { what },
            io::ErrorKind::UnexpectedEof => BackendError::Damaged { what },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BackendError::NoSpace,
            _ => BackendError::Io { what, source: Arc::new(source) },
        }
    }
}

/// A large body that is whole and durable in its file. Its name is durable after [`Backend::sync_folder`].
#[derive(Debug)]
pub struct WrittenFile {
    /// Keeps the file from being taken for an unclaimed one.
    pub guard: FileGuard,
    /// Hash, length and tree.
    pub digest: Digest,
}

/// A sync of a body that is still being written.
pub type SyncJob = Box<dyn FnOnce() -> Result<(), BackendError> + Send>;

/// A large body on its way into a file. Dropped before [`BodyWriter::finish`], it leaves nothing.
pub trait BodyWriter: Send + Sync + fmt::Debug {
    /// Which file it will be.
    fn file(&self) -> FileId;

    /// Adds bytes at the end.
    fn write(&mut self, bytes: &[u8]) -> Result<(), BackendError>;

    /// A job that makes durable what was written so far, if so much was written since the last one that it should
    /// not wait for the end. It may run beside further writes, but has to end before [`BodyWriter::finish`].
    fn sync_due(&mut self) -> Option<SyncJob>;

    /// What was written so far.
    fn digest(&self) -> Digest;

    /// Ends the body: its bytes are durable on return, its name after [`Backend::sync_folder`].
    fn finish(self: Box<Self>) -> Result<WrittenFile, BackendError>;
}

/// An open large body; it stays readable when the file is removed.
pub trait BodyReader: Send + Sync + fmt::Debug {
    /// Fills `bytes` from `offset`, unverified; `Damaged` if the file ends before.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), BackendError>;
}

/// A large body of which parts may be missing: a file with holes. Which of it is there, its owner knows.
pub trait SparseFile: BodyReader {
    /// Which file it is.
    fn file(&self) -> FileId;

    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), BackendError>;

    /// Makes durable what was written before the call.
    fn sync(&self) -> Result<(), BackendError>;
}

/// A segment that gets no more bodies and has no unclaimed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// The segment.
    pub segment: SegmentId,
    /// Its length in bytes, headers included.
    pub length: u64,
}

/// What stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A segment.
    Segment {
        /// The segment.
        segment: SegmentId,
        /// Its length in bytes.
        length: u64,
    },
    /// A large body.
    File {
        /// The file.
        file: FileId,
        /// The content that its name says.
        hash: BlobHash,
        /// Its length in bytes.
        length: u64,
        /// Whether a body of this process's life is in it that no transaction has claimed yet: leave it.
        unclaimed: bool,
    },
    /// A large body of which parts may be missing.
    Sparse {
        /// The file.
        file: FileId,
        /// The length of the whole body in bytes; most of it may be a hole.
        length: u64,
    },
    /// What an earlier life of the process left unfinished.
    Unfinished {
        /// The file.
        file: FileId,
        /// Its length in bytes.
        length: u64,
    },
    /// Something that is not the store's.
    Foreign {
        /// Its path on the disk.
        path: String,
    },
}

/// Keeps bodies.
///
/// - What was appended or written may be read at once, and is durable after the sync that is named for it.
/// - Ids of segments and files are never used twice, not even after their removal or a crash.
/// - Every read of a slot is compared with its hash; reads of files are the caller's to verify.
pub trait Backend: Send + Sync + fmt::Debug + 'static {
    /// Appends a body of up to [`APPEND_BYTES_MAX`] whose hash is `hash` to a segment. Durable after [`Backend::sync_segments`].
    fn append(&self, bytes: &[u8], hash: BlobHash, urgency: Urgency) -> Result<SlotGuard, BackendError>;

    /// The body in a slot, compared with its hash.
    fn read_slot(&self, slot: &Slot) -> Result<Bytes, BackendError>;

    /// Makes everything durable whose `append` returned before the call. After an error the bodies that were not
    /// durable yet never will be: their segments have failed and get no more bodies.
    fn sync_segments(&self) -> Result<(), BackendError>;

    /// Whether a sync of the segment failed, so that bodies in it which were not durable then are lost.
    fn has_failed(&self, segment: SegmentId) -> bool;

    /// Lets the next body begin a new segment.
    fn seal_active(&self);

    /// The segments that get no more bodies and in which no slot is guarded, oldest first.
    ///
    /// Ask first and look for owners in the catalog then: a guard ends after the transaction that it was for, so
    /// whatever is owned in a segment of this answer has its row by now, and nothing is added later.
    fn sealed_segments(&self) -> Vec<SealedSegment>;

    /// The segments in which slots are guarded.
    fn segments_unclaimed(&self) -> Vec<SegmentId>;

    /// Whether a slot of the segment is guarded.
    fn is_unclaimed(&self, segment: SegmentId) -> bool {
        self.segments_unclaimed().contains(&segment)
    }

    /// Removes a segment. Fine if it is gone.
    fn remove_segment(&self, segment: SegmentId) -> Result<(), BackendError>;

    /// Begins a large body.
    fn create(&self, urgency: Urgency) -> Result<Box<dyn BodyWriter>, BackendError>;

    /// Begins a body of `length` bytes that may come in any order. Its name is durable after [`Backend::sync_folder`].
    fn create_sparse(&self, length: u64) -> Result<Arc<dyn SparseFile>, BackendError>;

    /// Opens a body that was begun so, or one that was given its name since.
    fn open_sparse(&self, file: FileId, hash: &BlobHash) -> Result<Arc<dyn SparseFile>, BackendError>;

    /// All of it is there and durable: from now on it is a large body like any other, under the same id. Its name is
    /// durable after [`Backend::sync_folder`]. Fine if it is one already.
    fn finish_sparse(&self, file: FileId, hash: &BlobHash) -> Result<FileGuard, BackendError>;

    /// Removes a body that may be incomplete. Fine if it is gone, or whole by now: then it stays.
    fn remove_sparse(&self, file: FileId) -> Result<(), BackendError>;

    /// Makes the names in the file's folder durable.
    fn sync_folder(&self, file: FileId) -> Result<(), BackendError>;

    /// Opens a large body for reading.
    fn reader(&self, file: FileId, hash: &BlobHash) -> Result<Arc<dyn BodyReader>, BackendError>;

    /// Fills `bytes` from `offset` of a large body, unverified.
    fn read_file(&self, file: FileId, hash: &BlobHash, offset: u64, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.reader(file, hash)?.read_at(bytes, offset)
    }

    /// A read-only descriptor of a large body, where the backend has one.
    fn open(&self, file: FileId, hash: &BlobHash) -> Result<Option<OwnedFd>, BackendError>;

    /// Removes a large body. Fine if it is gone.
    fn remove_file(&self, file: FileId, hash: &BlobHash) -> Result<(), BackendError>;

    /// Removes what [`Found::Unfinished`] named. Fine if it is gone.
    fn remove_unfinished(&self, file: FileId) -> Result<(), BackendError>;

    /// Everything in the store. As with [`Backend::sealed_segments`], ask before the catalog is looked at.
    fn list(&self) -> Result<Vec<Found>, BackendError>;

    /// The lowest ids that were never used: what a later life of the store must not begin below.
    fn next_ids(&self) -> (SegmentId, FileId);

    /// Whether there is room for a write of `length` bytes beside the store, such as the catalog's.
    fn admit(&self, length: u64, urgency: Urgency) -> Result<(), BackendError>;

    /// Bytes that can still be written.
    fn free_space(&self) -> Result<u64, BackendError>;

    /// Lets go of the space that is kept aside, if the disk is full. Says whether there was any.
    fn release_spare(&self) -> Result<bool, BackendError> {
        Ok(false)
    }

    /// Keeps space aside where there is room, for a disk that others fill.
    fn keep_spare(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

/// Which folder a file is in: files of one folder share its sync.
pub(crate) fn folder_of(file: FileId) -> u64 {
    file.0 >> 12
}
