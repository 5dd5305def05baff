//! What s3s reads otherwise than S3 does, put right between the signature check and the operation.
//!
//! A request that needs it is claimed by a route of ours, so that its signature is checked as it came; then it goes,
//! changed and without its signature, to an inner service that serves only these.

use federation::types::BucketAt;
use http::header::{AUTHORIZATION, CONTENT_RANGE, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use s3s::dto;
use s3s::service::S3Service;
use s3s::{Body, S3Error, S3Request, S3Response, S3Result};

use super::document;
use super::odd_headers::{OddHeaders, Trailers};
use super::{keys, query, range};

/// The bucket of s3s's copy source where the real one is in the extensions: see [`SourceBucket`].
const STAND_IN: &str = "long-source";
/// The longest bucket name that s3s takes in a copy source.
const NAME_BYTES_MAX: usize = 63;

const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");

/// The name of a snapshot that is copied from, longer than a bucket's may be.
#[derive(Clone, Debug)]
pub struct SourceBucket(pub String);

/// What is put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// A read whose `Range` or dates S3 ignores rather than refuses, or a HEAD of a part.
    Read,
    /// A document: s3s compares no digests, and answers 500 to one that is too long or breaks off.
    Document,
    /// A write with metadata in several lines, or with headers that are not ASCII.
    Write,
    /// A copy from a snapshot with a long name.
    Source,
}

impl Rewrite {
    /// What has to be put right of a request, if anything.
    pub fn needed(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Rewrite> {
        match *method {
            Method::GET | Method::HEAD => is_odd_read(method, uri, headers).then_some(Rewrite::Read),
            Method::PUT if long_source(headers).is_some() => Some(Rewrite::Source),
            Method::PUT | Method::POST if document::is_one(method, uri) => Some(Rewrite::Document),
            Method::PUT | Method::POST => OddHeaders::any(headers).then_some(Rewrite::Write),
            _ => None,
        }
    }

    /// Serves a request that was authorised.
    pub async fn serve(
        self,
        mut request: S3Request<Body>,
        inner: &S3Service,
        limit: usize,
    ) -> S3Result<S3Response<Body>> {
        match self {
            Rewrite::Read => drop_odd_headers(&mut request.headers),
            Rewrite::Document => document::read(&mut request, limit).await?,
            Rewrite::Write => {
                let odd = OddHeaders::take(&mut request.headers)?;
                request.extensions.insert(odd);
                request.extensions.insert(Trailers(request.trailing_headers.take()));
            }
            Rewrite::Source => shorten_source(&mut request)?,
        }
        let heads_part = request.method == Method::HEAD;
        let mut response = forward(request, inner).await?;
        if heads_part && response.headers.contains_key(CONTENT_RANGE) && response.status == Some(StatusCode::OK) {
            response.status = Some(StatusCode::PARTIAL_CONTENT);
        }
        Ok(response)
    }
}

fn is_odd_read(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    // s3s answers a HEAD of a part with 200.
    let heads_part = *method == Method::HEAD && (headers.contains_key(RANGE) || query::has(uri, "partNumber"));
    heads_part
        || headers.get(RANGE).is_some_and(|range| range::normal(range).as_ref() != Some(range))
        || [IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE]
            .iter()
            .any(|name| headers.get(name).is_some_and(|date| !is_date(date)))
}

fn is_date(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| dto::Timestamp::parse(dto::TimestampFormat::HttpDate, text).is_ok())
}

/// Drops a range that is malformed or of several parts, and dates that are none; older forms of a date are rewritten.
fn drop_odd_headers(headers: &mut HeaderMap) {
    if let Some(range) = headers.remove(RANGE).and_then(|range| range::normal(&range)) {
        headers.insert(RANGE, range);
    }
    for name in [IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
        let Some(value) = headers.get(&name).filter(|value| !is_date(value)) else { continue };
        let date = value.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
        match date.and_then(|date| HeaderValue::try_from(httpdate::fmt_http_date(date)).ok()) {
            Some(date) => headers.insert(name, date),
            None => headers.remove(name),
        };
    }
}

/// The copy source of a request, if its bucket is a snapshot whose name is too long for s3s: bucket, key and the rest.
fn long_source(headers: &HeaderMap) -> Option<(String, String, String)> {
    let text = headers.get(COPY_SOURCE)?.to_str().ok()?;
    let (path, version) = text.find("?versionId=").map_or((text, ""), |at| text.split_at(at));
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    let (bucket, key) = decoded.strip_prefix('/').unwrap_or(&decoded).split_once('/')?;
    let is_long = bucket.len() > NAME_BYTES_MAX && BucketAt::from_alias(bucket).is_ok();
    is_long.then(|| (bucket.to_owned(), key.to_owned(), version.to_owned()))
}

