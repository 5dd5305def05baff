//! Pages that lie: what is read is lawful, or it is an error that says what is wrong. Never a panic.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::key::Key;
use super::super::page::{Node, Pointer, Row};
use super::super::write::Writer;
use super::*;
use crate::master::ListQuery;

/// How many objects are read of a hostile tree: it may claim more than one would ever read.
const READ_MAX: usize = 2000;

fn key(bytes: &[u8]) -> Key {
    Key::parse(bytes).expect("a lawful key")
}

fn object(name: &[u8], weight: usize) -> Row {
    Row { key: key(name), node: Node::Object(entry(1, weight)) }
}

fn encode(rows: &[Row]) -> Vec<u8> {
    rows.iter().flat_map(Row::encode).collect()
}

fn page(level: u8, rows: &[Row]) -> Vec<u8> {
    [&[1, level], encode(rows).as_slice()].concat()
}

fn totals(rows: &[Row]) -> Totals {
    let sum = |of: fn(Totals) -> u64| rows.iter().fold(0_u64, |sum, row| sum.wrapping_add(of(row.totals())));
    Totals { objects: sum(|totals| totals.objects), bytes: sum(|totals| totals.bytes) }
}

fn keep(pages: &mut MemoryPages, bytes: Vec<u8>) -> PageHash {
    let page = PageHash::of(&bytes);
    pages.put(page, bytes.into()).expect("memory");
    page
}

fn top(pages: &mut MemoryPages, bytes: Vec<u8>, totals: Totals) -> Root {
    Root { stand: Stand::Page(keep(pages, bytes)), totals }
}

fn flaw<T: std::fmt::Debug>(result: Result<T, TreeError>) -> Option<Flaw> {
    match result {
        Err(TreeError::Unlawful { flaw, .. }) => Some(flaw),
        Ok(_) => None,
        Err(error) => panic!("{error}"),
    }
}

/// What is wrong with a tree of one page.
fn flaw_of(bytes: Vec<u8>, totals: Totals) -> Option<Flaw> {
    let mut pages = MemoryPages::default();
    let root = top(&mut pages, bytes, totals);
    flaw(all(&pages, &root))
}

fn flaw_inline(bytes: Vec<u8>, totals: Totals) -> Option<Flaw> {
    flaw(all(&MemoryPages::default(), &Root { stand: Stand::Inline(bytes), totals }))
}

/// What is wrong with an index over pages of these rows.
fn flaw_below(children: &[(&[u8], Vec<Row>)]) -> Option<Flaw> {
    let mut pages = MemoryPages::default();
    let rows: Vec<Row> = children
        .iter()
        .map(|(last, rows)| {
            let pointer = Pointer { page: keep(&mut pages, page(0, rows)), totals: totals(rows) };
            Row { key: key(last), node: Node::Page(pointer) }
        })
        .collect();
    let root = top(&mut pages, page(1, &rows), totals(&rows));
    flaw(all(&pages, &root))
}

/// Does everything that can be done with a tree, and checks what it finds.
fn exercise(pages: &MemoryPages, root: &Root) {
    let mut met: Vec<(ObjectPath, Entry)> = Vec::new();
    let mut whole = true;
    for found in diff(pages, &Root::empty(), root).take(READ_MAX) {
        let Ok(found) = found else {
            whole = false;
            break;
        };
        let entry = found.after.expect("the first tree is empty");
        assert!(met.last().is_none_or(|(last, _)| *last < found.path), "{met:?} {}", found.path);
        met.push((found.path, entry));
    }
    if whole && met.len() < READ_MAX {
        assert_eq!(met.len() as u64, root.totals.objects);
        assert_eq!(met.iter().map(|(_, entry)| entry.size).sum::<u64>(), root.totals.bytes);
    }
    for delimiter in [None, Some(b"/".to_vec())] {
        let query = ListQuery { delimiter, max: 50, ..ListQuery::default() };
        if let Ok(listing) = list(pages, root, &query) {
            assert!(listing.items.len() <= 50);
        }
    }
    for (path, entry) in met.iter().take(20) {
        // Below a page that is damaged behind the entry it may not be found, but it is nothing else.
        assert!(lookup(pages, root, path).is_ok_and(|found| found.as_ref() == Some(entry)), "{path}");
    }
    browse(pages, root);
    let changes = [("a", None), ("a/b", Some(entry(1, 0))), ("zz/z", Some(entry(2, 0)))];
    let changes = || changes.clone().map(|(name, entry)| Ok((path(name), entry)));
    if let Ok(changed) = apply(&mut pages.clone(), root, changes()) {
        assert!(changed.totals.objects >= 2);
    }
}

