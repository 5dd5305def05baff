//! GetObjectAttributes.

use federation::master::{PartInfo, Version};
use s3s::dto::{
    Checksum, ETag, GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectAttributesParts, ObjectAttributes,
    ObjectPart, StorageClass,
};
use s3s::{S3Request, S3Response, S3Result};

use super::access::Caller;
use super::checksum::{self, set_checksum, set_object_checksum};
use super::error::{from_core, invalid_argument};
use super::list::{items_max, page_size};
use super::target::{version_id, which};
use super::{Edge, keys, numbered, time};

/// GetObjectAttributes.
pub async fn get_object_attributes(
    edge: &Edge,
    request: S3Request<GetObjectAttributesInput>,
) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    let input = request.input;
    let path = keys::parse(&input.key)?;
    let wanted = Wanted::read(&input.object_attributes)?;
    let max_parts = page_size(input.max_parts, "x-amz-max-parts")?;
    let marker = input.part_number_marker.unwrap_or(0);
    let after = u16::try_from(marker).map_err(|_| invalid_argument("x-amz-part-number-marker is out of range"))?;
    let which = which(&edge.cluster, &at, input.version_id.as_deref()).await?;
    let version = edge.cluster.head(&at, &path, which).await.map_err(from_core)?;

    let record = &version.record;
    let parts = if wanted.parts { edge.cluster.parts(&version).await.map_err(from_core)? } else { Vec::new() };
    let output = GetObjectAttributesOutput {
        e_tag: wanted.etag.then(|| ETag::Strong(record.etag.to_string())),
        checksum: if wanted.checksum { object_checksum(&version) } else { None },
        object_parts: (!parts.is_empty()).then(|| page(&parts, after, max_parts)),
        object_size: wanted.size.then(|| i64::try_from(record.size).unwrap_or(i64::MAX)),
        storage_class: wanted.storage_class.then(|| StorageClass::from_static(StorageClass::STANDARD)),
        last_modified: Some(time::to_s3(record.modified)),
        version_id: version_id(&version),
        delete_marker: None,
        request_charged: None,
    };
    Ok(numbered(output, version.number))
}

/// Which attributes are wanted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    etag: bool,
    checksum: bool,
    parts: bool,
    storage_class: bool,
    size: bool,
}

impl Wanted {
    /// Reads the names: one header for each, or one for all, with commas.
    fn read(names: &[ObjectAttributes]) -> S3Result<Wanted> {
        let mut wanted = Wanted::default();
        for name in names.iter().flat_map(|names| names.as_str().split(',')) {
            match name.trim() {
                ObjectAttributes::ETAG => wanted.etag = true,
                ObjectAttributes::CHECKSUM => wanted.checksum = true,
                ObjectAttributes::OBJECT_PARTS => wanted.parts = true,
                ObjectAttributes::STORAGE_CLASS => wanted.storage_class = true,
                ObjectAttributes::OBJECT_SIZE => wanted.size = true,
                _ => return Err(invalid_argument("Invalid attribute name specified.")),
            }
        }
        Ok(wanted)
    }
}

fn object_checksum(version: &Version) -> Option<Checksum> {
    let record = &version.record;
    let mut output = Checksum::default();
    // Here S3 shows a composite checksum without the number of its parts.
    set_object_checksum!(output, record.checksum.as_ref(), None);
    record.checksum.is_some().then_some(output)
}

fn page(parts: &[PartInfo], after: u16, max: i32) -> GetObjectAttributesParts {
    let rest: Vec<&PartInfo> = parts.iter().filter(|part| part.number > after).collect();
    let listed = &rest[..rest.len().min(items_max(max))];
    let is_truncated = listed.len() < rest.len();
    GetObjectAttributesParts {
        is_truncated: Some(is_truncated),
        max_parts: Some(max),
        part_number_marker: Some(i32::from(after)),
        next_part_number_marker: Some(listed.last().map_or(0, |part| i32::from(part.number))),
        parts: Some(listed.iter().map(|part| object_part(part)).collect()),
        total_parts_count: i32::try_from(parts.len()).ok(),
    }
}

fn object_part(part: &PartInfo) -> ObjectPart {
    let mut output = ObjectPart {
        part_number: Some(i32::from(part.number)),
        size: Some(i64::try_from(part.length).unwrap_or(i64::MAX)),
        ..Default::default()
    };
    if let Some(checksum) = &part.checksum {
        set_checksum!(output, checksum.algorithm, checksum::encode(checksum, None));
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_one_header_or_in_many() {
        let read = |names: &[&'static str]| {
            Wanted::read(&names.iter().map(|name| ObjectAttributes::from_static(name)).collect::<Vec<_>>()).ok()
        };
        let both = Some(Wanted { etag: true, size: true, ..Wanted::default() });
        assert_eq!(read(&["ETag, ObjectSize"]), both);
        assert_eq!(read(&["ETag", "ObjectSize"]), both);
        assert_eq!(read(&["Colour"]), None);
    }

    #[test]
    fn parts_come_in_pages() {
        let parts: Vec<PartInfo> =
            (1..=5).map(|number| PartInfo { number, offset: 0, length: 1, checksum: None }).collect();
        let first = page(&parts, 0, 2);
        assert_eq!((first.is_truncated, first.next_part_number_marker), (Some(true), Some(2)));
        let last = page(&parts, 4, 2);
        assert_eq!(
            (last.is_truncated, last.next_part_number_marker, last.total_parts_count),
            (Some(false), Some(5), Some(5))
        );
    }
}
