//! Reading versions of linked buckets.

use std::sync::Arc;
use std::time::Duration;

use super::{Linked, Member, Seen};
use crate::catalog::rows::{FactRow, FactState, LinkRow, Record, VersionRow};
use crate::catalog::{KeyRange, Table, Transaction, View, keys};
use crate::error::{Error, Result, VersionName};
use crate::master::{Found, Look, Looked, Opened, Version, Which};
use crate::mutant::{self, Mutant};
use crate::peer::{LookAt, WireError};
use crate::types::{
    Body, BucketAt, BucketId, Consistency, Number, ObjectPath, ObjectRecord, Piece, SnapshotRef, Timestamp,
};

/// What the home said of a key, as it is kept.
#[derive(Clone, Debug)]
struct Fact {
    /// From which number on.
    from: Number,
    row: FactRow,
    /// The version, of a live key.
    version: Option<VersionRow>,
}

impl Member {
    /// A version without its body.
    pub async fn head(&self, linked: &Linked, at: &BucketAt, path: &ObjectPath, which: Which) -> Result<Version> {
        let (fact, age) = self.find(linked, at, path, which).await?;
        version(linked, path, which, fact, age)
    }

    /// A version and its body, which is brought as it is read.
    pub async fn get(&self, linked: &Linked, at: &BucketAt, path: &ObjectPath, which: Which) -> Result<Opened> {
        // What is known and here is read in one job, as at the home: a second one costs as much as the read.
        if let Some(number) = self.covered_by(linked, at, which) {
            let (linked, path) = (linked.clone(), path.clone());
            let opened = self.master.open_with(move |view, opening| {
                let Some(fact) = fact_in(view, linked.id, &path, Some(number))? else { return Ok(None) };
                opening.open(view, version(&linked, &path, which, fact, None)?).map(Some)
            });
            if let Some(opened) = opened.await? {
                return Ok(opened);
            }
        }
        let (fact, age) = self.find_elsewhere(linked, at, path, which).await?;
        self.master.open_version(version(linked, path, which, fact, age)?).await
    }

    /// The state that reads of the newest are made of under a bound, if what was heard last is fresh enough.
    pub(super) fn bound_state(&self, linked: &Linked, at: &BucketAt) -> Option<Number> {
        let Consistency::Bounded(seconds) = at.consistency.unwrap_or(linked.consistency) else { return None };
        let Seen { number, asked } = self.seen(linked.id)?;
        let age = self.master.clock().boottime().saturating_sub(asked?);
        (at.snapshot.is_none() && age <= Duration::from_secs(seconds.into())).then_some(number)
    }

    /// The number whose facts answer a read without a question, if there is one.
    fn covered_by(&self, linked: &Linked, at: &BucketAt, which: Which) -> Option<Number> {
        match (&at.snapshot, which) {
            (Some(SnapshotRef::Number(number)), Which::Newest) => Some(*number),
            (None, Which::Newest) => self.bound_state(linked, at),
            (Some(_), Which::Newest) | (_, Which::Named(_)) => None,
        }
    }

    async fn find(
        &self,
        linked: &Linked,
        at: &BucketAt,
        path: &ObjectPath,
        which: Which,
    ) -> Result<(Fact, Option<Duration>)> {
        if let Some(number) = self.covered_by(linked, at, which)
            && let Some(fact) = self.fact(linked.id, path, Some(number)).await?
        {
            return Ok((fact, None));
        }
        self.find_elsewhere(linked, at, path, which).await
    }

    /// What a key is, where no fact answers.
    async fn find_elsewhere(
        &self,
        linked: &Linked,
        at: &BucketAt,
        path: &ObjectPath,
        which: Which,
    ) -> Result<(Fact, Option<Duration>)> {
        let bound = self.bound_state(linked, at);
        if let (None, Which::Newest, true) = (&at.snapshot, which, trusts_facts())
            && let Some(fact) = self.fact(linked.id, path, None).await?
            && (mutant::on(Mutant::TrustFacts) || matches!(fact.row.state, FactState::Absent))
        {
            return Ok((fact, None));
        }
        let snapshot = at.snapshot.clone().or(bound.map(SnapshotRef::Number));
        match self.ask_home(linked, path, which, snapshot).await {
            Ok(fact) => Ok((fact, None)),
            // The bound's state was collected meanwhile: the newest is fresher still.
            Err(Asked::Error(Error::BelowFloor { .. })) if at.snapshot.is_none() => {
                let fact = self.ask_home(linked, path, which, None).await.map_err(Asked::into_error)?;
                Ok((fact, None))
            }
            Err(Asked::Away(error)) => self.what_is_known(linked, at, path, which).await?.ok_or(error),
            Err(Asked::Error(error)) => Err(error),
        }
    }

