//! Bodies as records refer to them: claiming, releasing and reading.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::Master;
use super::elsewhere::{Fetch, Wanted, nobody_brings};
use super::home::Home;
use super::readers::ReadGuard;
use super::shared;
use crate::blobs::{BackendError, Blobs, Stored, StoredBlob, StoredOutboard};
use crate::catalog::rows::{BlobRow, MarkedRow, Record, RefCount, SlotOwner};
use crate::catalog::{Catalog, KeyRange, Rows, Table, Transaction, keys};
use crate::error::{Error, Result};
use crate::types::{BlobHash, Body, BucketId, FileId, Part, Piece, Slot};

/// How many parts a record names itself; a longer list is a body of its own.
pub(super) const INLINE_PARTS_MAX: usize = 100;

/// Who will own a slot.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    /// A version, by bucket, number and ordinal.
    Version(BucketId, crate::types::Number, u32),
    /// A part of an upload.
    Part(crate::types::UploadId, u16),
    /// A key staged for a commit.
    Staged(crate::types::LayerId),
}

impl Owner {
    fn of(self, slot: &Slot) -> SlotOwner {
        let length = slot.length;
        match self {
            Owner::Version(bucket, number, ordinal) => SlotOwner::Version { bucket, number, ordinal, length },
            Owner::Part(upload, number) => SlotOwner::Part { upload, number, length },
            Owner::Staged(layer) => SlotOwner::Staged { layer, length },
        }
    }
}

/// The pieces that a body's record itself refers to: those in a part list's bytes are read by [`load_parts`].
pub(super) fn pieces(body: &Body) -> Vec<Piece> {
    match body {
        Body::Empty => Vec::new(),
        Body::Whole(piece) => vec![*piece],
        Body::Parts(parts) => parts.iter().filter_map(|part| part.piece).collect(),
        Body::PartList { list, slots, .. } => {
            std::iter::once(*list).chain(slots.iter().map(|(_, slot)| Piece::Slot(*slot))).collect()
        }
    }
}

/// How many pieces a body is made of, those in a part list's bytes included: what claiming or releasing it costs.
pub(super) fn piece_count(body: &Body) -> usize {
    match body {
        Body::Empty => 0,
        Body::Whole(_) => 1,
        Body::Parts(parts) => parts.len(),
        Body::PartList { count, .. } => 1 + usize::from(*count),
    }
}

/// The row of a large body.
pub(super) fn blob_row(rows: &(impl Rows + ?Sized), hash: BlobHash) -> Result<Option<BlobRow>> {
    Ok(BlobRow::load(rows, &keys::blob(hash))?)
}

/// What becomes of a large body that was just stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adopted {
    /// The catalog names its file.
    Taken,
    /// The content was there already: its file is not needed.
    Known,
}

/// Takes over a large body that was just stored, or the one of the same content that is there already and is not
/// `damaged`, as far as the caller knows.
pub(super) fn adopt(txn: &mut Transaction<'_>, blob: &StoredBlob, damaged: Option<FileId>) -> Result<Adopted> {
    match blob_row(txn, blob.hash)? {
        Some(row) if damaged != Some(row.file) => return Ok(Adopted::Known),
        // Its file is left to the collector's look for files that nobody names.
        Some(row) => {
            if let StoredOutboard::Slot(slot) = &row.outboard {
                txn.remove(Table::Slots, keys::slot(slot.segment, slot.offset));
            }
        }
        None => {}
    }
    if let StoredOutboard::Slot(slot) = &blob.outboard {
        let owner = SlotOwner::Outboard { hash: blob.hash, length: slot.length };
        txn.put(keys::slot(slot.segment, slot.offset), &owner);
    }
    let row = BlobRow { file: blob.file, length: blob.length, outboard: blob.outboard.clone(), marked: false };
    txn.put(keys::blob(blob.hash), &row);
    txn.remove(Table::Marked, keys::blob(blob.hash));
    Ok(Adopted::Taken)
}

/// How much of a large body is read at once while it is verified.
const VERIFY_BYTES: u64 = 4 * 1024 * 1024;

/// Reads a large body through and says whether it is what it was. It may block for long.
pub(super) fn verify(blobs: &Blobs, blob: &StoredBlob) -> Result<(), BackendError> {
    let mut from = 0;
    while from < blob.length {
        let to = (from + VERIFY_BYTES).min(blob.length);
        blobs.read_range(blob, from..to)?;
        from = to;
    }
    Ok(())
}

