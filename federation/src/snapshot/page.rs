//! Pages: rows in ascending order, as bytes.
//!
//! A page is a byte for the format, a byte for its level (0: the directory's own rows, *n*: an index of pages at *n* − 1)
//! and its rows one after the other. A directory of at most [`INLINE_BYTES_MAX`] stands as rows alone in its parent's.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::key::Key;
use super::{Entry, Flaw, PageHash};
use crate::types::PATH_BYTES_MAX;

/// The format of pages.
const FORMAT: u8 = 1;

/// Format and level.
pub(super) const HEADER_BYTES: usize = 2;

/// A directory with at most so many bytes of rows stands in its parent's page; a page that is followed by another one of
/// its directory has more.
pub const INLINE_BYTES_MAX: usize = 2 * 1024;

/// A page ends behind the row that fills it up to this. It leaves room for that row, so that ordinary pages stay below 16 KiB.
const FULL_BYTES: usize = 15 * 1024;

/// Behind its minimum a page ends after so many bytes on average.
const MEAN_BYTES: u64 = 4 * 1024;

/// The longest entry: what S3 allows takes a quarter of it.
pub(super) const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// The longest page: one that is all but full and gets a row with the longest name and entry, or an index of two such names.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;

/// The highest level. Every level has half the pages of the one below it or less.
pub(super) const LEVEL_MAX: u8 = 48;

/// What is below something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Objects.
    pub objects: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

impl Totals {
    pub(super) fn plus(self, more: Totals) -> Result<Totals, Flaw> {
        let objects = self.objects.checked_add(more.objects).ok_or(Flaw::Totals)?;
        let bytes = self.bytes.checked_add(more.bytes).ok_or(Flaw::Totals)?;
        Ok(Totals { objects, bytes })
    }
}

/// A tree, or a directory in one, which is a tree itself: equal content has equal roots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Where its rows stand.
    pub stand: Stand,
    /// What is below it.
    pub totals: Totals,
}

/// Where the rows of a directory stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stand {
    /// Here, at most [`INLINE_BYTES_MAX`] of them.
    Inline(Vec<u8>),
    /// In a page, or below an index page.
    Page(PageHash),
}

impl Root {
    /// The tree with nothing in it.
    #[must_use]
    pub fn empty() -> Root {
        Root { stand: Stand::Inline(Vec::new()), totals: Totals::default() }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.totals.objects == 0
    }

    /// Its page, if it does not stand inline.
    #[must_use]
    pub fn page(&self) -> Option<PageHash> {
        match self.stand {
            Stand::Inline(_) => None,
            Stand::Page(page) => Some(page),
        }
    }
}

/// A page below an index page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pointer {
    pub(super) page: PageHash,
    pub(super) totals: Totals,
}

/// A row of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Of a page: the last key in it.
    pub(super) key: Key,
    pub(super) node: Node,
}

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Object(Entry),
    Directory(Root),
    /// Only in index pages, which have no others.
    Page(Pointer),
}

impl Row {
    pub(super) fn totals(&self) -> Totals {
        match &self.node {
            Node::Object(entry) => Totals { objects: 1, bytes: entry.size },
            Node::Directory(root) => root.totals,
            Node::Page(pointer) => pointer.totals,
        }
    }

    /// The page that an index names here.
    pub(super) fn pointer(&self) -> Option<&Pointer> {
        match &self.node {
            Node::Page(pointer) => Some(pointer),
            Node::Object(_) | Node::Directory(_) => None,
        }
    }

    /// Its bytes. The node says nothing of its kind: the level of the page and the end of the key do.
    pub(super) fn encode(&self) -> Vec<u8> {
        let key = append(Vec::new(), self.key.as_bytes());
        match &self.node {
            Node::Object(entry) => append(key, entry),
            Node::Directory(root) => append(key, root),
            Node::Page(pointer) => append(key, pointer),
        }
    }

