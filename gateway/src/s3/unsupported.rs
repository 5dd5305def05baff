//! What S3 has and Elton has not, or not yet: refused by name, before a body is read, and never quietly ignored.
//!
//! A header or sub-resource that asks for what is the case anyway (`x-amz-acl: private`) is honoured; the tables say
//! which values those are.

use http::{HeaderMap, HeaderValue, Method, Uri};
use s3s::S3Result;

use super::error::{invalid_argument, not_implemented};
use super::{allowed, checksum, keys, query};

/// Which values of a header ask for what is the case anyway.
enum Honoured {
    /// None: the header itself asks for something else.
    Nothing,
    /// These, in any case.
    Values(&'static [&'static str]),
    /// The names of checksum algorithms that are computed here.
    Algorithms,
    /// Lists of trailers, of which those for checksums have to be of such algorithms.
    Trailers,
}

/// Headers, by the beginning of their names, that may ask for what Elton does not do. The first match counts.
const HEADERS: &[(&str, Honoured)] = &[
    ("x-amz-acl", Honoured::Values(&["private", "bucket-owner-full-control"])),
    ("x-amz-grant-", Honoured::Nothing),
    ("x-amz-storage-class", Honoured::Values(&["STANDARD"])),
    ("x-amz-server-side-encryption-bucket-key-enabled", Honoured::Values(&["false"])),
    ("x-amz-server-side-encryption", Honoured::Nothing),
    ("x-amz-copy-source-server-side-encryption", Honoured::Nothing),
    ("x-amz-bucket-object-lock-enabled", Honoured::Values(&["false"])),
    ("x-amz-object-lock-", Honoured::Nothing),
    ("x-amz-object-ownership", Honoured::Values(&["BucketOwnerEnforced"])),
    ("x-amz-bucket-namespace", Honoured::Values(&["global"])),
    ("x-amz-write-offset-bytes", Honoured::Nothing),
    ("x-amz-if-match-initiated-time", Honoured::Nothing),
    ("x-amz-checksum-md5", Honoured::Nothing),
    ("x-amz-checksum-sha512", Honoured::Nothing),
    ("x-amz-checksum-xxhash", Honoured::Nothing),
    ("x-amz-checksum-algorithm", Honoured::Algorithms),
    ("x-amz-sdk-checksum-algorithm", Honoured::Algorithms),
    ("x-amz-trailer", Honoured::Trailers),
];

/// The sub-resources of S3. A request with one of these never means the bucket or object itself.
const SUB_RESOURCES: &[&str] = &[
    "abac",
    "accelerate",
    "acl",
    "analytics",
    "annotation",
    "append",
    "attributes",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metadataAnnotationTable",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "renameObject",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "session",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versioning",
    "versions",
    "website",
];

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All the buckets.
    Root,
    /// A bucket.
    Bucket,
    /// An object.
    Object,
}

/// The sub-resources that are served, by shape and method.
fn served(shape: Shape, method: &Method) -> &'static [&'static str] {
    match (shape, method.as_str()) {
        (Shape::Bucket, "GET") => &[
            "accelerate",
            "acl",
            "analytics",
            "cors",
            "encryption",
            "intelligent-tiering",
            "inventory",
            "lifecycle",
            "location",
            "logging",
            "metrics",
            "notification",
            "object-lock",
            "ownershipControls",
            "policy",
            "policyStatus",
            "publicAccessBlock",
            "replication",
            "requestPayment",
            "tagging",
            "uploads",
            "versioning",
            "versions",
            "website",
        ],
        (Shape::Bucket, "PUT") => &["acl", "logging", "notification", "requestPayment", "tagging", "versioning"],
        (Shape::Bucket, "POST") => &["delete"],
        (Shape::Bucket, "DELETE") => &[
            "cors",
            "encryption",
            "lifecycle",
            "ownershipControls",
            "policy",
            "publicAccessBlock",
            "replication",
            "tagging",
            "website",
        ],
        (Shape::Object, "GET") => &["acl", "attributes", "legal-hold", "retention", "tagging", "uploadId"],
        (Shape::Object, "PUT") => &["acl", "tagging", "uploadId"],
        (Shape::Object, "POST") => &["uploadId", "uploads"],
        (Shape::Object, "DELETE") => &["tagging", "uploadId"],
        _ => &[],
    }
}

