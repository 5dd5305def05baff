//! What kind of request it is, as far as its line tells: for metrics and the log.

use http::Method;

/// A class of operations; few enough to be a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationClass {
    /// Reading an object or something about it.
    Read,
    /// Writing an object or something about it.
    Write,
    /// Deleting objects.
    Delete,
    /// Listing buckets, objects, versions, uploads or parts.
    List,
    /// Steps of a multipart upload.
    Multipart,
    /// Buckets and their configuration.
    Bucket,
    /// The admin API.
    Admin,
    /// Health and metrics.
    Health,
}

impl OperationClass {
    /// The class of a request.
    #[must_use]
    pub fn of(method: &Method, target: Target<'_>, query: &str) -> Self {
        let asks = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        match target {
            Target::Admin => OperationClass::Admin,
            Target::Service => OperationClass::List,
            Target::Bucket(_) if *method == Method::POST && asks("delete") => OperationClass::Delete,
            Target::Bucket(_) if *method == Method::GET && lists(query) => OperationClass::List,
            Target::Bucket(_) => OperationClass::Bucket,
            Target::Object(..) if asks("uploadId") || asks("uploads") => OperationClass::Multipart,
            Target::Object(..) if *method == Method::DELETE && !asks("tagging") => OperationClass::Delete,
            Target::Object(..) if *method == Method::GET || *method == Method::HEAD => OperationClass::Read,
            Target::Object(..) => OperationClass::Write,
        }
    }

    /// The label's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            OperationClass::Read => "read",
            OperationClass::Write => "write",
            OperationClass::Delete => "delete",
            OperationClass::List => "list",
            OperationClass::Multipart => "multipart",
            OperationClass::Bucket => "bucket",
            OperationClass::Admin => "admin",
            OperationClass::Health => "health",
        }
    }
}

/// Sub-resources of a bucket that are no listing.
const CONFIGURATIONS: &[&str] = &[
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
    "versioning",
    "website",
];

fn lists(query: &str) -> bool {
    !query.split('&').filter_map(|pair| pair.split('=').next()).any(|name| CONFIGURATIONS.contains(&name))
}

/// What a path-style request is about. Names are as they were sent, percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// `/_elton/…`
    Admin,
    /// `/`
    Service,
    /// `/bucket`
    Bucket(&'a str),
    /// `/bucket/key`
    Object(&'a str, &'a str),
}

impl<'a> Target<'a> {
    /// What `path` is about.
    #[must_use]
    pub fn of(path: &'a str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        match (bucket, key) {
            ("_elton", _) => Target::Admin,
            ("", _) => Target::Service,
            (bucket, "") => Target::Bucket(bucket),
            (bucket, key) => Target::Object(bucket, key),
        }
    }

    /// The bucket, if it is about one.
    #[must_use]
    pub fn bucket(self) -> Option<&'a str> {
        match self {
            Target::Admin | Target::Service => None,
            Target::Bucket(bucket) | Target::Object(bucket, _) => Some(bucket),
        }
    }

    /// The key, if it is about one.
    #[must_use]
    pub fn key(self) -> Option<&'a str> {
        match self {
            Target::Admin | Target::Service | Target::Bucket(_) => None,
            Target::Object(_, key) => Some(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(method: Method, path: &str, query: &str) -> &'static str {
        OperationClass::of(&method, Target::of(path), query).name()
    }

    #[test]
    fn requests_fall_into_classes() {
        assert_eq!(class(Method::GET, "/", ""), "list");
        assert_eq!(class(Method::GET, "/photos", "list-type=2&prefix=a"), "list");
        assert_eq!(class(Method::GET, "/photos/", "versioning"), "bucket");
        assert_eq!(class(Method::PUT, "/photos", ""), "bucket");
        assert_eq!(class(Method::POST, "/photos", "delete"), "delete");
        assert_eq!(class(Method::GET, "/photos/a/b", ""), "read");
        assert_eq!(class(Method::PUT, "/photos/a/b", ""), "write");
        assert_eq!(class(Method::PUT, "/photos/a", "partNumber=1&uploadId=x"), "multipart");
        assert_eq!(class(Method::DELETE, "/photos/a", ""), "delete");
        assert_eq!(class(Method::GET, "/_elton/v1/status", ""), "admin");
    }
}
