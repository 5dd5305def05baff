//! Large bodies of which only parts are here.
//!
//! The bytes stand in a file with holes; a [`GroupMap`] says which groups are there. A group counts when it was compared
//! with the hash tree, and is compared again before it is handed out: a file that is not what the map says is found,
//! and costs another fetch. The map is taken first, then the bytes are synced, then the map may be kept.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use super::backend::{BackendError, FileGuard, SlotGuard, SparseFile};
use super::body::{StoredOutboard, discard, store_outboard};
use super::group_map::GroupMap;
use super::receive::{Proof, ReceiveError};
use super::store::Blobs;
use crate::mutant::{self, Mutant};
use crate::types::{BlobHash, FileId};

/// How much is read at once while a body is verified.
const VERIFY_BYTES: u64 = 1024 * 1024;

/// A large body of which parts may be here.
#[derive(Debug)]
pub struct Partial {
    blobs: Blobs,
    proof: Proof,
    file: Arc<dyn SparseFile>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What is there, as far as is known.
    here: GroupMap,
    /// What of it was compared with the tree in this life.
    checked: GroupMap,
    /// Bytes that came since the map was last taken.
    unkept: u64,
    /// A sync failed: what was written before it may be lost, whatever later ones say.
    failed: bool,
    /// Nobody but this object knows the file; it goes with it.
    unowned: bool,
}

impl Blobs {
    /// Begins a body of which nothing is here. Unless [`Partial::owned`] it goes when it is dropped.
    pub async fn begin_partial(&self, proof: Proof) -> Result<Partial, BackendError> {
        let backend = Arc::clone(self.backend());
        let length = proof.length();
        let file = self.blocking().run(move || backend.create_sparse(length)).await?;
        Ok(self.partial(proof, file, GroupMap::new(length), true))
    }

    /// Opens a body that an earlier life began. Of a map that cannot be its own nothing is believed.
    pub async fn open_partial(&self, proof: Proof, file: FileId, map: Vec<u8>) -> Result<Partial, BackendError> {
        let (backend, hash) = (Arc::clone(self.backend()), proof.hash());
        let file = self.blocking().run(move || backend.open_sparse(file, &hash)).await?;
        let map = GroupMap::from_bytes(map, proof.length()).unwrap_or_else(|| GroupMap::new(proof.length()));
        Ok(self.partial(proof, file, map, false))
    }

    fn partial(&self, proof: Proof, file: Arc<dyn SparseFile>, here: GroupMap, unowned: bool) -> Partial {
        let checked = GroupMap::new(proof.length());
        let state = Mutex::new(State { here, checked, unkept: 0, failed: false, unowned });
        Partial { blobs: self.clone(), proof, file, state }
    }
}

impl Partial {
    /// The content.
    #[must_use]
    pub fn hash(&self) -> BlobHash {
        self.proof.hash()
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.proof.length()
    }

