//! CreateMultipartUpload, CompleteMultipartUpload and AbortMultipartUpload.

use federation::master::{CompleteRequest, NamedPart, UploadRequest};
use federation::types::{ChecksumAlgorithm, ChecksumKind, UploadId};
use http::HeaderMap;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumType, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CompletedPart, CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::Caller;
use super::checksum::{self, set_object_checksum, stated_checksums};
use super::error::{from_core, invalid_argument, invalid_request};
use super::put::take_headers;
use super::{Edge, describe, keys, numbered, target};

/// How many parts an object has at most; part numbers go up to it too.
pub const PARTS_MAX: u16 = 10_000;

/// CreateMultipartUpload.
pub async fn create_multipart_upload(
    edge: &Edge,
    mut request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let caller = Caller::of(&request)?;
    let headers = take_headers(&mut request);
    let input = request.input;
    let bucket = target::bucket(&input.bucket)?;
    let declared = declared_checksum(&headers)?;
    let upload = UploadRequest {
        path: keys::parse(&input.key)?,
        description: describe::read(&headers, input.metadata)?,
        // S3 keeps a checksum of every object, whether its client asked for one or not.
        checksum: Some(declared.unwrap_or((checksum::DEFAULT_ALGORITHM, ChecksumKind::FullObject))),
        checksum_declared: declared.is_some(),
    };
    let info = edge.cluster.begin_upload(&caller.actor, &bucket, upload).await.map_err(from_core)?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(keys::echoed(&input.key, false)),
        upload_id: Some(info.upload.to_string()),
        checksum_algorithm: declared
            .map(|(algorithm, _)| s3s::dto::ChecksumAlgorithm::from_static(checksum::name(algorithm))),
        checksum_type: declared.map(|(_, kind)| ChecksumType::from_static(checksum::kind_name(kind))),
        ..Default::default()
    }))
}

/// CompleteMultipartUpload.
pub async fn complete_multipart_upload(
    edge: &Edge,
    mut request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let caller = Caller::of(&request)?;
    let location = location(edge, &request);
    let headers = take_headers(&mut request);
    let input = request.input;
    let bucket = target::bucket(&input.bucket)?;
    let path = keys::parse(&input.key)?;
    let id = upload_id(&input.upload_id)?;
    let parts = named_parts(input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default())?;
    if let Some(kind) = describe::text(&headers, "x-amz-checksum-type")? {
        let info = edge.cluster.upload(&bucket, &path, id).await.map_err(from_core)?;
        check_kind(checksum::parse_kind(kind)?, info.checksum.map(|(_, kind)| kind))?;
    }
    if let Some(part) = parts.iter().find(|part| part.checksum.is_none())
        && let Ok(info) = edge.cluster.upload(&bucket, &path, id).await
    {
        // An upload that is not there any more may be one that this very request completed before.
        check_part_stated(part.number, info.checksum)?;
    }
    let complete = CompleteRequest {
        checksum: stated_checksum(&headers, parts.len())?,
        parts,
        size: input.mpu_object_size.map(object_size).transpose()?,
        precondition: describe::precondition(&headers)?,
    };
    let written = edge.cluster.complete_upload(&caller.actor, &bucket, &path, id, complete).await.map_err(from_core)?;

    let mut output = CompleteMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(keys::echoed(&input.key, false)),
        location: Some(location),
        e_tag: Some(ETag::Strong(written.etag.to_string())),
        version_id: written.name.map(|name| name.to_string()),
        ..Default::default()
    };
    set_object_checksum!(output, written.checksum.as_ref(), written.etag.parts);
    Ok(numbered(output, written.number))
}

/// AbortMultipartUpload.
pub async fn abort_multipart_upload(
    edge: &Edge,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = request.input;
    let bucket = target::bucket(&input.bucket)?;
    let path = keys::parse(&input.key)?;
    edge.cluster.abort_upload(&bucket, &path, upload_id(&input.upload_id)?).await.map_err(from_core)?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

/// Reads an upload id. One that cannot be is one that is not there.
pub fn upload_id(text: &str) -> S3Result<UploadId> {
    text.parse().map_err(|_| {
        let message = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been \
                       aborted or completed.";
        S3Error::with_message(S3ErrorCode::NoSuchUpload, message)
    })
}

/// Reads a part's number.
pub fn part_number(number: Option<i32>) -> S3Result<u16> {
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| (1..=PARTS_MAX).contains(number));
    number.ok_or_else(|| invalid_argument("Part number must be an integer between 1 and 10000, inclusive"))
}

/// The checksum that an upload is begun with, as S3 pairs algorithms and kinds.
fn declared_checksum(headers: &HeaderMap) -> S3Result<Option<(ChecksumAlgorithm, ChecksumKind)>> {
    let kind = describe::text(headers, "x-amz-checksum-type")?.map(checksum::parse_kind).transpose()?;
    let Some(name) = describe::text(headers, "x-amz-checksum-algorithm")? else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(invalid_request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )),
        };
    };
    let algorithm = checksum::parse_name(name).ok_or_else(|| {
        invalid_request(
            "Checksum algorithm provided is unsupported. Please try again with any of the \
                                        valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
        )
    })?;
    let kind = match (algorithm, kind) {
        (ChecksumAlgorithm::Crc64Nvme, None | Some(ChecksumKind::FullObject)) => ChecksumKind::FullObject,
        (ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256, None | Some(ChecksumKind::Composite)) => {
            ChecksumKind::Composite
        }
        (ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c, kind) => kind.unwrap_or(ChecksumKind::Composite),
        (ChecksumAlgorithm::Crc64Nvme | ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256, Some(kind)) => {
            return Err(invalid_request(format!(
                "The {} checksum type cannot be used with the {} checksum algorithm.",
                checksum::kind_name(kind),
                checksum::name(algorithm).to_lowercase()
            )));
        }
    };
    Ok(Some((algorithm, kind)))
}

