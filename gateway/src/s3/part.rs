//! UploadPart and UploadPartCopy.

use federation::master::{PartBody, PartRequest, UploadInfo, UploadedPart, Version};
use federation::types::{Body, BucketName, ChecksumAlgorithm, ChecksumKind, ETag, ObjectPath, UploadId};
use futures_util::StreamExt as _;
use s3s::dto::{self, CopyPartResult, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput};
use s3s::{S3Request, S3Response, S3Result, StdError};

use super::access::Caller;
use super::checksum::{self, DEFAULT_ALGORITHM, set_checksum};
use super::condition::Conditions;
use super::copy::{COPY_BYTES_MAX, Source, too_large};
use super::error::{from_core, invalid_request};
use super::multipart::{part_number, upload_id};
use super::put::{Incoming, body_length, store, take_headers, take_trailers};
use super::stated::{Stated, kept};
use super::{Edge, keys, range, target, time};
use crate::digest::Digests;

/// UploadPart.
pub async fn upload_part(
    edge: &Edge,
    mut request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let stated = Stated::read(&take_headers(&mut request))?;
    let trailing_headers = take_trailers(&mut request);
    let S3Request { input, .. } = request;
    let target = Target::of(&input.bucket, &input.key, &input.upload_id, input.part_number)?;
    let length = body_length(input.content_length)?;
    let upload = target.upload(edge).await?;
    let algorithm = algorithm(&upload);
    check_algorithm(&upload, stated.algorithm())?;

    let body = Incoming { body: input.body, length, stated, trailers: trailing_headers };
    let (staged, digested) = body.receive(edge, algorithm).await?;
    let checksum = kept(&digested, algorithm);
    let part = target.put(edge, PartRequest { body: PartBody::Staged(staged), md5: digested.md5, checksum }).await?;

    let mut output = UploadPartOutput { e_tag: Some(etag(&part)), ..Default::default() };
    if let Some(checksum) = &part.checksum {
        set_checksum!(output, checksum.algorithm, checksum::encode(checksum, None));
    }
    Ok(S3Response::new(output))
}

/// UploadPartCopy.
pub async fn upload_part_copy(
    edge: &Edge,
    mut request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    Caller::of(&request)?;
    let headers = take_headers(&mut request);
    let source = Source::of(&request.input.copy_source, &request.extensions)?;
    let input = request.input;
    let target = Target::of(&input.bucket, &input.key, &input.upload_id, input.part_number)?;
    let conditions = Conditions::copy_source(
        &headers,
        input.copy_source_if_modified_since.as_ref(),
        input.copy_source_if_unmodified_since.as_ref(),
    )?;
    let algorithm = algorithm(&target.upload(edge).await?);
    let version = source.head(edge).await?;
    conditions.check_source(&version.record.etag, version.record.modified)?;

    let part = match input.copy_source_range.as_deref() {
        None if is_one_piece(&version, algorithm) => target.put(edge, reference(version.clone())).await?,
        asked => {
            let size = version.record.size;
            let bytes = asked.map_or(Ok(0..size), |text| range::copy_source(text, size))?;
            copy_bytes(edge, &source, &version, &target, bytes, algorithm).await?
        }
    };
    let mut result = CopyPartResult {
        e_tag: Some(etag(&part)),
        last_modified: Some(time::to_s3(part.modified)),
        ..Default::default()
    };
    if let Some(checksum) = &part.checksum {
        set_checksum!(result, checksum.algorithm, checksum::encode(checksum, None));
    }
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(result),
        copy_source_version_id: target::version_id(&version),
        ..Default::default()
    }))
}

/// The part that a request writes.
struct Target {
    bucket: BucketName,
    path: ObjectPath,
    upload: UploadId,
    number: u16,
}

impl Target {
    fn of(bucket: &str, key: &str, upload: &str, number: i32) -> S3Result<Target> {
        Ok(Target {
            bucket: target::bucket(bucket)?,
            path: keys::parse(key)?,
            number: part_number(Some(number))?,
            upload: upload_id(upload)?,
        })
    }

    async fn upload(&self, edge: &Edge) -> S3Result<UploadInfo> {
        edge.cluster.upload(&self.bucket, &self.path, self.upload).await.map_err(from_core)
    }

    async fn put(&self, edge: &Edge, part: PartRequest) -> S3Result<UploadedPart> {
        edge.cluster.put_part(&self.bucket, &self.path, self.upload, self.number, part).await.map_err(from_core)
    }
}

/// The algorithm that an upload's parts have their checksums by.
fn algorithm(upload: &UploadInfo) -> ChecksumAlgorithm {
    upload.checksum.map_or(DEFAULT_ALGORITHM, |(algorithm, _)| algorithm)
}

/// A part that states a checksum states it by its upload's algorithm; the checksum of one that states none is computed.
/// An upload that was begun without an algorithm takes parts with any, and keeps its own.
fn check_algorithm(upload: &UploadInfo, stated: Option<ChecksumAlgorithm>) -> S3Result<()> {
    let expected = algorithm(upload);
    match stated.filter(|stated| upload.checksum_declared && *stated != expected) {
        Some(stated) => Err(invalid_request(format!(
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            checksum::name(expected).to_lowercase(),
            checksum::name(stated).to_lowercase()
        ))),
        None => Ok(()),
    }
}

/// Whether the whole of a version can be the part as it stands: then nothing is read or written.
fn is_one_piece(version: &Version, algorithm: ChecksumAlgorithm) -> bool {
    let record = &version.record;
    matches!(record.body, Body::Whole(_))
        && record.etag.parts.is_none()
        && record
            .checksum
            .as_ref()
            .is_some_and(|checksum| checksum.algorithm == algorithm && checksum.kind == ChecksumKind::FullObject)
}

fn reference(version: Version) -> PartRequest {
    let (md5, checksum) = (version.record.etag.md5, version.record.checksum.clone());
    PartRequest { body: PartBody::Reference(Box::new(version)), md5, checksum }
}

/// Reads bytes of the source and stores them as a part.
async fn copy_bytes(
    edge: &Edge,
    source: &Source,
    version: &Version,
    target: &Target,
    bytes: std::ops::Range<u64>,
    algorithm: ChecksumAlgorithm,
) -> S3Result<UploadedPart> {
    let length = bytes.end - bytes.start;
    if length > COPY_BYTES_MAX {
        return Err(too_large());
    }
    let opened = source.open(edge).await?;
    if opened.version.number != version.number {
        // The key was written between the two looks at it.
        return Err(from_core(federation::Error::Conflict));
    }
    let body = opened.body.read(bytes).map(|piece| piece.map_err(|error| Box::new(error) as StdError));
    let (staged, digested) = store(edge, body, Digests::new([algorithm]), length).await?;
    let checksum = kept(&digested, algorithm);
    target.put(edge, PartRequest { body: PartBody::Staged(staged), md5: digested.md5, checksum }).await
}

fn etag(part: &UploadedPart) -> dto::ETag {
    dto::ETag::Strong(ETag { md5: part.md5, parts: None }.to_string())
}
