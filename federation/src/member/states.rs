//! What is asked about whole states of linked buckets: listings, configuration, tags, the log.

use super::publish::unfitting;
use super::{Linked, Member};
use crate::error::Result;
use crate::master::{
    Actor, AfterVersion, BucketInfo, Difference, ListPage, LogEntry, PeerAnswer, PeerChange, Restored, TagInfo,
    VersionItem, VersionsQuery,
};
use crate::peer::message::{self, Configured};
use crate::types::{BucketAt, Number, ObjectPath, SnapshotRef, TagName};

impl Member {
    /// The state that is meant: a snapshot, or under a bound the one that was the newest.
    pub(super) fn state(&self, linked: &Linked, at: &BucketAt) -> Option<SnapshotRef> {
        at.snapshot.clone().or_else(|| self.bound_state(linked, at).map(SnapshotRef::Number))
    }

    /// What is known of the bucket.
    pub async fn bucket(&self, linked: &Linked) -> Result<BucketInfo> {
        let asked = self.master.clock().boottime();
        let info = self.ask(linked, "about a bucket", &message::Info { bucket: linked.id }).await?;
        self.note_seen(linked.id, info.number, Some(asked));
        Ok(BucketInfo { name: linked.name.clone(), ..info })
    }

    /// The number that a snapshot names; the newest without one.
    pub async fn resolve(&self, linked: &Linked, at: &BucketAt) -> Result<Number> {
        match self.state(linked, at) {
            Some(SnapshotRef::Number(number)) if at.snapshot.is_none() => Ok(number),
            snapshot => {
                let newest = snapshot.is_none();
                let asked = self.master.clock().boottime();
                let question = message::Resolve { bucket: linked.id, snapshot };
                let number = self.ask(linked, "for a state", &question).await?;
                if newest {
                    self.note_seen(linked.id, number, Some(asked));
                }
                Ok(number)
            }
        }
    }

    /// The bucket's configuration in a state of it.
    pub async fn configuration(&self, linked: &Linked, at: &BucketAt) -> Result<Configured> {
        let question = message::Configuration { bucket: linked.id, snapshot: self.state(linked, at) };
        self.ask(linked, "for a configuration", &question).await
    }

    /// A page of versions.
    pub async fn list_versions(
        &self,
        linked: &Linked,
        at: &BucketAt,
        query: VersionsQuery,
    ) -> Result<ListPage<VersionItem, AfterVersion>> {
        let question = message::Versions { bucket: linked.id, snapshot: self.state(linked, at), query };
        self.ask(linked, "for a listing", &question).await
    }

    /// The bucket's tags.
    pub async fn snapshots(&self, linked: &Linked) -> Result<Vec<TagInfo>> {
        self.ask(linked, "for tags", &message::Snapshots { bucket: linked.id }).await
    }

    /// Names a state with a tag, or without one says which number it is.
    pub async fn tag_snapshot(
        &self,
        linked: &Linked,
        actor: &Actor,
        at: &BucketAt,
        tag: Option<TagName>,
        message: &str,
    ) -> Result<(Number, Option<TagInfo>)> {
        let snapshot = at.snapshot.clone();
        let Some(tag) = tag else {
            let question = message::Resolve { bucket: linked.id, snapshot };
            return Ok((self.ask(linked, "for a state", &question).await?, None));
        };
        let change = PeerChange::Tag { snapshot, tag, message: message.to_owned() };
        match self.change(linked, actor, change).await? {
            PeerAnswer::Tag(tag, _) => Ok((tag.number, Some(tag))),
            other => Err(unfitting(&other)),
        }
    }

    /// Removes a tag.
    pub async fn remove_tag(&self, linked: &Linked, actor: &Actor, tag: &TagName) -> Result<()> {
        match self.change(linked, actor, PeerChange::Untag(tag.clone())).await? {
            PeerAnswer::Untag(_) => Ok(()),
            other => Err(unfitting(&other)),
        }
    }

    /// A page of the log, newest first.
    pub async fn log(&self, linked: &Linked, before: Option<Number>, max: usize) -> Result<ListPage<LogEntry, Number>> {
        self.ask(linked, "for the log", &message::Log { bucket: linked.id, before, max }).await
    }

    /// A page of the differences between two states.
    pub async fn diff(
        &self,
        linked: &Linked,
        a: &BucketAt,
        b: &BucketAt,
        prefix: &[u8],
        after: Option<ObjectPath>,
        max: usize,
    ) -> Result<ListPage<Difference, ObjectPath>> {
        let (a, b, prefix) = (a.snapshot.clone(), b.snapshot.clone(), prefix.to_vec());
        self.ask(linked, "for differences", &message::Diff { bucket: linked.id, a, b, prefix, after, max }).await
    }

    /// Brings a state back below a prefix, as one change.
    pub async fn restore(
        &self,
        linked: &Linked,
        actor: &Actor,
        snapshot: SnapshotRef,
        prefix: &[u8],
    ) -> Result<Restored> {
        match self.change(linked, actor, PeerChange::Restore { snapshot, prefix: prefix.to_vec() }).await? {
            PeerAnswer::Restore(restored) => Ok(restored),
            other => Err(unfitting(&other)),
        }
    }
}
