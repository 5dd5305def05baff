//! Snapshot trees of linked buckets: listings, directories, their pages, and pins at the home.
//!
//! Roots are kept by (bucket, number) and pages by (bucket, hash), both true for ever. The home is asked for the newest
//! root and for what is not here; a state that was listed before is listed again without a word.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::{Linked, Member};
use crate::catalog::rows::{BucketRow, Record, RootRow};
use crate::catalog::{KeyRange, Table, View, keys};
use crate::error::{Error, Result};
use crate::master::{
    After, KeptPages, ListItem, ListPage, ListQuery, PAGES_PER_REQUEST_MAX, PinInfo, Tree, Version, check_page_count,
    kept_root, not_in_snapshot,
};
use crate::peer::message::{self, PageBytes, TreeTold};
use crate::snapshot::{
    self, Content, Entry, Flaw, Listed, Listing, Missing, PAGE_BYTES_MAX, PageHash, Root, TreeError,
};
use crate::types::{BlobHash, BucketAt, BucketId, Number, PinId, SnapshotRef, Summary};

/// How often pages are asked for in one go through a tree: an index has few levels, and a listing few directories that
/// were not known of before.
const ROUNDS_MAX: usize = 256;

/// How many questions for pages are under way for one listing.
const QUESTIONS_AT_ONCE: usize = 4;

/// How many of the newest known roots are looked at for one whose pages a listing has.
const ROOTS_TRIED: usize = 1;

/// What a listing is made of.
enum Source {
    Tree(Number, Root),
    /// The home listed itself: its tree is still being derived.
    Told(ListPage<ListItem, After>),
}

impl Member {
    /// A page of the live objects of a state, from the pages of its tree. The versions' numbers are not in it.
    pub async fn list(&self, linked: &Linked, at: &BucketAt, query: ListQuery) -> Result<ListPage<ListItem, After>> {
        if self.master.admit().is_err() {
            // There is no room for pages, and none is needed to pass on what the home lists.
            let question = message::List { bucket: linked.id, snapshot: self.state(linked, at), query };
            return self.ask(linked, "for a listing", &question).await;
        }
        match self.list_from(linked, &query, self.state(linked, at)).await {
            // The bound's state, or the newest of a moment ago, was collected meanwhile: the newest is fresher still.
            Err(Error::BelowFloor { .. }) if at.snapshot.is_none() => self.list_from(linked, &query, None).await,
            listed => listed,
        }
    }

    async fn list_from(
        &self,
        linked: &Linked,
        query: &ListQuery,
        state: Option<SnapshotRef>,
    ) -> Result<ListPage<ListItem, After>> {
        let (number, root) = match self.source(linked, state, Some(query)).await? {
            Source::Tree(number, root) => (number, root),
            Source::Told(listing) => return Ok(listing),
        };
        let query = query.clone();
        let listing = self.with_pages(linked, number, move |pages| snapshot::list(pages, &root, &query)).await?;
        let Listing { items, next } = listing;
        Ok(ListPage { items: items.into_iter().map(item).collect(), next, number })
    }

    /// A directory of a state.
    pub async fn tree(&self, linked: &Linked, at: &BucketAt, directory: &[u8]) -> Result<Tree> {
        let state = self.state(linked, at);
        let Source::Tree(number, root) = self.source(linked, state, None).await? else {
            return Err(Error::Conflict);
        };
        let path = directory.to_vec();
        let found = self.with_pages(linked, number, move |pages| snapshot::directory(pages, &root, &path)).await?;
        let missing = || not_in_snapshot(&linked.name, number, format!("directory \"{}\"", directory.escape_ascii()));
        Ok(Tree { bucket: linked.id, number, root: found.ok_or_else(missing)? })
    }

    /// Pages of a directory of a state, in the order in which they are named.
    pub async fn tree_pages(
        &self,
        linked: &Linked,
        number: Number,
        directory: &[u8],
        pages: Vec<PageHash>,
    ) -> Result<Vec<Bytes>> {
        check_page_count(pages.len())?;
        let at = BucketAt::at(linked.name.clone(), SnapshotRef::Number(number));
        let tree = self.tree(linked, &at, directory).await?;
        let path = directory.to_vec();
        let own = self.with_pages(linked, number, move |known| snapshot::own_pages(known, &tree.root, &path)).await?;
        if let Some(page) = pages.iter().find(|page| !own.contains(page)) {
            let what = format!("page {page} in directory \"{}\"", directory.escape_ascii());
            return Err(not_in_snapshot(&linked.name, number, what));
        }
        let path = directory.to_vec();
        self.with_pages(linked, number, move |known| {
            let mut missing = Vec::new();
            let mut found = Vec::with_capacity(pages.len());
            for page in &pages {
                match known.checked(page, &path) {
                    Ok(bytes) => found.push(bytes),
                    Err(TreeError::Need(more)) => missing.extend(more),
                    Err(error) => return Err(error),
                }
            }
            if missing.is_empty() { Ok(found) } else { Err(TreeError::Need(missing)) }
        })
        .await
    }