impl Master {
    /// Whether content that arrives again is still what it was on the disk: the file of it that is not.
    ///
    /// A copy of the good bytes is at hand only now, so this is the moment to find out.
    pub(super) async fn find_damaged(&self, stored: &Stored) -> Result<Option<FileId>> {
        let Stored::Blob(blob) = stored else { return Ok(None) };
        let hash = blob.hash;
        let Some(row) = self.writer.read(move |view| blob_row(view, hash)).await? else { return Ok(None) };
        let (there, blobs) = (super::body::stored(hash, row), self.blobs.clone());
        let file = there.file;
        match self.blobs.blocking().run(move || verify(&blobs, &there)).await {
            Ok(()) => Ok(None),
            Err(BackendError::Missing { .. } | BackendError::Damaged { .. }) => {
                tracing::warn!(%hash, file = file.0, "damaged body replaced by one that arrived again");
                Ok(Some(file))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Counts one more reference to a piece. Fails with `Conflict` if a large body is no longer there to refer to.
pub(super) fn claim(txn: &mut Transaction<'_>, bucket: BucketId, piece: &Piece, owner: Owner) -> Result<()> {
    match piece {
        Piece::Slot(slot) => {
            txn.put(keys::slot(slot.segment, slot.offset), &owner.of(slot));
            Ok(())
        }
        Piece::Blob { hash, .. } => claim_blob(txn, bucket, *hash),
        Piece::Shared { hash, length } => shared::refer(txn, bucket, *hash, *length),
    }
}

/// Counts one more reference to a large body. Fails with `Conflict` if it is no longer there to refer to.
pub(super) fn claim_blob(txn: &mut Transaction<'_>, bucket: BucketId, hash: BlobHash) -> Result<()> {
    let mut row = blob_row(txn, hash)?.ok_or(Error::Conflict)?;
    if row.marked {
        row.marked = false;
        txn.put(keys::blob(hash), &row);
        txn.remove(Table::Marked, keys::blob(hash));
    }
    let key = keys::blob_ref(hash, bucket);
    let count = RefCount::load(txn, &key)?.map_or(0, |count| count.0);
    txn.put(key, &RefCount(count + 1));
    Ok(())
}

/// Gives a slot that was claimed before to another record of the same bucket. Large bodies are counted by bucket.
pub(super) fn take_over(txn: &mut Transaction<'_>, piece: &Piece, owner: Owner) {
    if let Piece::Slot(slot) = piece {
        txn.put(keys::slot(slot.segment, slot.offset), &owner.of(slot));
    }
}

/// Counts one reference to a piece less. A slot's space is dead from here on; a large body is marked for the
/// collector when nobody refers to it any more.
pub(super) fn release(txn: &mut Transaction<'_>, bucket: BucketId, piece: &Piece) -> Result<()> {
    let hash = match piece {
        Piece::Slot(slot) => {
            txn.remove(Table::Slots, keys::slot(slot.segment, slot.offset));
            return Ok(());
        }
        Piece::Shared { hash, .. } => return shared::unrefer(txn, bucket, *hash),
        Piece::Blob { hash, .. } => *hash,
    };
    let key = keys::blob_ref(hash, bucket);
    match RefCount::load(txn, &key)? {
        Some(RefCount(count)) if count > 1 => txn.put(key, &RefCount(count - 1)),
        _ => {
            txn.remove(Table::BlobRefs, key);
            if !is_referred_to(txn, hash)?
                && let Some(mut row) = blob_row(txn, hash)?
            {
                row.marked = true;
                txn.put(keys::blob(hash), &row);
                txn.put(keys::blob(hash), &MarkedRow);
            }
        }
    }
    Ok(())
}

/// Whether any bucket refers to a large body.
pub(super) fn is_referred_to(rows: &(impl Rows + ?Sized), hash: BlobHash) -> Result<bool> {
    Ok(rows.range(Table::BlobRefs, KeyRange::prefix(&keys::blob(hash)))?.next().transpose()?.is_some())
}

impl Home<'_, '_> {
    /// Claims all that a version refers to; `parts` are those of its part list.
    pub(super) fn claim_body(&mut self, body: &Body, parts: &[Part], owner: Owner) -> Result<()> {
        for piece in pieces(body) {
            claim(self.txn, self.id, &piece, owner)?;
        }
        for piece in parts.iter().filter_map(|part| part.piece) {
            claim(self.txn, self.id, &piece, owner)?;
        }
        Ok(())
    }
}

impl Home<'_, '_> {
    /// Claims only the large and shared bodies that a record itself refers to.
    pub(super) fn claim_large(&mut self, body: &Body) -> Result<()> {
        for piece in pieces(body) {
            match piece {
                Piece::Blob { hash, .. } if blob_row(self.txn, hash)?.is_some() => {
                    claim_blob(self.txn, self.id, hash)?;
                }
                Piece::Shared { hash, length } => shared::refer(self.txn, self.id, hash, length)?,
                Piece::Blob { .. } | Piece::Slot(_) => {}
            }
        }
        Ok(())
    }
}

/// The bytes of a part list.
pub(super) fn encode_parts(parts: &[Part]) -> Vec<u8> {
    postcard::to_stdvec(parts).expect("parts are plain data, which postcard can always write")
}

/// The parts of a part list as they stand in its bytes, without those in segments.
pub(super) fn listed_parts(rows: &(impl Rows + ?Sized), blobs: &Blobs, list: &Piece) -> Result<Vec<Part>> {
    let bytes = match list {
        Piece::Slot(slot) => blobs.read_slot(slot)?,
        Piece::Blob { hash, length } => {
            let row = blob_row(rows, *hash)?.ok_or_else(|| missing_blob(*hash))?;
            blobs.read_range(&stored(*hash, row), 0..*length)?
        }
        // Lists are written where their version is numbered.
        Piece::Shared { hash, .. } => return Err(missing_blob(*hash)),
    };
    postcard::from_bytes(&bytes)
        .map_err(|error| Error::Damaged { what: "a list of parts".to_owned(), source: error.into() })
}

/// The parts of a multipart object; none for other bodies.
pub(super) fn load_parts(rows: &(impl Rows + ?Sized), blobs: &Blobs, body: &Body) -> Result<Vec<Part>> {
    match body {
        Body::Empty | Body::Whole(_) => Ok(Vec::new()),
        Body::Parts(parts) => Ok(parts.clone()),
        Body::PartList { list, slots, .. } => {
            let mut parts = listed_parts(rows, blobs, list)?;
            for (index, slot) in slots {
                if let Some(part) = parts.get_mut(usize::from(*index)) {
                    part.piece = Some(Piece::Slot(*slot));
                }
            }
            Ok(parts)
        }
    }
}

fn missing_blob(hash: BlobHash) -> Error {
    Error::Damaged { what: format!("body {hash}"), source: "the catalog has no row of it".into() }
}

pub(super) fn stored(hash: BlobHash, row: BlobRow) -> StoredBlob {
    StoredBlob { hash, length: row.length, file: row.file, outboard: row.outboard }
}

/// A piece of this cluster's own as what was stored.
pub(super) fn stored_piece(rows: &(impl Rows + ?Sized), piece: &Piece) -> Result<Stored> {
    match piece {
        Piece::Slot(slot) => Ok(Stored::Slot(*slot)),
        Piece::Blob { hash, .. } | Piece::Shared { hash, .. } => {
            Ok(Stored::Blob(stored(*hash, blob_row(rows, *hash)?.ok_or(Error::Conflict)?)))
        }
    }
}

/// Where a piece's bytes are, found when the read begins.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In a segment.
    Slot(Slot),
    /// In a file.
    Blob(BlobHash),
    /// Here already, compared with their hash.
    Memory(Bytes),
    /// In another cluster.
    Elsewhere(Box<Wanted>),
}

/// The bytes of a version, read as they are asked for.
pub struct BodyReader {
    pub(super) blobs: Blobs,
    pub(super) catalog: Arc<dyn Catalog>,
    /// Brings what is not here.
    pub(super) fetch: Option<Arc<dyn Fetch>>,
    pub(super) length: u64,
    /// The pieces in order, each with its length.
    pub(super) pieces: Vec<(u64, Source)>,
    /// Keeps the collector from what the pieces stand in.
    pub(super) guard: Option<ReadGuard>,
}

impl std::fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyReader").field("length", &self.length).field("pieces", &self.pieces.len()).finish()
    }
}

/// Bytes as they come.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

impl BodyReader {
    /// The length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Has what is not here brought to be passed on to another cluster. Returns the first body that is not, if any.
    pub(super) fn relay(&mut self) -> Option<&Wanted> {
        let mut first = None;
        for (_, source) in &mut self.pieces {
            if let Source::Elsewhere(wanted) = source {
                wanted.relayed = true;
                first.get_or_insert(&**wanted);
            }
        }
        first
    }

