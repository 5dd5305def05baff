//! What goes wrong, in S3's words: the one table from the core's errors to S3's codes.

use crate::server::BodyStalled;
use federation::Error;
use federation::blobs::StoreError;
use federation::error::BoxError;
use federation::master::Limit;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use s3s::stream::aws_chunked_stream::AwsChunkedStreamError;
use s3s::stream::upload_stream::UploadStreamError;
use s3s::{BodySizeLimitExceeded, S3Error, S3ErrorCode};

/// A text without the characters that XML cannot hold: an answer with one could not be written.
pub fn printable(text: impl AsRef<str>) -> String {
    text.as_ref().chars().map(|c| if super::keys::is_unwritable(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The S3 error for an error of the core. What S3 clients must not see is logged here, once.
pub fn from_core(error: Error) -> S3Error {
    let message = printable(error.to_string());
    match error {
        Error::NoSuchBucket { .. } | Error::NoSuchSnapshot { .. } | Error::BelowFloor { .. } => {
            S3Error::with_message(S3ErrorCode::NoSuchBucket, message)
        }
        Error::BucketExists { .. } => S3Error::with_message(S3ErrorCode::BucketAlreadyOwnedByYou, message),
        Error::BucketNotEmpty { .. } => S3Error::with_message(S3ErrorCode::BucketNotEmpty, message),
        Error::ReadOnlySnapshot { .. } => S3Error::with_message(S3ErrorCode::AccessDenied, message),
        Error::NoSuchKey { .. } => S3Error::with_message(S3ErrorCode::NoSuchKey, message),
        Error::NoSuchVersion { .. } => S3Error::with_message(S3ErrorCode::NoSuchVersion, message),
        Error::DeleteMarker { version, modified, named, .. } => {
            let code = if named { S3ErrorCode::MethodNotAllowed } else { S3ErrorCode::NoSuchKey };
            let mut headers = vec![
                (HeaderName::from_static("x-amz-delete-marker"), "true".to_owned()),
                (HeaderName::from_static("x-amz-version-id"), version.to_string()),
            ];
            if named {
                headers.push((http::header::ALLOW, "DELETE".to_owned()));
                headers.push((http::header::LAST_MODIFIED, super::time::http_date(modified)));
            }
            with_headers(S3Error::with_message(code, message), headers)
        }
        Error::PreconditionFailed { .. } => S3Error::with_message(S3ErrorCode::PreconditionFailed, message),
        Error::NoSuchUpload { .. } => S3Error::with_message(S3ErrorCode::NoSuchUpload, message),
        Error::InvalidPart { .. } => S3Error::with_message(S3ErrorCode::InvalidPart, message),
        Error::InvalidPartOrder => S3Error::with_message(S3ErrorCode::InvalidPartOrder, message),
        Error::PartTooSmall { .. } => S3Error::with_message(S3ErrorCode::EntityTooSmall, message),
        Error::ChecksumMismatch => S3Error::with_message(S3ErrorCode::BadDigest, message),
        Error::InvalidRequest { .. } => S3Error::with_message(S3ErrorCode::InvalidRequest, message),
        Error::LimitReached { limit, .. } => S3Error::with_message(limit_code(limit), message),
        Error::TagExists { .. } => custom("TagAlreadyExists", StatusCode::CONFLICT, message),
        Error::NoSuchPin { .. } => custom("NoSuchPin", StatusCode::NOT_FOUND, message),
        Error::NotInSnapshot { .. } => custom("NotInSnapshot", StatusCode::NOT_FOUND, message),
        Error::NoSuchTag { .. } => custom("NoSuchTag", StatusCode::NOT_FOUND, message),
        Error::BodyTooLarge { .. } => S3Error::with_message(S3ErrorCode::EntityTooLarge, message),
        Error::BodyUnreadable { source } => unreadable(source),
        Error::InvalidName(_) => S3Error::with_message(S3ErrorCode::InvalidBucketName, message),
        Error::InvalidPath(_) => S3Error::with_message(S3ErrorCode::KeyTooLongError, message),
        // What is done at a bucket's home only, or what its home does not let this cluster do.
        Error::NotHome { .. } | Error::SharedReadOnly { .. } | Error::NoLongerShared { .. } => {
            S3Error::with_message(S3ErrorCode::AccessDenied, message)
        }
        Error::NoSuchSharedBucket { .. } | Error::NoSuchCluster { .. } => {
            S3Error::with_message(S3ErrorCode::NoSuchBucket, message)
        }
        Error::ClusterAway { .. } | Error::NotRelayed { .. } => {
            S3Error::with_message(S3ErrorCode::ServiceUnavailable, message)
        }
        Error::ClusterFailed { .. } | Error::WrongTerm { .. } => {
            tracing::error!(error = message, "a request failed on another cluster");
            S3Error::with_message(S3ErrorCode::InternalError, message)
        }
        // What other servers answer too: clients repeat it as they repeat any 5xx, and people can tell it from a fault.
        Error::NoSpace => custom("InsufficientStorage", StatusCode::INSUFFICIENT_STORAGE, message),
        Error::Damaged { source, .. } | Error::Storage { source, .. } => {
            tracing::error!(error = message, cause = %source, "a request failed on the storage");
            S3Error::with_message(S3ErrorCode::InternalError, message)
        }
        // The data directory is opened before the first request is served.
        Error::DataInUse { .. } | Error::DataUnusable { .. } | Error::CatalogOutdated => {
            S3Error::with_message(S3ErrorCode::ServiceUnavailable, message)
        }
        Error::Conflict => S3Error::with_message(S3ErrorCode::ConditionalRequestConflict, message),
    }
}

/// S3 has a code of its own for a limit that it has itself.
fn limit_code(limit: Limit) -> S3ErrorCode {
    match limit {
        Limit::Buckets => S3ErrorCode::TooManyBuckets,
        Limit::BucketTags
        | Limit::BucketUploads
        | Limit::BucketPins
        | Limit::PinHolderBytes
        | Limit::PinSeconds
        | Limit::SnapshotMessageBytes
        | Limit::CommitStageKeys
        | Limit::Invitations
        | Limit::Clusters
        | Limit::TreeBytes => S3ErrorCode::InvalidRequest,
    }
}

/// The S3 error for a body that was not taken in.
pub fn from_store(error: StoreError) -> S3Error {
    match error {
        StoreError::Source { source } => unreadable(source),
        StoreError::TooLong { length_max } => from_core(Error::BodyTooLarge { maximum: length_max }),
        StoreError::Backend(error) => from_core(error.into()),
    }
}

/// Names what was wrong with a client's stream: its signature, its hash, its length, or the connection.
fn unreadable(source: BoxError) -> S3Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<UploadStreamError>() {
            match error {
                UploadStreamError::Sha256Mismatch => {
                    return custom(
                        "XAmzContentSHA256Mismatch",
                        StatusCode::BAD_REQUEST,
                        "the provided x-amz-content-sha256 header does not match what was computed".to_owned(),
                    );
                }
                UploadStreamError::LengthMismatch | UploadStreamError::Incomplete => return incomplete(source),
                // The cause of what s3s wraps is told apart further down the chain.
                UploadStreamError::Underlying(_) => {}
            }
        }
        if let Some(error) = error.downcast_ref::<AwsChunkedStreamError>() {
            match error {
                AwsChunkedStreamError::Underlying(_) => {}
                error => return S3Error::with_message(error.to_s3_error_code(), error.to_string()),
            }
        }
        if let Some(stalled) = error.downcast_ref::<BodyStalled>() {
            return S3Error::with_message(S3ErrorCode::RequestTimeout, stalled.to_string());
        }
        if error.is::<BodySizeLimitExceeded>() {
            return S3Error::new(S3ErrorCode::EntityTooLarge);
        }
        cause = error.source();
    }
    incomplete(source)
}

fn incomplete(source: BoxError) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::IncompleteBody);
    error.set_source(source);
    error
}