    /// The list of parts of an object in a state, as a version of nothing else.
    pub(crate) async fn part_list(
        &self,
        linked: &Linked,
        version: &Version,
        number: Number,
        hash: BlobHash,
    ) -> Result<Option<Version>> {
        let at = BucketAt::at(linked.name.clone(), SnapshotRef::Number(number));
        let tree = self.tree(linked, &at, b"").await?;
        let path = version.path.clone();
        let entry = self.with_pages(linked, number, move |pages| snapshot::lookup(pages, &tree.root, &path)).await?;
        Ok(match entry {
            Some(Entry { content: Content::PartList { list, length, .. }, .. }) if list == hash => {
                Some(version.of_body(list, length))
            }
            _ => None,
        })
    }

    /// Keeps a state at the home for a while.
    pub async fn pin(&self, linked: &Linked, at: &BucketAt, holder: &str, seconds: u64) -> Result<PinInfo> {
        let (snapshot, holder) = (at.snapshot.clone(), holder.to_owned());
        self.ask(linked, "to pin a state", &message::Pin { bucket: linked.id, snapshot, holder, seconds }).await
    }

    /// Lets a pin last from now on.
    pub async fn renew_pin(&self, linked: &Linked, pin: PinId, seconds: u64) -> Result<PinInfo> {
        self.ask(linked, "to renew a pin", &message::RenewPin { bucket: linked.id, pin, seconds }).await
    }

    /// Ends a pin.
    pub async fn unpin(&self, linked: &Linked, pin: PinId) -> Result<()> {
        self.ask(linked, "to end a pin", &message::Unpin { bucket: linked.id, pin }).await
    }

    /// The root of a state, known here or told by the home; for a listing with the pages that it takes.
    async fn source(&self, linked: &Linked, state: Option<SnapshotRef>, query: Option<&ListQuery>) -> Result<Source> {
        let bucket = linked.id;
        if let Some(SnapshotRef::Number(number)) = state
            && let Some(root) = self.master.writer().read(move |view| kept_root(view, bucket, number)).await?
        {
            return Ok(Source::Tree(number, root));
        }
        let known = match query.cloned() {
            Some(query) => self.master.writer().read(move |view| known_for(view, bucket, &query)).await?,
            None => None,
        };
        let (before, asked) = (self.newest_seen(bucket), self.master.clock().boottime());
        let (newest, query) = (state.is_none(), query.cloned());
        let wanted = match state {
            Some(SnapshotRef::Number(number)) => Some(number),
            _ => None,
        };
        let question =
            message::TreeAt { bucket, snapshot: state, known: known.as_ref().map(|(number, _)| *number), query };
        let told: TreeTold = self.ask(linked, "for a listing", &question).await?;
        self.check_not_behind(linked, told.newest, before).await?;
        let number = told.number;
        if number > told.newest || wanted.is_some_and(|wanted| wanted != number) {
            return Err(self.nonsense(linked, format!("it told of state {number}")).await);
        }
        self.note_seen(bucket, told.newest, newest.then_some(asked));
        if let Some(listing) = told.listing {
            return Ok(Source::Told(listing));
        }
        let root = match (told.root, known) {
            (Some(root), _) => Root::from(root),
            (None, Some((known, root))) if known == number => return Ok(Source::Tree(number, root)),
            (None, _) => return Err(self.nonsense(linked, "it names no root".to_owned()).await),
        };
        self.keep_pages(linked, told.pages, Some((number, root.clone()))).await?;
        Ok(Source::Tree(number, root))
    }

