//! What a bucket that another cluster numbers has here: a name, uploads in progress, and bodies.

use super::body::{Adopted, load_parts, stored_piece};
use super::elsewhere::Place;
use super::home::{Home, bucket};
use super::multipart::{completed_record, end_upload};
use super::request::{BucketInfo, CompleteRequest, Version, Versioning, Written};
use super::{Limit, Limits, Master, partial, shared};
use crate::blobs::{StagedBody, Stored, Urgency};
use crate::catalog::rows::{BucketRow, CompletedRow, LinkRow, NameRow, PublishRow, Record};
use crate::catalog::{KeyRange, Rows, Table, Transaction, keys};
use crate::error::{Error, Result, VersionName};
use crate::types::{
    BlobHash, Body, BucketId, BucketName, ChangeTime, Consistency, FileId, MemberId, Number, ObjectPath, ObjectRecord,
    Part, Piece, Summary, Timestamp, UploadId,
};

impl Master {
    /// Gives a bucket of another cluster a name here.
    pub(crate) async fn create_linked(
        &self,
        home: MemberId,
        remote: &BucketName,
        name: &BucketName,
        info: &BucketInfo,
    ) -> Result<()> {
        let (remote, name, info) = (remote.clone(), name.clone(), info.clone());
        let (wall, maximum) = (self.clock.wall(), self.limits.buckets_max);
        self.writer
            .transact(move |txn| {
                let key = keys::name(&name);
                let mut names = NameRow::load(txn, &key)?.unwrap_or_default();
                if names.bucket.is_some() {
                    return Err(Error::BucketExists { bucket: name });
                }
                if let Some(row) = BucketRow::load(txn, &keys::bucket(info.id))? {
                    let what = if row.linked { "linked here" } else { "one of this cluster's own" };
                    return Err(Error::InvalidRequest {
                        reason: format!("the bucket is {what} already, as {}", row.name),
                    });
                }
                let count = txn.range(Table::Links, KeyRange::prefix(&[]))?.count();
                Limits::check(Limit::Buckets, count + 1, maximum)?;
                let link = LinkRow { home, remote, seen: info.number, consistency: Consistency::default() };
                txn.put(keys::bucket(info.id), &link);
                txn.put(keys::bucket(info.id), &linked_row(name, &info, wall));
                names.bucket = Some(info.id);
                txn.put(key, &names);
                Ok(())
            })
            .await
    }

    /// Takes a linked bucket's name and all that is known of it away. Bodies that were written here stay needed by
    /// others, so with them it is refused.
    pub(crate) async fn remove_linked(&self, name: &BucketName) -> Result<()> {
        let (wanted, batch) = (name.clone(), UNLINK_ROWS_PER_TRANSACTION);
        loop {
            let name = wanted.clone();
            let done = self
                .writer
                .transact(move |txn| {
                    let (id, row) = bucket(txn, &name)?;
                    if !row.linked {
                        return Err(Error::InvalidRequest {
                            reason: format!("{name} is numbered here, it is no link"),
                        });
                    }
                    let mut holds = Vec::new();
                    for entry in txn.range(Table::Bodies, KeyRange::prefix(&keys::bucket(id)))?.take(batch) {
                        let (key, value) = entry?;
                        let body = crate::catalog::rows::BodyRow::decode(&value)?;
                        if body.own {
                            return Err(Error::BucketNotEmpty {
                                bucket: name,
                                holds: "bodies that were written here and that other clusters read from here: \
                                        delete those objects first, or stay linked"
                                    .to_owned(),
                            });
                        }
                        holds.push((key, body));
                    }
                    if row.uploads > 0 {
                        let holds = format!("{} uploads in progress", row.uploads);
                        return Err(Error::BucketNotEmpty { bucket: name, holds });
                    }
                    let mut left = holds.len();
                    for (key, body) in holds {
                        if let Some((bucket, hash)) = keys::split_body(&key) {
                            shared::forget(txn, bucket, hash, &body)?;
                        }
                    }
                    let partials: Vec<_> = txn
                        .range(Table::Partials, KeyRange::prefix(&keys::bucket(id)))?
                        .collect::<std::result::Result<_, _>>()?;
                    for (bucket, hash) in partials.iter().filter_map(|(key, _)| keys::split_body(key)) {
                        partial::give_up(txn, bucket, hash)?;
                    }
                    for table in [Table::Facts, Table::Versions, Table::Roots, Table::Pages] {
                        let rows: Vec<_> = txn
                            .range(table, KeyRange::prefix(&keys::bucket(id)))?
                            .take(batch)
                            .collect::<std::result::Result<_, _>>()?;
                        left += rows.len();
                        for (key, _) in rows {
                            txn.remove(table, key);
                        }
                    }
                    if left > 0 {
                        return Ok(false);
                    }
                    txn.remove(Table::Links, keys::bucket(id));
                    txn.remove(Table::Buckets, keys::bucket(id));
                    txn.remove(Table::Names, keys::name(&name));
                    Ok(true)
                })
                .await?;
            if done {
                return Ok(());
            }
        }
    }

