//! Uploads in parts. Completing one writes no body: the object is the list of its parts.

use md5::{Digest as _, Md5};

use super::body::{Adopted, INLINE_PARTS_MAX, Owner, adopt, claim, encode_parts, pieces, release, take_over};
use super::home::{Author, Home, bucket};
use super::key::name_of;
use super::list::common_prefix;
use super::request::{
    Actor, AfterUpload, CompleteRequest, ListPage, NamedPart, PartBody, PartRequest, UploadInfo, UploadItem,
    UploadRequest, UploadedPart, UploadsQuery, Versioning, Written,
};
use super::write::{author, blob_parts, finish, newest, written};
use super::{Limit, Limits, Master};
use crate::blobs::{SlotGuard, Stored, Urgency};
use crate::catalog::rows::{CompletedRow, PartRow, Record, UploadRow, VersionRow};
use crate::catalog::{KeyRange, Rows, Table, Transaction, keys};
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};
use crate::types::{
    Body, BucketId, BucketName, Checksum, ChecksumAlgorithm, ChecksumKind, ETag, FileId, ObjectPath, ObjectRecord,
    Part, Piece, Timestamp, UploadId,
};

/// How often a completion is tried when compaction is at work on its parts.
const COMPLETE_TRIES_MAX: u32 = 8;

/// The highest part number of S3.
pub const PART_NUMBER_MAX: u16 = 10_000;

fn upload_info(path: ObjectPath, upload: UploadId, row: &UploadRow) -> UploadInfo {
    UploadInfo {
        upload,
        path,
        begun: row.begun,
        actor: row.actor.clone(),
        checksum: row.checksum,
        checksum_declared: row.checksum_declared,
    }
}

fn uploaded(number: u16, row: PartRow) -> UploadedPart {
    let size = row.piece.map_or(0, |piece| piece.length());
    UploadedPart { number, size, md5: row.md5, modified: row.modified, checksum: row.checksum }
}

/// An upload's row, if it is in progress.
fn load_upload(rows: &(impl Rows + ?Sized), id: BucketId, path: &ObjectPath, upload: UploadId) -> Result<UploadRow> {
    UploadRow::load(rows, &keys::upload(id, path, upload))?.ok_or(Error::NoSuchUpload { upload })
}

/// The parts of an upload, by number.
fn load_all(rows: &(impl Rows + ?Sized), upload: UploadId) -> Result<Vec<(u16, PartRow)>> {
    let parts = rows.range(Table::Parts, KeyRange::prefix(&keys::parts_of(upload)))?.map(|row| {
        let (key, value) = row?;
        let number = keys::split_part(&key).ok_or_else(|| super::key::damaged_key(Table::Parts))?;
        Ok((number, PartRow::decode(&value)?))
    });
    parts.collect()
}

impl Master {
    /// Begins an upload.
    pub async fn begin_upload(&self, actor: &Actor, name: &BucketName, request: UploadRequest) -> Result<UploadInfo> {
        self.admit()?;
        let (upload, begun, maximum) = (self.ids.upload(), self.clock.wall(), self.limits.bucket_uploads_max);
        let (name, actor) = (name.clone(), actor.0.clone());
        self.writer
            .transact(move |txn| {
                let mut home = Home::open_any(txn, &name)?;
                Limits::check(Limit::BucketUploads, home.row.uploads + 1, maximum)?;
                let row = UploadRow {
                    begun,
                    actor,
                    headers: request.description.headers,
                    metadata: request.description.metadata,
                    tags: request.description.tags,
                    checksum: request.checksum,
                    checksum_declared: request.checksum_declared,
                };
                home.txn.put(keys::upload(home.id, &request.path, upload), &row);
                home.row.uploads += 1;
                home.save();
                Ok(upload_info(request.path, upload, &row))
            })
            .await
    }

    /// An upload in progress.
    pub async fn upload(&self, name: &BucketName, path: &ObjectPath, upload: UploadId) -> Result<UploadInfo> {
        let (name, path) = (name.clone(), path.clone());
        self.writer
            .read(move |view| {
                let (id, _) = bucket(view, &name)?;
                let row = load_upload(view, id, &path, upload)?;
                Ok(upload_info(path, upload, &row))
            })
            .await
    }

