//! Writing one directory: rows in order in, pages out.

use super::cursor::Next;
use super::page::{Draft, LEVEL_MAX, Node, Root, Row, Stand};
use super::{Flaw, PagesMut};
use crate::error::Result;

/// Why a row has not been written.
pub(super) enum Refused {
    Flaw(Flaw),
    Storage(crate::error::Error),
}

impl From<Flaw> for Refused {
    fn from(flaw: Flaw) -> Self {
        Refused::Flaw(flaw)
    }
}

impl From<crate::error::Error> for Refused {
    fn from(error: crate::error::Error) -> Self {
        Refused::Storage(error)
    }
}

/// A directory that is written: the last page of each level. Whatever is before those is kept already.
#[derive(Default)]
pub(super) struct Writer {
    levels: Vec<Draft>,
}

impl Writer {
    /// Adds a row at a level: 0 for objects and directories, that of the index for pages.
    pub(super) fn push(&mut self, pages: &mut dyn PagesMut, level: u8, row: Row) -> Result<(), Refused> {
        if level > LEVEL_MAX {
            return Err(Flaw::Level.into());
        }
        let at = usize::from(level);
        while self.levels.len() <= at {
            // At most `LEVEL_MAX`, which is checked above.
            self.levels.push(Draft::new(self.levels.len() as u8));
        }
        if self.levels[at].push(row)? { self.close(pages, level) } else { Ok(()) }
    }

    /// Whether the page that `next` stands before may be taken over as it is: rows that are given anew would end at
    /// its beginning and at its end.
    ///
    /// They do at its beginning if nothing is pending below the index. They do at its end unless it is the last of its
    /// directory, which no rule ended; that one will do if nothing comes behind it (`last`), but not as the
    /// only one of its level, which may be due to stand inline.
    pub(super) fn may_adopt(&self, next: &Next<'_>, last: bool) -> bool {
        let below = self.levels.iter().take(usize::from(next.level));
        let aligned = next.level > 0 && below.clone().all(Draft::is_empty);
        aligned && (!next.edge || (last && self.levels.len() > usize::from(next.level)))
    }

    /// Ends the page of a level.
    fn close(&mut self, pages: &mut dyn PagesMut, level: u8) -> Result<(), Refused> {
        let draft = std::mem::replace(&mut self.levels[usize::from(level)], Draft::new(level));
        match store(pages, draft)? {
            Some(row) => self.push(pages, level + 1, row),
            None => Ok(()),
        }
    }

    /// Ends the directory; `None` if nothing is in it.
    pub(super) fn finish(mut self, pages: &mut dyn PagesMut) -> Result<Option<Root>, Refused> {
        // The top level may move up on the way, when the last page below fills it.
        let mut level = 0;
        while usize::from(level) + 1 < self.levels.len() {
            self.close(pages, level)?;
            level += 1;
        }
        let Some(mut top) = self.levels.pop() else { return Ok(None) };
        if level == 0
            && let Some(root) = top.inline()
        {
            return Ok(Some(root).filter(|root| !root.is_empty()));
        }
        // An index of one page says no more than the page's pointer.
        let only = if level > 0 { top.take_only() } else { None };
        let row = match only {
            Some(row) => Some(row),
            None => store(pages, top)?,
        };
        Ok(row.and_then(|row| match row.node {
            Node::Page(pointer) => Some(Root { stand: Stand::Page(pointer.page), totals: pointer.totals }),
            Node::Object(_) | Node::Directory(_) => None,
        }))
    }
}

/// Keeps a page. Returns the row for the index above it; `None` if the page has no rows.
fn store(pages: &mut dyn PagesMut, draft: Draft) -> Result<Option<Row>> {
    let (Some(key), pointer, bytes) = draft.finish() else { return Ok(None) };
    pages.put(pointer.page, bytes)?;
    Ok(Some(Row { key, node: Node::Page(pointer) }))
}
