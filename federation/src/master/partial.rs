//! Bodies of other clusters of which parts are here: opened, kept, made whole, evicted.
//!
//! What is read of a large body is written to a file with holes; the row of (bucket, content) says which groups are
//! there. It is written behind the data, in the background: a crash forgets parts, and never makes up any. When all of it is there
//! the file becomes the copy here, like one that came whole.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::body::Adopted;
use super::cache::Fetched;
use super::elsewhere::Wanted;
use super::linked::{is_referred_to, require_link};
use super::{Master, shared};
use crate::blobs::{BackendError, Blobs, Partial, Proof, SlotGuard, Stored, StoredBlob, StoredOutboard};
use crate::catalog::rows::{PartialRow, Record, SlotOwner};
use crate::catalog::{KeyRange, Rows, Table, Transaction, keys};
use crate::error::{Error, Result};
use crate::types::{BlobHash, BucketId, FileId, Slot};

/// After how many bytes the map of a body that is arriving is kept.
const KEEP_BYTES: u64 = 1024 * 1024;
/// The pause between two times.
const KEEP_PAUSE: Duration = Duration::from_millis(100);

/// Those that somebody has open. Held while one is opened, begun or evicted.
pub(super) type Partials = tokio::sync::Mutex<Open>;
type Open = HashMap<(BucketId, BlobHash), Weak<PartialCopy>>;

/// A body of a bucket of which parts may be here.
#[derive(Debug)]
pub struct PartialCopy {
    bucket: BucketId,
    /// The bytes.
    pub body: Arc<Partial>,
    keeping: tokio::sync::Mutex<Keeping>,
    /// Whether somebody is keeping its map, or is about to.
    busy: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Keeping {
    /// The catalog has a row of it.
    kept: bool,
    /// It became a copy, or was given up: nothing more is kept of it.
    ended: bool,
}

impl PartialRow {
    /// Where its tree stands, if not in the row.
    pub(super) fn tree_slot(&self) -> Option<Slot> {
        match self.outboard {
            StoredOutboard::Slot(slot) => Some(slot),
            StoredOutboard::None | StoredOutboard::Inline(_) => None,
        }
    }

    fn tree(&self, blobs: &Blobs) -> Result<Bytes, BackendError> {
        match &self.outboard {
            StoredOutboard::None => Ok(Bytes::new()),
            StoredOutboard::Inline(values) => Ok(Bytes::copy_from_slice(values)),
            StoredOutboard::Slot(slot) => blobs.read_slot(slot),
        }
    }

    /// What it takes on the disk, in bytes.
    pub(super) fn space(&self) -> u64 {
        self.bytes + Proof::outboard_length(self.length)
    }
}

/// What is known of a body of which parts are here. One that was given up counts as none.
pub(super) fn partial_row(rows: &(impl Rows + ?Sized), bucket: BucketId, hash: BlobHash) -> Result<Option<PartialRow>> {
    Ok(PartialRow::load(rows, &keys::body(bucket, hash))?.filter(|row| !row.gone))
}

/// The files that the catalog knows.
pub(super) fn files(rows: &(impl Rows + ?Sized)) -> Result<HashSet<FileId>> {
    rows.range(Table::Partials, KeyRange::prefix(&[]))?.map(|row| Ok(PartialRow::decode(&row?.1)?.file)).collect()
}

/// All that count, with what they take.
pub(super) fn all(rows: &(impl Rows + ?Sized)) -> Result<Vec<Fetched>> {
    let mut all = Vec::new();
    for row in rows.range(Table::Partials, KeyRange::prefix(&[]))? {
        let (key, value) = row?;
        let row = PartialRow::decode(&value)?;
        if let (false, Some(place)) = (row.gone, keys::split_body(&key)) {
            all.push((row.used, row.space(), place));
        }
    }
    Ok(all)
}

/// Gives up what is here of a body, if parts of it are. Its file goes when the cache is looked at next.
pub(super) fn give_up(txn: &mut Transaction<'_>, bucket: BucketId, hash: BlobHash) -> Result<()> {
    let Some(row) = partial_row(txn, bucket, hash)? else { return Ok(()) };
    if let Some(slot) = row.tree_slot() {
        txn.remove(Table::Slots, keys::slot(slot.segment, slot.offset));
    }
    let gone = PartialRow { outboard: StoredOutboard::None, map: Vec::new(), bytes: 0, gone: true, ..row };
    txn.put(keys::body(bucket, hash), &gone);
    Ok(())
}

impl Master {
    /// What is here of a large body; `tree` brings its hash tree if that is not here.
    pub async fn partial(
        &self,
        wanted: &Wanted,
        tree: impl Future<Output = Result<Bytes>>,
    ) -> Result<Arc<PartialCopy>> {
        if let Some(known) = self.known_partial(wanted).await? {
            return Ok(known);
        }
        let proof = proved(wanted, tree.await?)?;
        let mut open = self.partials.lock().await;
        if let Some(known) = open.get(&(wanted.bucket, wanted.hash)).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let body = self.blobs.begin_partial(proof).await?;
        Ok(opened(&mut open, wanted, body, false))
    }

