//! What travels over the admin API, version 1: the server writes these shapes, the `elton` commands read them.
//!
//! Fields are only ever added; a reader ignores those it does not know, the server refuses them in requests.
//! Times are UTC as RFC 3339 with milliseconds, sizes are bytes, numbers of a bucket are JSON numbers.

use std::collections::BTreeMap;

mod peers;
mod status;
mod trees;

use base64::Engine as _;
use serde::{Deserialize, Deserializer, Serialize};

pub use peers::*;
pub use status::*;
pub use trees::*;

/// Every path of the API begins with this.
pub const PREFIX: &str = "/_elton/v1";
/// The media type of replies that come line by line.
pub const LINES_CONTENT_TYPE: &str = "application/x-ndjson";

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A word for programs.
    pub code: String,
    /// A sentence for people: what happened and what to do next.
    pub message: String,
}

/// A key, which is bytes: as text if it is UTF-8, else in base64. Exactly one of the two is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The key as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
}

impl Key {
    /// The shape of a key.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Key { key: Some(text.to_owned()), key_base64: None },
            Err(_) => {
                let text = base64::engine::general_purpose::STANDARD.encode(bytes);
                Key { key: None, key_base64: Some(text) }
            }
        }
    }
}

impl std::fmt::Display for Key {
    /// For people: control characters are escaped, so a key cannot break a line or a terminal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.key, &self.key_base64) {
            (Some(key), _) => key.chars().try_for_each(|c| match c.is_control() {
                true => write!(f, "{}", c.escape_default()),
                false => write!(f, "{c}"),
            }),
            (None, Some(key)) => write!(f, "base64:{key}"),
            (None, None) => Ok(()),
        }
    }
}

/// `GET /_elton/v1/local`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// The Unix socket on which the server hands over open files to root and its own user of its host, if it does.
    pub handover: Option<String>,
}

/// `GET /_elton/v1/status`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The server's version.
    pub version: String,
    /// The cluster's name.
    pub name: String,
    /// The region, if one is configured.
    pub region: Option<String>,
    /// The data directory, as the server was told.
    pub data: String,
    /// When the process began to serve.
    pub started: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// Buckets.
    pub buckets: u64,
    /// Live objects in all of them.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes free on the data directory's file system.
    pub disk_free_bytes: u64,
    /// Requests that are being answered, this one included.
    pub requests_in_flight: u64,
    /// Other clusters, and what crossed; null where the process was started without a peer port.
    pub peers: Option<Peers>,
    /// Bodies of other clusters here, and bodies of this one that others read.
    pub cache: Cache,
    /// Bytes of the catalog's file.
    pub catalog_bytes: u64,
    /// Who the buckets of this cluster are shared with.
    pub members: Vec<BucketMember>,
    /// How far what is known here of linked buckets is behind their homes.
    pub lag: Vec<LinkLag>,
    /// Bodies of which there is one copy at the most, by bucket; buckets without such are left out.
    pub single_copies: Vec<SingleCopies>,
    /// Whether `cache` and `single_copies` are about all bodies; else about the first million rows.
    pub counted_all: bool,
    /// What crossed today.
    pub today: Option<Today>,
}

/// `GET /_elton/v1/du`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Live objects.
    pub objects: u64,
    /// Their bytes as S3 counts them.
    pub object_bytes: u64,
    /// Files of large bodies.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Segments of small bodies.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Of these, bytes that some record still owns.
    pub segment_live_bytes: u64,
    /// Bytes of the catalog's file.
    pub catalog_bytes: u64,
    /// Of these, bytes in pages that are free to be used again.
    pub catalog_free_bytes: u64,
    /// Bytes free on the file system.
    pub disk_free_bytes: u64,
    /// Live objects and bytes by bucket.
    pub buckets: Vec<BucketUsage>,
}

/// A bucket's part in [`Usage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketUsage {
    /// The bucket.
    pub name: String,
    /// Live objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Its id, which no other bucket ever has.
    pub id: String,
    /// When it was created.
    pub created: String,
    /// The location it was created with; empty for none.
    pub location: String,
    /// S3 versioning: `off`, `enabled` or `suspended`.
    pub versioning: VersioningState,
    /// The term its numbers are issued in.
    pub term: u32,
    /// The newest number.
    pub number: u64,
    /// When that was issued.
    pub changed: String,
    /// The lowest number that is a snapshot without a tag or pin.
    pub floor: u64,
    /// How long numbers stay snapshots, in seconds; null for the server's default.
    pub keep_seconds: Option<u64>,
    /// Live objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// In a list: the cluster that numbers it, if that is another one. Then number, floor, objects, bytes and keep are not
    /// known here; `GET /_elton/v1/buckets/BUCKET` asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
}

