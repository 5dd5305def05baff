//! Which request headers mean something to which operation: the positive list.
//!
//! A header that begins with `x-amz-` asks for something. One that no operation here knows is refused as not
//! implemented, one that belongs to other operations as a mistake: neither is left out in silence.

use http::{HeaderMap, HeaderName, Method, Uri};
use s3s::S3Result;

use super::error::{invalid_request, not_implemented};
use super::query;
use super::unsupported::Shape;

/// MD5 of no bytes, in base64.
const MD5_OF_NOTHING: &[u8] = b"1B2M2Y8AsgTpgAmY7PhCfg==";

/// What a request does, as far as its headers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Read,
    Attributes,
    Put,
    CopyObject,
    Part,
    PartCopy,
    CreateUpload,
    Complete,
    Delete,
    Other,
}

use Operation::{Attributes, Complete, CopyObject, CreateUpload, Delete, Part, PartCopy, Put, Read};

/// Headers that any request may carry, by name or, with a dash at the end, by the beginning of their names: they describe the request itself, speak to a
/// kind of bucket that does not exist here, or have their value checked where it matters.
const ANYWHERE: &[&str] = &[
    "x-amz-meta-",
    "x-amz-sdk-",
    "x-amz-user-agent",
    "x-amz-te",
    "x-amz-date",
    "x-amz-content-sha256",
    "x-amz-decoded-content-length",
    "x-amz-security-token",
    "x-amz-trailer",
    "x-amz-checksum-algorithm",
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
    "x-amz-acl",
    "x-amz-storage-class",
    "x-amz-server-side-encryption-bucket-key-enabled",
    "x-amz-bucket-object-lock-enabled",
    "x-amz-bucket-namespace",
    "x-amz-object-ownership",
    "x-amz-request-payer",
    "x-amz-expected-bucket-owner",
    "x-amz-source-expected-bucket-owner",
    "x-amz-bypass-governance-retention",
    "x-amz-optional-object-attributes",
    "x-amz-skip-destination-validation",
];

/// Headers that mean something to some operations only.
const SOMEWHERE: &[(&str, &[Operation])] = &[
    ("x-amz-tagging", &[Put, CopyObject, CreateUpload]),
    ("x-amz-website-redirect-location", &[Put, CopyObject, CreateUpload]),
    // Clients that copy in parts begin the upload with the headers of a copy; s3fs puts a file that was changed before
    // its first upload with them (`cp -a`).
    ("x-amz-metadata-directive", &[Put, CopyObject, CreateUpload]),
    ("x-amz-tagging-directive", &[CopyObject, CreateUpload]),
    ("x-amz-copy-source", &[CopyObject, PartCopy]),
    ("x-amz-copy-source-if-match", &[CopyObject, PartCopy]),
    ("x-amz-copy-source-if-none-match", &[CopyObject, PartCopy]),
    ("x-amz-copy-source-if-modified-since", &[CopyObject, PartCopy]),
    ("x-amz-copy-source-if-unmodified-since", &[CopyObject, PartCopy]),
    ("x-amz-copy-source-range", &[PartCopy]),
    ("x-amz-checksum-type", &[CreateUpload, Complete]),
    ("x-amz-checksum-mode", &[Read, Attributes]),
    ("x-amz-mp-object-size", &[Complete]),
    ("x-amz-if-match-size", &[Delete]),
    ("x-amz-if-match-last-modified-time", &[Delete]),
    ("x-amz-object-attributes", &[Attributes]),
    ("x-amz-max-parts", &[Attributes]),
    ("x-amz-part-number-marker", &[Attributes]),
];

impl Operation {
    fn of(shape: Shape, method: &Method, uri: &Uri, headers: &HeaderMap) -> Operation {
        let has = |name| query::has(uri, name);
        // Only the header makes a copy: a source in the query would be left out by what reads the request.
        let copies = headers.contains_key("x-amz-copy-source");
        match (shape, method.as_str()) {
            (Shape::Object, "GET" | "HEAD") if has("attributes") => Attributes,
            (Shape::Object, "GET" | "HEAD") => Read,
            (Shape::Object, "PUT") if has("tagging") || has("acl") => Operation::Other,
            (Shape::Object, "PUT") => match (has("uploadId"), copies) {
                (true, true) => PartCopy,
                (true, false) => Part,
                (false, true) => CopyObject,
                (false, false) => Put,
            },
            (Shape::Object, "POST") if has("uploads") => CreateUpload,
            (Shape::Object, "POST") if has("uploadId") => Complete,
            (Shape::Object, "DELETE") if !has("uploadId") && !has("tagging") => Delete,
            (Shape::Root | Shape::Bucket | Shape::Object, _) => Operation::Other,
        }
    }
}

