//! The tags of objects and buckets.

use federation::master::{BucketChange, Which};
use federation::types::{Attributes, BucketAt, BucketName, Pair};
use s3s::dto::{
    DeleteBucketTaggingInput, DeleteBucketTaggingOutput, DeleteObjectTaggingInput, DeleteObjectTaggingOutput,
    GetBucketTaggingInput, GetBucketTaggingOutput, GetObjectTaggingInput, GetObjectTaggingOutput,
    PutBucketTaggingInput, PutBucketTaggingOutput, PutObjectTaggingInput, PutObjectTaggingOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::Caller;
use super::error::from_core;
use super::tags::{BUCKET_TAGS_MAX, OBJECT_TAGS_MAX, from_xml, to_xml};
use super::target::{version_id, which};
use super::{Edge, keys, numbered, target};

/// GetObjectTagging.
pub async fn get_object_tagging(
    edge: &Edge,
    request: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    let path = keys::parse(&request.input.key)?;
    let which = which(&edge.cluster, &at, request.input.version_id.as_deref()).await?;
    let (version, tags) = edge.cluster.tags(&at, &path, which).await.map_err(from_core)?;
    let output = GetObjectTaggingOutput { tag_set: to_xml(tags), version_id: version_id(&version) };
    Ok(numbered(output, version.number))
}

/// PutObjectTagging.
pub async fn put_object_tagging(
    edge: &Edge,
    request: S3Request<PutObjectTaggingInput>,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    let caller = Caller::of(&request)?;
    let input = request.input;
    let tags = from_xml(input.tagging.tag_set, OBJECT_TAGS_MAX)?;
    let object = (input.bucket.as_str(), input.key.as_str(), input.version_id.as_deref());
    let response = set_object_tags(edge, &caller, object, tags).await?;
    Ok(response.map_output(|version_id| PutObjectTaggingOutput { version_id }))
}

/// DeleteObjectTagging.
pub async fn delete_object_tagging(
    edge: &Edge,
    request: S3Request<DeleteObjectTaggingInput>,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let caller = Caller::of(&request)?;
    let input = request.input;
    let object = (input.bucket.as_str(), input.key.as_str(), input.version_id.as_deref());
    let response = set_object_tags(edge, &caller, object, Vec::new()).await?;
    Ok(response.map_output(|version_id| DeleteObjectTaggingOutput { version_id }))
}

async fn set_object_tags(
    edge: &Edge,
    caller: &Caller,
    (bucket, key, version_id): (&str, &str, Option<&str>),
    tags: Vec<Pair>,
) -> S3Result<S3Response<Option<String>>> {
    let bucket = target::bucket(bucket)?;
    let path = keys::parse(key)?;
    let which: Which = which(&edge.cluster, &newest(&bucket), version_id).await?;
    let attributes = Attributes { tags: Some(tags), ..Attributes::default() };
    let (number, name) =
        edge.cluster.set_attributes(&caller.actor, &bucket, &path, which, attributes).await.map_err(from_core)?;
    Ok(numbered(name.map(|name| name.to_string()), number))
}

/// GetBucketTagging.
pub async fn get_bucket_tagging(
    edge: &Edge,
    request: S3Request<GetBucketTaggingInput>,
) -> S3Result<S3Response<GetBucketTaggingOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    let tags = edge.cluster.bucket_tagging(&at).await.map_err(from_core)?;
    let tags = tags.ok_or_else(|| S3Error::new(S3ErrorCode::NoSuchTagSet))?;
    Ok(S3Response::new(GetBucketTaggingOutput { tag_set: to_xml(tags) }))
}

/// PutBucketTagging.
pub async fn put_bucket_tagging(
    edge: &Edge,
    request: S3Request<PutBucketTaggingInput>,
) -> S3Result<S3Response<PutBucketTaggingOutput>> {
    let caller = Caller::of(&request)?;
    let bucket = target::bucket(&request.input.bucket)?;
    let tags = from_xml(request.input.tagging.tag_set, BUCKET_TAGS_MAX)?;
    let change = BucketChange::Tagging(Some(tags));
    let number = edge.cluster.change_bucket(&caller.actor, &bucket, change).await.map_err(from_core)?;
    Ok(numbered(PutBucketTaggingOutput::default(), number))
}

/// DeleteBucketTagging.
pub async fn delete_bucket_tagging(
    edge: &Edge,
    request: S3Request<DeleteBucketTaggingInput>,
) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
    let caller = Caller::of(&request)?;
    let bucket = target::bucket(&request.input.bucket)?;
    let change = BucketChange::Tagging(None);
    let number = edge.cluster.change_bucket(&caller.actor, &bucket, change).await.map_err(from_core)?;
    Ok(numbered(DeleteBucketTaggingOutput::default(), number))
}

fn newest(bucket: &BucketName) -> BucketAt {
    BucketAt::newest(bucket.clone())
}