fn shorten_source(request: &mut S3Request<Body>) -> S3Result<()> {
    let Some((bucket, key, version)) = long_source(&request.headers) else { return Ok(()) };
    let source = format!("{STAND_IN}/{}{version}", keys::url_encode(&key));
    let source = HeaderValue::try_from(source).map_err(S3Error::internal_error)?;
    request.headers.insert(COPY_SOURCE, source);
    request.extensions.insert(SourceBucket(bucket));
    Ok(())
}

/// Hands a request to the inner service, without the signature that was checked.
async fn forward(request: S3Request<Body>, inner: &S3Service) -> S3Result<S3Response<Body>> {
    let path = request.uri.path();
    let target = match query::without_signature(&request.uri) {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut forwarded = http::Request::new(request.input);
    *forwarded.method_mut() = request.method;
    *forwarded.uri_mut() = Uri::try_from(target).map_err(S3Error::internal_error)?;
    *forwarded.headers_mut() = request.headers;
    forwarded.headers_mut().remove(AUTHORIZATION);
    *forwarded.extensions_mut() = request.extensions;
    let response = inner.call(forwarded).await.map_err(S3Error::internal_error)?;
    let (parts, body) = response.into_parts();
    Ok(S3Response { output: body, status: Some(parts.status), headers: parts.headers, extensions: parts.extensions })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(method: &str, uri: &str, header: Option<(&'static str, &str)>) -> Option<Rewrite> {
        let headers = header.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Rewrite::needed(&method.parse().unwrap(), &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn ranges_and_dates_that_s3_ignores() {
        assert_eq!(needed("GET", "/b/k", Some(("range", "bytes=0-1"))), None);
        assert_eq!(needed("HEAD", "/b/k", Some(("range", "bytes=0-1"))), Some(Rewrite::Read));
        for odd in ["bytes=0-1,3-4", "bytes=5-2", "lines=1-2", "bytes=a-b", "bytes=-", "bytes=0-99999999999999999999"] {
            assert_eq!(needed("GET", "/b/k", Some(("range", odd))), Some(Rewrite::Read), "{odd}");
        }
        assert_eq!(needed("GET", "/b/k", Some(("if-modified-since", "Wed, 21 Oct 2026 10:00:00 GMT"))), None);
        assert_eq!(needed("GET", "/b/k", Some(("if-modified-since", "yesterday"))), Some(Rewrite::Read));
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, "bytes=0-1,3-4".parse().unwrap());
        headers.insert(IF_MODIFIED_SINCE, "yesterday".parse().unwrap());
        headers.insert(IF_UNMODIFIED_SINCE, "Wednesday, 21-Oct-26 10:00:00 GMT".parse().unwrap());
        drop_odd_headers(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[IF_UNMODIFIED_SINCE], "Wed, 21 Oct 2026 10:00:00 GMT");
    }

    #[test]
    fn writes_with_odd_headers() {
        assert_eq!(needed("PUT", "/b/k", Some(("content-disposition", "attachment"))), None);
        assert_eq!(needed("PUT", "/b/k", Some(("content-md5", "x"))), None);
        assert_eq!(needed("PUT", "/b/k?uploadId=1&partNumber=1", Some(("content-md5", "x"))), None);
        assert_eq!(needed("PUT", "/b/k", Some(("content-disposition", "filename=ü"))), Some(Rewrite::Write));
        assert_eq!(needed("PUT", "/b?tagging", Some(("content-disposition", "filename=ü"))), Some(Rewrite::Document));
    }

    #[test]
    fn a_long_snapshot_is_named_in_the_extensions() {
        let long = format!("{}--at-20261120t100000z", "b".repeat(60));
        assert_eq!(needed("PUT", "/b/k", Some(("x-amz-copy-source", "short--at-3/k"))), None);
        assert_eq!(
            needed("PUT", "/b/k", Some(("x-amz-copy-source", &format!("/{long}/a%2Fb")))),
            Some(Rewrite::Source)
        );
        let value = format!("{long}/a%20b?versionId=3").parse().unwrap();
        let found = long_source(&HeaderMap::from_iter([(COPY_SOURCE, value)]));
        assert_eq!(found, Some((long, "a b".to_owned(), "?versionId=3".to_owned())));
    }
}