    /// Takes a part in, in place of an earlier one of its number.
    pub async fn put_part(
        &self,
        name: &BucketName,
        path: &ObjectPath,
        upload: UploadId,
        number: u16,
        request: PartRequest,
    ) -> Result<UploadedPart> {
        if number == 0 || number > PART_NUMBER_MAX {
            return Err(Error::InvalidRequest { reason: format!("part numbers are 1 to {PART_NUMBER_MAX}") });
        }
        let (master, name, path) = (self.clone(), name.clone(), path.clone());
        self.detached(async move { master.put_part_to_end(name, path, upload, number, request).await }).await
    }

    async fn put_part_to_end(
        &self,
        name: BucketName,
        path: ObjectPath,
        upload: UploadId,
        number: u16,
        request: PartRequest,
    ) -> Result<UploadedPart> {
        self.admit()?;
        let modified = self.clock.wall();
        let PartRequest { body, md5, checksum } = request;
        let row = |piece| PartRow { piece, md5, checksum, modified };
        match body {
            PartBody::Staged(mut body) => {
                self.blobs.persist(&mut body).await?;
                let stored = body.stored().unwrap_or(Stored::Empty);
                let row = row(stored.piece());
                let damaged = self.find_damaged(&stored).await?;
                let outcome = self.claim_part(name, path, upload, number, row, Some((stored, damaged))).await;
                finish::<UploadedPart>(body, outcome)
            }
            PartBody::Reference(version) => {
                let body = self.localize(&version).await?;
                let (body, _, guards) = self.copy_body(&body, Urgency::Normal).await?;
                let piece = match body {
                    Body::Empty => None,
                    Body::Whole(piece) => Some(piece),
                    Body::Parts(_) | Body::PartList { .. } => {
                        return Err(Error::InvalidRequest { reason: "a part is one piece".to_owned() });
                    }
                };
                let outcome = self.claim_part(name, path, upload, number, row(piece), None).await;
                drop(guards);
                Ok(outcome?.0)
            }
        }
    }

    async fn claim_part(
        &self,
        name: BucketName,
        path: ObjectPath,
        upload: UploadId,
        number: u16,
        row: PartRow,
        stored: Option<(Stored, Option<FileId>)>,
    ) -> Result<(UploadedPart, Adopted)> {
        self.writer
            .transact(move |txn| {
                let (id, bucket) = bucket(txn, &name)?;
                load_upload(txn, id, &path, upload)?;
                let key = keys::part(upload, number);
                let mut row = row;
                let taken = match &stored {
                    // Other clusters will read it from here.
                    Some((stored, damaged)) if bucket.linked => {
                        row.piece = row.piece.map(|piece| piece.shared());
                        super::shared::keep_own(txn, id, stored, row.modified, *damaged)?
                    }
                    None if bucket.linked => {
                        if let Some(piece) = row.piece {
                            let there = super::body::stored_piece(txn, &piece)?;
                            super::shared::keep_own(txn, id, &there, row.modified, None)?;
                            row.piece = Some(piece.shared());
                        }
                        Adopted::Taken
                    }
                    Some((Stored::Blob(blob), damaged)) => adopt(txn, blob, *damaged)?,
                    _ => Adopted::Taken,
                };
                // The new piece is claimed first: it may be the content of the one it replaces.
                let replaced = PartRow::load(txn, &key)?.and_then(|row| row.piece);
                if let Some(piece) = &row.piece
                    && !bucket.linked
                {
                    claim(txn, id, piece, Owner::Part(upload, number))?;
                }
                if let Some(piece) = &replaced {
                    release(txn, id, piece)?;
                }
                txn.put(key, &row);
                Ok((uploaded(number, row), taken))
            })
            .await
    }

    /// The parts of an upload after a number.
    pub async fn list_parts(
        &self,
        name: &BucketName,
        path: &ObjectPath,
        upload: UploadId,
        after: u16,
        max: usize,
    ) -> Result<(UploadInfo, ListPage<UploadedPart, u16>)> {
        let (name, path) = (name.clone(), path.clone());
        self.writer
            .read(move |view| {
                let (id, bucket) = bucket(view, &name)?;
                let row = load_upload(view, id, &path, upload)?;
                let mut items = Vec::new();
                let mut next = None;
                let range = KeyRange::prefix(&keys::parts_of(upload))
                    .starting(std::ops::Bound::Excluded(keys::part(upload, after)));
                for part in view.range(Table::Parts, range)? {
                    let (key, value) = part?;
                    if items.len() == max {
                        next = items.last().map(|part: &UploadedPart| part.number);
                        break;
                    }
                    let number = keys::split_part(&key).ok_or_else(|| super::key::damaged_key(Table::Parts))?;
                    items.push(uploaded(number, PartRow::decode(&value)?));
                }
                Ok((upload_info(path, upload, &row), ListPage { items, next, number: bucket.last }))
            })
            .await
    }

