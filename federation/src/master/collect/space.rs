//! Giving space back: large bodies that nobody refers to, and segments that are mostly dead.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use super::super::Master;
use super::super::body::{blob_row, is_referred_to, pieces};
use super::super::readers::Held;
use super::super::request::CollectReport;
use super::super::{partial, shared};
use crate::blobs::{SealedSegment, SlotGuard, StoredOutboard, Urgency};
use crate::catalog::rows::{BlobRow, Change, ChangeRow, Copy, PartRow, Record, SlotOwner};
use crate::catalog::{KeyRange, Rows, Table, Transaction, keys};
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};
use crate::types::{BlobHash, Body, FileId, Piece, SegmentId, Slot};

/// A segment is copied when less than this share of it is live.
const COMPACT_BELOW: (u64, u64) = (1, 2);
/// The same when space is wanted now.
const COMPACT_NOW_BELOW: (u64, u64) = (4, 5);
/// How long the collector waits for one look-up of a read to end, in steps.
const LOOKUP_WAIT: Duration = Duration::from_millis(5);
/// How many such steps; a look-up that takes longer is left to the next pass.
const LOOKUP_WAITS_MAX: u32 = 2000;
/// What a record adds to a body in a segment, in bytes.
const SLOT_HEADER_BYTES: u64 = 40;

impl Master {
    /// Waits until every read that was announced has said what it holds. Says whether they all did.
    async fn await_lookups(&self) -> bool {
        let announced = self.readers.announced();
        for _ in 0..LOOKUP_WAITS_MAX {
            if self.readers.announced().is_disjoint(&announced) {
                return true;
            }
            tokio::time::sleep(LOOKUP_WAIT).await;
        }
        false
    }

    /// Removes the large bodies that an earlier transaction marked and nobody has claimed since.
    pub(super) async fn remove_marked(&self, report: &mut CollectReport) -> Result<()> {
        if !self.await_lookups().await {
            return Ok(());
        }
        let held = self.readers.held();
        let mut from = std::ops::Bound::Unbounded;
        loop {
            let (limit, range) = (self.limits.collect_rows_max, KeyRange::prefix(&[]).starting(from));
            let marked = self
                .writer
                .read(move |view| {
                    let rows = view.range(Table::Marked, range)?.take(limit);
                    rows.map(|row| Ok(row?.0)).collect::<Result<Vec<_>>>()
                })
                .await?;
            let Some(last) = marked.last().cloned() else { return Ok(()) };
            let hashes = marked.into_iter().filter_map(|key| key.try_into().ok()).map(BlobHash);
            let (kept, free): (Vec<_>, Vec<_>) = hashes.partition(|hash| held.contains(&Held::Blob(*hash)));
            self.count_waiting(kept, report).await?;
            self.remove_blobs(free, report).await?;
            from = std::ops::Bound::Excluded(last);
        }
    }

    async fn count_waiting(&self, kept: Vec<BlobHash>, report: &mut CollectReport) -> Result<()> {
        if kept.is_empty() {
            return Ok(());
        }
        let bytes = self
            .writer
            .read(move |view| {
                let mut bytes = 0;
                for hash in kept {
                    bytes += blob_row(view, hash)?.map_or(0, |row| row.length);
                }
                Ok(bytes)
            })
            .await?;
        report.bytes_waiting += bytes;
        Ok(())
    }

    async fn remove_blobs(&self, hashes: Vec<BlobHash>, report: &mut CollectReport) -> Result<()> {
        let removed = self.writer.transact(move |txn| forget_blobs(txn, hashes)).await?;
        self.remember_ids().await?;
        let backend = self.blobs.backend().clone();
        let counted = self
            .blobs
            .blocking()
            .run(move || {
                let mut counted = (0, 0);
                for (hash, file, length) in removed {
                    match backend.remove_file(file, &hash) {
                        Ok(()) => counted = (counted.0 + 1, counted.1 + length),
                        // Nothing refers to it any more: the sweep of the next start takes it.
                        Err(error) => tracing::warn!(file = file.0, %error, "body file not removed"),
                    }
                }
                counted
            })
            .await;
        report.files_removed += counted.0;
        report.bytes_freed += counted.1;
        Ok(())
    }

