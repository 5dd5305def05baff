//! How much is kept of what homes said of keys and versions: beyond a bound, what was heard longest ago is forgotten.
//!
//! Nothing of it is needed to be right: what is not known is asked for again. What is needed stands elsewhere and stays:
//! the number below which nothing is shown (`links-1`), changes whose outcome is open (`publishes-1`), the bodies that were
//! written here (`bodies-1`). Of a key the fact of the highest numbers goes last: an older one would be read as the
//! newest by whoever reads what was heard last.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Member;
use crate::catalog::rows::{FactRow, FactState, Record, VersionRow};
use crate::catalog::{KeyRange, Row, Rows, Table, Transaction, View, keys};
use crate::error::Result;
use crate::types::Timestamp;

/// How many rows one transaction looks at.
const ROWS_PER_TRANSACTION: usize = 500;
/// Which part of the bound is made free at once, so that it is not looked for again at the next row.
const SLACK: u64 = 8;
/// How many other facts of a key are looked at for whether they have the same version; beyond, it is left for later.
const FACTS_COMPARED_MAX: usize = 64;

/// How many rows there are about.
#[derive(Debug)]
pub(super) struct Known {
    max: u64,
    /// As they were counted last; none until they were.
    counted: Mutex<Option<u64>>,
    /// At most as many were added since.
    added: AtomicU64,
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl Known {
    pub(super) fn new(max: u64) -> Known {
        Known { max, counted: Mutex::default(), added: AtomicU64::new(0), one_at_a_time: tokio::sync::Mutex::default() }
    }

    /// At most as many rows as there are; none until they were counted.
    fn at_most(&self) -> Option<u64> {
        let counted = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        Some(counted? + self.added.load(Ordering::Relaxed))
    }

    fn set_counted(&self, rows: u64) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
    }
}

/// What there is, by how long ago it was heard.
#[derive(Default)]
struct Counted {
    facts: u64,
    live: u64,
    versions: u64,
    /// How many facts each age has, the oldest last.
    ages: BTreeMap<u32, u64>,
}

impl Counted {
    fn rows(&self) -> u64 {
        self.facts + self.versions
    }

    /// The youngest age of which facts have to go for so many rows to be free. A fact frees two at the most.
    fn cutoff(&self, rows: u64) -> u32 {
        let mut freed = 0;
        for (age, facts) in self.ages.iter().rev() {
            freed += 2 * facts;
            if freed >= rows {
                return *age;
            }
        }
        0
    }
}

/// How old something is, coarser the older it is: exact below 64 s, to a 32nd beyond.
fn age(heard: Timestamp, now: Timestamp) -> u32 {
    let seconds = heard.until(now).as_secs();
    let coarse = (u64::BITS - seconds.leading_zeros()).saturating_sub(6);
    coarse * 64 + u32::try_from(seconds >> coarse).unwrap_or(u32::MAX)
}

impl Member {
    /// How many rows are kept at the most, about.
    pub(crate) fn known_rows_max(&self) -> u64 {
        self.known.max
    }

    /// Rows were added. If there may be too many, some are forgotten in the background.
    pub(super) fn note_rows(&self, rows: u64) {
        self.known.added.fetch_add(rows, Ordering::Relaxed);
        let too_many = self.known.at_most().is_none_or(|rows| rows > self.known.max + self.known.max / SLACK);
        if too_many && let Ok(turn) = self.known.one_at_a_time.try_lock() {
            drop(turn);
            let member = self.clone();
            tokio::spawn(async move {
                if let Err(error) = member.forget_oldest().await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "what is known of linked buckets was not brought below its bound");
                }
            });
        }
    }

    /// Forgets what was heard longest ago, until there are no more rows than may be. Returns how many went.
    pub(crate) async fn forget_oldest(&self) -> Result<u64> {
        let Ok(_turn) = self.known.one_at_a_time.try_lock() else { return Ok(0) };
        if self.known.at_most().is_some_and(|rows| rows <= self.known.max) {
            return Ok(0);
        }
        let mut gone = 0;
        loop {
            let before = self.known.added.load(Ordering::Relaxed);
            let now = self.master.clock().wall();
            let counted = self.master.writer().read(move |view| count(view, now)).await?;
            let rows = counted.rows();
            self.known.set_counted(rows);
            self.known.added.fetch_sub(before, Ordering::Relaxed);
            if rows <= self.known.max {
                return Ok(gone);
            }
            let excess = rows - (self.known.max - self.known.max / SLACK);
            // Versions that were asked for by name belong to no fact, and nothing says when they were used.
            let unclaimed = counted.versions.saturating_sub(counted.live);
            let of_versions = excess.saturating_mul(unclaimed) / rows;
            let cutoff = counted.cutoff(excess - of_versions);
            let mut freed = self.forget_facts(now, cutoff, excess - of_versions).await?;
            if of_versions > 0 || freed == 0 {
                let wanted = if freed == 0 { excess } else { of_versions };
                freed += self.forget_versions(wanted).await?;
            }
            gone += freed;
            self.known.set_counted(rows - freed.min(rows));
            if freed == 0 {
                return Ok(gone);
            }
        }
    }

    /// Forgets facts of an age or older, and their versions, the oldest first, until so many rows are gone.
    async fn forget_facts(&self, now: Timestamp, cutoff: u32, rows: u64) -> Result<u64> {
        let mut freed = 0;
        // Those that are surely older first; of the last age whichever come first.
        for oldest_only in [true, false] {
            let is_due = move |row: &Row| {
                let age = age(FactRow::decode(&row.1)?.asked, now);
                Ok(age > cutoff || (!oldest_only && age == cutoff))
            };
            freed += self.forget_in(Table::Facts, rows - freed, is_due, forget_fact).await?;
            if freed >= rows {
                break;
            }
        }
        Ok(freed)
    }

    /// Forgets versions that no fact has, those of the lowest numbers first.
    async fn forget_versions(&self, rows: u64) -> Result<u64> {
        self.forget_in(Table::Versions, rows, |_| Ok(true), forget_version).await
    }

    /// Goes through a table in small transactions until so many rows are gone.
    async fn forget_in(
        &self,
        table: Table,
        rows: u64,
        is_due: impl Fn(&Row) -> Result<bool> + Clone + Send + 'static,
        forget: fn(&mut Transaction<'_>, &Row) -> Result<u64>,
    ) -> Result<u64> {
        let (mut freed, mut from) = (0, Bound::Unbounded);
        while freed < rows {
            let (range, is_due) = (KeyRange::prefix(&[]).starting(from), is_due.clone());
            let (due, last) = self
                .master
                .writer()
                .read(move |view| {
                    let (mut due, mut last, mut count) = (Vec::new(), None, 0);
                    for row in view.range(table, range)?.take(ROWS_PER_TRANSACTION) {
                        let row = row?;
                        count += 1;
                        last = Some(row.0.clone());
                        if is_due(&row)? {
                            due.push(row);
                        }
                    }
                    Ok((due, last.filter(|_| count == ROWS_PER_TRANSACTION)))
                })
                .await?;
            if !due.is_empty() {
                let wanted = rows - freed;
                let forgotten = self.master.writer().transact(move |txn| {
                    let mut freed = 0;
                    for row in &due {
                        // What was heard of meanwhile stays.
                        if freed < wanted && txn.get(table, &row.0)?.as_ref() == Some(&row.1) {
                            freed += forget(txn, row)?;
                        }
                    }
                    Ok(freed)
                });
                freed += forgotten.await?;
            }
            match last {
                Some(last) => from = Bound::Excluded(last),
                None => break,
            }
        }
        Ok(freed)
    }
}

