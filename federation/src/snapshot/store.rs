//! Where pages are kept.

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// The BLAKE3 hash of a page: what names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PageHash(pub [u8; 32]);

impl PageHash {
    /// The name of a page with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> PageHash {
        PageHash(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for PageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from_bytes(self.0).to_hex().fmt(f)
    }
}

impl fmt::Debug for PageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Pages that can be read. Whoever reads a tree verifies them: an implementation may hold damaged or forged ones.
pub trait Pages {
    /// The bytes of a page; `None` where it is not here.
    fn get(&self, page: &PageHash) -> Result<Option<Bytes>>;
}

/// Pages that can be added.
pub trait PagesMut: Pages {
    /// Keeps a page. Keeping one that is there already changes nothing.
    fn put(&mut self, page: PageHash, bytes: Bytes) -> Result<()>;
}

/// Pages that remember which of them were read: what a reader elsewhere needs for the same answer.
pub struct Recording<'a> {
    pages: &'a dyn Pages,
    read: RefCell<Vec<PageHash>>,
}

impl<'a> Recording<'a> {
    /// Remembers what is read from `pages` from now on.
    #[must_use]
    pub fn new(pages: &'a dyn Pages) -> Self {
        Recording { pages, read: RefCell::default() }
    }

    /// The pages that were read, in the order in which they were.
    #[must_use]
    pub fn into_read(self) -> Vec<PageHash> {
        self.read.into_inner()
    }
}

impl Pages for Recording<'_> {
    fn get(&self, page: &PageHash) -> Result<Option<Bytes>> {
        let bytes = self.pages.get(page)?;
        if bytes.is_some() {
            self.read.borrow_mut().push(*page);
        }
        Ok(bytes)
    }
}
