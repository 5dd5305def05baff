//! Generated trees and histories against the map.

use std::collections::BTreeSet;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::master::{After, ListQuery, common_prefix};

/// Few names, so that objects and directories of the same name, empty names and both sides of `/` meet.
fn paths() -> impl Strategy<Value = ObjectPath> {
    "[a/!-]{1,5}".prop_map(path)
}

/// Small entries and ones of which a few fill a page.
fn entries() -> impl Strategy<Value = Entry> {
    (0..4_u64, prop::sample::select(vec![0, 0, 30, 400, 1500, 6000])).prop_map(|(seed, weight)| entry(seed, weight))
}

fn models() -> impl Strategy<Value = Model> {
    btree_map(paths(), entries(), 0..90)
}

type Batch = BTreeMap<ObjectPath, Option<Entry>>;

fn batches() -> impl Strategy<Value = Batch> {
    btree_map(paths(), prop::option::weighted(0.6, entries()), 0..40)
}

fn change(model: &mut Model, batch: &Batch) {
    for (path, entry) in batch {
        match entry {
            Some(entry) => model.insert(path.clone(), entry.clone()),
            None => model.remove(path),
        };
    }
}

/// The listing by its definition.
fn expected(model: &Model, query: &ListQuery) -> Listing {
    let mut items: Vec<Listed> = Vec::new();
    for (path, entry) in model {
        let bytes = path.as_bytes();
        let passed = match &query.after {
            None => false,
            Some(After::Key(key)) => bytes <= key.as_slice(),
            Some(After::Prefix(prefix)) => bytes < prefix.as_slice() || bytes.starts_with(prefix),
        };
        if passed || !bytes.starts_with(&query.prefix) {
            continue;
        }
        let item = match common_prefix(bytes, &query.prefix, query.delimiter.as_deref()) {
            Some(common) => Listed::Prefix(common.to_vec()),
            None => Listed::Object(path.clone(), entry.clone()),
        };
        if items.last() != Some(&item) {
            items.push(item);
        }
    }
    let more = items.len() > query.max && query.max > 0;
    items.truncate(query.max);
    let next = items.last().filter(|_| more).map(|item| match item {
        Listed::Object(path, _) => After::Key(path.as_bytes().to_vec()),
        Listed::Prefix(prefix) => After::Prefix(prefix.clone()),
    });
    Listing { items, next }
}

fn queries() -> impl Strategy<Value = ListQuery> {
    let delimiters =
        prop::sample::select(vec![None, Some("/"), Some("/"), Some("a"), Some("-"), Some("/a"), Some("!/"), Some("")]);
    let after = prop_oneof![
        3 => Just(None),
        1 => "[a/!-]{0,4}".prop_map(|key| Some(After::Key(key.into()))),
        1 => "[a/!-]{1,4}".prop_map(|prefix| Some(After::Prefix(prefix.into()))),
    ];
    ("[a/!-]{0,3}", delimiters, after, 0..9_usize).prop_map(|(prefix, delimiter, after, max)| ListQuery {
        prefix: prefix.into(),
        delimiter: delimiter.map(|delimiter| delimiter.as_bytes().to_vec()),
        after,
        max,
    })
}

