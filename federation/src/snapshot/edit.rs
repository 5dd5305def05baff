//! Trees from entries, and trees from trees and changes.
//!
//! Both are one walk over the old tree and the changes at once, in the order of paths, that writes the new tree behind
//! it. Pages that no change falls into are taken over unread wherever the new tree's pages begin where the old one's do,
//! which they do again soon behind a change (`Writer::may_adopt`). What is held in memory is, for each directory on the
//! way down, the open pages of the old one and the last page of each level of the new one.

use std::iter::Peekable;

use super::cursor::Cursor;
use super::key::Key;
use super::page::{Node, Root, Row};
use super::write::{Refused, Writer};
use super::{DEPTH_MAX, Entry, PagesMut, TreeError};
use crate::error::Result;
use crate::types::ObjectPath;

/// What becomes of a path: its entry, or `None` for nothing.
type Change = (ObjectPath, Option<Entry>);

/// The tree of these entries, which come in ascending order of their paths.
pub fn build(
    pages: &mut dyn PagesMut,
    entries: impl IntoIterator<Item = Result<(ObjectPath, Entry)>>,
) -> Result<Root, TreeError> {
    let changes = entries.into_iter().map(|entry| entry.map(|(path, entry)| (path, Some(entry))));
    apply(pages, &Root::empty(), changes)
}

/// The tree after these changes, which come in ascending order of their paths: the one that [`build`] makes of what
/// is then there. A change that removes what is not there, or puts what is, changes nothing.
///
/// After an error the pages that were put already are nobody's; they are put again when the call is repeated.
pub fn apply(
    pages: &mut dyn PagesMut,
    root: &Root,
    changes: impl IntoIterator<Item = Result<Change>>,
) -> Result<Root, TreeError> {
    let mut changes = Changes { rest: changes.into_iter().peekable(), last: None };
    let mut edit = Edit { pages, path: Vec::new(), open: Vec::new() };
    edit.open(Some(root), Key::first_of(b""))?;
    loop {
        let next =
            changes.peek()?.and_then(|path| path.as_bytes().strip_prefix(edit.path.as_slice()).map(Key::first_of));
        let Some(key) = next else {
            match edit.close()? {
                Some(root) => return Ok(root),
                None => continue,
            }
        };
        edit.copy(Some(&key))?;
        let old = edit.take(&key);
        if key.is_directory() {
            let old = old.as_ref().and_then(|row| match &row.node {
                Node::Directory(root) => Some(root),
                Node::Object(_) | Node::Page(_) => None,
            });
            edit.open(old, key)?;
        } else if let Some(entry) = changes.take()? {
            edit.push(0, Row { key, node: Node::Object(entry) })?;
        }
    }
}

/// The changes that are still to come.
struct Changes<I: Iterator<Item = Result<Change>>> {
    rest: Peekable<I>,
    last: Option<ObjectPath>,
}

impl<I: Iterator<Item = Result<Change>>> Changes<I> {
    /// The path of the next one.
    fn peek(&mut self) -> Result<Option<&ObjectPath>, TreeError> {
        if let Some(error) = self.rest.next_if(Result::is_err) {
            error?;
        }
        let Some(Ok((path, _))) = self.rest.peek() else { return Ok(None) };
        match &self.last {
            Some(last) if last >= path => Err(TreeError::Unordered { path: path.clone() }),
            _ => Ok(Some(path)),
        }
    }

    /// What becomes of that path.
    fn take(&mut self) -> Result<Option<Entry>, TreeError> {
        let Some((path, entry)) = self.rest.next().transpose()? else { return Ok(None) };
        self.last = Some(path);
        Ok(entry)
    }
}

/// The walk: a row of open directories, each in the one before.
struct Edit<'a> {
    pages: &'a mut dyn PagesMut,
    /// The path of the innermost directory, with a `/` at the end.
    path: Vec<u8>,
    open: Vec<OpenDirectory>,
}

struct OpenDirectory {
    key: Key,
    old: Cursor,
    new: Writer,
}

impl Edit<'_> {
    /// Goes into a directory, which may be new.
    fn open(&mut self, old: Option<&Root>, key: Key) -> Result<(), TreeError> {
        self.path.extend_from_slice(key.as_bytes());
        if self.open.len() > DEPTH_MAX {
            return Err(TreeError::TooDeep { directory: self.path.clone() });
        }
        let old = old.map_or_else(|| Ok(Cursor::empty()), |root| Cursor::open(self.pages, root, &self.path))?;
        self.open.push(OpenDirectory { key, old, new: Writer::default() });
        Ok(())
    }

    /// Copies what the old directory has before `end`, or all of it.
    fn copy(&mut self, end: Option<&Key>) -> Result<(), TreeError> {
        loop {
            let Some(directory) = self.open.last_mut() else { return Ok(()) };
            let Some(next) = directory.old.next() else { return Ok(()) };
            let before = end.is_none_or(|end| next.row.key < *end);
            let adopt = before && (next.level == 0 || directory.new.may_adopt(&next, end.is_none()));
            let level = next.level;
            if adopt {
                if let Some(row) = directory.old.take() {
                    self.push(level, row)?;
                }
            } else if level > 0 {
                directory.old.enter(self.pages, &self.path)?;
            } else {
                return Ok(());
            }
        }
    }

    /// Takes the row that the old directory has of a key, what is before that having been copied.
    fn take(&mut self, key: &Key) -> Option<Row> {
        let old = &mut self.open.last_mut()?.old;
        let there = old.next().is_some_and(|next| next.level == 0 && next.row.key == *key);
        if there { old.take() } else { None }
    }

    fn push(&mut self, level: u8, row: Row) -> Result<(), TreeError> {
        let Some(directory) = self.open.last_mut() else { return Ok(()) };
        let name = row.key.as_bytes().to_vec();
        directory.new.push(self.pages, level, row).map_err(|refused| refused.in_directory(&self.path, name))
    }

    /// Leaves the innermost directory. Returns the tree if it was the outermost.
    fn close(&mut self) -> Result<Option<Root>, TreeError> {
        self.copy(None)?;
        let Some(OpenDirectory { key, new, .. }) = self.open.pop() else { return Ok(Some(Root::empty())) };
        let name = key.as_bytes().to_vec();
        let root = new.finish(self.pages).map_err(|refused| refused.in_directory(&self.path, name))?;
        if self.open.is_empty() {
            return Ok(Some(root.unwrap_or_else(Root::empty)));
        }
        self.path.truncate(self.path.len() - key.as_bytes().len());
        if let Some(root) = root {
            self.push(0, Row { key, node: Node::Directory(root) })?;
        }
        Ok(None)
    }
}

impl Refused {
    fn in_directory(self, directory: &[u8], name: Vec<u8>) -> TreeError {
        match self {
            Refused::Flaw(flaw) => TreeError::Unwritable { directory: directory.to_vec(), name, flaw },
            Refused::Storage(error) => TreeError::Storage(error),
        }
    }
}
