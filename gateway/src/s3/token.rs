//! Continuation tokens of ListObjectsV2: opaque to clients, checked when they come back.
//!
//! A token holds the number of the state that its chain lists and where in it the next page begins, so that all pages
//! of a chain are of one state. Its check value covers the bucket's name, so that a token of another bucket, or one
//! that was cut or changed, is refused. It grants nothing: what it names is authorised as ever.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use federation::master::After;
use federation::types::{BucketName, Number};
use s3s::S3Result;

use super::error::invalid_argument;

const FORMAT: u8 = 1;
const KEY: u8 = 0;
const PREFIX: u8 = 1;
const HEAD_BYTES: usize = 1 + 8 + 1;
const CHECK_BYTES: usize = 4;

/// Where a chain of pages goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The state that is listed.
    pub number: Number,
    /// The place in it.
    pub after: After,
}

impl Token {
    /// The token as clients see it.
    pub fn encode(&self, bucket: &BucketName) -> String {
        let (kind, place) = match &self.after {
            After::Key(place) => (KEY, place),
            After::Prefix(place) => (PREFIX, place),
        };
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.number.0.to_be_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(place);
        bytes.extend_from_slice(&check_value(bucket, &bytes));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that was made for this bucket.
    pub fn decode(text: &str, bucket: &BucketName) -> S3Result<Token> {
        Token::parse(text, bucket).ok_or_else(|| invalid_argument("The continuation token provided is incorrect"))
    }

    fn parse(text: &str, bucket: &BucketName) -> Option<Token> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (content, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
        if check != check_value(bucket, content) {
            return None;
        }
        let (head, place) = content.split_at_checked(HEAD_BYTES)?;
        let number = Number(u64::from_be_bytes(head[1..9].try_into().ok()?));
        let after = match (head[0], head[9]) {
            (FORMAT, KEY) => After::Key(place.to_vec()),
            (FORMAT, PREFIX) => After::Prefix(place.to_vec()),
            _ => return None,
        };
        Some(Token { number, after })
    }
}

fn check_value(bucket: &BucketName, content: &[u8]) -> [u8; CHECK_BYTES] {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(bucket.as_str().as_bytes());
    // No name has this byte: name and content cannot run into each other.
    digest.update(&[0]);
    digest.update(content);
    u32::try_from(digest.finalize() & u64::from(u32::MAX)).unwrap_or_default().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(name: &str) -> BucketName {
        name.parse().unwrap()
    }

    #[test]
    fn tokens_lead_back() {
        for after in [After::Key(b"a/\xff".to_vec()), After::Prefix(b"a/".to_vec()), After::Key(Vec::new())] {
            let token = Token { number: Number(1 << 40), after };
            assert_eq!(Token::decode(&token.encode(&bucket("photos")), &bucket("photos")).unwrap(), token);
        }
    }

    #[test]
    fn tokens_that_were_not_made_here_are_refused() {
        let token = Token { number: Number(7), after: After::Key(b"key".to_vec()) }.encode(&bucket("photos"));
        assert!(Token::decode(&token, &bucket("other")).is_err());
        assert!(Token::decode(&token[..token.len() - 1], &bucket("photos")).is_err());
        assert!(Token::decode(&token.replacen('A', "B", 1), &bucket("photos")).is_err());
        for bad in ["", "AAAA", "not a token", "AQAAAAAAAAAH"] {
            assert!(Token::decode(bad, &bucket("photos")).is_err(), "{bad}");
        }
    }
}
