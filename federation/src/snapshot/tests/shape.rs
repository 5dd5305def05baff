//! Sizes of pages, and how many of them things take.

use std::collections::HashSet;

use super::super::page::{HEADER_BYTES, Node, Place, decode};
use super::*;
use crate::master::ListQuery;
use crate::types::{ChecksumAlgorithm, ChecksumKind};

/// As many paths as asked for, 100 to a directory and 100 directories to a directory.
fn tree_of(objects: u64) -> impl Iterator<Item = (ObjectPath, Entry)> {
    (0..objects).map(|at| {
        let name = format!("set-{:04}/part-{:02}/image-{:02}.jpeg", at / 10_000, at / 100 % 100, at % 100);
        (path(name), entry(at, 0))
    })
}

fn flat(objects: u64) -> impl Iterator<Item = (ObjectPath, Entry)> {
    (0..objects).map(|at| (path(format!("wide/image-{at:07}.jpeg")), entry(at, 0)))
}

/// Ten changes all over, of which one adds, one removes and one adds a directory.
fn ten_changes(
    model: impl Iterator<Item = (ObjectPath, Entry)>,
    objects: usize,
) -> BTreeMap<ObjectPath, Option<Entry>> {
    let paths = model.step_by(objects / 10 + 1).map(|(path, _)| path);
    let mut changes: BTreeMap<_, _> = paths.map(|path| (path, Some(entry(3, 40)))).collect();
    changes.last_entry().expect("ten of them").insert(None);
    changes.pop_first();
    let added = [changes.keys().next().expect("nine of them").as_bytes(), b"-new/below"].concat();
    changes.insert(path(added), Some(entry(5, 0)));
    changes
}

/// Applies ten changes. Returns how many pages that read and wrote, and how many the difference read.
fn touched(make: fn(u64) -> Box<dyn Iterator<Item = (ObjectPath, Entry)>>, objects: u64) -> (usize, usize, usize) {
    let mut pages = Counting::default();
    let before = build_in(&mut pages, make(objects));
    assert_eq!(before.totals.objects, objects);
    let changes = ten_changes(make(objects), objects as usize);
    assert_eq!(changes.len(), 10);
    pages.count();
    let after = apply(&mut pages, &before, changes.clone().into_iter().map(Ok)).expect("changes in order");
    let (read, written) = pages.count();
    let found: Vec<_> = diff(&pages, &before, &after).collect::<Result<_, _>>().expect("lawful");
    let found: BTreeMap<_, _> = found.into_iter().map(|difference| (difference.path, difference.after)).collect();
    assert_eq!(found, changes);
    (read, written, pages.count().0)
}

#[test]
fn ten_changes_of_a_million_objects_touch_few_pages() {
    let small = touched(|objects| Box::new(tree_of(objects)), 10_000);
    let large = touched(|objects| Box::new(tree_of(objects)), 1_000_000);
    let (read, written, compared) = large;
    assert!(read + written < 200, "{large:?}");
    assert!(compared < 200, "{large:?}");
    // A hundred times the objects cost a level or two more.
    assert!(read + written < 4 * (small.0 + small.1), "{small:?} {large:?}");
}

#[test]
fn ten_changes_of_a_wide_directory_touch_few_pages() {
    let (read, written, compared) = touched(|objects| Box::new(flat(objects)), 200_000);
    assert!(read + written < 200, "{read} read, {written} written");
    assert!(compared < 200, "{compared} compared");
}

#[test]
fn a_wide_directory_is_listed_and_searched_with_few_pages() {
    let mut pages = Counting::default();
    let root = build_in(&mut pages, flat(200_000));
    pages.count();
    assert_eq!(lookup(&pages, &root, &path("wide/image-0123456.jpeg")).expect("lawful"), Some(entry(123_456, 0)));
    assert!(pages.count().0 <= 5);
    let query = ListQuery { prefix: b"wide/image-01999".to_vec(), max: 1000, ..ListQuery::default() };
    assert_eq!(list(&pages, &root, &query).expect("lawful").items.len(), 100);
    assert!(pages.count().0 <= 10);
    let query = ListQuery { delimiter: Some(b"/".to_vec()), max: 1000, ..ListQuery::default() };
    assert_eq!(list(&pages, &root, &query).expect("lawful").items, [Listed::Prefix(b"wide/".to_vec())]);
    assert_eq!(pages.count().0, 0);
}

