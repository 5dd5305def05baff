//! What can go wrong in the core. Edges decide what it is called on their wire.

use crate::blobs::BackendError;
use crate::master::Limit;
use crate::types::{
    BucketId, BucketName, InvalidName, InvalidPath, Number, ObjectPath, PinId, TagName, Term, Timestamp, UploadId,
};

/// A result of the core.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Two variants differ where a caller would act differently.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket does not exist.
    #[error("no bucket {bucket}")]
    NoSuchBucket {
        /// Its name.
        bucket: BucketName,
    },
    /// The bucket exists already.
    #[error("bucket {bucket} exists already")]
    BucketExists {
        /// Its name.
        bucket: BucketName,
    },
    /// The bucket cannot be deleted while something is in it or names a state of it.
    #[error("bucket {bucket} is not empty: {holds}")]
    BucketNotEmpty {
        /// Its name.
        bucket: BucketName,
        /// What it still holds: objects, versions, uploads, tags or pins by name.
        holds: String,
    },
    /// The bucket never was in this state.
    #[error(
        "no snapshot {bucket}@{snapshot}; the newest number is {newest}, and `elton snapshot ls {bucket}` lists the tags"
    )]
    NoSuchSnapshot {
        /// The bucket.
        bucket: BucketName,
        /// What was asked for.
        snapshot: String,
        /// The newest number there is.
        newest: Number,
    },
    /// The number lies below the floor and nothing kept it.
    #[error("{bucket}@{snapshot} has been collected: snapshots of {bucket} begin at its floor, {floor}")]
    BelowFloor {
        /// The bucket.
        bucket: BucketName,
        /// What was asked for.
        snapshot: String,
        /// The lowest number that still is a snapshot.
        floor: Number,
    },
    /// A write was aimed at a snapshot.
    #[error("{snapshot} is a snapshot and never changes; write to the bucket itself")]
    ReadOnlySnapshot {
        /// The snapshot.
        snapshot: String,
    },
    /// The key has no object.
    #[error("no object {path}")]
    NoSuchKey {
        /// The key.
        path: ObjectPath,
    },
    /// The key has no such version.
    #[error("no version {version} of {path}")]
    NoSuchVersion {
        /// The key.
        path: ObjectPath,
        /// The version, as it was asked for.
        version: String,
    },
    /// What was found is a delete marker.
    #[error("{path} is deleted as of {version}")]
    DeleteMarker {
        /// The key.
        path: ObjectPath,
        /// The marker's own version.
        version: VersionName,
        /// When it was made.
        modified: Timestamp,
        /// Whether the marker was asked for by its version.
        named: bool,
    },
    /// A condition of the request does not hold.
    #[error("the condition {condition} does not hold")]
    PreconditionFailed {
        /// The header that states it.
        condition: &'static str,
    },
    /// The upload does not exist, was completed or was aborted.
    #[error("no upload {upload}")]
    NoSuchUpload {
        /// The upload.
        upload: UploadId,
    },
    /// A part that was named was not uploaded, or is another than the one named.
    #[error("part {part} was not uploaded with that entity tag or checksum")]
    InvalidPart {
        /// The part's number.
        part: u16,
    },
    /// The parts were not named in ascending order.
    #[error("parts are not in ascending order")]
    InvalidPartOrder,
    /// A part other than the last is too small.
    #[error("part {part} has {size} bytes; all but the last need {minimum}")]
    PartTooSmall {
        /// The part's number.
        part: u16,
        /// Its size.
        size: u64,
        /// The least that is allowed.
        minimum: u64,
    },
    /// The object's checksum is not the one that was stated.
    #[error("the checksum of the object is not the one that was stated")]
    ChecksumMismatch,
    /// The request contradicts what it names.
    #[error("{reason}")]
    InvalidRequest {
        /// In which way.
        reason: String,
    },
    /// The tag exists and tags never move.
    #[error("tag {tag} of {bucket} exists already and names {number}; a tag is never moved, only removed")]
    TagExists {
        /// The bucket.
        bucket: BucketName,
        /// The tag.
        tag: TagName,
        /// What it names.
        number: Number,
    },
    /// The tag does not exist.
    #[error("{bucket} has no tag {tag}")]
    NoSuchTag {
        /// The bucket.
        bucket: BucketName,
        /// The tag.
        tag: TagName,
    },
    /// A pin was removed, has expired, or is another cluster's.
    #[error("{bucket} has no pin {pin}; it may have expired: pin the snapshot again")]
    NoSuchPin {
        /// The bucket.
        bucket: BucketName,
        /// The pin.
        pin: PinId,
    },
    /// A snapshot has no such directory, page or body.
    #[error("{bucket}@{number} has no {what}")]
    NotInSnapshot {
        /// The bucket.
        bucket: BucketName,
        /// The state.
        number: Number,
        /// What was asked for.
        what: String,
    },
    /// A named limit was reached.
    #[error("{limit} is limited to {maximum}")]
    LimitReached {
        /// Which.
        limit: Limit,
        /// Its value.
        maximum: u64,
    },
    /// The body is longer than allowed.
    #[error("a body has at most {maximum} bytes")]
    BodyTooLarge {
        /// The most that is allowed.
        maximum: u64,
    },
    /// The client's stream broke off or carried something else than it promised.
    #[error("the body could not be read from the client")]
    BodyUnreadable {
        /// Why.
        source: BoxError,
    },
    /// Not a name.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// Not a path.
    #[error(transparent)]
    InvalidPath(#[from] InvalidPath),
    /// Another process has the data directory open.
    #[error(
        "{} is in use by {}; stop that one first, or choose another directory with --data",
        data.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    DataInUse {
        /// The directory.
        data: std::path::PathBuf,
        /// The process, where it is known.
        pid: Option<u32>,
    },
    /// The data directory cannot be made or written.
    #[error("{} cannot be used; check that it exists and may be written", data.display())]
    DataUnusable {
        /// The directory.
        data: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The catalog is missing or older than what stands beside it.
    #[error(
        "the catalog is missing or older than the bodies beside it; put the right catalog.redb back. To go on without what \
         only that one knew, move `generation` (and, where the catalog is lost, `segments` and `bodies`) away"
    )]
    CatalogOutdated,
    /// The disk is full down to the reserve.
    #[error(
        "the disk is full: less than the reserve is free; `elton gc` collects under each bucket's rule, \
         `elton gc --now` ends every earlier snapshot first"
    )]
    NoSpace,
    /// Bytes on the disk are missing or damaged.
    #[error("{what} is damaged or missing; `elton check` says what else is")]
    Damaged {
        /// What.
        what: String,
        /// How that was found.
        source: BoxError,
    },
    /// The storage below failed.
    #[error("the storage failed while {doing}")]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// How it failed.
        source: BoxError,
    },
    /// The bucket is another cluster's, and this can only be done there.
    #[error("bucket {bucket} is numbered by cluster {home}; do this there")]
    NotHome {
        /// Its name here.
        bucket: BucketName,
        /// Where it is numbered.
        home: String,
    },
    /// A member asked for a bucket that is not, or no longer, shared with it.
    #[error("no bucket {bucket} is shared with this cluster; its home has withdrawn it or deleted it")]
    NoSuchSharedBucket {
        /// The bucket.
        bucket: BucketId,
    },
    /// The home of a linked bucket no longer shares it.
    #[error(
        "bucket {bucket} is no longer shared by {cluster}; ask its owner, or remove the link with `elton bucket unlink {bucket}`"
    )]
    NoLongerShared {
        /// Its name here.
        bucket: BucketName,
        /// Its home.
        cluster: String,
    },
    /// A change was asked for under another term of its bucket than the one that its home is in.
    #[error("the bucket is in term {}, and not in the one that the change was asked for in", current.0)]
    WrongTerm {
        /// The home's term.
        current: Term,
    },
    /// The bucket is shared for reading only.
    #[error(
        "bucket {bucket} is shared read-only; its home can share it with `elton bucket share {bucket} --with CLUSTER --rw`"
    )]
    SharedReadOnly {
        /// Its name.
        bucket: BucketName,
    },
    /// Another cluster is needed and cannot be reached.
    #[error("cluster {cluster} cannot be reached: {why}")]
    ClusterAway {
        /// Which, by its name here.
        cluster: String,
        /// What happened when it was tried.
        why: String,
    },
    /// A body is in other clusters only, and the home passes nothing on from one cluster to another.
    #[error("the body is at {}, and {home} passes no bodies on: its operator switched that off", listed(holders))]
    NotRelayed {
        /// Who has it, as far as is known.
        holders: Vec<String>,
        /// The home, by its name here.
        home: String,
    },
    /// Another cluster sent something that it cannot mean, or failed itself.
    #[error("cluster {cluster} answered {doing} with nonsense or an error of its own: {why}")]
    ClusterFailed {
        /// Which, by its name here.
        cluster: String,
        /// What it was asked.
        doing: &'static str,
        /// What it said.
        why: String,
    },
    /// There is no such cluster among the peers.
    #[error("no cluster {cluster} is known here; `elton peer ls` lists those that are")]
    NoSuchCluster {
        /// What was asked for.
        cluster: String,
    },
    /// The request met another one and may be repeated.
    #[error("the request conflicted with another one; repeat it")]
    Conflict,
}

fn listed(holders: &[String]) -> String {
    if holders.is_empty() { "no cluster that is known".to_owned() } else { holders.join(", ") }
}

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::NoSpace => Error::NoSpace,
            BackendError::Missing { ref what } | BackendError::Damaged { ref what } => {
                Error::Damaged { what: what.to_string(), source: error.into() }
            }
            BackendError::Io { .. } => Error::Storage { doing: "reading or writing bodies", source: error.into() },
        }
    }
}

/// How S3 names a version: by its number in decimal, or as `null`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionName {
    /// The version that was written while the bucket's versioning was off or suspended.
    Null,
    /// A numbered version.
    Number(Number),
}

impl std::fmt::Display for VersionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            VersionName::Null => f.write_str("null"),
            VersionName::Number(number) => number.fmt(f),
        }
    }
}
