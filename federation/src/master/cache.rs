//! Copies of bodies that were fetched from other clusters: how much there is, and which go when it is too much.
//!
//! Parts of a copy count by what is there of them. Only copies that were fetched are evicted. What was written here is read by others from here.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Master, partial, shared};
use crate::catalog::rows::{BodyRow, PublishRow, Record};
use crate::catalog::{KeyRange, Table, keys};
use crate::error::Result;
use crate::types::{BlobHash, BucketId, Timestamp};

/// How many copies one transaction evicts, or stamps with when they were read.
const ROWS_PER_TRANSACTION: usize = 500;
/// How many reads of copies are remembered between two looks at the cache.
const READS_REMEMBERED_MAX: usize = 65_536;
/// A copy that was stamped within this time is not stamped again.
const STAMP_AGE: Duration = Duration::from_secs(60 * 60);

/// A copy that was fetched: when it was used, what it takes in bytes, which it is.
pub(super) type Fetched = (Timestamp, u64, (BucketId, BlobHash));

/// Which copies were read lately, until the catalog says so, too.
#[derive(Debug, Default)]
pub(super) struct ReadLately(Mutex<HashMap<(BucketId, BlobHash), Timestamp>>);

impl ReadLately {
    /// Notes a read. When there are too many, some are forgotten: their copies only look older than they are.
    pub(super) fn note(&self, bucket: BucketId, hash: BlobHash, now: Timestamp) {
        let mut reads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.len() < READS_REMEMBERED_MAX || reads.contains_key(&(bucket, hash)) {
            reads.insert((bucket, hash), now);
        }
    }

    fn take(&self) -> Vec<((BucketId, BlobHash), Timestamp)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }
}

/// By how much there are too many copies.
#[derive(Clone, Copy, Debug)]
struct Excess {
    copies: u64,
    bytes: u64,
}

impl Excess {
    fn is_there(self) -> bool {
        self.copies > 0 || self.bytes > 0
    }

    fn less(&mut self, space: u64) {
        self.copies = self.copies.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(space);
    }
}

/// Copies that were fetched from other clusters, whole ones and parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUsage {
    /// How many.
    pub copies: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bodies that were written here and that other clusters read from here.
    pub own: u64,
    /// Their bytes.
    pub own_bytes: u64,
}

impl CacheUsage {
    /// Counts the copy of a body, if there is one.
    pub(super) fn count(&mut self, row: &BodyRow) {
        match (row.copy, row.own) {
            (None, _) => {}
            (Some(_), true) => (self.own, self.own_bytes) = (self.own + 1, self.own_bytes + row.length),
            (Some(_), false) => (self.copies, self.bytes) = (self.copies + 1, self.bytes + row.length),
        }
    }
}

impl Master {
    /// How much of what is here was fetched from other clusters.
    pub async fn cache_usage(&self) -> Result<CacheUsage> {
        self.writer
            .read(|view| {
                let mut usage = CacheUsage::default();
                for row in view.range(Table::Bodies, KeyRange::prefix(&[]))? {
                    usage.count(&BodyRow::decode(&row?.1)?);
                }
                for (_, space, _) in partial::all(view)? {
                    (usage.copies, usage.bytes) = (usage.copies + 1, usage.bytes + space);
                }
                Ok(usage)
            })
            .await
    }

    /// Evicts the fetched copies that were read longest ago until the others are at most `copies_max` and have at most
    /// `bytes_max`. Returns how many bytes went. The space is the collector's to give back.
    pub async fn evict(&self, bytes_max: u64, copies_max: u64) -> Result<u64> {
        self.stamp_reads().await?;
        let evicted = self.evict_oldest(bytes_max, copies_max).await;
        self.remove_given_up().await?;
        evicted
    }

    async fn evict_oldest(&self, bytes_max: u64, copies_max: u64) -> Result<u64> {
        let usage = self.cache_usage().await?;
        let copies = usage.copies.saturating_sub(copies_max);
        let mut excess = Excess { copies, bytes: usage.bytes.saturating_sub(bytes_max) };
        if !excess.is_there() {
            return Ok(0);
        }
        let mut oldest = self
            .writer
            .read(|view| {
                let mut copies = Vec::new();
                for row in view.range(Table::Bodies, KeyRange::prefix(&[]))? {
                    let (key, value) = row?;
                    let row = BodyRow::decode(&value)?;
                    if let (Some(_), false, Some(place)) = (row.copy, row.own, keys::split_body(&key)) {
                        copies.push(((row.used, row.length, place), false));
                    }
                }
                copies.extend(partial::all(view)?.into_iter().map(|partial| (partial, true)));
                copies.sort_unstable();
                Ok(copies)
            })
            .await?
            .into_iter();
        let mut evicted = 0;
        while excess.is_there() {
            let batch: Vec<_> = oldest.by_ref().take(ROWS_PER_TRANSACTION).collect();
            if batch.is_empty() {
                break;
            }
            let gone;
            (gone, excess) = self.evict_some(batch, excess).await?;
            evicted += gone;
        }
        Ok(evicted)
    }