    /// Removes segments that hold nothing and copies the rest of those that hold little.
    pub(super) async fn compact_segments(&self, report: &mut CollectReport, now: bool) -> Result<()> {
        let backend = self.blobs.backend().clone();
        if now {
            backend.seal_active();
        }
        // Listed before the catalog is read: a slot that is claimed later is in a segment that is guarded now.
        let sealed = self.blobs.blocking().run(move || backend.sealed_segments()).await;
        let (share, of) = if now { COMPACT_NOW_BELOW } else { COMPACT_BELOW };
        let kept = self.kept_segments(now);
        for segment in sealed.into_iter().filter(|sealed| !kept.contains(&sealed.segment)) {
            let live = self.live_bytes(segment.segment).await?;
            if live * of < segment.length * share || segment.length == 0 {
                self.compact_segment(segment, report).await?;
            }
        }
        Ok(())
    }

    async fn live_bytes(&self, segment: SegmentId) -> Result<u64> {
        self.writer
            .read(move |view| {
                let mut live = 0;
                for row in view.range(Table::Slots, KeyRange::prefix(&keys::segment(segment)))? {
                    live += u64::from(SlotOwner::decode(&row?.1)?.length()) + SLOT_HEADER_BYTES;
                }
                Ok(live)
            })
            .await
    }

    async fn compact_segment(&self, segment: SealedSegment, report: &mut CollectReport) -> Result<()> {
        let id = segment.segment;
        loop {
            let limit = self.limits.collect_rows_max;
            let blobs = self.blobs.clone();
            let page = self
                .writer
                .read(move |view| {
                    let mut page = Vec::new();
                    for row in view.range(Table::Slots, KeyRange::prefix(&keys::segment(id)))?.take(limit) {
                        let (key, value) = row?;
                        let owner = SlotOwner::decode(&value)?;
                        let (_, offset) =
                            keys::split_slot(&key).ok_or_else(|| super::super::key::damaged_key(Table::Slots))?;
                        let Some(slot) = slot_of(view, &owner, id, offset)? else { return Ok(None) };
                        match blobs.read_slot(&slot) {
                            Ok(bytes) => page.push((slot, owner, bytes)),
                            Err(error) => {
                                tracing::error!(%error, "segment not compacted");
                                return Ok(None);
                            }
                        }
                    }
                    Ok(Some(page))
                })
                .await?;
            // A slot that cannot be moved keeps its segment.
            let Some(page) = page else { return Ok(()) };
            if page.is_empty() {
                break;
            }
            self.move_slots(page).await?;
        }
        self.remove_segment(segment, report).await
    }

    async fn move_slots(&self, page: Vec<(Slot, SlotOwner, Bytes)>) -> Result<()> {
        let bodies: Vec<Bytes> = page.iter().map(|(_, _, bytes)| bytes.clone()).collect();
        let guards = self.blobs.append_many(bodies, Urgency::Reserve).await?;
        let moves: Vec<_> =
            page.into_iter().zip(&guards).map(|((slot, owner, _), guard)| (slot, owner, guard.slot())).collect();
        self.writer
            .transact(move |txn| {
                for (old, owner, new) in moves {
                    move_slot(txn, &old, &owner, &new)?;
                }
                Ok(())
            })
            .await?;
        guards.into_iter().for_each(|guard: SlotGuard| {
            guard.claimed();
        });
        Ok(())
    }

    async fn remove_segment(&self, segment: SealedSegment, report: &mut CollectReport) -> Result<()> {
        let held: HashSet<Held> = if self.await_lookups().await { self.readers.held() } else { return Ok(()) };
        if held.contains(&Held::Segment(segment.segment)) {
            report.bytes_waiting += segment.length;
            return Ok(());
        }
        self.remember_ids().await?;
        // Asked again behind everything that was queued: a slot that was claimed late keeps its segment.
        if self.live_bytes(segment.segment).await? > 0 {
            return Ok(());
        }
        let backend = self.blobs.backend().clone();
        self.blobs.blocking().run(move || backend.remove_segment(segment.segment)).await?;
        report.files_removed += 1;
        report.bytes_freed += segment.length;
        Ok(())
    }
}

fn forget_blobs(txn: &mut Transaction<'_>, hashes: Vec<BlobHash>) -> Result<Vec<(BlobHash, FileId, u64)>> {
    let mut removed = Vec::new();
    for hash in hashes {
        let Some(row) = blob_row(txn, hash)? else {
            txn.remove(Table::Marked, keys::blob(hash));
            continue;
        };
        let claimed = !row.marked || is_referred_to(txn, hash)?;
        if claimed && !mutant::on(Mutant::CollectClaimed) {
            continue;
        }
        if let StoredOutboard::Slot(slot) = &row.outboard {
            txn.remove(Table::Slots, keys::slot(slot.segment, slot.offset));
        }
        txn.remove(Table::Blobs, keys::blob(hash));
        txn.remove(Table::Marked, keys::blob(hash));
        removed.push((hash, row.file, row.length));
    }
    Ok(removed)
}

