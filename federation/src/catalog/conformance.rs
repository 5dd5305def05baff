//! What every engine of the catalog must do, as one suite that all of them run.

use std::ops::Bound;

use super::{Catalog, Durability, KeyRange, Table, WriteSet};

/// Runs the suite on an empty catalog and leaves it with rows in it.
///
/// # Panics
/// Where the catalog breaks a promise.
pub fn run(catalog: &dyn Catalog) {
    a_commit_is_seen_whole_and_only_by_later_views(catalog);
    ranges_are_ordered_bounded_and_reversible(catalog);
    a_later_write_wins_within_a_commit(catalog);
    tables_do_not_mix(catalog);
}

fn commit(catalog: &dyn Catalog, writes: &[(Table, &[u8], Option<&[u8]>)]) {
    let mut set = WriteSet::default();
    for (table, key, value) in writes {
        set.set(*table, key.to_vec(), value.map(<[u8]>::to_vec));
    }
    catalog.apply(&set, Durability::Strict).expect("the commit succeeds");
}

fn keys(catalog: &dyn Catalog, range: KeyRange) -> Vec<Vec<u8>> {
    let view = catalog.view().expect("a view opens");
    let rows = view.range(Table::Changes, range).expect("the range opens");
    rows.map(|row| row.expect("the row reads").0).collect()
}

fn a_commit_is_seen_whole_and_only_by_later_views(catalog: &dyn Catalog) {
    let before = catalog.view().expect("a view opens");
    commit(catalog, &[(Table::Meta, b"a", Some(b"1")), (Table::Tags, b"b", Some(b""))]);
    assert_eq!(before.get(Table::Meta, b"a").expect("reads"), None);
    let after = catalog.view().expect("a view opens");
    assert_eq!(after.get(Table::Meta, b"a").expect("reads"), Some(b"1".to_vec()));
    assert_eq!(after.get(Table::Tags, b"b").expect("reads"), Some(Vec::new()));
    commit(catalog, &[(Table::Meta, b"a", None)]);
    assert_eq!(after.get(Table::Meta, b"a").expect("reads"), Some(b"1".to_vec()));
    assert_eq!(catalog.view().expect("opens").get(Table::Meta, b"a").expect("reads"), None);
}

fn ranges_are_ordered_bounded_and_reversible(catalog: &dyn Catalog) {
    let all: [&[u8]; 6] = [b"\0", b"\0\xff", b"a", b"a\0", b"b", b"\xff\xff"];
    let writes: Vec<_> = all.iter().rev().map(|key| (Table::Changes, *key, Some(b"v".as_slice()))).collect();
    commit(catalog, &writes);
    let everything = KeyRange { from: Bound::Unbounded, to: Bound::Unbounded, reverse: false };
    assert_eq!(keys(catalog, everything.clone()), all);
    let backwards: Vec<_> = all.iter().rev().map(|key| key.to_vec()).collect();
    assert_eq!(keys(catalog, everything.reversed()), backwards);
    assert_eq!(keys(catalog, KeyRange::prefix(b"a")), [b"a".to_vec(), b"a\0".to_vec()]);
    assert_eq!(keys(catalog, KeyRange::prefix(b"\xff")), [b"\xff\xff".to_vec()]);
    let after = KeyRange::prefix(b"a").starting(Bound::Excluded(b"a".to_vec()));
    assert_eq!(keys(catalog, after), [b"a\0".to_vec()]);
    let nothing = KeyRange::prefix(b"a").starting(Bound::Included(b"c".to_vec()));
    assert!(keys(catalog, nothing).is_empty());
}

fn a_later_write_wins_within_a_commit(catalog: &dyn Catalog) {
    commit(catalog, &[(Table::Meta, b"w", Some(b"1")), (Table::Meta, b"w", Some(b"2"))]);
    assert_eq!(catalog.view().expect("opens").get(Table::Meta, b"w").expect("reads"), Some(b"2".to_vec()));
}

fn tables_do_not_mix(catalog: &dyn Catalog) {
    for table in Table::ALL {
        commit(catalog, &[(*table, b"same", Some(table.name().as_bytes()))]);
    }
    let view = catalog.view().expect("a view opens");
    for table in Table::ALL {
        assert_eq!(view.get(*table, b"same").expect("reads"), Some(table.name().as_bytes().to_vec()));
        let mut set = WriteSet::default();
        set.set(*table, b"same".to_vec(), None);
        catalog.apply(&set, Durability::Strict).expect("the commit succeeds");
    }
}
