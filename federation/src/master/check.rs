//! Verifying the catalog against the bodies and the log, and saying where the bytes are.

use std::collections::HashMap;

use super::Master;
use super::body::{blob_row, listed_parts, load_parts, pieces, verify};
use super::request::{CheckOptions, CheckReport, Counts, DiskUsage};
use super::{partial, shared};
use crate::blobs::{Blobs, Found, StoredBlob};
use crate::catalog::rows::{
    AttributesRow, BlobRow, BodyRow, BucketRow, Change, ChangeRow, ClusterRow, CompletedRow, ConfigRow, Copy,
    CurrentRow, FactRow, GrantRow, HistoryRow, IdempotencyRow, InvitationRow, LayerRow, LinkRow, NameRow, NullRow,
    PartRow, PartialRow, PinRow, PublishRow, Record, RefCount, RootRow, SlotOwner, StagedRow, TagRow, TombstoneRow,
    UploadRow, VersionRow,
};
use crate::catalog::{KeyRange, Table, View, keys};
use crate::error::Result;
use crate::snapshot::PageHash;
use crate::types::{BlobHash, Body, BucketId, FileId, Number, Piece};

/// How many rows are looked at under one view of the catalog.
const ROWS_PER_VIEW: usize = 2000;

/// What a pass over a table goes on with.
type Next = Option<Vec<u8>>;

impl Master {
    /// Verifies everything, a page at a time while serving goes on. `progress` hears of (done, all) rows.
    pub async fn check(&self, options: CheckOptions, mut progress: impl FnMut(u64, u64) + Send) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let backend = self.blobs.backend().clone();
        let found = self.blobs.blocking().run(move || backend.list()).await?;
        let files: HashMap<FileId, (BlobHash, u64)> = found
            .iter()
            .filter_map(|found| match found {
                Found::File { file, hash, length, .. } => Some((*file, (*hash, *length))),
                Found::Segment { .. } | Found::Sparse { .. } | Found::Unfinished { .. } | Found::Foreign { .. } => None,
            })
            .collect();
        let files = std::sync::Arc::new(files);
        // Bodies come first: the log then says whose the damaged ones are.
        let first = [Table::Blobs, Table::Slots, Table::Current, Table::History, Table::Changes, Table::Parts];
        let others = Table::ALL.iter().copied().filter(|table| !first.contains(table));
        let tables: Vec<Table> = first.into_iter().chain(others).collect();
        let all = tables.clone();
        let total = self.writer.read(move |view| count(view, &all)).await?;
        let mut done = 0;
        let mut damaged = DamagedBodies::default();
        for table in tables {
            let mut next: Next = None;
            loop {
                let (blobs, files, from) = (self.blobs.clone(), files.clone(), next.clone());
                let (page, rows, following);
                (page, damaged, rows, following) = self
                    .writer
                    .read(move |view| {
                        let report = CheckReport::default();
                        let mut pass = Pass { view, blobs: &blobs, files: &files, options, report, damaged };
                        let (rows, following) = pass.page(table, from)?;
                        Ok((pass.report, pass.damaged, rows, following))
                    })
                    .await?;
                done += rows;
                progress(done.min(total), total);
                self.add(&mut report, page);
                match following {
                    Some(following) => next = Some(following),
                    None => break,
                }
            }
        }
        self.add(&mut report, damaged.of_nobody());
        let blobs = self.blobs.clone();
        let counts = self.writer.read(move |view| check_counts(view, &blobs)).await?;
        self.add(&mut report, counts);
        Ok(report)
    }

    fn add(&self, report: &mut CheckReport, page: CheckReport) {
        report.versions += page.versions;
        report.bodies += page.bodies;
        report.bytes += page.bytes;
        let room = self.limits.check_findings_max.saturating_sub(report.findings.len());
        report.findings.extend(page.findings.into_iter().take(room));
    }

    /// What there is, by the counts that are kept: cheap at any size.
    pub async fn counts(&self) -> Result<Counts> {
        let (backend, catalog) = (self.blobs.backend().clone(), std::sync::Arc::clone(self.writer.catalog()));
        self.writer
            .read(move |view| {
                let (catalog_bytes, disk_free_bytes) = (catalog.bytes()?, backend.free_space()?);
                let mut counts = Counts { catalog_bytes, disk_free_bytes, ..Counts::default() };
                for row in view.range(Table::Buckets, KeyRange::prefix(&[]))? {
                    let row = BucketRow::decode(&row?.1)?;
                    if !row.deleted {
                        counts.buckets += 1;
                        counts.objects += row.objects;
                        counts.object_bytes += row.bytes;
                    }
                }
                Ok(counts)
            })
            .await
    }

    /// Where the bytes are. Looks at every file and walks the catalog.
    pub async fn usage(&self) -> Result<DiskUsage> {
        let backend = self.blobs.backend().clone();
        let (found, free) = self.blobs.blocking().run(move || (backend.list(), backend.free_space())).await;
        let mut usage = DiskUsage { disk_free_bytes: free?, ..DiskUsage::default() };
        for found in found? {
            match found {
                Found::Segment { length, .. } => {
                    usage.segments += 1;
                    usage.segment_bytes += length;
                }
                Found::File { length, .. } | Found::Unfinished { length, .. } => {
                    usage.files += 1;
                    usage.file_bytes += length;
                }
                // Most of it may be a hole: its row says what is there.
                Found::Sparse { .. } => usage.files += 1,
                Found::Foreign { .. } => {}
            }
        }
        let catalog = std::sync::Arc::clone(self.writer.catalog());
        // Measuring the catalog takes its one write transaction: it queues behind commits like any other.
        let size = self.writer.blocking().run(move || catalog.size()).await?;
        usage.catalog_bytes = size.bytes;
        usage.catalog_free_bytes = size.free;
        let (objects, bytes, live, partial) = self
            .writer
            .read(|view| {
                let (mut objects, mut bytes, mut live) = (0, 0, 0);
                for row in view.range(Table::Buckets, KeyRange::prefix(&[]))? {
                    let row = BucketRow::decode(&row?.1)?;
                    objects += row.objects;
                    bytes += row.bytes;
                }
                for row in view.range(Table::Slots, KeyRange::prefix(&[]))? {
                    live += u64::from(SlotOwner::decode(&row?.1)?.length());
                }
                let partial: u64 = partial::all(view)?.iter().map(|(_, space, _)| space).sum();
                Ok((objects, bytes, live, partial))
            })
            .await?;
        usage.file_bytes += partial;
        usage.objects = objects;
        usage.object_bytes = bytes;
        usage.segment_live_bytes = live;
        Ok(usage)
    }
}

