//! One directory, as a mount shows it: what it has of a name, and what is in it page by page.
//!
//! Both begin at the directory's own [`Root`], so that a reader who keeps it does not come down from the top each time.

use super::cursor::Cursor;
use super::key::Key;
use super::page::{Node, Root, Row};
use super::{Entry, Missing, Pages, TreeError};

/// How many pages behind a missing one are asked for with it.
const AHEAD_MAX: usize = 32;

/// What a directory has of a name. It may have both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The object of that name.
    pub object: Option<Entry>,
    /// The directory of that name.
    pub directory: Option<Root>,
}

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its name, a directory's without the `/`.
    pub name: Vec<u8>,
    /// What it is.
    pub node: ChildNode,
}

/// What something in a directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildNode {
    /// An object.
    Object(Entry),
    /// A directory.
    Directory(Root),
}

impl Child {
    /// What a directory is ordered by, and what [`children`] goes on behind: the name, of a directory with a `/`.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        match self.node {
            ChildNode::Object(_) => self.name.clone(),
            ChildNode::Directory(_) => [self.name.as_slice(), b"/"].concat(),
        }
    }
}

/// What the directory with this root and path has of a name.
pub fn named(pages: &dyn Pages, root: &Root, directory: &[u8], name: &[u8]) -> Result<Named, TreeError> {
    let mut cursor = Cursor::open(pages, root, directory)?;
    let mut named = Named::default();
    let object = Key::first_of(name);
    if object.as_bytes() != name {
        // No key has a `/` in the middle.
        return Ok(named);
    }
    let below = Key::first_of(&[name, b"/"].concat());
    for key in [object, below] {
        if let Some(row) = seek(pages, &mut cursor, directory, &key)? {
            match row.node {
                Node::Object(entry) => named.object = Some(entry),
                Node::Directory(root) => named.directory = Some(root),
                Node::Page(_) => {}
            }
        }
    }
    Ok(named)
}

/// Goes forward to a key and takes its row, if there is one.
fn seek(pages: &dyn Pages, cursor: &mut Cursor, directory: &[u8], key: &Key) -> Result<Option<Row>, TreeError> {
    while let Some(next) = cursor.next() {
        if next.row.key < *key {
            cursor.take();
        } else if next.level > 0 {
            cursor.enter(pages, directory)?;
        } else if next.row.key == *key {
            return Ok(cursor.take());
        } else {
            break;
        }
    }
    Ok(None)
}

/// At most `max` of what is in a directory, in order, behind the key `after`. Fewer only at its end.
///
/// Where a page is missing, those that will be read next are asked for with it.
pub fn children(
    pages: &dyn Pages,
    root: &Root,
    directory: &[u8],
    after: Option<&[u8]>,
    max: usize,
) -> Result<Vec<Child>, TreeError> {
    let mut cursor = Cursor::open(pages, root, directory)?;
    let mut children = Vec::new();
    while children.len() < max {
        let Some(next) = cursor.next() else { break };
        if after.is_some_and(|after| next.row.key.as_bytes() <= after) {
            cursor.take();
        } else if next.level > 0 {
            enter(pages, &mut cursor, directory)?;
        } else if let Some(row) = cursor.take() {
            children.extend(child(row));
        }
    }
    Ok(children)
}

fn enter(pages: &dyn Pages, cursor: &mut Cursor, directory: &[u8]) -> Result<(), TreeError> {
    match cursor.enter(pages, directory) {
        Err(TreeError::Need(mut missing)) => {
            for pointer in cursor.pointers().skip(1).take(AHEAD_MAX) {
                if pages.get(&pointer.page)?.is_none() {
                    Missing::add(&mut missing, vec![Missing { page: pointer.page, directory: directory.to_vec() }]);
                }
            }
            Err(TreeError::Need(missing))
        }
        other => other,
    }
}

fn child(row: Row) -> Option<Child> {
    let key = row.key.as_bytes();
    match row.node {
        Node::Object(entry) => Some(Child { name: key.to_vec(), node: ChildNode::Object(entry) }),
        Node::Directory(root) => {
            let name = key.strip_suffix(b"/").unwrap_or(key).to_vec();
            Some(Child { name, node: ChildNode::Directory(root) })
        }
        Node::Page(_) => None,
    }
}
