//! Which roots are kept, and the pages that only others had.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use super::super::snapshot::retained;
use super::super::{Master, key};
use super::lock;
use crate::catalog::rows::{BucketRow, Record, RootRow};
use crate::catalog::{KeyRange, Table, keys};
use crate::error::Result;
use crate::snapshot::{self, PageHash, Root};
use crate::types::{BucketId, Number};

/// One root is kept in every run of so many numbers: no tree is further from one than that.
const NUMBERS_PER_ROOT: u64 = 10_000;

/// Of the newest roots so many are kept: those that were asked for last.
const RECENT_ROOTS: usize = 100;

/// How many pages are read under one view while those in use are marked.
const PAGES_PER_VIEW: usize = 1000;

impl Master {
    /// Derives, while the log still has it, what is to be kept of a bucket of which trees were asked for: the states
    /// that tags and pins name, and one in every so many numbers.
    pub(in super::super) async fn keep_trees(&self, bucket: BucketId) -> Result<()> {
        for number in self.writer.read(move |view| wanting(view, bucket)).await? {
            self.root_of(bucket, number).await?;
        }
        Ok(())
    }

    /// Drops the roots that are of no more use, and the pages that no other root has.
    pub(in super::super) async fn collect_trees(&self, bucket: BucketId) -> Result<()> {
        // Whoever derives relies on the pages of the root that it began with, and on its own.
        let _turn = self.trees.turn(bucket).await;
        let (kept, dropped) = self.writer.read(move |view| judge(view, bucket)).await?;
        if dropped.is_empty() && lock(&self.trees.clean).contains(&bucket) {
            return Ok(());
        }
        let keys = dropped.into_iter().map(|number| keys::root(bucket, number)).collect();
        self.remove_rows(Table::Roots, keys).await?;
        let marked = self.mark(bucket, kept).await?;
        self.sweep(bucket, marked).await?;
        lock(&self.trees.clean).insert(bucket);
        Ok(())
    }

    /// The pages of these roots.
    async fn mark(&self, bucket: BucketId, roots: Vec<Root>) -> Result<HashSet<PageHash>> {
        let mut marked = HashSet::new();
        let mut next = Vec::new();
        for root in roots {
            next.extend(root.pages().unwrap_or_default());
        }
        while !next.is_empty() {
            next.retain(|page| marked.insert(*page));
            let now = next.split_off(next.len().saturating_sub(PAGES_PER_VIEW));
            let found = self
                .writer
                .read(move |view| {
                    let mut found = Vec::new();
                    for page in now {
                        // Of what is damaged nothing is known to be below; who reads it derives the tree anew. Of
                        // another cluster's trees only what was read is here.
                        let bytes = view.get(Table::Pages, &keys::page(bucket, &page))?;
                        found.extend(bytes.and_then(|bytes| snapshot::below(&bytes).ok()).unwrap_or_default());
                    }
                    Ok(found)
                })
                .await?;
            next.extend(found);
        }
        Ok(marked)
    }

    /// Removes the pages that are not marked.
    async fn sweep(&self, bucket: BucketId, marked: HashSet<PageHash>) -> Result<()> {
        let (limit, marked) = (self.limits.collect_rows_max, std::sync::Arc::new(marked));
        let mut from = Bound::Included(keys::bucket(bucket));
        loop {
            let (range, marked) = (KeyRange::prefix(&keys::bucket(bucket)).starting(from), marked.clone());
            let (dead, last) = self
                .writer
                .read(move |view| {
                    let (mut dead, mut last, mut count) = (Vec::new(), None, 0);
                    for row in view.range(Table::Pages, range)?.take(limit) {
                        let (key, _) = row?;
                        count += 1;
                        if keys::split_page(&key).is_none_or(|page| !marked.contains(&page)) {
                            dead.push(key.clone());
                        }
                        last = Some(key);
                    }
                    Ok((dead, last.filter(|_| count == limit)))
                })
                .await?;
            self.remove_rows(Table::Pages, dead).await?;
            match last {
                Some(last) => from = Bound::Excluded(last),
                None => return Ok(()),
            }
        }
    }