#[test]
fn a_tree_is_written_while_its_entries_come() {
    let mut pages = MemoryPages::default();
    let bytes = Cell::new(0_usize);
    struct Watched<'a>(&'a mut MemoryPages, &'a Cell<usize>);
    impl Pages for Watched<'_> {
        fn get(&self, page: &PageHash) -> Result<Option<Bytes>> {
            self.0.get(page)
        }
    }
    impl PagesMut for Watched<'_> {
        fn put(&mut self, page: PageHash, bytes: Bytes) -> Result<()> {
            self.1.set(self.1.get() + bytes.len());
            self.0.put(page, bytes)
        }
    }
    // A row is longer than this, so what is pending is less than three pages.
    let row = "image-0000000.jpeg".len() + 60;
    let entries = flat(100_000).enumerate().inspect(|(at, _)| assert!(at * row < bytes.get() + 48 * 1024, "{at}"));
    build_in(&mut Watched(&mut pages, &bytes), entries.map(|(_, entry)| entry));
}

#[test]
fn pages_have_four_to_eight_kib_on_average_and_sixteen_at_most() {
    let mut pages = Counting::default();
    build_in(&mut pages, flat(200_000));
    let sizes: Vec<_> = pages.pages.iter().map(|(_, bytes)| bytes.len()).collect();
    let mean = sizes.iter().sum::<usize>() / sizes.len();
    assert!((4096..=8192).contains(&mean), "{mean}");
    assert!(sizes.iter().all(|size| *size <= 16 * 1024));
    // The last page of a level may be small.
    let small = sizes.iter().filter(|size| **size <= INLINE_BYTES_MAX + HEADER_BYTES).count();
    assert!(small <= 4, "{small}");
    let full = sizes.iter().filter(|size| **size >= 15 * 1024).count();
    assert!(full < sizes.len() / 10, "{full} of {}", sizes.len());
    // What was written was written once.
    assert_eq!(sizes.len(), pages.count().1);
}

#[test]
fn a_renamed_directory_shares_its_pages() {
    let tree = |name: &str| {
        let entries = tree_of(20_000).map(|(below, entry)| (path([name.as_bytes(), below.as_bytes()].concat()), entry));
        let mut pages = MemoryPages::default();
        let root = build_in(&mut pages, entries);
        (pages.iter().map(|(page, _)| *page).collect::<HashSet<_>>(), root)
    };
    let ((before, one), (after, other)) = (tree("photos/2025/"), tree("photos/2026/"));
    assert_ne!(one, other);
    assert!(before.len() > 200);
    assert_eq!(after.difference(&before).count(), 0, "what names the directory stands inline");
}

#[test]
fn equal_directories_share_their_pages() {
    let twice = ["a/", "b/"].map(|name| {
        tree_of(10_000).map(move |(below, entry)| (path([name.as_bytes(), below.as_bytes()].concat()), entry))
    });
    let mut pages = MemoryPages::default();
    let root = build_in(&mut pages, twice.into_iter().flatten());
    let mut once = MemoryPages::default();
    build_in(&mut once, tree_of(10_000));
    assert_eq!(root.totals.objects, 20_000);
    assert!(pages.iter().count() <= once.iter().count() + 1);
}

#[test]
fn a_deep_path_takes_a_page_for_many_directories() {
    let deep = |name: &str| path(["directory/".repeat(1000).as_bytes(), name.as_bytes()].concat());
    let mut pages = Counting::default();
    let root = build_in(&mut pages, [(deep("a"), entry(1, 0)), (deep("b"), entry(2, 0))]);
    let (_, written) = pages.count();
    assert!(written < 20, "{written}");
    assert_eq!(lookup(&pages, &root, &deep("b")).expect("lawful"), Some(entry(2, 0)));
    assert_eq!(lookup(&pages, &root, &deep("c")).expect("lawful"), None);
    let query = ListQuery { max: 1, ..ListQuery::default() };
    let listing = list(&pages, &root, &query).expect("lawful");
    assert_eq!(listing.items, [Listed::Object(deep("a"), entry(1, 0))]);
    let changed =
        apply(&mut pages, &root, [Ok((deep("b"), None)), Ok((path("z"), Some(entry(3, 0))))]).expect("in order");
    let found: Vec<_> = diff(&pages, &root, &changed).collect::<Result<_, _>>().expect("lawful");
    assert_eq!(found.iter().map(|found| found.path.clone()).collect::<Vec<_>>(), [deep("b"), path("z")]);
    let emptied = apply(&mut pages, &root, [Ok((deep("a"), None)), Ok((deep("b"), None))]).expect("in order");
    assert_eq!(emptied, Root::empty());
}

