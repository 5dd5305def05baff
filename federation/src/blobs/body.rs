//! Bodies between their arrival and the catalog transaction that claims them.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::backend::{Backend, BackendError, BodyWriter, FileGuard, Item, SlotGuard, WrittenFile};
use super::digest::{Digest, Outboard};
use super::store::Blobs;
use super::syncer::detach;
use crate::blocking::Blocking;
use crate::types::{BlobHash, FileId, Piece, Slot};

/// The longest outboard that stands with its record, in bytes: 2 MiB of body.
pub(super) const INLINE_OUTBOARD_BYTES_MAX: usize = 1024;

/// Where the hash tree of a large body is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StoredOutboard {
    /// The body has one group and needs none.
    None,
    /// With the record: up to 1 KiB, for bodies up to 2 MiB.
    Inline(Vec<u8>),
    /// In a segment. The slot needs an owner in the catalog like any other.
    Slot(Slot),
}

/// A large body in a file, as the catalog keeps it and [`Blobs::stream`] reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoredBlob {
    /// The content.
    pub hash: BlobHash,
    /// Its length in bytes.
    pub length: u64,
    /// The file that holds it.
    pub file: FileId,
    /// The hash tree.
    pub outboard: StoredOutboard,
}

/// Where a persisted body stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nowhere: it has no bytes.
    Empty,
    /// In a segment.
    Slot(Slot),
    /// In a file.
    Blob(StoredBlob),
}

impl Stored {
    /// How a record refers to the body; `None` when it is empty.
    #[must_use]
    pub fn piece(&self) -> Option<Piece> {
        match self {
            Stored::Empty => None,
            Stored::Slot(slot) => Some(Piece::Slot(*slot)),
            Stored::Blob(blob) => Some(Piece::Blob { hash: blob.hash, length: blob.length }),
        }
    }
}

/// A body that no catalog transaction has claimed yet. Dropped before [`StagedBody::claimed`], it leaves nothing.
///
/// Whoever runs the transaction must keep the staged body until its outcome is known, also when the
/// client has gone: a body dropped while its transaction still commits would be missing.
#[derive(Debug)]
#[must_use = "dropping a staged body removes it"]
pub struct StagedBody {
    hash: BlobHash,
    length: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Empty,
    /// In memory only.
    Small(Bytes),
    Slot(SlotGuard),
    /// In a file, which is not durable.
    Writing(Unfinished),
    File {
        file: OwnedFile,
        outboard: StoredOutboard,
        _outboard_guard: Option<SlotGuard>,
    },
    /// Making it durable failed or was given up.
    Lost,
}

impl StagedBody {
    pub(super) fn small(bytes: Bytes, hash: BlobHash) -> StagedBody {
        let length = bytes.len() as u64;
        let state = if bytes.is_empty() { State::Empty } else { State::Small(bytes) };
        StagedBody { hash, length, state }
    }

    pub(super) fn writing(writer: Unfinished, hash: BlobHash, length: u64) -> StagedBody {
        StagedBody { hash, length, state: State::Writing(writer) }
    }

    /// The hash of the content.
    #[must_use]
    pub fn hash(&self) -> BlobHash {
        self.hash
    }

