//! How many bytes of a request's body are held in memory while it is answered.

use http::Method;
use http::request::Parts;

use super::operation::Target;
use crate::s3::S3Limits;

/// A body that is stored as it comes is held by so many bytes.
const STORED_BYTES_MAX: u64 = 256 * 1024;
/// A document is held as it came and as what was read in it.
const DOCUMENT_COPIES: u64 = 2;
/// Sub-resources of an object that are written with a document.
const DOCUMENTS: [&str; 5] = ["acl", "legal-hold", "restore", "retention", "tagging"];

/// The most that is held of a body of `length` bytes, or of an unknown number.
#[must_use]
pub fn held_bytes(parts: &Parts, length: Option<u64>, limits: &S3Limits) -> u64 {
    let up_to = |bound: u64| length.map_or(bound, |length| length.min(bound));
    if !is_stored(parts) {
        return up_to(limits.xml_bytes_max as u64) * DOCUMENT_COPIES;
    }
    let payload = parts.headers.get("x-amz-content-sha256").map_or(&b""[..], |value| value.as_bytes());
    // A signed chunk is held whole until its signature is checked.
    let chunk = if payload.starts_with(b"STREAMING-AWS4") { limits.signed_chunk_bytes_max as u64 } else { 0 };
    up_to(chunk + STORED_BYTES_MAX)
}

/// Whether the body is an object's or a part's.
fn is_stored(parts: &Parts) -> bool {
    let names = || parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split('=').next());
    parts.method == Method::PUT
        && matches!(Target::of(parts.uri.path()), Target::Object(..))
        && !names().any(|name| DOCUMENTS.contains(&name))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn held(method: &str, uri: &str, payload: &str, length: Option<u64>) -> u64 {
        let request = Request::builder().method(method).uri(uri).header("x-amz-content-sha256", payload);
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        held_bytes(&parts, length, &S3Limits::default())
    }

    #[test]
    fn what_is_held_depends_on_how_the_body_is_read() {
        let limits = S3Limits::default();
        let (chunk, document) = (limits.signed_chunk_bytes_max as u64, limits.xml_bytes_max as u64);
        assert_eq!(held("PUT", "/b/k", "UNSIGNED-PAYLOAD", Some(1 << 30)), STORED_BYTES_MAX);
        assert_eq!(held("PUT", "/b/k?partNumber=1", "", Some(100)), 100);
        let signed = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
        assert_eq!(held("PUT", "/b/k", signed, Some(1 << 30)), chunk + STORED_BYTES_MAX);
        assert_eq!(held("PUT", "/b/k?tagging", "", Some(1000)), 2000);
        assert_eq!(held("POST", "/b?delete", "", None), 2 * document);
        assert_eq!(held("POST", "/_elton/v1/buckets", "", Some(1 << 40)), 2 * document);
    }
}
