//! CopyObject, and the source of any copy.

use federation::master::{CopyRequest, Opened, Version, Which};
use federation::types::{BucketAt, Checksum, ChecksumAlgorithm, ChecksumKind, ContentHeader, ObjectPath, Pair};
use futures_util::StreamExt as _;
use http::{Extensions, HeaderMap};
use s3s::dto::{CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, ETag, Metadata, MetadataDirective};
use s3s::{S3Error, S3Request, S3Response, S3Result};

use super::access::Caller;
use super::checksum::{self, set_object_checksum};
use super::condition::Conditions;
use super::error::{from_core, invalid_argument, invalid_request, not_implemented};
use super::put::take_headers;
use super::rewrite::SourceBucket;
use super::{Edge, describe, keys, numbered, tags, target, time};
use crate::digest::ChecksumHasher;

/// The most bytes that one copy takes.
pub const COPY_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// CopyObject.
pub async fn copy_object(
    edge: &Edge,
    mut request: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    let caller = Caller::of(&request)?;
    let headers = take_headers(&mut request);
    let source = Source::of(&request.input.copy_source, &request.extensions)?;
    let input = request.input;
    let bucket = target::bucket(&input.bucket)?;
    let path = keys::parse(&input.key)?;
    let replaces = Replaces::read(&headers)?;
    let is_itself = source.at.snapshot.is_none() && source.at.bucket == bucket && source.path == path;
    if is_itself && source.version_id.is_none() && !replaces.description && !changes(&headers) {
        return Err(invalid_request(
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes.",
        ));
    }
    let conditions = Conditions::copy_source(
        &headers,
        input.copy_source_if_modified_since.as_ref(),
        input.copy_source_if_unmodified_since.as_ref(),
    )?;
    let precondition = describe::precondition(&headers)?;
    let algorithm = describe::text(&headers, "x-amz-checksum-algorithm")?.and_then(checksum::parse_name);

    let version = source.head(edge).await?;
    conditions.check_source(&version.record.etag, version.record.modified)?;
    if version.record.size > COPY_BYTES_MAX {
        return Err(too_large());
    }
    let copy = CopyRequest {
        description: description(&headers, &version, input.metadata, replaces.description)?,
        tags: new_tags(&headers, replaces.tags)?,
        checksum: new_checksum(edge, &source, &version, algorithm).await?,
        precondition,
    };
    let written = edge.cluster.copy(&caller.actor, &version, &bucket, &path, copy).await.map_err(from_core)?;

    let mut result = CopyObjectResult {
        e_tag: Some(ETag::Strong(written.etag.to_string())),
        last_modified: Some(time::to_s3(written.modified)),
        ..Default::default()
    };
    set_object_checksum!(result, written.checksum.as_ref(), written.etag.parts);
    let output = CopyObjectOutput {
        copy_object_result: Some(result),
        copy_source_version_id: target::version_id(&version),
        version_id: written.name.map(|name| name.to_string()),
        ..Default::default()
    };
    Ok(numbered(output, written.number))
}

/// What is copied.
pub struct Source {
    /// The bucket, or a snapshot of it.
    pub at: BucketAt,
    /// The key.
    pub path: ObjectPath,
    /// The version, if one is named.
    pub version_id: Option<String>,
}

impl Source {
    /// Reads `x-amz-copy-source`. A snapshot's name that is too long for s3s stands in the extensions.
    pub fn of(source: &CopySource, extensions: &Extensions) -> S3Result<Source> {
        let CopySource::Bucket { bucket, key, version_id } = source else {
            return Err(not_implemented("x-amz-copy-source: access points"));
        };
        let bucket = extensions.get::<SourceBucket>().map_or(bucket.as_ref(), |long| &long.0);
        Ok(Source {
            at: target::bucket_at(bucket, None)?,
            path: keys::parse(key)?,
            version_id: version_id.as_deref().map(str::to_owned),
        })
    }

    /// The version that is copied.
    pub async fn head(&self, edge: &Edge) -> S3Result<Version> {
        let which = self.which(edge).await?;
        edge.cluster.head(&self.at, &self.path, which).await.map_err(not_a_marker)
    }

    /// The version that is copied, with its body.
    pub async fn open(&self, edge: &Edge) -> S3Result<Opened> {
        let which = self.which(edge).await?;
        edge.cluster.get(&self.at, &self.path, which).await.map_err(not_a_marker)
    }

    async fn which(&self, edge: &Edge) -> S3Result<Which> {
        target::which(&edge.cluster, &self.at, self.version_id.as_deref()).await
    }
}

fn not_a_marker(error: federation::Error) -> S3Error {
    match error {
        federation::Error::DeleteMarker { named: true, .. } => {
            invalid_request("The source of a copy request may not specifically refer to a delete marker by version id.")
        }
        error => from_core(error),
    }
}