    fn decode(bytes: &[u8], level: u8) -> Result<(Row, &[u8]), Flaw> {
        let (key, bytes) = postcard::take_from_bytes::<&[u8]>(bytes).map_err(|_| Flaw::Encoding)?;
        let key = Key::parse(key)?;
        let (node, bytes) = if level > 0 {
            let (pointer, bytes) = take(bytes)?;
            (Node::Page(pointer), bytes)
        } else if key.is_directory() {
            let (root, bytes) = take(bytes)?;
            (Node::Directory(root), bytes)
        } else {
            let (entry, bytes): (Entry, _) = take(bytes)?;
            entry.check()?;
            (Node::Object(entry), bytes)
        };
        Ok((Row { key, node }, bytes))
    }
}

fn append<T: Serialize + ?Sized>(bytes: Vec<u8>, value: &T) -> Vec<u8> {
    postcard::to_extend(value, bytes).expect("rows are plain data, which postcard can always write")
}

fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), Flaw> {
    postcard::take_from_bytes(bytes).map_err(|_| Flaw::Encoding)
}

/// Whether a page ends behind a row, the page having had `size` bytes of `rows` rows then, the row's own included.
///
/// What comes next has no say, so that a page which nothing in it changed ends where it did. The odds are in proportion
/// to the row's length, so that pages of long rows and of short ones have the same mean; they come from a hash of the
/// level and the key, so that no key attracts boundaries at every level. Of an index two rows are the least: were one
/// enough, long names would make levels without end.
pub(super) fn ends(level: u8, key: &Key, row_bytes: usize, rows: usize, size: usize) -> bool {
    if size <= INLINE_BYTES_MAX || (level > 0 && rows < 2) {
        return false;
    }
    size >= FULL_BYTES || lot(level, key) * MEAN_BYTES < (row_bytes as u64) << 32
}

/// 32 bits that only the level and the key decide.
fn lot(level: u8, key: &Key) -> u64 {
    let hash = blake3::Hasher::new().update(&[level]).update(key.as_bytes()).finalize();
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_le_bytes([a, b, c, d]).into()
}

/// A page that is written.
pub(super) struct Draft {
    bytes: Vec<u8>,
    rows: usize,
    totals: Totals,
    last: Option<Row>,
}

