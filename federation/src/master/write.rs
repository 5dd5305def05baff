//! Writes of objects: put, copy, delete, and what may change about a version.

use bytes::Bytes;

use super::body::{Adopted, Owner, adopt, load_parts};
use super::home::{Author, Home};
use super::key::{self, name_of};
use super::lens::attributes_at;
use super::read::find_live;
use super::request::{
    Actor, CopyRequest, DeleteRequest, Deleted, Description, EtagMatch, Precondition, PutRequest, Version, Versioning,
    Which, Written,
};
use super::{Master, layer};
use crate::blobs::{SlotGuard, StagedBody, Stored, Urgency};
use crate::catalog::rows::{AttributesRow, Change};
use crate::catalog::{KeyRange, Rows, Table, Transaction, keys};
use crate::error::{Error, Result, VersionName};
use crate::mutant::{self, Mutant};
use crate::types::{
    Attributes, Body, BucketName, FileId, Number, ObjectPath, ObjectRecord, Part, Piece, Slot, Summary, Timestamp,
};

/// How often a write starts over because a layer or the collector was at work on what it needs.
const TRIES_MAX: usize = 16;

impl Precondition {
    /// Whether anything is to be checked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Precondition::default()
    }

    /// Checks the condition against a key's newest version.
    pub(super) fn check(&self, path: &ObjectPath, live: Option<&Summary>) -> Result<()> {
        if mutant::on(Mutant::SkipPrecondition) {
            return Ok(());
        }
        let failed = |condition| Err(Error::PreconditionFailed { condition });
        if let Some(wanted) = &self.if_match {
            let Some(live) = live else { return Err(Error::NoSuchKey { path: path.clone() }) };
            if !wanted.matches(live) {
                return failed("If-Match");
            }
        }
        if let Some(unwanted) = &self.if_none_match
            && live.is_some_and(|live| unwanted.matches(live))
        {
            return failed("If-None-Match");
        }
        if self.if_match_size.is_some_and(|size| live.is_none_or(|live| live.size != size)) {
            return failed("x-amz-if-match-size");
        }
        // Clients send whole seconds.
        let seconds = |time: Timestamp| time.0 / 1000;
        let modified = self.if_match_modified.map(seconds);
        if modified.is_some_and(|wanted| live.is_none_or(|live| seconds(live.modified) != wanted)) {
            return failed("x-amz-if-match-last-modified-time");
        }
        Ok(())
    }
}

impl EtagMatch {
    fn matches(&self, live: &Summary) -> bool {
        match self {
            EtagMatch::Any => true,
            EtagMatch::OneOf(tags) => {
                let etag = live.etag.to_string();
                tags.contains(&etag)
            }
        }
    }
}

/// The newest version of a key for a precondition; layers are folded before.
pub(super) fn newest(home: &Home<'_, '_>, path: &ObjectPath) -> Result<Option<Summary>> {
    Ok(key::current(home.txn, home.id, path)?.map(|row| row.summary))
}

/// What a write answers.
pub(super) fn written(home: &Home<'_, '_>, summary: &Summary, record: &ObjectRecord) -> Written {
    Written {
        number: summary.version,
        name: (home.row.versioning != Versioning::Off).then(|| name_of(summary)),
        etag: record.etag,
        size: record.size,
        modified: record.modified,
        checksum: record.checksum.clone(),
    }
}

/// A version on its way in.
struct NewVersion {
    record: ObjectRecord,
    /// The parts of the record's part list, which are claimed with it.
    parts: Vec<Part>,
    /// A large body that was just stored.
    stored: Option<Stored>,
    /// The file that had its content and is damaged.
    damaged: Option<FileId>,
    precondition: Precondition,
}

impl Master {
    /// Writes an object. It is on disk, body and record, when this returns.
    pub async fn put(
        &self,
        actor: &Actor,
        bucket: &BucketName,
        path: &ObjectPath,
        request: PutRequest,
    ) -> Result<Written> {
        let (master, author, bucket, path) = (self.clone(), author(actor), bucket.clone(), path.clone());
        // What was begun is brought to its end even if the client goes away in between.
        self.detached(async move { master.put_to_end(author, bucket, path, request).await }).await
    }

