//! Changes that members of a bucket ask its home for.
//!
//! A change is known by its member and the counter that the member gave it. Its answer is kept, in the transaction
//! that makes it, until the member says that everything up to a counter is settled: asked again, the home answers
//! again, and a change that the member gave up can no longer take place.

use serde::{Deserialize, Serialize};

use super::body::{Owner, pieces};
use super::home::{Author, Home};
use super::request::{Actor, BucketChange, DeleteRequest, Deleted, Precondition, Restored, TagInfo, Which, Written};
use super::share::check_grant;
use super::write::{self, delete_all, newest, set_attributes, written};
use super::{Limits, Master, layer, restore, shared};
use crate::blobs::{SlotGuard, Urgency};
use crate::catalog::rows::{BucketRow, Change, ChangeRow, IdempotencyRow, Record};
use crate::catalog::{KeyRange, Rows, Table, Transaction, keys};
use crate::error::{Error, Result, VersionName};
use crate::mutant::{self, Mutant};
use crate::types::{
    Attributes, Body, BucketId, BucketName, Checksum, ContentHeader, MemberId, Number, ObjectPath, ObjectRecord, Pair,
    Part, Piece, SnapshotRef, TagName, Term, Timestamp,
};

/// How often a change starts over because a layer was at work on its keys.
const TRIES_MAX: usize = 16;

/// Which change of which member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its counter, which the member never uses twice.
    pub counter: u64,
    /// Below this counter the member knows every outcome.
    pub settled: u64,
    /// The term of the bucket that the member knows; none of one that does not say.
    #[serde(default)]
    pub term: Option<Term>,
}

/// A change of a bucket that a member asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerChange {
    /// A version. Its bodies are at the member.
    Put {
        /// The key.
        path: ObjectPath,
        /// The content; its pieces are all shared.
        record: Box<ObjectRecord>,
        /// What must hold of the key.
        precondition: Precondition,
    },
    /// A version with the bodies of another one of the bucket.
    Copy {
        /// The other version's key.
        source: ObjectPath,
        /// Its number.
        number: Number,
        /// Its ordinal.
        ordinal: u32,
        /// The key.
        path: ObjectPath,
        /// New headers and metadata, or those of the source.
        description: Option<(Vec<(ContentHeader, String)>, Vec<Pair>)>,
        /// New tags, or those the source was written with.
        tags: Option<Vec<Pair>>,
        /// A checksum that was computed for the copy.
        checksum: Option<Checksum>,
        /// What must hold of the key.
        precondition: Precondition,
    },
    /// Deletes, each a number of its own.
    Delete(Vec<DeleteRequest>),
    /// What may change about a version.
    Attributes {
        /// The key.
        path: ObjectPath,
        /// Which version.
        which: Which,
        /// What is changed.
        attributes: Attributes,
    },
    /// The bucket's configuration.
    Configure(BucketChange),
    /// A tag.
    Tag {
        /// The state that it names; the newest without one.
        snapshot: Option<SnapshotRef>,
        /// Its name.
        tag: TagName,
        /// What is said of it.
        message: String,
    },
    /// No such tag any more.
    Untag(TagName),
    /// A state, brought back.
    Restore {
        /// Which.
        snapshot: SnapshotRef,
        /// Below which prefix.
        #[serde(with = "crate::types::serde_bytes_or_text")]
        prefix: Vec<u8>,
    },
}

/// Why one key of a delete was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyRefused {
    /// A condition does not hold.
    PreconditionFailed(String),
    /// There is no such key.
    NoSuchKey,
}

/// What a change became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerAnswer {
    /// A version was written.
    Put(Written),
    /// What became of each key, in the request's order, and the newest number after it.
    Delete(Vec<Result<Deleted, KeyRefused>>, Number),
    /// The number of the change, and which version it was about.
    Attributes(Number, Option<VersionName>),
    /// The number of the change.
    Configure(Number),
    /// The tag, and the newest number.
    Tag(TagInfo, Number),
    /// The newest number.
    Untag(Number),
    /// What a restore did.
    Restore(Restored),
}

impl PeerAnswer {
    /// The highest number that it tells of.
    #[must_use]
    pub fn number(&self) -> Number {
        match self {
            PeerAnswer::Put(written) => written.number,
            PeerAnswer::Delete(_, number)
            | PeerAnswer::Attributes(number, _)
            | PeerAnswer::Configure(number)
            | PeerAnswer::Tag(_, number)
            | PeerAnswer::Untag(number) => *number,
            PeerAnswer::Restore(restored) => restored.number,
        }
    }
}