#[test]
fn a_small_directory_stands_inline_and_a_larger_one_does_not() {
    let rows = |count: usize| (0..count).map(|at| (path(format!("d/{at:03}")), entry(1, 100))).collect::<Model>();
    let limit = (1..)
        .find(|count| {
            let (pages, _) = built(&rows(*count));
            pages.iter().next().is_some()
        })
        .expect("some count is too many");
    let (pages, root) = built(&rows(limit));
    let below = directory(&pages, &root, b"d/").expect("lawful").expect("it is there");
    let (_, bytes) = pages.iter().next().expect("one page");
    let (level, page) = decode(bytes, Place::Top, below.totals, 2).expect("lawful");
    assert_eq!((level, page.len()), (0, limit));
    assert!(bytes.len() - HEADER_BYTES > INLINE_BYTES_MAX);
    let row = page[0].encode().len();
    assert!(bytes.len() - HEADER_BYTES - row <= INLINE_BYTES_MAX);
    assert!(page.iter().all(|row| matches!(row.node, Node::Object(_))));
}

#[test]
fn the_longest_names_and_entries_have_places() {
    let name = |first: char, bytes: usize| path(format!("{first}{}", "n".repeat(bytes - 1)));
    let mut model = Model::new();
    for first in ('a'..='z').chain('A'..='Z') {
        model.insert(name(first, crate::types::PATH_BYTES_MAX), entry(1, 60_000));
        model.insert(name(first, 20_000), entry(2, 0));
    }
    let (mut pages, root) = built(&model);
    assert!(pages.iter().all(|(_, bytes)| bytes.len() <= PAGE_BYTES_MAX));
    assert_eq!(all(&pages, &root).expect("lawful"), model.clone().into_iter().collect::<Vec<_>>());
    for removed in model.keys().cloned().collect::<Vec<_>>() {
        model.remove(&removed);
        let changed = apply(&mut pages, &root, [Ok((removed.clone(), None))]).expect("in order");
        assert_eq!(changed, built(&model).1);
        model.insert(removed.clone(), lookup(&pages, &root, &removed).expect("lawful").expect("it was there"));
    }
}

#[test]
fn a_root_is_small_and_is_read_back() {
    let (_, root) = built(&flat(1000).collect());
    let bytes = postcard::to_stdvec(&root).expect("plain data");
    assert!(bytes.len() < INLINE_BYTES_MAX + 32);
    assert_eq!(postcard::from_bytes::<Root>(&bytes), Ok(root));
}

/// What trees of format 1 were when it was defined. Other clusters have them: where this fails, a new format is due.
#[test]
fn format_1_is_what_it_was() {
    let full = Entry {
        null: true,
        checksum: Some((ChecksumAlgorithm::Crc32, ChecksumKind::Composite)),
        content: Content::Parts(vec![PartContent { hash: BlobHash([9; 32]), length: 300 }]),
        ..entry(300, 3)
    };
    let (_, root) = built(&Model::from([(path("a/"), entry(0, 0)), (path("b"), full)]));
    let bytes: String =
        postcard::to_stdvec(&root).expect("plain data").iter().map(|byte| format!("{byte:02x}")).collect();
    let (pages, wide) = built(&flat(20_000).collect());
    let below = directory(&pages, &wide, b"wide/").expect("lawful").expect("it is there");
    let page = below.page().expect("it is wide").to_string();
    let expected = "007202612f001d0000000000000000000000000000000000000080c8e2e1c1330000000001000162ac022c2c2c2c2c2c2c2c2c2c2c2c2c\
                    2c2c2c00accae2e1c1330101000102010909090909090909090909090909090909090909090909090909090909090909ac0201057861747472037878\
                    7802ac02";
    assert_eq!(
        (bytes.as_str(), page.as_str()),
        (expected, "1b1e4725e4e69adfc27e1dd41268295b908877c54ba31c68317c318e21da4d84")
    );
}