    async fn put_to_end(
        &self,
        author: Author,
        bucket: BucketName,
        path: ObjectPath,
        request: PutRequest,
    ) -> Result<Written> {
        let PutRequest { mut body, md5, checksum, description, precondition } = request;
        // A write that must fail is cheapest to refuse before its body is synced.
        if !precondition.is_empty() {
            self.check_early(&bucket, &path, precondition.clone()).await?;
        }
        self.blobs.persist(&mut body).await?;
        let stored = body.stored().unwrap_or(Stored::Empty);
        let Description { headers, metadata, tags } = description;
        let record = ObjectRecord {
            body: stored.piece().map_or(Body::Empty, Body::Whole),
            size: body.length(),
            etag: crate::types::ETag { md5, parts: None },
            modified: Timestamp(0),
            checksum,
            headers,
            metadata,
            tags,
        };
        let damaged = self.find_damaged(&stored).await?;
        let new = NewVersion { record, parts: Vec::new(), stored: Some(stored), damaged, precondition };
        let outcome = self.write_version(&author, &bucket, &path, new).await;
        finish(body, outcome)
    }

    /// Writes a version of what is durable already.
    async fn write_version(
        &self,
        author: &Author,
        bucket: &BucketName,
        path: &ObjectPath,
        new: NewVersion,
    ) -> Result<(Written, Adopted)> {
        let new = std::sync::Arc::new(new);
        self.change_key(
            bucket,
            path,
            move |home, path, author, wall| {
                new.precondition.check(path, newest(home, path)?.as_ref())?;
                let taken = match &new.stored {
                    Some(Stored::Blob(blob)) => adopt(home.txn, blob, new.damaged)?,
                    _ => Adopted::Taken,
                };
                let stamp = home.issue(wall);
                let mut record = new.record.clone();
                record.modified = stamp.time.wall;
                home.claim_body(&record.body, &new.parts, Owner::Version(home.id, stamp.number, stamp.ordinal))?;
                let summary = home.put_version(path, stamp, author, record.clone())?;
                Ok((written(home, &summary, &record), taken))
            },
            author,
        )
        .await
    }

