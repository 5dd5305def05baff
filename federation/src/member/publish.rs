//! Changes of linked buckets: made durable here as far as they are ours, and numbered by the home.
//!
//! The order is: bodies durable here, and a row that says which change they are for; then the question; then what
//! became of it is written down. A change whose outcome is not known stays open, over restarts too, until the home says
//! what became of it: it was made once, or never will be.

use std::time::Duration;

use super::{Linked, Member, cost_of, counters, read_answer};
use crate::blobs::{StagedBody, Stored};
use crate::catalog::rows::{FactState, PublishRow, Record};
use crate::catalog::{Table, Transaction};
use crate::error::{Error, Result, VersionName};
use crate::master::{
    Actor, BucketChange, CopyRequest, DeleteRequest, Deleted, Description, KeyRefused, Master, Origin, PeerAnswer,
    PeerChange, PutRequest, Version, Which, Written,
};
use crate::peer::{self, Outcome, Publish, Question, Refusal, WireError};
use crate::types::{Attributes, Body, BucketId, ETag, MemberId, Number, ObjectPath, ObjectRecord, Timestamp};

/// How long a change is asked for again while a client waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before it is.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a change whose outcome is not known waits before the home is asked again.
const RESOLVE_PAUSE: Duration = Duration::from_secs(5);

/// A change that is noted here, with the bodies that are durable for it, until its outcome is.
pub(super) struct Ours {
    pub(super) counter: u64,
}

impl Member {
    /// Writes an object: its body stays here, its number comes from the home.
    pub async fn put(&self, linked: &Linked, actor: &Actor, path: &ObjectPath, request: PutRequest) -> Result<Written> {
        let (member, linked, actor, path) = (self.clone(), linked.clone(), actor.clone(), path.clone());
        self.master.detached(async move { member.put_to_end(&linked, &actor, path, request).await }).await
    }

    async fn put_to_end(
        &self,
        linked: &Linked,
        actor: &Actor,
        path: ObjectPath,
        request: PutRequest,
    ) -> Result<Written> {
        let PutRequest { mut body, md5, checksum, description, precondition } = request;
        self.master.admit()?;
        self.master.blobs().persist(&mut body).await?;
        let stored = body.stored().unwrap_or(Stored::Empty);
        let Description { headers, metadata, tags } = description;
        let record = ObjectRecord {
            body: stored.piece().map_or(Body::Empty, |piece| Body::Whole(piece.shared())),
            size: body.length(),
            etag: ETag { md5, parts: None },
            modified: Timestamp(0),
            checksum,
            headers,
            metadata,
            tags,
        };
        let ours = self.keep(linked, vec![(body, stored)]).await?;
        let change = PeerChange::Put { path, record: Box::new(record), precondition };
        self.put_answer(self.publish(linked, actor, change, ours).await?)
    }

    pub(super) fn put_answer(&self, answer: PeerAnswer) -> Result<Written> {
        match answer {
            PeerAnswer::Put(written) => Ok(written),
            other => Err(unfitting(&other)),
        }
    }

    /// Copies a version into a linked bucket. Within a bucket nothing but its record is sent.
    pub async fn copy(
        &self,
        linked: &Linked,
        actor: &Actor,
        source: &Version,
        path: &ObjectPath,
        request: CopyRequest,
    ) -> Result<Written> {
        let (member, linked, actor) = (self.clone(), linked.clone(), actor.clone());
        let (source, path) = (source.clone(), path.clone());
        self.master
            .detached(async move {
                let CopyRequest { description, tags, checksum, precondition } = request;
                if source.bucket == linked.id {
                    let ours = member.begin(&linked).await?;
                    let change = PeerChange::Copy {
                        source: source.path.clone(),
                        number: source.number,
                        ordinal: source.ordinal,
                        path,
                        description,
                        tags: Some(tags.unwrap_or_else(|| source.record.tags.clone())),
                        checksum,
                        precondition,
                    };
                    return member.put_answer(member.publish(&linked, &actor, change, ours).await?);
                }
                let counter = member.counters.next(&member.master, linked.id).await?;
                let owned = member.master.own_copy(linked.id, counter, &source).await;
                let (body, _) = owned.inspect_err(|_| member.resolve_later(counter))?;
                let mut record = ObjectRecord { body, ..source.record.clone() };
                if let Some((headers, metadata)) = description {
                    (record.headers, record.metadata) = (headers, metadata);
                }
                record.tags = tags.unwrap_or(record.tags);
                record.checksum = checksum.or(record.checksum);
                let ours = Ours { counter };
                let change = PeerChange::Put { path, record: Box::new(record), precondition };
                member.put_answer(member.publish(&linked, &actor, change, ours).await?)
            })
            .await
    }

