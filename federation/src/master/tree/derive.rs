//! Deriving a tree: from the nearest root that is kept and what the log has between, else from the catalog's rows.
//!
//! The log says which paths changed; what they are, the state itself says. So a path may be looked at in any order and
//! more than once, and the log may be gone through in either direction, a bounded number of rows under a view.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::home::Home;
use super::super::layer::fold_all;
use super::super::lens::{Lens, Live, resolve};
use super::super::{Master, key};
use super::pages::KeptPages;
use super::{kept_root, lock, unreadable};
use crate::catalog::rows::{BucketRow, Change, ChangeRow, Record, RootRow};
use crate::catalog::{KeyRange, Rows, Table, View, keys};
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};
use crate::snapshot::{self, Entry, PageHash, Root, TreeError};
use crate::types::{BucketId, Number, ObjectPath, SnapshotRef};

/// How many pages a transaction writes: about a megabyte and a half.
const PAGES_PER_TRANSACTION: usize = 256;

/// So many changes are looked up in the log even where the bucket has fewer objects.
const LOG_ALWAYS: u64 = 1000;

/// A tree that is being derived.
#[derive(Clone, Debug)]
struct Draft {
    root: Root,
    rest: Rest,
}

/// What is still to be gone through.
#[derive(Clone, Debug)]
enum Rest {
    /// The log behind `after`, up to the change `to`; `low` is the number behind which the log is needed.
    Log { after: Vec<u8>, to: Number, low: Number },
    /// The live objects behind a path.
    Objects(Option<ObjectPath>),
}

impl Draft {
    fn from_nothing() -> Self {
        Draft { root: Root::empty(), rest: Rest::Objects(None) }
    }

    fn from_root(bucket: BucketId, base: Number, root: Root, number: Number) -> Self {
        let (low, to) = (base.min(number), base.max(number));
        Draft { root, rest: Rest::Log { after: keys::change(bucket, low, u32::MAX), to, low } }
    }
}

/// What a look at the catalog came to.
enum Step {
    /// A layer lies over the state: its keys are in the log only when it is folded.
    Layered,
    /// The collector has taken the part of the log that was needed.
    LogGone,
    /// These pages are to be written; without a rest the root is the tree's.
    Made { root: Root, rest: Option<Rest>, pages: BTreeMap<PageHash, Bytes>, read: u64 },
}

impl Master {
    /// The root of a state, derived unless it is kept.
    pub(in super::super) async fn root_of(&self, bucket: BucketId, number: Number) -> Result<Root> {
        if let Some(root) = self.writer.read(move |view| kept_root(view, bucket, number)).await? {
            return Ok(root);
        }
        let master = self.clone();
        // To its end even if nobody waits: else those who come again and again for a large one would never get it.
        self.detached(async move { master.derive_in_turn(bucket, number).await }).await
    }

    async fn derive_in_turn(&self, bucket: BucketId, number: Number) -> Result<Root> {
        let _turn = self.trees.turn(bucket).await;
        if let Some(root) = self.writer.read(move |view| kept_root(view, bucket, number)).await? {
            return Ok(root);
        }
        self.admit()?;
        match self.derive(bucket, number).await? {
            Ok(root) => Ok(root),
            Err(error) => {
                tracing::warn!(%bucket, error = &error as &dyn std::error::Error, "snapshot trees derived anew");
                self.discard_rows(bucket).await?;
                self.derive(bucket, number).await?.map_err(|error| unreadable(bucket, error))
            }
        }
    }

