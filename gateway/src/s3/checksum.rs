//! Checksums on S3's wire: the names of the algorithms, their headers and how values are written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use federation::types::{Checksum, ChecksumAlgorithm, ChecksumKind};
use s3s::{S3Error, S3Result};

use super::error::invalid_request;

/// What S3 keeps of an object whose client stated no checksum.
pub const DEFAULT_ALGORITHM: ChecksumAlgorithm = ChecksumAlgorithm::Crc64Nvme;

/// Every algorithm there is.
pub const ALGORITHMS: [ChecksumAlgorithm; 5] = [
    ChecksumAlgorithm::Crc32,
    ChecksumAlgorithm::Crc32c,
    ChecksumAlgorithm::Crc64Nvme,
    ChecksumAlgorithm::Sha1,
    ChecksumAlgorithm::Sha256,
];

/// The algorithm's name in XML and in `x-amz-checksum-algorithm`.
pub fn name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "CRC32",
        ChecksumAlgorithm::Crc32c => "CRC32C",
        ChecksumAlgorithm::Crc64Nvme => "CRC64NVME",
        ChecksumAlgorithm::Sha1 => "SHA1",
        ChecksumAlgorithm::Sha256 => "SHA256",
    }
}

/// The header or trailer that carries a value.
pub fn header(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
    }
}

/// How many bytes a value has.
fn length(algorithm: ChecksumAlgorithm) -> usize {
    match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => 4,
        ChecksumAlgorithm::Crc64Nvme => 8,
        ChecksumAlgorithm::Sha1 => 20,
        ChecksumAlgorithm::Sha256 => 32,
    }
}

/// The algorithm of this name, in either case as S3 has it.
pub fn parse_name(text: &str) -> Option<ChecksumAlgorithm> {
    ALGORITHMS.into_iter().find(|algorithm| name(*algorithm).eq_ignore_ascii_case(text))
}

/// The algorithm whose header this is.
pub fn parse_header(text: &str) -> Option<ChecksumAlgorithm> {
    ALGORITHMS.into_iter().find(|algorithm| header(*algorithm).eq_ignore_ascii_case(text))
}

/// `COMPOSITE` or `FULL_OBJECT`.
pub fn kind_name(kind: ChecksumKind) -> &'static str {
    match kind {
        ChecksumKind::FullObject => "FULL_OBJECT",
        ChecksumKind::Composite => "COMPOSITE",
    }
}

/// Reads `COMPOSITE` or `FULL_OBJECT`.
pub fn parse_kind(text: &str) -> S3Result<ChecksumKind> {
    match text {
        "FULL_OBJECT" => Ok(ChecksumKind::FullObject),
        "COMPOSITE" => Ok(ChecksumKind::Composite),
        _ => Err(invalid_request("Value for x-amz-checksum-type header is invalid.")),
    }
}

/// A value as S3 writes it: base64, and for a composite one the number of parts behind it.
pub fn encode(checksum: &Checksum, parts: Option<u16>) -> String {
    let value = STANDARD.encode(&checksum.value);
    match (checksum.kind, parts) {
        (ChecksumKind::Composite, Some(parts)) => format!("{value}-{parts}"),
        (ChecksumKind::Composite, None) | (ChecksumKind::FullObject, _) => value,
    }
}

/// Reads the value of a whole body.
pub fn decode(algorithm: ChecksumAlgorithm, text: &str) -> S3Result<Vec<u8>> {
    STANDARD.decode(text).ok().filter(|value| value.len() == length(algorithm)).ok_or_else(|| invalid_value(algorithm))
}

/// Reads the value of a multipart object: a composite one may carry its number of parts.
pub fn decode_object(algorithm: ChecksumAlgorithm, text: &str, parts: usize) -> S3Result<Vec<u8>> {
    match text.rsplit_once('-') {
        Some((value, count)) if count.parse() == Ok(parts) => decode(algorithm, value),
        Some(_) => Err(invalid_value(algorithm)),
        None => decode(algorithm, text),
    }
}

fn invalid_value(algorithm: ChecksumAlgorithm) -> S3Error {
    invalid_request(format!("Value for {} header is invalid.", header(algorithm)))
}

/// Sets the field for a checksum in any of s3s's types that have one field for each algorithm.
macro_rules! set_checksum {
    ($output:expr, $algorithm:expr, $text:expr) => {
        match $algorithm {
            ::federation::types::ChecksumAlgorithm::Crc32 => $output.checksum_crc32 = Some($text),
            ::federation::types::ChecksumAlgorithm::Crc32c => $output.checksum_crc32c = Some($text),
            ::federation::types::ChecksumAlgorithm::Crc64Nvme => $output.checksum_crc64nvme = Some($text),
            ::federation::types::ChecksumAlgorithm::Sha1 => $output.checksum_sha1 = Some($text),
            ::federation::types::ChecksumAlgorithm::Sha256 => $output.checksum_sha256 = Some($text),
        }
    };
}

/// Sets the fields for an object's checksum and its kind.
macro_rules! set_object_checksum {
    ($output:expr, $checksum:expr, $parts:expr) => {
        if let Some(checksum) = $checksum {
            let text = $crate::s3::checksum::encode(checksum, $parts);
            $crate::s3::checksum::set_checksum!($output, checksum.algorithm, text);
            let kind = $crate::s3::checksum::kind_name(checksum.kind);
            $output.checksum_type = Some(::s3s::dto::ChecksumType::from_static(kind));
        }
    };
}

/// The checksums that one of s3s's types states, as text.
macro_rules! stated_checksums {
    ($input:expr) => {{
        use ::federation::types::ChecksumAlgorithm;
        [
            (ChecksumAlgorithm::Crc32, $input.checksum_crc32.as_deref()),
            (ChecksumAlgorithm::Crc32c, $input.checksum_crc32c.as_deref()),
            (ChecksumAlgorithm::Crc64Nvme, $input.checksum_crc64nvme.as_deref()),
            (ChecksumAlgorithm::Sha1, $input.checksum_sha1.as_deref()),
            (ChecksumAlgorithm::Sha256, $input.checksum_sha256.as_deref()),
        ]
        .into_iter()
        .filter_map(|(algorithm, text)| text.map(|text| (algorithm, text)))
    }};
}

pub(crate) use {set_checksum, set_object_checksum, stated_checksums};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_headers_lead_back() {
        for algorithm in ALGORITHMS {
            assert_eq!(parse_name(&name(algorithm).to_lowercase()), Some(algorithm));
            assert_eq!(parse_header(header(algorithm)), Some(algorithm));
        }
        assert_eq!(parse_name("SHA512"), None);
    }

    #[test]
    fn values_have_the_length_of_their_algorithm() {
        assert_eq!(decode(ChecksumAlgorithm::Crc32, "y/Q5Jg==").unwrap(), [0xcb, 0xf4, 0x39, 0x26]);
        for bad in ["", "y/Q5Jg", "y/Q5JgA=", "!!!!"] {
            assert!(decode(ChecksumAlgorithm::Crc32, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_composite_value_carries_its_number_of_parts() {
        let value = decode_object(ChecksumAlgorithm::Crc32, "y/Q5Jg==-2", 2).unwrap();
        assert!(decode_object(ChecksumAlgorithm::Crc32, "y/Q5Jg==-2", 3).is_err());
        assert!(decode_object(ChecksumAlgorithm::Crc32, "y/Q5Jg==", 3).is_ok());
        let checksum = Checksum { algorithm: ChecksumAlgorithm::Crc32, kind: ChecksumKind::Composite, value };
        assert_eq!(encode(&checksum, Some(2)), "y/Q5Jg==-2");
    }
}
