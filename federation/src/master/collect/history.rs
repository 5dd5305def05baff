//! What no snapshot can show any more: rows of history, the versions they stand for, and whole buckets.

use std::collections::BTreeSet;

use super::super::body::{listed_parts, piece_count, pieces, release};
use super::super::home::Home;
use super::super::key;
use super::super::layer::unstage;
use super::super::shared;
use super::super::snapshot::retained;
use super::super::write::blob_parts;
use super::super::{Limits, Master};
use super::bucket_row;
use crate::blobs::Blobs;
use crate::catalog::rows::{
    BodyRow, Change, ChangeRow, HeldRow, HistoryRow, LayerRow, LayerSource, Record, Visibility,
};
use crate::catalog::{KeyRange, Rows, Table, Transaction, keys};
use crate::error::Result;
use crate::mutant::{self, Mutant};
use crate::types::{Body, BucketId, LayerId, Number, ObjectPath, ObjectRecord, Summary};

impl Master {
    /// Goes through the log up to the floor (or, for a mutant, up to `target`) and drops what ended there.
    pub(super) async fn drop_history(&self, id: BucketId, target: Option<Number>) -> Result<u64> {
        let mut dropped = 0;
        loop {
            let (limit, blobs) = (PageLimit::of(&self.limits), self.blobs.clone());
            let (versions, done) = self.writer.transact(move |txn| drop_page(txn, id, target, limit, &blobs)).await?;
            dropped += versions;
            if done {
                return Ok(dropped);
            }
        }
    }

    /// After a tag or pin was removed, drops what only it kept.
    pub(super) async fn drop_released(&self, id: BucketId) -> Result<u64> {
        let released = self.writer.read(move |view| Ok(bucket_row(view, id)?.is_some_and(|row| row.released))).await?;
        if !released {
            return Ok(0);
        }
        let mut dropped = 0;
        let mut after = Vec::new();
        loop {
            let (limit, blobs, from) = (PageLimit::of(&self.limits), self.blobs.clone(), after.clone());
            let (versions, last) =
                self.writer.transact(move |txn| drop_held_page(txn, id, from, limit, &blobs)).await?;
            dropped += versions;
            match last {
                Some(last) => after = last,
                None => return Ok(dropped),
            }
        }
    }

    /// Removes the rows of a deleted bucket.
    pub(super) async fn remove_bucket_rows(&self, id: BucketId) -> Result<u64> {
        let mut dropped = 0;
        loop {
            let (limit, blobs) = (PageLimit::of(&self.limits), self.blobs.clone());
            let (versions, done) = self.writer.transact(move |txn| remove_page(txn, id, limit, &blobs)).await?;
            dropped += versions;
            if done {
                return Ok(dropped);
            }
        }
    }