/// Refuses a request that asks, in its headers or its query, for what would not be done.
pub fn check(shape: Shape, method: &Method, uri: &Uri, headers: &HeaderMap) -> S3Result<()> {
    check_sub_resource(shape, method, uri)?;
    check_parameters(shape, method, uri)?;
    for (name, value) in headers {
        check_header(name.as_str(), value.to_str().unwrap_or_default())?;
    }
    for (name, value) in query::presigned(uri) {
        check_header(name.as_str(), value.to_str().unwrap_or_default())?;
    }
    allowed::check(shape, method, uri, headers)
}

fn check_sub_resource(shape: Shape, method: &Method, uri: &Uri) -> S3Result<()> {
    let mut named: Vec<&str> = Vec::new();
    for (name, _) in query::parameters(uri) {
        if let Some(sub) = SUB_RESOURCES.iter().find(|sub| **sub == name) {
            if !served(shape, method).contains(sub) {
                return Err(not_implemented(format_args!("{method} ?{sub}")));
            }
            named.push(sub);
        }
    }
    named.dedup();
    match named.as_slice() {
        [] | [_] => Ok(()),
        several => Err(invalid_argument(format!("Conflicting query string parameters: {}", several.join(", ")))),
    }
}

/// Parameters that S3 refuses where they have no meaning, lest a request does something else than was meant.
fn check_parameters(shape: Shape, method: &Method, uri: &Uri) -> S3Result<()> {
    let writes = *method == Method::PUT || *method == Method::POST;
    if shape == Shape::Object && *method == Method::PUT && query::has(uri, "partNumber") != query::has(uri, "uploadId")
    {
        return Err(invalid_argument("partNumber and uploadId belong together"));
    }
    let versioned = query::has(uri, "tagging") || query::has(uri, "acl");
    if shape == Shape::Object && writes && query::has(uri, "versionId") && !versioned {
        return Err(invalid_argument("This operation does not accept a version-id."));
    }
    for (name, value) in query::parameters(uri) {
        check_text(&name, &value)?;
    }
    if shape == Shape::Bucket && query::get(uri, "list-type").is_some_and(|kind| kind != "2") {
        return Err(invalid_argument("Invalid List Type specified in Request"));
    }
    Ok(())
}

/// Keys and parts of keys may have any character. What nothing else can mean would end in an answer that cannot be
/// written, or in a presigned header that is left out.
fn check_text(name: &str, value: &str) -> S3Result<()> {
    let is_key = matches!(name, "prefix" | "delimiter" | "marker" | "key-marker" | "start-after");
    let is_unwritable = name.chars().chain(value.chars()).any(keys::is_unwritable);
    let is_lost = query::is_header(name) && HeaderValue::from_str(value).is_err();
    if is_lost || (is_unwritable && !is_key) {
        return Err(invalid_argument(format!("the query parameter {name} has control characters in its value")));
    }
    Ok(())
}

