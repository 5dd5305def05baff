//! Pages in memory: the honest model of [`PagesMut`], for tests, simulations and trees that are thrown away.

use std::collections::HashMap;

use bytes::Bytes;

use super::{PageHash, Pages, PagesMut};
use crate::error::Result;

/// Pages in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryPages {
    pages: HashMap<PageHash, Bytes>,
}

impl MemoryPages {
    /// The pages that are here, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&PageHash, &Bytes)> {
        self.pages.iter()
    }

    /// Forgets a page. Returns its bytes if it was there.
    pub fn remove(&mut self, page: &PageHash) -> Option<Bytes> {
        self.pages.remove(page)
    }
}

impl Pages for MemoryPages {
    fn get(&self, page: &PageHash) -> Result<Option<Bytes>> {
        Ok(self.pages.get(page).cloned())
    }
}

impl PagesMut for MemoryPages {
    fn put(&mut self, page: PageHash, bytes: Bytes) -> Result<()> {
        self.pages.insert(page, bytes);
        Ok(())
    }
}