    /// A page of the uploads in progress, by key and id.
    pub async fn list_uploads(
        &self,
        name: &BucketName,
        query: UploadsQuery,
    ) -> Result<ListPage<UploadItem, AfterUpload>> {
        let name = name.clone();
        self.writer
            .read(move |view| {
                let (id, row) = bucket(view, &name)?;
                let (items, next) = list_uploads(view, id, &query)?;
                Ok(ListPage { items, next, number: row.last })
            })
            .await
    }

    /// Ends an upload without an object.
    pub async fn abort_upload(&self, name: &BucketName, path: &ObjectPath, upload: UploadId) -> Result<()> {
        let (name, path) = (name.clone(), path.clone());
        self.writer
            .transact(move |txn| {
                let mut home = Home::open_any(txn, &name)?;
                end_upload(&mut home, &path, upload)
            })
            .await
    }

    /// Makes an object of an upload's parts.
    pub async fn complete_upload(
        &self,
        actor: &Actor,
        name: &BucketName,
        path: &ObjectPath,
        upload: UploadId,
        request: CompleteRequest,
    ) -> Result<Written> {
        let (master, author, name, path) = (self.clone(), author(actor), name.clone(), path.clone());
        self.detached(async move {
            for _ in 1..COMPLETE_TRIES_MAX {
                match master.complete_to_end(&author, &name, &path, upload, &request).await {
                    // Compaction moved a part between the look and the transaction.
                    Err(Error::Conflict) => {}
                    // A client that did not hear the answer asks again.
                    Err(Error::NoSuchUpload { .. }) => return master.completed(&name, &path, upload).await,
                    outcome => return outcome,
                }
            }
            master.complete_to_end(&author, &name, &path, upload, &request).await
        })
        .await
    }

    /// The answer to a completion that took place before, as long as its version is there.
    pub(crate) async fn completed(&self, name: &BucketName, path: &ObjectPath, upload: UploadId) -> Result<Written> {
        let (name, path) = (name.clone(), path.clone());
        self.writer
            .read(move |view| {
                let gone = || Error::NoSuchUpload { upload };
                let (id, row) = bucket(view, &name)?;
                let completed = CompletedRow::load(view, &keys::parts_of(upload))?;
                let completed = completed.filter(|row| row.bucket == id && row.path == path).ok_or_else(gone)?;
                let summary = completed.summary;
                // Of a linked bucket it is in what is known of its versions.
                let known = VersionRow::load(view, &keys::change(id, summary.version, summary.ordinal))?;
                let record = match known {
                    Some(version) => version.record,
                    None => super::lens::record_of(view, id, &summary).map_err(|_| gone())?,
                };
                let named = row.versioning != Versioning::Off || !summary.null;
                Ok(Written {
                    number: summary.version,
                    name: named.then(|| name_of(&summary)),
                    etag: record.etag,
                    size: record.size,
                    modified: record.modified,
                    checksum: record.checksum,
                })
            })
            .await
    }

    async fn complete_to_end(
        &self,
        author: &Author,
        name: &BucketName,
        path: &ObjectPath,
        upload: UploadId,
        request: &CompleteRequest,
    ) -> Result<Written> {
        let minimum = self.limits.part_bytes_min;
        let (looking, key, wanted) = (name.clone(), path.clone(), request.parts.clone());
        let parts = self
            .writer
            .read(move |view| {
                let (id, _) = bucket(view, &looking)?;
                let row = load_upload(view, id, &key, upload)?;
                choose(&wanted, load_all(view, upload)?, &row, minimum)
            })
            .await?;
        let (body, guard) = self.body_of(&parts).await?;
        let chosen = std::sync::Arc::new((parts, body, request.clone()));
        let outcome = self
            .change_key(
                name,
                path,
                move |home, path, author, wall| complete(home, path, author, wall, upload, &chosen, minimum),
                author,
            )
            .await;
        drop(guard);
        outcome
    }

