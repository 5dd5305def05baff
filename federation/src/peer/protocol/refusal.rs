//! Why a question was not answered, as it crosses the wire.

use serde::{Deserialize, Serialize};

use crate::error::{Error, VersionName};
use crate::types::{BucketName, Number, ObjectPath, PinId, TagName, Term, Timestamp, UploadId};

/// Why a question was not answered. Those a caller acts on differently are told apart; the rest is text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[error("{self:?}")]
#[allow(missing_docs, reason = "each is the error of the same name")]
pub enum Refusal {
    NoSuchBucket {
        bucket: BucketName,
    },
    NoSuchSharedBucket,
    SharedReadOnly,
    BucketNotEmpty {
        holds: String,
    },
    NoSuchSnapshot {
        snapshot: String,
        newest: Number,
    },
    BelowFloor {
        snapshot: String,
        floor: Number,
    },
    NoSuchKey {
        path: ObjectPath,
    },
    NoSuchVersion {
        path: ObjectPath,
        version: String,
    },
    DeleteMarker {
        path: ObjectPath,
        version: VersionName,
        modified: Timestamp,
        named: bool,
    },
    PreconditionFailed {
        condition: String,
    },
    NoSuchUpload {
        upload: UploadId,
    },
    InvalidRequest {
        reason: String,
    },
    TagExists {
        tag: TagName,
        number: Number,
    },
    NoSuchTag {
        tag: TagName,
    },
    NoSuchPin {
        pin: PinId,
    },
    NotInSnapshot {
        number: Number,
        what: String,
    },
    LimitReached {
        limit: String,
        maximum: u64,
    },
    NoSpace,
    Conflict,
    /// To who said a term only.
    WrongTerm {
        term: Term,
    },
    /// The asker is no peer.
    Stranger,
    /// What was asked is no question.
    Unlawful {
        reason: String,
    },
    /// Another cluster that is needed cannot be reached from the one that was asked.
    Away {
        cluster: String,
        why: String,
        /// Of a body that the asked cluster does not pass on: who has it. Asking again changes nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only_at: Option<Vec<String>>,
    },
    /// The cluster that was asked failed.
    Failed {
        reason: String,
    },
}

/// The conditions that a write can be refused for, by their headers.
const CONDITIONS: &[&str] = &["If-Match", "If-None-Match", "x-amz-if-match-size", "x-amz-if-match-last-modified-time"];

/// The header of a condition that another cluster named.
pub(crate) fn condition(name: &str) -> &'static str {
    CONDITIONS.iter().find(|known| **known == name).copied().unwrap_or("of the request")
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        match error {
            Error::NoSuchBucket { bucket } => Refusal::NoSuchBucket { bucket: bucket.clone() },
            Error::NoSuchSharedBucket { .. } => Refusal::NoSuchSharedBucket,
            Error::SharedReadOnly { .. } => Refusal::SharedReadOnly,
            Error::BucketNotEmpty { holds, .. } => Refusal::BucketNotEmpty { holds: holds.clone() },
            Error::NoSuchSnapshot { snapshot, newest, .. } => {
                Refusal::NoSuchSnapshot { snapshot: snapshot.clone(), newest: *newest }
            }
            Error::BelowFloor { snapshot, floor, .. } => {
                Refusal::BelowFloor { snapshot: snapshot.clone(), floor: *floor }
            }
            Error::NoSuchKey { path } => Refusal::NoSuchKey { path: path.clone() },
            Error::NoSuchVersion { path, version } => {
                Refusal::NoSuchVersion { path: path.clone(), version: version.clone() }
            }
            Error::DeleteMarker { path, version, modified, named } => {
                Refusal::DeleteMarker { path: path.clone(), version: *version, modified: *modified, named: *named }
            }
            Error::PreconditionFailed { condition } => {
                Refusal::PreconditionFailed { condition: (*condition).to_owned() }
            }
            Error::NoSuchUpload { upload } => Refusal::NoSuchUpload { upload: *upload },
            Error::TagExists { tag, number, .. } => Refusal::TagExists { tag: tag.clone(), number: *number },
            Error::NoSuchTag { tag, .. } => Refusal::NoSuchTag { tag: tag.clone() },
            Error::NoSuchPin { pin, .. } => Refusal::NoSuchPin { pin: *pin },
            Error::NotInSnapshot { number, what, .. } => Refusal::NotInSnapshot { number: *number, what: what.clone() },
            Error::LimitReached { limit, maximum } => {
                Refusal::LimitReached { limit: limit.to_string(), maximum: *maximum }
            }
            Error::NoSpace => Refusal::NoSpace,
            Error::Conflict => Refusal::Conflict,
            Error::WrongTerm { current } => Refusal::WrongTerm { term: *current },
            Error::ClusterAway { cluster, why } => {
                Refusal::Away { cluster: cluster.clone(), why: why.clone(), only_at: None }
            }
            Error::NotRelayed { holders, .. } => Refusal::Away {
                cluster: holders.join(", "),
                why: "it has a body that this cluster does not pass on: its operator switched that off".to_owned(),
                only_at: Some(holders.clone()),
            },
            Error::InvalidRequest { .. }
            | Error::ReadOnlySnapshot { .. }
            | Error::InvalidPart { .. }
            | Error::InvalidPartOrder
            | Error::PartTooSmall { .. }
            | Error::ChecksumMismatch
            | Error::BodyTooLarge { .. }
            | Error::InvalidName(_)
            | Error::InvalidPath(_)
            | Error::BucketExists { .. } => Refusal::InvalidRequest { reason: error.to_string() },
            Error::BodyUnreadable { .. }
            | Error::NotHome { .. }
            | Error::NoLongerShared { .. }
            | Error::NoSuchCluster { .. }
            | Error::ClusterFailed { .. }
            | Error::DataInUse { .. }
            | Error::DataUnusable { .. }
            | Error::CatalogOutdated
            | Error::Damaged { .. }
            | Error::Storage { .. } => Refusal::Failed { reason: error.to_string() },
        }
    }
}