    /// Throws all trees of a bucket away.
    pub(super) async fn discard_trees(&self, bucket: BucketId) -> Result<()> {
        let _turn = self.trees.turn(bucket).await;
        self.discard_rows(bucket).await
    }

    /// Throws all trees of a bucket away, for whoever has the turn.
    pub(super) async fn discard_rows(&self, bucket: BucketId) -> Result<()> {
        lock(&self.trees.clean).remove(&bucket);
        let limit = self.limits.collect_rows_max;
        // Roots first: no root is without its pages.
        for table in [Table::Roots, Table::Pages] {
            loop {
                let keys = self
                    .writer
                    .read(move |view| {
                        let rows = view.range(table, KeyRange::prefix(&keys::bucket(bucket)))?.take(limit);
                        Ok(rows.map(|row| row.map(|(key, _)| key)).collect::<Result<Vec<_>, _>>()?)
                    })
                    .await?;
                if keys.is_empty() {
                    break;
                }
                self.remove_rows(table, keys).await?;
            }
        }
        Ok(())
    }

    async fn remove_rows(&self, table: Table, mut keys: Vec<Vec<u8>>) -> Result<()> {
        while !keys.is_empty() {
            let now = keys.split_off(keys.len().saturating_sub(self.limits.collect_rows_max));
            self.writer
                .transact(move |txn| {
                    now.into_iter().for_each(|key| txn.remove(table, key));
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }
}

/// The numbers whose roots are to be derived before the floor passes them.
fn wanting(view: &dyn crate::catalog::View, bucket: BucketId) -> Result<Vec<Number>> {
    let Some(row) = BucketRow::load(view, &keys::bucket(bucket))?.filter(|row| !row.linked) else {
        return Ok(Vec::new());
    };
    let roots = roots(view, bucket)?;
    let Some((newest, _)) = roots.last() else { return Ok(Vec::new()) };
    let mut numbers: BTreeSet<Number> = retained(view, bucket)?.range(row.floor..).copied().collect();
    if row.last.0.saturating_sub(newest.0) >= NUMBERS_PER_ROOT {
        numbers.insert(row.last);
    }
    for (number, _) in roots {
        numbers.remove(&number);
    }
    Ok(numbers.into_iter().collect())
}

/// The roots of a bucket that stay, and the numbers of those that go.
fn judge(view: &dyn crate::catalog::View, bucket: BucketId) -> Result<(Vec<Root>, Vec<Number>)> {
    let Some(row) = BucketRow::load(view, &keys::bucket(bucket))? else { return Ok((Vec::new(), Vec::new())) };
    let retained = retained(view, bucket)?;
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    let mut runs = HashMap::new();
    let roots = roots(view, bucket)?;
    for (number, _) in &roots {
        runs.insert(number.0 / NUMBERS_PER_ROOT, *number);
    }
    let recent = roots.len().saturating_sub(RECENT_ROOTS);
    for (place, (number, root)) in roots.into_iter().enumerate() {
        let newest_of_run = runs.get(&(number.0 / NUMBERS_PER_ROOT)) == Some(&number);
        // What another cluster numbers has no floor here.
        let of_use = (row.linked || number >= row.floor) && (place >= recent || newest_of_run);
        if of_use || retained.contains(&number) {
            kept.push(root);
        } else {
            dropped.push(number);
        }
    }
    Ok((kept, dropped))
}

/// The kept roots of a bucket, by number.
fn roots(view: &dyn crate::catalog::View, bucket: BucketId) -> Result<Vec<(Number, Root)>> {
    let rows = view.range(Table::Roots, KeyRange::prefix(&keys::bucket(bucket)))?;
    let roots = rows.map(|row| {
        let (key, value) = row?;
        let number = keys::split_root(&key).ok_or_else(|| key::damaged_key(Table::Roots))?;
        Ok((number, RootRow::decode(&value)?.0))
    });
    roots.collect()
}