    /// All the bytes, where the look-up brought them along.
    #[must_use]
    pub fn inline(&self) -> Option<Bytes> {
        match self.pieces.as_slice() {
            [] => Some(Bytes::new()),
            [(_, Source::Memory(bytes))] => Some(bytes.clone()),
            _ => None,
        }
    }

    /// As [`BodyReader::read`], but what is in another cluster has begun to arrive when this returns: whoever says first
    /// that there are bytes can still say that there are none.
    pub async fn begin(self, range: Range<u64>) -> Result<ByteStream> {
        let is_here = !self.pieces.iter().any(|(_, source)| matches!(source, Source::Elsewhere(_)));
        let mut bytes = self.read(range);
        if is_here {
            return Ok(bytes);
        }
        let first = bytes.next().await.transpose()?;
        Ok(Box::pin(stream::iter(first.map(Ok)).chain(bytes)))
    }

    /// The bytes of `range`, each compared with its hash before it is handed out. The range is cut to the body.
    #[must_use]
    pub fn read(self, range: Range<u64>) -> ByteStream {
        let range = range.start.min(self.length)..range.end.min(self.length);
        if let Some(bytes) = self.inline() {
            let bytes = bytes.slice(to_usize(range.start)..to_usize(range.end.max(range.start)));
            return Box::pin(stream::once(std::future::ready(Ok(bytes))));
        }
        let mut begin = 0;
        let mut wanted = Vec::new();
        for (length, source) in self.pieces {
            let end = begin + length;
            let part = range.start.max(begin)..range.end.min(end);
            if part.start < part.end {
                wanted.push((part.start - begin..part.end - begin, source));
            }
            begin = end;
        }
        let (blobs, catalog, fetch, guard) = (self.blobs, self.catalog, self.fetch, self.guard);
        Box::pin(stream::iter(wanted).flat_map(move |(range, source)| {
            // The guard lives as long as the stream.
            let _ = &guard;
            read_piece(blobs.clone(), Arc::clone(&catalog), fetch.clone(), source, range)
        }))
    }
}

fn read_piece(
    blobs: Blobs,
    catalog: Arc<dyn Catalog>,
    fetch: Option<Arc<dyn Fetch>>,
    source: Source,
    range: Range<u64>,
) -> ByteStream {
    let opened = async move {
        let bytes = match source {
            Source::Memory(bytes) => bytes,
            Source::Slot(slot) => blobs.read_small(slot).await?,
            Source::Blob(hash) => {
                let row = blobs.blocking().run(move || blob_row(&*catalog.view()?, hash)).await?;
                let blob = stored(hash, row.ok_or_else(|| missing_blob(hash))?);
                let bytes = blobs.stream(blob, range).map(|bytes| bytes.map_err(Error::from));
                return Ok::<ByteStream, Error>(Box::pin(bytes));
            }
            Source::Elsewhere(wanted) => {
                let fetch = fetch.ok_or_else(|| nobody_brings(&wanted))?;
                return Ok(fetch.read(*wanted, range));
            }
        };
        if range.end > bytes.len() as u64 {
            let what = "a small body".to_owned();
            return Err(Error::Damaged { what, source: "it is shorter than its version says".into() });
        }
        let bytes = bytes.slice(to_usize(range.start)..to_usize(range.end));
        Ok(Box::pin(stream::once(std::future::ready(Ok(bytes)))))
    };
    Box::pin(stream::once(opened).flat_map(|opened| match opened {
        Ok(bytes) => bytes,
        Err(error) => Box::pin(stream::once(std::future::ready(Err(error)))),
    }))
}

fn to_usize(length: u64) -> usize {
    usize::try_from(length).expect("bodies in memory are small")
}
