//! The `Range` of a read.

use std::ops::Range;

use http::StatusCode;
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
    fn copies_name_both_ends() {
        assert_eq!(copy_source("bytes=2-4", 5).unwrap(), 2..5);
        for bad in ["bytes=2-5", "bytes=4-2", "bytes=2-", "bytes=-2", "2-4", "bytes=+2-4", ""] {
            assert!(copy_source(bad, 5).is_err(), "{bad}");
        }
    }
}