    /// What is served while the home is away: what is valid for ever, and under `available` what was heard last.
    async fn what_is_known(
        &self,
        linked: &Linked,
        at: &BucketAt,
        path: &ObjectPath,
        which: Which,
    ) -> Result<Option<(Fact, Option<Duration>)>> {
        let known = match (&at.snapshot, which) {
            (Some(_), _) => None,
            (None, Which::Named(VersionName::Number(number))) => self.known_version(linked.id, path, number).await?,
            (None, Which::Newest) if at.consistency.unwrap_or(linked.consistency) == Consistency::Available => {
                self.fact(linked.id, path, None).await?
            }
            (None, _) => None,
        };
        let now = self.master.clock().wall();
        Ok(known.map(|fact| {
            let age = fact.row.asked.until(now);
            (fact, Some(age))
        }))
    }

    async fn ask_home(
        &self,
        linked: &Linked,
        path: &ObjectPath,
        which: Which,
        snapshot: Option<SnapshotRef>,
    ) -> Result<Fact, Asked> {
        let known = match (&snapshot, which) {
            (None, Which::Newest) => self.fact(linked.id, path, None).await?,
            _ => None,
        };
        let (begun, asked) = (self.master.clock().boottime(), self.master.clock().wall());
        let before = self.newest_seen(linked.id);
        let look = Look {
            path: path.clone(),
            snapshot: snapshot.clone(),
            which,
            known: known.as_ref().map(|fact| fact.row.until),
        };
        let heard = match snapshot {
            None => {
                let subject = (linked.id, path.clone(), which, look.known);
                let (member, home, bucket) = (self.clone(), linked.home, linked.id);
                let question = async move { member.wire_ask(home, &LookAt { bucket, look }).await.map(Arc::new) };
                self.questions.ask(subject, question).await
            }
            // What is asked of a state that never changes can be asked twice.
            Some(_) => self.wire_ask(linked.home, &LookAt { bucket: linked.id, look }).await.map(Arc::new),
        };
        let looked = match heard {
            Ok(looked) => looked,
            Err(error) => {
                let away = matches!(error, WireError::NotSent { .. } | WireError::Unknown { .. });
                let error = self.error(linked.home, &linked.name, "for an object", error).await;
                return Err(if away { Asked::Away(error) } else { Asked::Error(error) });
            }
        };
        self.check_not_behind(linked, looked.newest, before).await?;
        self.note_seen(linked.id, looked.newest, Some(begun));
        Ok(self.learn(linked, path, which, &looked, known, asked).await?)
    }

    /// Keeps what the home said.
    async fn learn(
        &self,
        linked: &Linked,
        path: &ObjectPath,
        which: Which,
        looked: &Looked,
        known: Option<Fact>,
        asked: Timestamp,
    ) -> Result<Fact> {
        let nonsense = |why: &str| Error::ClusterFailed {
            cluster: linked.home.to_string(),
            doing: "for an object",
            why: why.to_owned(),
        };
        let fact = match (&looked.found, known) {
            (Found::Same, Some(mut fact)) => {
                fact.row.until = fact.row.until.max(looked.at);
                fact.row.versioned = looked.versioned;
                let stale = fact.row.asked.until(asked) > FACT_REFRESH;
                fact.row.asked = asked;
                if !stale {
                    return Ok(fact);
                }
                fact
            }
            (Found::Same, None) => return Err(nonsense("it says that nothing has changed since it was never asked")),
            (found, _) => fact_of(path, found, looked, asked).map_err(nonsense)?,
        };
        let (bucket, key, row, version) = (linked.id, path.clone(), fact.row.clone(), fact.version.clone());
        let (from, newest) = (fact.from, looked.newest);
        self.master
            .writer()
            .transact(move |txn| {
                let Some(mut link) = LinkRow::load(txn, &keys::bucket(bucket))? else { return Ok(()) };
                if newest > link.seen {
                    link.seen = newest;
                    txn.put(keys::bucket(bucket), &link);
                }
                // A version that was asked for by name says nothing of what the key is.
                if which == Which::Newest {
                    txn.put(keys::history(bucket, &key, from), &row);
                }
                keep_version(txn, bucket, &row, version.as_ref());
                Ok(())
            })
            .await?;
        self.note_rows(2);
        Ok(fact)
    }