    /// Deletes keys and versions, each its own number.
    pub async fn delete(
        &self,
        linked: &Linked,
        actor: &Actor,
        requests: Vec<DeleteRequest>,
    ) -> Result<Vec<Result<Deleted>>> {
        let paths: Vec<ObjectPath> = requests.iter().map(|request| request.path.clone()).collect();
        match self.change(linked, actor, PeerChange::Delete(requests)).await? {
            PeerAnswer::Delete(results, _) if results.len() == paths.len() => Ok(results
                .into_iter()
                .zip(paths)
                .map(|(result, path)| {
                    result.map_err(|refused| match refused {
                        KeyRefused::PreconditionFailed(name) => {
                            Error::PreconditionFailed { condition: peer::condition(&name) }
                        }
                        KeyRefused::NoSuchKey => Error::NoSuchKey { path },
                    })
                })
                .collect()),
            other => Err(unfitting(&other)),
        }
    }

    /// Changes what may change about a version.
    pub async fn set_attributes(
        &self,
        linked: &Linked,
        actor: &Actor,
        path: &ObjectPath,
        which: Which,
        attributes: Attributes,
    ) -> Result<(Number, Option<VersionName>)> {
        match self.change(linked, actor, PeerChange::Attributes { path: path.clone(), which, attributes }).await? {
            PeerAnswer::Attributes(number, name) => Ok((number, name)),
            other => Err(unfitting(&other)),
        }
    }

    /// Changes the bucket's configuration.
    pub async fn configure(&self, linked: &Linked, actor: &Actor, change: BucketChange) -> Result<Number> {
        match self.change(linked, actor, PeerChange::Configure(change)).await? {
            PeerAnswer::Configure(number) => Ok(number),
            other => Err(unfitting(&other)),
        }
    }

    pub(super) async fn change(&self, linked: &Linked, actor: &Actor, change: PeerChange) -> Result<PeerAnswer> {
        let (member, linked, actor) = (self.clone(), linked.clone(), actor.clone());
        self.master
            .detached(async move {
                let ours = member.begin(&linked).await?;
                member.publish(&linked, &actor, change, ours).await
            })
            .await
    }

    /// Makes bodies that were just stored this cluster's own of a bucket, and notes the change they are for.
    async fn keep(&self, linked: &Linked, stored: Vec<(StagedBody, Stored)>) -> Result<Ours> {
        let counter = self.counters.next(&self.master, linked.id).await?;
        let (staged, stored): (Vec<_>, Vec<_>) = stored.into_iter().unzip();
        let kept = self.master.keep_own(linked.id, counter, stored).await;
        match self.master.finish_own(staged, kept) {
            Ok(_) => Ok(Ours { counter }),
            Err(error) => {
                self.resolve_later(counter);
                Err(error)
            }
        }
    }

    /// Notes a change without bodies before it is asked for.
    pub(super) async fn begin(&self, linked: &Linked) -> Result<Ours> {
        let counter = self.counters.next(&self.master, linked.id).await?;
        let row = PublishRow { bucket: linked.id, bodies: Vec::new(), upload: None };
        let noted = self
            .master
            .writer()
            .transact(move |txn| {
                txn.put(counters::key(counter), &row);
                Ok(())
            })
            .await;
        match noted {
            Ok(()) => Ok(Ours { counter }),
            Err(error) => {
                self.resolve_later(counter);
                Err(error)
            }
        }
    }

