//! Which bytes a file is made of: pieces one after the other, each cut into groups that can be verified alone.

use federation::blobs::GROUP_BYTES;
use federation::snapshot::{Content, Entry, PartContent};
use federation::types::{BlobHash, Part};

use crate::source::Piece;

/// The longest file: more than S3 has, and few enough groups to keep account of.
const SIZE_MAX: u64 = 1 << 46;

/// The pieces of a file, in order, none of them empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pieces: Vec<Placed>,
    size: u64,
    key: BlobHash,
}

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The piece.
    pub piece: Piece,
    /// Where it begins in the file.
    pub offset: u64,
    /// Which of the file's groups its first one is.
    pub first_group: u64,
}

/// One group of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which piece of the file it is of.
    pub piece: usize,
    /// Which group of that piece.
    pub index: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

impl Placed {
    /// How many groups it has.
    #[must_use]
    pub fn groups(&self) -> u64 {
        self.piece.length.div_ceil(GROUP_BYTES as u64)
    }
}

impl Layout {
    /// The layout of an object; `None` where its list of parts has to be read first ([`Layout::listed`]), or where it is
    /// larger than any is.
    #[must_use]
    pub fn of(entry: &Entry) -> Option<Layout> {
        if entry.size > SIZE_MAX {
            return None;
        }
        match &entry.content {
            Content::Empty => Some(Layout::new([])),
            Content::Whole(hash) => Some(Layout::new([Piece { hash: *hash, length: entry.size }])),
            Content::Parts(parts) => Some(Layout::new(parts.iter().map(piece))),
            Content::PartList { .. } => None,
        }
    }

    /// The layout of an object whose list of parts stands in `list`; `None` where the two contradict each other.
    #[must_use]
    pub fn listed(entry: &Entry, list: &[u8]) -> Option<Layout> {
        let Content::PartList { small, .. } = &entry.content else { return Layout::of(entry) };
        let parts: Vec<Part> = postcard::from_bytes(list).ok()?;
        let pieces = parts.iter().enumerate().filter_map(|(place, part)| {
            let standing = small.iter().find(|(small, _)| usize::from(*small) == place).map(|(_, part)| piece(part));
            standing.or_else(|| part.piece.map(|piece| Piece { hash: piece.hash(), length: piece.length() }))
        });
        let layout = Layout::new(pieces.filter(|piece| piece.length > 0));
        (layout.size == entry.size && layout.size <= SIZE_MAX).then_some(layout)
    }

    /// The layout of a single piece.
    #[must_use]
    pub fn single(piece: Piece) -> Layout {
        Layout::new([piece].into_iter().filter(|piece| piece.length > 0))
    }

    fn new(pieces: impl IntoIterator<Item = Piece>) -> Layout {
        let (mut placed, mut size, mut groups) = (Vec::new(), 0_u64, 0);
        for piece in pieces {
            let here = Placed { piece, offset: size, first_group: groups };
            size = size.saturating_add(piece.length);
            groups += here.groups();
            placed.push(here);
        }
        let key = key(&placed);
        Layout { pieces: placed, size, key }
    }

    /// What the file is kept under: the content's hash, of parts that of their list.
    #[must_use]
    pub fn key(&self) -> BlobHash {
        self.key
    }

    /// The file's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its pieces.
    #[must_use]
    pub fn pieces(&self) -> &[Placed] {
        &self.pieces
    }

    /// How many groups it has.
    #[must_use]
    pub fn groups(&self) -> u64 {
        self.pieces.last().map_or(0, |last| last.first_group + last.groups())
    }

    /// A group; `None` behind the last.
    #[must_use]
    pub fn group(&self, group: u64) -> Option<Group> {
        let piece = self.pieces.partition_point(|placed| placed.first_group <= group).checked_sub(1)?;
        let placed = self.pieces[piece];
        let index = group - placed.first_group;
        let begin = index * GROUP_BYTES as u64;
        let length = placed.piece.length.checked_sub(begin).filter(|length| *length > 0)?.min(GROUP_BYTES as u64);
        Some(Group { piece, index, offset: placed.offset + begin, length })
    }

    /// The groups that have the bytes from `offset` on, `length` of them.
    #[must_use]
    pub fn groups_of(&self, offset: u64, length: u64) -> std::ops::Range<u64> {
        let end = offset.saturating_add(length).min(self.size);
        if offset >= end {
            return 0..0;
        }
        self.group_at(offset)..self.group_at(end - 1) + 1
    }

    fn group_at(&self, offset: u64) -> u64 {
        let piece = self.pieces.partition_point(|placed| placed.offset <= offset).saturating_sub(1);
        let placed = self.pieces[piece];
        placed.first_group + (offset - placed.offset) / GROUP_BYTES as u64
    }
}

fn piece(part: &PartContent) -> Piece {
    Piece { hash: part.hash, length: part.length }
}

fn key(pieces: &[Placed]) -> BlobHash {
    match pieces {
        [only] => only.piece.hash,
        pieces => {
            let mut hasher = blake3::Hasher::new_derive_key("elton 2026 eltonfs parts of a file");
            for placed in pieces {
                hasher.update(&placed.piece.hash.0).update(&placed.piece.length.to_le_bytes());
            }
            hasher.finalize().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_cover_every_byte_once() {
        let lengths = [1, GROUP_BYTES as u64, GROUP_BYTES as u64 + 1, 5, 3 * GROUP_BYTES as u64];
        let layout = Layout::new(lengths.map(|length| Piece { hash: BlobHash([1; 32]), length }));
        let mut end = 0;
        for number in 0..layout.groups() {
            let group = layout.group(number).expect("a group");
            assert_eq!(group.offset, end);
            assert_eq!(layout.groups_of(group.offset, group.length), number..number + 1);
            end += group.length;
        }
        assert_eq!(end, layout.size());
        assert_eq!(layout.group(layout.groups()), None);
        assert_eq!(layout.groups_of(layout.size(), 1), 0..0);
        assert_eq!(layout.groups_of(0, u64::MAX), 0..layout.groups());
    }
}