    /// Reads a tree, and asks the home for the pages that are not here.
    async fn with_pages<T: Send + 'static>(
        &self,
        linked: &Linked,
        number: Number,
        read: impl Fn(&KeptPages<'_>) -> Result<T, TreeError> + Clone + Send + 'static,
    ) -> Result<T> {
        let bucket = linked.id;
        let mut repaired = false;
        for _ in 0..ROUNDS_MAX {
            let read = read.clone();
            let outcome = self.master.writer().read(move |view| Ok(read(&KeptPages::new(view, bucket)))).await?;
            let missing = match outcome {
                Ok(found) => return Ok(found),
                Err(TreeError::Need(missing)) => missing,
                Err(TreeError::Storage(error)) => return Err(error),
                // Damaged here: the home has it as it was.
                Err(TreeError::Unlawful { directory, page: Some(page), flaw: Flaw::Hash }) if !repaired => {
                    repaired = true;
                    vec![Missing { page, directory }]
                }
                Err(error) => return Err(self.nonsense(linked, error.to_string()).await),
            };
            self.fetch_pages(linked, number, missing).await?;
        }
        Err(self.nonsense(linked, "its trees have no end".to_owned()).await)
    }

    /// Asks for pages, each with the directory that it is of, and keeps them.
    async fn fetch_pages(&self, linked: &Linked, number: Number, missing: Vec<Missing>) -> Result<()> {
        let mut by_directory: BTreeMap<Vec<u8>, Vec<PageHash>> = BTreeMap::new();
        for Missing { page, directory } in missing {
            by_directory.entry(directory).or_default().push(page);
        }
        let questions: Vec<_> = by_directory
            .iter()
            .flat_map(|(directory, pages)| pages.chunks(PAGES_PER_REQUEST_MAX).map(move |pages| (directory, pages)))
            .collect();
        for some in questions.chunks(QUESTIONS_AT_ONCE) {
            let asked = some.iter().map(|(directory, pages)| async move {
                let hashes = pages.iter().map(|page| BlobHash(page.0)).collect();
                let directory = (*directory).clone();
                let question = message::TreePages { bucket: linked.id, number, directory, pages: hashes };
                let found = self.ask(linked, "for pages", &question).await?;
                if found.iter().map(|page| PageHash::of(&page.0)).ne(pages.iter().copied()) {
                    return Err(self.nonsense(linked, "its pages are not those that were asked for".to_owned()).await);
                }
                Ok(found)
            });
            let found: Vec<Vec<PageBytes>> = try_join_all(asked).await?;
            self.keep_pages(linked, found.into_iter().flatten().collect(), None).await?;
        }
        Ok(())
    }

    /// Keeps pages under the hashes that they have, and a root.
    async fn keep_pages(&self, linked: &Linked, pages: Vec<PageBytes>, root: Option<(Number, Root)>) -> Result<()> {
        if pages.iter().any(|page| page.0.len() > PAGE_BYTES_MAX) {
            return Err(self.nonsense(linked, "one of its pages is too long".to_owned()).await);
        }
        self.master.admit()?;
        let bucket = linked.id;
        self.master
            .writer()
            .transact(move |txn| {
                // Unlinked meanwhile: nothing would ever collect them.
                BucketRow::load(txn, &keys::bucket(bucket))?.ok_or(Error::Conflict)?;
                for PageBytes(bytes) in pages {
                    txn.put_raw(Table::Pages, keys::page(bucket, &PageHash::of(&bytes)), bytes.into());
                }
                if let Some((number, root)) = root {
                    txn.put(keys::root(bucket, number), &RootRow(root));
                }
                Ok(())
            })
            .await
    }

    async fn nonsense(&self, linked: &Linked, why: String) -> Error {
        Error::ClusterFailed { cluster: self.name_of(linked.home).await, doing: "for a listing", why }
    }
}

/// The newest known state that has all that a listing takes: what changed since is all that has to cross.
fn known_for(view: &dyn View, bucket: BucketId, query: &ListQuery) -> Result<Option<(Number, Root)>> {
    let range = KeyRange::prefix(&keys::bucket(bucket)).reversed();
    for row in view.range(Table::Roots, range)?.take(ROOTS_TRIED) {
        let (key, value) = row?;
        let Some(number) = keys::split_root(&key) else { continue };
        let root = RootRow::decode(&value)?.0;
        if snapshot::list(&KeptPages::new(view, bucket), &root, query).is_ok() {
            return Ok(Some((number, root)));
        }
    }
    Ok(None)
}

fn item(listed: Listed) -> ListItem {
    match listed {
        Listed::Prefix(prefix) => ListItem::Prefix(prefix),
        Listed::Object(path, entry) => {
            let Entry { size, etag, modified, null, checksum, .. } = entry;
            // Numbers are not in the pages, so that equal content has equal pages.
            let version = Number::ZERO;
            ListItem::Object(path, Summary { version, ordinal: 0, null, size, modified, etag, checksum })
        }
    }
}