    /// Asks the home for a change until it has answered, or this cluster's patience ends.
    pub(super) async fn publish(
        &self,
        linked: &Linked,
        actor: &Actor,
        change: PeerChange,
        ours: Ours,
    ) -> Result<PeerAnswer> {
        let settled = self.counters.settled(|bucket| self.is_numbered_by(bucket, linked.home));
        let term = self.linked_by_id(linked.id).map_or(linked.term, |linked| linked.term);
        let origin = Origin { counter: ours.counter, settled, term: Some(term) };
        let mut question = Publish { bucket: linked.id, origin, actor: actor.0.clone(), change };
        let mut bytes = peer::json(&question);
        let clock = self.master.clock();
        // The answer may tell of what the first attempt did: it is no younger than that.
        let first = (clock.boottime(), clock.wall());
        let mut unknown = false;
        loop {
            let answer = self.wire.ask(linked.home, Publish::PATH, cost_of(&question), bytes.clone()).await;
            let error = match answer.and_then(|answer| read_answer::<PeerAnswer>(&answer)) {
                Ok(answer) => return self.made(linked, ours, &question.change, answer, first).await,
                Err(error) => error,
            };
            // This attempt has made nothing, and an earlier one is known to the home by its counter. Terms only rise: a home
            // that is in an older one is not followed.
            if let WireError::Refused(Refusal::WrongTerm { term }) = error
                && question.origin.term.is_some_and(|known| known < term)
            {
                if let Err(error) = self.follow_term(linked, term).await {
                    self.resolve_later(ours.counter);
                    return Err(error);
                }
                question.origin.term = Some(term);
                bytes = peer::json(&question);
                continue;
            }
            let patient = clock.boottime().saturating_sub(first.0) <= PATIENCE;
            match verdict(&error) {
                Verdict::Again if patient => {}
                Verdict::NotMade if unknown && patient && matches!(error, WireError::NotSent { .. }) => {}
                // An earlier attempt may still be under way: only the home can rule that out.
                Verdict::Again | Verdict::NotMade if unknown => {
                    let open = Outcome { bucket: linked.id, counter: ours.counter };
                    match self.wire_ask(linked.home, &open).await {
                        Ok(Some(answer)) => return self.made(linked, ours, &question.change, answer, first).await,
                        Ok(None) => self.settle(linked, ours, None).await?,
                        Err(_) => self.resolve_later(ours.counter),
                    }
                    return Err(self.error(linked.home, &linked.name, "for a change", error).await);
                }
                Verdict::Again | Verdict::NotMade => {
                    self.settle(linked, ours, None).await?;
                    return Err(self.error(linked.home, &linked.name, "for a change", error).await);
                }
                Verdict::Unknown if patient && matches!(error, WireError::Unknown { .. }) => unknown = true,
                Verdict::Unknown => {
                    // What became of it is found out later, and never twice.
                    self.resolve_later(ours.counter);
                    return Err(self.error(linked.home, &linked.name, "for a change", error).await);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether a bucket is one of a home's; one whose link is gone may be.
    fn is_numbered_by(&self, bucket: BucketId, home: MemberId) -> bool {
        self.linked_by_id(bucket).is_none_or(|linked| linked.home == home)
    }

    /// The home has made a change.
    async fn made(
        &self,
        linked: &Linked,
        ours: Ours,
        change: &PeerChange,
        answer: PeerAnswer,
        (begun, asked): (Duration, Timestamp),
    ) -> Result<PeerAnswer> {
        self.note_seen(linked.id, answer.number(), Some(begun));
        let counter = ours.counter;
        match self.settle(linked, ours, Some((change, &answer, asked))).await {
            Ok(()) => {
                self.note_rows(match change {
                    PeerChange::Delete(requests) => requests.len() as u64,
                    _ => 2,
                });
                Ok(answer)
            }
            Err(error) => {
                self.resolve_later(counter);
                Err(error)
            }
        }
    }

    /// Writes down what became of a change.
    async fn settle(
        &self,
        linked: &Linked,
        ours: Ours,
        made: Option<(&PeerChange, &PeerAnswer, Timestamp)>,
    ) -> Result<()> {
        let counter = ours.counter;
        let bucket = linked.id;
        let learned = made.map(|(change, answer, asked)| (change.clone(), answer.clone(), asked));
        let master = self.master.clone();
        self.master
            .writer()
            .transact(move |txn| {
                let made = learned.as_ref().map_or(Made::No, |(_, answer, _)| Made::As(answer));
                close(txn, &master, counter, &made)?;
                match &learned {
                    Some((change, answer, asked)) => note_change(txn, bucket, change, answer, *asked),
                    None => Ok(()),
                }
            })
            .await?;
        self.counters.settle(counter);
        Ok(())
    }

    /// Finds out what became of a change, however long that takes; also of one that failed here before it was asked for,
    /// as its row may stand all the same.
    pub(super) fn resolve_later(&self, counter: u64) {
        let member = self.clone();
        let resolve = async move {
            loop {
                match member.resolve_change(counter).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::info!(counter, error = &error as &dyn std::error::Error, "change not resolved yet");
                    }
                }
                tokio::time::sleep(RESOLVE_PAUSE).await;
            }
        };
        tokio::spawn(self.ending.clone().run_until_cancelled_owned(resolve));
    }

    async fn resolve_change(&self, counter: u64) -> Result<()> {
        let row = self.master.writer().read(move |view| Ok(PublishRow::load(view, &counters::key(counter))?)).await?;
        let bucket = row.map(|row| row.bucket);
        let made = match bucket.and_then(|bucket| self.linked_by_id(bucket)) {
            Some(linked) => self.became(&linked, counter).await?,
            // It was resolved before, or the link is gone, and its bodies with it.
            None => Became::Forgotten,
        };
        let master = self.master.clone();
        self.master.writer().transact(move |txn| close(txn, &master, counter, &made.as_made())).await?;
        self.counters.settle(counter);
        Ok(())
    }

    /// Asks the home what became of a change. One that it knows nothing of any more may have been made.
    async fn became(&self, linked: &Linked, counter: u64) -> Result<Became> {
        let made = match self.wire_ask(linked.home, &Outcome { bucket: linked.id, counter }).await {
            Ok(answer) => answer.map_or(Became::Nothing, |answer| Became::Made(Box::new(answer))),
            Err(WireError::Refused(Refusal::InvalidRequest { reason })) => {
                tracing::warn!(bucket = %linked.name, counter, reason, "the home has forgotten a change; its bodies stay");
                Became::Forgotten
            }
            Err(error) => return Err(self.error(linked.home, &linked.name, "what became of a change", error).await),
        };
        tracing::info!(bucket = %linked.name, counter, made = !matches!(made, Became::Nothing), "change resolved");
        Ok(made)
    }
}

/// Takes the row of an open change away, and with it what its outcome decides over. If that was written down before, it
/// counts once.
fn close(txn: &mut Transaction<'_>, master: &Master, counter: u64, made: &Made<'_>) -> Result<()> {
    let Some(row) = PublishRow::load(txn, &counters::key(counter))? else { return Ok(()) };
    txn.remove(Table::Publishes, counters::key(counter));
    match row.upload {
        _ if matches!(made, Made::No) => master.drop_own(txn, row.bucket, &row.bodies),
        Some((path, upload)) => {
            let written = match made {
                Made::As(PeerAnswer::Put(written)) => Some(written),
                _ => None,
            };
            master.end_completed(txn, row.bucket, &path, upload, written)
        }
        None => Ok(()),
    }
}

/// What a change came to, as its row is closed.
enum Made<'a> {
    No,
    As(&'a PeerAnswer),
    /// It may have been made; nobody knows any more.
    Perhaps,
}

/// What the home says that became of a change.
enum Became {
    Nothing,
    Made(Box<PeerAnswer>),
    Forgotten,
}

impl Became {
    fn as_made(&self) -> Made<'_> {
        match self {
            Became::Nothing => Made::No,
            Became::Made(answer) => Made::As(answer),
            Became::Forgotten => Made::Perhaps,
        }
    }
}

/// What an attempt that was not answered says of a change.
enum Verdict {
    /// This attempt has not made it, and another one may.
    Again,
    /// This attempt has not made it, nor will another one.
    NotMade,
    /// It may have.
    Unknown,
}

fn verdict(error: &WireError) -> Verdict {
    match error {
        WireError::Unknown { .. } | WireError::Nonsense { .. } => Verdict::Unknown,
        WireError::NotSent { .. } => Verdict::NotMade,
        WireError::Refused(refusal) => match refusal {
            Refusal::Conflict => Verdict::Again,
            // Its commit may have failed halfway, and be found done when its catalog opens again.
            Refusal::Failed { .. } => Verdict::Unknown,
            Refusal::PreconditionFailed { .. }
            | Refusal::NoSuchKey { .. }
            | Refusal::NoSuchVersion { .. }
            | Refusal::DeleteMarker { .. }
            | Refusal::InvalidRequest { .. }
            | Refusal::NoSuchSharedBucket
            | Refusal::SharedReadOnly
            | Refusal::WrongTerm { .. }
            | Refusal::NoSuchBucket { .. }
            | Refusal::BucketNotEmpty { .. }
            | Refusal::NoSuchSnapshot { .. }
            | Refusal::BelowFloor { .. }
            | Refusal::NoSuchUpload { .. }
            | Refusal::TagExists { .. }
            | Refusal::NoSuchTag { .. }
            | Refusal::NoSuchPin { .. }
            | Refusal::NotInSnapshot { .. }
            | Refusal::LimitReached { .. }
            | Refusal::NoSpace
            | Refusal::Away { .. }
            | Refusal::Stranger
            | Refusal::Unlawful { .. } => Verdict::NotMade,
        },
    }
}

pub(super) fn unfitting(answer: &PeerAnswer) -> Error {
    let got = match answer {
        PeerAnswer::Put(_) => "a version",
        PeerAnswer::Delete(..) => "deletes",
        PeerAnswer::Attributes(..) => "attributes",
        PeerAnswer::Configure(_) => "a configuration",
        PeerAnswer::Tag(..) | PeerAnswer::Untag(_) => "a tag",
        PeerAnswer::Restore(_) => "a restore",
    };
    Error::ClusterFailed {
        cluster: "the home".to_owned(),
        doing: "for a change",
        why: format!("it answered with {got}, which was not asked for"),
    }
}

/// What is known of the keys of a change once it was made, so that this cluster reads its own writes.
fn note_change(
    txn: &mut Transaction<'_>,
    bucket: BucketId,
    change: &PeerChange,
    answer: &PeerAnswer,
    asked: Timestamp,
) -> Result<()> {
    match (change, answer) {
        (PeerChange::Put { path, record, .. }, PeerAnswer::Put(written)) => {
            let null = !matches!(written.name, Some(VersionName::Number(_)));
            let record = ObjectRecord { modified: written.modified, ..(**record).clone() };
            let tags = record.tags.clone();
            let state = FactState::Live { number: written.number, ordinal: 0, null, tags };
            let versioned = written.name.is_some();
            Member::note_written(txn, bucket, path, written.number, asked, versioned, state, Some(record))
        }
        (PeerChange::Delete(requests), PeerAnswer::Delete(results, _)) => {
            for (request, result) in requests.iter().zip(results) {
                let (None, Ok(deleted)) = (request.version, result) else { continue };
                let state = match deleted.name.filter(|_| deleted.marker) {
                    Some(version) => FactState::Marker { version, modified: asked },
                    None => FactState::Absent,
                };
                let versioned = deleted.name.is_some();
                Member::note_written(txn, bucket, &request.path, deleted.number, asked, versioned, state, None)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
