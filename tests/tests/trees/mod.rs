//! What snapshot trees cost, in pages; what is kept of them, and what is made of damage.
//!
//! `ELTON_TEST_TREE_KEYS` says how many keys the large bucket has.

use std::collections::BTreeSet;
use std::sync::Arc;

use federation::blobs::{Backend, MemoryBackend};
use federation::blocking::Inline;
use federation::catalog::rows::{Record, RootRow};
use federation::catalog::{Catalog, KeyRange, MemoryCatalog, Table, WriteSet, keys};
use federation::clock::ManualClock;
use federation::ids::SeededIds;
use federation::master::{
    CollectOptions, DeleteRequest, Limits, Master, Precondition, Seams, StagedChange, Tree, TreeWork,
};
use federation::snapshot::{self, PageHash};
use federation::types::{Body, BucketName, ETag, ObjectRecord, Timestamp};

use super::store::{self, actor, content, newest, parameter, path, put};

const TREE_KEYS: u64 = 100_000;
const KEYS_PER_STAGE: u64 = 10_000;
/// Changes whose tree is derived from the one before them.
const CHANGES: u64 = 10;
/// A change reads and writes its page, the one beside it where a boundary moves, and an index page on each of at most
/// four levels.
const PAGES_PER_CHANGE: u64 = 6;

struct World {
    catalog: Arc<MemoryCatalog>,
    master: Master,
    bucket: BucketName,
}

impl World {
    async fn new() -> World {
        let catalog = Arc::new(MemoryCatalog::new());
        let seams = Seams {
            catalog: Arc::clone(&catalog) as Arc<dyn Catalog>,
            backend: Arc::new(MemoryBackend::default()) as Arc<dyn Backend>,
            blocking: Arc::new(Inline),
            clock: Arc::new(ManualClock::new(Timestamp(1_700_000_000_000))),
            ids: Arc::new(SeededIds::new(3)),
        };
        let limits = Limits { disk_reserve: 0, ..Limits::default() };
        let master = Master::simulated(seams, limits).await.expect("memory opens");
        let bucket: BucketName = "large".parse().expect("a lawful name");
        master.create_bucket(&actor(), &bucket, "").await.expect("there is none");
        World { catalog, master, bucket }
    }

    /// Puts so many empty objects as one change.
    async fn fill(&self, count: u64) {
        let mut commit = self.master.begin_commit(&self.bucket).await.expect("begins");
        for first in (0..count).step_by(KEYS_PER_STAGE as usize) {
            let keys = first..count.min(first + KEYS_PER_STAGE);
            let changes = keys.map(|index| StagedChange { path: path(&key(index)), content: Some((empty(), None)) });
            commit.stage(changes.collect()).await.expect("stages");
        }
        commit.publish(&actor(), "").await.expect("publishes");
    }

    async fn tree(&self) -> Tree {
        self.master.tree(&newest(&self.bucket)).await.expect("a tree")
    }

    async fn change(&self, index: u64) {
        put(&self.master, &self.bucket, &path(&key(index)), content(3)).await.expect("puts");
    }

    async fn delete(&self, index: u64) {
        let precondition = Precondition::default();
        let delete = DeleteRequest { path: path(&key(index)), version: None, precondition };
        self.master.delete(&actor(), &self.bucket, vec![delete]).await.expect("deletes");
    }

    /// The pages that there are.
    fn pages(&self) -> BTreeSet<PageHash> {
        let view = self.catalog.view().expect("memory");
        let rows = view.range(Table::Pages, KeyRange::prefix(&[])).expect("memory");
        rows.map(|row| keys::split_page(&row.expect("memory").0).expect("a page's key")).collect()
    }

    /// The pages that the kept roots have.
    fn pages_of_roots(&self, tree: &Tree) -> BTreeSet<PageHash> {
        let view = self.catalog.view().expect("memory");
        let rows = view.range(Table::Roots, KeyRange::prefix(&[])).expect("memory");
        let mut next: Vec<PageHash> = Vec::new();
        for row in rows {
            let RootRow(root) = RootRow::decode(&row.expect("memory").1).expect("a root");
            next.extend(root.pages().expect("lawful"));
        }
        let mut found = BTreeSet::new();
        while let Some(page) = next.pop() {
            if found.insert(page) {
                let bytes = view.get(Table::Pages, &keys::page(tree.bucket, &page)).expect("memory").expect("kept");
                next.extend(snapshot::below(&bytes).expect("lawful"));
            }
        }
        found
    }
}

fn key(index: u64) -> Vec<u8> {
    format!("k{index:08}").into_bytes()
}

fn empty() -> ObjectRecord {
    ObjectRecord {
        body: Body::Empty,
        size: 0,
        etag: ETag { md5: [7; 16], parts: None },
        modified: Timestamp(0),
        checksum: None,
        headers: Vec::new(),
        metadata: Vec::new(),
        tags: Vec::new(),
    }
}