    async fn fact(&self, bucket: BucketId, path: &ObjectPath, at: Option<Number>) -> Result<Option<Fact>> {
        let path = path.clone();
        self.master.writer().read(move |view| fact_in(view, bucket, &path, at)).await
    }

    /// A version that was read before.
    async fn known_version(&self, bucket: BucketId, path: &ObjectPath, number: Number) -> Result<Option<Fact>> {
        let path = path.clone();
        self.master
            .writer()
            .read(move |view| {
                let Some((ordinal, version)) = version_of(view, bucket, &path, number)? else { return Ok(None) };
                let tags = version.record.tags.clone();
                let state = FactState::Live { number, ordinal, null: false, tags };
                let row = FactRow { until: number, asked: version.record.modified, versioned: true, state };
                Ok(Some(Fact { from: number, row, version: Some(version) }))
            })
            .await
    }
}

/// Whether a promise is broken for the controls of the tests.
fn trusts_facts() -> bool {
    mutant::on(Mutant::TrustFacts) || mutant::on(Mutant::TrustAbsence)
}

/// Why the home has no answer.
enum Asked {
    /// It cannot be reached.
    Away(Error),
    /// Something else.
    Error(Error),
}

impl Asked {
    fn into_error(self) -> Error {
        match self {
            Asked::Away(error) | Asked::Error(error) => error,
        }
    }
}

impl From<Error> for Asked {
    fn from(error: Error) -> Self {
        Asked::Error(error)
    }
}

/// How old what is kept may become before hearing the same again is written down.
const FACT_REFRESH: Duration = Duration::from_secs(60);

/// What is known of a key as of a number, or (none) as of the highest number of which something is.
fn fact_in(view: &dyn View, bucket: BucketId, path: &ObjectPath, at: Option<Number>) -> Result<Option<Fact>> {
    let range = KeyRange::prefix(&keys::object(bucket, path)).starting(std::ops::Bound::Included(keys::history(
        bucket,
        path,
        at.unwrap_or(Number::MAX),
    )));
    let Some((key, value)) = view.range(Table::Facts, range)?.next().transpose()? else { return Ok(None) };
    let row = FactRow::decode(&value)?;
    if at.is_some_and(|at| row.until < at) {
        return Ok(None);
    }
    let from = key.get(key.len().saturating_sub(8)..).and_then(keys::descending).unwrap_or(row.until);
    let version = match &row.state {
        FactState::Live { number, ordinal, .. } => {
            match VersionRow::load(view, &keys::change(bucket, *number, *ordinal))? {
                Some(version) => Some(version),
                // Its record is not here any more: the home is asked again.
                None => return Ok(None),
            }
        }
        FactState::Marker { .. } | FactState::Absent => None,
    };
    Ok(Some(Fact { from, row, version }))
}

fn version_of(
    view: &dyn View,
    bucket: BucketId,
    path: &ObjectPath,
    number: Number,
) -> Result<Option<(u32, VersionRow)>> {
    let prefix = keys::change(bucket, number, 0);
    let range = KeyRange::prefix(&prefix[..prefix.len() - 4]);
    for row in view.range(Table::Versions, range)? {
        let (key, value) = row?;
        let version = VersionRow::decode(&value)?;
        if version.path == *path
            && let Some((_, ordinal)) = keys::split_change(&key)
        {
            return Ok(Some((ordinal, version)));
        }
    }
    Ok(None)
}

