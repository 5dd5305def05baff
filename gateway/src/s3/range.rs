//! The `Range` of a read.

use std::ops::Range;

use http::{HeaderValue, StatusCode};
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::error::{custom, invalid_argument, with_headers};

/// Which bytes of an object are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The bytes.
    pub bytes: Range<u64>,
    /// The `Content-Range` of the answer; none for the whole object.
    pub content_range: Option<String>,
}

impl Selection {
    /// The whole object.
    pub fn whole(size: u64) -> Selection {
        Selection { bytes: 0..size, content_range: None }
    }

    /// Some bytes of it, which may be all.
    pub fn part(bytes: Range<u64>, size: u64) -> Selection {
        // An empty range has no last byte and so no `Content-Range`.
        let content_range =
            (!bytes.is_empty()).then(|| format!("bytes {}-{}/{size}", bytes.start, bytes.end.saturating_sub(1)));
        Selection { bytes, content_range }
    }

    /// What a `Range` header selects. Ranges that S3 ignores never come here: see `rewrite`.
    pub fn of(range: &dto::Range, size: u64) -> S3Result<Selection> {
        match range.check(size) {
            // Of an empty object even the last N bytes are none.
            Ok(bytes) if !bytes.is_empty() => Ok(Selection::part(bytes, size)),
            Ok(_) | Err(_) => Err(unsatisfiable(size)),
        }
    }

    /// How many bytes are selected.
    pub fn length(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    /// Whether that is all of them.
    pub fn is_whole(&self, size: u64) -> bool {
        self.bytes == (0..size)
    }
}

/// A `Range` as s3s reads it right: none for one that S3 ignores because it is malformed or of several parts. Offsets
/// beyond any object's length become the highest that s3s knows.
pub fn normal(header: &HeaderValue) -> Option<HeaderValue> {
    let text = header.to_str().ok()?;
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = (offset(first)?, offset(last)?);
    let text = match (first, last) {
        (None, None) => return None,
        (Some(first), Some(last)) if first > last => return None,
        (None, Some(length)) => format!("bytes=-{length}"),
        (Some(first), None) => format!("bytes={first}-"),
        (Some(first), Some(last)) => format!("bytes={first}-{last}"),
    };
    HeaderValue::try_from(text).ok()
}

/// Reads an end of a range, which may be empty.
fn offset(text: &str) -> Option<Option<i64>> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Digits that do not fit are a number all the same.
    Some((!text.is_empty()).then(|| text.parse().unwrap_or(i64::MAX)))
}

/// 416, with the length there is.
fn unsatisfiable(size: u64) -> S3Error {
    let error = S3Error::new(S3ErrorCode::InvalidRange);
    with_headers(error, [(http::header::CONTENT_RANGE, format!("bytes */{size}"))])
}

/// 416 for a part that the object does not have.
pub fn no_such_part() -> S3Error {
    custom(
        "InvalidPartNumber",
        StatusCode::RANGE_NOT_SATISFIABLE,
        "The requested partnumber is not satisfiable".to_owned(),
    )
}

/// Reads `x-amz-copy-source-range`, which has to name both ends and lie within the source.
pub fn copy_source(text: &str, size: u64) -> S3Result<Range<u64>> {
    let parsed = text.strip_prefix("bytes=").and_then(|ends| ends.split_once('-')).and_then(|(first, last)| {
        let digits =
            |text: &str| (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok());
        Some((digits(first)??, digits(last)??))
    });
    let (first, last): (u64, u64) = parsed.ok_or_else(|| {
        invalid_argument(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
             zero-based offsets of the first and last bytes to copy",
        )
    })?;
    if first > last || last >= size {
        return Err(invalid_argument(format!("Range specified is not valid for source object of size: {size}")));
    }
    Ok(first..last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(text: &str, size: u64) -> Result<(Range<u64>, String), String> {
        Selection::of(&dto::Range::parse(text).unwrap(), size)
            .map(|selection| (selection.bytes, selection.content_range.unwrap()))
            .map_err(|error| error.headers().unwrap()["content-range"].to_str().unwrap().to_owned())
    }

    #[test]
    fn single_ranges() {
        assert_eq!(select("bytes=0-0", 10), Ok((0..1, "bytes 0-0/10".to_owned())));
        assert_eq!(select("bytes=5-", 10), Ok((5..10, "bytes 5-9/10".to_owned())));
        assert_eq!(select("bytes=5-99", 10), Ok((5..10, "bytes 5-9/10".to_owned())));
        assert_eq!(select("bytes=-3", 10), Ok((7..10, "bytes 7-9/10".to_owned())));
        assert_eq!(select("bytes=-99", 10), Ok((0..10, "bytes 0-9/10".to_owned())));
    }

    #[test]
    fn unsatisfiable_ranges_name_the_length() {
        for text in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(select(text, 10), Err("bytes */10".to_owned()), "{text}");
        }
        assert_eq!(select("bytes=0-", 0), Err("bytes */0".to_owned()));
        assert_eq!(select("bytes=-5", 0), Err("bytes */0".to_owned()));
    }

    #[test]
    fn ranges_that_are_none_and_those_beyond_any_length() {
        let read = |text: &str| {
            let range = normal(&HeaderValue::from_str(text).unwrap())?;
            Some(select(range.to_str().unwrap(), 10).map(|(bytes, _)| bytes))
        };
        for text in ["bytes=-", "bytes=5-2", "bytes=0-1,3-4", "lines=0-1", "bytes=a-", "bytes=--1", "bytes= 0-1"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read("bytes=0-99999999999999999999999"), Some(Ok(0..10)));
        assert_eq!(read("bytes=-18446744073709551616"), Some(Ok(0..10)));
        assert_eq!(read("bytes=18446744073709551615-"), Some(Err("bytes */10".to_owned())));
        assert_eq!(read("bytes=2-3"), Some(Ok(2..4)));
    }

    #[test]
    fn copies_name_both_ends() {
        assert_eq!(copy_source("bytes=2-4", 5).unwrap(), 2..5);
        for bad in ["bytes=2-5", "bytes=4-2", "bytes=2-", "bytes=-2", "2-4", "bytes=+2-4", ""] {
            assert!(copy_source(bad, 5).is_err(), "{bad}");
        }
    }
}