/// Goes through the top directory as mounts do, and asks which pages there are as those do who keep them.
fn browse(pages: &MemoryPages, root: &Root) {
    let (mut count, mut after) = (0, None);
    while let Ok(children) = children(pages, root, b"", after.as_deref(), 7) {
        let Some(last) = children.last().map(Child::key).filter(|_| count < READ_MAX) else { break };
        assert!(children.len() <= 7 && after.is_none_or(|after| after < last));
        for child in &children {
            assert!(!child.name.contains(&b'/'));
            // What a directory has does not depend on which way it is reached. An object's directory, which is looked
            // for as well, may be behind a page that is damaged.
            let Ok(found) = named(pages, root, b"", &child.name) else { continue };
            match &child.node {
                ChildNode::Object(entry) => assert_eq!(found.object.as_ref(), Some(entry)),
                ChildNode::Directory(root) => assert_eq!(found.directory.as_ref(), Some(root)),
            }
        }
        count += children.len();
        after = Some(last);
    }
    let reach = pages.iter().filter_map(|(_, bytes)| below(bytes).ok()).chain(root.pages().ok());
    // A pointer has at least its hash.
    let most = pages.iter().map(|(_, bytes)| bytes.len() / 32).sum::<usize>() + INLINE_BYTES_MAX + 1;
    assert!(reach.map(|pages| pages.len()).sum::<usize>() <= most);
    if let Ok(own) = own_pages(pages, root, b"") {
        assert!(own.len() <= most);
    }
}

/// Puts a page in another one's place, in every page that names it, up to the root.
fn relink(pages: &mut MemoryPages, root: &mut Root, old: PageHash, bytes: Vec<u8>) {
    let mut replaced = vec![(old, bytes)];
    while let Some((old, bytes)) = replaced.pop() {
        let new = keep(pages, bytes);
        if root.stand == Stand::Page(old) {
            root.stand = Stand::Page(new);
        }
        if let Stand::Inline(rows) = &mut root.stand {
            *rows = replace(rows, old, new).unwrap_or_else(|| rows.clone());
        }
        let above = pages.iter().filter_map(|(page, bytes)| Some((*page, replace(bytes, old, new)?)));
        replaced.extend(above.collect::<Vec<_>>());
    }
}

fn replace(bytes: &[u8], old: PageHash, new: PageHash) -> Option<Vec<u8>> {
    let at = bytes.windows(32).position(|window| window == old.0)?;
    Some([&bytes[..at], new.0.as_slice(), &bytes[at + 32..]].concat())
}

fn models() -> impl Strategy<Value = Model> {
    let entries = (0..4_u64, prop::sample::select(vec![0, 30, 700])).prop_map(|(seed, weight)| entry(seed, weight));
    proptest::collection::btree_map("[a/!-]{1,5}".prop_map(path), entries, 1..120)
}

/// Rows that are lawful by themselves, or nearly.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let leaf = ("[a/!-]{0,3}", 0..4_u64, 0..2_usize).prop_map(|(name, seed, heavy)| {
        let key = Key::first_of(name.as_bytes());
        let node = if key.is_directory() {
            Node::Directory(Root { stand: Stand::Inline(Vec::new()), totals: Totals { objects: 1, bytes: seed } })
        } else {
            Node::Object(entry(seed, heavy * 900))
        };
        vec![Row { key, node }]
    });
    leaf.prop_recursive(4, 64, 8, |inner| {
        (vec(inner, 1..8), "[a!-]{0,2}", any::<bool>()).prop_map(|(rows, name, sorted)| {
            let mut rows: Vec<Row> = rows.concat();
            if sorted {
                rows.sort_by(|one, next| one.key.cmp(&next.key));
                rows.dedup_by(|one, next| one.key == next.key);
            }
            let root = Root { totals: totals(&rows), stand: Stand::Inline(encode(&rows)) };
            let directory = Row { key: Key::first_of(format!("{name}/").as_bytes()), node: Node::Directory(root) };
            [rows, vec![directory]].concat()
        })
    })
}

