//! Listing directories.

use std::sync::Arc;

use super::{Fs, lock};
use crate::attributes::{Attributes, Kind};
use crate::directory::{Batch, Directory, DirectoryEntry, Item};
use crate::error::Result;
use crate::inode::{Inode, Node, Place, ROOT};
use crate::source::{NamedSnapshot, Source as _};

/// How many entries one call of [`Fs::list`] returns, at most.
const LIST_MAX: usize = 512;
/// What is in front of a directory's entries: `.` and `..`.
const DOTS: u64 = 2;
/// How many directories are asked about at the same time while one that they are in is listed.
const DIRECTORIES_AT_ONCE: usize = 16;

/// An entry of a directory that is listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Where the next one stands.
    pub offset: u64,
    /// The name that is shown.
    pub shown: Vec<u8>,
    pub(crate) node: Node,
    /// Its attributes, if they were asked for.
    pub attributes: Option<Attributes>,
    /// What it is.
    pub kind: Kind,
}

/// A directory that is being listed: where its batches begin, so that offsets can be returned to.
#[derive(Default)]
pub(super) struct List {
    /// The number of each batch's first entry, and behind which key it stands.
    starts: Vec<(u64, Option<Vec<u8>>)>,
    /// The batch that was read last.
    last: Option<(usize, Arc<Batch>)>,
    /// In place of entries: the snapshots as they were when they were listed from the beginning.
    snapshots: Option<Arc<Vec<NamedSnapshot>>>,
}

impl Fs {
    /// Begins to list a directory.
    pub fn open_directory(&self, _inode: Inode) -> u64 {
        let handle = self.handle();
        lock(&self.lists).insert(handle, Arc::default());
        handle
    }

    /// Ends it.
    pub fn close_directory(&self, handle: u64) {
        lock(&self.lists).remove(&handle);
    }

    /// Entries of a directory from an offset on: zero, or where an earlier entry said that the next one stands. Offsets
    /// in a snapshot are the same for everybody and always; in the list of snapshots, which changes, for a handle until it
    /// begins anew. None at the end.
    pub async fn list(&self, inode: Inode, handle: u64, offset: u64, plus: bool) -> Result<Vec<Listed>> {
        self.within(async {
            let mut listed = self.dots(inode, offset)?;
            let from = offset.saturating_sub(DOTS);
            let list = lock(&self.lists).get(&handle).cloned().unwrap_or_default();
            if self.shows_snapshots(inode) {
                listed.extend(self.list_snapshots(&list, from).await?);
                return Ok(listed);
            }
            let directory = self.directory(inode).await?;
            let (batch, skip) = self.batch(&directory, &list, from).await?;
            let entries: Vec<&DirectoryEntry> = batch.entries.iter().skip(skip).take(LIST_MAX).collect();
            let attributes = if plus { self.attributes_of(&directory, &entries).await? } else { Vec::new() };
            let mut attributes = attributes.into_iter();
            for (entry, at) in entries.into_iter().zip(from + DOTS + 1..) {
                let attributes = attributes.next();
                let (place, kind) = match &entry.item {
                    Item::Object { name, entry, link } => {
                        (Place::Object(name.as_slice().into()), self.of_object(entry, *link).kind)
                    }
                    Item::Directory { name, .. } => (Place::Directory(name.as_slice().into()), Kind::Directory),
                };
                let node = Node { parent: inode, place };
                listed.push(Listed { offset: at, shown: entry.shown.clone(), node, attributes, kind });
            }
            Ok(listed)
        })
        .await
    }

    async fn attributes_of(&self, directory: &Directory, entries: &[&DirectoryEntry]) -> Result<Vec<Attributes>> {
        let mut all = Vec::with_capacity(entries.len());
        // Each directory may be a question: not all of them at once.
        for some in entries.chunks(DIRECTORIES_AT_ONCE) {
            let each = some.iter().map(|entry| async {
                match &entry.item {
                    Item::Object { entry, link, .. } => Ok(self.of_object(entry, *link)),
                    Item::Directory { name, root } => self.of_directory(&directory.below(name, root.clone())).await,
                }
            });
            all.extend(futures_util::future::try_join_all(each).await?);
        }
        Ok(all)
    }

    /// The batch that has an entry, and how many of its entries stand before that.
    async fn batch(
        &self,
        directory: &Directory,
        list: &tokio::sync::Mutex<List>,
        from: u64,
    ) -> Result<(Arc<Batch>, usize)> {
        let mut list = list.lock().await;
        if list.starts.is_empty() {
            list.starts.push((0, None));
        }
        loop {
            let at = list.starts.partition_point(|(first, _)| *first <= from).saturating_sub(1);
            let (first, after) = list.starts[at].clone();
            let batch = match &list.last {
                Some((number, batch)) if *number == at => batch.clone(),
                _ => Arc::new(directory.batch(&self.reader, after.as_deref()).await?),
            };
            list.last = Some((at, batch.clone()));
            let end = first + batch.entries.len() as u64;
            match &batch.next {
                Some(next) if end <= from => {
                    let known = list.starts.len() > at + 1;
                    if known {
                        // What follows has no entries before `from` either; it was skipped above.
                        return Ok((batch, usize::MAX));
                    }
                    list.starts.push((end, Some(next.clone())));
                }
                _ => return Ok((batch, usize::try_from(from - first).unwrap_or(usize::MAX))),
            }
        }
    }

    fn dots(&self, inode: Inode, offset: u64) -> Result<Vec<Listed>> {
        let own = self.place(inode)?;
        let parent = self.place(own.parent)?;
        let dot = |offset, shown: &[u8], node| Listed {
            offset,
            shown: shown.to_vec(),
            node,
            attributes: None,
            kind: Kind::Directory,
        };
        let dots = [dot(1, b".", own), dot(2, b"..", parent)];
        Ok(dots.into_iter().skip(usize::try_from(offset).unwrap_or(usize::MAX)).collect())
    }

    async fn list_snapshots(&self, list: &tokio::sync::Mutex<List>, from: u64) -> Result<Vec<Listed>> {
        let mut list = list.lock().await;
        let named = match list.snapshots.clone().filter(|_| from > 0) {
            Some(named) => named,
            None => list.snapshots.insert(Arc::new(self.source.snapshots().await?)).clone(),
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let entry = |(at, snapshot): (usize, &NamedSnapshot)| Listed {
            offset: at as u64 + DOTS + 1,
            node: Node { parent: ROOT, place: Place::Snapshot(snapshot.name.as_bytes().into()) },
            shown: snapshot.name.clone().into_bytes(),
            attributes: Some(Attributes::of_directory(None, self.options.ownership)),
            kind: Kind::Directory,
        };
        Ok(named.iter().enumerate().skip(from).take(LIST_MAX).map(entry).collect())
    }
}