/// Refuses headers that would be left out in silence.
pub fn check(shape: Shape, method: &Method, uri: &Uri, headers: &HeaderMap) -> S3Result<()> {
    let operation = Operation::of(shape, method, uri, headers);
    for name in headers.keys() {
        check_name(name, operation)?;
    }
    for (name, _) in query::presigned(uri) {
        check_name(&name, operation)?;
    }
    if !matches!(operation, CreateUpload | Complete) {
        check_checksum_type(headers)?;
    }
    if matches!(*method, Method::PUT | Method::POST | Method::DELETE) {
        check_write(headers)?;
    }
    if matches!(operation, CopyObject | PartCopy) { check_without_body(headers) } else { Ok(()) }
}

fn check_name(name: &HeaderName, operation: Operation) -> S3Result<()> {
    let name = name.as_str();
    // The only kind that a whole object can have: asking for it asks for nothing.
    if !name.starts_with("x-amz-") || name == "x-amz-checksum-type" {
        return Ok(());
    }
    if let Some((_, operations)) = SOMEWHERE.iter().find(|(known, _)| *known == name) {
        return match operations.contains(&operation) {
            true => Ok(()),
            false => Err(invalid_request(format!("{name} means nothing to this operation; leave it out"))),
        };
    }
    let is_known = |known: &&str| name == *known || (known.ends_with('-') && name.starts_with(known));
    if ANYWHERE.iter().any(is_known) { Ok(()) } else { Err(not_implemented(name)) }
}

fn check_checksum_type(headers: &HeaderMap) -> S3Result<()> {
    match headers.get("x-amz-checksum-type") {
        Some(kind) if kind != "FULL_OBJECT" => {
            Err(invalid_request("x-amz-checksum-type is FULL_OBJECT for anything but a multipart upload"))
        }
        _ => Ok(()),
    }
}

fn check_write(headers: &HeaderMap) -> S3Result<()> {
    if headers.contains_key(http::header::CONTENT_RANGE) {
        // RFC 9110, 14.5.
        return Err(invalid_request("Content-Range has no place in a request that writes: objects are written whole"));
    }
    for name in [http::header::IF_MODIFIED_SINCE, http::header::IF_UNMODIFIED_SINCE] {
        if headers.contains_key(&name) {
            return Err(not_implemented(format_args!("{name} on a write")));
        }
    }
    check_framing(headers)
}