impl Draft {
    pub(super) fn new(level: u8) -> Draft {
        Draft { bytes: vec![FORMAT, level], rows: 0, totals: Totals::default(), last: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds a row. Returns whether the page ends behind it.
    pub(super) fn push(&mut self, row: Row) -> Result<bool, Flaw> {
        let encoded = row.encode();
        if let Node::Object(entry) = &row.node {
            entry.check()?;
            if encoded.len() > row.key.as_bytes().len() + ENTRY_BYTES_MAX {
                return Err(Flaw::Entry);
            }
        }
        self.totals = self.totals.plus(row.totals())?;
        self.bytes.extend_from_slice(&encoded);
        self.rows += 1;
        let ends = ends(self.bytes[1], &row.key, encoded.len(), self.rows, self.bytes.len() - HEADER_BYTES);
        self.last = Some(row);
        Ok(ends)
    }

    /// Takes the row out if it is the only one.
    pub(super) fn take_only(&mut self) -> Option<Row> {
        if self.rows == 1 { self.last.take() } else { None }
    }

    /// Its rows where they stand without a page, if they are few enough.
    pub(super) fn inline(&self) -> Option<Root> {
        let rows = &self.bytes[HEADER_BYTES..];
        let small = rows.len() <= INLINE_BYTES_MAX;
        small.then(|| Root { stand: Stand::Inline(rows.to_vec()), totals: self.totals })
    }

    /// Its last key, if it has rows, the pointer to it, and its bytes.
    pub(super) fn finish(self) -> (Option<Key>, Pointer, Bytes) {
        let pointer = Pointer { page: PageHash::of(&self.bytes), totals: self.totals };
        (self.last.map(|row| row.key), pointer, self.bytes.into())
    }
}

/// Where rows stand, as what pointed to them says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// Inside the parent's page.
    Inline,
    /// The top page of a directory.
    Top,
    /// Below an index page: at this level, behind `after` and up to `last`. Behind the `edge` its directory has no more.
    Below { level: u8, after: Option<&'a Key>, last: &'a Key, edge: bool },
}

/// The pages that rows of a level point to, directories that stand inside them included.
pub(super) fn pointed_to(mut rows: &[u8], level: u8, found: &mut Vec<PageHash>) -> Result<(), Flaw> {
    // What stands inside is a part of what is read, so this ends; and it is short, so that pages whose shape nobody has
    // looked at yet cannot lead deeper than the stack is.
    let mut inside = Vec::new();
    while !rows.is_empty() {
        let (row, rest) = Row::decode(rows, level)?;
        rows = rest;
        match row.node {
            Node::Object(_) => {}
            Node::Page(pointer) => found.push(pointer.page),
            Node::Directory(Root { stand: Stand::Page(page), .. }) => found.push(page),
            Node::Directory(Root { stand: Stand::Inline(rows), .. }) if rows.len() > INLINE_BYTES_MAX => {
                return Err(Flaw::Shape);
            }
            Node::Directory(Root { stand: Stand::Inline(rows), .. }) => inside.push(rows),
        }
    }
    inside.iter().try_for_each(|rows| pointed_to(rows, 0, found))
}

/// The level and the rows of a page, rows not looked at.
pub(super) fn split(bytes: &[u8]) -> Result<(u8, &[u8]), Flaw> {
    match bytes {
        [FORMAT, level, rows @ ..] => Ok((*level, rows)),
        [format, _, ..] => Err(Flaw::Format(*format)),
        _ => Err(Flaw::Encoding),
    }
}

/// The level of a page and its rows.
pub(super) fn decode(bytes: &[u8], place: Place<'_>, totals: Totals, directory: usize) -> Result<(u8, Vec<Row>), Flaw> {
    let (level, bytes) = if matches!(place, Place::Inline) { (0, bytes) } else { split(bytes)? };
    if level > LEVEL_MAX || matches!(place, Place::Below { level: stated, .. } if level != stated) {
        return Err(Flaw::Level);
    }
    let rows = decode_rows(bytes, level, totals, directory)?;
    check_order(&rows, place)?;
    check_shape(bytes.len(), rows.len(), level, place)?;
    Ok((level, rows))
}

/// Rows that are lawful each for itself, and add up.
fn decode_rows(mut bytes: &[u8], level: u8, totals: Totals, directory: usize) -> Result<Vec<Row>, Flaw> {
    let (mut rows, mut sum, whole) = (Vec::new(), Totals::default(), bytes.len());
    while !bytes.is_empty() {
        // The page could have ended here, and a longer one only makes readers hold more.
        let read = whole - bytes.len();
        if read >= FULL_BYTES && (level == 0 || rows.len() >= 2) {
            return Err(Flaw::Shape);
        }
        let (row, rest) = Row::decode(bytes, level)?;
        if !(1..=PATH_BYTES_MAX).contains(&(directory + row.key.as_bytes().len())) {
            return Err(Flaw::Name);
        }
        // Nothing empty is ever pointed to: a walk that enters something finds something.
        if row.totals().objects == 0 {
            return Err(Flaw::Totals);
        }
        sum = sum.plus(row.totals())?;
        rows.push(row);
        bytes = rest;
    }
    if sum == totals { Ok(rows) } else { Err(Flaw::Totals) }
}

fn check_order(rows: &[Row], place: Place<'_>) -> Result<(), Flaw> {
    let ascending = rows.is_sorted_by(|one, next| one.key < next.key);
    let in_place = match place {
        Place::Inline | Place::Top => true,
        Place::Below { after, last, .. } => {
            rows.first().is_some_and(|row| after.is_none_or(|after| *after < row.key))
                && rows.last().is_some_and(|row| row.key == *last)
        }
    };
    if ascending && in_place { Ok(()) } else { Err(Flaw::Order) }
}

/// What keeps a reader's work in proportion to what is there: no chains of pages with next to nothing in them.
fn check_shape(size: usize, rows: usize, level: u8, place: Place<'_>) -> Result<(), Flaw> {
    let enough = if level == 0 { size > INLINE_BYTES_MAX } else { rows >= 2 };
    let lawful = match place {
        Place::Inline => size <= INLINE_BYTES_MAX,
        Place::Top | Place::Below { edge: false, .. } => enough,
        Place::Below { edge: true, .. } => rows >= 1,
    };
    if lawful { Ok(()) } else { Err(Flaw::Shape) }
}