    /// What is here of a large body, if anything is.
    pub async fn known_partial(&self, wanted: &Wanted) -> Result<Option<Arc<PartialCopy>>> {
        let (bucket, hash, blobs) = (wanted.bucket, wanted.hash, self.blobs.clone());
        let mut open = self.partials.lock().await;
        if let Some(known) = open.get(&(bucket, hash)).and_then(Weak::upgrade) {
            return Ok(Some(known));
        }
        let found = self
            .writer
            .read(move |view| {
                let Some(row) = partial_row(view, bucket, hash)? else { return Ok(None) };
                let tree = row.tree(&blobs);
                Ok(Some((row, tree)))
            })
            .await?;
        let Some((row, tree)) = found else { return Ok(None) };
        let usable = match tree.map_err(Error::from).and_then(|tree| proved(wanted, tree)) {
            Ok(proof) if row.length == wanted.length => self.blobs.open_partial(proof, row.file, row.map).await,
            _ => Err(BackendError::Damaged { what: crate::blobs::Item::File(row.file) }),
        };
        match usable {
            Ok(body) => Ok(Some(opened(&mut open, wanted, body, true))),
            Err(error @ (BackendError::Missing { .. } | BackendError::Damaged { .. })) => {
                tracing::warn!(%hash, %error, "parts of a body given up, to be fetched again");
                self.writer.transact(move |txn| give_up(txn, bucket, hash)).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the map of a body that is arriving, in the background, if so much came that it is worth it.
    pub(crate) fn keep_in_time(&self, copy: &Arc<PartialCopy>) {
        if copy.body.unkept() >= KEEP_BYTES {
            self.keep_later(copy);
        }
    }

    /// Keeps the map of a body in the background, if anything came.
    pub(crate) fn keep_later(&self, copy: &Arc<PartialCopy>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if copy.body.unkept() == 0 || copy.busy.swap(true, Ordering::SeqCst) {
            return;
        }
        let (master, copy) = (self.clone(), Arc::clone(copy));
        runtime.spawn(async move {
            loop {
                let kept = master.keep_partial(&copy).await;
                if let Err(error) = &kept {
                    // The bytes are served all the same; they cross again after a restart.
                    tracing::warn!(error = error as &dyn std::error::Error, "parts of a body not kept");
                }
                tokio::time::sleep(KEEP_PAUSE).await;
                copy.busy.store(false, Ordering::SeqCst);
                // What came meanwhile is kept, too, be it ever so little: nobody may come by to ask for it.
                if kept.is_err() || copy.body.unkept() == 0 || copy.busy.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
        });
    }

    /// Makes durable what is here of a body, then says so in the catalog.
    pub async fn keep_partial(&self, copy: &Arc<PartialCopy>) -> Result<()> {
        let mut keeping = copy.keeping.lock().await;
        if keeping.ended {
            return Ok(());
        }
        let map = copy.body.sync().await?;
        let (outboard, _guard) = self.tree_to_keep(copy, *keeping).await?;
        let (bucket, hash, kept, now) = (copy.bucket, copy.body.hash(), keeping.kept, self.clock.wall());
        let row = PartialRow {
            file: copy.body.file(),
            length: copy.body.length(),
            outboard: outboard.unwrap_or(StoredOutboard::None),
            bytes: map.bytes(),
            map: map.as_bytes().to_vec(),
            used: now,
            gone: false,
        };
        // Whatever becomes of the transaction: from here on the catalog may name the file.
        copy.body.owned();
        let (still, replaced) = self.writer.transact(move |txn| write_row(txn, bucket, hash, row, kept)).await?;
        (keeping.kept, keeping.ended) = (true, !still);
        drop(keeping);
        self.remove_sparse(replaced.into_iter().collect()).await;
        Ok(())
    }

    /// The tree that the catalog does not have yet.
    async fn tree_to_keep(
        &self,
        copy: &PartialCopy,
        keeping: Keeping,
    ) -> Result<(Option<StoredOutboard>, Option<SlotGuard>)> {
        if keeping.kept {
            return Ok((None, None));
        }
        let (outboard, guard) = copy.body.store_tree().await?;
        Ok((Some(outboard), guard))
    }

    /// Makes a body the copy here, if all of it is there. Says whether it is.
    pub async fn complete_partial(&self, copy: &Arc<PartialCopy>) -> Result<bool> {
        let mut keeping = copy.keeping.lock().await;
        let (bucket, hash, body) = (copy.bucket, copy.body.hash(), &copy.body);
        if keeping.ended {
            return if self.has_copy(bucket, hash).await? { Ok(true) } else { Err(Error::Conflict) };
        }
        if !body.verify_whole().await? {
            return Ok(false);
        }
        body.sync().await?;
        let (outboard, tree_guard) = self.tree_to_keep(copy, *keeping).await?;
        let (file, length, kept, now) = (body.file(), body.length(), keeping.kept, self.clock.wall());
        let file_guard = body.finish().await?;
        body.owned();
        let blob = StoredBlob { hash, length, file, outboard: outboard.unwrap_or(StoredOutboard::None) };
        let damaged = self.find_damaged(&Stored::Blob(blob.clone())).await?;
        let outcome = self
            .writer
            .transact(move |txn| {
                let mut blob = blob;
                if kept {
                    let row = partial_row(txn, bucket, hash)?.filter(|row| row.file == file).ok_or(Error::Conflict)?;
                    blob.outboard = row.outboard;
                }
                let stored = Stored::Blob(blob);
                // A link that ended or a version that was collected while its body came: nobody would let go of it.
                if require_link(txn, bucket).is_err() && !is_referred_to(txn, bucket, &stored)? {
                    return Err(Error::Conflict);
                }
                // Its tree's slot is the copy's from here on, or dead space.
                give_up(txn, bucket, hash)?;
                txn.remove(Table::Partials, keys::body(bucket, hash));
                shared::keep_copy(txn, bucket, &stored, now, damaged)
            })
            .await;
        drop(tree_guard);
        keeping.ended = true;
        let unneeded = match &outcome {
            Ok(adopted) => *adopted == Adopted::Known,
            // Whether the catalog names it is not known: the sweep of the next start asks.
            Err(Error::Storage { .. }) => false,
            Err(_) => true,
        };
        if unneeded {
            let (backend, file) = (Arc::clone(self.blobs.backend()), file_guard.file());
            self.blobs.blocking().run(move || backend.remove_file(file, &hash)).await?;
        }
        drop(file_guard);
        outcome.map(|_| true)
    }

    /// Those that somebody has open; nobody opens one while this is held.
    pub(super) async fn open_partials(&self) -> tokio::sync::MutexGuard<'_, Open> {
        let mut open = self.partials.lock().await;
        open.retain(|_, copy| copy.strong_count() > 0);
        open
    }

    /// Removes the files of bodies that were given up.
    pub(super) async fn remove_given_up(&self) -> Result<()> {
        let gone = self
            .writer
            .read(|view| {
                let mut gone = Vec::new();
                for row in view.range(Table::Partials, KeyRange::prefix(&[]))? {
                    let (key, value) = row?;
                    let row = PartialRow::decode(&value)?;
                    if row.gone {
                        gone.push((key, row.file));
                    }
                }
                Ok(gone)
            })
            .await?;
        if gone.is_empty() {
            return Ok(());
        }
        self.remember_ids().await?;
        self.remove_sparse(gone.iter().map(|(_, file)| *file).collect()).await;
        self.writer
            .transact(move |txn| {
                for (key, file) in gone {
                    if PartialRow::load(txn, &key)?.is_some_and(|row| row.gone && row.file == file) {
                        txn.remove(Table::Partials, key);
                    }
                }
                Ok(())
            })
            .await
    }

    async fn remove_sparse(&self, files: Vec<FileId>) {
        let backend = Arc::clone(self.blobs.backend());
        let remove = move || {
            for file in files {
                // The sweep of the next start takes it.
                if let Err(error) = backend.remove_sparse(file) {
                    tracing::warn!(file = file.0, %error, "part of a body not removed");
                }
            }
        };
        self.blobs.blocking().run(remove).await;
    }
}

/// Writes the row of a body that is arriving. Says whether it is still wanted, and which file was there instead of its own.
fn write_row(
    txn: &mut Transaction<'_>,
    bucket: BucketId,
    hash: BlobHash,
    mut row: PartialRow,
    kept: bool,
) -> Result<(bool, Option<FileId>)> {
    let key = keys::body(bucket, hash);
    let there = PartialRow::load(txn, &key)?;
    match (there, kept) {
        (Some(there), true) if there.file == row.file && !there.gone => {
            row.outboard = there.outboard;
            txn.put(key, &row);
            Ok((true, None))
        }
        // It was given up while it came.
        (_, true) => Ok((false, None)),
        // Nobody begins a body that is here while that is not given up.
        (Some(there), false) if !there.gone => Err(Error::Conflict),
        (there, false) => {
            if let Some(slot) = row.tree_slot() {
                let owner = SlotOwner::Partial { bucket, hash, length: slot.length };
                txn.put(keys::slot(slot.segment, slot.offset), &owner);
            }
            txn.put(key, &row);
            Ok((true, there.map(|there| there.file)))
        }
    }
}

fn opened(open: &mut Open, wanted: &Wanted, body: Partial, kept: bool) -> Arc<PartialCopy> {
    open.retain(|_, copy| copy.strong_count() > 0);
    let keeping = tokio::sync::Mutex::new(Keeping { kept, ended: false });
    let copy = PartialCopy { bucket: wanted.bucket, body: Arc::new(body), keeping, busy: AtomicBool::new(false) };
    let copy = Arc::new(copy);
    open.insert((wanted.bucket, wanted.hash), Arc::downgrade(&copy));
    copy
}

fn proved(wanted: &Wanted, tree: Bytes) -> Result<Proof> {
    Proof::new(wanted.hash, wanted.length, tree).map_err(|error| Error::Damaged {
        what: format!("the hash tree of body {}", wanted.hash),
        source: error.into(),
    })
}
