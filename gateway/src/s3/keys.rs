//! Keys on S3's wire.
//!
//! In the core a path is bytes; an S3 key is UTF-8 of up to 1,024 bytes. What came in on other ways and is not UTF-8 is
//! still listed, and can be read and deleted by the key it is listed under: each byte that S3 cannot say is
//! written as the private-use character U+F700 + byte. A path that is UTF-8 but has such characters in it is written
//! the same way, so that every path has a key of its own.
//!
//! S3 takes keys with characters that no XML document can hold: control characters, U+FFFE and U+FFFF. With
//! `encoding-type=url` they are percent-encoded like any other. Without it a control character is written as U+F700
//! and U+F700 + its code, and the other two by their bytes as above; the key so written names the same path.

use std::borrow::Cow;

use federation::types::ObjectPath;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::error::invalid_argument;

/// The longest key that S3 takes, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

const ESCAPED_FIRST: u32 = 0xF780;
const ESCAPED_LAST: u32 = 0xF7FF;
const ESCAPE_BASE: u32 = 0xF700;
/// Stands before an escaped control character, so that a key with a lone U+F701 to U+F71F is itself.
const CONTROL_MARK: char = '\u{F700}';

/// What `encoding-type=url` leaves as it is.
const URL_ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The path that a key names.
pub fn parse(key: &str) -> S3Result<ObjectPath> {
    if key.len() > KEY_BYTES_MAX {
        return Err(S3Error::new(S3ErrorCode::KeyTooLongError));
    }
    ObjectPath::try_from(bytes(key).into_owned()).map_err(|error| invalid_argument(error.to_string()))
}

/// The bytes that a key, a prefix or a marker stands for.
pub fn bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.chars().any(is_escape) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let control =
            (character == CONTROL_MARK).then(|| characters.next_if(|next| control(*next).is_some())).flatten();
        match (control.and_then(self::control), low_byte(character)) {
            (Some(control), _) => bytes.push(control),
            (None, Some(byte)) if byte >= 0x80 => bytes.push(byte),
            (None, _) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    // Only what a listing would have written is an escape; anything else is a key that merely has such characters.
    let is_listed = [Wire::Url, Wire::Xml].into_iter().any(|wire| self::text(&bytes, wire) == text);
    if is_listed { Cow::Owned(bytes) } else { Cow::Borrowed(text.as_bytes()) }
}

/// How a key travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    /// To be percent-encoded, which every character can be.
    Url,
    /// As the text of an XML document.
    Xml,
}

/// The key under which a path is listed.
fn text(bytes: &[u8], wire: Wire) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|character| must_escape(character, wire)) => Cow::Borrowed(text),
        _ => Cow::Owned(escape(bytes, wire)),
    }
}

/// The key under which a path is listed: percent-encoded if `encoding-type=url` was asked for, else as XML can hold it.
pub fn listed(bytes: &[u8], url: bool) -> String {
    if url { url_encode(&text(bytes, Wire::Url)) } else { text(bytes, Wire::Xml).into_owned() }
}

/// A key or a parameter of a listing as an answer repeats it.
pub fn echoed(text: &str, url: bool) -> String {
    if url { url_encode(text) } else { listed(&bytes(text), false) }
}

/// Percent-encodes as `encoding-type=url` does.
pub fn url_encode(text: &str) -> String {
    utf8_percent_encode(text, URL_ENCODED).to_string()
}

fn escape(bytes: &[u8], wire: Wire) -> String {
    let mut key = String::with_capacity(bytes.len() + 8);
    let push_escaped = |key: &mut String, bytes: &[u8]| {
        key.extend(bytes.iter().filter_map(|byte| char::from_u32(ESCAPE_BASE + u32::from(*byte))));
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if !must_escape(character, wire) {
                key.push(character);
                continue;
            }
            if character < ' ' {
                key.push(CONTROL_MARK);
            }
            push_escaped(&mut key, character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        push_escaped(&mut key, chunk.invalid());
    }
    key
}

/// Whether no XML document can hold a character.
pub fn is_unwritable(character: char) -> bool {
    matches!(character, '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}')
}

fn must_escape(character: char, wire: Wire) -> bool {
    is_escape(character) || (wire == Wire::Xml && is_unwritable(character))
}

fn is_escape(character: char) -> bool {
    character == CONTROL_MARK || (ESCAPED_FIRST..=ESCAPED_LAST).contains(&u32::from(character))
}

/// The byte that a character stands for where it is an escape.
fn low_byte(character: char) -> Option<u8> {
    u8::try_from(u32::from(character).wrapping_sub(ESCAPE_BASE)).ok()
}

/// The control character that a character stands for behind the mark.
fn control(character: char) -> Option<u8> {
    low_byte(character).filter(|byte| is_unwritable(char::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_is_itself() {
        for key in ["a", "a//b", "..", "ü 😀+%", "\t\r\n", "\u{F701}"] {
            for wire in [Wire::Url, Wire::Xml] {
                assert_eq!(text(key.as_bytes(), wire), key);
            }
            assert_eq!(&*bytes(key), key.as_bytes());
        }
    }

    #[test]
    fn every_path_leads_back() {
        let paths: [&[u8]; 12] = [
            b"\xff",
            b"a\x80b/\xc3",
            b"\xed\xa0\x80",
            "\u{F7FF}".as_bytes(),
            "\u{F780}\u{F7FF}x".as_bytes(),
            b"\xf0\x9f\x98",
            b"c\x01\x00\x1f",
            b"\x01\xff",
            "\u{F700}\u{F701}".as_bytes(),
            "\u{F700}x\u{1}".as_bytes(),
            "\u{FFFE}\u{FFFF}".as_bytes(),
            "\u{F701}\u{1}".as_bytes(),
        ];
        for path in paths {
            for wire in [Wire::Url, Wire::Xml] {
                let key = text(path, wire);
                assert_eq!(&*bytes(&key), path, "{key:?} {wire:?}");
                assert!(wire == Wire::Url || !key.chars().any(is_unwritable), "{key:?}");
            }
        }
    }

    #[test]
    fn what_xml_cannot_hold_is_escaped_there_only() {
        assert_eq!(listed(b"c\x01", true), "c%01");
        assert_eq!(listed(b"c\x01", false), "c\u{F700}\u{F701}");
        assert_eq!(echoed("c\u{1}", false), "c\u{F700}\u{F701}");
        assert_eq!(echoed("c\u{F700}\u{F701}", false), "c\u{F700}\u{F701}");
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
