//! A position in one directory, and the one place where pages are read and checked.

use std::vec;

use bytes::Bytes;

use super::key::Key;
use super::page::{self, Place, Pointer, Root, Row, Stand};
use super::{Flaw, Missing, PAGE_BYTES_MAX, PageHash, Pages, TreeError};

/// A position in a directory: before a row of it, or before a page of it that has not been entered.
///
/// Invariant: every open page has a row left.
pub(super) struct Cursor {
    open: Vec<OpenPage>,
    /// The last key of what was passed in the pages that are no longer open.
    passed: Option<Key>,
}

struct OpenPage {
    level: u8,
    rows: vec::IntoIter<Row>,
    /// Whether its directory has no page behind it.
    edge: bool,
}

/// What a cursor stands before.
#[derive(Clone, Copy)]
pub(super) struct Next<'a> {
    pub(super) row: &'a Row,
    /// The level of the page that the row is in.
    pub(super) level: u8,
    /// Whether nothing follows the row in its directory.
    pub(super) edge: bool,
}

impl Cursor {
    /// A directory with nothing in it.
    pub(super) fn empty() -> Cursor {
        Cursor { open: Vec::new(), passed: None }
    }

    /// The beginning of the directory with the path `directory`.
    pub(super) fn open(pages: &dyn Pages, root: &Root, directory: &[u8]) -> Result<Cursor, TreeError> {
        let (level, rows) = match &root.stand {
            Stand::Inline(rows) => page::decode(rows, Place::Inline, root.totals, directory.len())
                .map_err(|flaw| unlawful(directory, None, flaw))?,
            Stand::Page(page) => {
                let bytes = load(pages, page, directory)?;
                page::decode(&bytes, Place::Top, root.totals, directory.len())
                    .map_err(|flaw| unlawful(directory, Some(*page), flaw))?
            }
        };
        let mut cursor = Cursor::empty();
        cursor.push(OpenPage { level, rows: rows.into_iter(), edge: true });
        Ok(cursor)
    }

    /// What it stands before; `None` at the end of the directory.
    pub(super) fn next(&self) -> Option<Next<'_>> {
        let page = self.open.last()?;
        let (row, more) = page.rows.as_slice().split_first()?;
        Some(Next { row, level: page.level, edge: page.edge && more.is_empty() })
    }

    /// The pages of the open index page that have not been passed or entered.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        self.open.last().into_iter().flat_map(|page| page.rows.as_slice()).filter_map(Row::pointer)
    }

    /// Passes a row, or a page without entering it.
    pub(super) fn take(&mut self) -> Option<Row> {
        let page = self.open.last_mut()?;
        let row = page.rows.next()?;
        // Only what a page may be entered behind is asked for.
        if page.level > 0 || page.rows.len() == 0 {
            self.passed = Some(row.key.clone());
        }
        if page.rows.len() == 0 {
            self.open.pop();
        }
        Some(row)
    }

    /// Enters the page that it stands before. Changes nothing if that fails, so that it may be repeated.
    pub(super) fn enter(&mut self, pages: &dyn Pages, directory: &[u8]) -> Result<(), TreeError> {
        let Some(Next { row, level, edge }) = self.next() else { return Ok(()) };
        let Some(pointer) = row.pointer() else { return Ok(()) };
        let bytes = load(pages, &pointer.page, directory)?;
        let place = Place::Below { level: level - 1, after: self.passed.as_ref(), last: &row.key, edge };
        let (level, rows) = page::decode(&bytes, place, pointer.totals, directory.len())
            .map_err(|flaw| unlawful(directory, Some(pointer.page), flaw))?;
        if let Some(index) = self.open.last_mut() {
            index.rows.next();
            if index.rows.len() == 0 {
                self.open.pop();
            }
        }
        self.push(OpenPage { level, rows: rows.into_iter(), edge });
        Ok(())
    }

    fn push(&mut self, page: OpenPage) {
        if page.rows.len() > 0 {
            self.open.push(page);
        }
    }
}

/// The bytes of a page, compared with its hash.
fn load(pages: &dyn Pages, page: &PageHash, directory: &[u8]) -> Result<Bytes, TreeError> {
    let Some(bytes) = pages.get(page)? else {
        return Err(TreeError::Need(vec![Missing { page: *page, directory: directory.to_vec() }]));
    };
    if bytes.len() > PAGE_BYTES_MAX {
        return Err(unlawful(directory, Some(*page), Flaw::Size));
    }
    if PageHash::of(&bytes) != *page {
        return Err(unlawful(directory, Some(*page), Flaw::Hash));
    }
    Ok(bytes)
}

fn unlawful(directory: &[u8], page: Option<PageHash>, flaw: Flaw) -> TreeError {
    TreeError::Unlawful { directory: directory.to_vec(), page, flaw }
}