impl Master {
    /// Makes a change for a member, once however often it is asked for.
    pub async fn change_for(
        &self,
        member: MemberId,
        origin: Origin,
        actor: &Actor,
        bucket: BucketId,
        change: PeerChange,
    ) -> Result<PeerAnswer> {
        let author = Author { actor: actor.0.clone(), origin: Some((member, origin.counter)) };
        let master = self.clone();
        // What was written for it stays guarded until its transaction has run, even if the connection ends meanwhile.
        self.detached(async move { master.change_to_end(member, origin, author, bucket, change).await }).await
    }

    async fn change_to_end(
        &self,
        member: MemberId,
        origin: Origin,
        author: Author,
        bucket: BucketId,
        change: PeerChange,
    ) -> Result<PeerAnswer> {
        match &change {
            PeerChange::Delete(_) => self.admit_delete()?,
            // It lets go of what a full disk needs.
            PeerChange::Untag(_) => {}
            _ => self.admit()?,
        }
        check(&change)?;
        // Who may not write makes nothing be read or written here. An answer that was given is given again, whatever has
        // become since of what it was made from.
        let answered = change.writes_first()
            && self
                .writer
                .read(move |view| match IdempotencyRow::load(view, &keys::idempotency(member, origin.counter))? {
                    Some(_) => Ok(true),
                    None => check_grant(view, bucket, member).map(|()| false),
                })
                .await?;
        let (copied, guards) = if answered { (None, Vec::new()) } else { self.prepare(bucket, &change).await? };
        let change = std::sync::Arc::new(change);
        for _ in 0..TRIES_MAX {
            let (change, author, wall, copied) = (change.clone(), author.clone(), self.clock.wall(), copied.clone());
            let limits = self.limits.clone();
            let outcome = self
                .writer
                .transact(move |txn| once(txn, member, origin, bucket, &change, copied, &author, wall, &limits))
                .await?;
            match outcome {
                Attempt::Done(answer) => {
                    drop(guards);
                    if matches!(answer, PeerAnswer::Restore(Restored { changed: true, .. })) {
                        self.fold_in_background(bucket);
                    }
                    return Ok(answer);
                }
                Attempt::Covered(name, paths) if paths.is_empty() => layer::settle(self, &name).await?,
                Attempt::Covered(name, paths) => layer::settle_keys(self, &name, paths).await?,
            }
        }
        Err(Error::Conflict)
    }

    /// What became of a change, for a member that did not hear it. If it has not taken place it never will.
    pub async fn outcome_for(&self, member: MemberId, bucket: BucketId, counter: u64) -> Result<Option<PeerAnswer>> {
        self.writer
            .transact(move |txn| {
                let key = keys::idempotency(member, counter);
                if let Some(row) = IdempotencyRow::load(txn, &key)? {
                    return Ok(row.answer);
                }
                if counter < settled(txn, member)? {
                    return Err(settled_before());
                }
                // Without the right to write it is refused whenever it comes: nobody fills this table who has none.
                if check_grant(txn, bucket, member).is_ok() {
                    txn.put(key, &IdempotencyRow { bucket, answer: None });
                }
                Ok(None)
            })
            .await
    }

    /// Notes that a member has bodies of a version that it read.
    pub async fn note_holder(&self, member: MemberId, bucket: BucketId, held: Vec<Piece>) -> Result<()> {
        if held.len() > HELD_PER_MESSAGE_MAX {
            let reason = format!("one message tells of {HELD_PER_MESSAGE_MAX} bodies at the most");
            return Err(Error::InvalidRequest { reason });
        }
        self.writer
            .transact(move |txn| {
                for piece in held {
                    // Only of what records still refer to: others are gone.
                    let row = shared::body_row(txn, bucket, piece.hash())?;
                    if row.is_some_and(|row| row.references > 0 && row.length == piece.length()) {
                        shared::add_holder(txn, bucket, &piece, member)?;
                    }
                }
                Ok(())
            })
            .await
    }