    /// The body of an object with these parts. A long list of them is stored as a body of its own.
    pub(super) async fn body_of(&self, parts: &[Part]) -> Result<(Body, Option<SlotGuard>)> {
        if parts.len() <= INLINE_PARTS_MAX {
            return Ok((Body::Parts(parts.to_vec()), None));
        }
        let mut slots = Vec::new();
        let mut listed = parts.to_vec();
        for (index, part) in (0u16..).zip(&mut listed) {
            if let Some(Piece::Slot(slot)) = part.piece {
                slots.push((index, slot));
                part.piece = None;
            }
        }
        let guard = self.blobs.append_bytes(encode_parts(&listed).into(), Urgency::Normal).await?;
        let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
        Ok((Body::PartList { list: Piece::Slot(guard.slot()), count, slots }, Some(guard)))
    }
}

/// Ends an upload and lets go of its parts.
pub(super) fn end_upload(home: &mut Home<'_, '_>, path: &ObjectPath, upload: UploadId) -> Result<()> {
    let id = home.id;
    load_upload(home.txn, id, path, upload)?;
    for (number, row) in load_all(home.txn, upload)? {
        if let Some(piece) = &row.piece {
            release(home.txn, id, piece)?;
        }
        home.txn.remove(Table::Parts, keys::part(upload, number));
    }
    home.txn.remove(Table::Uploads, keys::upload(id, path, upload));
    home.row.uploads = home.row.uploads.saturating_sub(1);
    home.save();
    Ok(())
}

/// The parts that a completion names, checked against those that were uploaded.
fn choose(named: &[NamedPart], uploaded: Vec<(u16, PartRow)>, upload: &UploadRow, minimum: u64) -> Result<Vec<Part>> {
    if named.is_empty() {
        return Err(Error::InvalidRequest { reason: "an upload is completed with at least one part".to_owned() });
    }
    if named.windows(2).any(|pair| pair[0].number >= pair[1].number) {
        return Err(Error::InvalidPartOrder);
    }
    let mut uploaded: std::collections::BTreeMap<u16, PartRow> = uploaded.into_iter().collect();
    let mut parts = Vec::with_capacity(named.len());
    for (index, wanted) in named.iter().enumerate() {
        let invalid = Error::InvalidPart { part: wanted.number };
        let Some(row) = uploaded.remove(&wanted.number) else { return Err(invalid) };
        let etag = ETag { md5: row.md5, parts: None }.to_string();
        if wanted.etag.as_ref().is_some_and(|named| *named != etag) {
            return Err(invalid);
        }
        let differs = |(algorithm, value): &(ChecksumAlgorithm, Vec<u8>)| {
            row.checksum.as_ref().is_none_or(|there| there.algorithm != *algorithm || there.value != *value)
        };
        if wanted.checksum.as_ref().is_some_and(differs) {
            return Err(invalid);
        }
        let composite = matches!(upload.checksum, Some((_, ChecksumKind::Composite)));
        if composite && row.checksum.is_none() {
            return Err(invalid);
        }
        let part = Part { number: wanted.number, piece: row.piece, md5: row.md5, checksum: row.checksum };
        let size = part.length();
        if size < minimum && index + 1 < named.len() {
            return Err(Error::PartTooSmall { part: wanted.number, size, minimum });
        }
        parts.push(part);
    }
    if mutant::on(Mutant::CompleteWithoutLastPart) && parts.len() > 1 {
        parts.pop();
    }
    Ok(parts)
}

fn complete(
    home: &mut Home<'_, '_>,
    path: &ObjectPath,
    author: &Author,
    wall: Timestamp,
    upload: UploadId,
    chosen: &(Vec<Part>, Body, CompleteRequest),
    minimum: u64,
) -> Result<Written> {
    let (parts, body, request) = chosen;
    let (mut record, now) = completed_record(home.txn, home.id, path, upload, request, minimum)?;
    // A part that was replaced since the list was written would be named by the wrong bytes.
    if now != *parts {
        return Err(Error::Conflict);
    }
    let all = load_all(home.txn, upload)?;
    request.precondition.check(path, newest(home, path)?.as_ref())?;
    let stamp = home.issue(wall);
    record.body = body.clone();
    record.modified = stamp.time.wall;
    let owner = Owner::Version(home.id, stamp.number, stamp.ordinal);
    hand_over(home.txn, home.id, parts, all, body, owner, upload)?;
    home.txn.remove(Table::Uploads, keys::upload(home.id, path, upload));
    home.row.uploads = home.row.uploads.saturating_sub(1);
    let summary = home.put_version(path, stamp, author, record.clone())?;
    let completed = CompletedRow { bucket: home.id, path: path.clone(), summary, time: wall };
    home.txn.put(keys::parts_of(upload), &completed);
    Ok(written(home, &summary, &record))
}