fn since(before: TreeWork, after: TreeWork) -> (u64, u64) {
    (after.pages_read - before.pages_read, after.pages_written - before.pages_written)
}

#[tokio::test]
async fn a_tree_near_one_that_is_kept_costs_pages_in_proportion_to_the_changes() {
    let (world, count) = (World::new().await, parameter("ELTON_TEST_TREE_KEYS", TREE_KEYS));
    world.fill(count).await;
    let first = world.tree().await;
    let whole = world.master.tree_work();
    assert_eq!(first.root.totals.objects, count);
    assert!(whole.pages_written > count / 200, "the first tree takes {whole:?}");
    for change in 0..CHANGES {
        world.change(change * (count / CHANGES)).await;
    }
    let next = world.tree().await;
    let (read, written) = since(whole, world.master.tree_work());
    println!("{count} keys: {whole:?}, then {read} pages read and {written} written for {CHANGES} changes");
    assert_eq!(next.root.totals.bytes, CHANGES * content(3).bytes.len() as u64);
    for pages in [read, written] {
        assert!(pages <= CHANGES * PAGES_PER_CHANGE, "{read} pages read, {written} written");
    }
    // Back the other way: a state between two that are kept.
    let before = world.master.tree_work();
    let between = store::at(&world.bucket, next.number.0 - 1);
    let tree = world.master.tree(&between).await.expect("a tree");
    assert_eq!(tree.root.totals.bytes, (CHANGES - 1) * content(3).bytes.len() as u64);
    let (read, written) = since(before, world.master.tree_work());
    assert!(read <= PAGES_PER_CHANGE && written <= PAGES_PER_CHANGE, "{read} pages read, {written} written");
}

#[tokio::test]
async fn the_collector_leaves_the_pages_of_the_roots_that_are_kept() {
    let world = World::new().await;
    world.fill(3000).await;
    let tagged = world.tree().await;
    let tag = "kept".parse().expect("a lawful tag");
    world.master.tag_snapshot(&actor(), &newest(&world.bucket), Some(tag), "").await.expect("tags");
    for round in 0..20 {
        world.change(round * 140).await;
        world.delete(round * 140 + 70).await;
        world.tree().await;
    }
    let all = world.pages();
    let now = CollectOptions { now: true, bucket: None, dry: false };
    world.master.collect(now.clone()).await.expect("collects");
    let left = world.pages();
    assert!(left.len() < all.len(), "{} pages of {} are left", left.len(), all.len());
    let last = world.tree().await;
    assert_eq!(left, world.pages_of_roots(&last), "all pages of kept roots are there, and no others");
    let again = world.master.tree_work();
    let at = store::at(&world.bucket, tagged.number.0);
    assert_eq!(world.master.tree(&at).await.expect("a tag's tree"), tagged);
    assert_eq!(world.master.tree_work(), again, "the root of a tag is kept");
    world.master.remove_tag(&world.bucket, &"kept".parse().expect("a lawful tag")).await.expect("untags");
    world.master.collect(now).await.expect("collects");
    assert_eq!(world.pages(), world.pages_of_roots(&last));
    assert!(world.pages().len() < left.len());
}

#[tokio::test]
async fn damaged_pages_are_derived_anew() {
    let world = World::new().await;
    world.fill(3000).await;
    let tree = world.tree().await;
    let mut writes = WriteSet::default();
    for page in world.pages() {
        writes.set(Table::Pages, keys::page(tree.bucket, &page), Some(b"not what it was".to_vec()));
    }
    world.catalog.apply(&writes, Default::default()).expect("memory");
    let top = tree.root.page().expect("3,000 keys take pages");
    let pages = world.master.tree_pages(&world.bucket, tree.number, b"", vec![top]).await.expect("derived anew");
    assert_eq!(PageHash::of(&pages[0]), top);
    world.change(5).await;
    let next = world.tree().await;
    assert_eq!(next.root.totals.objects, 3000);
    assert_eq!(world.pages_of_roots(&next).len(), world.pages().len());
}

#[tokio::test]
async fn a_page_is_given_only_as_one_of_its_directory_in_its_state() {
    let world = World::new().await;
    world.fill(3000).await;
    let before = world.tree().await;
    world.change(1).await;
    let after = world.tree().await;
    let top = after.root.page().expect("3,000 keys take pages");
    let ask = |number, directory: &'static [u8]| {
        let (master, bucket) = (world.master.clone(), world.bucket.clone());
        async move { master.tree_pages(&bucket, number, directory, vec![top]).await.is_ok() }
    };
    assert!(ask(after.number, b"").await);
    assert!(!ask(before.number, b"").await, "it is of another state");
    assert!(!ask(after.number, b"d/").await, "it is of another directory");
}
