//! Identifiers. Distinct things have distinct types, even where both are 64 bits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::decode_hex;

/// How many numbers one term holds: an unplanned take-over into term *t* counts on from
/// `(t - 1) * NUMBERS_PER_TERM + 1`, so a number is unique without its term.
pub const NUMBERS_PER_TERM: u64 = 1_000_000_000_000;

/// A position in a bucket's sequence of changes, issued by the bucket's home and never reused.
///
/// `Number::ZERO` is the empty bucket before its first change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Number(pub u64);

impl Number {
    /// The state before the first change of a bucket.
    pub const ZERO: Number = Number(0);
    /// Above every number that will ever be issued.
    pub const MAX: Number = Number(u64::MAX);

    /// The number that follows this one.
    #[must_use]
    pub fn next(self) -> Number {
        Number(self.0 + 1)
    }

    /// The term in which the number was issued.
    #[must_use]
    pub fn term(self) -> Term {
        Term(u32::try_from(self.0.saturating_sub(1) / NUMBERS_PER_TERM + 1).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl FromStr for Number {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Number)
    }
}

/// A reign of one home over a bucket; a take-over begins the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term(pub u32);

impl Term {
    /// The term every bucket is born in.
    pub const FIRST: Term = Term(1);
}

/// Writes an identifier as text where people may read it (JSON) and as its bytes elsewhere (postcard).
macro_rules! text_or_bytes {
    ($name:ident, $bytes:ty) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <$bytes>::deserialize(deserializer).map($name)
                }
            }
        }
    };
}

/// Defines an identifier of `N` random bytes that prints as lower-case hexadecimal.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        text_or_bytes!($name, [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                hex_bytes(s).map($name).ok_or(InvalidId)
            }
        }
    };
}

/// A string that is not the lower-case hexadecimal digits of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 (a hash or fingerprint: 64) lower-case hexadecimal digits")]
pub struct InvalidId;

/// The `N` bytes that `2 * N` lower-case hexadecimal digits stand for.
fn hex_bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    decode_hex(digits)?.try_into().ok()
}

random_id! {
    /// A bucket for ever: a deleted bucket's name may return, its id never does.
    BucketId
}
random_id! {
    /// A multipart upload in progress.
    UploadId
}
random_id! {
    /// An open layer: a commit, restore or clone that is published but not yet folded.
    LayerId
}
random_id! {
    /// A cluster that a bucket is shared with, as it is known in idempotency keys.
    MemberId
}
random_id! {
    /// A mount's, volume's or clone's claim on a snapshot.
    PinId
}

/// A cluster, known by the fingerprint of its public key: the SHA-256 of its DER SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 32]);

text_or_bytes!(ClusterId, [u8; 32]);

impl ClusterId {
    /// The cluster as idempotency keys name it: the first half of the fingerprint.
    #[must_use]
    pub fn member(self) -> MemberId {
        let (first, _) = self.0.split_first_chunk().expect("16 bytes are fewer than 32");
        MemberId(*first)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClusterId {
    type Err = InvalidFingerprint;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        hex_bytes(s).map(ClusterId).ok_or(InvalidFingerprint)
    }
}

/// A string that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cluster's fingerprint is 64 lower-case hexadecimal digits; `elton peer ls` prints it in full")]
pub struct InvalidFingerprint;

/// The BLAKE3 hash of a body: what names a blob.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash(pub [u8; 32]);

text_or_bytes!(BlobHash, [u8; 32]);

impl FromStr for BlobHash {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        hex_bytes(s).map(BlobHash).ok_or(InvalidId)
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from_bytes(self.0).to_hex().fmt(f)
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<blake3::Hash> for BlobHash {
    fn from(hash: blake3::Hash) -> Self {
        BlobHash(*hash.as_bytes())
    }
}

/// A file that holds one large body. Never reused, so a file id names one content for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId(pub u64);

/// A segment: an append-only file that small bodies share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentId(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_knows_its_term() {
        assert_eq!(Number(1).term(), Term(1));
        assert_eq!(Number(NUMBERS_PER_TERM).term(), Term(1));
        assert_eq!(Number(NUMBERS_PER_TERM + 1).term(), Term(2));
    }

    #[test]
    fn ids_round_trip_through_text() {
        let id = BucketId([0xa5; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("A5".repeat(16).parse::<BucketId>(), Err(InvalidId));
    }

    #[test]
    fn fingerprints_round_trip_in_full() {
        let cluster = ClusterId([0x0f; 32]);
        assert_eq!(cluster.to_string(), "0f".repeat(32));
        assert_eq!(cluster.to_string().parse(), Ok(cluster));
        assert_eq!(format!("{cluster:?}"), cluster.to_string());
        assert_eq!("0f".repeat(16).parse::<ClusterId>(), Err(InvalidFingerprint));
        assert_eq!(cluster.member(), MemberId([0x0f; 16]));
    }
}
