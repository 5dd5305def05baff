//! Configurations of a bucket that nobody can set yet: reading one answers S3's "there is none", removing one is done
//! already, and setting one to what is the case anyway is honoured.

use http::StatusCode;
use s3s::dto::{
    NotificationConfiguration, Payer, PutBucketLoggingInput, PutBucketLoggingOutput,
    PutBucketNotificationConfigurationInput, PutBucketNotificationConfigurationOutput, PutBucketRequestPaymentInput,
    PutBucketRequestPaymentOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::Caller;
use super::error::{custom, from_core, invalid_request, not_implemented};
use super::target::which;
use super::{Edge, keys};

/// A configuration that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// `?policy`, `?policyStatus`
    Policy,
    /// `?cors`
    Cors,
    /// `?lifecycle`
    Lifecycle,
    /// `?encryption`
    Encryption,
    /// `?website`
    Website,
    /// `?replication`
    Replication,
    /// `?object-lock`
    ObjectLock,
    /// `?publicAccessBlock`
    PublicAccessBlock,
    /// `?ownershipControls`
    OwnershipControls,
    /// One of several by id: `?analytics`, `?inventory`, `?metrics`, `?intelligent-tiering`
    ById,
}

impl Configuration {
    /// S3's word for there being none.
    pub fn missing(self) -> S3Error {
        let code = match self {
            Configuration::Policy => S3ErrorCode::NoSuchBucketPolicy,
            Configuration::Cors => S3ErrorCode::NoSuchCORSConfiguration,
            Configuration::Lifecycle => S3ErrorCode::NoSuchLifecycleConfiguration,
            Configuration::Encryption => S3ErrorCode::ServerSideEncryptionConfigurationNotFoundError,
            Configuration::Website => S3ErrorCode::NoSuchWebsiteConfiguration,
            Configuration::Replication => S3ErrorCode::ReplicationConfigurationNotFoundError,
            Configuration::ObjectLock => S3ErrorCode::ObjectLockConfigurationNotFoundError,
            Configuration::OwnershipControls => S3ErrorCode::OwnershipControlsNotFoundError,
            Configuration::PublicAccessBlock => {
                let message = "The public access block configuration was not found";
                return custom("NoSuchPublicAccessBlockConfiguration", StatusCode::NOT_FOUND, message.to_owned());
            }
            Configuration::ById => {
                let message = "The specified configuration does not exist.";
                return custom("NoSuchConfiguration", StatusCode::NOT_FOUND, message.to_owned());
            }
        };
        let mut error = S3Error::new(code);
        error.set_status_code(StatusCode::NOT_FOUND);
        error
    }
}

/// Reading a configuration that there is none of.
pub async fn none<I, O>(
    edge: &Edge,
    request: S3Request<I>,
    bucket: impl Fn(&I) -> &str,
    configuration: Configuration,
) -> S3Result<S3Response<O>> {
    let at = Caller::of(&request)?.bucket_at(bucket(&request.input))?;
    edge.require_bucket(&at).await?;
    Err(configuration.missing())
}

/// An answer that says itself that there is nothing, and the removal of what is not there.
pub async fn nothing<I, O>(
    edge: &Edge,
    request: S3Request<I>,
    bucket: impl Fn(&I) -> &str,
    output: O,
) -> S3Result<S3Response<O>> {
    let at = Caller::of(&request)?.bucket_at(bucket(&request.input))?;
    edge.require_bucket(&at).await?;
    Ok(S3Response::new(output))
}

/// Reading an object's retention or legal hold: its bucket has no object lock.
pub async fn no_object_lock<I, O>(
    edge: &Edge,
    request: S3Request<I>,
    object: impl Fn(&I) -> (&str, &str, Option<&str>),
) -> S3Result<S3Response<O>> {
    let (bucket, key, version_id) = object(&request.input);
    let at = Caller::of(&request)?.bucket_at(bucket)?;
    let path = keys::parse(key)?;
    let which = which(&edge.cluster, &at, version_id).await?;
    edge.cluster.head(&at, &path, which).await.map_err(from_core)?;
    Err(invalid_request("Bucket is missing Object Lock Configuration"))
}

/// PutBucketRequestPayment: the owner pays.
pub async fn put_bucket_request_payment(
    edge: &Edge,
    request: S3Request<PutBucketRequestPaymentInput>,
) -> S3Result<S3Response<PutBucketRequestPaymentOutput>> {
    if request.input.request_payment_configuration.payer.as_str() != Payer::BUCKET_OWNER {
        return Err(not_implemented("a payer other than BucketOwner"));
    }
    nothing(edge, request, |input| &input.bucket, PutBucketRequestPaymentOutput::default()).await
}

/// PutBucketLogging: none.
pub async fn put_bucket_logging(
    edge: &Edge,
    request: S3Request<PutBucketLoggingInput>,
) -> S3Result<S3Response<PutBucketLoggingOutput>> {
    if request.input.bucket_logging_status.logging_enabled.is_some() {
        return Err(not_implemented("LoggingEnabled"));
    }
    nothing(edge, request, |input| &input.bucket, PutBucketLoggingOutput::default()).await
}

/// PutBucketNotificationConfiguration: none.
pub async fn put_bucket_notification(
    edge: &Edge,
    request: S3Request<PutBucketNotificationConfigurationInput>,
) -> S3Result<S3Response<PutBucketNotificationConfigurationOutput>> {
    if request.input.notification_configuration != NotificationConfiguration::default() {
        return Err(not_implemented("a notification"));
    }
    nothing(edge, request, |input| &input.bucket, PutBucketNotificationConfigurationOutput::default()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_not_found() {
        for configuration in [
            Configuration::Policy,
            Configuration::Cors,
            Configuration::Lifecycle,
            Configuration::Encryption,
            Configuration::Website,
            Configuration::Replication,
            Configuration::ObjectLock,
            Configuration::PublicAccessBlock,
            Configuration::OwnershipControls,
            Configuration::ById,
        ] {
            assert_eq!(configuration.missing().status_code(), Some(StatusCode::NOT_FOUND), "{configuration:?}");
        }
    }
}
