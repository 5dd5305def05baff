//! The core's types as shapes of the API.

use federation::master::{
    BucketInfo, CheckReport, CollectReport, ConfigName, Difference, DiskUsage, LogChange, LogEntry, TagInfo, Versioning,
};
use federation::types::{Attributes, Pair, Summary};

use super::shape::{self, Key};

impl From<&BucketInfo> for shape::Bucket {
    fn from(bucket: &BucketInfo) -> Self {
        shape::Bucket {
            name: bucket.name.to_string(),
            id: bucket.id.to_string(),
            created: bucket.created.to_string(),
            location: bucket.location.clone(),
            versioning: match bucket.versioning {
                Versioning::Off => shape::VersioningState::Off,
                Versioning::Enabled => shape::VersioningState::Enabled,
                Versioning::Suspended => shape::VersioningState::Suspended,
            },
            term: bucket.term.0,
            number: bucket.number.0,
            changed: bucket.changed.to_string(),
            floor: bucket.floor.0,
            keep_seconds: bucket.keep_seconds,
            objects: bucket.objects,
            bytes: bucket.bytes,
            home: None,
        }
    }
}

impl From<&BucketInfo> for shape::BucketUsage {
    fn from(bucket: &BucketInfo) -> Self {
        shape::BucketUsage { name: bucket.name.to_string(), objects: bucket.objects, bytes: bucket.bytes }
    }
}

/// The usage of the disk with that of `buckets`.
pub(super) fn usage(usage: &DiskUsage, buckets: &[BucketInfo]) -> shape::Usage {
    shape::Usage {
        objects: usage.objects,
        object_bytes: usage.object_bytes,
        files: usage.files,
        file_bytes: usage.file_bytes,
        segments: usage.segments,
        segment_bytes: usage.segment_bytes,
        segment_live_bytes: usage.segment_live_bytes,
        catalog_bytes: usage.catalog_bytes,
        catalog_free_bytes: usage.catalog_free_bytes,
        disk_free_bytes: usage.disk_free_bytes,
        buckets: buckets.iter().map(Into::into).collect(),
    }
}

impl From<TagInfo> for shape::Tag {
    fn from(tag: TagInfo) -> Self {
        shape::Tag {
            tag: tag.tag.to_string(),
            number: tag.number.0,
            created: tag.created.to_string(),
            actor: tag.actor,
            message: tag.message,
        }
    }
}

impl From<&LogEntry> for shape::LogEntry {
    fn from(entry: &LogEntry) -> Self {
        shape::LogEntry {
            number: entry.number.0,
            time: entry.time.wall.to_string(),
            actor: entry.actor.clone(),
            change: (&entry.what).into(),
        }
    }
}

impl From<&LogChange> for shape::Change {
    fn from(change: &LogChange) -> Self {
        match change {
            LogChange::Put { path, size, etag } => {
                shape::Change::Put { key: Key::new(path.as_bytes()), size: *size, etag: etag.to_string() }
            }
            LogChange::Delete { path, marker } => {
                shape::Change::Delete { key: Key::new(path.as_bytes()), marker: *marker }
            }
            LogChange::RemoveVersion { path, version } => {
                shape::Change::RemoveVersion { key: Key::new(path.as_bytes()), version: version.to_string() }
            }
            LogChange::Attributes { path, version, attributes } => shape::Change::Attributes {
                key: Key::new(path.as_bytes()),
                version: version.0,
                changed: changed(attributes),
            },
            LogChange::Config { name } => shape::Change::Config { name: config_name(*name).to_owned() },
            LogChange::Commit { message, keys } => shape::Change::Commit { message: message.clone(), keys: *keys },
            LogChange::Restore { source, prefix } => {
                shape::Change::Restore { source: source.0, prefix: Key::new(prefix) }
            }
            LogChange::Purge { path, version } => {
                shape::Change::Purge { key: Key::new(path.as_bytes()), version: version.0 }
            }
        }
    }
}

fn config_name(name: ConfigName) -> &'static str {
    match name {
        ConfigName::Versioning => "versioning",
        ConfigName::Tagging => "tagging",
        ConfigName::Keep => "keep",
    }
}

fn changed(attributes: &Attributes) -> Vec<String> {
    let Attributes { tags, acl, retention, hold } = attributes;
    let fields = [
        ("tags", tags.is_some()),
        ("acl", acl.is_some()),
        ("retention", retention.is_some()),
        ("hold", hold.is_some()),
    ];
    fields.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name.to_owned()).collect()
}

impl From<&Difference> for shape::Difference {
    fn from(difference: &Difference) -> Self {
        let kind = match (&difference.before, &difference.after, &difference.tags) {
            (_, _, Some(_)) => shape::DifferenceKind::Tags,
            (None, _, None) => shape::DifferenceKind::Added,
            (Some(_), None, None) => shape::DifferenceKind::Removed,
            (Some(_), Some(_), None) => shape::DifferenceKind::Written,
        };
        let (was, is) = difference.tags.clone().unzip();
        let state = |summary: &Option<Summary>, tags: Option<Vec<Pair>>| {
            let state = summary.as_ref().map(shape::ObjectState::from)?;
            Some(shape::ObjectState { tags: tags.map(|tags| tags.into_iter().collect()), ..state })
        };
        shape::Difference {
            key: Key::new(difference.path.as_bytes()),
            kind,
            before: state(&difference.before, was),
            after: state(&difference.after, is),
        }
    }
}

impl From<&Summary> for shape::ObjectState {
    fn from(summary: &Summary) -> Self {
        shape::ObjectState {
            version: summary.version.0,
            size: summary.size,
            etag: summary.etag.to_string(),
            modified: summary.modified.to_string(),
            tags: None,
        }
    }
}

impl From<CollectReport> for shape::Collected {
    fn from(report: CollectReport) -> Self {
        shape::Collected {
            numbers_ended: report.numbers_ended,
            versions: report.versions,
            bytes_freed: report.bytes_freed,
            files_removed: report.files_removed,
            bytes_waiting: report.bytes_waiting,
            warning: report.warning,
        }
    }
}

impl From<CheckReport> for shape::Checked {
    fn from(report: CheckReport) -> Self {
        shape::Checked {
            versions: report.versions,
            bodies: report.bodies,
            bytes: report.bytes,
            findings: report.findings,
        }
    }
}
