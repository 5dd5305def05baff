//! Headers of a write that s3s does not take: metadata in several lines, which S3 joins, and text that is not ASCII.

use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, EXPIRES};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use s3s::{S3Result, TrailingHeaders};

use super::error::invalid_argument;

/// The headers that s3s reads as ASCII and that an object keeps.
const TEXTS: [HeaderName; 5] = [CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CACHE_CONTROL, EXPIRES];

/// Headers that go around s3s, in a request's extensions.
#[derive(Clone, Debug, Default)]
pub struct OddHeaders(HeaderMap);

/// What comes after the body of a request that was put right.
#[derive(Clone, Debug)]
pub struct Trailers(pub Option<TrailingHeaders>);

impl OddHeaders {
    /// Whether a request has any.
    pub fn any(headers: &HeaderMap) -> bool {
        repeated(headers).next().is_some()
            || TEXTS.iter().any(|name| headers.get(name).is_some_and(|value| value.to_str().is_err()))
    }

    /// Joins what is repeated and takes out what is not ASCII.
    pub fn take(headers: &mut HeaderMap) -> S3Result<OddHeaders> {
        let names: Vec<HeaderName> = repeated(headers).cloned().collect();
        for name in names {
            let lines: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
            let joined = HeaderValue::from_bytes(&lines.join(&b","[..]));
            headers.insert(name, joined.map_err(|_| invalid_argument("metadata is not printable"))?);
        }
        let mut odd = HeaderMap::new();
        for name in TEXTS {
            if headers.get(&name).is_some_and(|value| value.to_str().is_err())
                && let Some(value) = headers.remove(&name)
            {
                std::str::from_utf8(value.as_bytes())
                    .map_err(|_| invalid_argument(format!("invalid header: {name} is not UTF-8")))?;
                odd.insert(name, value);
            }
        }
        Ok(OddHeaders(odd))
    }

    /// Puts back what was taken out of a request.
    pub fn restore(extensions: &mut Extensions, headers: &mut HeaderMap) {
        if let Some(OddHeaders(odd)) = extensions.remove::<OddHeaders>() {
            headers.extend(odd);
        }
    }
}

/// Metadata in several lines.
fn repeated(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    let is_repeated = |name: &&HeaderName| headers.get_all(*name).iter().nth(1).is_some();
    headers.keys().filter(|name| name.as_str().starts_with("x-amz-meta-")).filter(is_repeated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_text_goes_around() {
        let name: HeaderName = "x-amz-meta-a".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.append(&name, HeaderValue::from_static("1"));
        assert!(!OddHeaders::any(&headers));
        headers.append(&name, HeaderValue::from_static("2"));
        let disposition = HeaderValue::from_str("filename=ü").unwrap();
        headers.insert(CONTENT_DISPOSITION, disposition.clone());
        assert!(OddHeaders::any(&headers));
        let mut extensions = Extensions::new();
        extensions.insert(OddHeaders::take(&mut headers).unwrap());
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[&name], "1,2");
        OddHeaders::restore(&mut extensions, &mut headers);
        assert_eq!(headers[CONTENT_DISPOSITION], disposition);
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(OddHeaders::take(&mut headers).is_err());
    }
}
