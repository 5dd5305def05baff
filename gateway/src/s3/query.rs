//! The query of a request: its parameters, and the `x-amz-*` headers that presigning clients move into it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

/// What signing itself puts into a query, in lower case.
const SIGNATURE: [&str; 8] = [
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// The parameters of a query, decoded.
pub fn parameters(uri: &Uri) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}

/// The first value of a parameter.
pub fn get<'a>(uri: &'a Uri, name: &str) -> Option<Cow<'a, str>> {
    parameters(uri).find(|(known, _)| known == name).map(|(_, value)| value)
}

/// Whether there is such a parameter.
pub fn has(uri: &Uri, name: &str) -> bool {
    get(uri, name).is_some()
}

/// The query without what signing put into it; none if nothing is left.
pub fn without_signature(uri: &Uri) -> Option<String> {
    let kept: Vec<&str> = uri
        .query()?
        .split('&')
        .filter(|pair| {
            let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
            !SIGNATURE.contains(&name.to_ascii_lowercase().as_str())
        })
        .collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

/// The headers of a request with those that were presigned into its query. S3 takes `x-amz-*` from either place, and
/// the query is always signed.
pub fn with_presigned(mut headers: HeaderMap, uri: &Uri) -> HeaderMap {
    for (name, value) in presigned(uri) {
        headers.entry(name).or_insert(value);
    }
    headers
}

/// The headers that were presigned into a query.
pub fn presigned(uri: &Uri) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    parameters(uri).filter_map(|(name, value)| {
        if !is_header(&name) {
            return None;
        }
        Some((HeaderName::try_from(name.as_ref()).ok()?, HeaderValue::from_str(&value).ok()?))
    })
}

/// Whether a parameter is a header that was presigned.
pub fn is_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    (name.starts_with("x-amz-") || name.starts_with("x-elton-")) && !SIGNATURE.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presigned_headers_count_and_signatures_do_not() {
        let uri: Uri = "/b/k?X-Amz-Signature=0&X-Amz-Acl=public-read&x-amz-meta-a=b%20c&versionId=3".parse().unwrap();
        let headers = with_presigned(HeaderMap::new(), &uri);
        assert_eq!(headers["x-amz-acl"], "public-read");
        assert_eq!(headers["x-amz-meta-a"], "b c");
        assert_eq!(headers.len(), 2);
        assert_eq!(without_signature(&uri).unwrap(), "X-Amz-Acl=public-read&x-amz-meta-a=b%20c&versionId=3");
        assert_eq!(without_signature(&"/b?X-Amz-Date=1".parse().unwrap()), None);
    }

    #[test]
    fn parameters_without_values() {
        let uri: Uri = "/b?versions&prefix=a%2Fb+c".parse().unwrap();
        assert!(has(&uri, "versions"));
        assert_eq!(get(&uri, "prefix").unwrap(), "a/b c");
        assert!(!has(&uri, "delimiter"));
    }
}
