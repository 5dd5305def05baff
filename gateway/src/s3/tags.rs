//! Tag sets: of objects and of buckets, in XML and in `x-amz-tagging`.

use federation::types::Pair;
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::error::custom;

/// How many tags an object has at most.
pub const OBJECT_TAGS_MAX: usize = 10;
/// How many tags a bucket has at most.
pub const BUCKET_TAGS_MAX: usize = 50;
const KEY_CHARACTERS_MAX: usize = 128;
const VALUE_CHARACTERS_MAX: usize = 256;

/// Reads `x-amz-tagging`: `a=b&c=d`, percent-encoded.
pub fn from_header(text: &str) -> S3Result<Vec<Pair>> {
    let tags = form_urlencoded::parse(text.as_bytes()).map(|(key, value)| (key.into_owned(), value.into_owned()));
    check(tags.collect(), OBJECT_TAGS_MAX)
}

/// Reads a tag set of XML.
pub fn from_xml(set: dto::TagSet, maximum: usize) -> S3Result<Vec<Pair>> {
    let tags = set.into_iter().map(|tag| match (tag.key, tag.value) {
        (Some(key), Some(value)) => Ok((key, value)),
        _ => Err(S3Error::new(S3ErrorCode::MalformedXML)),
    });
    check(tags.collect::<S3Result<_>>()?, maximum)
}

/// Writes a tag set.
pub fn to_xml(tags: Vec<Pair>) -> dto::TagSet {
    tags.into_iter().map(|(key, value)| dto::Tag { key: Some(key), value: Some(value) }).collect()
}

fn check(tags: Vec<Pair>, maximum: usize) -> S3Result<Vec<Pair>> {
    if tags.len() > maximum {
        let what = if maximum == OBJECT_TAGS_MAX { "Object" } else { "Bucket" };
        let message = format!("{what} tags cannot be greater than {maximum}");
        return Err(custom("BadRequest", http::StatusCode::BAD_REQUEST, message));
    }
    for (index, (key, value)) in tags.iter().enumerate() {
        if key.is_empty() || key.chars().count() > KEY_CHARACTERS_MAX || !lawful(key) || key.starts_with("aws:") {
            return Err(invalid("The TagKey you have provided is invalid"));
        }
        if value.chars().count() > VALUE_CHARACTERS_MAX || !lawful(value) {
            return Err(invalid("The TagValue you have provided is invalid"));
        }
        if tags[..index].iter().any(|(earlier, _)| earlier == key) {
            return Err(invalid("Cannot provide multiple Tags with the same key"));
        }
    }
    Ok(tags)
}

/// The letters, digits, spaces and marks that S3 allows.
fn lawful(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c))
}

fn invalid(message: &'static str) -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidTag, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> Pair {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn a_header_is_percent_encoded() {
        assert_eq!(from_header("a=b%2Bc&d+e=&%C3%BC=1").unwrap(), [pair("a", "b+c"), pair("d e", ""), pair("ü", "1")]);
        assert_eq!(from_header("").unwrap(), []);
    }

    #[test]
    fn what_s3_refuses() {
        let many: Vec<String> = (0..11).map(|n| format!("k{n}=v")).collect();
        for bad in ["a=1&a=2", "=v", "aws:x=1", "a=%3Cb%3E", &format!("{}=v", "k".repeat(129)), &many.join("&")] {
            assert!(from_header(bad).is_err(), "{bad}");
        }
        assert!(from_header(&format!("{}={}", "k".repeat(128), "v".repeat(256))).is_ok());
        assert!(from_xml(vec![dto::Tag { key: Some("a".to_owned()), value: None }], BUCKET_TAGS_MAX).is_err());
    }
}
