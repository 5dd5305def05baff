//! Buckets: listing, creating, looking, deleting, and where they are.

use federation::master::{BucketChange, BucketInfo};
use s3s::dto::{
    Bucket, BucketLocationConstraint, CreateBucketInput, CreateBucketOutput, DeleteBucketInput, DeleteBucketOutput,
    GetBucketLocationInput, GetBucketLocationOutput, HeadBucketInput, HeadBucketOutput, ListBucketsInput,
    ListBucketsOutput,
};
use s3s::{S3Request, S3Response, S3Result};

use super::access::Caller;
use super::error::{from_core, invalid_argument, not_implemented};
use super::tags::{BUCKET_TAGS_MAX, from_xml};
use super::{Edge, keys, numbered, target, time};

/// How many buckets a page has at most.
const BUCKETS_MAX: i32 = 10_000;

/// ListBuckets. Snapshots are not among them.
pub async fn list_buckets(
    edge: &Edge,
    request: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let input = request.input;
    let max = match input.max_buckets {
        None => BUCKETS_MAX,
        Some(max @ 1..=BUCKETS_MAX) => max,
        Some(_) => return Err(invalid_argument(format!("max-buckets is 1 to {BUCKETS_MAX}"))),
    };
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let region = input.bucket_region.as_deref().filter(|region| !region.is_empty());
    let token = input.continuation_token.as_deref().filter(|token| !token.is_empty());
    let after = token.map(after).transpose()?;
    let buckets = edge.cluster.buckets().await.map_err(from_core)?;
    let mut matching = buckets.iter().filter(|bucket| {
        bucket.name.as_str().starts_with(prefix)
            && after.as_deref().is_none_or(|after| bucket.name.as_str() > after)
            && region.is_none_or(|region| edge.bucket_region(&bucket.location) == region)
    });
    let page: Vec<&BucketInfo> = matching.by_ref().take(usize::try_from(max).unwrap_or(0)).collect();
    let is_truncated = matching.next().is_some();
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(page.iter().map(|bucket| listed(edge, bucket)).collect()),
        continuation_token: page.last().filter(|_| is_truncated).map(|last| last.name.to_string()),
        owner: Some(edge.owner()),
        prefix: input.prefix.map(|prefix| keys::echoed(&prefix, false)),
    }))
}

/// The token is the last bucket's name.
fn after(token: &str) -> S3Result<String> {
    let name = token.parse::<federation::types::BucketName>();
    name.map(String::from).map_err(|_| invalid_argument("The continuation token provided is incorrect"))
}

fn listed(edge: &Edge, bucket: &BucketInfo) -> Bucket {
    Bucket {
        name: Some(bucket.name.to_string()),
        creation_date: Some(time::to_s3(bucket.created)),
        bucket_region: Some(edge.bucket_region(&bucket.location)),
        bucket_arn: None,
    }
}

/// CreateBucket. Without a configured region any location is taken and given back.
pub async fn create_bucket(
    edge: &Edge,
    request: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let caller = Caller::of(&request)?;
    let bucket = target::bucket(&request.input.bucket)?;
    let configuration = request.input.create_bucket_configuration.unwrap_or_default();
    if configuration.bucket.is_some() || configuration.location.is_some() {
        return Err(not_implemented("a directory bucket"));
    }
    let tags = configuration.tags.map(|tags| from_xml(tags, BUCKET_TAGS_MAX)).transpose()?;
    let location = configuration.location_constraint.as_ref().map_or("", BucketLocationConstraint::as_str);
    if location.len() > 64 || !location.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(s3s::S3Error::new(s3s::S3ErrorCode::InvalidLocationConstraint));
    }
    edge.check_location(location)?;
    let info = edge.cluster.create_bucket(&caller.actor, &bucket, location).await.map_err(from_core)?;
    let number = match tags.filter(|tags| !tags.is_empty()) {
        Some(tags) => {
            let change = BucketChange::Tagging(Some(tags));
            edge.cluster.change_bucket(&caller.actor, &bucket, change).await.map_err(from_core)?
        }
        None => info.number,
    };
    let output = CreateBucketOutput { location: Some(format!("/{bucket}")), bucket_arn: None };
    Ok(numbered(output, number))
}

/// HeadBucket.
pub async fn head_bucket(edge: &Edge, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    let number = edge.cluster.resolve(&at).await.map_err(from_core)?;
    let info = edge.cluster.bucket(&at.bucket).await.map_err(from_core)?;
    let output = HeadBucketOutput { bucket_region: Some(edge.bucket_region(&info.location)), ..Default::default() };
    Ok(numbered(output, number))
}

/// GetBucketLocation.
pub async fn get_bucket_location(
    edge: &Edge,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    edge.cluster.resolve(&at).await.map_err(from_core)?;
    let info = edge.cluster.bucket(&at.bucket).await.map_err(from_core)?;
    let location = edge.location_constraint(info.location);
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint: location.map(BucketLocationConstraint::from) }))
}

/// DeleteBucket.
pub async fn delete_bucket(
    edge: &Edge,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    let caller = Caller::of(&request)?;
    let bucket = target::bucket(&request.input.bucket)?;
    edge.cluster.delete_bucket(&caller.actor, &bucket).await.map_err(from_core)?;
    Ok(S3Response::new(DeleteBucketOutput::default()))
}
