//! Answering the questions of other clusters. Every one is checked against the grants as they are now.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::{self, BODY_PATH, BodyPart, BodyQuestion, Configured, Offered, Question};
use super::refusal::Refusal;
use crate::error::{Error, Result};
use crate::master::{Actor, Behalf, ByteStream, Given, Master, Relaying};
use crate::peer::who::Membership;
use crate::types::{BucketAt, BucketId, BucketName, ClusterId, MemberId, Rights, SnapshotRef};

/// The longest range of a body that one question may ask for, in bytes.
pub const BODY_RANGE_MAX: u64 = 1 << 40;

/// How many ranges or groups of a body one question may name.
pub const BODY_RANGES_MAX: usize = 8192;

/// An answer.
pub enum Reply {
    /// In JSON.
    Json(Bytes),
    /// Bytes of a body.
    Body {
        /// They.
        bytes: ByteStream,
        /// How many.
        length: u64,
        /// Whether they are passed on from another cluster.
        relayed: bool,
    },
    /// None.
    Refused(Refusal),
}

/// Answers other clusters.
#[derive(Clone, Debug)]
pub struct PeerServer {
    master: Master,
    membership: Arc<Membership>,
    relaying: Relaying,
}

impl PeerServer {
    /// A server for the buckets of a Master.
    #[must_use]
    pub fn new(master: Master, membership: Arc<Membership>, relaying: Relaying) -> Self {
        PeerServer { master, membership, relaying }
    }

    /// Answers a question of a cluster whose key was proved. `path` is what follows `/v1/`. Also says which bucket it was
    /// about, if the question may know of it.
    pub async fn answer(&self, peer: ClusterId, path: &str, question: Bytes) -> (Reply, Option<BucketId>) {
        let about = OnceLock::new();
        let outcome = match path {
            BODY_PATH => self.body(peer, &question, &about).await,
            _ => self.json(peer, path, &question, &about).await.map(Reply::Json),
        };
        let about = about.into_inner().filter(|_| !matches!(outcome, Err(Refusal::NoSuchSharedBucket)));
        (outcome.unwrap_or_else(|refusal| self.refuse(peer, path, refusal)), about)
    }

    fn refuse(&self, peer: ClusterId, path: &str, refusal: Refusal) -> Reply {
        if let Refusal::Failed { reason } | Refusal::Unlawful { reason } = &refusal {
            tracing::warn!(%peer, path, reason, "question of a peer refused");
        }
        Reply::Refused(refusal)
    }

    async fn json(&self, peer: ClusterId, path: &str, question: &[u8], about: &About) -> Result<Bytes, Refusal> {
        let known = self.knows(peer).await?;
        if path == message::Join::PATH {
            return self
                .reply(parse::<message::Join>(question, about)?, |join| self.membership.admit(peer, join))
                .await;
        }
        if !known {
            return Err(Refusal::Stranger);
        }
        let member = peer.member();
        let master = &self.master;
        match path {
            message::Moved::PATH => {
                self.reply(parse::<message::Moved>(question, about)?, |moved| {
                    self.membership.moved(peer, moved.address)
                })
                .await
            }
            message::Offer::PATH => {
                self.reply(parse::<message::Offer>(question, about)?, |asked| async move {
                    let missing = Error::NoSuchBucket { bucket: asked.bucket.clone() };
                    let offers = master.shared_with(member).await?;
                    let found = offers.into_iter().find(|(info, _)| info.name == asked.bucket);
                    found.map(|(bucket, rights)| Offered { bucket, rights }).ok_or(missing)
                })
                .await
            }
            message::Offers::PATH => {
                self.reply(parse::<message::Offers>(question, about)?, |_| async move {
                    let offers = master.shared_with(member).await?;
                    Ok(offers.into_iter().map(|(bucket, rights)| Offered { bucket, rights }).collect::<Vec<_>>())
                })
                .await
            }
            message::LookAt::PATH => {
                self.reply(parse::<message::LookAt>(question, about)?, |asked| async move {
                    master.granted(asked.bucket, member).await?;
                    master.look(asked.bucket, asked.look).await
                })
                .await
            }
            message::Publish::PATH => {
                self.reply(parse::<message::Publish>(question, about)?, |asked| async move {
                    let actor = self.actor(member, &asked.actor).await?;
                    master.change_for(member, asked.origin, &actor, asked.bucket, asked.change).await
                })
                .await
            }
            message::Outcome::PATH => {
                self.reply(parse::<message::Outcome>(question, about)?, |asked| {
                    master.outcome_for(member, asked.bucket, asked.counter)
                })
                .await
            }
            message::Holding::PATH => {
                self.reply(parse::<message::Holding>(question, about)?, |asked| async move {
                    master.granted(asked.bucket, member).await?;
                    master.note_holder(member, asked.bucket, asked.bodies).await
                })
                .await
            }
            message::Unneeded::PATH => {
                self.reply(parse::<message::Unneeded>(question, about)?, |asked| async move {
                    master.granted(asked.bucket, member).await?;
                    master.unneeded(asked.bucket, asked.hashes).await
                })
                .await
            }
            _ => self.about_states(member, path, question, about).await,
        }
    }

