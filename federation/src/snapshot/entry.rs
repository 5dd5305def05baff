//! What a tree says of an object.

use serde::{Deserialize, Serialize};

use super::Flaw;
use crate::types::{BlobHash, Body, ChecksumAlgorithm, ChecksumKind, ETag, ObjectRecord, Pair, Part, Piece, Timestamp};

/// The user metadata that a mount shows as a file's attributes: what s3fs and rclone write, and what eltonfs adds.
const MOUNTED_METADATA: [&str; 5] = ["gid", "mode", "mtime", "uid", "xattr"];

/// What the names of eltonfs's own attributes begin with.
const MOUNTED_METADATA_PREFIX: &str = "elton-";

/// What a tree says of an object: what a listing and a mount show, and which bytes it has.
///
/// Nothing in it depends on where or when the version was numbered or on where its bytes stand, so equal content has
/// equal entries. Content headers, other metadata, tags and checksum values are in the version's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Size in bytes.
    pub size: u64,
    /// The entity tag.
    pub etag: ETag,
    /// `LastModified`.
    pub modified: Timestamp,
    /// Whether S3 shows the version as the `null` version.
    pub null: bool,
    /// Which checksum it has.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// Its bytes.
    pub content: Content,
    /// The user metadata that a mount shows as attributes, by name.
    pub metadata: Vec<Pair>,
}

/// Which bytes an object has, by their hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// None.
    Empty,
    /// All in one piece.
    Whole(BlobHash),
    /// The parts of a multipart object that have any bytes, in order.
    Parts(Vec<PartContent>),
    /// As `Parts`, the list itself kept as a body because it is long.
    PartList {
        /// The list's bytes.
        list: BlobHash,
        /// Their number.
        length: u64,
        /// The parts that the list does not name because they stand in segments, by their place in it.
        small: Vec<(u16, PartContent)>,
    },
}

/// A part's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartContent {
    /// What they hash to.
    pub hash: BlobHash,
    /// Their number.
    pub length: u64,
}

impl Entry {
    /// What a tree says of a version; `null` as its [`Summary`](crate::types::Summary) has it.
    #[must_use]
    pub fn new(record: &ObjectRecord, null: bool) -> Entry {
        let mounted =
            |pair: &&Pair| MOUNTED_METADATA.contains(&pair.0.as_str()) || pair.0.starts_with(MOUNTED_METADATA_PREFIX);
        let mut metadata: Vec<Pair> = record.metadata.iter().filter(mounted).cloned().collect();
        // Clients send it in any order, which is not content.
        metadata.sort();
        Entry {
            size: record.size,
            etag: record.etag,
            modified: record.modified,
            null,
            checksum: record.checksum.as_ref().map(|checksum| (checksum.algorithm, checksum.kind)),
            content: Content::of(&record.body),
            metadata,
        }
    }

    /// Whether its fields agree.
    pub(super) fn check(&self) -> Result<(), Flaw> {
        let agrees = match &self.content {
            Content::Empty => self.size == 0,
            Content::Whole(_) => self.size > 0,
            Content::Parts(parts) => {
                let mut lengths = parts.iter().map(|part| part.length);
                lengths.try_fold(0_u64, |sum, length| sum.checked_add(length).filter(|_| length > 0)) == Some(self.size)
            }
            Content::PartList { length, small, .. } => {
                *length > 0
                    && small.is_sorted_by(|one, next| one.0 < next.0)
                    && small.iter().all(|(_, part)| part.length > 0)
            }
        };
        agrees.then_some(()).ok_or(Flaw::Content)
    }
}

impl Content {
    /// Which bytes a body has.
    #[must_use]
    pub fn of(body: &Body) -> Content {
        match body {
            Body::Empty => Content::Empty,
            Body::Whole(piece) => Content::Whole(piece.hash()),
            Body::Parts(parts) => {
                let pieces = parts.iter().filter_map(|part: &Part| part.piece.as_ref());
                Content::Parts(pieces.map(PartContent::of).collect())
            }
            Body::PartList { list, count: _, slots } => Content::PartList {
                list: list.hash(),
                length: list.length(),
                small: slots.iter().map(|(place, slot)| (*place, PartContent::of(&Piece::Slot(*slot)))).collect(),
            },
        }
    }
}

