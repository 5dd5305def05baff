//! The file system, without a kernel.
//!
//! Every operation that may wait has its deadline here, in [`Fs::within`]: a server that is away makes an error
//! of it, never a process that nobody can kill.

mod open;
mod place;
mod warm;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use federation::snapshot;
use federation::types::BlobHash;

use crate::attributes::{Attributes, Kind, Ownership, extended};
use crate::cache::Cache;
use crate::directory::{Batch, Directory, DirectoryEntry, Item};
use crate::error::{Error, Result};
use crate::flight::Flights;
use crate::inode::{Inode, InodeTable, Node, Place, ROOT};
use crate::metrics::{Metrics, add};
use crate::pages::TreeReader;
use crate::persist::Persistent;
use crate::read::Body;
use crate::source::{Source, Tree};

pub(crate) use open::NO_HANDLE;
pub use open::Opened;
use place::Recent;

/// How many directories are remembered beside their numbers.
const DIRECTORIES_MAX: usize = 4096;
/// How many files are kept open for those who read without opening.
const UNOPENED_MAX: usize = 512;
/// How many entries one call of [`Fs::list`] returns, at most.
const LIST_MAX: usize = 512;
/// What share of the cache may be held by what nobody has open any more.
const IDLE_SHARE: u64 = 32;
/// What is in front of a directory's entries: `.` and `..`.
const DOTS: u64 = 2;
/// How many directories are asked about at the same time while one that they are in is listed.
const DIRECTORIES_AT_ONCE: usize = 16;

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// One snapshot, from this prefix on, which is empty or ends with a `/`.
    Snapshot(Tree, Vec<u8>),
    /// All snapshots of a bucket, each a directory: tags are listed, numbers and times are found by name.
    Snapshots,
}

/// How it is shown.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose files are.
    pub ownership: Ownership,
    /// How long an operation may take.
    pub deadline: Duration,
    /// How many bits inode numbers have: 64, in tests fewer.
    pub inode_bits: u32,
}

impl Default for Options {
    fn default() -> Options {
        let ownership = Ownership { uid: 0, gid: 0, foreign: true, trust: false };
        Options { ownership, deadline: Duration::from_secs(30), inode_bits: 64 }
    }
}

/// A file that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub inode: Inode,
    /// Its attributes.
    pub attributes: Attributes,
}

/// How much a snapshot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

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

/// The file system.
pub struct Fs {
    view: View,
    options: Options,
    source: Arc<Persistent>,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    reader: TreeReader,
    inodes: Mutex<InodeTable>,
    directories: Mutex<Recent<Inode, Arc<Directory>>>,
    snapshots: Mutex<HashMap<Box<[u8]>, Tree>>,
    bodies: Mutex<HashMap<BlobHash, Weak<Body>>>,
    opening: Flights<BlobHash>,
    files: Mutex<HashMap<u64, Arc<Opened>>>,
    /// What is read without having been opened.
    unopened: Mutex<Recent<Inode, Arc<Opened>>>,
    lists: Mutex<HashMap<u64, Arc<tokio::sync::Mutex<List>>>>,
    handles: AtomicU64,
}

/// A directory that is being listed: where its batches begin, so that offsets can be returned to.
#[derive(Default)]
struct List {
    /// The number of each batch's first entry, and behind which key it stands.
    starts: Vec<(u64, Option<Vec<u8>>)>,
    /// The batch that was read last.
    last: Option<(usize, Arc<Batch>)>,
}

