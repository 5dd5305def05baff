//! PutObject, and how any body is received.

use bytes::Bytes;
use federation::blobs::StagedBody;
use federation::master::PutRequest;
use federation::types::{BucketAt, ChecksumAlgorithm, SMALL_BODY_MAX};
use futures_util::Stream;
use http::HeaderMap;
use s3s::dto::{ETag, PutObjectInput, PutObjectOutput, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, StdError, TrailingHeaders};

use super::access::Caller;
use super::checksum::{DEFAULT_ALGORITHM, set_object_checksum};
use super::error::{from_core, from_store, invalid_argument};
use super::odd_headers::{OddHeaders, Trailers};
use super::stated::{Stated, kept};
use super::{Edge, describe, keys, numbered, query, target};
use crate::digest::{Digested, Digests};

/// PutObject.
pub async fn put_object(edge: &Edge, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
    let caller = Caller::of(&request)?;
    let headers = take_headers(&mut request);
    let trailing_headers = take_trailers(&mut request);
    let S3Request { input, .. } = request;
    let bucket = target::bucket(&input.bucket)?;
    let path = keys::parse(&input.key)?;
    let precondition = describe::precondition(&headers)?;
    let description = describe::read(&headers, input.metadata)?;
    let stated = Stated::read(&headers)?;
    let length = body_length(input.content_length)?;
    if length > SMALL_BODY_MAX {
        // Refused before the body is sent rather than after.
        edge.require_bucket(&BucketAt::newest(bucket.clone())).await?;
    }

    let algorithm = stated.algorithm().unwrap_or(DEFAULT_ALGORITHM);
    let body = Incoming { body: input.body, length, stated, trailers: trailing_headers };
    let (staged, digested) = body.receive(edge, algorithm).await?;
    let put =
        PutRequest { body: staged, md5: digested.md5, checksum: kept(&digested, algorithm), description, precondition };
    let written = edge.cluster.put(&caller.actor, &bucket, &path, put).await.map_err(from_core)?;

    let mut output = PutObjectOutput {
        e_tag: Some(ETag::Strong(written.etag.to_string())),
        version_id: written.name.map(|name| name.to_string()),
        ..Default::default()
    };
    set_object_checksum!(output, written.checksum.as_ref(), written.etag.parts);
    Ok(numbered(output, written.number))
}

/// A body on its way in.
pub struct Incoming {
    /// Its bytes.
    pub body: Option<StreamingBlob>,
    /// How many there will be.
    pub length: u64,
    /// What its client states of it.
    pub stated: Stated,
    /// What comes after it.
    pub trailers: Option<TrailingHeaders>,
}

impl Incoming {
    /// Takes the body in and compares it with what was stated. Of a body that is not what it should be nothing remains.
    pub async fn receive(self, edge: &Edge, kept: ChecksumAlgorithm) -> S3Result<(StagedBody, Digested)> {
        let digests = self.stated.digests(kept);
        let (staged, digested) = match self.body {
            Some(body) => store(edge, body, digests, self.length).await?,
            None => store(edge, futures_util::stream::empty::<Result<Bytes, StdError>>(), digests, self.length).await?,
        };
        if staged.length() != self.length {
            return Err(S3Error::new(S3ErrorCode::IncompleteBody));
        }
        self.stated.verify(&digested, self.trailers.as_ref())?;
        Ok((staged, digested))
    }
}

/// Stores bytes with their digests. Nothing is durable before the core's transaction.
pub async fn store(
    edge: &Edge,
    body: impl Stream<Item = Result<Bytes, StdError>> + Send,
    digests: Digests,
    length: u64,
) -> S3Result<(StagedBody, Digested)> {
    let stored = edge.cluster.blobs().store(body, digests, Some(length), edge.limits.body_bytes_max).await;
    let (staged, digests) = stored.map_err(from_store)?;
    Ok((staged, digests.finish()))
}

/// How long a body is: S3 takes none that does not say so.
pub fn body_length(content_length: Option<i64>) -> S3Result<u64> {
    let length = content_length.ok_or_else(|| S3Error::new(S3ErrorCode::MissingContentLength))?;
    u64::try_from(length).map_err(|_| invalid_argument("invalid header: content-length"))
}

/// Takes the headers of a request that writes, with those that were presigned into its query.
pub fn take_headers<T>(request: &mut S3Request<T>) -> HeaderMap {
    let mut headers = query::with_presigned(std::mem::take(&mut request.headers), &request.uri);
    OddHeaders::restore(&mut request.extensions, &mut headers);
    headers
}

/// Takes what comes after the body of a request, whether s3s or a route of ours handed it on.
pub fn take_trailers<T>(request: &mut S3Request<T>) -> Option<TrailingHeaders> {
    let put_right = request.extensions.remove::<Trailers>().and_then(|Trailers(trailers)| trailers);
    request.trailing_headers.take().or(put_right)
}
