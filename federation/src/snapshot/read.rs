//! Looking one path up.

use super::cursor::Cursor;
use super::key::Key;
use super::page::{Node, Root, Row};
use super::{Entry, Pages, TreeError};
use crate::types::ObjectPath;

/// The entry of a path.
pub fn lookup(pages: &dyn Pages, root: &Root, path: &ObjectPath) -> Result<Option<Entry>, TreeError> {
    let path = path.as_bytes();
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let Some(parent) = directory(pages, root, &path[..name])? else { return Ok(None) };
    let row = find(pages, &parent, &path[..name], &Key::first_of(&path[name..]))?;
    Ok(row.and_then(|row| match row.node {
        Node::Object(entry) => Some(entry),
        Node::Directory(_) | Node::Page(_) => None,
    }))
}

/// The tree of a directory: what a mount of a prefix shows, and what it sums up to. The path is empty or ends with a
/// `/`; of another one what follows its last `/` does not matter.
pub fn directory(pages: &dyn Pages, root: &Root, path: &[u8]) -> Result<Option<Root>, TreeError> {
    let (mut root, mut at) = (root.clone(), 0);
    loop {
        let key = Key::first_of(&path[at..]);
        if !key.is_directory() {
            return Ok(Some(root));
        }
        let Some(Row { node: Node::Directory(below), .. }) = find(pages, &root, &path[..at], &key)? else {
            return Ok(None);
        };
        root = below;
        at += key.as_bytes().len();
    }
}

/// The row that a directory has of a key.
fn find(pages: &dyn Pages, root: &Root, directory: &[u8], key: &Key) -> Result<Option<Row>, TreeError> {
    let mut cursor = Cursor::open(pages, root, directory)?;
    while let Some(next) = cursor.next() {
        if next.row.key < *key {
            cursor.take();
        } else if next.level > 0 {
            cursor.enter(pages, directory)?;
        } else {
            return Ok(cursor.take().filter(|row| row.key == *key));
        }
    }
    Ok(None)
}
