//! Which pages a tree is made of.

use std::collections::HashSet;

use super::cursor::Cursor;
use super::page::{self, Root, Stand};
use super::{Flaw, PageHash, Pages, TreeError};

/// The pages that a page points to, those of directories in it included: what is kept along with it.
pub fn below(page: &[u8]) -> Result<Vec<PageHash>, Flaw> {
    let (level, rows) = page::split(page)?;
    let mut found = Vec::new();
    page::pointed_to(rows, level, &mut found)?;
    Ok(found)
}

impl Root {
    /// The pages that it points to itself.
    pub fn pages(&self) -> Result<Vec<PageHash>, Flaw> {
        match &self.stand {
            Stand::Page(page) => Ok(vec![*page]),
            Stand::Inline(rows) => {
                let mut found = Vec::new();
                page::pointed_to(rows, 0, &mut found)?;
                Ok(found)
            }
        }
    }
}

/// The pages of one directory, those of directories in it left out. Only its index pages are read.
pub fn own_pages(pages: &dyn Pages, root: &Root, directory: &[u8]) -> Result<HashSet<PageHash>, TreeError> {
    let mut own: HashSet<PageHash> = root.page().into_iter().collect();
    let mut cursor = Cursor::open(pages, root, directory)?;
    while let Some(next) = cursor.next().filter(|next| next.level > 0) {
        let level = next.level;
        own.extend(cursor.pointers().map(|pointer| pointer.page));
        if level > 1 {
            cursor.enter(pages, directory)?;
        } else {
            while cursor.next().is_some_and(|next| next.level == level) {
                cursor.take();
            }
        }
    }
    Ok(own)
}