fn count(view: &dyn View, tables: &[Table]) -> Result<u64> {
    let mut rows = 0;
    for table in tables {
        rows += view.range(*table, KeyRange::prefix(&[]))?.count() as u64;
    }
    Ok(rows)
}

/// Bodies that are damaged, what is wrong with each, and whether a version that has it was named.
#[derive(Default)]
struct DamagedBodies(HashMap<BlobHash, (String, bool)>);

impl DamagedBodies {
    fn of_nobody(self) -> CheckReport {
        let unnamed = self.0.into_iter().filter(|(_, (_, named))| !named);
        let findings = unnamed.map(|(hash, (wrong, _))| format!("body {hash}: {wrong}")).collect();
        CheckReport { findings, ..CheckReport::default() }
    }
}

/// A page of the check: its rows are compared under one view.
struct Pass<'a> {
    view: &'a dyn View,
    blobs: &'a Blobs,
    files: &'a HashMap<FileId, (BlobHash, u64)>,
    options: CheckOptions,
    report: CheckReport,
    damaged: DamagedBodies,
}

impl Pass<'_> {
    fn page(&mut self, table: Table, from: Next) -> Result<(u64, Next)> {
        let range = match from {
            None => KeyRange::prefix(&[]),
            Some(from) => KeyRange::prefix(&[]).starting(std::ops::Bound::Excluded(from)),
        };
        let mut rows = 0;
        let mut last = None;
        for row in self.view.range(table, range)?.take(ROWS_PER_VIEW) {
            let (key, value) = row?;
            rows += 1;
            if let Err(error) = self.row(table, &key, &value) {
                self.find(format!("a row of {}: {error}", table.name()));
            }
            last = Some(key);
        }
        Ok((rows as u64, last.filter(|_| rows == ROWS_PER_VIEW)))
    }

    fn find(&mut self, finding: String) {
        self.report.findings.push(finding);
    }

    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        match table {
            Table::Current => {
                let row = CurrentRow::decode(value)?;
                self.listed(key, row.summary.version, row.summary.ordinal, row.summary.size)
            }
            Table::History => {
                let row = HistoryRow::decode(value)?;
                if row.marker {
                    return Ok(());
                }
                self.listed(key, row.summary.version, row.summary.ordinal, row.summary.size)
            }
            Table::Changes => self.change(key, &ChangeRow::decode(value)?),
            Table::Parts => {
                let row = PartRow::decode(value)?;
                row.piece.map_or(Ok(()), |piece| self.piece(&piece, "a part of an upload"))
            }
            Table::Slots => self.slot(key, &SlotOwner::decode(value)?),
            Table::Blobs => self.blob(key, BlobRow::decode(value)?),
            // Nothing stands behind these: their rows can be read, or they are damaged.
            Table::Buckets => Ok(BucketRow::decode(value).map(drop)?),
            Table::Names => Ok(NameRow::decode(value).map(drop)?),
            Table::Nulls => Ok(NullRow::decode(value).map(drop)?),
            Table::Attributes => Ok(AttributesRow::decode(value).map(drop)?),
            Table::Config => Ok(ConfigRow::decode(value).map(drop)?),
            Table::BlobRefs => Ok(RefCount::decode(value).map(drop)?),
            Table::Tags => Ok(TagRow::decode(value).map(drop)?),
            Table::Pins => Ok(PinRow::decode(value).map(drop)?),
            Table::Uploads => Ok(UploadRow::decode(value).map(drop)?),
            Table::Completed => Ok(CompletedRow::decode(value).map(drop)?),
            Table::Layers => Ok(LayerRow::decode(value).map(drop)?),
            Table::Staged => Ok(StagedRow::decode(value).map(drop)?),
            Table::Idempotency => Ok(IdempotencyRow::decode(value).map(drop)?),
            Table::Tombstones => Ok(TombstoneRow::decode(value).map(drop)?),
            Table::Clusters => Ok(ClusterRow::decode(value).map(drop)?),
            Table::Invitations => Ok(InvitationRow::decode(value).map(drop)?),
            Table::Grants => Ok(GrantRow::decode(value).map(drop)?),
            Table::Links => Ok(LinkRow::decode(value).map(drop)?),
            Table::Facts => Ok(FactRow::decode(value).map(drop)?),
            Table::Versions => Ok(VersionRow::decode(value).map(drop)?),
            Table::Bodies => Ok(BodyRow::decode(value).map(drop)?),
            Table::Partials => Ok(PartialRow::decode(value).map(drop)?),
            Table::Publishes => Ok(PublishRow::decode(value).map(drop)?),
            Table::Roots => Ok(RootRow::decode(value).map(drop)?),
            Table::Pages => {
                if keys::split_page(key) != Some(PageHash::of(value)) {
                    self.find(
                        "a page of a snapshot tree is not what it was; it is derived again when it is read".to_owned(),
                    );
                }
                Ok(())
            }
            // All that these rows say is in their keys, or known to their readers alone.
            Table::Marked | Table::Held | Table::Users | Table::Meta => Ok(()),
        }
    }

    /// A row of `current` or `history` names a version that is in the log with the same size.
    fn listed(&mut self, key: &[u8], version: Number, ordinal: u32, size: u64) -> Result<()> {
        let Some((path, _)) = keys::split_object(key) else {
            self.find("a key of an object cannot be read".to_owned());
            return Ok(());
        };
        let bucket = bucket_of(key);
        match ChangeRow::load(self.view, &keys::change(bucket, version, ordinal))? {
            Some(ChangeRow { change: Change::Put(record), path: Some(logged), .. })
                if logged == path && record.size == size => {}
            _ => self.find(format!("{path}: version {version} is listed, but the log has no such version")),
        }
        Ok(())
    }

    fn change(&mut self, key: &[u8], row: &ChangeRow) -> Result<()> {
        let Change::Put(record) = &row.change else { return Ok(()) };
        self.report.versions += 1;
        let number = keys::split_change(key).map_or(Number::ZERO, |(number, _)| number);
        let path = row.path.as_ref().map(ToString::to_string).unwrap_or_default();
        let what = format!("{path}: version {number}");
        for piece in pieces(&record.body) {
            self.piece(&piece, &what)?;
        }
        match load_parts(self.view, self.blobs, &record.body) {
            Ok(parts) if !parts.is_empty() => {
                let size: u64 = parts.iter().map(crate::types::Part::length).sum();
                if size != record.size {
                    self.find(format!("{what}: its parts have {size} bytes, it has {}", record.size));
                }
                for piece in parts.iter().filter_map(|part| part.piece) {
                    self.piece(&piece, &what)?;
                }
            }
            Ok(_) => {}
            Err(error) => self.find(format!("{what}: {error}")),
        }
        Ok(())
    }

    /// What a record refers to is there and knows of it.
    fn piece(&mut self, piece: &Piece, what: &str) -> Result<()> {
        match piece {
            Piece::Slot(slot) => {
                if SlotOwner::load(self.view, &keys::slot(slot.segment, slot.offset))?.is_none() {
                    self.find(format!("{what}: its slot has no owner, so that the collector may take it"));
                }
                if self.options.bodies {
                    self.report.bodies += 1;
                    self.report.bytes += u64::from(slot.length);
                    if let Err(error) = self.blobs.read_slot(slot) {
                        self.find(format!("{what}: {error}"));
                    }
                }
            }
            Piece::Blob { hash, length } => match blob_row(self.view, *hash)? {
                Some(row) if row.length == *length => {
                    if let Some((wrong, named)) = self.damaged.0.get_mut(hash) {
                        *named = true;
                        let finding = format!("{what}: body {hash}: {wrong}");
                        self.find(finding);
                    }
                }
                _ => self.find(format!("{what}: the catalog has no body {hash}")),
            },
            // Where its copy is, if there is one, the pass over the bodies looks.
            Piece::Shared { .. } => {}
        }
        Ok(())
    }

    fn slot(&mut self, key: &[u8], owner: &SlotOwner) -> Result<()> {
        let exists = match owner {
            SlotOwner::Version { bucket, number, ordinal, .. } => {
                ChangeRow::load(self.view, &keys::change(*bucket, *number, *ordinal))?.is_some()
            }
            SlotOwner::Part { upload, number, .. } => {
                PartRow::load(self.view, &keys::part(*upload, *number))?.is_some()
            }
            SlotOwner::Outboard { hash, .. } => blob_row(self.view, *hash)?.is_some(),
            SlotOwner::Partial { bucket, hash, .. } => partial::partial_row(self.view, *bucket, *hash)?.is_some(),
            SlotOwner::Staged { .. } => true,
            SlotOwner::Shared { bucket, hash, .. } => shared::here(self.view, *bucket, *hash)?.is_some(),
        };
        if !exists {
            let at = keys::split_slot(key).map(|(segment, offset)| format!("{:08x} at {offset}", segment.0));
            self.find(format!("segment {}: the slot's owner does not exist", at.unwrap_or_default()));
        }
        Ok(())
    }

    fn blob(&mut self, key: &[u8], row: BlobRow) -> Result<()> {
        let Ok(hash) = key.try_into().map(BlobHash) else { return Ok(()) };
        match self.files.get(&row.file) {
            Some((named, length)) if *named == hash && *length == row.length => {}
            // A body that was stored after the files were listed is not among them.
            None if self.blobs.backend().reader(row.file, &hash).is_ok() => {}
            _ => {
                let wrong = format!("its file {:016x} is missing or has another length", row.file.0);
                self.damaged.0.insert(hash, (wrong, false));
                return Ok(());
            }
        }
        if self.options.bodies {
            self.report.bodies += 1;
            self.report.bytes += row.length;
            let blob = StoredBlob { hash, length: row.length, file: row.file, outboard: row.outboard };
            if let Err(error) = verify(self.blobs, &blob) {
                self.damaged.0.insert(hash, (error.to_string(), false));
            }
        }
        Ok(())
    }
}