    /// Makes bodies that are durable this cluster's own of a linked bucket, and notes the change they are for.
    pub(crate) async fn keep_own(
        &self,
        bucket: BucketId,
        counter: u64,
        bodies: Vec<Stored>,
    ) -> Result<(Vec<BlobHash>, Vec<Adopted>)> {
        let now = self.clock.wall();
        let mut with_damage = Vec::with_capacity(bodies.len());
        for stored in bodies {
            let damaged = self.find_damaged(&stored).await?;
            with_damage.push((stored, damaged));
        }
        self.writer
            .transact(move |txn| {
                require_link(txn, bucket)?;
                let mut hashes = Vec::new();
                let mut adopted = Vec::new();
                for (stored, damaged) in &with_damage {
                    adopted.push(shared::keep_own(txn, bucket, stored, now, *damaged)?);
                    hashes.extend(stored.piece().map(|piece| piece.hash()));
                }
                txn.put(keys::publish(counter), &PublishRow { bucket, bodies: hashes.clone(), upload: None });
                Ok((hashes, adopted))
            })
            .await
    }

    /// Lets go of bodies after the transaction that was to take them over.
    pub(crate) fn finish_own(
        &self,
        bodies: Vec<StagedBody>,
        outcome: Result<(Vec<BlobHash>, Vec<Adopted>)>,
    ) -> Result<Vec<BlobHash>> {
        match outcome {
            Ok((hashes, adopted)) => {
                for (body, adopted) in bodies.into_iter().zip(adopted) {
                    if adopted == Adopted::Taken {
                        body.claimed();
                    }
                }
                Ok(hashes)
            }
            Err(error) => {
                if matches!(error, Error::Storage { .. }) {
                    bodies.into_iter().for_each(StagedBody::leave);
                }
                Err(error)
            }
        }
    }

    /// A change was not made: its bodies go, unless other changes have them, too.
    pub(crate) fn drop_own(&self, txn: &mut Transaction<'_>, bucket: BucketId, bodies: &[BlobHash]) -> Result<()> {
        bodies.iter().try_for_each(|hash| shared::unrefer(txn, bucket, *hash))
    }

    /// A completion was made: the object has its own hold on the parts, and the upload ends, unless it was aborted.
    /// What was answered is kept for a client that did not hear it.
    pub(crate) fn end_completed(
        &self,
        txn: &mut Transaction<'_>,
        bucket: BucketId,
        path: &ObjectPath,
        upload: UploadId,
        written: Option<&Written>,
    ) -> Result<()> {
        if let Some(written) = written {
            let row = CompletedRow { bucket, path: path.clone(), summary: summary(written), time: self.clock.wall() };
            txn.put(keys::parts_of(upload), &row);
        }
        let Some(mut home) = Home::open_id(txn, bucket)? else { return Ok(()) };
        match end_upload(&mut home, path, upload) {
            Err(Error::NoSuchUpload { .. }) => Ok(()),
            ended => ended,
        }
    }