fn check_header(name: &str, value: &str) -> S3Result<()> {
    let Some((_, honoured)) = HEADERS.iter().find(|(begin, _)| name.starts_with(begin)) else { return Ok(()) };
    let fine = match honoured {
        Honoured::Nothing => false,
        Honoured::Values(values) => values.iter().any(|known| known.eq_ignore_ascii_case(value)),
        Honoured::Algorithms => checksum::parse_name(value).is_some(),
        Honoured::Trailers => value.split(',').map(str::trim).all(|trailer| {
            !trailer.to_ascii_lowercase().starts_with("x-amz-checksum-") || checksum::parse_header(trailer).is_some()
        }),
    };
    if fine { Ok(()) } else { Err(not_implemented(format_args!("{name}: {value}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s3s::S3ErrorCode;

    fn outcome(shape: Shape, method: &str, uri: &str, header: Option<(&'static str, &str)>) -> Result<(), S3ErrorCode> {
        let headers = header.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        check(shape, &method.parse().unwrap(), &uri.parse().unwrap(), &headers).map_err(|error| error.code().clone())
    }

    #[test]
    fn headers_that_ask_for_what_is_the_case_are_honoured() {
        for (name, value) in [
            ("x-amz-acl", "private"),
            ("x-amz-acl", "bucket-owner-full-control"),
            ("x-amz-storage-class", "STANDARD"),
            ("x-amz-server-side-encryption-bucket-key-enabled", "False"),
            ("x-amz-checksum-algorithm", "CRC64NVME"),
            ("x-amz-checksum-crc32c", "y/Q5Jg=="),
            ("x-amz-trailer", "x-amz-checksum-sha256"),
            ("x-amz-request-payer", "requester"),
            ("x-amz-meta-x-amz-acl", "public-read"),
        ] {
            assert_eq!(outcome(Shape::Object, "PUT", "/b/k", Some((name, value))), Ok(()), "{name}: {value}");
        }
    }

    #[test]
    fn headers_that_ask_for_more_are_refused() {
        for (name, value) in [
            ("x-amz-acl", "public-read"),
            ("x-amz-grant-read", "id=1"),
            ("x-amz-storage-class", "GLACIER"),
            ("x-amz-server-side-encryption", "AES256"),
            ("x-amz-server-side-encryption-customer-key", "k"),
            ("x-amz-object-lock-mode", "GOVERNANCE"),
            ("x-amz-checksum-sha512", "x"),
            ("x-amz-sdk-checksum-algorithm", "XXHASH3"),
            ("x-amz-trailer", "x-amz-checksum-xxhash3"),
        ] {
            let refused = outcome(Shape::Object, "PUT", "/b/k", Some((name, value)));
            assert_eq!(refused, Err(S3ErrorCode::NotImplemented), "{name}: {value}");
        }
        assert_eq!(outcome(Shape::Object, "PUT", "/b/k?X-Amz-Acl=public-read", None), Err(S3ErrorCode::NotImplemented));
    }

    #[test]
    fn a_sub_resource_never_means_the_thing_itself() {
        assert_eq!(outcome(Shape::Bucket, "DELETE", "/b?acl", None), Err(S3ErrorCode::NotImplemented));
        assert_eq!(outcome(Shape::Object, "PUT", "/b/k?torrent", None), Err(S3ErrorCode::NotImplemented));
        assert_eq!(outcome(Shape::Bucket, "GET", "/b?acl&policy", None), Err(S3ErrorCode::InvalidArgument));
        assert_eq!(outcome(Shape::Object, "PUT", "/b/k?partNumber=1", None), Err(S3ErrorCode::InvalidArgument));
        assert_eq!(outcome(Shape::Object, "PUT", "/b/k?versionId=1", None), Err(S3ErrorCode::InvalidArgument));
        assert_eq!(outcome(Shape::Object, "PUT", "/b/k?uploadId=1&partNumber=1", None), Ok(()));
        assert_eq!(outcome(Shape::Object, "GET", "/b/k?versionId=1&other", None), Ok(()));
    }

    #[test]
    fn control_characters_are_for_keys() {
        assert_eq!(outcome(Shape::Bucket, "GET", "/b?prefix=%00&delimiter=%01&marker=%02", None), Ok(()));
        for uri in ["/b?max-keys=%01", "/b?list-type=2&%01=x", "/b/k?X-Amz-Meta-A=a%0Ab"] {
            assert_eq!(outcome(Shape::Bucket, "GET", uri, None), Err(S3ErrorCode::InvalidArgument), "{uri}");
        }
    }

    #[test]
    fn what_is_served_is_a_sub_resource() {
        for shape in [Shape::Root, Shape::Bucket, Shape::Object] {
            for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
                for name in served(shape, &method.parse().unwrap()) {
                    assert!(SUB_RESOURCES.contains(name), "{name}");
                }
            }
        }
    }
}