impl PartContent {
    fn of(piece: &Piece) -> PartContent {
        PartContent { hash: piece.hash(), length: piece.length() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{SegmentId, Slot};

    fn slot(segment: u32) -> Slot {
        Slot { segment: SegmentId(segment), offset: 8, length: 5, hash: BlobHash([7; 32]) }
    }

    fn part(piece: Option<Piece>) -> Part {
        Part { number: 1, piece, md5: [1; 16], checksum: None }
    }

    fn record(body: Body, size: u64, metadata: &[(&str, &str)]) -> ObjectRecord {
        ObjectRecord {
            body,
            size,
            etag: ETag { md5: [3; 16], parts: None },
            modified: Timestamp(12),
            checksum: None,
            headers: Vec::new(),
            metadata: metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            tags: Vec::new(),
        }
    }

    #[test]
    fn equal_content_has_equal_entries_wherever_it_stands() {
        let blob = Piece::Blob { hash: BlobHash([7; 32]), length: 5 };
        let whole = |piece| Entry::new(&record(Body::Whole(piece), 5, &[]), false);
        assert_eq!(whole(Piece::Slot(slot(1))), whole(Piece::Slot(slot(2))));
        assert_eq!(whole(Piece::Slot(slot(1))), whole(blob));
        let parts = |piece| Entry::new(&record(Body::Parts(vec![part(Some(piece)), part(None)]), 5, &[]), false);
        assert_eq!(parts(Piece::Slot(slot(1))), parts(blob));
        let listed = |place| {
            let body = Body::PartList { list: blob, count: 101, slots: vec![(100, slot(place))] };
            Entry::new(&record(body, 500, &[]), false)
        };
        assert_eq!(listed(1), listed(2));
        for entry in [whole(blob), parts(blob), listed(1)] {
            assert_eq!(entry.check(), Ok(()));
        }
    }

    #[test]
    fn attributes_of_mounts_are_kept_in_one_order_and_others_are_not() {
        let one =
            Entry::new(&record(Body::Empty, 0, &[("uid", "0"), ("elton-id", "9"), ("mode", "420"), ("x", "y")]), true);
        let other = Entry::new(&record(Body::Empty, 0, &[("mode", "420"), ("elton-id", "9"), ("uid", "0")]), true);
        assert_eq!(one, other);
        assert_eq!(one.metadata.iter().map(|pair| pair.0.as_str()).collect::<Vec<_>>(), ["elton-id", "mode", "uid"]);
    }

    #[test]
    fn content_that_contradicts_the_size_is_found() {
        let entry = |content, size| {
            let mut entry = Entry::new(&record(Body::Empty, size, &[]), false);
            entry.content = content;
            entry.check()
        };
        let part = |length| PartContent { hash: BlobHash([0; 32]), length };
        assert_eq!(entry(Content::Empty, 1), Err(Flaw::Content));
        assert_eq!(entry(Content::Whole(BlobHash([0; 32])), 0), Err(Flaw::Content));
        assert_eq!(entry(Content::Parts(vec![part(3), part(4)]), 7), Ok(()));
        assert_eq!(entry(Content::Parts(vec![part(3), part(4)]), 8), Err(Flaw::Content));
        assert_eq!(entry(Content::Parts(vec![part(7), part(0)]), 7), Err(Flaw::Content));
        assert_eq!(entry(Content::Parts(vec![part(u64::MAX), part(8)]), 7), Err(Flaw::Content));
        let list = |small| Content::PartList { list: BlobHash([0; 32]), length: 9, small };
        assert_eq!(entry(list(vec![(1, part(3)), (2, part(3))]), 7), Ok(()));
        assert_eq!(entry(list(vec![(2, part(3)), (2, part(3))]), 7), Err(Flaw::Content));
    }
}