impl Fs {
    /// A file system that shows `view` of what `source` has. Nothing is fetched but what leads to the prefix.
    pub async fn new(
        source: Arc<dyn Source>,
        cache: Arc<Cache>,
        metrics: Arc<Metrics>,
        view: View,
        options: Options,
    ) -> Result<Fs> {
        let source = Arc::new(Persistent::new(source, options.deadline));
        let reader = TreeReader::new(source.clone(), cache.clone(), metrics.clone());
        let seed = match &view {
            View::Snapshot(tree, prefix) => [&tree.bucket.0, prefix.as_slice()].concat(),
            View::Snapshots => b"snapshots".to_vec(),
        };
        let fs = Fs {
            inodes: Mutex::new(InodeTable::new(&seed, options.inode_bits)),
            view,
            options,
            source,
            cache,
            metrics,
            reader,
            directories: Mutex::new(Recent::new(DIRECTORIES_MAX)),
            snapshots: Mutex::default(),
            bodies: Mutex::default(),
            opening: Flights::default(),
            files: Mutex::default(),
            unopened: Mutex::new(Recent::new(UNOPENED_MAX)),
            lists: Mutex::default(),
            handles: AtomicU64::new(1),
        };
        if let View::Snapshot(tree, prefix) = &fs.view {
            let directory = async {
                let at = |pages: &dyn snapshot::Pages| snapshot::directory(pages, &tree.root, prefix);
                let root = fs.reader.read(tree.number, at).await?.ok_or(Error::NotFound)?;
                Ok(Directory { number: tree.number, path: prefix.clone(), root })
            };
            let directory = Arc::new(fs.within(directory).await?);
            lock(&fs.directories).pin(ROOT, directory);
        }
        Ok(fs)
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How many bytes of the cache may be held by files that nobody has open any more.
    pub(crate) fn idle_bytes_max(&self) -> u64 {
        self.cache.limit() / IDLE_SHARE
    }

    /// How many inode numbers are in use.
    #[must_use]
    pub fn inodes_in_use(&self) -> usize {
        lock(&self.inodes).in_use()
    }

    /// What it shows.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What a directory has under a name. The number is in use until it is forgotten as often as it was looked up.
    pub async fn look_up(&self, parent: Inode, shown: &[u8]) -> Result<Found> {
        if shown.len() > crate::escape::NAME_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        self.within(async {
            if self.shows_snapshots(parent) {
                let tree = self.snapshot(shown).await?;
                let place = Place::Snapshot(shown.into());
                let directory = Directory { number: tree.number, path: Vec::new(), root: tree.root };
                return self.found_directory(Node { parent, place }, directory).await;
            }
            let directory = self.directory(parent).await?;
            match directory.look_up(&self.reader, shown).await?.ok_or(Error::NotFound)? {
                Item::Object { name, entry, link } => {
                    let attributes = self.of_object(&entry, link);
                    let node = Node { parent, place: Place::Object(name.into()) };
                    Ok(Found { inode: self.remember(node), attributes })
                }
                Item::Directory { name, root } => {
                    let below = directory.below(&name, root);
                    self.found_directory(Node { parent, place: Place::Directory(name.into()) }, below).await
                }
            }
        })
        .await
    }

    /// Gives back so many look-ups of a number. Returns the numbers that are not in use any more.
    pub fn forget(&self, inode: Inode, lookups: u64) -> Vec<Inode> {
        let unused = lock(&self.inodes).forget(inode, lookups);
        if !unused.is_empty() {
            let (mut directories, mut unopened) = (lock(&self.directories), lock(&self.unopened));
            for inode in &unused {
                directories.remove(inode);
                unopened.remove(inode);
            }
        }
        unused
    }

    /// A file's attributes.
    pub async fn attributes(&self, inode: Inode) -> Result<Found> {
        self.within(async {
            let attributes = match self.place(inode)? {
                Node { parent, place: Place::Object(name) } => {
                    let directory = self.directory(parent).await?;
                    let (entry, link) = directory.object(&self.reader, &name).await?.ok_or(Error::NotFound)?;
                    self.of_object(&entry, link)
                }
                _ if self.shows_snapshots(inode) => Attributes::of_directory(None, self.options.ownership),
                _ => self.of_directory(&*self.directory(inode).await?).await?,
            };
            Ok(Found { inode, attributes })
        })
        .await
    }

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
    /// are the same for everybody, as long as the bucket is. None at the end.
    pub async fn list(&self, inode: Inode, handle: u64, offset: u64, plus: bool) -> Result<Vec<Listed>> {
        self.within(async {
            let mut listed = self.dots(inode, offset)?;
            let from = offset.saturating_sub(DOTS);
            if self.shows_snapshots(inode) {
                listed.extend(self.list_snapshots(from).await?);
                return Ok(listed);
            }
            let list = lock(&self.lists).get(&handle).cloned().unwrap_or_default();
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

    /// The number of something that was listed, from now on in use.
    pub(crate) fn remember(&self, node: Node) -> Inode {
        lock(&self.inodes).look_up(node)
    }

    /// The number of something that was listed, which is not used.
    pub(crate) fn number(&self, node: &Node) -> Inode {
        if node.place == Place::Root { ROOT } else { lock(&self.inodes).number(node) }
    }

    /// The target of a symbolic link.
    pub async fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        self.within(async {
            let Node { parent, place: Place::Object(name) } = self.place(inode)? else { return Err(Error::NotLink) };
            let directory = self.directory(parent).await?;
            let (entry, link) = directory.object(&self.reader, &name).await?.ok_or(Error::NotFound)?;
            if self.of_object(&entry, link).kind != Kind::Symlink {
                return Err(Error::NotLink);
            }
            if !(1..=crate::directory::LINK_BYTES_MAX).contains(&entry.size) {
                return Err(Error::NotLink);
            }
            let body = self.body(&directory, &name, &entry).await?;
            let target = body.read(0, entry.size).await?;
            // No path has a NUL in it; older clients end the target with a line's end.
            let target = target.strip_suffix(b"\n").unwrap_or(&target);
            if target.is_empty() || target.contains(&0) { Err(Error::NotLink) } else { Ok(target.to_vec()) }
        })
        .await
    }

    /// A file's extended attributes, by name.
    pub async fn extended(&self, inode: Inode) -> Result<Vec<(String, Vec<u8>)>> {
        self.within(async {
            let (entry, key) = match self.place(inode)? {
                Node { parent, place: Place::Object(name) } => {
                    let directory = self.directory(parent).await?;
                    let (entry, _) = directory.object(&self.reader, &name).await?.ok_or(Error::NotFound)?;
                    (Some(entry), [directory.path.as_slice(), &name].concat())
                }
                _ if self.shows_snapshots(inode) => return Ok(Vec::new()),
                _ => {
                    let directory = self.directory(inode).await?;
                    (directory.marker(&self.reader).await?, directory.path.clone())
                }
            };
            let mut all = entry.map(|entry| extended(&entry, self.options.ownership)).unwrap_or_default();
            all.push(("user.elton.key".to_owned(), key));
            Ok(all)
        })
        .await
    }

    /// How much is shown.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        match lock(&self.directories).get(&ROOT) {
            Some(directory) => {
                let totals = directory.root.totals;
                Statistics { objects: totals.objects, bytes: totals.bytes }
            }
            None => Statistics::default(),
        }
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

    async fn list_snapshots(&self, from: u64) -> Result<Vec<Listed>> {
        let named = self.source.snapshots().await?;
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let entry = |(at, snapshot): (usize, crate::source::NamedSnapshot)| Listed {
            offset: at as u64 + DOTS + 1,
            node: Node { parent: ROOT, place: Place::Snapshot(snapshot.name.as_bytes().into()) },
            shown: snapshot.name.into_bytes(),
            attributes: Some(Attributes::of_directory(None, self.options.ownership)),
            kind: Kind::Directory,
        };
        Ok(named.into_iter().enumerate().skip(from).map(entry).collect())
    }

    /// The one place with a deadline.
    async fn within<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let began = tokio::time::Instant::now();
        let outcome = tokio::time::timeout(self.source.patience(), operation).await.unwrap_or_else(|_elapsed| {
            self.source.in_vain(began);
            Err(Error::TimedOut)
        });
        if let Err(error) = &outcome
            && !error.is_answer()
        {
            add(&self.metrics.failures, 1);
            tracing::warn!(%error, "an operation failed");
        }
        outcome
    }

    fn handle(&self) -> u64 {
        self.handles.fetch_add(1, Ordering::Relaxed)
    }
}

/// Nothing is left half done where these locks are held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
