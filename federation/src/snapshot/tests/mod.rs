//! Trees against a map of paths to entries, at every size, and against pages that lie.

mod children;
mod hostile;
mod model;
mod shape;

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::error::Result;
use crate::types::{BlobHash, ETag, ObjectPath, Timestamp};

/// What a tree says, as a map.
type Model = BTreeMap<ObjectPath, Entry>;

fn path(bytes: impl AsRef<[u8]>) -> ObjectPath {
    ObjectPath::try_from(bytes.as_ref()).expect("a lawful path")
}

/// An entry that differs with its seed, with so many bytes of metadata.
fn entry(seed: u64, weight: usize) -> Entry {
    let content = if seed == 0 { Content::Empty } else { Content::Whole(BlobHash([seed as u8; 32])) };
    let metadata = if weight == 0 { Vec::new() } else { vec![("xattr".to_owned(), "x".repeat(weight))] };
    let (etag, modified) = (ETag { md5: [seed as u8; 16], parts: None }, Timestamp(1_770_000_000_000 + seed));
    Entry { size: seed, etag, modified, null: false, checksum: None, content, metadata }
}

fn build_in(pages: &mut dyn PagesMut, entries: impl IntoIterator<Item = (ObjectPath, Entry)>) -> Root {
    build(pages, entries.into_iter().map(Ok)).expect("entries in order")
}

fn built(model: &Model) -> (MemoryPages, Root) {
    let mut pages = MemoryPages::default();
    let root = build_in(&mut pages, model.clone());
    (pages, root)
}

/// All that a tree says, in the order in which it says it.
fn all(pages: &dyn Pages, root: &Root) -> Result<Vec<(ObjectPath, Entry)>, TreeError> {
    let added = diff(pages, &Root::empty(), root);
    added.map(|added| added.map(|added| (added.path, added.after.expect("the first tree is empty")))).collect()
}

/// Pages that count how often they are read and written.
#[derive(Default)]
struct Counting {
    pages: MemoryPages,
    read: Cell<usize>,
    written: Cell<usize>,
    written_bytes: Cell<usize>,
}

impl Counting {
    /// Reads and writes since the last time.
    fn count(&self) -> (usize, usize) {
        (self.read.take(), self.written.take())
    }
}

impl Pages for Counting {
    fn get(&self, page: &PageHash) -> Result<Option<Bytes>> {
        self.read.set(self.read.get() + 1);
        self.pages.get(page)
    }
}

impl PagesMut for Counting {
    fn put(&mut self, page: PageHash, bytes: Bytes) -> Result<()> {
        self.written.set(self.written.get() + 1);
        self.written_bytes.set(self.written_bytes.get() + bytes.len());
        self.pages.put(page, bytes)
    }
}