fn bucket_of(key: &[u8]) -> BucketId {
    BucketId(key.get(..16).and_then(|id| id.try_into().ok()).unwrap_or_default())
}

/// References are counted as they are, live objects and their bytes too. One view sees it all.
fn check_counts(view: &dyn View, blobs: &Blobs) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    let mut counted: HashMap<(BlobHash, BucketId), u64> = HashMap::new();
    let mut count = |bucket: BucketId, piece: &Piece| {
        if let Piece::Blob { hash, .. } = piece {
            *counted.entry((*hash, bucket)).or_default() += 1;
        }
    };
    for row in view.range(Table::Changes, KeyRange::prefix(&[]))? {
        let (key, value) = row?;
        if let Change::Put(record) = ChangeRow::decode(&value)?.change {
            pieces(&record.body).iter().for_each(|piece| count(bucket_of(&key), piece));
            if let Body::PartList { list, .. } = &record.body {
                // A list that cannot be read was found by the pass over the log.
                let parts = listed_parts(view, blobs, list).unwrap_or_default();
                parts.iter().filter_map(|part| part.piece.as_ref()).for_each(|piece| count(bucket_of(&key), piece));
            }
        }
    }
    let mut bucket_of_upload = HashMap::new();
    for row in view.range(Table::Uploads, KeyRange::prefix(&[]))? {
        let (key, _) = row?;
        if let Some((_, tail)) = keys::split_object(&key) {
            bucket_of_upload.insert(tail.to_vec(), bucket_of(&key));
        }
    }
    for row in view.range(Table::Parts, KeyRange::prefix(&[]))? {
        let (key, value) = row?;
        if let (Some(bucket), Some(piece)) =
            (key.get(..16).and_then(|id| bucket_of_upload.get(id)), PartRow::decode(&value)?.piece)
        {
            count(*bucket, &piece);
        }
    }
    for row in view.range(Table::Staged, KeyRange::prefix(&[]))? {
        let (key, value) = row?;
        let begun = view.get(Table::Meta, &keys::commit_begun(crate::types::LayerId(bucket_of(&key).0)))?;
        if let (StagedRow::Put(record), Some(bucket)) = (StagedRow::decode(&value)?, begun) {
            pieces(&record.body).iter().for_each(|piece| count(bucket_of(&bucket), piece));
        }
    }
    for row in view.range(Table::Bodies, KeyRange::prefix(&[]))? {
        let (key, value) = row?;
        let (Some((bucket, hash)), BodyRow { length, copy: Some(Copy::Blob), .. }) =
            (keys::split_body(&key), BodyRow::decode(&value)?)
        else {
            continue;
        };
        count(bucket, &Piece::Blob { hash, length });
    }
    for row in view.range(Table::BlobRefs, KeyRange::prefix(&[]))? {
        let (key, value) = row?;
        let Some((hash, bucket)) = key.split_at_checked(32) else { continue };
        let hash = BlobHash(hash.try_into().unwrap_or_default());
        let stated = RefCount::decode(&value)?.0;
        let real = counted.remove(&(hash, bucket_of(bucket))).unwrap_or(0);
        if stated != real {
            report.findings.push(format!("body {hash}: {stated} references are counted, there are {real}"));
        }
    }
    for ((hash, _), real) in counted {
        report.findings.push(format!("body {hash}: no references are counted, there are {real}"));
    }
    check_buckets(view, &mut report)?;
    Ok(report)
}

fn check_buckets(view: &dyn View, report: &mut CheckReport) -> Result<()> {
    for row in view.range(Table::Buckets, KeyRange::prefix(&[]))? {
        let (key, value) = row?;
        let bucket = BucketRow::decode(&value)?;
        let (mut objects, mut bytes) = (0, 0);
        for row in view.range(Table::Current, KeyRange::prefix(&key))? {
            objects += 1;
            bytes += CurrentRow::decode(&row?.1)?.summary.size;
        }
        if (objects, bytes) != (bucket.objects, bucket.bytes) {
            report.findings.push(format!(
                "bucket {}: {} objects with {} bytes are counted, there are {objects} with {bytes}",
                bucket.name, bucket.objects, bucket.bytes
            ));
        }
    }
    Ok(())
}
