//! Short sequences in which two rules meet. What `reftest` finds is added here, as it prints it.

use super::op::{Cond, Op, Pick, World};
use super::run;

/// Keys of every sequence here; below `a/` there are two.
const KEYS: [&[u8]; 4] = [b"a", b"a/b", b"a/c", b"b"];
const A: u8 = 0;
const A_B: u8 = 1;
const A_C: u8 = 2;
const B: u8 = 3;
/// Contents: one in a segment, two in files.
const SMALL: u8 = 3;
const LARGE: u8 = 6;
const OTHER_LARGE: u8 = 8;
/// The prefix `a/`, by its index.
const BELOW_A: u8 = 3;

/// Runs a sequence over both kinds of storage, with pages and transactions of one row and of many.
fn holds(ops: &[Op]) {
    for disk in [false, true] {
        for rows in [1, 50_000] {
            let world = World {
                keys: KEYS.map(<[u8]>::to_vec).to_vec(),
                disk,
                list_rows_max: rows,
                fold_rows_max: rows,
                collect_rows_max: rows,
                ops: ops.to_vec(),
            };
            run::run(&world).unwrap_or_else(|what| panic!("{what}\n{world:?}"));
        }
    }
}

fn put(k: u8, c: u8) -> Op {
    Op::Put { b: 0, k, c, tags: 1, cond: Cond::None }
}

fn delete(k: u8) -> Op {
    Op::Delete { b: 0, k, cond: Cond::None }
}

fn remove(k: u8, pick: Pick) -> Op {
    Op::Remove { b: 0, k, pick }
}

fn versioning(on: bool) -> Op {
    Op::Versioning { b: 0, on }
}

fn tag(at: Option<u8>) -> Op {
    Op::Tag { b: 0, tag: 0, at }
}

fn collect() -> Op {
    Op::Collect { now: true, only: None, dry: false }
}

#[test]
fn a_delete_marker_under_a_tag_outlives_the_collector_and_its_removal() {
    let untag = Op::Untag { b: 0, tag: 0 };
    let marked = [versioning(true), put(A, LARGE), put(B, SMALL), delete(A), tag(None), remove(A, Pick::Shown(1))];
    let ops = [collect(), Op::LookAll, put(A, SMALL), remove(A, Pick::Shown(0)), collect(), Op::LookAll];
    holds(&[&marked[..], &ops, &[untag, collect(), Op::LookAll]].concat());
}

#[test]
fn a_restored_prefix_brings_deleted_keys_back_and_no_others() {
    let before = [put(A, SMALL), put(A_B, LARGE), put(A_C, SMALL), put(B, LARGE)];
    let gone = [delete(A_B), delete(A_C), delete(B), put(A_C, LARGE)];
    let restored = [Op::Restore { b: 0, at: 4, prefix: BELOW_A }, Op::LookAll];
    // One key is written while the restore is not folded, and the collector takes what it was restored from.
    let written = [put(A_B, SMALL), Op::Look { b: 0, at: None }, collect(), Op::LookAll];
    let again = [Op::Restart { clean: false }, Op::Settle { b: 0 }, collect(), Op::LookAll];
    for versioned in [None, Some(true), Some(false)] {
        let set: Vec<Op> = versioned.map(versioning).into_iter().collect();
        // With the change of the versioning the state with all four keys is one number later.
        let restored: Vec<Op> = restored
            .iter()
            .map(|op| match op {
                Op::Restore { b, at, prefix } => Op::Restore { b: *b, at: at + set.len() as u8, prefix: *prefix },
                op => op.clone(),
            })
            .collect();
        holds(&[&set[..], &before, &gone, &restored, &written, &again].concat());
    }
}

#[test]
fn a_null_version_is_replaced_where_versioning_is_suspended() {
    let null = [put(A, LARGE), versioning(true), put(A, SMALL), tag(None), versioning(false)];
    let replaced = [put(A, OTHER_LARGE), Op::LookAll, delete(A), Op::LookAll, collect(), Op::LookAll];
    let removed = [remove(A, Pick::Null), Op::LookAll, put(A, SMALL), versioning(true), delete(A), collect()];
    let copied = Op::Copy { f: 0, fk: A, at: Some(4), pick: Pick::Null, b: 1, k: A, cond: Cond::None };
    holds(&[&null[..], &[copied], &replaced, &removed, &[Op::LookAll]].concat());
}

/// The runner repeats every completion and expects the first one's answer.
#[test]
fn an_upload_is_completed_once_however_often_it_is_asked_for() {
    let part = |n, c| Op::Part { u: 0, n, c };
    let complete = |mask| Op::Complete { u: 0, mask, extra: false, cond: Cond::None };
    let first = [Op::BeginUpload { b: 0, k: A }, part(1, LARGE), part(2, SMALL), part(3, OTHER_LARGE)];
    // The third part is left out, and its content comes again in the next upload.
    let second =
        [complete(0b0110), Op::BeginUpload { b: 0, k: A }, part(1, OTHER_LARGE), part(1, LARGE), part(2, SMALL)];
    let ended = [Op::Restart { clean: true }, complete(0b0110), delete(A), collect(), Op::LookAll];
    holds(&[&first[..], &second, &ended].concat());
}

#[test]
fn content_that_two_buckets_share_goes_with_its_last_reference() {
    let copy = Op::Copy { f: 0, fk: A, at: None, pick: Pick::Newest, b: 1, k: B, cond: Cond::Absent };
    let shared = [put(A, LARGE), copy, Op::Tag { b: 1, tag: 1, at: None }, delete(A), collect(), Op::LookAll];
    let last = [Op::Delete { b: 1, k: B, cond: Cond::Present }, Op::DeleteBucket { b: 0 }, collect(), Op::LookAll];
    let gone = [Op::Untag { b: 1, tag: 1 }, collect(), Op::LookAll, Op::CreateBucket { b: 0 }, put(A, LARGE)];
    holds(&[&shared[..], &last, &gone, &[collect(), Op::LookAll]].concat());
}

#[test]
fn a_commit_is_published_whole_around_keys_that_were_written_meanwhile() {
    let stage = |changes: &[(u8, Option<u8>)]| Op::Stage { b: 0, changes: changes.to_vec() };
    let staged = [put(A, LARGE), put(B, SMALL), stage(&[(A, None), (A_B, Some(LARGE)), (A_C, Some(SMALL))])];
    let meanwhile = [put(A_B, OTHER_LARGE), delete(B), collect(), stage(&[(B, Some(LARGE)), (A_C, None)])];
    let published = [Op::Publish { b: 0 }, Op::LookAll, tag(None), put(A_B, SMALL), Op::Fold { steps: 2 }];
    let restored = [Op::Restore { b: 0, at: 2, prefix: 0 }, delete(A), Op::LookAll, Op::Restart { clean: false }];
    holds(&[&staged[..], &meanwhile, &published, &restored, &[collect(), Op::LookAll]].concat());
}
