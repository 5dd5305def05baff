//! The versioning of a bucket as S3 sees it. Elton's numbers run underneath in every state.

use federation::master::{BucketChange, Versioning};
use s3s::dto::{
    BucketVersioningStatus, GetBucketVersioningInput, GetBucketVersioningOutput, MFADelete, PutBucketVersioningInput,
    PutBucketVersioningOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::Caller;
use super::error::{from_core, not_implemented};
use super::{Edge, numbered, target};

/// GetBucketVersioning.
pub async fn get_bucket_versioning(
    edge: &Edge,
    request: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    let status = match edge.cluster.bucket_versioning(&at).await.map_err(from_core)? {
        Versioning::Off => None,
        Versioning::Enabled => Some(BucketVersioningStatus::ENABLED),
        Versioning::Suspended => Some(BucketVersioningStatus::SUSPENDED),
    };
    Ok(S3Response::new(GetBucketVersioningOutput {
        status: status.map(BucketVersioningStatus::from_static),
        mfa_delete: None,
    }))
}

/// PutBucketVersioning.
pub async fn put_bucket_versioning(
    edge: &Edge,
    request: S3Request<PutBucketVersioningInput>,
) -> S3Result<S3Response<PutBucketVersioningOutput>> {
    let caller = Caller::of(&request)?;
    let bucket = target::bucket(&request.input.bucket)?;
    let configuration = request.input.versioning_configuration;
    if configuration.mfa_delete.is_some_and(|mfa| mfa.as_str() != MFADelete::DISABLED) {
        return Err(not_implemented("MfaDelete"));
    }
    let versioning = match configuration.status.as_ref().map(BucketVersioningStatus::as_str) {
        Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
        Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
        Some(_) => return Err(S3Error::new(S3ErrorCode::MalformedXML)),
        None => return Err(S3Error::new(S3ErrorCode::IllegalVersioningConfigurationException)),
    };
    let change = BucketChange::Versioning(versioning);
    let number = edge.cluster.change_bucket(&caller.actor, &bucket, change).await.map_err(from_core)?;
    Ok(numbered(PutBucketVersioningOutput::default(), number))
}