    /// Makes the bodies of a version this cluster's own of a linked bucket, for the change of a counter. Those that are
    /// elsewhere are brought first; large ones that are here are shared, small ones appended again.
    pub(crate) async fn own_copy(
        &self,
        bucket: BucketId,
        counter: u64,
        source: &Version,
    ) -> Result<(Body, Vec<BlobHash>)> {
        let mut source = source.clone();
        let (blobs, listed) = (self.blobs.clone(), source.record.body.clone());
        let parts = self.writer.read(move |view| load_parts(view, &blobs, &listed)).await?;
        if !parts.is_empty() {
            source.record.body = Body::Parts(parts);
        }
        let body = self.localize(&source).await?;
        let pieces = super::body::pieces(&body);
        let blobs = self.blobs.clone();
        let small = pieces.clone();
        let bytes = self
            .writer
            .read(move |_| {
                let slots = small.iter().filter_map(|piece| match piece {
                    Piece::Slot(slot) => Some(*slot),
                    Piece::Blob { .. } | Piece::Shared { .. } => None,
                });
                Ok(slots.map(|slot| blobs.read_slot(&slot)).collect::<Result<Vec<_>, _>>()?)
            })
            .await?;
        let guards = if bytes.is_empty() { Vec::new() } else { self.blobs.append_many(bytes, Urgency::Normal).await? };
        let slots: Vec<_> = guards.iter().map(crate::blobs::SlotGuard::slot).collect();
        let now = self.clock.wall();
        let hashes = self
            .writer
            .transact(move |txn| {
                require_link(txn, bucket)?;
                let mut slots = slots.iter();
                let mut hashes = Vec::new();
                for piece in &pieces {
                    let kept = match piece {
                        Piece::Slot(_) => Stored::Slot(*slots.next().ok_or(Error::Conflict)?),
                        large => stored_piece(txn, large)?,
                    };
                    shared::keep_own(txn, bucket, &kept, now, None)?;
                    hashes.push(piece.hash());
                }
                txn.put(keys::publish(counter), &PublishRow { bucket, bodies: hashes.clone(), upload: None });
                Ok(hashes)
            })
            .await?;
        drop(guards);
        Ok((shared_body(&body), hashes))
    }

    /// What an upload in a linked bucket would become, with its bodies noted for the change of a counter.
    pub(crate) async fn prepare_completion(
        &self,
        name: &BucketName,
        path: &ObjectPath,
        upload: UploadId,
        request: &CompleteRequest,
        counter: u64,
    ) -> Result<(ObjectRecord, Vec<BlobHash>)> {
        let (name, path, request) = (name.clone(), path.clone(), request.clone());
        let minimum = self.limits.part_bytes_min;
        self.writer
            .transact(move |txn| {
                let (id, _) = bucket(txn, &name)?;
                require_link(txn, id)?;
                // A completion whose outcome is not known may have made the object: another one would make it twice.
                for row in txn.range(Table::Publishes, KeyRange::prefix(&[]))? {
                    if PublishRow::decode(&row?.1)?.upload.is_some_and(|(_, open)| open == upload) {
                        return Err(Error::Conflict);
                    }
                }
                let (record, parts) = completed_record(txn, id, &path, upload, &request, minimum)?;
                let mut hashes = Vec::new();
                for piece in parts.iter().filter_map(|part| part.piece) {
                    shared::refer(txn, id, piece.hash(), piece.length())?;
                    hashes.push(piece.hash());
                }
                let row = PublishRow { bucket: id, bodies: hashes.clone(), upload: Some((path, upload)) };
                txn.put(keys::publish(counter), &row);
                Ok((record, hashes))
            })
            .await
    }