proptest! {
    // `PROPTEST_CASES` says how many.
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn a_page_with_other_bytes_than_its_name_says_is_found(model in models(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let (mut pages, root) = built(&model);
        let mut names: Vec<_> = pages.iter().map(|(page, _)| *page).collect();
        names.sort();
        prop_assume!(!names.is_empty());
        let name = names[at.index(names.len())];
        let mut bytes = pages.remove(&name).expect("it is there").to_vec();
        let place = at.index(bytes.len());
        bytes[place] ^= 1_u8 << bit;
        pages.put(name, bytes.into()).expect("memory");
        let error = all(&pages, &root).expect_err("damaged");
        let found = matches!(error, TreeError::Unlawful { page: Some(page), flaw: Flaw::Hash, .. } if page == name);
        prop_assert!(found, "{}", error);
    }

    #[test]
    fn mutated_pages_are_refused_or_lawful(
        model in models(),
        page in any::<prop::sample::Index>(),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        let (mut pages, mut root) = built(&model);
        let mut names: Vec<_> = pages.iter().map(|(page, _)| *page).collect();
        names.sort();
        let mutate = |bytes: &mut Vec<u8>| {
            for (at, value, how) in &mutations {
                let at = at.index(bytes.len().max(1));
                match how {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at.min(bytes.len()), *value),
                    _ => if let Some(byte) = bytes.get_mut(at) { *byte = *value },
                }
            }
        };
        if names.is_empty() {
            let Stand::Inline(rows) = &mut root.stand else { unreachable!("there are no pages") };
            mutate(rows);
        } else {
            let name = names[page.index(names.len())];
            let mut bytes = pages.remove(&name).expect("it is there").to_vec();
            mutate(&mut bytes);
            relink(&mut pages, &mut root, name, bytes);
        }
        exercise(&pages, &root);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_lawful(bytes in vec(any::<u8>(), 0..3000), level in 0..3_u8, objects in 0..4_u64) {
        let totals = Totals { objects, bytes: objects };
        exercise(&MemoryPages::default(), &Root { stand: Stand::Inline(bytes.clone()), totals });
        let mut pages = MemoryPages::default();
        let root = top(&mut pages, [&[1, level], bytes.as_slice()].concat(), totals);
        exercise(&pages, &root);
    }

    #[test]
    fn arbitrary_rows_are_refused_or_lawful(rows in rows(), off in 0..20_u64) {
        let mut totals = totals(&rows);
        totals.objects += u64::from(off == 0);
        exercise(&MemoryPages::default(), &Root { stand: Stand::Inline(encode(&rows)), totals });
        let mut pages = MemoryPages::default();
        let root = top(&mut pages, page(0, &rows), totals);
        exercise(&pages, &root);
    }
}

#[test]
fn every_flaw_is_named() {
    let heavy = |names: &[&[u8]]| names.iter().map(|name| object(name, 900)).collect::<Vec<_>>();
    let rows = heavy(&[b"a", b"b", b"c"]);
    let sum = totals(&rows);
    assert_eq!(flaw_of(page(0, &rows), sum), None);
    assert_eq!(flaw_of(vec![0; PAGE_BYTES_MAX + 1], sum), Some(Flaw::Size));
    assert_eq!(flaw_of(vec![2, 0, 0], sum), Some(Flaw::Format(2)));
    assert_eq!(flaw_of(vec![1], sum), Some(Flaw::Encoding));
    assert_eq!(flaw_of(vec![1, 200], sum), Some(Flaw::Level));
    assert_eq!(flaw_of([page(0, &rows), vec![3]].concat(), sum), Some(Flaw::Encoding));
    assert_eq!(flaw_of(page(0, &heavy(&[b"a", b"c", b"b"])), sum), Some(Flaw::Order));
    assert_eq!(flaw_of(page(0, &heavy(&[b"a", b"b", b"b"])), sum), Some(Flaw::Order));
    assert_eq!(flaw_of(page(0, &rows), Totals { objects: 2, ..sum }), Some(Flaw::Totals));
    assert_eq!(flaw_of(page(0, &rows), Totals { bytes: 2, ..sum }), Some(Flaw::Totals));
    let named = |name: &[u8]| [&[1, 0, name.len() as u8], name].concat();
    assert_eq!(flaw_of(named(b"a/b"), sum), Some(Flaw::Name));
    let nameless = [object(b"", 900), object(b"b", 900), object(b"c", 900)];
    assert_eq!(flaw_of(page(0, &nameless), sum), Some(Flaw::Name), "a path is not empty");
    let contradicts = Row { key: key(b"a"), node: Node::Object(Entry { size: 2, ..entry(0, 0) }) };
    assert_eq!(flaw_inline(contradicts.encode(), contradicts.totals()), Some(Flaw::Content));
}

#[test]
fn pages_are_as_full_as_their_place_asks() {
    let few = [object(b"a", 0), object(b"b", 0)];
    assert_eq!(flaw_inline(encode(&few), totals(&few)), None);
    assert_eq!(flaw_of(page(0, &few), totals(&few)), Some(Flaw::Shape), "it stands inline");
    let many: Vec<_> = (0..9).map(|at| object(&[b'a' + at], 900)).collect();
    assert_eq!(flaw_inline(encode(&many), totals(&many)), Some(Flaw::Shape));
    let overfull: Vec<_> = (0..40).map(|at| object(&[b'0' + at], 900)).collect();
    assert_eq!(flaw_of(page(0, &overfull), totals(&overfull)), Some(Flaw::Shape));
    let (one, two) = (many[..4].to_vec(), many[4..].to_vec());
    assert_eq!(flaw_below(&[(b"d", one.clone()), (b"i", two.clone())]), None);
    assert_eq!(flaw_below(&[(b"d", one.clone())]), Some(Flaw::Shape), "an index of one page");
    assert_eq!(flaw_below(&[(b"a", many[..1].to_vec()), (b"i", two.clone())]), Some(Flaw::Shape));
    assert_eq!(flaw_below(&[(b"d", one.clone()), (b"e", two[..1].to_vec())]), None, "the last may be small");
    assert_eq!(flaw_below(&[(b"e", one.clone()), (b"i", two.clone())]), Some(Flaw::Order), "another last key");
    assert_eq!(flaw_below(&[(b"d", one), (b"i", many.clone())]), Some(Flaw::Order), "pages that overlap");
}

#[test]
fn an_index_points_one_level_down_so_that_it_ends() {
    let mut pages = MemoryPages::default();
    let leaves: Vec<_> = (0..9).map(|at| object(&[b'a' + at], 900)).collect();
    let pointer = |page, rows: &[Row]| Node::Page(Pointer { page, totals: totals(rows) });
    let below = [keep(&mut pages, page(0, &leaves[..4])), keep(&mut pages, page(0, &leaves[4..]))];
    let rows = [
        Row { key: key(b"d"), node: pointer(below[0], &leaves[..4]) },
        Row { key: key(b"i"), node: pointer(below[1], &leaves[4..]) },
    ];
    let root = top(&mut pages, page(2, &rows), totals(&rows));
    assert_eq!(flaw(all(&pages, &root)), Some(Flaw::Level));
}

#[test]
fn claims_that_exceed_64_bits_are_refused() {
    let claim = |name: &[u8], bytes| {
        let root = Root { stand: Stand::Inline(Vec::new()), totals: Totals { objects: 1, bytes } };
        Row { key: key(name), node: Node::Directory(root) }
    };
    let rows = [claim(b"a/", u64::MAX), claim(b"b/", 2)];
    assert_eq!(flaw_inline(encode(&rows), Totals { objects: 2, bytes: 1 }), Some(Flaw::Totals));
    let empty = Row { key: key(b"a/"), node: Node::Directory(Root::empty()) };
    assert_eq!(flaw_inline(empty.encode(), Totals::default()), Some(Flaw::Totals), "nothing empty is pointed to");
    let alone = [claim(b"a/", 3)];
    assert_eq!(flaw_inline(encode(&alone), totals(&alone)), Some(Flaw::Totals), "there is nothing in it");
    let root = Root {
        stand: Stand::Inline(encode(&[claim(b"a/", u64::MAX)])),
        totals: Totals { objects: 1, bytes: u64::MAX },
    };
    let error = apply(&mut MemoryPages::default(), &root, [Ok((path("b"), Some(entry(7, 0))))]).expect_err("the sum");
    assert!(matches!(error, TreeError::Unwritable { flaw: Flaw::Totals, .. }), "{error}");
}

#[test]
fn a_directory_is_not_left_by_its_names() {
    let long = "n".repeat(crate::types::PATH_BYTES_MAX - 1);
    let below = [object(b"a", 0)];
    let root = Root { stand: Stand::Inline(encode(&below)), totals: totals(&below) };
    let rows = [Row { key: key(format!("{long}/").as_bytes()), node: Node::Directory(root) }];
    assert_eq!(flaw_of(page(0, &rows), totals(&rows)), Some(Flaw::Name));
}

/// Pages are kept as they came, and whoever collects them asks what is below before anybody has read them.
#[test]
fn directories_within_directories_of_one_page_end() {
    let (leaf, claim) = (object(b"a", 0).encode(), Totals { objects: 1, bytes: 1 });
    // Written from the inside out: encoding each with all that is in it would take minutes.
    let (mut before, mut length) = (Vec::new(), leaf.len());
    let after = postcard::to_allocvec(&claim).expect("plain data");
    while length < PAGE_BYTES_MAX - 64 {
        let claimed = postcard::to_allocvec(&(b"/".as_slice(), 0_u8, length as u64)).expect("plain data");
        length += claimed.len() + after.len();
        before.push(claimed);
    }
    let depth = before.len();
    before.reverse();
    let rows = [before.concat(), leaf, after.repeat(depth)].concat();
    assert!(rows.len() == length && depth > DEPTH_MAX);
    let deep = [&[1, 0], rows.as_slice()].concat();
    assert_eq!(below(&deep), Err(Flaw::Shape));
    let root = Root { totals: claim, stand: Stand::Inline(rows) };
    assert_eq!(root.pages(), Err(Flaw::Shape));
    exercise(&MemoryPages::default(), &root);
    let mut pages = MemoryPages::default();
    let root = top(&mut pages, deep, claim);
    exercise(&pages, &root);
}

#[test]
fn what_lies_too_deep_is_refused_by_all_that_walk() {
    let mut pages = MemoryPages::default();
    let leaf = [object(b"a", 0)];
    let mut root = Root { stand: Stand::Inline(encode(&leaf)), totals: totals(&leaf) };
    for _ in 0..=DEPTH_MAX {
        let mut directory = Writer::default();
        assert!(directory.push(&mut pages, 0, Row { key: key(b"d/"), node: Node::Directory(root) }).is_ok());
        root = directory.finish(&mut pages).ok().flatten().expect("it has a row");
    }
    let too_deep = |error: TreeError| matches!(error, TreeError::TooDeep { .. });
    assert!(too_deep(all(&pages, &root).expect_err("too deep")));
    assert!(too_deep(list(&pages, &root, &ListQuery { max: 1, ..ListQuery::default() }).expect_err("too deep")));
    let deep = |directories: usize| path(["d/".repeat(directories).as_bytes(), b"a"].concat());
    let put = |directories: usize| [Ok((deep(directories), entry(1, 0)))];
    assert!(too_deep(build(&mut pages, put(DEPTH_MAX + 1)).expect_err("too deep")));
    let root = build(&mut pages, put(DEPTH_MAX)).expect("as deep as allowed");
    assert_eq!(all(&pages, &root).expect("lawful"), [(deep(DEPTH_MAX), entry(1, 0))]);
    assert_eq!(list(&pages, &root, &ListQuery { max: 1, ..ListQuery::default() }).expect("lawful").items.len(), 1);
}