    /// The length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The bytes of a small body that is not persisted yet.
    #[must_use]
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.state {
            State::Small(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Where the body stands; `None` before it is persisted.
    #[must_use]
    pub fn stored(&self) -> Option<Stored> {
        match &self.state {
            State::Empty => Some(Stored::Empty),
            State::Slot(guard) => Some(Stored::Slot(guard.slot())),
            State::File { file, outboard, .. } => Some(Stored::Blob(StoredBlob {
                hash: self.hash,
                length: self.length,
                file: file.file(),
                outboard: outboard.clone(),
            })),
            State::Small(_) | State::Writing(_) | State::Lost => None,
        }
    }

    /// A catalog transaction owns the body now.
    pub fn claimed(mut self) {
        if let State::File { file, .. } = &mut self.state {
            file.release();
        }
    }

    /// Whether a transaction owns the body is not known: the bytes stay, and the sweep, which asks the
    /// catalog, removes them if it does not.
    pub fn leave(self) {
        self.claimed();
    }

    pub(super) fn set_slot(&mut self, guard: SlotGuard) {
        self.state = State::Slot(guard);
    }

    /// Makes a large body durable; a body that is not in a file is left as it is.
    pub(super) async fn persist_file(&mut self, blobs: &Blobs) -> Result<(), BackendError> {
        let writer = match std::mem::replace(&mut self.state, State::Lost) {
            State::Writing(writer) => writer,
            State::Lost => {
                let source = std::io::Error::other("the body was lost when it was made durable before");
                return Err(BackendError::Io { what: Item::Store, source: Arc::new(source) });
            }
            other => {
                self.state = other;
                return Ok(());
            }
        };
        let backend = Arc::clone(blobs.backend());
        let (file, digest) = blobs.blocking().run(move || writer.finish(backend)).await?;
        let folder = blobs.syncer().folder(file.file());
        let outboard = store_outboard(blobs, digest.outboard);
        let ((), (outboard, guard)) = futures_util::future::try_join(folder, outboard).await?;
        self.state = State::File { file, outboard, _outboard_guard: guard };
        Ok(())
    }
}

/// Keeps a hash tree where its length says.
pub(super) async fn store_outboard(
    blobs: &Blobs,
    outboard: Outboard,
) -> Result<(StoredOutboard, Option<SlotGuard>), BackendError> {
    let bytes = outboard.as_bytes();
    match bytes.len() {
        0 => Ok((StoredOutboard::None, None)),
        1..=INLINE_OUTBOARD_BYTES_MAX => Ok((StoredOutboard::Inline(bytes.to_vec()), None)),
        _ => {
            let guard = blobs.append_bytes(bytes.clone(), super::Urgency::Normal).await?;
            Ok((StoredOutboard::Slot(guard.slot()), Some(guard)))
        }
    }
}

/// Runs a job that nobody waits for: on a thread where there are any, else here.
pub(super) fn discard(blocking: &Arc<dyn Blocking>, job: impl FnOnce() + Send + 'static) {
    if tokio::runtime::Handle::try_current().is_ok() {
        detach(blocking.run_job(Box::new(job)));
    } else {
        job();
    }
}

/// A body on its way into a file, which is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Unfinished {
    writer: Option<Box<dyn BodyWriter>>,
    blocking: BlockingHandle,
}

/// `Blocking` says nothing of itself, and those who hold it still should.
struct BlockingHandle(Arc<dyn Blocking>);

impl std::fmt::Debug for BlockingHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blocking")
    }
}

impl Unfinished {
    pub(super) fn new(writer: Box<dyn BodyWriter>, blocking: &Arc<dyn Blocking>) -> Unfinished {
        Unfinished { writer: Some(writer), blocking: BlockingHandle(Arc::clone(blocking)) }
    }

    pub(super) fn writer(&mut self) -> &mut dyn BodyWriter {
        &mut **self.writer.as_mut().expect("only `finish` and `drop` take it, and they end this")
    }

    /// Ends the body. For use in a `Blocking` job.
    fn finish(mut self, backend: Arc<dyn Backend>) -> Result<(OwnedFile, Digest), BackendError> {
        let writer = self.writer.take().expect("only `finish` and `drop` take it, and they end this");
        let WrittenFile { guard, digest } = writer.finish()?;
        let blocking = BlockingHandle(Arc::clone(&self.blocking.0));
        Ok((OwnedFile { guard: Some(guard), last: None, hash: digest.hash, backend, blocking }, digest))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            discard(&self.blocking.0, move || drop(writer));
        }
    }
}

/// A file that is whole, and is removed when this is dropped before its release.
#[derive(Debug)]
struct OwnedFile {
    guard: Option<FileGuard>,
    /// Which file it was, once released.
    last: Option<FileId>,
    hash: BlobHash,
    backend: Arc<dyn Backend>,
    blocking: BlockingHandle,
}

impl OwnedFile {
    fn file(&self) -> FileId {
        self.guard.as_ref().map(FileGuard::file).or(self.last).expect("the guard is there, or what it guarded")
    }

    fn release(&mut self) {
        self.last = self.guard.take().map(FileGuard::claimed);
    }
}

impl Drop for OwnedFile {
    fn drop(&mut self) {
        let Some(guard) = self.guard.take() else { return };
        let (backend, hash) = (Arc::clone(&self.backend), self.hash);
        discard(&self.blocking.0, move || {
            if let Err(error) = backend.remove_file(guard.file(), &hash) {
                tracing::warn!(file = guard.file().0, %error, "unclaimed body not removed");
            }
        });
    }
}
