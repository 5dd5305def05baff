//! GetObject and HeadObject.

use bytes::Bytes;
use federation::cluster::Cluster;
use federation::master::{BodyReader, Version};
use federation::types::{Checksum, ChecksumKind, ContentHeader};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName};
use s3s::dto::{
    ChecksumMode, ETag, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, Range, StreamingBlob,
    Timestamp, TimestampFormat,
};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Error, S3Request, S3Response, S3Result};

use super::access::Caller;
use super::checksum::set_object_checksum;
use super::condition::{Conditions, Verdict, failed, not_modified, range_allowed};
use super::describe::{DEFAULT_CONTENT_TYPE, content_header};
use super::error::{from_core, invalid_argument, invalid_request};
use super::range::{Selection, no_such_part};
use super::target::{version_id, which};
use super::{Edge, X_ELTON_VERSION, keys, read_of, time};

/// GetObject.
pub async fn get_object(edge: &Edge, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    let path = keys::parse(&request.input.key)?;
    let input = &request.input;
    let which = which(&edge.cluster, &at, input.version_id.as_deref()).await?;
    let conditions =
        Conditions::read(&request.headers, input.if_modified_since.as_ref(), input.if_unmodified_since.as_ref())?;
    let wanted = Wanted::of(input.range, input.part_number)?;
    let opened = edge.cluster.get(&at, &path, which).await.map_err(from_core)?;

    let version = opened.version;
    check(&conditions, &version)?;
    let answer = Answer::of(&edge.cluster, &request.headers, &version, wanted, input.checksum_mode.as_ref()).await?;
    let mut output: GetObjectOutput = represent!(GetObjectOutput, &version, &answer);
    output.body = Some(body(opened.body, &answer.selection, version.record.size).await?);
    Ok(read_of(output, &version))
}

/// HeadObject.
pub async fn head_object(edge: &Edge, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    let path = keys::parse(&request.input.key)?;
    let input = &request.input;
    let which = which(&edge.cluster, &at, input.version_id.as_deref()).await?;
    let conditions =
        Conditions::read(&request.headers, input.if_modified_since.as_ref(), input.if_unmodified_since.as_ref())?;
    let wanted = Wanted::of(input.range, input.part_number)?;
    let version = edge.cluster.head(&at, &path, which).await.map_err(from_core)?;

    check(&conditions, &version)?;
    let answer = Answer::of(&edge.cluster, &request.headers, &version, wanted, input.checksum_mode.as_ref()).await?;
    let mut output: HeadObjectOutput = represent!(HeadObjectOutput, &version, &answer);
    override_headers(&mut output, request.input);
    Ok(read_of(output, &version))
}

/// What a read wants of an object.
enum Wanted {
    Whole,
    Range(Range),
    Part(u16),
}

impl Wanted {
    fn of(range: Option<Range>, part: Option<i32>) -> S3Result<Wanted> {
        match (range, part) {
            (None, None) => Ok(Wanted::Whole),
            (Some(range), None) => Ok(Wanted::Range(range)),
            (None, Some(part)) => match u16::try_from(part) {
                Ok(part @ 1..=10_000) => Ok(Wanted::Part(part)),
                _ => Err(invalid_argument("Part number must be an integer between 1 and 10000, inclusive")),
            },
            (Some(_), Some(_)) => {
                Err(invalid_request("Cannot specify both Range header and partNumber query parameter"))
            }
        }
    }
}

/// What of an object is answered.
struct Answer {
    selection: Selection,
    /// How many parts the object has, if a part was asked for.
    parts: Option<usize>,
    /// The checksum of what is answered, if one was asked for and is known.
    checksum: Option<Checksum>,
}

impl Answer {
    async fn of(
        cluster: &Cluster,
        headers: &HeaderMap,
        version: &Version,
        wanted: Wanted,
        checksum_mode: Option<&ChecksumMode>,
    ) -> S3Result<Answer> {
        let record = &version.record;
        let with_checksum = checksum_mode.is_some_and(|mode| mode.as_str().eq_ignore_ascii_case(ChecksumMode::ENABLED));
        let (selection, parts, checksum) = match wanted {
            Wanted::Range(range) if range_allowed(headers, &record.etag, record.modified) => {
                (Selection::of(&range, record.size)?, None, record.checksum.clone())
            }
            Wanted::Whole | Wanted::Range(_) => (Selection::whole(record.size), None, record.checksum.clone()),
            Wanted::Part(number) => select_part(cluster, version, number).await?,
        };
        // A client compares what it got with the checksum: that of the object says nothing about a part of it.
        let covered = parts.is_some() || selection.is_whole(record.size);
        Ok(Answer { selection, parts, checksum: checksum.filter(|_| with_checksum && covered) })
    }
}

/// The bytes of a part. An object that was put whole has one, but no count of parts.
async fn select_part(
    cluster: &Cluster,
    version: &Version,
    number: u16,
) -> S3Result<(Selection, Option<usize>, Option<Checksum>)> {
    let record = &version.record;
    let parts = cluster.parts(version).await.map_err(from_core)?;
    if parts.is_empty() {
        return match number {
            1 => Ok((Selection::part(0..record.size, record.size), None, record.checksum.clone())),
            _ => Err(no_such_part()),
        };
    }
    let part = parts.iter().find(|part| part.number == number).ok_or_else(no_such_part)?;
    let selection = Selection::part(part.offset..part.offset + part.length, record.size);
    let composite = record.checksum.as_ref().is_some_and(|checksum| checksum.kind == ChecksumKind::Composite);
    Ok((selection, Some(parts.len()), part.checksum.clone().filter(|_| composite)))
}

