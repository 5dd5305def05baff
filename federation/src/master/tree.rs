//! Snapshot trees of the buckets of this cluster: what a bucket holds as of a number, as pages.
//!
//! They are derived from the catalog and its log, and the tree as of a number shows what the catalog shows as of it.
//! Nothing is derived before it is asked for, so a bucket that only S3 clients use has none. A root that was derived is
//! kept, with its pages, while it may be of use (`keep.rs`); any other is derived again (`derive.rs`). What is kept can
//! be thrown away at any time.

mod derive;
mod keep;
mod pages;
mod tell;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

pub(crate) use pages::KeptPages;

use super::Master;
use super::lens::Lens;
use crate::catalog::rows::{Record, RootRow};
use crate::catalog::{Rows, View, keys};
use crate::error::{Error, Result};
use crate::snapshot::{self, PageHash, Pages, Root, TreeError};
use crate::types::{BucketAt, BucketId, BucketName, Number, SnapshotRef};

/// How many pages one request may name.
pub(crate) const PAGES_PER_REQUEST_MAX: usize = 64;

/// Of how many directories it is remembered which pages are theirs.
const DIRECTORIES_REMEMBERED_MAX: usize = 16;

/// A tree, or a directory of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The bucket.
    pub bucket: BucketId,
    /// The state.
    pub number: Number,
    /// Where its rows stand, and what is below it.
    pub root: Root,
}

/// What deriving trees took since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeWork {
    /// Pages that were read.
    pub pages_read: u64,
    /// Pages that were written.
    pub pages_written: u64,
}

/// Trees that are derived just now, and what is remembered of those that were.
#[derive(Debug, Default)]
pub(super) struct Trees {
    /// Held by whoever derives a tree of a bucket, or collects its pages. Who waits begins from what the one before
    /// made.
    busy: Mutex<HashMap<BucketId, Arc<tokio::sync::Mutex<()>>>>,
    /// Buckets that have no pages but those of their roots.
    clean: Mutex<HashSet<BucketId>>,
    /// The pages of directories that were asked for lately, by the page they begin with.
    directories: Mutex<VecDeque<(PageHash, Arc<HashSet<PageHash>>)>>,
    pages_read: AtomicU64,
    pages_written: AtomicU64,
}