    /// What of a change's version is written before its transaction: a long list of parts, copies of small bodies. Of a
    /// restore: whether it would change anything.
    async fn prepare(&self, bucket: BucketId, change: &PeerChange) -> Result<(Option<Prepared>, Vec<SlotGuard>)> {
        match change {
            PeerChange::Put { record, .. } => {
                let mut record = (**record).clone();
                let parts = match &record.body {
                    Body::Parts(parts) => parts.clone(),
                    _ => return Ok((Some(Prepared::Version { record, listed: Vec::new() }), Vec::new())),
                };
                let (body, guard) = self.body_of(&parts).await?;
                let listed = if matches!(body, Body::PartList { .. }) { parts } else { Vec::new() };
                record.body = body;
                Ok((Some(Prepared::Version { record, listed }), guard.into_iter().collect()))
            }
            PeerChange::Copy { source, number, ordinal, description, tags, checksum, .. } => {
                let (key, path) = (keys::change(bucket, *number, *ordinal), source.clone());
                let missing = Error::NoSuchVersion { path: source.clone(), version: number.to_string() };
                let row = self.writer.read(move |view| Ok(ChangeRow::load(view, &key)?)).await?;
                let Some(ChangeRow { change: Change::Put(mut record), path: Some(logged), .. }) = row else {
                    return Err(missing);
                };
                if logged != path {
                    return Err(missing);
                }
                let (body, listed, guards) = self.copy_body(&record.body, Urgency::Normal).await?;
                record.body = body;
                if let Some((headers, metadata)) = description.clone() {
                    (record.headers, record.metadata) = (headers, metadata);
                }
                record.tags = tags.clone().unwrap_or(record.tags);
                record.checksum = checksum.clone().or(record.checksum);
                Ok((Some(Prepared::Version { record, listed }), guards))
            }
            PeerChange::Restore { snapshot, prefix } => {
                let name = self.name_of(bucket).await?;
                Ok((Some(Prepared::Restore(self.find_alike(&name, snapshot, prefix).await?)), Vec::new()))
            }
            PeerChange::Delete(_)
            | PeerChange::Attributes { .. }
            | PeerChange::Configure(_)
            | PeerChange::Tag { .. }
            | PeerChange::Untag(_) => Ok((None, Vec::new())),
        }
    }
}

/// Of how many bodies one message tells at the most.
const HELD_PER_MESSAGE_MAX: usize = 1024;

impl PeerChange {
    /// Whether something is read or written for it before its transaction.
    fn writes_first(&self) -> bool {
        match self {
            PeerChange::Copy { .. } | PeerChange::Restore { .. } => true,
            PeerChange::Put { record, .. } => matches!(record.body, Body::Parts(_)),
            PeerChange::Delete(_)
            | PeerChange::Attributes { .. }
            | PeerChange::Configure(_)
            | PeerChange::Tag { .. }
            | PeerChange::Untag(_) => false,
        }
    }
}

/// A change that only needs its number.
#[derive(Clone)]
enum Prepared {
    Version {
        record: ObjectRecord,
        /// The parts of its part list, which are claimed with it.
        listed: Vec<Part>,
    },
    /// A restore, and whether the bucket was found to be as it was.
    Restore(Option<restore::Alike>),
}

enum Attempt {
    Done(PeerAnswer),
    /// An open layer still covers these keys, or (none) the bucket.
    Covered(BucketName, Vec<ObjectPath>),
}

/// What another cluster sent is compared with itself before anything is made of it.
fn check(change: &PeerChange) -> Result<()> {
    let invalid = |reason: &str| Err(Error::InvalidRequest { reason: reason.to_owned() });
    if described_bytes(change) > DESCRIBED_BYTES_MAX {
        return invalid("what is said of the object is longer than any client may say");
    }
    let record = match change {
        PeerChange::Put { record, .. } => record,
        PeerChange::Delete(requests) if requests.len() > DELETES_MAX => return invalid("a delete names 1,000 keys"),
        _ => return Ok(()),
    };
    let pieces = match &record.body {
        Body::PartList { .. } => return invalid("parts are listed in the record"),
        Body::Parts(parts) if parts.is_empty() || parts.len() > usize::from(super::PART_NUMBER_MAX) => {
            return invalid("an object has 1 to 10,000 parts");
        }
        body => pieces(body),
    };
    let sum = pieces.iter().try_fold(0u64, |sum, piece| match piece {
        Piece::Shared { length, .. } if *length > 0 => sum.checked_add(*length),
        _ => None,
    });
    if sum != Some(record.size) { invalid("the pieces do not add up to the size") } else { Ok(()) }
}

/// How many keys one change deletes at the most, as in S3.
const DELETES_MAX: usize = 1000;
/// The most that headers, metadata and tags of one change take, in bytes: well above what S3 lets clients send.
const DESCRIBED_BYTES_MAX: usize = 64 * 1024;