/// An error with a code that s3s does not list.
pub fn custom(code: &'static str, status: StatusCode, message: String) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), printable(message));
    error.set_status_code(status);
    error
}

/// 501 for what is not implemented, by name.
pub fn not_implemented(what: impl std::fmt::Display) -> S3Error {
    S3Error::with_message(S3ErrorCode::NotImplemented, printable(format!("{what} is not implemented")))
}

/// 400 for a parameter that cannot be.
pub fn invalid_argument(message: impl Into<String>) -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidArgument, printable(message.into()))
}

/// 400 for a request that contradicts itself or what it names.
pub fn invalid_request(message: impl Into<String>) -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidRequest, printable(message.into()))
}

/// Gives an error headers of its own. They replace those that s3s would set, so the content type is among them.
pub fn with_headers(mut error: S3Error, headers: impl IntoIterator<Item = (HeaderName, String)>) -> S3Error {
    let mut map = HeaderMap::new();
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            map.insert(name, value);
        }
    }
    error.set_headers(map);
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use federation::error::VersionName;
    use federation::types::{Number, ObjectPath, Timestamp};

    #[test]
    fn a_delete_marker_says_so_in_its_headers() {
        let path = ObjectPath::try_from("key").unwrap();
        for (named, status) in [(true, StatusCode::METHOD_NOT_ALLOWED), (false, StatusCode::NOT_FOUND)] {
            let version = VersionName::Number(Number(7));
            let error = from_core(Error::DeleteMarker { path: path.clone(), version, modified: Timestamp(0), named });
            assert_eq!(error.status_code(), Some(status));
            let headers = error.headers().unwrap();
            assert_eq!(headers["x-amz-delete-marker"], "true");
            assert_eq!(headers["x-amz-version-id"], "7");
            assert_eq!(headers[CONTENT_TYPE], "application/xml");
        }
    }

    #[test]
    fn limits_have_the_codes_of_s3() {
        let limited = |limit| from_core(Error::LimitReached { limit, maximum: 10_000 });
        assert_eq!(*limited(Limit::Buckets).code(), S3ErrorCode::TooManyBuckets);
        assert_eq!(limited(Limit::Buckets).message(), Some("buckets_max is limited to 10000"));
        assert_eq!(*limited(Limit::BucketUploads).code(), S3ErrorCode::InvalidRequest);
        assert_eq!(*from_core(Error::BodyTooLarge { maximum: 1 }).code(), S3ErrorCode::EntityTooLarge);
        let long = ObjectPath::try_from(vec![b'k'; 70_000]).unwrap_err();
        assert_eq!(*from_core(Error::InvalidPath(long)).code(), S3ErrorCode::KeyTooLongError);
    }

    #[test]
    fn the_cause_of_a_broken_stream_is_named() {
        let source = |error: UploadStreamError| from_store(StoreError::Source { source: Box::new(error) });
        assert_eq!(source(UploadStreamError::Sha256Mismatch).code().as_str(), "XAmzContentSHA256Mismatch");
        assert_eq!(source(UploadStreamError::Incomplete).code().as_str(), "IncompleteBody");
        let wrapped = UploadStreamError::Underlying(Box::new(AwsChunkedStreamError::SignatureMismatch));
        assert_eq!(source(wrapped).code().as_str(), "SignatureDoesNotMatch");
        let other = StoreError::Source { source: "the connection broke".into() };
        assert_eq!(from_store(other).code().as_str(), "IncompleteBody");
    }
}