    /// Questions about whole states of a bucket. They are answered by its name, which may be another bucket's by now: an
    /// answer counts only if the one that was meant is still there, and still shared.
    async fn about_states(
        &self,
        member: MemberId,
        path: &str,
        question: &[u8],
        about: &About,
    ) -> Result<Bytes, Refusal> {
        let answer = self.of_state(member, path, question, about).await?;
        if let Some(bucket) = about.get() {
            self.master.granted(*bucket, member).await.map_err(|error| Refusal::from(&error))?;
        }
        Ok(answer)
    }

    async fn of_state(&self, member: MemberId, path: &str, question: &[u8], about: &About) -> Result<Bytes, Refusal> {
        let master = &self.master;
        match path {
            message::Resolve::PATH => {
                self.reply(parse::<message::Resolve>(question, about)?, |asked| async move {
                    master.resolve(&self.state(member, asked.bucket, asked.snapshot).await?).await
                })
                .await
            }
            message::Info::PATH => {
                self.reply(parse::<message::Info>(question, about)?, |asked| async move {
                    master.bucket(&master.granted(asked.bucket, member).await?.0).await
                })
                .await
            }
            message::Configuration::PATH => {
                self.reply(parse::<message::Configuration>(question, about)?, |asked| async move {
                    let at = self.state(member, asked.bucket, asked.snapshot).await?;
                    let number = master.resolve(&at).await?;
                    // All of one state, whatever changes meanwhile.
                    let at = BucketAt::at(at.bucket, SnapshotRef::Number(number));
                    let versioning = master.bucket_versioning(&at).await?;
                    let tagging = master.bucket_tagging(&at).await?;
                    Ok(Configured { at: number, versioning, tagging })
                })
                .await
            }
            message::List::PATH => {
                self.reply(parse::<message::List>(question, about)?, |asked| async move {
                    master.list(&self.state(member, asked.bucket, asked.snapshot).await?, asked.query).await
                })
                .await
            }
            message::TreeAt::PATH => {
                self.reply(parse::<message::TreeAt>(question, about)?, |asked| async move {
                    let at = self.state(member, asked.bucket, asked.snapshot).await?;
                    master.tell_tree(&at, asked.known, asked.query).await
                })
                .await
            }
            message::TreePages::PATH => {
                self.reply(parse::<message::TreePages>(question, about)?, |asked| async move {
                    let (name, _) = master.granted(asked.bucket, member).await?;
                    master.tell_pages(&name, asked.number, &asked.directory, asked.pages).await
                })
                .await
            }
            message::Pin::PATH => {
                self.reply(parse::<message::Pin>(question, about)?, |asked| async move {
                    let at = self.state(member, asked.bucket, asked.snapshot).await?;
                    let holder = self.actor(member, &asked.holder).await?.0;
                    master.pin(&at, Some(member), &holder, Duration::from_secs(asked.seconds)).await
                })
                .await
            }
            message::RenewPin::PATH => {
                self.reply(parse::<message::RenewPin>(question, about)?, |asked| async move {
                    let (name, _) = master.granted(asked.bucket, member).await?;
                    master.renew_pin(&name, Some(member), asked.pin, Duration::from_secs(asked.seconds)).await
                })
                .await
            }
            message::Unpin::PATH => {
                self.reply(parse::<message::Unpin>(question, about)?, |asked| async move {
                    let (name, _) = master.granted(asked.bucket, member).await?;
                    master.unpin(&name, Some(member), asked.pin).await
                })
                .await
            }
            message::Versions::PATH => {
                self.reply(parse::<message::Versions>(question, about)?, |asked| async move {
                    master.list_versions(&self.state(member, asked.bucket, asked.snapshot).await?, asked.query).await
                })
                .await
            }
            message::Snapshots::PATH => {
                self.reply(parse::<message::Snapshots>(question, about)?, |asked| async move {
                    master.snapshots(&master.granted(asked.bucket, member).await?.0).await
                })
                .await
            }
            message::Log::PATH => {
                self.reply(parse::<message::Log>(question, about)?, |asked| async move {
                    let (name, _) = master.granted(asked.bucket, member).await?;
                    master.log(&name, asked.before, asked.max.min(PAGE_ITEMS_MAX)).await
                })
                .await
            }
            message::Diff::PATH => {
                self.reply(parse::<message::Diff>(question, about)?, |asked| async move {
                    let a = self.state(member, asked.bucket, asked.a).await?;
                    let b = self.state(member, asked.bucket, asked.b).await?;
                    master.diff(&a, &b, &asked.prefix, asked.after, asked.max).await
                })
                .await
            }
            message::TagSnapshot::PATH => {
                self.reply(parse::<message::TagSnapshot>(question, about)?, |asked| async move {
                    let name = self.writable(member, asked.bucket).await?;
                    let actor = self.actor(member, &asked.actor).await?;
                    let at = BucketAt { bucket: name, snapshot: asked.snapshot, consistency: None };
                    // The grant was looked at to find the name; what counts is the transaction's own look.
                    let behalf = Behalf::Member(member, asked.bucket);
                    master.tag_snapshot_for(behalf, &actor, &at, asked.tag, &asked.message).await
                })
                .await
            }
            message::RemoveTag::PATH => {
                self.reply(parse::<message::RemoveTag>(question, about)?, |asked| async move {
                    let name = self.writable(member, asked.bucket).await?;
                    master.remove_tag_for(Behalf::Member(member, asked.bucket), &name, &asked.tag).await
                })
                .await
            }
            message::Restore::PATH => {
                self.reply(parse::<message::Restore>(question, about)?, |asked| async move {
                    let name = self.writable(member, asked.bucket).await?;
                    let actor = self.actor(member, &asked.actor).await?;
                    let behalf = Behalf::Member(member, asked.bucket);
                    master.restore_for(behalf, &actor, &BucketAt::at(name, asked.snapshot), &asked.prefix).await
                })
                .await
            }
            _ => Err(Refusal::Unlawful { reason: format!("this version of elton knows no question {path}") }),
        }
    }

