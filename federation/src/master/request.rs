//! What callers ask of a [`super::Master`] and what they get: plain data, parsed at the edges.

use super::BodyReader;
use crate::blobs::StagedBody;
use crate::error::VersionName;
use crate::types::{
    Attributes, BucketId, BucketName, ChangeTime, Checksum, ChecksumAlgorithm, ChecksumKind, ContentHeader, ETag,
    Number, ObjectPath, ObjectRecord, Pair, Summary, TagName, Term, Timestamp, UploadId,
};

/// Who makes a change, as the log names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(pub String);

/// S3's versioning of a bucket. Elton's numbers run underneath in every state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Versioning {
    /// Never enabled.
    #[default]
    Off,
    /// Every write makes a numbered version.
    Enabled,
    /// Writes replace the `null` version, numbered ones stay.
    Suspended,
}

/// What is known of a bucket.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct BucketInfo {
    /// Its id.
    pub id: BucketId,
    /// Its name.
    pub name: BucketName,
    /// When it was created.
    pub created: Timestamp,
    /// The `LocationConstraint` it was created with; empty for none.
    pub location: String,
    /// S3's versioning.
    pub versioning: Versioning,
    /// The term its home numbers in.
    pub term: Term,
    /// The newest number.
    pub number: Number,
    /// When that was issued.
    pub changed: Timestamp,
    /// The lowest number that is a snapshot without a tag or pin.
    pub floor: Number,
    /// How long numbers stay snapshots, in seconds; `None` is the default of 24 hours.
    pub keep_seconds: Option<u64>,
    /// Live objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Which version of a key is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Which {
    /// The newest.
    Newest,
    /// The one of this name.
    Named(VersionName),
}

/// A version, as it is found by a read.
#[derive(Clone, Debug)]
pub struct Version {
    /// The key.
    pub path: ObjectPath,
    /// The number that issued it, which is its `x-elton-version`.
    pub number: Number,
    /// What S3 calls it, where the bucket has or had S3 versioning.
    pub name: VersionName,
    /// Whether S3 shows version ids in this bucket.
    pub versioned: bool,
    /// The bucket.
    pub bucket: BucketId,
    /// Which of its number's changes it was.
    pub ordinal: u32,
    /// Its content, with the tags that it has as of the state that was read.
    pub record: ObjectRecord,
    /// How many these are.
    pub tag_count: usize,
    /// What the state that was read is numbered.
    pub at: Number,
    /// How old what was read may be, where another cluster numbers the bucket and could not be asked.
    pub age: Option<std::time::Duration>,
    /// Where the log has its record; none while it comes from a layer.
    pub(crate) origin: Option<(BucketId, Summary)>,
}

/// A version with its body.
#[derive(Debug)]
pub struct Opened {
    /// The version.
    pub version: Version,
    /// Reads its bytes. Keeps them from being collected while it lives.
    pub body: BodyReader,
}

/// A part of a multipart object as a read sees it.
#[derive(Clone, Debug)]
pub struct PartInfo {
    /// The part's number in the completed object.
    pub number: u16,
    /// Where it begins in the object.
    pub offset: u64,
    /// Its length.
    pub length: u64,
    /// Its checksum.
    pub checksum: Option<Checksum>,
}

/// One side of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum EtagMatch {
    /// `*`: any object.
    Any,
    /// One of these, without quotes.
    OneOf(Vec<String>),
}

/// What must hold of a key's newest version when a write takes place; checked inside the transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Precondition {
    /// `If-Match`
    pub if_match: Option<EtagMatch>,
    /// `If-None-Match`
    pub if_none_match: Option<EtagMatch>,
    /// `x-amz-if-match-size`
    pub if_match_size: Option<u64>,
    /// `x-amz-if-match-last-modified-time`
    pub if_match_modified: Option<Timestamp>,
}

/// The part of a version's content that does not come from its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Content headers.
    pub headers: Vec<(ContentHeader, String)>,
    /// User metadata, names in lower case without `x-amz-meta-`.
    pub metadata: Vec<Pair>,
    /// Tags.
    pub tags: Vec<Pair>,
}