fn check_kind(stated: ChecksumKind, declared: Option<ChecksumKind>) -> S3Result<()> {
    match declared {
        Some(declared) if declared != stated => Err(invalid_request(format!(
            "The upload was created using the {} checksum mode. The complete request must use the same checksum mode.",
            checksum::kind_name(declared)
        ))),
        _ => Ok(()),
    }
}

/// A composite checksum is one of the parts' checksums: the client has to say that it means these.
fn check_part_stated(number: u16, declared: Option<(ChecksumAlgorithm, ChecksumKind)>) -> S3Result<()> {
    match declared {
        Some((algorithm, ChecksumKind::Composite)) => Err(invalid_request(format!(
            "The upload was created using a {} checksum. The complete request must include the checksum for each part. \
             It was missing for part {number} in the request.",
            checksum::name(algorithm).to_lowercase()
        ))),
        Some((_, ChecksumKind::FullObject)) | None => Ok(()),
    }
}

/// The checksum of the whole object, if the client states one.
fn stated_checksum(headers: &HeaderMap, parts: usize) -> S3Result<Option<(ChecksumAlgorithm, Vec<u8>)>> {
    let mut stated = None;
    for algorithm in checksum::ALGORITHMS {
        let Some(text) = describe::text(headers, checksum::header(algorithm))? else { continue };
        if stated.is_some() {
            return Err(invalid_request("Expecting a single x-amz-checksum- header"));
        }
        stated = Some((algorithm, checksum::decode_object(algorithm, text, parts)?));
    }
    Ok(stated)
}

fn named_parts(parts: Vec<CompletedPart>) -> S3Result<Vec<NamedPart>> {
    if parts.is_empty() || parts.len() > usize::from(PARTS_MAX) {
        return Err(S3Error::new(S3ErrorCode::MalformedXML));
    }
    parts.into_iter().map(named_part).collect()
}

fn named_part(part: CompletedPart) -> S3Result<NamedPart> {
    let mut stated = stated_checksums!(part);
    let checksum = match (stated.next(), stated.next()) {
        (Some((algorithm, text)), None) => Some((algorithm, checksum::decode(algorithm, text)?)),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(invalid_request("Expecting a single checksum of each part")),
    };
    let number = part_number(part.part_number)?;
    let etag = part.e_tag.as_ref().ok_or_else(|| {
        S3Error::with_message(S3ErrorCode::MalformedXML, format!("part {number} is named without its ETag"))
    })?;
    Ok(NamedPart { number, checksum, etag: Some(etag.value().to_owned()) })
}

fn object_size(size: i64) -> S3Result<u64> {
    u64::try_from(size).map_err(|_| invalid_request("Value for x-amz-mp-object-size header is invalid"))
}

/// The URL of the object, as the client came here.
fn location(edge: &Edge, request: &S3Request<CompleteMultipartUploadInput>) -> String {
    let input = &request.input;
    let path = format!("/{}/{}", input.bucket, keys::url_encode(&input.key));
    let host = request.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    match host.or(request.uri.host()) {
        Some(host) => format!("{}://{host}{path}", if edge.https { "https" } else { "http" }),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(algorithm: &str, kind: &str) -> Option<(ChecksumAlgorithm, ChecksumKind)> {
        let pairs = [("x-amz-checksum-algorithm", algorithm), ("x-amz-checksum-type", kind)];
        let headers = pairs
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        declared_checksum(&headers).ok().flatten()
    }

    #[test]
    fn algorithms_and_kinds_as_s3_pairs_them() {
        use ChecksumAlgorithm::{Crc32, Crc64Nvme, Sha256};
        use ChecksumKind::{Composite, FullObject};
        assert_eq!(declared("", ""), None);
        assert_eq!(declared("CRC32", ""), Some((Crc32, Composite)));
        assert_eq!(declared("CRC32", "FULL_OBJECT"), Some((Crc32, FullObject)));
        assert_eq!(declared("CRC64NVME", ""), Some((Crc64Nvme, FullObject)));
        assert_eq!(declared("SHA256", "COMPOSITE"), Some((Sha256, Composite)));
        for (algorithm, kind) in
            [("CRC64NVME", "COMPOSITE"), ("SHA1", "FULL_OBJECT"), ("CRC32", "OTHER"), ("", "COMPOSITE")]
        {
            assert_eq!(declared(algorithm, kind), None, "{algorithm} {kind}");
        }
    }

    #[test]
    fn part_numbers_are_bounded() {
        assert_eq!(part_number(Some(10_000)).unwrap(), 10_000);
        for bad in [None, Some(0), Some(-1), Some(10_001), Some(70_000)] {
            assert!(part_number(bad).is_err(), "{bad:?}");
        }
    }
}