    async fn reply<Q: Question, F: Future<Output = Result<Q::Answer>>>(
        &self,
        question: Q,
        answer: impl FnOnce(Q) -> F,
    ) -> Result<Bytes, Refusal> {
        let answer = answer(question).await.map_err(|error| Refusal::from(&error))?;
        Ok(json(&answer))
    }

    /// Whether the cluster is a peer.
    pub(super) async fn knows(&self, peer: ClusterId) -> Result<bool, Refusal> {
        let clusters = self.membership.clusters().await.map_err(|error| Refusal::from(&error))?;
        Ok(clusters.iter().any(|known| known.cluster == peer))
    }

    /// Who makes a change, as the log names them: the member's user, and by which member.
    async fn actor(&self, member: MemberId, user: &str) -> Result<Actor> {
        let clusters = self.membership.clusters().await?;
        let name = clusters.into_iter().find(|known| known.cluster.member() == member).map(|known| known.name);
        let name = name.map_or_else(|| member.to_string(), |name| name.to_string());
        let user: String = user.chars().filter(|c| !c.is_control()).take(ACTOR_CHARS_MAX).collect();
        Ok(Actor(format!("{name}/{user}")))
    }

    async fn state(&self, member: MemberId, bucket: BucketId, snapshot: Option<SnapshotRef>) -> Result<BucketAt> {
        let (bucket, _) = self.master.granted(bucket, member).await?;
        Ok(BucketAt { bucket, snapshot, consistency: None })
    }