fn described_bytes(change: &PeerChange) -> usize {
    fn headers(headers: &[(ContentHeader, String)]) -> usize {
        headers.iter().map(|(_, value)| value.len()).sum()
    }
    fn pairs(pairs: &[Pair]) -> usize {
        pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
    match change {
        PeerChange::Put { record, .. } => headers(&record.headers) + pairs(&record.metadata) + pairs(&record.tags),
        PeerChange::Copy { description, tags, .. } => {
            description.as_ref().map_or(0, |(sent, metadata)| headers(sent) + pairs(metadata))
                + tags.as_deref().map_or(0, pairs)
        }
        PeerChange::Attributes { attributes, .. } => attributes.tags.as_deref().map_or(0, pairs),
        PeerChange::Configure(BucketChange::Tagging(tags)) => tags.as_deref().map_or(0, pairs),
        PeerChange::Restore { prefix, .. } => prefix.len(),
        // The limit of what is said of a tag is looked at where it is made.
        PeerChange::Configure(_) | PeerChange::Delete(_) | PeerChange::Tag { .. } | PeerChange::Untag(_) => 0,
    }
}

#[allow(clippy::too_many_arguments)]
fn once(
    txn: &mut Transaction<'_>,
    member: MemberId,
    origin: Origin,
    bucket: BucketId,
    change: &PeerChange,
    prepared: Option<Prepared>,
    author: &Author,
    wall: Timestamp,
    limits: &Limits,
) -> Result<Attempt> {
    let settled = forget_settled(txn, member, origin.settled)?;
    let key = keys::idempotency(member, origin.counter);
    if let Some(row) = IdempotencyRow::load(txn, &key)? {
        let abandoned = || Error::InvalidRequest { reason: "the change was given up before".to_owned() };
        return Ok(Attempt::Done(row.answer.ok_or_else(abandoned)?));
    }
    // A question that was held up under way: its answer was heard, or the change given up, and that was forgotten here.
    if origin.counter < settled {
        return Err(settled_before());
    }
    check_grant(txn, bucket, member)?;
    let mut home = Home::open_id(txn, bucket)?.ok_or(Error::NoSuchSharedBucket { bucket })?;
    // Whoever knows of another term knows another home of the bucket, or this one at another time: one of both would
    // issue numbers that the other issues, too.
    let current = home.row.term;
    if origin.term.is_some_and(|term| term != current) && !mutant::on(Mutant::PublishUnderOldTerm) {
        return Err(Error::WrongTerm { current });
    }
    let covered = covered(&home, change)?;
    if let Some(paths) = covered {
        return Ok(Attempt::Covered(home.row.name.clone(), paths));
    }
    let answer = make(&mut home, member, change, prepared, author, wall, limits)?;
    home.save();
    if !mutant::on(Mutant::ForgetAnswers) {
        txn.put(key, &IdempotencyRow { bucket, answer: Some(answer.clone()) });
    }
    Ok(Attempt::Done(answer))
}

/// Below which counter a member knows every outcome.
fn settled(rows: &(impl Rows + ?Sized), member: MemberId) -> Result<u64> {
    let bytes = rows.get(Table::Meta, &keys::settled(member))?;
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
}

fn settled_before() -> Error {
    Error::InvalidRequest { reason: "a change that was settled is not asked for again".to_owned() }
}

/// The member knows every outcome below a counter: the answers are not needed any more. That they were is kept, so that
/// a question which comes late makes nothing.
fn forget_settled(txn: &mut Transaction<'_>, member: MemberId, now: u64) -> Result<u64> {
    let before = settled(txn, member)?;
    if now > before {
        txn.put_raw(Table::Meta, keys::settled(member), now.to_be_bytes().to_vec());
    }
    let below = now.max(before);
    let mut range = KeyRange::prefix(&keys::idempotency_of(member));
    range.to = std::ops::Bound::Excluded(keys::idempotency(member, below));
    let rows: Vec<_> = txn.range(Table::Idempotency, range)?.take(SETTLED_PER_CHANGE_MAX).collect::<Result<_, _>>()?;
    for (key, _) in rows {
        txn.remove(Table::Idempotency, key);
    }
    Ok(below)
}

/// How many answers one change lets go of.
const SETTLED_PER_CHANGE_MAX: usize = 256;

/// The keys that have to leave open layers first; `Some` of nothing for the whole bucket.
fn covered(home: &Home<'_, '_>, change: &PeerChange) -> Result<Option<Vec<ObjectPath>>> {
    if home.row.open_layers == 0 {
        return Ok(None);
    }
    let paths: Vec<&ObjectPath> = match change {
        PeerChange::Put { path, .. } | PeerChange::Copy { path, .. } | PeerChange::Attributes { path, .. } => {
            vec![path]
        }
        PeerChange::Delete(requests) => requests.iter().map(|request| &request.path).collect(),
        PeerChange::Configure(_) | PeerChange::Restore { .. } => return Ok(Some(Vec::new())),
        PeerChange::Tag { .. } | PeerChange::Untag(_) => return Ok(None),
    };
    let mut covered = Vec::new();
    for path in paths {
        if layer::covers(home, path)? {
            covered.push(path.clone());
        }
    }
    Ok(Some(covered).filter(|paths| !paths.is_empty()))
}

fn make(
    home: &mut Home<'_, '_>,
    member: MemberId,
    change: &PeerChange,
    prepared: Option<Prepared>,
    author: &Author,
    wall: Timestamp,
    limits: &Limits,
) -> Result<PeerAnswer> {
    match change {
        PeerChange::Put { path, precondition, .. } | PeerChange::Copy { path, precondition, .. } => {
            let Some(Prepared::Version { mut record, listed }) = prepared else { return Err(Error::Conflict) };
            precondition.check(path, newest(home, path)?.as_ref())?;
            let stamp = home.issue(wall);
            record.modified = stamp.time.wall;
            home.claim_body(&record.body, &listed, Owner::Version(home.id, stamp.number, stamp.ordinal))?;
            if let PeerChange::Put { record, .. } = change {
                for piece in pieces(&record.body) {
                    shared::add_holder(home.txn, home.id, &piece, member)?;
                }
            }
            let summary = home.put_version(path, stamp, author, record.clone())?;
            Ok(PeerAnswer::Put(written(home, &summary, &record)))
        }
        PeerChange::Delete(requests) => match delete_all(home, requests, author, wall)? {
            write::Attempt::Done(results) => {
                let results = results.into_iter().map(|result| match result {
                    Ok(deleted) => Ok(Ok(deleted)),
                    Err(Error::PreconditionFailed { condition }) => {
                        Ok(Err(KeyRefused::PreconditionFailed(condition.to_owned())))
                    }
                    Err(Error::NoSuchKey { .. }) => Ok(Err(KeyRefused::NoSuchKey)),
                    Err(error) => Err(error),
                });
                Ok(PeerAnswer::Delete(results.collect::<Result<_>>()?, home.row.last))
            }
            // Looked at just before, in this transaction.
            write::Attempt::Covered(_) => Err(Error::Conflict),
        },
        PeerChange::Attributes { path, which, attributes } => {
            let (number, name) = set_attributes(home, path, *which, attributes, author, wall)?;
            Ok(PeerAnswer::Attributes(number, name))
        }
        // How long numbers stay is for whoever keeps them to say.
        PeerChange::Configure(BucketChange::Keep(_)) => Err(Error::InvalidRequest {
            reason: "how long numbers stay can be set at the bucket's home only".to_owned(),
        }),
        PeerChange::Configure(change) => Ok(PeerAnswer::Configure(home.configure(author, change, wall)?)),
        PeerChange::Tag { snapshot, tag, message } => {
            let tag = home.tag(snapshot.as_ref(), tag, &author.actor, message, wall, limits)?;
            Ok(PeerAnswer::Tag(tag, home.row.last))
        }
        PeerChange::Untag(tag) => {
            home.untag(tag)?;
            Ok(PeerAnswer::Untag(home.row.last))
        }
        PeerChange::Restore { snapshot, prefix } => {
            let Some(Prepared::Restore(alike)) = prepared else { return Err(Error::Conflict) };
            let publication = restore::publication(home, alike, snapshot, prefix, limits.fold_rows_max)?;
            Ok(PeerAnswer::Restore(home.publish(publication, author, wall)))
        }
    }
}

impl Master {
    /// The name of a bucket of this cluster.
    pub(super) async fn name_of(&self, bucket: BucketId) -> Result<BucketName> {
        self.writer
            .read(move |view| {
                let row = BucketRow::load(view, &keys::bucket(bucket))?.filter(|row| !row.linked && !row.deleted);
                row.map(|row| row.name).ok_or(Error::NoSuchSharedBucket { bucket })
            })
            .await
    }
}

#[cfg(test)]
mod tests;
