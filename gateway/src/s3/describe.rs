//! What is said of an object beside its bytes: content headers, user metadata, tags.

use federation::master::{Description, EtagMatch, Precondition};
use federation::types::{ContentHeader, ObjectRecord, Pair};
use http::HeaderMap;
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::condition::{Comparison, etag_match};
use super::error::{custom, invalid_argument};
use super::tags;

/// What S3 says an object is whose client did not say.
pub const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// The most bytes of user metadata, names and values together.
const METADATA_BYTES_MAX: usize = 2 * 1024;

/// The headers that an object keeps.
const CONTENT_HEADERS: [(ContentHeader, &str); 7] = [
    (ContentHeader::Type, "content-type"),
    (ContentHeader::Encoding, "content-encoding"),
    (ContentHeader::Language, "content-language"),
    (ContentHeader::Disposition, "content-disposition"),
    (ContentHeader::CacheControl, "cache-control"),
    (ContentHeader::Expires, "expires"),
    (ContentHeader::WebsiteRedirect, "x-amz-website-redirect-location"),
];

/// What a request says of the object it writes. `headers` hold those that were presigned into the query too.
pub fn read(headers: &HeaderMap, metadata: Option<dto::Metadata>) -> S3Result<Description> {
    let tags = match text(headers, "x-amz-tagging")? {
        Some(tagging) => tags::from_header(tagging)?,
        None => Vec::new(),
    };
    Ok(Description { headers: content_headers(headers)?, metadata: self::metadata(headers, metadata)?, tags })
}

/// The content headers of a request.
pub fn content_headers(headers: &HeaderMap) -> S3Result<Vec<(ContentHeader, String)>> {
    let mut kept = Vec::new();
    for (header, name) in CONTENT_HEADERS {
        let Some(value) = text(headers, name)? else { continue };
        if header == ContentHeader::WebsiteRedirect {
            check_redirect(value)?;
        }
        let value = if header == ContentHeader::Encoding { without_chunking(value) } else { value.to_owned() };
        if !value.is_empty() {
            kept.push((header, value));
        }
    }
    Ok(kept)
}

/// User metadata: what s3s read from the headers, and what was presigned into the query.
pub fn metadata(headers: &HeaderMap, sent: Option<dto::Metadata>) -> S3Result<Vec<Pair>> {
    let mut pairs: Vec<Pair> = sent.unwrap_or_default().into_iter().collect();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("x-amz-meta-").filter(|name| !name.is_empty()) else { continue };
        if pairs.iter().all(|(known, _)| known != name) {
            let value = std::str::from_utf8(value.as_bytes()).map_err(|_| invalid_argument("metadata is not UTF-8"))?;
            pairs.push((name.to_owned(), value.to_owned()));
        }
    }
    if pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > METADATA_BYTES_MAX {
        return Err(S3Error::new(S3ErrorCode::MetadataTooLarge));
    }
    pairs.sort();
    Ok(pairs)
}

/// The conditions of a write.
pub fn precondition(headers: &HeaderMap) -> S3Result<Precondition> {
    let if_match: Option<EtagMatch> = etag_match(headers, "if-match", Comparison::Strong)?;
    let if_none_match = etag_match(headers, "if-none-match", Comparison::Weak)?;
    Ok(Precondition { if_match, if_none_match, ..Precondition::default() })
}

/// One of an object's content headers.
pub fn content_header(record: &ObjectRecord, header: ContentHeader) -> Option<String> {
    record.headers.iter().find(|(known, _)| *known == header).map(|(_, value)| value.clone())
}

/// A header's text, if it is there and not empty.
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> S3Result<Option<&'a str>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text =
        std::str::from_utf8(value.as_bytes()).map_err(|_| invalid_argument(format!("invalid header: {name}")))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// `aws-chunked` says how a body travels, not what it is.
fn without_chunking(encoding: &str) -> String {
    let is_chunking = |coding: &&str| coding.trim().eq_ignore_ascii_case("aws-chunked");
    if !encoding.split(',').any(|coding| is_chunking(&coding)) {
        return encoding.to_owned();
    }
    let kept: Vec<&str> = encoding.split(',').filter(|coding| !is_chunking(coding)).map(str::trim).collect();
    kept.join(",")
}

fn check_redirect(location: &str) -> S3Result<()> {
    let absolute = location.starts_with("http://") || location.starts_with("https://");
    if (absolute || location.starts_with('/')) && location.len() <= 2 * 1024 {
        return Ok(());
    }
    let message = "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.";
    Err(custom("InvalidRedirectLocation", http::StatusCode::BAD_REQUEST, message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn chunking_is_no_encoding() {
        let kept = |value: &str| content_headers(&headers(&[("content-encoding", value)])).unwrap();
        assert_eq!(kept("aws-chunked"), []);
        assert_eq!(kept("aws-chunked,gzip"), [(ContentHeader::Encoding, "gzip".to_owned())]);
        assert_eq!(kept("gzip, aws-chunked"), [(ContentHeader::Encoding, "gzip".to_owned())]);
        assert_eq!(kept("gzip"), [(ContentHeader::Encoding, "gzip".to_owned())]);
    }

    #[test]
    fn metadata_comes_from_both_places_and_is_bounded() {
        let sent = dto::Metadata::from([("a".to_owned(), "decoded".to_owned())]);
        let all = metadata(&headers(&[("x-amz-meta-a", "raw"), ("x-amz-meta-b", "c")]), Some(sent)).unwrap();
        assert_eq!(all, [("a".to_owned(), "decoded".to_owned()), ("b".to_owned(), "c".to_owned())]);
        let long = "x".repeat(METADATA_BYTES_MAX);
        assert!(metadata(&headers(&[("x-amz-meta-a", &long)]), None).is_err());
    }

    #[test]
    fn a_redirect_leads_somewhere() {
        assert!(content_headers(&headers(&[("x-amz-website-redirect-location", "/other")])).is_ok());
        assert!(content_headers(&headers(&[("x-amz-website-redirect-location", "other")])).is_err());
    }
}
