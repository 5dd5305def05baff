//! Snapshots by name: tags, and the log.

use std::collections::BTreeSet;

use super::home::{Home, bucket};
use super::lens::resolve;
use super::request::{Actor, ListPage, LogChange, LogEntry, TagInfo};
use super::{Behalf, Limit, Limits, Master};
use crate::catalog::rows::{Change, ChangeRow, ConfigTag, LayerRow, LayerSource, PinRow, Record, TagRow};
use crate::catalog::{KeyRange, Rows, Table, keys};
use crate::error::{Error, Result, VersionName};
use crate::types::{BucketAt, BucketId, BucketName, Number, SnapshotRef, TagName, Timestamp};

/// The numbers below the floor that are snapshots all the same: tagged, pinned, or the source of an open layer.
pub(super) fn retained(rows: &(impl Rows + ?Sized), id: BucketId) -> Result<BTreeSet<Number>> {
    let mut numbers = BTreeSet::new();
    for row in rows.range(Table::Tags, KeyRange::prefix(&keys::bucket(id)))? {
        numbers.insert(TagRow::decode(&row?.1)?.number);
    }
    for row in rows.range(Table::Pins, KeyRange::prefix(&keys::bucket(id)))? {
        numbers.insert(PinRow::decode(&row?.1)?.number);
    }
    for row in rows.range(Table::Layers, KeyRange::prefix(&keys::bucket(id)))? {
        if let LayerSource::Snapshot { bucket, number, .. } = LayerRow::decode(&row?.1)?.source
            && bucket == id
        {
            numbers.insert(number);
        }
    }
    Ok(numbers)
}

/// The tags of a bucket.
pub(super) fn tags(rows: &(impl Rows + ?Sized), id: BucketId) -> Result<Vec<TagInfo>> {
    let rows = rows.range(Table::Tags, KeyRange::prefix(&keys::bucket(id)))?;
    let tags = rows.map(|row| {
        let (key, value) = row?;
        let row = TagRow::decode(&value)?;
        let tag = key.get(16..).and_then(|tag| std::str::from_utf8(tag).ok()).and_then(|tag| tag.parse().ok());
        let tag = tag.ok_or_else(|| super::key::damaged_key(Table::Tags))?;
        Ok(TagInfo { tag, number: row.number, created: row.created, actor: row.actor, message: row.message })
    });
    tags.collect()
}

impl Home<'_, '_> {
    /// Names a state with a tag.
    pub(super) fn tag(
        &mut self,
        snapshot: Option<&SnapshotRef>,
        tag: &TagName,
        actor: &str,
        message: &str,
        created: Timestamp,
        limits: &Limits,
    ) -> Result<TagInfo> {
        Limits::check(Limit::SnapshotMessageBytes, message.len(), limits.snapshot_message_bytes_max)?;
        let number = match snapshot {
            None => self.row.last,
            Some(snapshot) => resolve(self.txn, self.id, &self.row, snapshot)?,
        };
        let key = keys::tag(self.id, tag);
        if let Some(there) = TagRow::load(self.txn, &key)? {
            return Err(Error::TagExists { bucket: self.row.name.clone(), tag: tag.clone(), number: there.number });
        }
        Limits::check(Limit::BucketTags, tags(self.txn, self.id)?.len() + 1, limits.bucket_tags_max)?;
        let (actor, message) = (actor.to_owned(), message.to_owned());
        self.txn.put(key, &TagRow { number, created, actor: actor.clone(), message: message.clone() });
        Ok(TagInfo { tag: tag.clone(), number, created, actor, message })
    }

    /// Removes a tag.
    pub(super) fn untag(&mut self, tag: &TagName) -> Result<()> {
        let key = keys::tag(self.id, tag);
        if self.txn.get(Table::Tags, &key)?.is_none() {
            return Err(Error::NoSuchTag { bucket: self.row.name.clone(), tag: tag.clone() });
        }
        self.txn.remove(Table::Tags, key);
        self.row.released = true;
        Ok(())
    }
}

impl Master {
    /// Names a state of a bucket with a tag, or without one says which number it is.
    pub async fn tag_snapshot(
        &self,
        actor: &Actor,
        at: &BucketAt,
        tag: Option<TagName>,
        message: &str,
    ) -> Result<(Number, Option<TagInfo>)> {
        self.tag_snapshot_for(Behalf::Own, actor, at, tag, message).await
    }

