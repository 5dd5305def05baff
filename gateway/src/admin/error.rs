//! What the admin API calls what went wrong: one table.

use federation::Error;
use http::StatusCode;

use super::shape::Failure;
use crate::server::describe;

/// A request of the admin API that failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is no such path.
    #[error("the admin API has no {method} {path}; docs/admin-api.md lists what it has")]
    NoSuchCall {
        /// The method.
        method: String,
        /// The path.
        path: String,
    },
    /// The request is signed by its URL.
    #[error("the admin API takes no presigned URLs: sign the request in its Authorization header")]
    Presigned,
    /// The signature does not cover the body of a request that changes something.
    #[error("only a GET may leave its body unsigned: send the body's SHA-256 as x-amz-content-sha256, and sign it")]
    UnsignedBody,
    /// The request's body is not what the call takes.
    #[error("the request's body is not understood: {reason}")]
    BadBody {
        /// Why.
        reason: String,
    },
    /// A parameter is not what the call takes.
    #[error("the parameter {name} is not understood: {reason}")]
    BadParameter {
        /// Which.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// The core refused or failed.
    #[error(transparent)]
    Core(#[from] Error),
    /// The work was cut off because the server is stopping.
    #[error("the server is stopping; repeat the request when it runs again")]
    Stopping,
}

impl AdminError {
    /// The HTTP status and the code.
    #[must_use]
    pub fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            AdminError::NoSuchCall { .. } => (StatusCode::NOT_FOUND, "no_such_call"),
            AdminError::Presigned => (StatusCode::FORBIDDEN, "presigned"),
            AdminError::UnsignedBody => (StatusCode::FORBIDDEN, "unsigned_body"),
            AdminError::BadBody { .. } => (StatusCode::BAD_REQUEST, "bad_body"),
            AdminError::BadParameter { .. } => (StatusCode::BAD_REQUEST, "bad_parameter"),
            AdminError::Core(error) => core_status_and_code(error),
            AdminError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        }
    }

    /// As it travels. What the server alone should know goes to its log instead.
    #[must_use]
    pub fn to_failure(&self) -> Failure {
        let (status, code) = self.status_and_code();
        if status.is_server_error() {
            tracing::error!(code, error = describe(self), "an admin request failed");
        }
        Failure { code: code.to_owned(), message: self.to_string() }
    }
}

fn core_status_and_code(error: &Error) -> (StatusCode, &'static str) {
    match error {
        Error::NoSuchBucket { .. } => (StatusCode::NOT_FOUND, "no_such_bucket"),
        Error::BucketExists { .. } => (StatusCode::CONFLICT, "bucket_exists"),
        Error::BucketNotEmpty { .. } => (StatusCode::CONFLICT, "bucket_not_empty"),
        Error::NoSuchSnapshot { .. } => (StatusCode::NOT_FOUND, "no_such_snapshot"),
        Error::BelowFloor { .. } => (StatusCode::GONE, "below_floor"),
        Error::ReadOnlySnapshot { .. } => (StatusCode::FORBIDDEN, "read_only_snapshot"),
        Error::NoSuchKey { .. } => (StatusCode::NOT_FOUND, "no_such_key"),
        Error::NoSuchVersion { .. } => (StatusCode::NOT_FOUND, "no_such_version"),
        Error::DeleteMarker { .. } => (StatusCode::NOT_FOUND, "delete_marker"),
        Error::PreconditionFailed { .. } => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
        Error::NoSuchUpload { .. } => (StatusCode::NOT_FOUND, "no_such_upload"),
        Error::InvalidPart { .. } => (StatusCode::BAD_REQUEST, "invalid_part"),
        Error::InvalidPartOrder => (StatusCode::BAD_REQUEST, "invalid_part_order"),
        Error::ChecksumMismatch => (StatusCode::BAD_REQUEST, "checksum_mismatch"),
        Error::PartTooSmall { .. } => (StatusCode::BAD_REQUEST, "part_too_small"),
        Error::InvalidRequest { .. } => (StatusCode::BAD_REQUEST, "invalid_request"),
        Error::TagExists { .. } => (StatusCode::CONFLICT, "tag_exists"),
        Error::NoSuchPin { .. } => (StatusCode::NOT_FOUND, "no_such_pin"),
        Error::NotInSnapshot { .. } => (StatusCode::NOT_FOUND, "not_in_snapshot"),
        Error::NoSuchTag { .. } => (StatusCode::NOT_FOUND, "no_such_tag"),
        Error::LimitReached { .. } => (StatusCode::BAD_REQUEST, "limit_reached"),
        Error::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
        Error::BodyUnreadable { .. } => (StatusCode::BAD_REQUEST, "body_unreadable"),
        Error::InvalidName(_) => (StatusCode::BAD_REQUEST, "invalid_name"),
        Error::InvalidPath(_) => (StatusCode::BAD_REQUEST, "invalid_path"),
        Error::NoSpace => (StatusCode::INSUFFICIENT_STORAGE, "no_space"),
        Error::Damaged { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "damaged"),
        Error::Storage { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "storage_failed"),
        Error::DataInUse { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "data_in_use"),
        Error::DataUnusable { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "data_unusable"),
        Error::CatalogOutdated => (StatusCode::INTERNAL_SERVER_ERROR, "catalog_outdated"),
        Error::Conflict => (StatusCode::CONFLICT, "conflict"),
        Error::NotHome { .. } => (StatusCode::CONFLICT, "not_home"),
        Error::NoSuchSharedBucket { .. } => (StatusCode::NOT_FOUND, "no_such_shared_bucket"),
        Error::NoLongerShared { .. } => (StatusCode::GONE, "no_longer_shared"),
        Error::SharedReadOnly { .. } => (StatusCode::FORBIDDEN, "shared_read_only"),
        Error::ClusterAway { .. } => (StatusCode::SERVICE_UNAVAILABLE, "cluster_away"),
        Error::NotRelayed { .. } => (StatusCode::SERVICE_UNAVAILABLE, "not_relayed"),
        Error::WrongTerm { .. } => (StatusCode::CONFLICT, "wrong_term"),
        Error::ClusterFailed { .. } => (StatusCode::BAD_GATEWAY, "cluster_failed"),
        Error::NoSuchCluster { .. } => (StatusCode::NOT_FOUND, "no_such_cluster"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_the_floor_is_gone_and_says_where_it_begins() {
        let error = Error::BelowFloor {
            bucket: "photos".parse().expect("lawful"),
            snapshot: "3".to_owned(),
            floor: federation::types::Number(7),
        };
        let error = AdminError::from(error);
        assert_eq!(error.status_and_code().0, StatusCode::GONE);
        assert!(error.to_failure().message.contains("floor, 7"));
    }
}
