//! The digests of a body on its way in: MD5 for its entity tag, and the checksums that its client states or that S3
//! keeps of every object.
//!
//! [`Digests`] is fed where the blob store writes, in its blocking jobs. It says nothing about right or wrong: what a
//! digest must be is compared by the S3 edge before anything is stored.

use crc_fast::CrcAlgorithm;
use federation::blobs::Observer;
use federation::types::ChecksumAlgorithm;
use md5::{Digest as _, Md5};
use sha1::Sha1;
use sha2::Sha256;

/// One checksum in the making.
pub enum ChecksumHasher {
    /// CRC-32, CRC-32C or CRC-64/NVME, with the number of bytes of its value.
    Crc(crc_fast::Digest, usize),
    /// SHA-1.
    Sha1(Sha1),
    /// SHA-256.
    Sha256(Sha256),
}

impl ChecksumHasher {
    /// A checksum of no bytes yet.
    #[must_use]
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        match algorithm {
            ChecksumAlgorithm::Crc32 => Self::Crc(crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc), 4),
            ChecksumAlgorithm::Crc32c => Self::Crc(crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi), 4),
            ChecksumAlgorithm::Crc64Nvme => Self::Crc(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme), 8),
            ChecksumAlgorithm::Sha1 => Self::Sha1(Sha1::new()),
            ChecksumAlgorithm::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(digest, _) => digest.update(bytes),
            Self::Sha1(digest) => digest.update(bytes),
            Self::Sha256(digest) => digest.update(bytes),
        }
    }

    /// The value as S3 encodes it: big-endian for CRCs.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        match self {
            Self::Crc(digest, length) => digest.finalize().to_be_bytes()[8 - length..].to_vec(),
            Self::Sha1(digest) => digest.finalize().to_vec(),
            Self::Sha256(digest) => digest.finalize().to_vec(),
        }
    }
}

/// The digests of one body in the making.
pub struct Digests {
    md5: Md5,
    checksums: Vec<(ChecksumAlgorithm, ChecksumHasher)>,
}

/// The digests of a whole body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digested {
    /// Its MD5.
    pub md5: [u8; 16],
    checksums: Vec<(ChecksumAlgorithm, Vec<u8>)>,
}

impl Digests {
    /// MD5 and each of `algorithms` once.
    pub fn new(algorithms: impl IntoIterator<Item = ChecksumAlgorithm>) -> Self {
        let mut checksums: Vec<(ChecksumAlgorithm, ChecksumHasher)> = Vec::new();
        for algorithm in algorithms {
            if checksums.iter().all(|(known, _)| *known != algorithm) {
                checksums.push((algorithm, ChecksumHasher::new(algorithm)));
            }
        }
        Digests { md5: Md5::new(), checksums }
    }

    /// The digests of all that was seen.
    #[must_use]
    pub fn finish(self) -> Digested {
        Digested {
            md5: self.md5.finalize().into(),
            checksums: self.checksums.into_iter().map(|(algorithm, hasher)| (algorithm, hasher.finish())).collect(),
        }
    }
}

impl Observer for Digests {
    fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        for (_, hasher) in &mut self.checksums {
            hasher.update(bytes);
        }
    }
}

impl Digested {
    /// The checksum by `algorithm`, if it was asked for.
    #[must_use]
    pub fn checksum(&self, algorithm: ChecksumAlgorithm) -> Option<&[u8]> {
        self.checksums.iter().find(|(known, _)| *known == algorithm).map(|(_, value)| value.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(algorithm: ChecksumAlgorithm, pieces: &[&[u8]]) -> Vec<u8> {
        let mut hasher = ChecksumHasher::new(algorithm);
        pieces.iter().for_each(|piece| hasher.update(piece));
        hasher.finish()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn check_values_of_the_algorithms() {
        let check: &[&[u8]] = &[b"1234", b"56789"];
        for (algorithm, value) in [
            (ChecksumAlgorithm::Crc32, "cbf43926"),
            (ChecksumAlgorithm::Crc32c, "e3069283"),
            (ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888"),
            (ChecksumAlgorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (ChecksumAlgorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ] {
            assert_eq!(hex(&digest(algorithm, check)), value, "{algorithm:?}");
        }
    }

    #[test]
    fn an_algorithm_that_is_asked_for_twice_is_computed_once() {
        let mut digests = Digests::new([ChecksumAlgorithm::Sha1, ChecksumAlgorithm::Sha1]);
        digests.update(b"abc");
        let digested = digests.finish();
        assert_eq!(digested.checksums.len(), 1);
        assert_eq!(hex(&digested.md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            hex(digested.checksum(ChecksumAlgorithm::Sha1).unwrap()),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        assert_eq!(digested.checksum(ChecksumAlgorithm::Crc32), None);
    }
}