    /// Takes back what was staged for commits that nobody is putting together any more.
    pub(in super::super) async fn sweep_staged(&self) -> Result<()> {
        let mut from = Vec::new();
        loop {
            let seek = from.clone();
            let found = self
                .writer
                .read(move |view| {
                    let range = KeyRange::prefix(&[]).starting(std::ops::Bound::Included(seek));
                    let Some((key, _)) = view.range(Table::Staged, range)?.next().transpose()? else {
                        return Ok(None);
                    };
                    let layer = key.get(..16).and_then(|id| id.try_into().ok());
                    let layer = LayerId(layer.ok_or_else(|| key::damaged_key(Table::Staged))?);
                    Ok(Some((layer, owner_of(view, layer)?)))
                })
                .await?;
            let Some((layer, published)) = found else { return Ok(()) };
            let under_way = self.commits.lock().expect("no holder of this lock panics").contains(&layer);
            if published.is_none() && !under_way {
                self.unstage_all(layer).await?;
            }
            match keys::successor(&layer.0) {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    async fn unstage_all(&self, layer: LayerId) -> Result<()> {
        // Which bucket it was meant for is known from its first row's references; they are counted by bucket.
        loop {
            let limit = self.limits.collect_rows_max;
            let more = self
                .writer
                .transact(move |txn| {
                    let Some(id) = bucket_of_staged(txn, layer)? else { return Ok(false) };
                    if owner_of(txn, layer)?.is_some() {
                        return Ok(false);
                    }
                    let range = KeyRange::prefix(&keys::staged_with(layer, &[]));
                    let mut paths = Vec::new();
                    for row in txn.range(Table::Staged, range)?.take(limit) {
                        let (key, _) = row?;
                        let (path, _) = keys::split_object(&key).ok_or_else(|| key::damaged_key(Table::Staged))?;
                        paths.push(path);
                    }
                    for path in &paths {
                        unstage(txn, id, layer, path)?;
                    }
                    let done = paths.len() < limit;
                    if done {
                        txn.remove(Table::Meta, keys::commit_begun(layer));
                    }
                    Ok(!done)
                })
                .await?;
            if !more {
                return Ok(());
            }
        }
    }
}

/// The bucket that a commit was begun for.
fn bucket_of_staged(rows: &(impl Rows + ?Sized), layer: LayerId) -> Result<Option<BucketId>> {
    let bytes = rows.get(Table::Meta, &keys::commit_begun(layer))?;
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(BucketId))
}

/// The bucket over which a layer of staged rows was published and is still open.
fn owner_of(rows: &(impl Rows + ?Sized), layer: LayerId) -> Result<Option<BucketId>> {
    for row in rows.range(Table::Layers, KeyRange::prefix(&[]))? {
        let (key, value) = row?;
        if let LayerSource::Staged { layer: staged, .. } = LayerRow::decode(&value)?.source
            && staged == layer
        {
            return Ok(key.get(..16).and_then(|id| id.try_into().ok()).map(BucketId));
        }
    }
    Ok(None)
}

fn kept(txn: &Transaction<'_>, id: BucketId) -> Result<BTreeSet<Number>> {
    if mutant::on(Mutant::IgnoreTags) { Ok(BTreeSet::new()) } else { retained(txn, id) }
}

type Page = (u64, bool);

/// What a transaction of the collector is bounded by. A version is let go of as a whole, so its last may go over.
#[derive(Clone, Copy, Debug)]
struct PageLimit {
    rows: usize,
    pieces: usize,
}

impl PageLimit {
    fn of(limits: &Limits) -> Self {
        PageLimit { rows: limits.collect_rows_max, pieces: limits.collect_pieces_max }
    }
}

/// What was dropped.
#[derive(Clone, Copy, Debug, Default)]
struct Dropped {
    versions: u64,
    /// Pieces that were let go of, which is what dropping a version costs.
    pieces: usize,
}

impl std::ops::AddAssign for Dropped {
    fn add_assign(&mut self, other: Dropped) {
        self.versions += other.versions;
        self.pieces += other.pieces;
    }
}

fn drop_page(
    txn: &mut Transaction<'_>,
    id: BucketId,
    target: Option<Number>,
    limit: PageLimit,
    blobs: &Blobs,
) -> Result<Page> {
    let Some(mut home) = Home::open_id(txn, id)? else { return Ok((0, true)) };
    let floor = target.unwrap_or(home.row.floor);
    let (number, ordinal) = home.row.collected;
    // A commit or restore has many rows under its number, and a page may end among them.
    if (number, ordinal) >= (floor, u32::MAX) {
        return Ok((0, true));
    }
    if ordinal == u32::MAX {
        // The floor of the last pass kept its change, so that the log could say what the floor is.
        let key = keys::change(id, number, 0);
        if let Some(row) = ChangeRow::load(home.txn, &key)? {
            let kept = kept(home.txn, id)?;
            forget(&mut home, &key, number, &row, &kept);
        }
    }
    let from = std::ops::Bound::Excluded(keys::change(id, number, ordinal));
    let to = std::ops::Bound::Included(keys::change(id, floor, u32::MAX));
    let rows = home.txn.range(Table::Changes, KeyRange { from, to, reverse: false })?;
    let rows: Vec<_> = rows.take(limit.rows).collect::<Result<_, _>>()?;
    let kept = kept(home.txn, id)?;
    let mut dropped = Dropped::default();
    let mut done = rows.len() < limit.rows;
    for (key, value) in &rows {
        if dropped.pieces >= limit.pieces {
            done = false;
            break;
        }
        let (number, ordinal) = keys::split_change(key).ok_or_else(|| key::damaged_key(Table::Changes))?;
        let row = ChangeRow::decode(value)?;
        if let Some(path) = &row.path {
            for since in &row.ended {
                dropped += judge(&mut home, path, *since, floor, &kept, blobs)?;
            }
        }
        if number < floor || ordinal > 0 {
            forget(&mut home, key, number, &row, &kept);
        }
        home.row.collected = (number, ordinal);
    }
    if done {
        home.row.collected = (floor, u32::MAX);
    }
    home.save();
    Ok((dropped.versions, done))
}

/// Takes a change out of the log that holds no version, and what it superseded.
fn forget(home: &mut Home<'_, '_>, key: &[u8], number: Number, row: &ChangeRow, kept: &BTreeSet<Number>) {
    let superseded = |previous: Number| kept.range(previous..number).next().is_none();
    match (&row.change, row.previous, &row.path) {
        (Change::Put(_), _, _) => return,
        (Change::Attributes { version, .. }, Some(previous), Some(path)) if superseded(previous) => {
            home.txn.remove(Table::Attributes, keys::attributes(home.id, path, *version, previous));
        }
        (Change::Config(tag, _), Some(previous), _) if superseded(previous) => {
            home.txn.remove(Table::Config, keys::config(home.id, *tag, previous));
        }
        _ => {}
    }
    home.txn.remove(Table::Changes, key.to_vec());
}

/// Drops a row of history whose life is over, or notes that a tag or pin keeps it.
fn judge(
    home: &mut Home<'_, '_>,
    path: &ObjectPath,
    since: Number,
    floor: Number,
    kept: &BTreeSet<Number>,
    blobs: &Blobs,
) -> Result<Dropped> {
    let nothing = Dropped::default();
    let Some(row) = HistoryRow::load(home.txn, &keys::history(home.id, path, since))? else { return Ok(nothing) };
    let Some(end) = row.life_end().filter(|end| *end <= floor) else { return Ok(nothing) };
    if kept.range(since..end).next().is_some() {
        home.txn.put(keys::held(home.id, end, since, path), &HeldRow);
        return Ok(nothing);
    }
    drop_row(home, path, since, &row, blobs)
}

fn drop_row(
    home: &mut Home<'_, '_>,
    path: &ObjectPath,
    since: Number,
    row: &HistoryRow,
    blobs: &Blobs,
) -> Result<Dropped> {
    home.txn.remove(Table::History, keys::history(home.id, path, since));
    let version = row.summary.version;
    let never_moved = since == version && matches!(row.visibility, Visibility::Gone(_));
    let mut pieces = 0;
    if !row.marker && (never_moved || !is_shown_elsewhere(home, path, version)?) {
        pieces = drop_version(home.txn, home.id, path, &row.summary, blobs)?;
    }
    Ok(Dropped { versions: 1, pieces })
}

/// Whether another row stands for a version that was uncovered.
fn is_shown_elsewhere(home: &Home<'_, '_>, path: &ObjectPath, version: Number) -> Result<bool> {
    if key::current(home.txn, home.id, path)?.is_some_and(|row| row.summary.version == version) {
        return Ok(true);
    }
    for row in key::history(home.txn, home.id, path, Number::MAX)? {
        let (since, row) = row?;
        if since < version {
            break;
        }
        if row.summary.version == version {
            return Ok(true);
        }
    }
    Ok(false)
}

fn drop_version(
    txn: &mut Transaction<'_>,
    id: BucketId,
    path: &ObjectPath,
    summary: &Summary,
    blobs: &Blobs,
) -> Result<usize> {
    let key = keys::change(id, summary.version, summary.ordinal);
    let mut pieces = 0;
    if let Some(ChangeRow { change: Change::Put(record), .. }) = ChangeRow::load(txn, &key)? {
        release_record(txn, id, &record, blobs)?;
        pieces = piece_count(&record.body);
        txn.remove(Table::Changes, key);
    }
    let prefix = KeyRange::prefix(&keys::attributes_of(id, path, summary.version));
    let attributes: Vec<_> = txn.range(Table::Attributes, prefix)?.collect::<Result<_, _>>()?;
    attributes.into_iter().for_each(|(key, _)| txn.remove(Table::Attributes, key));
    Ok(pieces)
}

/// Lets go of everything that a version refers to.
fn release_record(txn: &mut Transaction<'_>, id: BucketId, record: &ObjectRecord, blobs: &Blobs) -> Result<()> {
    if let Body::PartList { list, .. } = &record.body {
        match listed_parts(txn, blobs, list) {
            Ok(parts) => {
                for piece in blob_parts(parts).into_iter().filter_map(|part| part.piece) {
                    release(txn, id, &piece)?;
                }
            }
            // Its parts stay counted: space is lost, data is not.
            Err(error) => {
                tracing::error!(bucket = %id, error = &error as &dyn std::error::Error, "list of parts cannot be read");
            }
        }
    }
    for piece in pieces(&record.body) {
        release(txn, id, &piece)?;
    }
    Ok(())
}

fn drop_held_page(
    txn: &mut Transaction<'_>,
    id: BucketId,
    after: Vec<u8>,
    limit: PageLimit,
    blobs: &Blobs,
) -> Result<(u64, Option<Vec<u8>>)> {
    let Some(mut home) = Home::open_id(txn, id)? else { return Ok((0, None)) };
    let all = KeyRange::prefix(&keys::bucket(id));
    let range = if after.is_empty() { all } else { all.starting(std::ops::Bound::Excluded(after)) };
    let rows: Vec<_> = home.txn.range(Table::Held, range)?.take(limit.rows).collect::<Result<_, _>>()?;
    let kept = kept(home.txn, id)?;
    let mut dropped = Dropped::default();
    let mut done = rows.len() < limit.rows;
    let mut last = None;
    for (key, _) in rows {
        if dropped.pieces >= limit.pieces {
            done = false;
            break;
        }
        last = Some(key.clone());
        let (end, since, path) = keys::split_held(&key).ok_or_else(|| key::damaged_key(Table::Held))?;
        if kept.range(since..end).next().is_some() {
            continue;
        }
        home.txn.remove(Table::Held, key);
        if let Some(row) = HistoryRow::load(home.txn, &keys::history(id, &path, since))? {
            dropped += drop_row(&mut home, &path, since, &row, blobs)?;
        }
    }
    if done {
        home.row.released = false;
        home.save();
    }
    Ok((dropped.versions, last.filter(|_| !done)))
}

fn remove_page(txn: &mut Transaction<'_>, id: BucketId, limit: PageLimit, blobs: &Blobs) -> Result<Page> {
    let all = KeyRange::prefix(&keys::bucket(id));
    let changes: Vec<_> = txn.range(Table::Changes, all.clone())?.take(limit.rows).collect::<Result<_, _>>()?;
    let more = !changes.is_empty();
    let mut dropped = Dropped::default();
    for (key, value) in changes {
        if dropped.pieces >= limit.pieces {
            break;
        }
        if let Change::Put(record) = ChangeRow::decode(&value)?.change {
            release_record(txn, id, &record, blobs)?;
            dropped += Dropped { versions: 1, pieces: piece_count(&record.body) };
        }
        txn.remove(Table::Changes, key);
    }
    if more {
        return Ok((dropped.versions, false));
    }
    // Copies that were brought for versions of it, beside those that its versions referred to.
    let bodies: Vec<_> = txn.range(Table::Bodies, all.clone())?.take(limit.rows).collect::<Result<_, _>>()?;
    if !bodies.is_empty() {
        for (key, value) in bodies {
            if let Some((bucket, hash)) = keys::split_body(&key) {
                shared::forget(txn, bucket, hash, &BodyRow::decode(&value)?)?;
            }
        }
        return Ok((0, false));
    }
    let tables = [
        Table::History,
        Table::Nulls,
        Table::Attributes,
        Table::Config,
        Table::Held,
        Table::Tombstones,
        Table::Grants,
        Table::Roots,
        Table::Pages,
    ];
    for table in tables {
        let rows: Vec<_> = txn.range(table, all.clone())?.take(limit.rows).collect::<Result<_, _>>()?;
        if !rows.is_empty() {
            rows.into_iter().for_each(|(key, _)| txn.remove(table, key));
            return Ok((0, false));
        }
    }
    txn.remove(Table::Buckets, keys::bucket(id));
    Ok((0, true))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::blobs::MemoryBackend;
    use crate::blocking::Inline;
    use crate::catalog::MemoryCatalog;
    use crate::clock::ManualClock;
    use crate::ids::SeededIds;
    use crate::master::{Actor, CompleteRequest, DeleteRequest, Description, NamedPart, PartBody, PartRequest};
    use crate::master::{Precondition, Seams, UploadRequest};
    use crate::types::{BucketName, Timestamp};

    const PARTS: u16 = 4;
    const OBJECTS: u8 = 5;

    fn actor() -> Actor {
        Actor("tester".to_owned())
    }

    /// A bucket whose five objects of four parts each were deleted, and its floor raised above them.
    async fn deleted() -> (Master, BucketName, BucketId) {
        let seams = Seams {
            catalog: Arc::new(MemoryCatalog::new()),
            backend: Arc::new(MemoryBackend::default()),
            blocking: Arc::new(Inline),
            clock: Arc::new(ManualClock::new(Timestamp(0))),
            ids: Arc::new(SeededIds::new(1)),
        };
        let limits = Limits { disk_reserve: 0, part_bytes_min: 0, ..Limits::default() };
        let master = Master::simulated(seams, limits).await.expect("opens");
        let name: BucketName = "bucket".parse().expect("lawful");
        let id = master.create_bucket(&actor(), &name, "").await.expect("creates").id;
        for index in 0..OBJECTS {
            let path = ObjectPath::try_from(vec![b'a' + index]).expect("lawful");
            put(&master, &name, &path).await;
            let delete = DeleteRequest { path, version: None, precondition: Precondition::default() };
            master.delete(&actor(), &name, vec![delete]).await.expect("deletes");
        }
        master.raise_floor(id, true).await.expect("raises");
        (master, name, id)
    }

    async fn put(master: &Master, name: &BucketName, path: &ObjectPath) {
        let (path, description) = (path.clone(), Description::default());
        let begin = UploadRequest { path: path.clone(), description, checksum: None, checksum_declared: false };
        let upload = master.begin_upload(&actor(), name, begin).await.expect("begins").upload;
        let mut parts = Vec::new();
        for number in 1..=PARTS {
            let source = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"part"))]);
            let body = master.blobs().store(source, (), Some(4), 4).await.expect("stores").0;
            let part = PartRequest { body: PartBody::Staged(body), md5: [0; 16], checksum: None };
            master.put_part(name, &path, upload, number, part).await.expect("puts");
            parts.push(NamedPart { number, etag: None, checksum: None });
        }
        let complete = CompleteRequest { parts, checksum: None, size: None, precondition: Precondition::default() };
        master.complete_upload(&actor(), name, &path, upload, complete).await.expect("completes");
    }

    #[tokio::test]
    async fn a_transaction_lets_go_of_few_pieces_however_few_rows_they_are_in() {
        let (master, _, id) = deleted().await;
        let limit = PageLimit { rows: 1000, pieces: usize::from(PARTS) + 1 };
        let mut pages = Vec::new();
        loop {
            let blobs = master.blobs.clone();
            let page = master.writer.transact(move |txn| drop_page(txn, id, None, limit, &blobs)).await;
            let (versions, done) = page.expect("drops");
            pages.push(versions);
            if done {
                break;
            }
        }
        // Two objects have more pieces than a page; the third waits for the next.
        assert_eq!(pages, [2, 2, 1]);
    }

    #[tokio::test]
    async fn the_rows_of_a_deleted_bucket_go_by_few_pieces_too() {
        let (master, name, id) = deleted().await;
        put(&master, &name, &ObjectPath::try_from(vec![b'z']).expect("lawful")).await;
        let limit = PageLimit { rows: 1000, pieces: 1 };
        let mut most = 0;
        loop {
            let blobs = master.blobs.clone();
            let page = master.writer.transact(move |txn| remove_page(txn, id, limit, &blobs)).await;
            let (versions, done) = page.expect("removes");
            most = most.max(versions);
            if done {
                break;
            }
        }
        assert_eq!(most, 1);
        let slots = master.writer.read(|view| Ok(view.range(Table::Slots, KeyRange::prefix(&[]))?.count())).await;
        assert_eq!(slots.expect("reads"), 0);
    }
}
