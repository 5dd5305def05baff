//! Listings: as `master` lists a state, from a tree.

use super::cursor::Cursor;
use super::page::{Node, Root};
use super::{DEPTH_MAX, Entry, Missing, Pages, TreeError};
use crate::master::{After, ListQuery, common_prefix};
use crate::types::ObjectPath;

/// How many missing pages are asked for at once.
const MISSING_MAX: usize = 64;

/// How many items a missing page is taken to hold where its objects may share items.
const ITEMS_PER_PAGE: u64 = 64;

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The items, in order.
    pub items: Vec<Listed>,
    /// Where the next page begins; none at the end.
    pub next: Option<After>,
}

/// An item of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// An object.
    Object(ObjectPath, Entry),
    /// What several paths begin with.
    Prefix(Vec<u8>),
}

/// A page of the objects of a tree.
///
/// A directory that is one item is not entered. Which pages it took, a [`super::Recording`] of `pages` tells. Where pages
/// are missing, the counts in their pointers say how far the answer may reach behind them, and all that are missing up to
/// there are asked for at once.
pub fn list(pages: &dyn Pages, root: &Root, query: &ListQuery) -> Result<Listing, TreeError> {
    let mut listing = Listing::default();
    let Some(target) = start(query).filter(|_| query.max > 0) else { return Ok(listing) };
    let mut walk = Walk::open(pages, root, target)?;
    while walk.seek() && !walk.asks_enough(query.max - listing.items.len()) {
        let step = walk.step(query);
        if listing.items.len() == query.max && step.finds() {
            listing.next = listing.items.last().map(Listed::position);
            break;
        }
        match step {
            Step::End => break,
            Step::Enter { .. } => walk.enter(query.delimiter.is_some())?,
            Step::Prefix(common) => {
                let behind = successor(&common);
                listing.items.push(Listed::Prefix(common));
                let Some(behind) = behind else { break };
                walk.target = behind;
            }
            Step::Object => listing.items.extend(walk.take()?),
        }
    }
    if walk.missing.is_empty() { Ok(listing) } else { Err(TreeError::Need(walk.missing)) }
}

impl Listed {
    fn position(&self) -> After {
        match self {
            Listed::Object(path, _) => After::Key(path.as_bytes().to_vec()),
            Listed::Prefix(prefix) => After::Prefix(prefix.clone()),
        }
    }
}

/// The lowest path that may be an item, as bytes; `None` where no path is high enough.
fn start(query: &ListQuery) -> Option<Vec<u8>> {
    let after = match &query.after {
        None => Vec::new(),
        Some(After::Key(path)) => [path.as_slice(), &[0]].concat(),
        Some(After::Prefix(prefix)) => successor(prefix)?,
    };
    Some(after.max(query.prefix.clone()))
}

/// The lowest bytes that are above all that begin with these.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut above = prefix[..=last].to_vec();
    above[last] += 1;
    Some(above)
}

/// What to do with a row.
enum Step {
    /// Nothing that follows begins with the prefix.
    End,
    /// A page or directory that has to be looked into; `finds` says whether that is certain to find an item.
    Enter {
        finds: bool,
    },
    Prefix(Vec<u8>),
    Object,
}

impl Step {
    fn finds(&self) -> bool {
        match self {
            Step::End => false,
            Step::Enter { finds } => *finds,
            Step::Prefix(_) | Step::Object => true,
        }
    }
}

/// A walk over a tree, in the order of paths.
struct Walk<'a> {
    pages: &'a dyn Pages,
    /// The innermost open directory, and before it those it is in, each with the length of its parent's path.
    open: Vec<(Cursor, usize)>,
    /// The path of that directory.
    directory: Vec<u8>,
    /// The path of the row that the walk stands before; of a page its highest.
    here: Vec<u8>,
    /// What lies below it is passed over.
    target: Vec<u8>,
    missing: Vec<Missing>,
    /// How many items the missing pages are taken to hold.
    awaited: u64,
}

