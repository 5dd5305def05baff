//! From numbers to places, and from places to directories.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use federation::snapshot::Entry;

use super::{Found, Fs, View, lock};
use crate::attributes::{Attributes, Kind};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::inode::{Inode, Node, Place, ROOT};
use crate::source::{Source as _, Tree};

impl Fs {
    pub(super) fn shows_snapshots(&self, inode: Inode) -> bool {
        inode == ROOT && self.view == View::Snapshots
    }

    pub(super) fn place(&self, inode: Inode) -> Result<Node> {
        lock(&self.inodes).get(inode).cloned().ok_or(Error::NotFound)
    }

    /// The directory of a number: remembered, or found again from the top.
    pub(super) async fn directory(&self, inode: Inode) -> Result<Arc<Directory>> {
        if let Some(directory) = lock(&self.directories).get(&inode) {
            return Ok(directory);
        }
        let places = lock(&self.inodes).ancestry(inode).ok_or(Error::NotFound)?;
        let mut at = lock(&self.directories).get(&ROOT);
        for place in places {
            let below = match (&at, place) {
                (None, Place::Snapshot(name)) => {
                    let tree = self.snapshot(&name).await?;
                    Directory { number: tree.number, path: Vec::new(), root: tree.root }
                }
                (Some(directory), Place::Directory(name)) => {
                    directory.directory(&self.reader, &name).await?.ok_or(Error::NotFound)?
                }
                (_, Place::Object(_)) => return Err(Error::NotDirectory),
                (_, Place::Root | Place::Snapshot(_) | Place::Directory(_)) => return Err(Error::NotFound),
            };
            at = Some(Arc::new(below));
        }
        let directory = at.ok_or(Error::NotFound)?;
        lock(&self.directories).put(inode, directory.clone());
        Ok(directory)
    }

    /// A snapshot by what it is called. Once looked at, a name stands for the same number until the mount ends.
    pub(super) async fn snapshot(&self, name: &[u8]) -> Result<Tree> {
        if let Some(tree) = lock(&self.snapshots).get(name) {
            return Ok(tree.clone());
        }
        let text = std::str::from_utf8(name).map_err(|_| Error::NotFound)?;
        // What cannot name a snapshot is not asked for: shells and file managers look for all kinds of files.
        let named = text.parse::<federation::types::SnapshotRef>().is_ok();
        let tree = match self.source.tree(Some(text).filter(|_| named)).await {
            _ if !named => return Err(Error::NotFound),
            Err(crate::source::SourceError::Gone(_)) => return Err(Error::NotFound),
            other => other?,
        };
        lock(&self.snapshots).insert(name.into(), tree.clone());
        Ok(tree)
    }

    pub(super) async fn found_directory(&self, node: Node, directory: Directory) -> Result<Found> {
        let attributes = self.of_directory(&directory).await?;
        let inode = self.remember(node);
        lock(&self.directories).put(inode, Arc::new(directory));
        Ok(Found { inode, attributes })
    }

    pub(super) fn of_object(&self, entry: &Entry, link: bool) -> Attributes {
        let attributes = Attributes::of_object(entry, self.options.ownership);
        if !link {
            return attributes;
        }
        let permissions = if attributes.kind == Kind::Symlink { attributes.permissions } else { 0o777 };
        Attributes { kind: Kind::Symlink, permissions, ..attributes }
    }

    pub(super) async fn of_directory(&self, directory: &Directory) -> Result<Attributes> {
        let marker = directory.marker(&self.reader).await?;
        Ok(Attributes::of_directory(marker.as_ref(), self.options.ownership))
    }
}

/// What was used lately, of which at most so much is kept.
pub(super) struct Recent<K, V> {
    values: HashMap<K, (V, u64)>,
    pinned: HashMap<K, V>,
    turn: u64,
    max: usize,
}

impl<K: Hash + Eq + Copy, V: Clone> Recent<K, V> {
    pub(super) fn new(max: usize) -> Recent<K, V> {
        Recent { values: HashMap::new(), pinned: HashMap::new(), turn: 0, max }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        self.turn += 1;
        let turn = self.turn;
        let recent = self.values.get_mut(key).map(|(value, used)| {
            *used = turn;
            value.clone()
        });
        recent.or_else(|| self.pinned.get(key).cloned())
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        self.turn += 1;
        self.values.insert(key, (value, self.turn));
        if self.values.len() > self.max {
            let mut turns: Vec<u64> = self.values.values().map(|(_, turn)| *turn).collect();
            let middle = turns.len() / 2;
            let (_, &mut median, _) = turns.select_nth_unstable(middle);
            self.values.retain(|_, (_, turn)| *turn >= median);
        }
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.values.remove(key);
    }

    /// Keeps something for ever.
    pub(super) fn pin(&mut self, key: K, value: V) {
        self.pinned.insert(key, value);
    }
}
