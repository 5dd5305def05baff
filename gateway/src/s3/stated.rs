//! What a client states of the body it sends: `Content-MD5` and one `x-amz-checksum-*`, in a header or a trailer.
//!
//! s3s parses these and verifies none; `x-amz-content-sha256` and chunk signatures alone are its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use federation::types::{Checksum, ChecksumAlgorithm, ChecksumKind};
use http::HeaderMap;
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders};

use super::checksum;
use super::error::{custom, invalid_request};
use crate::digest::{Digested, Digests};

/// The digests that a client states.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stated {
    md5: Option<[u8; 16]>,
    checksum: Option<(ChecksumAlgorithm, Value)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Header(Vec<u8>),
    /// Comes after the body.
    Trailer,
}

impl Stated {
    /// Reads the statements of a request's headers.
    pub fn read(headers: &HeaderMap) -> S3Result<Stated> {
        let checksum = read_checksum(headers)?;
        check_announced(headers, checksum.as_ref().map(|(algorithm, _)| *algorithm))?;
        Ok(Stated { md5: read_md5(headers)?, checksum })
    }

    /// Reads only `Content-MD5`, where checksum headers speak of something else than the body.
    pub fn read_md5(headers: &HeaderMap) -> S3Result<Stated> {
        Ok(Stated { md5: read_md5(headers)?, checksum: None })
    }

    /// The algorithm of the stated checksum.
    pub fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        self.checksum.as_ref().map(|(algorithm, _)| *algorithm)
    }

    /// What has to be computed to verify the statements and to keep a checksum by `kept`.
    pub fn digests(&self, kept: ChecksumAlgorithm) -> Digests {
        Digests::new([kept].into_iter().chain(self.algorithm()))
    }

    /// Compares the statements with what came.
    pub fn verify(&self, digested: &Digested, trailers: Option<&TrailingHeaders>) -> S3Result<()> {
        if self.md5.is_some_and(|md5| md5 != digested.md5) {
            return Err(S3Error::with_message(
                S3ErrorCode::BadDigest,
                "The Content-MD5 you specified did not match what we received.",
            ));
        }
        let Some((algorithm, value)) = &self.checksum else { return Ok(()) };
        let stated = match value {
            Value::Header(value) => value.clone(),
            Value::Trailer => read_trailer(*algorithm, trailers)?,
        };
        if digested.checksum(*algorithm) == Some(&stated) {
            return Ok(());
        }
        Err(S3Error::with_message(
            S3ErrorCode::BadDigest,
            format!("The {} you specified did not match the calculated checksum.", checksum::name(*algorithm)),
        ))
    }
}

/// The checksum to keep of a whole body.
pub fn kept(digested: &Digested, algorithm: ChecksumAlgorithm) -> Option<Checksum> {
    let value = digested.checksum(algorithm)?.to_vec();
    Some(Checksum { algorithm, kind: ChecksumKind::FullObject, value })
}

fn read_md5(headers: &HeaderMap) -> S3Result<Option<[u8; 16]>> {
    let Some(text) = headers.get("content-md5") else { return Ok(None) };
    let md5 = STANDARD.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    md5.map(Some).ok_or_else(|| S3Error::new(S3ErrorCode::InvalidDigest))
}

fn read_checksum(headers: &HeaderMap) -> S3Result<Option<(ChecksumAlgorithm, Value)>> {
    let mut found = Vec::new();
    for algorithm in checksum::ALGORITHMS {
        if let Some(text) = headers.get(checksum::header(algorithm)) {
            let value = checksum::decode(algorithm, text.to_str().unwrap_or_default())?;
            found.push((algorithm, Value::Header(value)));
        }
    }
    for name in
        headers.get_all("x-amz-trailer").iter().filter_map(|names| names.to_str().ok()).flat_map(|v| v.split(','))
    {
        if let Some(algorithm) = checksum::parse_header(name.trim()) {
            found.push((algorithm, Value::Trailer));
        }
    }
    if found.len() > 1 {
        return Err(invalid_request(
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        ));
    }
    Ok(found.pop())
}

/// An SDK that names its algorithm has to send a value by it.
fn check_announced(headers: &HeaderMap, found: Option<ChecksumAlgorithm>) -> S3Result<()> {
    let Some(name) = headers.get("x-amz-sdk-checksum-algorithm") else { return Ok(()) };
    let announced = checksum::parse_name(name.to_str().unwrap_or_default());
    match found {
        Some(found) if Some(found) == announced => Ok(()),
        Some(_) => Err(invalid_request("Value for x-amz-sdk-checksum-algorithm header is invalid.")),
        None => Err(invalid_request(
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers \
             were found.",
        )),
    }
}

fn read_trailer(algorithm: ChecksumAlgorithm, trailers: Option<&TrailingHeaders>) -> S3Result<Vec<u8>> {
    let value =
        trailers.and_then(|trailers| trailers.read(|map| map.get(checksum::header(algorithm)).cloned())).flatten();
    let Some(value) = value else {
        return Err(custom(
            "MalformedTrailerError",
            http::StatusCode::BAD_REQUEST,
            format!("the trailer {} was announced and did not come", checksum::header(algorithm)),
        ));
    };
    checksum::decode(algorithm, value.to_str().unwrap_or_default().trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use federation::blobs::Observer as _;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    fn digested(stated: &Stated, body: &[u8]) -> Digested {
        let mut digests = stated.digests(checksum::DEFAULT_ALGORITHM);
        digests.update(body);
        digests.finish()
    }

    #[test]
    fn what_is_stated_is_compared() {
        let stated = Stated::read(&headers(&[("x-amz-checksum-crc32", "y/Q5Jg==")])).unwrap();
        assert!(stated.verify(&digested(&stated, b"123456789"), None).is_ok());
        let error = stated.verify(&digested(&stated, b"123456780"), None).unwrap_err();
        assert_eq!(*error.code(), S3ErrorCode::BadDigest);
        let stated = Stated::read(&headers(&[("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==")])).unwrap();
        assert!(stated.verify(&digested(&stated, b"123456789"), None).is_ok());
        assert!(stated.verify(&digested(&stated, b""), None).is_err());
    }

    #[test]
    fn statements_that_cannot_be_are_refused() {
        let code = |pairs: &[(&'static str, &'static str)]| Stated::read(&headers(pairs)).unwrap_err().code().clone();
        assert_eq!(code(&[("content-md5", "rubbish")]), S3ErrorCode::InvalidDigest);
        assert_eq!(code(&[("x-amz-checksum-sha1", "y/Q5Jg==")]), S3ErrorCode::InvalidRequest);
        assert_eq!(code(&[("x-amz-sdk-checksum-algorithm", "CRC32")]), S3ErrorCode::InvalidRequest);
        let two = [("x-amz-checksum-crc32", "y/Q5Jg=="), ("x-amz-trailer", "x-amz-checksum-sha1")];
        assert_eq!(code(&two), S3ErrorCode::InvalidRequest);
        let other = [("x-amz-checksum-crc32", "y/Q5Jg=="), ("x-amz-sdk-checksum-algorithm", "SHA1")];
        assert_eq!(code(&other), S3ErrorCode::InvalidRequest);
    }

    #[test]
    fn an_announced_trailer_has_to_come() {
        let stated = Stated::read(&headers(&[("x-amz-trailer", "x-amz-checksum-crc32")])).unwrap();
        assert_eq!(stated.algorithm(), Some(ChecksumAlgorithm::Crc32));
        let error = stated.verify(&digested(&stated, b""), None).unwrap_err();
        assert_eq!(error.code().as_str(), "MalformedTrailerError");
    }
}