/// 400 for a source that takes a multipart copy.
pub fn too_large() -> S3Error {
    invalid_request(format!(
        "The specified copy source is larger than the maximum allowable size for a copy source: {COPY_BYTES_MAX}"
    ))
}

/// What a copy is told to replace.
struct Replaces {
    description: bool,
    tags: bool,
}

impl Replaces {
    fn read(headers: &HeaderMap) -> S3Result<Replaces> {
        Ok(Replaces {
            description: replaces(headers, "x-amz-metadata-directive")?,
            tags: replaces(headers, "x-amz-tagging-directive")?,
        })
    }
}

fn replaces(headers: &HeaderMap, name: &str) -> S3Result<bool> {
    match describe::text(headers, name)? {
        None | Some(MetadataDirective::COPY) => Ok(false),
        Some(MetadataDirective::REPLACE) => Ok(true),
        Some(_) => Err(invalid_argument(format!("{name} is COPY or REPLACE"))),
    }
}

/// What makes a copy of an object to itself lawful, beside new metadata.
fn changes(headers: &HeaderMap) -> bool {
    ["x-amz-storage-class", "x-amz-website-redirect-location"].iter().any(|name| headers.contains_key(*name))
}

type Description = (Vec<(ContentHeader, String)>, Vec<Pair>);

/// The copy's own headers and metadata; none if it has all of its source.
fn description(
    headers: &HeaderMap,
    source: &Version,
    metadata: Option<Metadata>,
    replace: bool,
) -> S3Result<Option<Description>> {
    let sent = describe::content_headers(headers)?;
    if replace {
        return Ok(Some((sent, describe::metadata(headers, metadata)?)));
    }
    // A redirect is never copied: it is the request's or none.
    let is_redirect = |header: &&(ContentHeader, String)| header.0 == ContentHeader::WebsiteRedirect;
    let redirect = sent.iter().find(is_redirect);
    if redirect.is_none() && !source.record.headers.iter().any(|header| is_redirect(&header)) {
        return Ok(None);
    }
    let kept = source.record.headers.iter().filter(|header| !is_redirect(header)).chain(redirect);
    Ok(Some((kept.cloned().collect(), source.record.metadata.clone())))
}

fn new_tags(headers: &HeaderMap, replace: bool) -> S3Result<Option<Vec<Pair>>> {
    if !replace {
        return Ok(None);
    }
    Ok(Some(describe::text(headers, "x-amz-tagging")?.map(tags::from_header).transpose()?.unwrap_or_default()))
}

/// The checksum that the client asks for, read from the body only where the source has another or none.
async fn new_checksum(
    edge: &Edge,
    source: &Source,
    version: &Version,
    algorithm: Option<ChecksumAlgorithm>,
) -> S3Result<Option<Checksum>> {
    let known = version.record.checksum.as_ref();
    let algorithm = match (algorithm, known) {
        (Some(algorithm), Some(known)) if known.algorithm == algorithm => return Ok(None),
        (None, Some(_)) => return Ok(None),
        (Some(algorithm), _) => algorithm,
        (None, None) => checksum::DEFAULT_ALGORITHM,
    };
    let opened = source.open(edge).await?;
    if opened.version.number != version.number {
        // The key was written between the two looks at it.
        return Err(from_core(federation::Error::Conflict));
    }
    let mut hasher = ChecksumHasher::new(algorithm);
    let mut body = std::pin::pin!(opened.body.read(0..version.record.size));
    while let Some(piece) = body.next().await {
        hasher.update(&piece.map_err(from_core)?);
    }
    Ok(Some(Checksum { algorithm, kind: ChecksumKind::FullObject, value: hasher.finish() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_be_a_snapshot() {
        let source = CopySource::parse("photos--at-42/a%20b?versionId=7").unwrap();
        let read = Source::of(&source, &Extensions::new()).unwrap();
        assert_eq!(read.at.to_string(), "photos@42");
        assert_eq!(read.path.as_bytes(), b"a b");
        assert_eq!(read.version_id.as_deref(), Some("7"));
        let mut extensions = Extensions::new();
        extensions.insert(SourceBucket("other--at-7".to_owned()));
        assert_eq!(Source::of(&source, &extensions).unwrap().at.to_string(), "other@7");
    }

    #[test]
    fn directives_are_two() {
        let read =
            |value: &str| replaces(&HeaderMap::from_iter([("x-d".parse().unwrap(), value.parse().unwrap())]), "x-d");
        assert!(!read("COPY").unwrap());
        assert!(read("REPLACE").unwrap());
        assert!(read("MERGE").is_err());
    }
}
