//! States of buckets.

use super::Cluster;
use crate::error::{Error, Result};
use crate::master::{Actor, Difference, ListPage, LogEntry, Restored, TagInfo};
use crate::types::{BucketAt, BucketName, Number, ObjectPath, TagName};

impl Cluster {
    /// Names a state of a bucket with a tag, or without one says which number it is.
    pub async fn tag_snapshot(
        &self,
        actor: &Actor,
        at: &BucketAt,
        tag: Option<TagName>,
        message: &str,
    ) -> Result<(Number, Option<TagInfo>)> {
        match self.linked(&at.bucket) {
            None => self.master.tag_snapshot(actor, at, tag, message).await,
            Some((member, linked)) => member.tag_snapshot(&linked, actor, at, tag, message).await,
        }
    }

    /// The tags of a bucket, by number.
    pub async fn snapshots(&self, name: &BucketName) -> Result<Vec<TagInfo>> {
        match self.linked(name) {
            None => self.master.snapshots(name).await,
            Some((member, linked)) => member.snapshots(&linked).await,
        }
    }

    /// Removes a tag.
    pub async fn remove_tag(&self, actor: &Actor, name: &BucketName, tag: &TagName) -> Result<()> {
        match self.linked(name) {
            None => self.master.remove_tag(name, tag).await,
            Some((member, linked)) => member.remove_tag(&linked, actor, tag).await,
        }
    }

    /// A page of the differences between two states of a bucket.
    pub async fn diff(
        &self,
        a: &BucketAt,
        b: &BucketAt,
        prefix: &[u8],
        after: Option<ObjectPath>,
        max: usize,
    ) -> Result<ListPage<Difference, ObjectPath>> {
        match self.linked(&a.bucket).filter(|_| a.bucket == b.bucket) {
            None => self.master.diff(a, b, prefix, after, max).await,
            Some((member, linked)) => member.diff(&linked, a, b, prefix, after, max).await,
        }
    }

    /// A page of a bucket's log, newest first.
    pub async fn log(
        &self,
        name: &BucketName,
        before: Option<Number>,
        max: usize,
    ) -> Result<ListPage<LogEntry, Number>> {
        match self.linked(name) {
            None => self.master.log(name, before, max).await,
            Some((member, linked)) => member.log(&linked, before, max).await,
        }
    }

    /// Brings a state of a bucket back below a prefix, as one change.
    pub async fn restore(&self, actor: &Actor, source: &BucketAt, prefix: &[u8]) -> Result<Restored> {
        match (self.linked(&source.bucket), &source.snapshot) {
            (Some((member, linked)), Some(snapshot)) => member.restore(&linked, actor, snapshot.clone(), prefix).await,
            (Some(_), None) => {
                Err(Error::InvalidRequest { reason: "name the snapshot to restore: BUCKET@SNAPSHOT".to_owned() })
            }
            (None, _) => self.master.restore(actor, source, prefix).await,
        }
    }
}