fn check(conditions: &Conditions, version: &Version) -> S3Result<()> {
    let record = &version.record;
    match conditions.judge(&record.etag, record.modified) {
        Verdict::Proceed => Ok(()),
        Verdict::Failed(condition) => Err(failed(condition)),
        Verdict::NotModified => Err(unchanged(version)),
    }
}

fn unchanged(version: &Version) -> S3Error {
    let record = &version.record;
    let header = |name: &'static str, value: Option<String>| value.map(|value| (HeaderName::from_static(name), value));
    let headers = [
        header("etag", Some(format!("\"{}\"", record.etag))),
        header("last-modified", Some(time::http_date(record.modified))),
        header("cache-control", content_header(record, ContentHeader::CacheControl)),
        header("expires", content_header(record, ContentHeader::Expires)),
        header("x-amz-version-id", version_id(version)),
        Some((X_ELTON_VERSION, version.number.to_string())),
    ];
    not_modified(headers.into_iter().flatten())
}

/// Fills the answer to a GET or HEAD, whose types have the same fields.
macro_rules! represent {
    ($output:ident, $version:expr, $answer:expr) => {{
        let (version, answer): (&Version, &Answer) = ($version, $answer);
        let record = &version.record;
        let header = |name| content_header(record, name);
        let mut output = $output {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(i64::try_from(answer.selection.length()).unwrap_or(i64::MAX)),
            content_range: answer.selection.content_range.clone(),
            content_type: Some(header(ContentHeader::Type).unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned())),
            content_encoding: header(ContentHeader::Encoding),
            content_language: header(ContentHeader::Language),
            content_disposition: header(ContentHeader::Disposition),
            cache_control: header(ContentHeader::CacheControl),
            expires: header(ContentHeader::Expires),
            website_redirect_location: header(ContentHeader::WebsiteRedirect),
            e_tag: Some(ETag::Strong(record.etag.to_string())),
            last_modified: Some(time::to_s3(record.modified)),
            metadata: Some(record.metadata.iter().cloned().collect()),
            parts_count: answer.parts.and_then(|parts| i32::try_from(parts).ok()),
            tag_count: Some(version.tag_count).filter(|count| *count > 0).and_then(|count| i32::try_from(count).ok()),
            version_id: version_id(version),
            ..Default::default()
        };
        set_object_checksum!(output, answer.checksum.as_ref(), record.etag.parts);
        output
    }};
}
use represent;

/// Does for HEAD what s3s does for GET only.
fn override_headers(output: &mut HeadObjectOutput, input: HeadObjectInput) {
    let expires = input.response_expires.as_ref().and_then(http_date);
    let pairs = [
        (&mut output.content_type, input.response_content_type),
        (&mut output.content_language, input.response_content_language),
        (&mut output.content_disposition, input.response_content_disposition),
        (&mut output.content_encoding, input.response_content_encoding),
        (&mut output.cache_control, input.response_cache_control),
        (&mut output.expires, expires),
    ];
    for (header, value) in pairs {
        if value.is_some() {
            *header = value;
        }
    }
}

fn http_date(time: &Timestamp) -> Option<String> {
    let mut text = Vec::new();
    time.format(TimestampFormat::HttpDate, &mut text).ok()?;
    String::from_utf8(text).ok()
}

/// The bytes of an answer: small ones in one piece, so that they leave in one write with the headers.
async fn body(reader: BodyReader, selection: &Selection, size: u64) -> S3Result<StreamingBlob> {
    let bytes = selection.bytes.clone();
    if bytes.is_empty() {
        return Ok(StreamingBlob::from_bytes(Bytes::new()));
    }
    if let Some(whole) = reader.inline() {
        if selection.is_whole(size) {
            return Ok(StreamingBlob::from_bytes(whole));
        }
        let (start, end) = (usize::try_from(bytes.start), usize::try_from(bytes.end));
        if let (Ok(start), Ok(end)) = (start, end) {
            return Ok(StreamingBlob::from_bytes(whole.slice(start..end.min(whole.len()))));
        }
    }
    streamed(reader, bytes).await.map_err(from_core)
}

/// A range of a body as it is read, with its length known beforehand.
pub async fn streamed(reader: BodyReader, bytes: std::ops::Range<u64>) -> Result<StreamingBlob, federation::Error> {
    let remaining = bytes.end - bytes.start;
    let stream = reader.begin(bytes).await?;
    let stream = stream.map(|piece| piece.map_err(|error| Box::new(from_core(error)) as s3s::StdError));
    let stream = sync_wrapper::SyncStream::new(Box::pin(stream));
    Ok(StreamingBlob::new(Counted { stream, remaining }))
}

/// A stream whose length is known, so that the answer has a `Content-Length`.
struct Counted<S> {
    stream: sync_wrapper::SyncStream<S>,
    remaining: u64,
}

impl<S> futures_util::Stream for Counted<S>
where
    S: futures_util::Stream<Item = Result<Bytes, s3s::StdError>> + Unpin,
{
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let polled = self.stream.poll_next_unpin(context);
        if let std::task::Poll::Ready(Some(Ok(bytes))) = &polled {
            self.remaining = self.remaining.saturating_sub(bytes.len() as u64);
        }
        polled
    }
}

impl<S> ByteStream for Counted<S>
where
    S: futures_util::Stream<Item = Result<Bytes, s3s::StdError>> + Unpin,
{
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.remaining).map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}
