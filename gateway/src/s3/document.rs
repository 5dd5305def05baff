//! Requests whose body is an XML document of known form: read whole, compared with their digests, and then parsed.

use bytes::Bytes;
use federation::blobs::{Observer as _, StoreError};
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Uri};
use s3s::{Body, BodySizeLimitExceeded, S3Error, S3ErrorCode, S3Request, S3Result};

use super::error::from_store;
use super::stated::Stated;
use super::{checksum, keys, query};

/// The sub-resources that are written with a document of known form, which is small and read whole.
const DOCUMENTS: [&str; 7] = ["acl", "delete", "logging", "notification", "requestPayment", "tagging", "versioning"];

/// Whether the body of a request is a document.
pub fn is_one(method: &Method, uri: &Uri) -> bool {
    if is_completion(method, uri) {
        return true;
    }
    let key = uri.path().trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
    // What signing and SDKs put into a query changes nothing: a PUT of a bucket that is no sub-resource creates it.
    let creates_bucket = *method == Method::PUT && key.is_empty();
    creates_bucket || query::parameters(uri).any(|(name, _)| DOCUMENTS.contains(&name.as_ref()))
}

/// A CompleteMultipartUpload: its checksum headers are those of the object.
fn is_completion(method: &Method, uri: &Uri) -> bool {
    *method == Method::POST && query::has(uri, "uploadId")
}

/// Reads the document of a request and compares it with what was stated of it.
pub async fn read(request: &mut S3Request<Body>, bytes_max: usize) -> S3Result<()> {
    let stated = match is_completion(&request.method, &request.uri) {
        true => Stated::read_md5(&request.headers)?,
        false => Stated::read(&request.headers)?,
    };
    let length = request.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    let bytes = request.input.store_all_limited(bytes_max).await.map_err(|source| {
        if source.is::<BodySizeLimitExceeded>() || source.is::<http_body_util::LengthLimitError>() {
            too_large(bytes_max)
        } else {
            from_store(StoreError::Source { source })
        }
    })?;
    if length.is_some_and(|length| length != bytes.len() as u64) {
        return Err(S3Error::new(S3ErrorCode::IncompleteBody));
    }
    let mut digests = stated.digests(checksum::DEFAULT_ALGORITHM);
    digests.update(&bytes);
    stated.verify(&digests.finish(), request.trailing_headers.as_ref())?;
    let bytes = if query::has(&request.uri, "delete") { resolve_references(bytes) } else { bytes };
    request.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    request.input = Body::from(bytes);
    Ok(())
}

fn too_large(bytes_max: usize) -> S3Error {
    let message = format!("the document of a request has at most {bytes_max} bytes");
    S3Error::with_message(S3ErrorCode::EntityTooLarge, message)
}

/// Replaces references to characters that XML cannot hold by these characters. S3 lists such keys by reference, and
/// clients name them so; s3s reads the characters themselves only.
fn resolve_references(document: Bytes) -> Bytes {
    if !document.windows(2).any(|pair| pair == b"&#") {
        return document;
    }
    let mut resolved = Vec::with_capacity(document.len());
    let mut rest: &[u8] = &document;
    while let Some(at) = rest.iter().position(|byte| *byte == b'&') {
        resolved.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        match unwritable_reference(rest) {
            Some((character, length)) => {
                resolved.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[length..];
            }
            None => {
                resolved.push(b'&');
                rest = &rest[1..];
            }
        }
    }
    resolved.extend_from_slice(rest);
    resolved.into()
}

/// The character that a reference at the beginning stands for, if XML cannot hold it, and the reference's length.
fn unwritable_reference(text: &[u8]) -> Option<(char, usize)> {
    // Longer ones have leading zeros for no reason.
    const BYTES_MAX: usize = 12;
    let end = text.iter().take(BYTES_MAX).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(&text[..end]).ok()?.strip_prefix("&#")?;
    let code = match name.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16).ok()?,
        None => name.parse().ok()?,
    };
    char::from_u32(code).filter(|character| keys::is_unwritable(*character)).map(|character| (character, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_known_by_their_target() {
        let is_document = |method: &str, uri: &str| is_one(&method.parse().unwrap(), &uri.parse().unwrap());
        for (method, uri) in [
            ("POST", "/b?delete"),
            ("PUT", "/b?versioning"),
            ("PUT", "/b/k?tagging"),
            ("PUT", "/b"),
            ("PUT", "/b/?x-id=CreateBucket"),
            ("POST", "/b/k?uploadId=1"),
        ] {
            assert!(is_document(method, uri), "{uri}");
        }
        for (method, uri) in [("PUT", "/b/k"), ("PUT", "/b/k?uploadId=1&partNumber=1"), ("POST", "/b/k?uploads")] {
            assert!(!is_document(method, uri), "{uri}");
        }
    }

    #[test]
    fn references_that_xml_has_no_characters_for() {
        let resolve = |text: &'static str| String::from_utf8(resolve_references(text.into()).to_vec()).unwrap();
        assert_eq!(resolve("<Key>a&#1;&#x1F;&#xFFFE;b</Key>"), "<Key>a\u{1}\u{1f}\u{fffe}b</Key>");
        for same in ["&#13;&#60;&amp;", "&#", "&#x;", "&#xD800;", "&#00000000000001;", "a & b", ""] {
            assert_eq!(resolve(same), same);
        }
    }
}