    /// Its hash tree.
    #[must_use]
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Which file it is in.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.file.file()
    }

    /// The first bytes of a range that are here (or not), in whole groups.
    #[must_use]
    pub fn first(&self, here: bool, range: &Range<u64>) -> Option<Range<u64>> {
        self.state().here.first(here, range)
    }

    /// The bytes of a range that are missing, in whole groups, `max` runs at the most.
    #[must_use]
    pub fn missing(&self, range: &Range<u64>, max: usize) -> Vec<Range<u64>> {
        self.state().here.runs(false, range, max)
    }

    /// Whether all of a range is here.
    #[must_use]
    pub fn has(&self, range: &Range<u64>) -> bool {
        self.state().here.has(range)
    }

    /// Whether all of it is here, as far as is known.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.state().here.is_whole()
    }

    /// How many bytes came since the map was last taken.
    #[must_use]
    pub fn unkept(&self) -> u64 {
        let state = self.state();
        if state.failed { 0 } else { state.unkept }
    }

    /// The catalog names the file from now on.
    pub fn owned(&self) {
        self.state().unowned = false;
    }

    /// Adds groups at `offset`, compared with the tree.
    pub async fn add(self: &Arc<Self>, offset: u64, bytes: Bytes) -> Result<(), ReceiveError> {
        let partial = Arc::clone(self);
        let add = move || {
            partial.proof.check(offset, &bytes)?;
            partial.file.write_at(&bytes, offset)?;
            let range = offset..offset + bytes.len() as u64;
            let mut state = partial.state();
            state.here.add(&range);
            state.checked.add(&range);
            state.unkept += bytes.len() as u64;
            Ok(())
        };
        self.blobs.blocking().run(add).await
    }

    /// Bytes that are here, each group compared with the tree; none if they are not, or not what they were.
    pub async fn read(self: &Arc<Self>, range: Range<u64>) -> Result<Option<Bytes>, BackendError> {
        let partial = Arc::clone(self);
        self.blobs.blocking().run(move || partial.read_now(&range)).await
    }

    fn read_now(&self, range: &Range<u64>) -> Result<Option<Bytes>, BackendError> {
        if !self.has(range) {
            return Ok(None);
        }
        let Some(groups) = self.state().here.first(true, range) else { return Ok(None) };
        let length = usize::try_from(groups.end - groups.start).map_err(|_| BackendError::NoSpace)?;
        let mut bytes = BytesMut::zeroed(length);
        let sound = match self.file.read_at(&mut bytes, groups.start) {
            Ok(()) => self.proof.check(groups.start, &bytes).is_ok(),
            // It ends too soon: somebody cut it.
            Err(BackendError::Damaged { .. }) => false,
            Err(error) => return Err(error),
        };
        let mut state = self.state();
        if !sound {
            let file = self.file().0;
            tracing::warn!(file, offset = groups.start, "damaged part of a body given up, to be fetched again");
            state.here.remove(&groups);
            state.checked.remove(&groups);
            return Ok(None);
        }
        state.checked.add(&groups);
        drop(state);
        let at = |position: u64| usize::try_from(position - groups.start).expect("within the buffer");
        Ok(Some(bytes.freeze().slice(at(range.start)..at(range.end))))
    }

    /// Makes durable what is here and says what that is. After a failed sync nothing is durable any more that was not.
    pub async fn sync(self: &Arc<Self>) -> Result<GroupMap, BackendError> {
        let partial = Arc::clone(self);
        let sync = move || {
            // Taken before the sync: what is written meanwhile is not in it.
            let (map, unkept, unowned) = {
                let state = partial.state();
                (state.here.clone(), state.unkept, state.unowned)
            };
            if !mutant::on(Mutant::MapBeforeData) {
                partial.file.sync().inspect_err(|_| partial.state().failed = true)?;
            }
            if unowned {
                partial.blobs.backend().sync_folder(partial.file())?;
            }
            let mut state = partial.state();
            if state.failed {
                return Err(failed_before());
            }
            state.unkept -= unkept;
            Ok(map)
        };
        self.blobs.blocking().run(sync).await
    }

    /// Whether all of it is here. What an earlier life left is compared now; what of it is damaged goes.
    pub async fn verify_whole(self: &Arc<Self>) -> Result<bool, BackendError> {
        let partial = Arc::clone(self);
        let verify = move || {
            let all = 0..partial.length();
            loop {
                let unchecked = {
                    let state = partial.state();
                    if !state.here.is_whole() {
                        return Ok(false);
                    }
                    state.checked.first(false, &all)
                };
                let Some(unchecked) = unchecked else { return Ok(true) };
                let end = unchecked.end.min(unchecked.start + VERIFY_BYTES);
                if partial.read_now(&(unchecked.start..end))?.is_none() {
                    return Ok(false);
                }
            }
        };
        self.blobs.blocking().run(verify).await
    }

    /// Gives a body that is whole and synced the name of one. Durable on return.
    pub async fn finish(self: &Arc<Self>) -> Result<FileGuard, BackendError> {
        let (backend, file, hash) = (Arc::clone(self.blobs.backend()), self.file(), self.hash());
        let finish = move || {
            let guard = backend.finish_sparse(file, &hash)?;
            backend.sync_folder(file)?;
            Ok(guard)
        };
        self.blobs.blocking().run(finish).await
    }

    /// Keeps the hash tree, durable on return.
    pub async fn store_tree(&self) -> Result<(StoredOutboard, Option<SlotGuard>), BackendError> {
        store_outboard(&self.blobs, self.proof.outboard().clone()).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.state().unowned {
            return;
        }
        let (backend, file) = (Arc::clone(self.blobs.backend()), self.file());
        discard(self.blobs.blocking(), move || {
            if let Err(error) = backend.remove_sparse(file) {
                tracing::warn!(file = file.0, %error, "part of a body not removed");
            }
        });
    }
}

fn failed_before() -> BackendError {
    let source = std::io::Error::other("an earlier sync of the body failed");
    BackendError::Io { what: super::backend::Item::Store, source: Arc::new(source) }
}