/// Repeats a call that needs pages until it needs none, and fetches exactly those that it names.
fn with_fetching<T>(
    from: &MemoryPages,
    mut call: impl FnMut(&MemoryPages) -> Result<T, TreeError>,
) -> Result<(T, MemoryPages), TestCaseError> {
    let mut here = MemoryPages::default();
    loop {
        let missing = match call(&here) {
            Ok(answer) => return Ok((answer, here)),
            Err(TreeError::Need(missing)) => missing,
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        prop_assert!(!missing.is_empty());
        for Missing { page, directory } in missing {
            prop_assert!(here.get(&page).expect("memory").is_none(), "{} is here", page);
            prop_assert!(directory.is_empty() || directory.ends_with(b"/"));
            let bytes = from.get(&page).expect("memory").expect("a page of the tree");
            here.put(page, bytes).expect("memory");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_history_of_a_content_makes_its_one_tree(history in vec(batches(), 1..6)) {
        let (mut pages, mut root, mut model) = (MemoryPages::default(), Root::empty(), Model::new());
        for batch in &history {
            root = apply(&mut pages, &root, batch.clone().into_iter().map(Ok)).expect("changes in order");
            change(&mut model, batch);
            let (fresh, expected) = built(&model);
            prop_assert_eq!(&root, &expected);
            for (page, bytes) in fresh.iter() {
                let kept = pages.get(page).expect("memory");
                prop_assert_eq!(kept.as_ref(), Some(bytes));
            }
        }
    }

    #[test]
    fn a_walk_meets_what_is_there_in_the_order_of_bytes(model in models()) {
        let (pages, root) = built(&model);
        let totals = Totals { objects: model.len() as u64, bytes: model.values().map(|entry| entry.size).sum() };
        prop_assert_eq!(root.totals, totals);
        prop_assert_eq!(all(&pages, &root).expect("lawful"), model.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn lookups_find_what_is_there_and_nothing_else(model in models(), others in vec(paths(), 20)) {
        let (pages, root) = built(&model);
        for path in model.keys().chain(&others) {
            let found = lookup(&pages, &root, path).expect("lawful");
            prop_assert_eq!(found.as_ref(), model.get(path));
        }
    }

    #[test]
    fn a_directory_is_the_tree_of_what_is_in_it(model in models(), prefix in "([a!-]{0,2}/){1,2}") {
        let (pages, root) = built(&model);
        let below = model.iter().filter_map(|(path, entry)| {
            let rest = path.as_bytes().strip_prefix(prefix.as_bytes())?;
            Some((rest.to_vec(), entry.clone()))
        });
        let below: BTreeMap<_, _> = below.collect();
        let there = directory(&pages, &root, prefix.as_bytes()).expect("lawful");
        // The object with the empty name has a place in a directory only, so that it is not in the other tree.
        if !below.contains_key(&Vec::new()) {
            let (_, expected) = built(&below.into_iter().map(|(rest, entry)| (path(rest), entry)).collect());
            prop_assert_eq!(there, Some(expected).filter(|root| !root.is_empty()));
        }
    }

    #[test]
    fn listings_are_those_of_the_map(model in models(), queries in vec(queries(), 12)) {
        let (pages, root) = built(&model);
        for query in queries {
            prop_assert_eq!(list(&pages, &root, &query).expect("lawful"), expected(&model, &query), "{:?}", query);
        }
    }

    #[test]
    fn a_chain_of_listings_meets_every_item_once(model in models(), query in queries()) {
        let (pages, root) = built(&model);
        let mut query = ListQuery { max: query.max.max(1), ..query };
        let whole = expected(&model, &ListQuery { max: usize::MAX, ..query.clone() });
        let mut items = Vec::new();
        loop {
            let page = list(&pages, &root, &query).expect("lawful");
            items.extend(page.items);
            let Some(next) = page.next else { break };
            query.after = Some(next);
        }
        prop_assert_eq!(items, whole.items);
    }

    #[test]
    fn differences_are_those_of_the_maps(one in models(), batch in batches()) {
        let mut other = one.clone();
        change(&mut other, &batch);
        let (mut pages, before) = built(&one);
        let after = build_in(&mut pages, other.clone());
        let paths: BTreeSet<_> = one.keys().chain(other.keys()).collect();
        let expected: Vec<_> = paths
            .into_iter()
            .filter(|path| one.get(path) != other.get(path))
            .map(|path| Difference { path: path.clone(), before: one.get(path).cloned(), after: other.get(path).cloned() })
            .collect();
        let found: Vec<_> = diff(&pages, &before, &after).collect::<Result<_, _>>().expect("lawful");
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn what_is_missing_is_named_until_nothing_is(one in models(), batch in batches(), queries in vec(queries(), 4)) {
        let mut other = one.clone();
        change(&mut other, &batch);
        let (mut all_pages, before) = built(&one);
        let after = build_in(&mut all_pages, other.clone());
        for query in queries {
            let (listing, _) = with_fetching(&all_pages, |here| list(here, &after, &query))?;
            prop_assert_eq!(listing, expected(&other, &query));
        }
        for path in other.keys().take(5) {
            let (found, here) = with_fetching(&all_pages, |here| lookup(here, &after, path))?;
            prop_assert_eq!(found.as_ref(), other.get(path));
            let recording = Recording::new(&here);
            lookup(&recording, &after, path).expect("all that it needs is here");
            prop_assert_eq!(recording.into_read().len(), here.iter().count());
        }
        let differences = |here: &MemoryPages| diff(here, &before, &after).collect::<Result<Vec<_>, _>>();
        let (found, _) = with_fetching(&all_pages, differences)?;
        prop_assert_eq!(found, differences(&all_pages).expect("lawful"));
        let changes = || batch.clone().into_iter().map(Ok);
        let (root, _) = with_fetching(&all_pages, |here| apply(&mut here.clone(), &before, changes()))?;
        prop_assert_eq!(root, after);
    }
}

#[test]
fn a_name_may_be_an_object_and_a_directory_and_sorts_as_s3_sorts_it() {
    let names = ["!", "-", "-/", "/", "//", "a", "a!", "a-", "a/", "a//b", "a/b", "a0", "b"];
    let model: Model = names.iter().map(|name| (path(name), entry(1, 0))).collect();
    let (pages, root) = built(&model);
    let met: Vec<_> = all(&pages, &root).expect("lawful").into_iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(met, names);
    assert_eq!(directory(&pages, &root, b"a/").expect("lawful").map(|root| root.totals.objects), Some(3));
}

#[test]
fn paths_out_of_order_are_refused() {
    for wrong in ["a", "Z"] {
        let entries = ["a", wrong].map(|name| Ok((path(name), entry(1, 0))));
        let error = build(&mut MemoryPages::default(), entries).expect_err("out of order");
        assert!(matches!(error, TreeError::Unordered { path: refused } if refused == path(wrong)));
    }
}

#[test]
fn entries_that_could_not_be_read_back_are_refused() {
    let refused = |entry| {
        let error = build(&mut MemoryPages::default(), [Ok((path("d/a"), entry))]).expect_err("unwritable");
        match error {
            TreeError::Unwritable { directory, name, flaw } if directory == b"d/" && name == b"a" => flaw,
            error => panic!("{error}"),
        }
    };
    assert_eq!(refused(Entry { size: 7, ..entry(0, 0) }), Flaw::Content);
    assert_eq!(refused(entry(1, 70_000)), Flaw::Entry);
}

#[test]
fn an_error_of_the_changes_ends_the_walk() {
    let changes = [Ok((path("a"), Some(entry(1, 0)))), Err(crate::Error::Conflict)];
    let error = apply(&mut MemoryPages::default(), &Root::empty(), changes).expect_err("the second change");
    assert!(matches!(error, TreeError::Storage(crate::Error::Conflict)));
}

#[test]
fn a_listing_asks_for_all_pages_that_it_may_need_at_once() {
    let model: Model = (0..20_000).map(|at| (path(format!("{at:05}")), entry(at, 0))).collect();
    let (pages, root) = built(&model);
    let query = ListQuery { max: 1000, ..ListQuery::default() };
    let mut rounds = 0;
    let (listing, here) = with_fetching(&pages, |here| {
        rounds += 1;
        list(here, &root, &query)
    })
    .expect("all pages are there");
    assert_eq!(listing, expected(&model, &query));
    // Level by level, and the last time to answer.
    assert!(rounds <= 4, "{rounds} rounds");
    assert!(here.iter().count() < 40, "{} pages", here.iter().count());
}
