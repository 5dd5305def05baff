//! The file system, without a kernel.
//!
//! Every operation that may wait has its deadline here, in [`Fs::within`]: a server that is away makes an error
//! of it, never a process that nobody can kill.

mod list;
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
use crate::directory::{Directory, Item};
use crate::error::{Error, Result};
use crate::flight::Flights;
use crate::inode::{Inode, InodeTable, Node, Place, ROOT};
use crate::metrics::{Metrics, add};
use crate::pages::TreeReader;
use crate::persist::Persistent;
use crate::read::Body;
use crate::source::{Source, Tree};

use list::List;
pub use list::Listed;
pub(crate) use open::NO_HANDLE;
pub use open::Opened;
use place::Recent;

/// How many directories are remembered beside their numbers.
const DIRECTORIES_MAX: usize = 4096;
/// How many files are kept open for those who read without opening.
const UNOPENED_MAX: usize = 512;
/// What share of the cache may be held by what nobody has open any more.
const IDLE_SHARE: u64 = 32;
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

    /// Where what was fetched is kept.
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
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