impl<'a> Walk<'a> {
    fn open(pages: &'a dyn Pages, root: &Root, target: Vec<u8>) -> Result<Self, TreeError> {
        let open = vec![(Cursor::open(pages, root, b"")?, 0)];
        Ok(Walk { pages, open, directory: Vec::new(), here: Vec::new(), target, missing: Vec::new(), awaited: 0 })
    }

    /// Whether the missing pages are enough to wait for before an answer of `room` more items.
    fn asks_enough(&self, room: usize) -> bool {
        !self.missing.is_empty() && (self.awaited >= room as u64 || self.missing.len() >= MISSING_MAX)
    }

    /// Goes to the first row that has something at the target or above it. Returns whether there is one.
    fn seek(&mut self) -> bool {
        while let Some((cursor, parent)) = self.open.last_mut() {
            let Some(next) = cursor.next() else {
                self.directory.truncate(*parent);
                self.open.pop();
                continue;
            };
            self.here.clear();
            self.here.extend_from_slice(&self.directory);
            self.here.extend_from_slice(next.row.key.as_bytes());
            let around_target = next.row.key.is_directory() && self.target.starts_with(&self.here);
            if self.here >= self.target || around_target {
                return true;
            }
            cursor.take();
        }
        false
    }

    fn node(&self) -> Option<&Node> {
        self.open.last().and_then(|(cursor, _)| cursor.next()).map(|next| &next.row.node)
    }

    fn step(&self, query: &ListQuery) -> Step {
        let within = self.here.starts_with(&query.prefix);
        match self.node() {
            None => Step::End,
            // Its highest path is at the target or above it.
            Some(Node::Page(_)) => Step::Enter { finds: self.directory.starts_with(&query.prefix) },
            Some(_) if !within && !query.prefix.starts_with(&self.here) => Step::End,
            // What is in it may lie below the target, all of it.
            Some(Node::Directory(_)) if self.here < self.target || !within => Step::Enter { finds: false },
            Some(node) => match common_prefix(&self.here, &query.prefix, query.delimiter.as_deref()) {
                Some(common) => Step::Prefix(common.to_vec()),
                None if matches!(node, Node::Object(_)) => Step::Object,
                None => Step::Enter { finds: true },
            },
        }
    }

    /// Looks into the page or directory that it stands before. One that is missing is noted and passed over.
    fn enter(&mut self, shared: bool) -> Result<(), TreeError> {
        match self.try_enter() {
            Err(TreeError::Need(missing)) => {
                Missing::add(&mut self.missing, missing);
                let objects =
                    self.open.last_mut().and_then(|(cursor, _)| cursor.take()).map_or(0, |row| row.totals().objects);
                self.awaited += if shared { objects.min(ITEMS_PER_PAGE) } else { objects };
                Ok(())
            }
            other => other,
        }
    }

    fn try_enter(&mut self) -> Result<(), TreeError> {
        let depth = self.open.len();
        let Some((cursor, _)) = self.open.last_mut() else { return Ok(()) };
        let Some(next) = cursor.next() else { return Ok(()) };
        match &next.row.node {
            Node::Object(_) => {}
            Node::Page(_) => cursor.enter(self.pages, &self.directory)?,
            Node::Directory(_) if depth > DEPTH_MAX => {
                return Err(TreeError::TooDeep { directory: self.here.clone() });
            }
            Node::Directory(root) => {
                let below = Cursor::open(self.pages, root, &self.here)?;
                cursor.take();
                self.open.push((below, self.directory.len()));
                self.directory.clone_from(&self.here);
            }
        }
        Ok(())
    }

    /// Takes the object that it stands before.
    fn take(&mut self) -> Result<Option<Listed>, TreeError> {
        let row = self.open.last_mut().and_then(|(cursor, _)| cursor.take());
        let path = ObjectPath::try_from(self.here.as_slice()).map_err(crate::Error::from)?;
        Ok(row.and_then(|row| match row.node {
            Node::Object(entry) => Some(Listed::Object(path, entry)),
            Node::Directory(_) | Node::Page(_) => None,
        }))
    }
}
