//! The path of an object within a bucket.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest path in bytes. S3's 1,024 is the S3 edge's business.
pub const PATH_BYTES_MAX: usize = 64 * 1024;

/// Path of an object within a bucket: byte-string names, as POSIX allows and S3's `/` separates them.
///
/// Invariant: 1 to [`PATH_BYTES_MAX`] bytes. UTF-8 and S3's 1,024 bytes are the S3 edge's business,
/// `..` is the file system's. Paths are ordered by their bytes, which is S3's order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath(Box<[u8]>);

/// Between clusters (JSON) a path is percent-encoded text; on disk (postcard) its bytes.
impl Serialize for ObjectPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes_or_text::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for ObjectPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes_or_text::deserialize(deserializer)?;
        bytes.try_into().map_err(serde::de::Error::custom)
    }
}

/// Bytes of a path or of a part of one: percent-encoded where people may read them, else as they are.
pub mod serde_bytes_or_text {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b' ');

    /// Writes them.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&percent_encode(bytes, PLAIN))
        } else {
            bytes.serialize(serializer)
        }
    }

    /// Reads them.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if deserializer.is_human_readable() {
            let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
            Ok(percent_decode_str(&text).collect())
        } else {
            Vec::deserialize(deserializer)
        }
    }
}

/// A path that is empty or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a path has 1 to {PATH_BYTES_MAX} bytes, not {0}")]
pub struct InvalidPath(pub usize);

impl ObjectPath {
    /// The path's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for ObjectPath {
    type Error = InvalidPath;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        if bytes.is_empty() || bytes.len() > PATH_BYTES_MAX {
            return Err(InvalidPath(bytes.len()));
        }
        Ok(ObjectPath(bytes.into()))
    }
}

impl TryFrom<&[u8]> for ObjectPath {
    type Error = InvalidPath;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.to_vec().try_into()
    }
}

impl TryFrom<&str> for ObjectPath {
    type Error = InvalidPath;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.as_bytes().try_into()
    }
}

impl From<ObjectPath> for Vec<u8> {
    fn from(path: ObjectPath) -> Self {
        path.0.into()
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