    /// Evicts of these copies what is too much. Returns how many bytes went, and what is too much still.
    async fn evict_some(&self, copies: Vec<(Fetched, bool)>, mut excess: Excess) -> Result<(u64, Excess)> {
        // Held until they are gone: nobody opens parts of a body meanwhile.
        let open = self.open_partials().await;
        let idle = copies.into_iter().filter(|((_, _, place), partial)| !partial || !open.contains_key(place));
        let idle: Vec<_> = idle.collect();
        self.writer
            .transact(move |txn| {
                let mut gone = 0;
                for ((used, space, (bucket, hash)), partial) in idle {
                    if !excess.is_there() {
                        break;
                    }
                    // Read or written meanwhile: it stays.
                    if partial {
                        if partial::partial_row(txn, bucket, hash)?.is_some_and(|row| row.used == used) {
                            partial::give_up(txn, bucket, hash)?;
                            gone += space;
                            excess.less(space);
                        }
                        continue;
                    }
                    let same = shared::body_row(txn, bucket, hash)?.filter(|row| row.used == used && !row.own);
                    if let Some(row) = same {
                        shared::drop_copy(txn, bucket, hash, row)?;
                        gone += space;
                        excess.less(space);
                    }
                }
                Ok((gone, excess))
            })
            .await
    }

    async fn stamp_reads(&self) -> Result<()> {
        let mut reads = self.read_lately.take();
        while !reads.is_empty() {
            let batch = reads.split_off(reads.len().saturating_sub(ROWS_PER_TRANSACTION));
            self.writer
                .transact(move |txn| {
                    for ((bucket, hash), when) in batch {
                        if let Some(mut row) = shared::body_row(txn, bucket, hash)?
                            && row.used.until(when) > STAMP_AGE
                        {
                            row.used = when;
                            txn.put(keys::body(bucket, hash), &row);
                        }
                        if let Some(mut row) = partial::partial_row(txn, bucket, hash)?
                            && row.used.until(when) > STAMP_AGE
                        {
                            row.used = when;
                            txn.put(keys::body(bucket, hash), &row);
                        }
                    }
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }

    /// Bodies of a linked bucket that were written here for changes whose outcome is known, a page of them after a hash.
    ///
    /// None while uploads are in progress: their parts are needed, and the home knows nothing of them. Asked of the same
    /// view as the bodies, so that whatever makes a part of one of them later changes its row.
    pub(crate) async fn own_bodies(
        &self,
        bucket: BucketId,
        after: Option<BlobHash>,
    ) -> Result<Vec<(BlobHash, BodyRow)>> {
        self.writer
            .read(move |view| {
                let uploads = KeyRange::prefix(&keys::bucket(bucket));
                if view.range(Table::Uploads, uploads)?.next().transpose()?.is_some() {
                    return Ok(Vec::new());
                }
                let mut busy = std::collections::HashSet::new();
                for row in view.range(Table::Publishes, KeyRange::prefix(&[]))? {
                    busy.extend(PublishRow::decode(&row?.1)?.bodies);
                }
                let range = KeyRange::prefix(&keys::bucket(bucket));
                let range = match after {
                    None => range,
                    Some(after) => range.starting(std::ops::Bound::Excluded(keys::body(bucket, after))),
                };
                let mut bodies = Vec::new();
                for row in view.range(Table::Bodies, range)? {
                    let (key, value) = row?;
                    let row = BodyRow::decode(&value)?;
                    if let (true, Some((_, hash))) = (row.own, keys::split_body(&key))
                        && !busy.contains(&hash)
                    {
                        bodies.push((hash, row));
                    }
                    if bodies.len() == ROWS_PER_TRANSACTION {
                        break;
                    }
                }
                Ok(bodies)
            })
            .await
    }

    /// Lets go of own bodies that the home needs no more, unless something has happened to them since they were looked at.
    pub(crate) async fn drop_unneeded(&self, bucket: BucketId, bodies: Vec<(BlobHash, BodyRow)>) -> Result<u64> {
        self.writer
            .transact(move |txn| {
                let mut gone = 0;
                for (hash, seen) in bodies {
                    if shared::body_row(txn, bucket, hash)?.as_ref() == Some(&seen) {
                        shared::forget(txn, bucket, hash, &seen)?;
                        gone += seen.length;
                    }
                }
                Ok(gone)
            })
            .await
    }

    /// Which of these bodies no record of a bucket of this cluster refers to.
    pub async fn unneeded(&self, bucket: BucketId, hashes: Vec<BlobHash>) -> Result<Vec<BlobHash>> {
        self.writer
            .read(move |view| {
                let mut unneeded = Vec::new();
                for hash in hashes {
                    if shared::body_row(view, bucket, hash)?.is_none_or(|row| row.references == 0) {
                        unneeded.push(hash);
                    }
                }
                Ok(unneeded)
            })
            .await
    }
}