/// What an upload becomes when it is completed so, and its parts.
pub(super) fn completed_record(
    txn: &Transaction<'_>,
    id: BucketId,
    path: &ObjectPath,
    upload: UploadId,
    request: &CompleteRequest,
    minimum: u64,
) -> Result<(ObjectRecord, Vec<Part>)> {
    let row = load_upload(txn, id, path, upload)?;
    let parts = choose(&request.parts, load_all(txn, upload)?, &row, minimum)?;
    let size = parts.iter().map(Part::length).sum();
    if request.size.is_some_and(|stated| stated != size) {
        return Err(Error::InvalidRequest { reason: format!("the parts have {size} bytes, not what was stated") });
    }
    let checksum = object_checksum(&row, &parts)?;
    if let Some((algorithm, value)) = &request.checksum {
        let matches = checksum.as_ref().is_some_and(|sum| sum.algorithm == *algorithm && sum.value == *value);
        if !matches {
            return Err(Error::ChecksumMismatch);
        }
    }
    let record = ObjectRecord {
        body: Body::Parts(parts.clone()),
        size,
        etag: etag_of(&parts),
        modified: Timestamp(0),
        checksum,
        headers: row.headers,
        metadata: row.metadata,
        tags: row.tags,
    };
    Ok((record, parts))
}

/// Turns the upload's references into the object's; what was uploaded and not named is let go.
fn hand_over(
    txn: &mut Transaction<'_>,
    id: BucketId,
    parts: &[Part],
    all: Vec<(u16, PartRow)>,
    body: &Body,
    owner: Owner,
    upload: UploadId,
) -> Result<()> {
    let named: std::collections::BTreeSet<u16> = parts.iter().map(|part| part.number).collect();
    for (number, row) in all {
        if let Some(piece) = &row.piece {
            if named.contains(&number) {
                take_over(txn, piece, owner);
            } else {
                release(txn, id, piece)?;
            }
        }
        txn.remove(Table::Parts, keys::part(upload, number));
    }
    if let Body::PartList { list, .. } = body {
        claim(txn, id, list, owner)?;
    }
    debug_assert!(pieces(body).len() <= parts.len() + 1 && blob_parts(parts.to_vec()).len() <= parts.len());
    Ok(())
}

/// MD5 of the parts' MD5s, and their count.
fn etag_of(parts: &[Part]) -> ETag {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part.md5);
    }
    ETag { md5: md5.finalize().into(), parts: u16::try_from(parts.len()).ok() }
}

/// The checksum of an object from those of its parts, as the upload asked for it.
fn object_checksum(upload: &UploadRow, parts: &[Part]) -> Result<Option<Checksum>> {
    let Some((algorithm, kind)) = upload.checksum else { return Ok(None) };
    let mut values = Vec::with_capacity(parts.len());
    for part in parts {
        match part.checksum.as_ref().filter(|checksum| checksum.algorithm == algorithm) {
            Some(checksum) => values.push((checksum.value.as_slice(), part.length())),
            None => return Err(Error::InvalidPart { part: part.number }),
        }
    }
    let value = match kind {
        ChecksumKind::Composite => composite(algorithm, values.iter().map(|(value, _)| *value)),
        ChecksumKind::FullObject => combined(algorithm, &values)
            .ok_or_else(|| Error::InvalidRequest { reason: "a checksum of the full object is a CRC".to_owned() })?,
    };
    Ok(Some(Checksum { algorithm, kind, value }))
}

/// The checksum of the parts' checksums.
fn composite<'a>(algorithm: ChecksumAlgorithm, values: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let bytes: Vec<u8> = values.flatten().copied().collect();
    match algorithm {
        ChecksumAlgorithm::Sha1 => sha1::Sha1::digest(&bytes).to_vec(),
        ChecksumAlgorithm::Sha256 => sha2::Sha256::digest(&bytes).to_vec(),
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c | ChecksumAlgorithm::Crc64Nvme => match crc(algorithm) {
            Some((kind, width)) => big_endian(crc_fast::checksum(kind, &bytes), width),
            None => Vec::new(),
        },
    }
}

