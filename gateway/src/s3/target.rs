//! What a request names: a bucket, perhaps as of a snapshot; a key; a version.

use federation::cluster::Cluster;
use federation::error::VersionName;
use federation::master::{Version, Versioning, Which};
use federation::types::{BucketAt, BucketName, Number, SnapshotRef};
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::error::{from_core, invalid_argument, printable};

/// The bucket of a read: `photos` or `photos--at-42`, or `photos` with `x-elton-at`.
pub fn bucket_at(name: &str, header: Option<&SnapshotRef>) -> S3Result<BucketAt> {
    let alias = BucketAt::from_alias(name).map_err(|error| invalid_bucket(&error))?;
    match (alias.snapshot, header) {
        (Some(_), Some(_)) => Err(invalid_argument("x-elton-at belongs to a bucket's plain name, not to a snapshot's")),
        (None, Some(at)) => Ok(BucketAt::at(alias.bucket, at.clone())),
        (snapshot, None) => Ok(BucketAt { bucket: alias.bucket, snapshot, consistency: None }),
    }
}

/// The bucket of a write. That it is no snapshot was checked with the right to write.
pub fn bucket(name: &str) -> S3Result<BucketName> {
    name.parse().map_err(|error| invalid_bucket(&error))
}

fn invalid_bucket(error: &federation::types::InvalidName) -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidBucketName, printable(error.to_string()))
}

/// Reads a `versionId`.
pub fn version_name(text: &str) -> S3Result<VersionName> {
    match text {
        "null" => Ok(VersionName::Null),
        "" => Err(invalid_argument("Version id cannot be the empty string")),
        // Digits alone: a number has one spelling only.
        _ => match text.parse::<Number>() {
            Ok(number) if number > Number::ZERO && number.to_string() == text => Ok(VersionName::Number(number)),
            _ => Err(invalid_argument("Invalid version id specified")),
        },
    }
}

/// Which version a request means. Where S3 versioning was never enabled there is only `null`: Elton's numbers are read
/// through snapshots.
pub async fn which(cluster: &Cluster, at: &BucketAt, version_id: Option<&str>) -> S3Result<Which> {
    let Some(text) = version_id else { return Ok(Which::Newest) };
    let name = version_name(text)?;
    if let VersionName::Number(number) = name {
        match cluster.bucket_versioning(at).await {
            Ok(Versioning::Off) => return Err(unversioned(&at.bucket, number)),
            // Versions that are known here are read while the home is away.
            Ok(_) | Err(federation::Error::ClusterAway { .. }) => {}
            Err(error) => return Err(from_core(error)),
        }
    }
    Ok(Which::Named(name))
}

/// 400 for a numbered version in a bucket that has none.
pub fn unversioned(bucket: &BucketName, number: Number) -> S3Error {
    invalid_argument(format!(
        "{bucket} has no S3 versions; its state as of change {number} is the bucket {bucket}--at-{number}"
    ))
}

/// A version's `x-amz-version-id`, where S3 shows any.
pub fn version_id(version: &Version) -> Option<String> {
    version.versioned.then(|| version.name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_once() {
        let at = SnapshotRef::Number(Number(7));
        assert_eq!(bucket_at("photos", Some(&at)).unwrap().snapshot, Some(at.clone()));
        assert_eq!(bucket_at("photos--at-7", None).unwrap().snapshot, Some(at.clone()));
        assert!(bucket_at("photos--at-7", Some(&at)).is_err());
        assert_eq!(*bucket_at("No", None).unwrap_err().code(), S3ErrorCode::InvalidBucketName);
        assert!(bucket("photos--at-7").is_err());
    }

    #[test]
    fn version_ids_are_numbers_or_null() {
        assert_eq!(version_name("null").unwrap(), VersionName::Null);
        assert_eq!(version_name("42").unwrap(), VersionName::Number(Number(42)));
        for bad in ["", "0", "042", "+42", "abc", "-1", "99999999999999999999"] {
            assert!(version_name(bad).is_err(), "{bad}");
        }
    }
}