/// S3 versioning of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersioningState {
    /// Never enabled.
    Off,
    /// Every write makes a version.
    Enabled,
    /// Writes replace the `null` version.
    Suspended,
}

/// `GET /_elton/v1/buckets`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buckets {
    /// All buckets by name.
    pub buckets: Vec<Bucket>,
}

/// `POST /_elton/v1/buckets`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateBucket {
    /// The bucket's name.
    pub name: String,
    /// Its `LocationConstraint`.
    #[serde(default)]
    pub location: String,
}

/// `PATCH /_elton/v1/buckets/BUCKET`: only what is named changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBucket {
    /// How long numbers stay snapshots, in seconds; null for the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub keep_seconds: Option<Option<u64>>,
    /// S3 versioning: `enabled` or `suspended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versioning: Option<VersioningState>,
    /// How fresh reads of a linked bucket are: `strong`, `bounded=SECONDS` or `available`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<String>,
}

/// Tells a field that is null from one that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// `GET /_elton/v1/buckets/BUCKET/log`: newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The changes.
    pub entries: Vec<LogEntry>,
    /// Ask again with `before` set to this for older ones; null at the end.
    pub next: Option<u64>,
}

/// A numbered change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its number.
    pub number: u64,
    /// When it took place.
    pub time: String,
    /// Who made it.
    pub actor: String,
    /// What was done.
    #[serde(flatten)]
    pub change: Change,
}

/// What a numbered change did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// An object was written.
    Put {
        /// The key.
        #[serde(flatten)]
        key: Key,
        /// Its size.
        size: u64,
        /// Its entity tag, without quotes.
        etag: String,
    },
    /// A key was deleted.
    Delete {
        /// The key.
        #[serde(flatten)]
        key: Key,
        /// Whether a delete marker was made.
        marker: bool,
    },
    /// A version was removed for good.
    RemoveVersion {
        /// The key.
        #[serde(flatten)]
        key: Key,
        /// The version: a number or `null`.
        version: String,
    },
    /// Tags, ACL, retention or hold of a version were changed.
    Attributes {
        /// The key.
        #[serde(flatten)]
        key: Key,
        /// The version.
        version: u64,
        /// Which of `tags`, `acl`, `retention` and `hold`.
        changed: Vec<String>,
    },
    /// The bucket's configuration was changed.
    Config {
        /// Which part: `versioning`, `tagging` or `keep`.
        name: String,
    },
    /// Many keys were changed at once.
    Commit {
        /// What was said of it.
        message: String,
        /// How many keys it was about, once that is known.
        keys: Option<u64>,
    },
    /// A state was brought back.
    Restore {
        /// Which number.
        source: u64,
        /// Below which prefix; empty for the whole bucket.
        prefix: Key,
    },
    /// A content was taken out of every number.
    Purge {
        /// The key.
        #[serde(flatten)]
        key: Key,
        /// The version.
        version: u64,
    },
}

/// `GET /_elton/v1/buckets/BUCKET/snapshots`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// The bucket.
    pub bucket: String,
    /// Every number from this one on is a snapshot.
    pub floor: u64,
    /// The newest number.
    pub number: u64,
    /// The snapshots that have a name.
    pub tags: Vec<Tag>,
}

/// A snapshot that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Its name.
    pub tag: String,
    /// The number it names.
    pub number: u64,
    /// When it was made.
    pub created: String,
    /// By whom.
    pub actor: String,
    /// What its maker said of it.
    pub message: String,
}

/// `POST /_elton/v1/buckets/BUCKET/snapshots`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// Which state: a number, a tag or a time; the newest without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The name to give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// What to remember of it.
    #[serde(default)]
    pub message: String,
}

/// A snapshot: the reply to creating one, and `GET /_elton/v1/buckets/BUCKET/snapshots/SNAPSHOT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The bucket.
    pub bucket: String,
    /// Its number.
    pub number: u64,
    /// The bucket name that S3 clients read it by.
    pub alias: String,
    /// The names it has.
    pub tags: Vec<Tag>,
    /// When the number was issued; null when its change is no longer in the log.
    pub time: Option<String>,
    /// Who made the change; null as above.
    pub actor: Option<String>,
    /// Whether the collector may end it: it has no tag and will fall below the floor in time.
    pub ends: bool,
    /// Objects in it, if that was asked for with `?count=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<u64>,
    /// Their bytes, as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// `GET /_elton/v1/buckets/BUCKET/diff?from=A&to=B&prefix=P&after=TOKEN`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// What differs, by key.
    pub differences: Vec<Difference>,
    /// Ask again with `after` set to this for more; null at the end. A page may be empty and still have one.
    pub next: Option<String>,
}