/// Who refused what, so that the refusal becomes an error of the asker's own.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The cluster that was asked, by its name here.
    pub cluster: &'a str,
    /// What it was asked.
    pub doing: &'static str,
    /// The bucket that it was about, by its name here.
    pub bucket: &'a BucketName,
}

impl Refusal {
    /// The error that it means here.
    #[must_use]
    pub fn into_error(self, asked: &Asked<'_>) -> Error {
        let bucket = || asked.bucket.clone();
        let failed = |why| Error::ClusterFailed { cluster: asked.cluster.to_owned(), doing: asked.doing, why };
        match self {
            Refusal::NoSuchBucket { .. } | Refusal::NoSuchSharedBucket => {
                Error::NoLongerShared { bucket: bucket(), cluster: asked.cluster.to_owned() }
            }
            Refusal::SharedReadOnly => Error::SharedReadOnly { bucket: bucket() },
            Refusal::BucketNotEmpty { holds } => Error::BucketNotEmpty { bucket: bucket(), holds },
            Refusal::NoSuchSnapshot { snapshot, newest } => {
                Error::NoSuchSnapshot { bucket: bucket(), snapshot, newest }
            }
            Refusal::BelowFloor { snapshot, floor } => Error::BelowFloor { bucket: bucket(), snapshot, floor },
            Refusal::NoSuchKey { path } => Error::NoSuchKey { path },
            Refusal::NoSuchVersion { path, version } => Error::NoSuchVersion { path, version },
            Refusal::DeleteMarker { path, version, modified, named } => {
                Error::DeleteMarker { path, version, modified, named }
            }
            Refusal::PreconditionFailed { condition: name } => {
                Error::PreconditionFailed { condition: condition(&name) }
            }
            Refusal::NoSuchUpload { upload } => Error::NoSuchUpload { upload },
            Refusal::InvalidRequest { reason } => Error::InvalidRequest { reason },
            Refusal::TagExists { tag, number } => Error::TagExists { bucket: bucket(), tag, number },
            Refusal::NoSuchTag { tag } => Error::NoSuchTag { bucket: bucket(), tag },
            Refusal::NoSuchPin { pin } => Error::NoSuchPin { bucket: bucket(), pin },
            Refusal::NotInSnapshot { number, what } => Error::NotInSnapshot { bucket: bucket(), number, what },
            Refusal::LimitReached { limit, maximum } => {
                Error::InvalidRequest { reason: format!("{limit} is limited to {maximum} at {}", asked.cluster) }
            }
            Refusal::NoSpace => failed("its disk is full".to_owned()),
            Refusal::Stranger => Error::ClusterAway {
                cluster: asked.cluster.to_owned(),
                why: "it does not know this cluster; ask its operator for an invitation (`elton peer invite`)"
                    .to_owned(),
            },
            Refusal::Conflict => Error::Conflict,
            Refusal::WrongTerm { term } => failed(format!(
                "it numbers the bucket in term {}, and a later one was heard of: it runs on an older copy of its data, or \
                 another cluster numbers the bucket now",
                term.0
            )),
            Refusal::Away { only_at: Some(holders), .. } => {
                Error::NotRelayed { holders, home: asked.cluster.to_owned() }
            }
            Refusal::Away { cluster, why, only_at: None } => {
                Error::ClusterAway { cluster, why: format!("{} says: {why}", asked.cluster) }
            }
            Refusal::Unlawful { reason } | Refusal::Failed { reason } => failed(reason),
        }
    }
}