    /// Keeps a body that was brought from elsewhere.
    pub(crate) async fn keep_brought(&self, bucket: BucketId, mut body: StagedBody) -> Result<()> {
        self.blobs.persist(&mut body).await?;
        let kept = body.stored().unwrap_or(Stored::Empty);
        let damaged: Option<FileId> = self.find_damaged(&kept).await?;
        let now = self.clock.wall();
        let outcome = self
            .writer
            .transact(move |txn| {
                // A link that ended or a version that was collected while its body came: nobody would let go of it.
                if require_link(txn, bucket).is_err() && !is_referred_to(txn, bucket, &kept)? {
                    return Err(Error::Conflict);
                }
                shared::keep_copy(txn, bucket, &kept, now, damaged)
            })
            .await;
        super::write::finish(body, outcome.map(|adopted| ((), adopted)))
    }

    /// Whether there is a copy of a shared body here.
    pub(crate) async fn has_copy(&self, bucket: BucketId, hash: BlobHash) -> Result<bool> {
        self.writer.read(move |view| Ok(shared::here(view, bucket, hash)?.is_some())).await
    }

    /// A whole body that is here by now.
    pub(crate) async fn open_copy(&self, wanted: &super::Wanted) -> Result<super::Opened> {
        let place =
            Place { bucket: wanted.bucket, path: wanted.path.clone(), number: wanted.number, ordinal: wanted.ordinal };
        let piece = Piece::Shared { hash: wanted.hash, length: wanted.length };
        self.open_version(place.version_of(piece)).await
    }
}

/// Bodies are kept for a linked bucket as long as it is one.
pub(super) fn require_link(rows: &(impl Rows + ?Sized), bucket: BucketId) -> Result<()> {
    LinkRow::load(rows, &keys::bucket(bucket))?.map(drop).ok_or(Error::NoSuchSharedBucket { bucket })
}

/// Whether a record of this cluster's log refers to a shared body.
pub(super) fn is_referred_to(rows: &(impl Rows + ?Sized), bucket: BucketId, kept: &Stored) -> Result<bool> {
    let Some(piece) = kept.piece() else { return Ok(false) };
    Ok(shared::body_row(rows, bucket, piece.hash())?.is_some_and(|row| row.references > 0))
}

/// How many rows one transaction takes away when a link ends.
const UNLINK_ROWS_PER_TRANSACTION: usize = 1000;

/// A linked bucket's row: of all that a bucket's row says, only its name, its times and its uploads mean something.
fn linked_row(name: BucketName, info: &BucketInfo, wall: Timestamp) -> BucketRow {
    let time = ChangeTime { wall, sequence: wall };
    BucketRow {
        name,
        created: info.created,
        location: info.location.clone(),
        versioning: Versioning::Off,
        term: info.term,
        first: Number::ZERO,
        last: Number::ZERO,
        last_time: time,
        floor: Number::ZERO,
        floor_time: time,
        collected: (Number::ZERO, u32::MAX),
        keep_seconds: None,
        objects: 0,
        bytes: 0,
        versions: 0,
        uploads: 0,
        released: false,
        open_layers: 0,
        deleted: false,
        linked: true,
    }
}

/// The same bodies, as other clusters know them.
fn shared_body(body: &Body) -> Body {
    let shared = |part: &Part| Part { piece: part.piece.map(|piece| piece.shared()), ..part.clone() };
    match body {
        Body::Empty | Body::PartList { .. } => Body::Empty,
        Body::Whole(piece) => Body::Whole(piece.shared()),
        Body::Parts(parts) => Body::Parts(parts.iter().map(shared).collect()),
    }
}

/// A version of which only the answer to its write is known.
fn summary(written: &Written) -> Summary {
    Summary {
        version: written.number,
        ordinal: 0,
        null: !matches!(written.name, Some(VersionName::Number(_))),
        size: written.size,
        modified: written.modified,
        etag: written.etag,
        checksum: written.checksum.as_ref().map(|checksum| (checksum.algorithm, checksum.kind)),
    }
}
