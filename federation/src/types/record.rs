//! What a version is made of, as the core hands it around and the catalog stores it.
//!
//! The encoding is postcard; the tables that hold these records carry the format's version in their
//! names (`catalog::tables`), and `docs/data-format.md` describes the bytes.

use serde::{Deserialize, Serialize};

use super::{BlobHash, Number, SegmentId, Timestamp};

/// Bodies up to this size share segments; larger ones are files.
pub const SMALL_BODY_MAX: u64 = 64 * 1024;

/// Where a small body stands in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The segment.
    pub segment: SegmentId,
    /// Where the slot's record begins, in bytes.
    pub offset: u32,
    /// The body's length in bytes.
    pub length: u32,
    /// What the body hashes to.
    pub hash: BlobHash,
}

/// One immutable piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Piece {
    /// A small body in a segment, owned by one record.
    Slot(Slot),
    /// A large body, a file kept once per content and counted per bucket.
    Blob {
        /// The content.
        hash: BlobHash,
        /// Its length in bytes.
        length: u64,
    },
    /// A body that was written in one cluster and is read in others. Whether it is here is found by bucket and hash.
    Shared {
        /// The content.
        hash: BlobHash,
        /// Its length in bytes.
        length: u64,
    },
}

impl Piece {
    /// Whether it was written in one cluster and is read in others.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self, Piece::Shared { .. })
    }

    /// The same content, as other clusters know it.
    #[must_use]
    pub fn shared(&self) -> Piece {
        Piece::Shared { hash: self.hash(), length: self.length() }
    }

    /// The piece's length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Piece::Slot(slot) => slot.length.into(),
            Piece::Blob { length, .. } | Piece::Shared { length, .. } => *length,
        }
    }

    /// What the piece hashes to.
    #[must_use]
    pub fn hash(&self) -> BlobHash {
        match self {
            Piece::Slot(slot) => slot.hash,
            Piece::Blob { hash, .. } | Piece::Shared { hash, .. } => *hash,
        }
    }
}

/// A part of a multipart object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The number that the client gave it.
    pub number: u16,
    /// The body; `None` when it is empty.
    pub piece: Option<Piece>,
    /// MD5 of the body.
    #[serde(with = "crate::types::serde_hex_or_bytes")]
    pub md5: [u8; 16],
    /// The checksum that came with or was computed for the part.
    pub checksum: Option<Checksum>,
}

impl Part {
    /// The part's length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.piece.map_or(0, |piece| piece.length())
    }
}

/// The body of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// No bytes at all.
    Empty,
    /// One piece.
    Whole(Piece),
    /// The parts of a multipart object, in order.
    Parts(Vec<Part>),
    /// As `Parts`, the list itself kept as a body because it is long.
    PartList {
        /// The list's bytes.
        list: Piece,
        /// How many parts it has.
        count: u16,
        /// The parts that stand in segments, by their place in the list. They stand here because compaction moves
        /// them while the list stays; in the list they have no piece.
        slots: Vec<(u16, Slot)>,
    },
}

/// The checksum algorithms of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC).
    Crc32,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

/// Whether a checksum is of the whole object or of its parts' checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChecksumKind {
    /// Of the object's bytes.
    FullObject,
    /// Of the parts' checksums, one after the other.
    Composite,
}

/// A checksum that was verified when the body was stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Checksum {
    /// By which algorithm.
    pub algorithm: ChecksumAlgorithm,
    /// Of what.
    pub kind: ChecksumKind,
    /// The value, big-endian for CRCs: 4, 8, 20 or 32 bytes.
    #[serde(with = "crate::types::serde_hex_or_bytes")]
    pub value: Vec<u8>,
}

/// An entity tag: the MD5 of a body put whole, or of its parts' MD5s with their count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ETag {
    /// The digest.
    #[serde(with = "crate::types::serde_hex_or_bytes")]
    pub md5: [u8; 16],
    /// How many parts, for a multipart object.
    pub parts: Option<u16>,
}

impl std::fmt::Display for ETag {
    /// Without quotes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.md5.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        self.parts.map_or(Ok(()), |parts| write!(f, "-{parts}"))
    }
}

/// The content headers that a version keeps and returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContentHeader {
    /// `Content-Type`
    Type,
    /// `Content-Encoding`, without `aws-chunked`
    Encoding,
    /// `Content-Language`
    Language,
    /// `Content-Disposition`
    Disposition,
    /// `Cache-Control`
    CacheControl,
    /// `Expires`
    Expires,
    /// `x-amz-website-redirect-location`
    WebsiteRedirect,
}

/// A key and a value that somebody gave: object tags, bucket tags, user metadata.
pub type Pair = (String, String);

/// The content of a version. It never changes; what may change is in [`Attributes`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// The bytes.
    pub body: Body,
    /// Their number.
    pub size: u64,
    /// The entity tag.
    pub etag: ETag,
    /// When the content was written: `LastModified`.
    pub modified: Timestamp,
    /// The checksum.
    pub checksum: Option<Checksum>,
    /// Content headers.
    pub headers: Vec<(ContentHeader, String)>,
    /// User metadata: names in lower case without `x-amz-meta-`.
    pub metadata: Vec<Pair>,
    /// The tags it was written with; later changes of them are records of their own.
    pub tags: Vec<Pair>,
}

/// One change to what may change about a version. A field that is `None` was not touched by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// All the tags from now on.
    pub tags: Option<Vec<Pair>>,
    /// The access control list, in the S3 edge's encoding.
    pub acl: Option<Vec<u8>>,
    /// Retention, in the S3 edge's encoding.
    pub retention: Option<Vec<u8>>,
    /// Legal hold.
    pub hold: Option<bool>,
}

/// What a listing shows of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The number that issued the version: its `VersionId`.
    pub version: Number,
    /// Which of that number's changes it was.
    pub ordinal: u32,
    /// Whether S3 shows it as the `null` version.
    pub null: bool,
    /// Size in bytes.
    pub size: u64,
    /// `LastModified`.
    pub modified: Timestamp,
    /// The entity tag.
    pub etag: ETag,
    /// Which checksum it has.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
}