/// A body with what is said of it.
#[derive(Debug)]
pub struct PutRequest {
    /// The body.
    pub body: StagedBody,
    /// Its MD5.
    pub md5: [u8; 16],
    /// Its checksum.
    pub checksum: Option<Checksum>,
    /// Headers, metadata and tags.
    pub description: Description,
    /// What must hold of the key.
    pub precondition: Precondition,
}

/// A part with what is said of it.
#[derive(Debug)]
pub struct PartRequest {
    /// The body.
    pub body: PartBody,
    /// Its MD5.
    pub md5: [u8; 16],
    /// Its checksum.
    pub checksum: Option<Checksum>,
}

/// Where a part's bytes come from.
#[derive(Debug)]
pub enum PartBody {
    /// They were uploaded.
    Staged(StagedBody),
    /// They are those of a version whose body is one piece or empty.
    Reference(Box<Version>),
}

/// A write that took place.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Written {
    /// The number of the change: `x-elton-version`.
    pub number: Number,
    /// What S3 calls the version, when the bucket is or was versioned.
    pub name: Option<VersionName>,
    /// The entity tag.
    pub etag: ETag,
    /// The size in bytes.
    pub size: u64,
    /// When it was written.
    pub modified: Timestamp,
    /// The checksum.
    pub checksum: Option<Checksum>,
}

/// One key of a delete.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct DeleteRequest {
    /// The key.
    pub path: ObjectPath,
    /// The version to remove for good; none to delete the key.
    pub version: Option<VersionName>,
    /// What must hold.
    pub precondition: Precondition,
}

/// A delete that took place.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Deleted {
    /// The number of the change, or the bucket's newest if there was nothing to delete.
    pub number: Number,
    /// The version that was removed or the marker that was made.
    pub name: Option<VersionName>,
    /// Whether `name` is a delete marker.
    pub marker: bool,
}

/// What a copy takes over from its source.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// New headers and metadata (`REPLACE`), or those of the source.
    pub description: Option<(Vec<(ContentHeader, String)>, Vec<Pair>)>,
    /// New tags (`REPLACE`), or those of the source.
    pub tags: Option<Vec<Pair>>,
    /// The checksum that was computed for the copy because the client asked for one that the source lacks.
    pub checksum: Option<Checksum>,
    /// What must hold of the destination.
    pub precondition: Precondition,
}

/// Where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum After {
    /// After this key. A common prefix that holds it may still be listed.
    Key(Vec<u8>),
    /// After everything that begins with this.
    Prefix(Vec<u8>),
}

/// A page of a listing of objects.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ListQuery {
    /// Only keys that begin with this.
    #[serde(with = "crate::types::serde_bytes_or_text")]
    pub prefix: Vec<u8>,
    /// Keys that share what comes before the first one of these after the prefix are one item.
    pub delimiter: Option<Vec<u8>>,
    /// Where to begin.
    pub after: Option<After>,
    /// How many items at the most.
    pub max: usize,
}

/// An item of a listing of objects.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ListItem {
    /// An object. Of a linked bucket its version is `Number::ZERO`: no listing shows it, and snapshot trees have it not.
    Object(ObjectPath, Summary),
    /// What several keys begin with.
    Prefix(#[serde(with = "crate::types::serde_bytes_or_text")] Vec<u8>),
}

/// A page of a listing.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct ListPage<Item, Next> {
    /// The items, in order.
    pub items: Vec<Item>,
    /// Where the next page begins; none at the end. A page may be short or empty and still have one.
    pub next: Option<Next>,
    /// The number of the state that was listed.
    pub number: Number,
}

/// A page of a listing of versions.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct VersionsQuery {
    /// Only keys that begin with this.
    #[serde(with = "crate::types::serde_bytes_or_text")]
    pub prefix: Vec<u8>,
    /// As in [`ListQuery`].
    pub delimiter: Option<Vec<u8>>,
    /// Where to begin.
    pub after: Option<AfterVersion>,
    /// How many items at the most.
    pub max: usize,
}

