//! Bytes as lower-case hexadecimal digits.

/// The bytes that lower-case hexadecimal digits stand for.
pub(crate) fn decode_hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(hex_digit(pair[0])? << 4 | hex_digit(*pair.get(1)?)?)).collect()
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Digests: hexadecimal where people may read them (JSON), else as they are (postcard).
pub mod serde_hex_or_bytes {
    use std::fmt::Write as _;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes them.
    pub fn serialize<S: Serializer, T: AsRef<[u8]> + Serialize>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return bytes.serialize(serializer);
        }
        let mut digits = String::with_capacity(2 * bytes.as_ref().len());
        for byte in bytes.as_ref() {
            write!(digits, "{byte:02x}").map_err(serde::ser::Error::custom)?;
        }
        digits.serialize(serializer)
    }

    /// Reads them.
    pub fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de> + TryFrom<Vec<u8>>,
    {
        if !deserializer.is_human_readable() {
            return T::deserialize(deserializer);
        }
        let digits = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = super::decode_hex(&digits).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| D::Error::custom("a digest is so many pairs of lower-case hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ETag;

    #[test]
    fn digits_are_bytes() {
        assert_eq!(decode_hex("00ff1a"), Some(vec![0, 255, 26]));
        assert_eq!(decode_hex(""), Some(Vec::new()));
        for odd in ["0", "00f", "0G", "0F", "ü"] {
            assert_eq!(decode_hex(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_digest_is_text_in_json_and_bytes_on_disk() {
        let etag = ETag { md5: [0xab; 16], parts: None };
        let json = serde_json::to_string(&etag).expect("writes");
        assert_eq!(json, format!("{{\"md5\":\"{}\",\"parts\":null}}", "ab".repeat(16)));
        assert_eq!(serde_json::from_str::<ETag>(&json).expect("reads"), etag);
        assert!(serde_json::from_str::<ETag>(&json.replace("abab\"", "\"")).is_err(), "too short");
        let bytes = postcard::to_stdvec(&etag).expect("writes");
        assert_eq!(bytes.len(), 17);
        assert_eq!(postcard::from_bytes::<ETag>(&bytes).expect("reads"), etag);
    }
}
