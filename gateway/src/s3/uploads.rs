//! ListMultipartUploads and ListParts.

use federation::master::{AfterUpload, UploadInfo, UploadItem, UploadedPart, UploadsQuery};
use federation::types::{BucketName, UploadId};
use s3s::dto::{
    ChecksumAlgorithm, ChecksumType, CommonPrefix, ETag, Initiator, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload, Part, StorageClass,
};
use s3s::{S3Request, S3Response, S3Result};

use super::access::Caller;
use super::checksum::{self, set_checksum};
use super::error::{from_core, invalid_argument, invalid_request};
use super::list::{Marker, Shape, items_max, page_size};
use super::multipart::upload_id;
use super::{Edge, keys, time};

/// ListMultipartUploads.
pub async fn list_multipart_uploads(
    edge: &Edge,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let bucket = bucket(&request, &request.input.bucket)?;
    let input = request.input;
    let shape = Shape::of(input.prefix.as_deref(), input.delimiter.as_deref(), input.encoding_type.as_ref())?;
    let max_uploads = page_size(input.max_uploads, "max-uploads")?;
    let after = after(&shape, input.key_marker.as_deref(), input.upload_id_marker.as_deref())?;
    let (items, next) = if max_uploads == 0 {
        edge.cluster.bucket(&bucket).await.map_err(from_core)?;
        (Vec::new(), None)
    } else {
        let query = UploadsQuery {
            prefix: shape.prefix.clone(),
            delimiter: shape.delimiter.clone(),
            after,
            max: items_max(max_uploads),
        };
        let page = edge.cluster.list_uploads(&bucket, query).await.map_err(from_core)?;
        (page.items, page.next)
    };

    let (uploads, common_prefixes) = listed(edge, &shape, items);
    let (next_key_marker, next_upload_id_marker) = match &next {
        Some(AfterUpload::Key(place) | AfterUpload::Prefix(place)) => (Some(place), None),
        Some(AfterUpload::Upload(key, upload)) => (Some(key), Some(upload.to_string())),
        None => (None, None),
    };
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: Some(shape.echo(input.prefix.as_deref()).unwrap_or_default()),
        delimiter: shape.echo(input.delimiter.as_deref()),
        key_marker: Some(shape.echo(input.key_marker.as_deref()).unwrap_or_default()),
        upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
        next_key_marker: next_key_marker.map(|place| keys::listed(place, shape.url)),
        next_upload_id_marker,
        max_uploads: Some(max_uploads),
        is_truncated: Some(next.is_some()),
        uploads: Some(uploads),
        common_prefixes: Some(common_prefixes),
        encoding_type: input.encoding_type,
        request_charged: None,
    }))
}

/// ListParts.
pub async fn list_parts(edge: &Edge, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
    let bucket = bucket(&request, &request.input.bucket)?;
    let input = request.input;
    let path = keys::parse(&input.key)?;
    let id = upload_id(&input.upload_id)?;
    let max_parts = page_size(input.max_parts, "max-parts")?;
    let marker = input.part_number_marker.unwrap_or(0);
    let after = u16::try_from(marker).map_err(|_| invalid_argument("part-number-marker is out of range"))?;
    let (info, page) =
        edge.cluster.list_parts(&bucket, &path, id, after, items_max(max_parts).max(1)).await.map_err(from_core)?;

    // A page of nothing still says whose upload it is.
    let empty = max_parts == 0;
    let next = page.next.filter(|_| !empty);
    let parts = if empty { Vec::new() } else { page.items.iter().map(part).collect() };
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(keys::echoed(&input.key, false)),
        upload_id: Some(input.upload_id),
        initiator: Some(initiator(edge)),
        owner: Some(edge.owner()),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        checksum_algorithm: algorithm(&info),
        checksum_type: kind(&info),
        part_number_marker: Some(marker),
        next_part_number_marker: next.map(i32::from),
        max_parts: Some(max_parts),
        is_truncated: Some(next.is_some()),
        parts: Some(parts),
        ..Default::default()
    }))
}

/// The bucket whose uploads are listed, which is never a snapshot.
fn bucket<T>(request: &S3Request<T>, name: &str) -> S3Result<BucketName> {
    let at = Caller::of(request)?.bucket_at(name)?;
    match at.snapshot {
        None => Ok(at.bucket),
        Some(_) => Err(invalid_request(format!(
            "uploads belong to the bucket as it is and not to {at}; list those of {}, without x-elton-at",
            at.bucket
        ))),
    }
}

fn part(part: &UploadedPart) -> Part {
    let mut listed = Part {
        part_number: Some(i32::from(part.number)),
        size: Some(i64::try_from(part.size).unwrap_or(i64::MAX)),
        e_tag: Some(ETag::Strong(federation::types::ETag { md5: part.md5, parts: None }.to_string())),
        last_modified: Some(time::to_s3(part.modified)),
        ..Default::default()
    };
    if let Some(checksum) = &part.checksum {
        set_checksum!(listed, checksum.algorithm, checksum::encode(checksum, None));
    }
    listed
}

fn listed(edge: &Edge, shape: &Shape, items: Vec<UploadItem>) -> (Vec<MultipartUpload>, Vec<CommonPrefix>) {
    let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            UploadItem::Prefix(prefix) => prefixes.push(shape.common_prefix(&prefix)),
            UploadItem::Upload(info) => uploads.push(MultipartUpload {
                key: Some(keys::listed(info.path.as_bytes(), shape.url)),
                upload_id: Some(info.upload.to_string()),
                initiated: Some(time::to_s3(info.begun)),
                initiator: Some(initiator(edge)),
                owner: Some(edge.owner()),
                storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                checksum_algorithm: algorithm(&info),
                checksum_type: kind(&info),
            }),
        }
    }
    (uploads, prefixes)
}

fn after(shape: &Shape, key: Option<&str>, upload: Option<&str>) -> S3Result<Option<AfterUpload>> {
    let Some(key) = key.filter(|key| !key.is_empty()) else { return Ok(None) };
    // Without a key, S3 ignores the upload.
    if let Some(upload) = upload.filter(|upload| !upload.is_empty()) {
        let upload: UploadId = upload.parse().map_err(|_| invalid_argument("Invalid uploadId marker"))?;
        return Ok(Some(AfterUpload::Upload(keys::bytes(key).into_owned(), upload)));
    }
    Ok(Some(match shape.marker(key) {
        Marker::Key(key) => AfterUpload::Key(key),
        Marker::Prefix(prefix) => AfterUpload::Prefix(prefix),
    }))
}

fn initiator(edge: &Edge) -> Initiator {
    Initiator { id: Some(edge.owner.id.clone()), display_name: Some(edge.owner.display_name.clone()) }
}

fn algorithm(info: &UploadInfo) -> Option<ChecksumAlgorithm> {
    info.checksum.map(|(algorithm, _)| ChecksumAlgorithm::from_static(checksum::name(algorithm)))
}

fn kind(info: &UploadInfo) -> Option<ChecksumType> {
    info.checksum.map(|(_, kind)| ChecksumType::from_static(checksum::kind_name(kind)))
}