/// Where a listing of versions goes on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum AfterVersion {
    /// After all versions of this key (or, if nothing of it was listed, after it).
    Key(Vec<u8>),
    /// After this version of this key.
    Version(Vec<u8>, VersionName),
    /// After everything that begins with this.
    Prefix(Vec<u8>),
}

/// An item of a listing of versions.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum VersionItem {
    /// A version or a delete marker.
    Version {
        /// The key.
        path: ObjectPath,
        /// The version's fields; of a delete marker only its number and time mean something.
        summary: Summary,
        /// Whether it is the key's newest.
        latest: bool,
        /// Whether it is a delete marker.
        marker: bool,
    },
    /// What several keys begin with.
    Prefix(#[serde(with = "crate::types::serde_bytes_or_text")] Vec<u8>),
}

/// How an upload was begun.
#[derive(Clone, Debug)]
pub struct UploadRequest {
    /// The key.
    pub path: ObjectPath,
    /// Headers, metadata and tags of the object to be.
    pub description: Description,
    /// The checksum that its parts and it shall have.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// Whether its client asked for that checksum.
    pub checksum_declared: bool,
}

/// An upload in progress.
#[derive(Clone, Debug)]
pub struct UploadInfo {
    /// The upload.
    pub upload: UploadId,
    /// The key.
    pub path: ObjectPath,
    /// When it was begun.
    pub begun: Timestamp,
    /// By whom.
    pub actor: String,
    /// The checksum it was begun with.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// Whether its client asked for that checksum; else its parts may state theirs by any algorithm.
    pub checksum_declared: bool,
}

/// A page of a listing of uploads.
#[derive(Clone, Debug, Default)]
pub struct UploadsQuery {
    /// Only keys that begin with this.
    pub prefix: Vec<u8>,
    /// As in [`ListQuery`].
    pub delimiter: Option<Vec<u8>>,
    /// Where to begin.
    pub after: Option<AfterUpload>,
    /// How many items at the most.
    pub max: usize,
}

/// Where a listing of uploads goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterUpload {
    /// After all uploads of this key.
    Key(Vec<u8>),
    /// After this upload of this key.
    Upload(Vec<u8>, UploadId),
    /// After everything that begins with this.
    Prefix(Vec<u8>),
}

/// An item of a listing of uploads.
#[derive(Clone, Debug)]
pub enum UploadItem {
    /// An upload.
    Upload(UploadInfo),
    /// What several keys begin with.
    Prefix(Vec<u8>),
}

/// A part of an upload in progress.
#[derive(Clone, Debug)]
pub struct UploadedPart {
    /// Its number.
    pub number: u16,
    /// Its size in bytes.
    pub size: u64,
    /// Its MD5.
    pub md5: [u8; 16],
    /// When it was uploaded.
    pub modified: Timestamp,
    /// Its checksum.
    pub checksum: Option<Checksum>,
}

/// A part as CompleteMultipartUpload names it.
#[derive(Clone, Debug)]
pub struct NamedPart {
    /// Its number.
    pub number: u16,
    /// The entity tag that UploadPart answered, without quotes.
    pub etag: Option<String>,
    /// The checksum value, if the client named one.
    pub checksum: Option<(ChecksumAlgorithm, Vec<u8>)>,
}

/// How an upload is completed.
#[derive(Clone, Debug)]
pub struct CompleteRequest {
    /// The parts, in the order they were named.
    pub parts: Vec<NamedPart>,
    /// The object's checksum if the client stated one.
    pub checksum: Option<(ChecksumAlgorithm, Vec<u8>)>,
    /// The object's size if the client stated one (`x-amz-mp-object-size`).
    pub size: Option<u64>,
    /// What must hold of the key.
    pub precondition: Precondition,
}

/// Configurations of a bucket that are documents of the S3 edge; the core keeps them by name and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum ConfigName {
    /// S3 versioning.
    Versioning,
    /// Bucket tags.
    Tagging,
    /// How long numbers stay snapshots.
    Keep,
}