    async fn writable(&self, member: MemberId, bucket: BucketId) -> Result<BucketName> {
        match self.master.granted(bucket, member).await? {
            (name, Rights::ReadWrite) => Ok(name),
            (bucket, Rights::ReadOnly) => Err(Error::SharedReadOnly { bucket }),
        }
    }

    /// What members are called here.
    async fn names_of(&self, members: Vec<String>) -> Result<Vec<String>, Refusal> {
        let clusters = self.membership.clusters().await.map_err(|error| Refusal::from(&error))?;
        let name = |member: String| {
            let known = clusters.iter().find(|known| known.cluster.member().to_string() == member);
            known.map_or(member, |known| known.name.to_string())
        };
        Ok(members.into_iter().map(name).collect())
    }

    async fn body(&self, peer: ClusterId, question: &[u8], about: &About) -> Result<Reply, Refusal> {
        let asked: BodyQuestion = parse_json(question)?;
        let _ = about.set(asked.bucket);
        if !self.knows(peer).await? {
            return Err(Refusal::Stranger);
        }
        let (master, member, relaying) = (&self.master, peer.member(), self.relaying);
        let outcome = match asked.part {
            BodyPart::Tree => master.shared_tree(member, &asked, relaying).await,
            BodyPart::Range(from, to) if from < to && to - from <= BODY_RANGE_MAX => {
                master.shared_range(member, &asked, from..to, relaying).await
            }
            BodyPart::Ranges(ref ranges) => {
                let lawful = |(from, to): &(u64, u64)| from < to && to - from <= BODY_RANGE_MAX;
                if ranges.is_empty() || ranges.len() > BODY_RANGES_MAX || !ranges.iter().all(lawful) {
                    let reason = format!("a question has 1 to {BODY_RANGES_MAX} ranges of a body, none of them empty");
                    Err(Error::InvalidRequest { reason })
                } else {
                    let ranges = ranges.iter().map(|(from, to)| *from..*to).collect();
                    master.shared_ranges(member, &asked, ranges, relaying).await
                }
            }
            BodyPart::Leaves(ref groups) if (1..=BODY_RANGES_MAX).contains(&groups.len()) => {
                master.shared_leaves(member, &asked, groups.clone(), relaying).await
            }
            BodyPart::Leaves(_) => {
                Err(Error::InvalidRequest { reason: format!("a question is about 1 to {BODY_RANGES_MAX} groups") })
            }
            BodyPart::Range(..) => Err(Error::InvalidRequest { reason: "the range of the body is empty".to_owned() }),
        };
        match outcome {
            Ok(Given { bytes, length, relayed }) => Ok(Reply::Body { bytes, length, relayed }),
            Err(Error::NotRelayed { holders, home }) => {
                let holders = self.names_of(holders).await?;
                Err(Refusal::from(&Error::NotRelayed { holders, home }))
            }
            Err(error) => Err(Refusal::from(&error)),
        }
    }
}

/// How many items a page of the log has at the most; other pages are bounded by the rows that are looked at.
const PAGE_ITEMS_MAX: usize = 1000;

/// How much of a user's name of another cluster the log keeps.
const ACTOR_CHARS_MAX: usize = 128;

fn parse<Q: Question>(question: &[u8], about: &About) -> Result<Q, Refusal> {
    let question: Q = parse_json(question)?;
    if let Some(bucket) = question.bucket() {
        // Set once: a request is one question.
        let _ = about.set(bucket);
    }
    Ok(question)
}

/// The bucket that a question turns out to be about.
type About = OnceLock<BucketId>;

fn parse_json<T: DeserializeOwned>(question: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(question)
        .map_err(|error| Refusal::Unlawful { reason: format!("the question cannot be read: {error}") })
}

/// A message in JSON.
pub(crate) fn json(message: &impl Serialize) -> Bytes {
    serde_json::to_vec(message).expect("messages are plain data, which JSON can always say").into()
}