/// Keeps the record of a version, which never changes.
pub(super) fn keep_version(txn: &mut Transaction<'_>, bucket: BucketId, row: &FactRow, version: Option<&VersionRow>) {
    if let (FactState::Live { number, ordinal, .. }, Some(version)) = (&row.state, version) {
        txn.put(keys::change(bucket, *number, *ordinal), version);
    }
}

/// What the home said, checked against itself.
fn fact_of(path: &ObjectPath, found: &Found, looked: &Looked, asked: Timestamp) -> Result<Fact, &'static str> {
    let at = looked.at;
    let (state, version) = match found {
        Found::Live { number, ordinal, null, record } => {
            check_record(record)?;
            if *number > at {
                return Err("a version is newer than the state it was found in");
            }
            let tags = record.tags.clone();
            let state = FactState::Live { number: *number, ordinal: *ordinal, null: *null, tags };
            (state, Some(VersionRow { path: path.clone(), record: (**record).clone() }))
        }
        Found::Marker { version, modified } => (FactState::Marker { version: *version, modified: *modified }, None),
        Found::Absent => (FactState::Absent, None),
        Found::Same => return Err("it says that nothing has changed"),
    };
    Ok(Fact { from: at, row: FactRow { until: at, asked, versioned: looked.versioned, state }, version })
}

/// A record of another cluster names its bodies by their content, and they add up.
fn check_record(record: &ObjectRecord) -> Result<(), &'static str> {
    let pieces: Vec<Piece> = match &record.body {
        Body::Empty => Vec::new(),
        Body::Whole(piece) => vec![*piece],
        Body::Parts(parts) => parts.iter().filter_map(|part| part.piece).collect(),
        Body::PartList { .. } => return Err("a record names a list of parts by where it stands"),
    };
    let sum = pieces.iter().try_fold(0u64, |sum, piece| match piece {
        Piece::Shared { length, .. } => sum.checked_add(*length),
        Piece::Slot(_) | Piece::Blob { .. } => None,
    });
    if sum == Some(record.size) { Ok(()) } else { Err("a record's bodies do not add up to its size") }
}

/// What a read makes of a fact.
fn version(linked: &Linked, path: &ObjectPath, which: Which, fact: Fact, age: Option<Duration>) -> Result<Version> {
    let Fact { row, version, .. } = fact;
    match (row.state, version) {
        (FactState::Live { number, ordinal, null, tags }, Some(VersionRow { mut record, .. })) => {
            record.tags = tags;
            Ok(Version {
                path: path.clone(),
                number,
                name: if null { VersionName::Null } else { VersionName::Number(number) },
                versioned: row.versioned,
                bucket: linked.id,
                ordinal,
                tag_count: record.tags.len(),
                record,
                at: row.until,
                age,
                origin: None,
            })
        }
        (FactState::Marker { version, modified }, _) => {
            Err(Error::DeleteMarker { path: path.clone(), version, modified, named: matches!(which, Which::Named(_)) })
        }
        (FactState::Live { .. } | FactState::Absent, _) => Err(match which {
            Which::Newest => Error::NoSuchKey { path: path.clone() },
            Which::Named(name) => Error::NoSuchVersion { path: path.clone(), version: name.to_string() },
        }),
    }
}

impl Member {
    /// Notes a version that was written through this cluster, so that it reads its own writes.
    #[allow(clippy::too_many_arguments, reason = "they are the fields of the rows that it writes")]
    pub(super) fn note_written(
        txn: &mut Transaction<'_>,
        bucket: BucketId,
        path: &ObjectPath,
        until: Number,
        asked: Timestamp,
        versioned: bool,
        state: FactState,
        record: Option<ObjectRecord>,
    ) -> Result<()> {
        let Some(mut link) = LinkRow::load(txn, &keys::bucket(bucket))? else { return Ok(()) };
        if until > link.seen {
            link.seen = until;
            txn.put(keys::bucket(bucket), &link);
        }
        let row = FactRow { until, asked, versioned, state };
        txn.put(keys::history(bucket, path, until), &row);
        keep_version(txn, bucket, &row, record.map(|record| VersionRow { path: path.clone(), record }).as_ref());
        Ok(())
    }
}