/// A change to a bucket.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum BucketChange {
    /// S3 versioning; it can be enabled and suspended, never switched off.
    Versioning(Versioning),
    /// Bucket tags; none removes them.
    Tagging(Option<Vec<Pair>>),
    /// How long numbers stay snapshots, in seconds; none for the default.
    Keep(Option<u64>),
}

/// A snapshot that has a name.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TagInfo {
    /// Its name.
    pub tag: TagName,
    /// The number it names.
    pub number: Number,
    /// When it was made.
    pub created: Timestamp,
    /// By whom.
    pub actor: String,
    /// What its maker said of it.
    pub message: String,
}

/// A numbered change, as the log shows it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct LogEntry {
    /// Its number.
    pub number: Number,
    /// When it took place.
    pub time: ChangeTime,
    /// Who made it.
    pub actor: String,
    /// What was done.
    pub what: LogChange,
}

/// What a numbered change did.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum LogChange {
    /// An object was written.
    Put {
        /// The key.
        path: ObjectPath,
        /// Its size.
        size: u64,
        /// Its entity tag.
        etag: ETag,
    },
    /// A key was deleted.
    Delete {
        /// The key.
        path: ObjectPath,
        /// Whether a delete marker was made.
        marker: bool,
    },
    /// A version was removed for good.
    RemoveVersion {
        /// The key.
        path: ObjectPath,
        /// The version.
        version: VersionName,
    },
    /// What may change about a version was changed.
    Attributes {
        /// The key.
        path: ObjectPath,
        /// The version.
        version: Number,
        /// What changed.
        attributes: Attributes,
    },
    /// The bucket's configuration was changed.
    Config {
        /// Which part of it.
        name: ConfigName,
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
        /// Which.
        source: Number,
        /// Below which prefix.
        prefix: Vec<u8>,
    },
    /// A content was taken out of every number.
    Purge {
        /// The key.
        path: ObjectPath,
        /// The version.
        version: Number,
    },
}

/// What a restore did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Restored {
    /// The number of its change; the bucket's newest if it changed nothing.
    pub number: Number,
    /// Whether anything differed.
    pub changed: bool,
}

/// A difference between two states of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Difference {
    /// The key.
    pub path: ObjectPath,
    /// What it was before; none if it was not there.
    pub before: Option<Summary>,
    /// What it is after; none if it is gone.
    pub after: Option<Summary>,
    /// Its tags before and after, where nothing else of it differs.
    pub tags: Option<(Vec<Pair>, Vec<Pair>)>,
}

/// What a pass of the collector did, or (`dry`) would do to the floors.
#[derive(Clone, Debug, Default)]
pub struct CollectReport {
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

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Buckets.
    pub buckets: u64,
    /// Live objects.
    pub objects: u64,
    /// Their bytes as S3 counts them.
    pub object_bytes: u64,
    /// The catalog's file.
    pub catalog_bytes: u64,
    /// Free on the disk.
    pub disk_free_bytes: u64,
}

/// Where the bytes are.
#[derive(Clone, Debug, Default)]
pub struct DiskUsage {
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
    /// Bytes in segments that some record still owns.
    pub segment_live_bytes: u64,
    /// The catalog's file.
    pub catalog_bytes: u64,
    /// Of these, in pages that are free to be used again.
    pub catalog_free_bytes: u64,
    /// Free on the disk.
    pub disk_free_bytes: u64,
}

/// What the collector is to do.
#[derive(Clone, Debug, Default)]
pub struct CollectOptions {
    /// Whether every number but the newest ends first.
    pub now: bool,
    /// Only this bucket's numbers.
    pub bucket: Option<BucketName>,
    /// Only say how many numbers would end.
    pub dry: bool,
}

/// How deep `check` looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Whether every body is read and compared with its hash.
    pub bodies: bool,
}

/// What `check` found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Versions that were looked at.
    pub versions: u64,
    /// Bodies that were read and compared with their hash.
    pub bodies: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Everything that is not as it should be, a sentence each; at most `check_findings_max`.
    pub findings: Vec<String>,
}