impl Trees {
    async fn turn(&self, bucket: BucketId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut busy = lock(&self.busy);
            // Whoever has or awaits a turn has a clone.
            busy.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(busy.entry(bucket).or_default())
        };
        turn.lock_owned().await
    }

    fn own_pages(&self, pages: &dyn Pages, root: &Root, directory: &[u8]) -> Result<Arc<HashSet<PageHash>>, TreeError> {
        let Some(top) = root.page() else { return Ok(Arc::default()) };
        let known = lock(&self.directories).iter().find(|(page, _)| *page == top).map(|(_, own)| Arc::clone(own));
        if let Some(own) = known {
            return Ok(own);
        }
        let own = Arc::new(snapshot::own_pages(pages, root, directory)?);
        let mut directories = lock(&self.directories);
        directories.truncate(DIRECTORIES_REMEMBERED_MAX - 1);
        directories.push_front((top, Arc::clone(&own)));
        Ok(own)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kept root of a state.
pub(crate) fn kept_root(rows: &(impl Rows + ?Sized), bucket: BucketId, number: Number) -> Result<Option<Root>> {
    Ok(RootRow::load(rows, &keys::root(bucket, number))?.map(|row| row.0))
}

/// What it means that a tree of this cluster's own cannot be read.
pub(super) fn unreadable(bucket: BucketId, error: TreeError) -> Error {
    match error {
        TreeError::Storage(error) => error,
        error => Error::Damaged { what: format!("a snapshot tree of bucket {bucket}"), source: error.into() },
    }
}

/// What was asked of a tree, and what its pages said.
type Answer<T> = Result<Result<T, TreeError>>;

impl Master {
    /// What deriving trees took.
    #[must_use]
    pub fn tree_work(&self) -> TreeWork {
        let (read, written) = (&self.trees.pages_read, &self.trees.pages_written);
        TreeWork { pages_read: read.load(Ordering::Relaxed), pages_written: written.load(Ordering::Relaxed) }
    }

    /// The tree of a state, derived unless it is kept.
    pub async fn tree(&self, at: &BucketAt) -> Result<Tree> {
        let at = at.clone();
        let (bucket, number) = self
            .writer
            .read(move |view| {
                let lens = Lens::open(view, &at)?;
                Ok((lens.id, lens.number()))
            })
            .await?;
        Ok(Tree { bucket, number, root: self.root_of(bucket, number).await? })
    }

    /// A directory of a state: its path is empty or ends with a `/`.
    pub async fn tree_directory(&self, at: &BucketAt, directory: &[u8]) -> Result<Tree> {
        let tree = self.tree(at).await?;
        if directory.is_empty() {
            return Ok(tree);
        }
        let path = directory.to_vec();
        let found = self.in_tree(&tree, move |pages, root| Ok(snapshot::directory(pages, root, &path))).await?;
        let root = found.ok_or_else(|| absent(&at.bucket, tree.number, directory_name(directory)))?;
        Ok(Tree { root, ..tree })
    }

    /// Pages of a directory of a state, in the order in which they are named. One that is not among that directory's is
    /// refused: no page is given by its hash alone.
    pub async fn tree_pages(
        &self,
        bucket: &BucketName,
        number: Number,
        directory: &[u8],
        pages: Vec<PageHash>,
    ) -> Result<Vec<Bytes>> {
        check_page_count(pages.len())?;
        let tree = self.tree_directory(&BucketAt::at(bucket.clone(), SnapshotRef::Number(number)), directory).await?;
        let (name, directory, trees) = (bucket.clone(), directory.to_vec(), Arc::clone(&self.trees));
        self.in_tree(&tree, move |kept, root| {
            let own = match trees.own_pages(kept, root, &directory) {
                Ok(own) => own,
                Err(error) => return Ok(Err(error)),
            };
            let mut found = Vec::with_capacity(pages.len());
            for page in &pages {
                if !own.contains(page) {
                    return Err(absent(&name, number, format!("page {page} in {}", directory_name(&directory))));
                }
                match kept.checked(page, &directory) {
                    Ok(bytes) => found.push(bytes),
                    Err(error) => return Ok(Err(error)),
                }
            }
            Ok(Ok(found))
        })
        .await
    }

    /// Asks something of a tree. What its pages cannot tell because they are damaged, they can when they are derived
    /// anew.
    pub(super) async fn in_tree<T: Send + 'static>(
        &self,
        tree: &Tree,
        ask: impl Fn(&KeptPages<'_>, &Root) -> Answer<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let (bucket, number) = (tree.bucket, tree.number);
        let mut again = false;
        loop {
            let (ask, root) = (ask.clone(), tree.root.clone());
            let read = move |view: &dyn View| {
                // Of the same view as its pages, so that both are there or neither is.
                let kept = kept_root(view, bucket, number)?.is_some();
                Ok((kept, ask(&KeptPages::new(view, bucket), &root)?))
            };
            match self.writer.read(read).await? {
                (_, Ok(answer)) => return Ok(answer),
                (_, Err(TreeError::Storage(error))) => return Err(error),
                (_, Err(error)) if again => return Err(unreadable(bucket, error)),
                (true, Err(error)) => {
                    tracing::warn!(%bucket, error = &error as &dyn std::error::Error, "snapshot trees derived anew");
                    self.discard_trees(bucket).await?;
                }
                // Collected between the look for the root and this one.
                (false, Err(_)) => {}
            }
            again = true;
            self.root_of(bucket, number).await?;
        }
    }
}

/// Refuses requests that name no page or too many.
pub(crate) fn check_page_count(count: usize) -> Result<()> {
    if (1..=PAGES_PER_REQUEST_MAX).contains(&count) {
        return Ok(());
    }
    let reason = format!("1 to {PAGES_PER_REQUEST_MAX} pages can be asked for at once, not {count}");
    Err(Error::InvalidRequest { reason })
}

fn directory_name(directory: &[u8]) -> String {
    format!("directory \"{}\"", directory.escape_ascii())
}

/// What a state does not have.
pub(crate) fn absent(bucket: &BucketName, number: Number, what: String) -> Error {
    Error::NotInSnapshot { bucket: bucket.clone(), number, what }
}