/// The CRC of a whole from those of its pieces; `None` for what is no CRC.
fn combined(algorithm: ChecksumAlgorithm, values: &[(&[u8], u64)]) -> Option<Vec<u8>> {
    let (kind, width) = crc(algorithm)?;
    let mut whole = crc_fast::checksum(kind, b"");
    for (value, length) in values {
        let value = value.iter().fold(0, |crc: u64, byte| crc << 8 | u64::from(*byte));
        whole = crc_fast::checksum_combine(kind, whole, value, *length);
    }
    Some(big_endian(whole, width))
}

fn crc(algorithm: ChecksumAlgorithm) -> Option<(crc_fast::CrcAlgorithm, usize)> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some((crc_fast::CrcAlgorithm::Crc32IsoHdlc, 4)),
        ChecksumAlgorithm::Crc32c => Some((crc_fast::CrcAlgorithm::Crc32Iscsi, 4)),
        ChecksumAlgorithm::Crc64Nvme => Some((crc_fast::CrcAlgorithm::Crc64Nvme, 8)),
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => None,
    }
}

fn big_endian(crc: u64, width: usize) -> Vec<u8> {
    crc.to_be_bytes()[8 - width..].to_vec()
}

type UploadPage = (Vec<UploadItem>, Option<AfterUpload>);

fn list_uploads(rows: &dyn Rows, id: BucketId, query: &UploadsQuery) -> Result<UploadPage> {
    let mut items = Vec::new();
    if query.max == 0 {
        return Ok((items, None));
    }
    let whole = KeyRange::prefix(&keys::objects_with(id, &query.prefix));
    let start = match &query.after {
        None => None,
        Some(AfterUpload::Key(path)) => Some(keys::after_path(id, path)),
        Some(AfterUpload::Upload(path, upload)) => {
            let path = ObjectPath::try_from(path.as_slice())?;
            keys::successor(&keys::upload(id, &path, *upload))
        }
        Some(AfterUpload::Prefix(prefix)) => keys::successor(&keys::objects_with(id, prefix)),
    };
    let from = |start: Option<Vec<u8>>| match (start, &whole.from) {
        (Some(start), std::ops::Bound::Included(begin)) if start > *begin => {
            whole.clone().starting(std::ops::Bound::Included(start))
        }
        _ => whole.clone(),
    };
    let mut uploads = rows.range(Table::Uploads, from(start))?;
    let mut last = None;
    while let Some(row) = uploads.next().transpose()? {
        if items.len() == query.max {
            return Ok((items, last));
        }
        let (key, value) = row;
        let (path, tail) = keys::split_object(&key).ok_or_else(|| super::key::damaged_key(Table::Uploads))?;
        if let Some(common) = common_prefix(path.as_bytes(), &query.prefix, query.delimiter.as_deref()) {
            uploads = rows.range(Table::Uploads, from(keys::successor(&keys::objects_with(id, common))))?;
            last = Some(AfterUpload::Prefix(common.to_vec()));
            items.push(UploadItem::Prefix(common.to_vec()));
            continue;
        }
        let upload = UploadId(tail.try_into().map_err(|_| super::key::damaged_key(Table::Uploads))?);
        last = Some(AfterUpload::Upload(path.as_bytes().to_vec(), upload));
        items.push(UploadItem::Upload(upload_info(path, upload, &UploadRow::decode(&value)?)));
    }
    Ok((items, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crcs_combine_to_that_of_the_whole() {
        let whole = b"the quick brown fox jumps over the lazy dog";
        for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme] {
            let (kind, width) = crc(algorithm).expect("a CRC");
            let sum = |bytes: &[u8]| big_endian(crc_fast::checksum(kind, bytes), width);
            let (a, b, c) = (&whole[..10], &whole[10..11], &whole[11..]);
            let sums = [sum(a), sum(b), sum(c)];
            let parts: Vec<_> = sums.iter().map(Vec::as_slice).zip([10, 1, whole.len() as u64 - 11]).collect();
            assert_eq!(combined(algorithm, &parts), Some(sum(whole)));
        }
    }
}