/// In which way a key differs between two states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// It was not there.
    Added,
    /// It is gone.
    Removed,
    /// It has another version.
    Written,
    /// It is the same version with other tags.
    Tags,
}

/// A difference between two states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The key.
    #[serde(flatten)]
    pub key: Key,
    /// In which way it differs.
    pub kind: DifferenceKind,
    /// What it was; null if it was not there.
    pub before: Option<ObjectState>,
    /// What it is; null if it is gone.
    pub after: Option<ObjectState>,
}

/// An object in one state of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectState {
    /// The number that issued its version.
    pub version: u64,
    /// Its size.
    pub size: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// When it was written.
    pub modified: String,
    /// Its tags by key, where they are what differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

/// `POST /_elton/v1/buckets/BUCKET/restore`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// Which state: a number, a tag or a time.
    pub snapshot: String,
    /// Below which prefix; the whole bucket without it.
    #[serde(default)]
    pub prefix: String,
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The bucket.
    pub bucket: String,
    /// The number of the change; the newest one, if nothing changed.
    pub number: u64,
    /// Whether anything was not as it had been; else no number was spent.
    pub changed: bool,
}

/// `POST /_elton/v1/gc`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collect {
    /// Raise every floor to its newest number first.
    #[serde(default)]
    pub now: bool,
    /// Only this bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Only say how many numbers would end.
    #[serde(default)]
    pub dry: bool,
}

/// What a pass of the collector did, or would do to the floors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// How many numbers ceased to be snapshots.
    pub numbers_ended: u64,
    /// How many versions were dropped.
    pub versions: u64,
    /// How many bytes of bodies were given back to the file system.
    pub bytes_freed: u64,
    /// How many files and segments were removed.
    pub files_removed: u64,
    /// How many bytes wait for readers that are still at work.
    pub bytes_waiting: u64,
    /// What kept the collector from raising floors, if something did.
    pub warning: Option<String>,
}

/// `POST /_elton/v1/check`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Read every body and compare it with its hash.
    #[serde(default)]
    pub bodies: bool,
}

/// A line of the reply to [`Check`]; the last one is a report or a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckLine {
    /// How far it is.
    Progress {
        /// Steps that are done.
        done: u64,
        /// Steps in all.
        total: u64,
    },
    /// It has ended.
    Report(Checked),
    /// It could not be ended.
    Failure(Failure),
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Versions that were looked at.
    pub versions: u64,
    /// Bodies that were read and compared with their hash.
    pub bodies: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Everything that is not as it should be, a sentence each.
    pub findings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_are_told_apart() {
        let parse = |text: &str| serde_json::from_str::<SetBucket>(text).expect("lawful").keep_seconds;
        assert_eq!(parse("{}"), None);
        assert_eq!(parse(r#"{"keep_seconds":null}"#), Some(None));
        assert_eq!(parse(r#"{"keep_seconds":0}"#), Some(Some(0)));
        let text = serde_json::to_string(&SetBucket { keep_seconds: Some(None), versioning: None, consistency: None });
        assert_eq!(text.expect("serialises"), r#"{"keep_seconds":null}"#);
    }

    #[test]
    fn unknown_fields_of_requests_are_refused() {
        assert!(serde_json::from_str::<Collect>(r#"{"now":true,"force":true}"#).is_err());
    }

    #[test]
    fn log_entries_are_flat() {
        let change = Change::Put { key: Key::new(b"a/b"), size: 3, etag: "e".into() };
        let entry = LogEntry { number: 7, time: "t".into(), actor: "root".into(), change };
        let text = serde_json::to_string(&entry).expect("serialises");
        let flat = r#"{"number":7,"time":"t","actor":"root","change":"put","key":"a/b","size":3,"etag":"e"}"#;
        assert_eq!(text, flat);
        assert_eq!(serde_json::from_str::<LogEntry>(&text).expect("parses"), entry);
    }

    #[test]
    fn keys_that_are_no_text_survive_and_cannot_break_a_line() {
        assert_eq!(Key::new(b"\xff").to_string(), "base64:/w==");
        assert_eq!(Key::new(b"a\nb").to_string(), "a\\nb");
    }
}