    /// The same on behalf of a member, if it may.
    pub async fn tag_snapshot_for(
        &self,
        behalf: Behalf,
        actor: &Actor,
        at: &BucketAt,
        tag: Option<TagName>,
        message: &str,
    ) -> Result<(Number, Option<TagInfo>)> {
        let Some(tag) = tag else { return Ok((self.resolve(at).await?, None)) };
        self.admit()?;
        let (at, actor, message, wall) = (at.clone(), actor.0.clone(), message.to_owned(), self.clock.wall());
        let limits = self.limits.clone();
        self.writer
            .transact(move |txn| {
                let (id, row) = bucket(txn, &at.bucket)?;
                behalf.check(txn, id)?;
                let mut home = Home { txn, id, row };
                let tag = home.tag(at.snapshot.as_ref(), &tag, &actor, &message, wall, &limits)?;
                Ok((tag.number, Some(tag)))
            })
            .await
    }

    /// The tags of a bucket, by name.
    pub async fn snapshots(&self, name: &BucketName) -> Result<Vec<TagInfo>> {
        let name = name.clone();
        self.writer.read(move |view| tags(view, bucket(view, &name)?.0)).await
    }

    /// Removes a tag. Its number stays a snapshot as long as it is not below the floor.
    pub async fn remove_tag(&self, name: &BucketName, tag: &TagName) -> Result<()> {
        self.remove_tag_for(Behalf::Own, name, tag).await
    }

    /// The same on behalf of a member, if it may.
    pub async fn remove_tag_for(&self, behalf: Behalf, name: &BucketName, tag: &TagName) -> Result<()> {
        let (name, tag) = (name.clone(), tag.clone());
        self.writer
            .transact(move |txn| {
                let mut home = Home::open(txn, &name)?;
                behalf.check(home.txn, home.id)?;
                home.untag(&tag)?;
                home.save();
                Ok(())
            })
            .await
    }

    /// The changes of a bucket, newest first, from the one before `before` down to the floor.
    pub async fn log(
        &self,
        name: &BucketName,
        before: Option<Number>,
        max: usize,
    ) -> Result<ListPage<LogEntry, Number>> {
        let name = name.clone();
        self.writer
            .read(move |view| {
                let (id, row) = bucket(view, &name)?;
                let newest = before.map_or(row.last, |before| Number(before.0.saturating_sub(1)).min(row.last));
                let mut items = Vec::new();
                let mut number = newest;
                while number >= row.floor && number > row.first && items.len() < max {
                    if let Some(change) = ChangeRow::load(view, &keys::change(id, number, 0))? {
                        items.push(entry(view, id, number, change)?);
                    }
                    number = Number(number.0 - 1);
                }
                let more = number >= row.floor && number > row.first;
                Ok(ListPage { items, next: more.then(|| number.next()), number: row.last })
            })
            .await
    }
}

fn entry(rows: &dyn Rows, id: BucketId, number: Number, row: ChangeRow) -> Result<LogEntry> {
    let path = || {
        row.path.clone().ok_or_else(|| Error::Damaged {
            what: format!("change {number} of bucket {id}"),
            source: "it names no key".into(),
        })
    };
    let what = match &row.change {
        Change::Put(record) => LogChange::Put { path: path()?, size: record.size, etag: record.etag },
        Change::Marker { .. } => LogChange::Delete { path: path()?, marker: true },
        Change::Delete => LogChange::Delete { path: path()?, marker: false },
        Change::RemoveVersion { version, null } => LogChange::RemoveVersion {
            path: path()?,
            version: if *null { VersionName::Null } else { VersionName::Number(*version) },
        },
        Change::Attributes { version, attributes } => {
            LogChange::Attributes { path: path()?, version: *version, attributes: attributes.clone() }
        }
        Change::Config(name, _) => LogChange::Config { name: config_name(*name) },
        Change::Layer(LayerSource::Staged { message, keys, .. }) => {
            LogChange::Commit { message: message.clone(), keys: Some(*keys) }
        }
        Change::Layer(LayerSource::Snapshot { number, prefix, .. }) => {
            LogChange::Restore { source: *number, prefix: prefix.clone() }
        }
        Change::Purge { version } => LogChange::Purge { path: path()?, version: *version },
    };
    let _ = rows;
    Ok(LogEntry { number, time: row.time, actor: row.actor, what })
}

fn config_name(tag: ConfigTag) -> super::request::ConfigName {
    match tag {
        ConfigTag::Versioning => super::request::ConfigName::Versioning,
        ConfigTag::Tagging => super::request::ConfigName::Tagging,
        ConfigTag::Keep => super::request::ConfigName::Keep,
    }
}
