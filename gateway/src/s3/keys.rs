//! Keys on S3's wire.
//!
//! In the core a path is bytes; an S3 key is UTF-8 of up to 1,024 bytes. What came in on other ways and is not UTF-8 is
//! still listed, and can be read and deleted by the key it is listed under: each byte that S3 cannot say is
//! written as the private-use character U+F700 + byte. A path that is UTF-8 but has such characters in it is written
//! the same way, so that every path has a key of its own.

use std::borrow::Cow;

use federation::types::ObjectPath;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::{S3Error, S3ErrorCode, S3Result};

/// The longest key that S3 takes, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

const ESCAPED_FIRST: u32 = 0xF780;
const ESCAPED_LAST: u32 = 0xF7FF;
const ESCAPE_BASE: u32 = 0xF700;

/// What `encoding-type=url` leaves as it is.
const URL_ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The path that a key names.
pub fn parse(key: &str) -> S3Result<ObjectPath> {
    if key.len() > KEY_BYTES_MAX {
        return Err(S3Error::new(S3ErrorCode::KeyTooLongError));
    }
    ObjectPath::try_from(bytes(key).into_owned())
        .map_err(|error| S3Error::with_message(S3ErrorCode::InvalidArgument, error.to_string()))
}

/// The bytes that a key, a prefix or a marker stands for.
pub fn bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.chars().any(is_escape) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match u8::try_from(u32::from(character).wrapping_sub(ESCAPE_BASE)) {
            Ok(byte) if is_escape(character) => bytes.push(byte),
            _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    // Only what `text` would have written is an escape; anything else is a key that merely has such characters.
    if self::text(&bytes) == text { Cow::Owned(bytes) } else { Cow::Borrowed(text.as_bytes()) }
}

/// The key under which a path is listed.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(is_escape) => Cow::Borrowed(text),
        _ => Cow::Owned(escape(bytes)),
    }
}

/// As [`text()`], percent-encoded if `encoding-type=url` was asked for.
pub fn listed(bytes: &[u8], url: bool) -> String {
    let text = text(bytes);
    if url { url_encode(&text) } else { text.into_owned() }
}

/// Percent-encodes as `encoding-type=url` does.
pub fn url_encode(text: &str) -> String {
    utf8_percent_encode(text, URL_ENCODED).to_string()
}

fn escape(bytes: &[u8]) -> String {
    let mut key = String::with_capacity(bytes.len() + 8);
    let push_escaped = |key: &mut String, bytes: &[u8]| {
        key.extend(bytes.iter().filter_map(|byte| char::from_u32(ESCAPE_BASE + u32::from(*byte))));
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_escape(character) {
                push_escaped(&mut key, character.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                key.push(character);
            }
        }
        push_escaped(&mut key, chunk.invalid());
    }
    key
}

fn is_escape(character: char) -> bool {
    (ESCAPED_FIRST..=ESCAPED_LAST).contains(&u32::from(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_is_itself() {
        for key in ["a", "a//b", "..", "ü 😀+%", "\u{1}\r"] {
            assert_eq!(text(key.as_bytes()), key);
            assert_eq!(&*bytes(key), key.as_bytes());
        }
    }

    #[test]
    fn every_path_leads_back() {
        let paths: [&[u8]; 6] = [
            b"\xff",
            b"a\x80b/\xc3",
            b"\xed\xa0\x80",
            "\u{F7FF}".as_bytes(),
            "\u{F780}\u{F7FF}x".as_bytes(),
            b"\xf0\x9f\x98",
        ];
        for path in paths {
            let key = text(path);
            assert_eq!(&*bytes(&key), path, "{key:?}");
        }
    }

    #[test]
    fn keys_have_an_upper_bound() {
        assert!(parse(&"k".repeat(1024)).is_ok());
        assert_eq!(*parse(&"k".repeat(1025)).unwrap_err().code(), S3ErrorCode::KeyTooLongError);
        assert!(parse("").is_err());
    }

    #[test]
    fn url_encoding_keeps_slashes_only() {
        assert_eq!(url_encode("a/b c+d%ü"), "a/b%20c%2Bd%25%C3%BC");
    }
}