    /// Derives a root and keeps it. The inner error is that of pages which are not what they should be.
    async fn derive(&self, bucket: BucketId, number: Number) -> Result<Result<Root, TreeError>> {
        let rows_max = self.limits.tree_rows_max;
        let mut draft = self.writer.read(move |view| begin(view, bucket, number)).await?;
        let mut steps = 0;
        loop {
            let from = draft.clone();
            match self.writer.read(move |view| step(view, bucket, number, from, rows_max)).await? {
                Err(error) => return Ok(Err(error)),
                Ok(Step::Layered) => fold_all(self, bucket).await?,
                Ok(Step::LogGone) => draft = Draft::from_nothing(),
                Ok(Step::Made { root, rest, pages, read }) => {
                    steps += 1;
                    self.trees.pages_read.fetch_add(read, Ordering::Relaxed);
                    if steps > 1 || rest.is_some() {
                        // Pages at the edges of its steps are no tree's.
                        lock(&self.trees.clean).remove(&bucket);
                    }
                    let kept = rest.is_none().then(|| RootRow(root.clone()));
                    self.write_pages(bucket, pages, kept.map(|row| (number, row))).await?;
                    match rest {
                        None => return Ok(Ok(root)),
                        Some(rest) => draft = Draft { root, rest },
                    }
                }
            }
        }
    }

    /// Writes pages, and with the last of them a root that they are of.
    async fn write_pages(
        &self,
        bucket: BucketId,
        pages: BTreeMap<PageHash, Bytes>,
        mut root: Option<(Number, RootRow)>,
    ) -> Result<()> {
        self.trees.pages_written.fetch_add(pages.len() as u64, Ordering::Relaxed);
        let mut pages: Vec<_> = pages.into_iter().collect();
        loop {
            let rest = pages.split_off(pages.len().min(PAGES_PER_TRANSACTION));
            let root = if rest.is_empty() { root.take() } else { None };
            self.writer
                .transact(move |txn| {
                    let home = Home::open_id(txn, bucket)?.filter(|home| !home.row.deleted);
                    // Else they would stay for ever: its rows may be gone already.
                    let txn = home.ok_or(Error::Conflict)?.txn;
                    for (page, bytes) in pages {
                        txn.put_raw(Table::Pages, keys::page(bucket, &page), bytes.into());
                    }
                    if let Some((number, root)) = root {
                        txn.put(keys::root(bucket, number), &root);
                    }
                    Ok(())
                })
                .await?;
            if rest.is_empty() {
                return Ok(());
            }
            pages = rest;
        }
    }
}

/// The bucket's row, if the number is a state of it that can be read.
fn readable(view: &dyn View, bucket: BucketId, number: Number) -> Result<BucketRow> {
    let row = BucketRow::load(view, &keys::bucket(bucket))?.filter(|row| !row.deleted);
    let row = row.ok_or(Error::Conflict)?;
    resolve(view, bucket, &row, &SnapshotRef::Number(number))?;
    Ok(row)
}

/// Whether a tree can be had at once: it is kept, or few rows lead to it.
pub(super) fn is_near(
    view: &dyn View,
    bucket: BucketId,
    row: &BucketRow,
    number: Number,
    rows_max: usize,
) -> Result<bool> {
    if row.objects <= rows_max as u64 && number == row.last || kept_root(view, bucket, number)?.is_some() {
        return Ok(true);
    }
    let nearest = nearest_usable(view, bucket, row, number)?;
    Ok(nearest.is_some_and(|(base, _)| base.0.abs_diff(number.0) <= rows_max as u64))
}

/// From where the way to the tree is the shortest.
fn begin(view: &dyn View, bucket: BucketId, number: Number) -> Result<Draft> {
    let row = readable(view, bucket, number)?;
    Ok(match nearest_usable(view, bucket, &row, number)? {
        Some((base, root)) if base.0.abs_diff(number.0) <= row.objects + LOG_ALWAYS => {
            Draft::from_root(bucket, base, root, number)
        }
        _ => Draft::from_nothing(),
    })
}

/// The kept root that is nearest to a number, if the log still has all between them.
fn nearest_usable(
    view: &dyn View,
    bucket: BucketId,
    row: &BucketRow,
    number: Number,
) -> Result<Option<(Number, Root)>> {
    let nearest = [nearest_root(view, bucket, number, true)?, nearest_root(view, bucket, number, false)?];
    // What the log has lost nobody can count.
    let usable = nearest.into_iter().flatten().filter(|(base, _)| number.min(*base) >= row.floor);
    Ok(usable.min_by_key(|(base, _)| base.0.abs_diff(number.0)))
}

