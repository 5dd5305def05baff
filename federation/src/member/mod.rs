//! Buckets that another cluster numbers, as they are used here.
//!
//! What is read of them is asked of their home and kept: records for ever, by (bucket, number); what a key is, over the
//! numbers for which the home said so; bodies until they are evicted. What is written has its body made durable here,
//! and the home gives it its number. Nothing that nobody reads is ever sent.

mod alone;
mod counters;
mod delta;
mod download;
mod downloads;
mod fetch;
mod fill;
mod groups;
mod housekeeping;
mod known;
mod lag;
mod look;
mod one_question;
mod openings;
mod publish;
mod range;
mod states;
#[cfg(test)]
mod tests;
mod trees;
mod turns;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

pub use fetch::Fetcher;
pub use lag::Lag;

use crate::catalog::rows::{BucketRow, LinkRow, Record};
use crate::catalog::{KeyRange, Table, keys};
use crate::error::{Error, Result};
use crate::master::{Actor, BucketInfo, Master};
use crate::peer::{self, Asked, Cost, Membership, Question, Refusal, Wire, WireError};
use crate::types::{BucketId, BucketName, Consistency, MemberId, Number, Term, UploadId};

/// A linked bucket.
#[derive(Clone, Debug)]
pub struct Linked {
    /// Its id, the same everywhere.
    pub id: BucketId,
    /// Its name here.
    pub name: BucketName,
    /// The cluster that numbers it.
    pub home: MemberId,
    /// Its name there.
    pub remote: BucketName,
    /// How fresh reads are unless they say otherwise.
    pub consistency: Consistency,
    /// The newest term that was heard of; changes are asked for in it.
    pub term: Term,
}

/// The newest state of a bucket that was heard of: nothing below it is shown as the newest, and reads under a bound
/// are made of it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    number: Number,
    /// When it was asked for, since boot: the wall clock may go back. None if that was an earlier life.
    asked: Option<Duration>,
}

/// This cluster as a member of other clusters' buckets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Member {
    master: Master,
    membership: Arc<Membership>,
    wire: Arc<dyn Wire>,
    linked: Arc<RwLock<HashMap<BucketName, Linked>>>,
    seen: Arc<Mutex<HashMap<BucketId, Seen>>>,
    questions: one_question::Questions,
    counters: Arc<counters::Counters>,
    completions: turns::Turns<UploadId>,
    known: Arc<known::Known>,
    /// Ends what goes on in the background.
    ending: CancellationToken,
}

impl Member {
    /// Reads which buckets are linked. Changes whose outcome was not known when the process ended are resolved from
    /// now on, until `ending`. Of what homes say about `known_rows_max` rows are kept.
    pub async fn open(
        master: Master,
        membership: Arc<Membership>,
        wire: Arc<dyn Wire>,
        known_rows_max: u64,
        ending: CancellationToken,
    ) -> Result<Member> {
        let (counters, open) = counters::Counters::open(&master).await?;
        let member = Member {
            master,
            membership,
            wire,
            linked: Arc::default(),
            seen: Arc::default(),
            questions: one_question::Questions::default(),
            counters: Arc::new(counters),
            completions: turns::Turns::default(),
            known: Arc::new(known::Known::new(known_rows_max)),
            ending,
        };
        member.load().await?;
        // Only those of an earlier life: those of this one are still being asked for.
        open.into_iter().for_each(|counter| member.resolve_later(counter));
        Ok(member)
    }

    /// Reads which buckets are linked, after that was changed.
    pub(crate) async fn load(&self) -> Result<()> {
        let (linked, seen) = self
            .master
            .writer()
            .read(|view| {
                let (mut linked, mut seen) = (HashMap::new(), Vec::new());
                for row in view.range(Table::Links, KeyRange::prefix(&[]))? {
                    let (key, value) = row?;
                    let row = LinkRow::decode(&value)?;
                    let newest = row.seen;
                    let Some(id) = key.as_slice().try_into().ok().map(BucketId) else { continue };
                    if let Some(bucket) = BucketRow::load(view, &key)? {
                        let LinkRow { home, remote, consistency, .. } = row;
                        let (name, term) = (bucket.name, bucket.term);
                        linked.insert(name.clone(), Linked { id, name, home, remote, consistency, term });
                        seen.push((id, newest));
                    }
                }
                Ok((linked, seen))
            })
            .await?;
        *self.linked.write().unwrap_or_else(PoisonError::into_inner) = linked;
        seen.into_iter().for_each(|(bucket, number)| self.note_seen(bucket, number, None));
        Ok(())
    }