    /// Runs a change of one key as a transaction, after the key has left every open layer.
    pub(super) async fn change_key<T: Send + 'static>(
        &self,
        bucket: &BucketName,
        path: &ObjectPath,
        change: impl Fn(&mut Home<'_, '_>, &ObjectPath, &Author, Timestamp) -> Result<T> + Clone + Send + 'static,
        author: &Author,
    ) -> Result<T> {
        self.admit()?;
        for _ in 0..TRIES_MAX {
            let (bucket_name, key, author, change) = (bucket.clone(), path.clone(), author.clone(), change.clone());
            let wall = self.clock.wall();
            let outcome = self
                .writer
                .transact(move |txn| {
                    let mut home = Home::open(txn, &bucket_name)?;
                    if layer::covers(&home, &key)? {
                        return Ok(None);
                    }
                    let result = change(&mut home, &key, &author, wall)?;
                    home.save();
                    Ok(Some(result))
                })
                .await?;
            match outcome {
                Some(result) => return Ok(result),
                None => layer::settle_key(self, bucket, path).await?,
            }
        }
        Err(Error::Conflict)
    }

    async fn check_early(&self, bucket: &BucketName, path: &ObjectPath, precondition: Precondition) -> Result<()> {
        let (at, path) = (bucket_at(bucket), path.clone());
        self.writer
            .read(move |view| {
                let live = super::lens::Lens::open(view, &at)?.look(&path)?.live();
                precondition.check(&path, live.map(|live| live.summary).as_ref())
            })
            .await
    }

    /// Copies a version. Large bodies are shared; small ones are appended again.
    pub async fn copy(
        &self,
        actor: &Actor,
        source: &Version,
        bucket: &BucketName,
        path: &ObjectPath,
        request: CopyRequest,
    ) -> Result<Written> {
        let (master, author, source) = (self.clone(), author(actor), source.clone());
        let (bucket, path) = (bucket.clone(), path.clone());
        self.detached(async move { master.copy_to_end(author, source, bucket, path, request).await }).await
    }

    async fn copy_to_end(
        &self,
        author: Author,
        source: Version,
        bucket: BucketName,
        path: ObjectPath,
        request: CopyRequest,
    ) -> Result<Written> {
        let origin = source.origin;
        let same_bucket = self.bucket(&bucket).await?.id == source.bucket;
        let mut record = source.record.clone();
        if !same_bucket {
            record.body = self.localize(&source).await?;
        }
        let mut copied = self.copy_body(&record.body, Urgency::Normal).await;
        for _ in 1..TRIES_MAX {
            // Compaction may have moved a slot since the version was looked up; the log knows where to.
            let (Err(Error::Damaged { .. }), Some((bucket, summary))) = (&copied, origin) else { break };
            record.body =
                self.writer.read(move |view| Ok(super::lens::record_of(view, bucket, &summary)?.body)).await?;
            if !same_bucket {
                let source = Version { record: record.clone(), ..source.clone() };
                record.body = self.localize(&source).await?;
            }
            copied = self.copy_body(&record.body, Urgency::Normal).await;
        }
        let (body, parts, guards) = copied?;
        record.body = body;
        if let Some((headers, metadata)) = request.description {
            record.headers = headers;
            record.metadata = metadata;
        }
        if let Some(tags) = request.tags {
            record.tags = tags;
        }
        if let Some(checksum) = request.checksum {
            record.checksum = Some(checksum);
        }
        let new = NewVersion { record, parts, stored: None, damaged: None, precondition: request.precondition };
        let outcome = self.write_version(&author, &bucket, &path, new).await;
        drop(guards);
        Ok(outcome?.0)
    }

    /// A body of its own with the content of another: slots are appended again, large pieces are the same.
    /// Also returns the parts that stand only in its part list.
    pub(super) async fn copy_body(&self, body: &Body, urgency: Urgency) -> Result<(Body, Vec<Part>, Vec<SlotGuard>)> {
        let (reading, blobs) = (body.clone(), self.blobs.clone());
        let (parts, bytes) = self
            .writer
            .read(move |view| {
                let parts = load_parts(view, &blobs, &reading)?;
                let bytes: Vec<Bytes> =
                    slots_of(&reading, &parts).iter().map(|slot| blobs.read_slot(slot)).collect::<Result<_, _>>()?;
                Ok((parts, bytes))
            })
            .await?;
        let guards = if bytes.is_empty() { Vec::new() } else { self.blobs.append_many(bytes, urgency).await? };
        let mut copies = guards.iter().map(SlotGuard::slot);
        let mut copied = |piece: Piece| -> Result<Piece> {
            match piece {
                Piece::Slot(_) => copies.next().map(Piece::Slot).ok_or(Error::Conflict),
                Piece::Blob { .. } | Piece::Shared { .. } => Ok(piece),
            }
        };
        let copied_body = match body {
            Body::Empty => Body::Empty,
            Body::Whole(piece) => Body::Whole(copied(*piece)?),
            Body::Parts(parts) => {
                let mut parts = parts.clone();
                for part in &mut parts {
                    part.piece = part.piece.map(&mut copied).transpose()?;
                }
                Body::Parts(parts)
            }
            Body::PartList { list, count, slots } => {
                let list = copied(*list)?;
                let mut moved = Vec::with_capacity(slots.len());
                for (index, slot) in slots {
                    if let Piece::Slot(slot) = copied(Piece::Slot(*slot))? {
                        moved.push((*index, slot));
                    }
                }
                Body::PartList { list, count: *count, slots: moved }
            }
        };
        let listed = match body {
            Body::PartList { .. } => blob_parts(parts),
            _ => Vec::new(),
        };
        Ok((copied_body, listed, guards))
    }

    /// Deletes keys and versions: one transaction, each its own number.
    pub async fn delete(
        &self,
        actor: &Actor,
        bucket: &BucketName,
        requests: Vec<DeleteRequest>,
    ) -> Result<Vec<Result<Deleted>>> {
        self.admit_delete()?;
        let author = author(actor);
        let requests = std::sync::Arc::new(requests);
        for _ in 0..TRIES_MAX {
            let (name, author, wanted, wall) = (bucket.clone(), author.clone(), requests.clone(), self.clock.wall());
            let outcome = self
                .writer
                .transact(move |txn| delete_all(&mut Home::open(txn, &name)?, &wanted, &author, wall))
                .await?;
            match outcome {
                Attempt::Done(results) => return Ok(results),
                Attempt::Covered(paths) => layer::settle_keys(self, bucket, paths).await?,
            }
        }
        Err(Error::Conflict)
    }

    /// Changes what may change about a version. Says under which number, and which version it was.
    pub async fn set_attributes(
        &self,
        actor: &Actor,
        bucket: &BucketName,
        path: &ObjectPath,
        which: Which,
        attributes: Attributes,
    ) -> Result<(Number, Option<VersionName>)> {
        let author = author(actor);
        self.change_key(
            bucket,
            path,
            move |home, path, author, wall| set_attributes(home, path, which, &attributes, author, wall),
            &author,
        )
        .await
    }
}

pub(super) fn set_attributes(
    home: &mut Home<'_, '_>,
    path: &ObjectPath,
    which: Which,
    change: &Attributes,
    author: &Author,
    wall: Timestamp,
) -> Result<(Number, Option<VersionName>)> {
    let lens = super::lens::Lens::new(home.txn, home.id, home.row.clone(), Number::MAX)?;
    let summary = find_live(&lens, path, which)?.summary;
    let version = summary.version;
    let mut all = attributes_at(home.txn, home.id, path, version, Number::MAX)?;
    let previous = newest_attributes(home.txn, home.id, path, version)?;
    all.tags = change.tags.clone().or(all.tags);
    all.acl = change.acl.clone().or(all.acl);
    all.retention = change.retention.clone().or(all.retention);
    all.hold = change.hold.or(all.hold);
    let stamp = home.issue(wall);
    let row = AttributesRow { attributes: all, previous };
    home.txn.put(keys::attributes(home.id, path, version, stamp.number), &row);
    home.log(
        stamp,
        author,
        Some(path),
        Change::Attributes { version, attributes: change.clone() },
        previous,
        Vec::new(),
    );
    let name = (home.row.versioning != Versioning::Off).then(|| name_of(&summary));
    Ok((stamp.number, name))
}