fn count(view: &dyn View, now: Timestamp) -> Result<Counted> {
    let mut counted = Counted::default();
    for row in view.range(Table::Facts, KeyRange::prefix(&[]))? {
        let row = FactRow::decode(&row?.1)?;
        counted.facts += 1;
        counted.live += u64::from(matches!(row.state, FactState::Live { .. }));
        *counted.ages.entry(age(row.asked, now)).or_default() += 1;
    }
    for row in view.range(Table::Versions, KeyRange::prefix(&[]))? {
        row?;
        counted.versions += 1;
    }
    Ok(counted)
}

/// The facts of the key that a fact is about, those of the highest numbers first.
fn facts_of(fact_key: &[u8]) -> KeyRange {
    KeyRange::prefix(&fact_key[..fact_key.len().saturating_sub(8)])
}

/// Forgets a fact, unless it is the newest of a key of which there are others; and its version, unless another fact has
/// it. Returns how many rows went.
fn forget_fact(txn: &mut Transaction<'_>, (key, value): &Row) -> Result<u64> {
    let first: Vec<Row> = txn.range(Table::Facts, facts_of(key))?.take(2).collect::<Result<_, _>>()?;
    if first.len() > 1 && first[0].0 == *key {
        return Ok(0);
    }
    txn.remove(Table::Facts, key.clone());
    let FactState::Live { number, ordinal, .. } = FactRow::decode(value)?.state else { return Ok(1) };
    if is_claimed(txn, facts_of(key), (number.0, ordinal))? {
        return Ok(1);
    }
    // A key begins with its bucket.
    let Some((bucket, _)) = key.split_first_chunk::<16>() else { return Ok(1) };
    let version = keys::change(crate::types::BucketId(*bucket), number, ordinal);
    let was_there = txn.get(Table::Versions, &version)?.is_some();
    txn.remove(Table::Versions, version);
    Ok(1 + u64::from(was_there))
}

/// Forgets a version that no fact has. Returns how many rows went.
fn forget_version(txn: &mut Transaction<'_>, (key, value): &Row) -> Result<u64> {
    let Some((bucket, _)) = key.split_first_chunk::<16>() else { return Ok(0) };
    let Some((number, ordinal)) = keys::split_change(key) else { return Ok(0) };
    let path = VersionRow::decode(value)?.path;
    let facts = KeyRange::prefix(&keys::object(crate::types::BucketId(*bucket), &path));
    if is_claimed(txn, facts, (number.0, ordinal))? {
        return Ok(0);
    }
    txn.remove(Table::Versions, key.clone());
    Ok(1)
}

/// Whether one of these facts has a version, as far as so many are looked at.
fn is_claimed(rows: &(impl Rows + ?Sized), facts: KeyRange, version: (u64, u32)) -> Result<bool> {
    for (count, row) in rows.range(Table::Facts, facts)?.enumerate() {
        if count == FACTS_COMPARED_MAX {
            return Ok(true);
        }
        if let FactState::Live { number, ordinal, .. } = FactRow::decode(&row?.1)?.state
            && (number.0, ordinal) == version
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_in_order_and_few() {
        let now = Timestamp(10_000_000_000_000);
        let age_of = |seconds: u64| age(Timestamp(now.0 - seconds * 1000), now);
        let mut distinct = std::collections::BTreeSet::new();
        let mut last = 0;
        for seconds in (0..100_000).chain((100_000..9_000_000_000).step_by(1_000_003)) {
            let age = age_of(seconds);
            assert!(age >= last, "{seconds} s is younger than what came before");
            last = age;
            distinct.insert(age);
        }
        assert!(distinct.len() < 2000, "{} ages", distinct.len());
        assert_eq!(age(now, Timestamp(0)), 0, "a clock that went back");
    }
}