/// A body that travels in AWS's chunks is read as such only where its hash says so: else the framing would be stored.
fn check_framing(headers: &HeaderMap) -> S3Result<()> {
    let hash = headers.get("x-amz-content-sha256").and_then(|hash| hash.to_str().ok()).unwrap_or_default();
    if hash.starts_with("STREAMING-") {
        return Ok(());
    }
    let encodings = headers.get_all(http::header::CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut codings = encodings.flat_map(|value| value.split(','));
    let is_chunked = codings.any(|coding| coding.trim().eq_ignore_ascii_case("aws-chunked"));
    if is_chunked || headers.contains_key("x-amz-decoded-content-length") {
        return Err(invalid_request(
            "a body of content-encoding aws-chunked, or with x-amz-decoded-content-length, needs an \
             x-amz-content-sha256 that begins with STREAMING-",
        ));
    }
    Ok(())
}

/// The bytes of a copy are its source's: a body, or digests of one, would be left out.
fn check_without_body(headers: &HeaderMap) -> S3Result<()> {
    let length = headers.get(http::header::CONTENT_LENGTH);
    if length.is_some_and(|length| length != "0") || headers.contains_key(http::header::TRANSFER_ENCODING) {
        return Err(invalid_request("a copy has no body: its bytes are those of x-amz-copy-source"));
    }
    let stated = super::checksum::ALGORITHMS.iter().map(|algorithm| super::checksum::header(*algorithm));
    if let Some(name) = stated.into_iter().find(|name| headers.contains_key(*name)) {
        return Err(invalid_request(format!("{name} has no body to speak of in a copy; x-amz-checksum-algorithm has")));
    }
    match headers.get("content-md5") {
        Some(md5) if md5.as_bytes() != MD5_OF_NOTHING => {
            Err(invalid_request("Content-MD5 has no body to speak of in a copy; compare x-amz-copy-source-if-match"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(method: &str, uri: &str, pairs: &[(&'static str, &str)]) -> String {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let uri: Uri = uri.parse().unwrap();
        let shape = if uri.path().matches('/').count() > 1 { Shape::Object } else { Shape::Bucket };
        let checked = check(shape, &method.parse().unwrap(), &uri, &headers);
        checked.map_or_else(|error| error.code().as_str().to_owned(), |()| "ok".to_owned())
    }

    const SOURCE: (&str, &str) = ("x-amz-copy-source", "/b/s");

    #[test]
    fn what_real_clients_send_is_taken() {
        for header in [
            ("x-amz-user-agent", "aws-sdk-js/3"),
            ("x-amz-te", "append-md5"),
            ("x-amz-meta-mtime", "1"),
            ("x-amz-sdk-checksum-algorithm", "CRC32"),
            ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA="),
            ("x-amz-request-payer", "requester"),
            ("x-amz-optional-object-attributes", "RestoreStatus"),
            ("x-amz-checksum-type", "FULL_OBJECT"),
            ("x-amz-metadata-directive", "REPLACE"),
            ("x-other", "anything"),
        ] {
            assert_eq!(outcome("PUT", "/b/k", &[header]), "ok", "{header:?}");
        }
        assert_eq!(outcome("PUT", "/b/k", &[SOURCE, ("x-amz-metadata-directive", "REPLACE")]), "ok");
        assert_eq!(outcome("PUT", "/b/k", &[SOURCE, ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==")]), "ok");
        let range = ("x-amz-copy-source-range", "bytes=0-1");
        assert_eq!(outcome("PUT", "/b/k?uploadId=1&partNumber=1", &[SOURCE, range]), "ok");
        assert_eq!(outcome("POST", "/b/k?uploads", &[("x-amz-checksum-type", "COMPOSITE")]), "ok");
        assert_eq!(outcome("DELETE", "/b/k", &[("x-amz-if-match-size", "3")]), "ok");
        assert_eq!(outcome("GET", "/b/k", &[("if-unmodified-since", "x"), ("x-amz-checksum-mode", "ENABLED")]), "ok");
    }

    #[test]
    fn what_belongs_elsewhere_is_a_mistake() {
        type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
        let refused: [Case; 14] = [
            ("PUT", "/b/k", &[SOURCE, ("x-amz-copy-source-range", "bytes=0-1")]),
            ("PUT", "/b/k", &[SOURCE, ("content-md5", "x")]),
            ("PUT", "/b/k", &[SOURCE, ("content-length", "5")]),
            ("PUT", "/b/k", &[SOURCE, ("x-amz-checksum-crc32", "AAAAAA==")]),
            ("PUT", "/b/k", &[("content-range", "bytes 0-4/10")]),
            ("PUT", "/b/k", &[("x-amz-copy-source-if-match", "x")]),
            ("PUT", "/b/k", &[("x-amz-mp-object-size", "9")]),
            ("PUT", "/b/k", &[("x-amz-if-match-size", "9")]),
            ("PUT", "/b/k", &[("x-amz-checksum-type", "COMPOSITE")]),
            ("PUT", "/b/k?X-Amz-Copy-Source=%2Fb%2Fs", &[]),
            ("PUT", "/b", &[SOURCE]),
            ("PUT", "/b/k?tagging", &[SOURCE]),
            ("POST", "/b/k?uploads", &[SOURCE]),
            ("GET", "/b/k", &[SOURCE]),
        ];
        for (method, uri, headers) in refused {
            assert_eq!(outcome(method, uri, headers), "InvalidRequest", "{method} {uri} {headers:?}");
        }
    }

    #[test]
    fn what_nobody_knows_is_not_implemented() {
        for header in [("x-amz-foo", "bar"), ("x-amz-mfa", "1 2"), ("x-amz-rename-source", "/b/k")] {
            assert_eq!(outcome("PUT", "/b/k", &[header]), "NotImplemented", "{header:?}");
        }
        for method in ["PUT", "DELETE"] {
            assert_eq!(outcome(method, "/b/k", &[("if-unmodified-since", "x")]), "NotImplemented");
        }
    }

    #[test]
    fn framing_is_never_stored() {
        let chunked = ("content-encoding", "gzip, aws-chunked");
        let length = ("x-amz-decoded-content-length", "5");
        for hash in ["UNSIGNED-PAYLOAD", "0000"] {
            assert_eq!(outcome("PUT", "/b/k", &[chunked, ("x-amz-content-sha256", hash)]), "InvalidRequest");
            assert_eq!(outcome("PUT", "/b/k", &[length, ("x-amz-content-sha256", hash)]), "InvalidRequest");
        }
        assert_eq!(outcome("PUT", "/b/k", &[chunked]), "InvalidRequest");
        let streaming = ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
        assert_eq!(outcome("PUT", "/b/k", &[chunked, length, streaming]), "ok");
    }
}