fn at(slot: &Slot, segment: SegmentId, offset: u32) -> bool {
    slot.segment == segment && slot.offset == offset
}

/// The slot that an owner's record names; `None` if it cannot be moved.
fn slot_of(rows: &dyn Rows, owner: &SlotOwner, segment: SegmentId, offset: u32) -> Result<Option<Slot>> {
    let found = match owner {
        SlotOwner::Version { bucket, number, ordinal, .. } => {
            match ChangeRow::load(rows, &keys::change(*bucket, *number, *ordinal))?.map(|row| row.change) {
                Some(Change::Put(record)) => pieces(&record.body),
                _ => Vec::new(),
            }
        }
        SlotOwner::Part { upload, number, .. } => {
            PartRow::load(rows, &keys::part(*upload, *number))?.and_then(|row| row.piece).into_iter().collect()
        }
        SlotOwner::Outboard { hash, .. } => match blob_row(rows, *hash)?.map(|row| row.outboard) {
            Some(StoredOutboard::Slot(slot)) => vec![Piece::Slot(slot)],
            _ => Vec::new(),
        },
        // Its layer is folded first.
        SlotOwner::Staged { .. } => Vec::new(),
        SlotOwner::Shared { bucket, hash, .. } => shared::here(rows, *bucket, *hash)?.into_iter().collect(),
        SlotOwner::Partial { bucket, hash, .. } => partial::partial_row(rows, *bucket, *hash)?
            .and_then(|row| row.tree_slot())
            .map(Piece::Slot)
            .into_iter()
            .collect(),
    };
    Ok(found.into_iter().find_map(|piece| match piece {
        Piece::Slot(slot) if at(&slot, segment, offset) => Some(slot),
        _ => None,
    }))
}

/// Lets a record name a slot's copy, if it still names the slot.
fn move_slot(txn: &mut Transaction<'_>, old: &Slot, owner: &SlotOwner, new: &Slot) -> Result<()> {
    let key = keys::slot(old.segment, old.offset);
    if SlotOwner::load(txn, &key)? != Some(*owner) {
        return Ok(());
    }
    let replace = |slot: &mut Slot| {
        if at(slot, old.segment, old.offset) {
            *slot = *new;
        }
    };
    let replace_piece = |piece: &mut Piece| {
        if let Piece::Slot(slot) = piece {
            replace(slot);
        }
    };
    match owner {
        SlotOwner::Version { bucket, number, ordinal, .. } => {
            let change = keys::change(*bucket, *number, *ordinal);
            let Some(mut row) = ChangeRow::load(txn, &change)? else { return Err(Error::Conflict) };
            if let Change::Put(record) = &mut row.change {
                match &mut record.body {
                    Body::Empty => {}
                    Body::Whole(piece) => replace_piece(piece),
                    Body::Parts(parts) => {
                        parts.iter_mut().filter_map(|part| part.piece.as_mut()).for_each(replace_piece);
                    }
                    Body::PartList { list, slots, .. } => {
                        replace_piece(list);
                        slots.iter_mut().for_each(|(_, slot)| replace(slot));
                    }
                }
            }
            txn.put(change, &row);
        }
        SlotOwner::Part { upload, number, .. } => {
            let part = keys::part(*upload, *number);
            let Some(mut row) = PartRow::load(txn, &part)? else { return Err(Error::Conflict) };
            row.piece.iter_mut().for_each(replace_piece);
            txn.put(part, &row);
        }
        SlotOwner::Outboard { hash, .. } => {
            let Some(mut row) = BlobRow::load(txn, &keys::blob(*hash))? else { return Err(Error::Conflict) };
            if let StoredOutboard::Slot(slot) = &mut row.outboard {
                replace(slot);
            }
            txn.put(keys::blob(*hash), &row);
        }
        SlotOwner::Shared { bucket, hash, .. } => {
            let Some(mut row) = shared::body_row(txn, *bucket, *hash)? else { return Err(Error::Conflict) };
            if let Some(Copy::Slot(slot)) = &mut row.copy {
                replace(slot);
            }
            txn.put(keys::body(*bucket, *hash), &row);
        }
        SlotOwner::Partial { bucket, hash, .. } => {
            let Some(mut row) = partial::partial_row(txn, *bucket, *hash)? else { return Err(Error::Conflict) };
            if let StoredOutboard::Slot(slot) = &mut row.outboard {
                replace(slot);
            }
            txn.put(keys::body(*bucket, *hash), &row);
        }
        SlotOwner::Staged { .. } => return Ok(()),
    }
    txn.put(keys::slot(new.segment, new.offset), owner);
    txn.remove(Table::Slots, key);
    Ok(())
}