/// The change that set a version's attributes last.
fn newest_attributes(
    txn: &Transaction<'_>,
    bucket: crate::types::BucketId,
    path: &ObjectPath,
    version: Number,
) -> Result<Option<Number>> {
    let range = KeyRange::prefix(&keys::attributes_of(bucket, path, version));
    let row = txn.range(Table::Attributes, range)?.next().transpose()?;
    Ok(row.and_then(|(key, _)| keys::descending(key.get(key.len().checked_sub(8)?..)?)))
}

/// How far an attempt to delete came.
pub(super) enum Attempt {
    /// To its end.
    Done(Vec<Result<Deleted>>),
    /// Nowhere: an open layer still covers these keys.
    Covered(Vec<ObjectPath>),
}

pub(super) fn delete_all(
    home: &mut Home<'_, '_>,
    requests: &[DeleteRequest],
    author: &Author,
    wall: Timestamp,
) -> Result<Attempt> {
    if home.row.open_layers > 0 {
        let mut covered = Vec::new();
        for request in requests {
            if layer::covers(home, &request.path)? {
                covered.push(request.path.clone());
            }
        }
        if !covered.is_empty() {
            return Ok(Attempt::Covered(covered));
        }
    }
    let mut results = Vec::with_capacity(requests.len());
    for request in requests {
        results.push(match delete_one(home, request, author, wall) {
            // Only conditions fail one key alone; anything else fails the request.
            Err(error @ (Error::PreconditionFailed { .. } | Error::NoSuchKey { .. })) => Err(error),
            Err(error) => return Err(error),
            Ok(deleted) => Ok(deleted),
        });
    }
    home.save();
    Ok(Attempt::Done(results))
}

fn delete_one(home: &mut Home<'_, '_>, request: &DeleteRequest, author: &Author, wall: Timestamp) -> Result<Deleted> {
    let path = &request.path;
    match request.version {
        None => {
            request.precondition.check(path, newest(home, path)?.as_ref())?;
            home.delete_key(path, |home| home.issue(wall), author)
        }
        Some(name) => {
            if !request.precondition.is_empty() {
                let place = key::find(home.txn, home.id, path, name, Number::MAX)?;
                request.precondition.check(path, place.as_ref().map(|place| place.summary()))?;
            }
            home.remove_version(path, name, wall, author)
        }
    }
}

/// The slots that a body's own record refers to, in the order in which [`Master::copy_body`] replaces them.
fn slots_of(body: &Body, parts: &[Part]) -> Vec<Slot> {
    let slot = |piece: &Piece| match piece {
        Piece::Slot(slot) => Some(*slot),
        Piece::Blob { .. } | Piece::Shared { .. } => None,
    };
    match body {
        Body::Empty => Vec::new(),
        Body::Whole(piece) => slot(piece).into_iter().collect(),
        Body::Parts(_) => parts.iter().filter_map(|part| part.piece.as_ref().and_then(slot)).collect(),
        Body::PartList { list, slots, .. } => {
            slot(list).into_iter().chain(slots.iter().map(|(_, slot)| *slot)).collect()
        }
    }
}

/// The parts that are large or shared bodies: those that a part list refers to by itself.
pub(super) fn blob_parts(mut parts: Vec<Part>) -> Vec<Part> {
    parts.retain(|part| matches!(part.piece, Some(Piece::Blob { .. } | Piece::Shared { .. })));
    parts
}

/// Lets go of a body after the transaction that was to claim it.
pub(super) fn finish<T>(body: StagedBody, outcome: Result<(T, Adopted)>) -> Result<T> {
    match outcome {
        Ok((result, Adopted::Taken)) => {
            body.claimed();
            Ok(result)
        }
        // The content was there already: the new copy goes.
        Ok((result, Adopted::Known)) => Ok(result),
        // The commit may have taken place: the sweep asks the catalog.
        Err(error @ Error::Storage { .. }) => {
            body.leave();
            Err(error)
        }
        Err(error) => Err(error),
    }
}

pub(super) fn author(actor: &Actor) -> Author {
    Author { actor: actor.0.clone(), origin: None }
}

pub(super) fn bucket_at(bucket: &BucketName) -> crate::types::BucketAt {
    crate::types::BucketAt::newest(bucket.clone())
}
