//! DeleteObject and DeleteObjects.

use std::iter;

use federation::error::VersionName;
use federation::master::{DeleteRequest, Deleted, EtagMatch, Precondition, Versioning};
use federation::types::{BucketAt, BucketName, Number};
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, Error,
    ObjectIdentifier,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::Caller;
use super::error::{from_core, invalid_argument, printable};
use super::{Edge, describe, keys, numbered, query, target, time};

/// How many keys one DeleteObjects names at most.
const KEYS_MAX: usize = 1000;

/// DeleteObject.
pub async fn delete_object(
    edge: &Edge,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let caller = Caller::of(&request)?;
    let headers = query::with_presigned(request.headers, &request.uri);
    let input = request.input;
    let bucket = target::bucket(&input.bucket)?;
    let precondition = Precondition {
        if_match_size: size(input.if_match_size)?,
        if_match_modified: input.if_match_last_modified_time.as_ref().map(time::from_s3),
        ..describe::precondition(&headers)?
    };
    let numbered_versions = numbered_versions(edge, &bucket, input.version_id.as_deref()).await?;
    let version = version(&bucket, input.version_id.as_deref(), numbered_versions)?;
    let delete = DeleteRequest { path: keys::parse(&input.key)?, version, precondition };

    let mut results = edge.cluster.delete(&caller.actor, &bucket, vec![delete]).await.map_err(from_core)?;
    let deleted = results.pop().ok_or_else(|| S3Error::new(S3ErrorCode::InternalError))?.map_err(from_core)?;
    let output = DeleteObjectOutput {
        delete_marker: deleted.marker.then_some(true),
        version_id: deleted.name.map(|name| name.to_string()),
        request_charged: None,
    };
    Ok(numbered(output, deleted.number))
}

/// DeleteObjects.
pub async fn delete_objects(
    edge: &Edge,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let caller = Caller::of(&request)?;
    let input = request.input;
    let bucket = target::bucket(&input.bucket)?;
    let objects = input.delete.objects;
    if objects.is_empty() || objects.len() > KEYS_MAX {
        return Err(S3Error::new(S3ErrorCode::MalformedXML));
    }
    let quiet = input.delete.quiet.unwrap_or(false);
    let named = objects.iter().find_map(|object| object.version_id.as_deref().filter(|version| *version != "null"));
    let numbered_versions = numbered_versions(edge, &bucket, named).await?;

    let mut errors = Vec::new();
    let mut asked = Vec::new();
    let mut deletes = Vec::new();
    for object in objects {
        match delete_request(&bucket, &object, numbered_versions) {
            Ok(delete) => {
                deletes.push(delete);
                asked.push(object);
            }
            Err(error) => errors.push(listed_error(object, &error)),
        }
    }
    let results = edge.cluster.delete(&caller.actor, &bucket, deletes).await.map_err(from_core)?;
    let mut highest = Number::ZERO;
    let mut deleted = Vec::new();
    for (object, result) in iter::zip(asked, results) {
        match result {
            Ok(done) => {
                highest = highest.max(done.number);
                deleted.push(listed(object, &done));
            }
            Err(error) => errors.push(listed_error(object, &from_core(error))),
        }
    }
    let output = DeleteObjectsOutput {
        deleted: (!quiet).then_some(deleted),
        errors: (!errors.is_empty()).then_some(errors),
        request_charged: None,
    };
    // Where nothing was deleted there is no number to tell.
    Ok(if highest == Number::ZERO { S3Response::new(output) } else { numbered(output, highest) })
}

fn delete_request(bucket: &BucketName, object: &ObjectIdentifier, numbered: bool) -> S3Result<DeleteRequest> {
    let precondition = Precondition {
        if_match: object.e_tag.as_ref().map(|tag| match tag.value() {
            "*" => EtagMatch::Any,
            tag => EtagMatch::OneOf(vec![tag.to_owned()]),
        }),
        if_match_size: size(object.size)?,
        if_match_modified: object.last_modified_time.as_ref().map(time::from_s3),
        ..Precondition::default()
    };
    let version = version(bucket, object.version_id.as_deref(), numbered)?;
    Ok(DeleteRequest { path: keys::parse(&object.key)?, version, precondition })
}

/// Whether the bucket has numbered versions, which matters only if one is named.
async fn numbered_versions(edge: &Edge, bucket: &BucketName, named: Option<&str>) -> S3Result<bool> {
    if named.is_none_or(|version| version == "null") {
        return Ok(false);
    }
    let at = BucketAt::newest(bucket.clone());
    let versioning = edge.cluster.bucket_versioning(&at).await.map_err(from_core)?;
    Ok(versioning != Versioning::Off)
}

fn version(bucket: &BucketName, text: Option<&str>, numbered: bool) -> S3Result<Option<VersionName>> {
    match text.map(target::version_name).transpose()? {
        Some(VersionName::Number(number)) if !numbered => Err(target::unversioned(bucket, number)),
        version => Ok(version),
    }
}

fn size(size: Option<i64>) -> S3Result<Option<u64>> {
    size.map(|size| u64::try_from(size).map_err(|_| invalid_argument("a size is not negative"))).transpose()
}

fn listed(object: ObjectIdentifier, done: &Deleted) -> DeletedObject {
    DeletedObject {
        key: Some(keys::echoed(&object.key, false)),
        version_id: object.version_id,
        delete_marker: done.marker.then_some(true),
        delete_marker_version_id: done.name.filter(|_| done.marker).map(|name| name.to_string()),
    }
}

fn listed_error(object: ObjectIdentifier, error: &S3Error) -> Error {
    Error {
        code: Some(error.code().as_str().to_owned()),
        message: error.message().map(printable),
        key: Some(keys::echoed(&object.key, false)),
        version_id: object.version_id.map(|version| keys::echoed(&version, false)),
    }
}