    /// The linked bucket of a name, if it is one.
    #[must_use]
    pub fn linked(&self, name: &BucketName) -> Option<Linked> {
        self.linked.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The linked bucket of an id.
    fn linked_by_id(&self, id: BucketId) -> Option<Linked> {
        self.linked.read().unwrap_or_else(PoisonError::into_inner).values().find(|linked| linked.id == id).cloned()
    }

    /// All linked buckets.
    #[must_use]
    pub fn all_linked(&self) -> Vec<Linked> {
        self.linked.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Links a bucket of another cluster under a name of this one.
    pub async fn link(
        &self,
        actor: &Actor,
        cluster: &str,
        remote: &BucketName,
        name: &BucketName,
    ) -> Result<BucketInfo> {
        let home = self.membership.named(cluster).await?.cluster.member();
        let offer = peer::Offer { bucket: remote.clone() };
        let offered = match self.wire_ask(home, &offer).await {
            Ok(offered) => offered,
            Err(WireError::Refused(Refusal::NoSuchBucket { .. })) => {
                return Err(Error::InvalidRequest {
                    reason: format!(
                        "{cluster} shares no bucket {remote} with this cluster; its owner can, with \
                         `elton bucket share {remote} --with CLUSTER --rw`"
                    ),
                });
            }
            Err(error) => return Err(self.error(home, remote, "to link a bucket", error).await),
        };
        tracing::info!(bucket = %name, %remote, cluster, actor = actor.0, "bucket linked");
        self.master.create_linked(home, remote, name, &offered.bucket).await?;
        self.load().await?;
        Ok(offered.bucket)
    }

    /// Ends a link. What was written here and is read elsewhere would be lost with it, so that is refused.
    pub async fn unlink(&self, actor: &Actor, name: &BucketName) -> Result<()> {
        tracing::info!(bucket = %name, actor = actor.0, "bucket to be unlinked");
        let linked = self.linked(name);
        self.master.remove_linked(name).await?;
        if let Some(linked) = linked {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&linked.id);
        }
        self.load().await
    }

    /// Sets how fresh reads of a linked bucket are.
    pub async fn set_consistency(&self, name: &BucketName, consistency: Consistency) -> Result<()> {
        let linked = self.linked(name).ok_or_else(|| Error::InvalidRequest {
            reason: format!("{name} is numbered here: every read of it sees the newest"),
        })?;
        self.master
            .writer()
            .transact(move |txn| {
                let key = keys::bucket(linked.id);
                if let Some(mut row) = LinkRow::load(txn, &key)? {
                    row.consistency = consistency;
                    txn.put(key, &row);
                }
                Ok(())
            })
            .await?;
        self.load().await
    }

    /// Changes of a bucket are asked for in a later term from now on.
    async fn follow_term(&self, linked: &Linked, term: Term) -> Result<()> {
        tracing::info!(bucket = %linked.name, term = term.0, "bucket is in a later term");
        let bucket = linked.id;
        self.master
            .writer()
            .transact(move |txn| {
                let row = BucketRow::load(txn, &keys::bucket(bucket))?;
                if let Some(mut row) = row.filter(|row| row.linked && row.term < term) {
                    row.term = term;
                    txn.put(keys::bucket(bucket), &row);
                }
                Ok(())
            })
            .await?;
        self.load().await
    }

    /// Asks the home of a bucket.
    pub(crate) async fn ask<Q: Question>(
        &self,
        linked: &Linked,
        doing: &'static str,
        question: &Q,
    ) -> Result<Q::Answer> {
        match self.wire_ask(linked.home, question).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.error(linked.home, &linked.name, doing, error).await),
        }
    }

    /// Tells a cluster something that is about no bucket.
    pub(crate) async fn tell<Q: Question>(&self, cluster: MemberId, question: &Q) -> Result<Q::Answer, WireError> {
        self.wire_ask(cluster, question).await
    }

    async fn wire_ask<Q: Question>(&self, member: MemberId, question: &Q) -> Result<Q::Answer, WireError> {
        let answer = self.wire.ask(member, Q::PATH, cost_of(question), peer::json(question)).await?;
        read_answer(&answer)
    }

    /// What it means here that a cluster did not answer.
    async fn error(&self, cluster: MemberId, bucket: &BucketName, doing: &'static str, error: WireError) -> Error {
        let cluster = self.name_of(cluster).await;
        match error {
            WireError::NotSent { why } | WireError::Unknown { why } => Error::ClusterAway { cluster, why },
            WireError::Nonsense { why } => Error::ClusterFailed { cluster, doing, why },
            WireError::Refused(refusal) => refusal.into_error(&Asked { cluster: &cluster, doing, bucket }),
        }
    }

    /// What a cluster is called here.
    pub(crate) async fn name_of(&self, member: MemberId) -> String {
        let clusters = self.membership.clusters().await.unwrap_or_default();
        let known = clusters.into_iter().find(|known| known.cluster.member() == member);
        known.map_or_else(|| format!("{member} (no longer a peer)"), |known| known.name.to_string())
    }

    /// Notes that a number was the newest when the home was asked, or later. The home never goes back.
    fn note_seen(&self, bucket: BucketId, number: Number, asked: Option<Duration>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.entry(bucket).or_insert(Seen { number, asked });
        if number > known.number || (number == known.number && asked > known.asked) {
            *known = Seen { number, asked };
        }
    }

    /// The newest number of a bucket that was heard of.
    fn newest_seen(&self, bucket: BucketId) -> Number {
        self.seen(bucket).map_or(Number::ZERO, |seen| seen.number)
    }

    /// Refuses to believe a home that knows less than it did `before` it was asked.
    async fn check_not_behind(&self, linked: &Linked, newest: Number, before: Number) -> Result<()> {
        if newest >= before {
            return Ok(());
        }
        let why = format!(
            "the newest number of {} that it knows is {newest}, but {before} was seen before: it runs on an older copy of \
             its data; bring that up to date, or unlink the bucket and link it again",
            linked.name
        );
        Err(Error::ClusterFailed { cluster: self.name_of(linked.home).await, doing: "about a bucket", why })
    }

    fn seen(&self, bucket: BucketId) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&bucket).copied()
    }
}

/// What the bytes of a question and its answer are counted as.
fn cost_of<Q: Question>(question: &Q) -> Cost {
    Cost { purpose: Q::PURPOSE, bucket: question.bucket() }
}

fn read_answer<T: DeserializeOwned>(answer: &Bytes) -> Result<T, WireError> {
    serde_json::from_slice(answer).map_err(|error| WireError::Nonsense { why: format!("it cannot be read: {error}") })
}