/// The kept root that is next to a number on one side of it.
fn nearest_root(view: &dyn View, bucket: BucketId, number: Number, below: bool) -> Result<Option<(Number, Root)>> {
    let range = KeyRange::prefix(&keys::bucket(bucket));
    let at = Bound::Excluded(keys::root(bucket, number));
    let range = if below { KeyRange { to: at, ..range }.reversed() } else { range.starting(at) };
    let Some((key, value)) = view.range(Table::Roots, range)?.next().transpose()? else { return Ok(None) };
    let number = keys::split_root(&key).ok_or_else(|| key::damaged_key(Table::Roots))?;
    Ok(Some((number, RootRow::decode(&value)?.0)))
}

/// Goes on with a tree as far as `rows_max` rows lead.
fn step(
    view: &dyn View,
    bucket: BucketId,
    number: Number,
    draft: Draft,
    rows_max: usize,
) -> Result<Result<Step, TreeError>> {
    let row = readable(view, bucket, number)?;
    if matches!(&draft.rest, Rest::Log { low, .. } if *low < row.floor) {
        return Ok(Ok(Step::LogGone));
    }
    let lens = Lens::new(view, bucket, row, number)?;
    if lens.is_layered() {
        return Ok(Ok(Step::Layered));
    }
    let mut pages = KeptPages::new(view, bucket);
    let (made, rest) = match draft.rest {
        Rest::Log { after, to, low } => {
            let (paths, after) = changed(view, bucket, after, to, rows_max)?;
            let entries = paths.into_iter().map(|path| {
                let live = lens.look(&path)?.live();
                let entry = live.map(|live| entry(&lens, &live)).transpose()?;
                Ok((path, entry))
            });
            let made = snapshot::apply(&mut pages, &draft.root, entries);
            (made, after.map(|after| Rest::Log { after, to, low }))
        }
        Rest::Objects(after) => {
            let mut scan = lens.scan(b"")?;
            if let Some(after) = &after {
                scan.seek_after(after.as_bytes())?;
            }
            let entries = std::iter::from_fn(|| match scan.next(rows_max) {
                Ok(found) => found.map(|(path, live)| Ok((path, Some(entry(&lens, &live)?)))),
                Err(error) => Some(Err(error)),
            });
            let made = snapshot::apply(&mut pages, &draft.root, entries);
            let more = scan.examined >= rows_max;
            (made, scan.last.take().filter(|_| more).map(|last| Rest::Objects(Some(last))))
        }
    };
    let root = match made {
        Ok(root) => root,
        Err(TreeError::Storage(error)) => return Err(error),
        Err(error) => return Ok(Err(error)),
    };
    let (pages, read) = pages.into_made();
    Ok(Ok(Step::Made { root, rest, pages, read }))
}

fn entry(lens: &Lens<'_>, live: &Live) -> Result<Entry> {
    Ok(Entry::new(&lens.record(live)?, live.summary.null))
}

/// The paths that the log names next, and where it goes on if it does.
fn changed(
    rows: &dyn Rows,
    bucket: BucketId,
    after: Vec<u8>,
    to: Number,
    rows_max: usize,
) -> Result<(BTreeSet<ObjectPath>, Option<Vec<u8>>)> {
    let to = Bound::Included(keys::change(bucket, to, u32::MAX));
    let range = KeyRange { from: Bound::Excluded(after), to, reverse: false };
    let (mut paths, mut count, mut last) = (BTreeSet::new(), 0, None);
    for row in rows.range(Table::Changes, range)?.take(rows_max) {
        let (key, value) = row?;
        let change = ChangeRow::decode(&value)?;
        let (_, ordinal) = keys::split_change(&key).ok_or_else(|| key::damaged_key(Table::Changes))?;
        count += 1;
        last = Some(key);
        let skipped = mutant::on(Mutant::TreeSkipsLayer) && ordinal > 0;
        // Tags, ACL, retention and hold are in no entry.
        if !skipped && !matches!(change.change, Change::Attributes { .. }) {
            paths.extend(change.path);
        }
    }
    Ok((paths, last.filter(|_| count == rows_max)))
}
