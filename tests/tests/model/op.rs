//! What a generated sequence is made of. Everything is an index into something small, so that operations meet.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::store::CONTENTS;

/// The world that a sequence runs in.
#[derive(Clone)]
pub struct World {
    /// The keys that operations choose from.
    pub keys: Vec<Vec<u8>>,
    /// Whether the real catalog and disk store run, over a simulated disk, or their twins in memory.
    pub disk: bool,
    /// Limits of the core, small so that pages and transactions end in the middle of things.
    pub list_rows_max: usize,
    pub fold_rows_max: usize,
    pub collect_rows_max: usize,
    pub ops: Vec<Op>,
}

/// As a regression would write it.
impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "World {{")?;
        let keys: Vec<String> = self.keys.iter().map(|key| format!("b\"{}\"", key.escape_ascii())).collect();
        writeln!(f, "    keys: keys(&[{}]),", keys.join(", "))?;
        writeln!(f, "    disk: {},", self.disk)?;
        writeln!(f, "    list_rows_max: {},", self.list_rows_max)?;
        writeln!(f, "    fold_rows_max: {},", self.fold_rows_max)?;
        writeln!(f, "    collect_rows_max: {},", self.collect_rows_max)?;
        writeln!(f, "    ops: vec![")?;
        self.ops.iter().try_for_each(|op| writeln!(f, "        {op:?},"))?;
        writeln!(f, "    ],\n}}")
    }
}

/// A condition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cond {
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match: *`
    Present,
    /// `If-Match` with the entity tag that the key has now.
    Same,
    /// `If-Match` with the entity tag of some content.
    Etag(u8),
    /// `x-amz-if-match-size`
    Size(u8),
}

/// Which version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    Newest,
    Null,
    /// One of those that S3 lists now, by its place.
    Shown(u8),
    /// A number, whatever it is.
    Number(u8),
}

/// One step. `b` is a bucket, `k` a key, `c` a content, `at` a number of the bucket.
#[derive(Clone, Debug)]
pub enum Op {
    Put {
        b: u8,
        k: u8,
        c: u8,
        tags: u8,
        cond: Cond,
    },
    Delete {
        b: u8,
        k: u8,
        cond: Cond,
    },
    DeleteMany {
        b: u8,
        ks: Vec<(u8, Option<Pick>)>,
    },
    Remove {
        b: u8,
        k: u8,
        pick: Pick,
    },
    SetTags {
        b: u8,
        k: u8,
        pick: Pick,
        tags: u8,
    },
    /// From bucket `f`, key `fk`, of the newest state or as of a number.
    Copy {
        f: u8,
        fk: u8,
        at: Option<u8>,
        pick: Pick,
        b: u8,
        k: u8,
        cond: Cond,
    },
    BeginUpload {
        b: u8,
        k: u8,
    },
    Part {
        u: u8,
        n: u8,
        c: u8,
    },
    PartCopy {
        u: u8,
        n: u8,
        b: u8,
        k: u8,
    },
    /// Completes with those of the uploaded parts whose bit is set; `extra` names one that does not exist.
    Complete {
        u: u8,
        mask: u8,
        extra: bool,
        cond: Cond,
    },
    /// Uploads so many parts that the list of them is a body of its own, and completes.
    ManyParts {
        b: u8,
        k: u8,
        c: u8,
        last: u8,
    },
    Abort {
        u: u8,
    },
    Versioning {
        b: u8,
        on: bool,
    },
    BucketTags {
        b: u8,
        tags: u8,
    },
    Keep {
        b: u8,
        seconds: u16,
    },
    Tag {
        b: u8,
        tag: u8,
        at: Option<u8>,
    },
    Untag {
        b: u8,
        tag: u8,
    },
    Restore {
        b: u8,
        at: u8,
        prefix: u8,
    },
    Stage {
        b: u8,
        changes: Vec<(u8, Option<u8>)>,
    },
    Publish {
        b: u8,
    },
    GiveUp {
        b: u8,
    },
    Collect {
        now: bool,
        only: Option<u8>,
        dry: bool,
    },
    Advance {
        seconds: u16,
    },
    /// The wall clock alone is set back or forth.
    SetClock {
        forth: bool,
    },
    /// Lets the fold that runs in the background make some steps.
    Fold {
        steps: u8,
    },
    Settle {
        b: u8,
    },
    Restart {
        clean: bool,
    },
    CreateBucket {
        b: u8,
    },
    DeleteBucket {
        b: u8,
    },
    /// Compares one state, open layers and all.
    Look {
        b: u8,
        at: Option<u8>,
    },
    /// Compares the snapshot tree of one state.
    Tree {
        b: u8,
        at: Option<u8>,
    },
    /// Compares everything.
    LookAll,
}

fn cond() -> impl Strategy<Value = Cond> {
    prop_oneof![
        12 => Just(Cond::None),
        1 => Just(Cond::Absent),
        1 => Just(Cond::Present),
        2 => Just(Cond::Same),
        1 => any::<u8>().prop_map(Cond::Etag),
        1 => any::<u8>().prop_map(Cond::Size),
    ]
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        2 => Just(Pick::Newest),
        2 => Just(Pick::Null),
        6 => (0..6u8).prop_map(Pick::Shown),
        1 => any::<u8>().prop_map(Pick::Number),
    ]
}

/// Mostly small: a sequence has few numbers.
fn number() -> impl Strategy<Value = u8> {
    prop_oneof![8 => 0..30u8, 1 => any::<u8>()]
}

/// Large bodies are rarer than they are in the list.
fn body() -> impl Strategy<Value = u8> {
    let large = CONTENTS as u8;
    prop_oneof![3 => 0..6u8, 2 => 6..8u8, 1 => 8..large]
}

fn op() -> impl Strategy<Value = Op> {
    let b = || prop_oneof![3 => Just(0u8), 1 => Just(1u8)];
    let k = || 0..12u8;
    let u = || 0..3u8;
    let tags = || 0..4u8;
    prop_oneof![
        30 => (b(), k(), body(), tags(), cond()).prop_map(|(b, k, c, tags, cond)| Op::Put { b, k, c, tags, cond }),
        10 => (b(), k(), cond()).prop_map(|(b, k, cond)| Op::Delete { b, k, cond }),
        2 => (b(), vec((k(), proptest::option::of(pick())), 1..5)).prop_map(|(b, ks)| Op::DeleteMany { b, ks }),
        8 => (b(), k(), pick()).prop_map(|(b, k, pick)| Op::Remove { b, k, pick }),
        6 => (b(), k(), pick(), tags()).prop_map(|(b, k, pick, tags)| Op::SetTags { b, k, pick, tags }),
        6 => (b(), k(), proptest::option::of(number()), pick(), b(), k(), cond())
            .prop_map(|(f, fk, at, pick, b, k, cond)| Op::Copy { f, fk, at, pick, b, k, cond }),
        3 => (b(), k()).prop_map(|(b, k)| Op::BeginUpload { b, k }),
        7 => (u(), 1..4u8, body()).prop_map(|(u, n, c)| Op::Part { u, n, c }),
        2 => (u(), 1..4u8, b(), k()).prop_map(|(u, n, b, k)| Op::PartCopy { u, n, b, k }),
        4 => (u(), any::<u8>(), proptest::bool::weighted(0.1), cond())
            .prop_map(|(u, mask, extra, cond)| Op::Complete { u, mask, extra, cond }),
        1 => (b(), k(), body(), body()).prop_map(|(b, k, c, last)| Op::ManyParts { b, k, c, last }),
        1 => u().prop_map(|u| Op::Abort { u }),
        5 => (b(), any::<bool>()).prop_map(|(b, on)| Op::Versioning { b, on }),
        1 => (b(), tags()).prop_map(|(b, tags)| Op::BucketTags { b, tags }),
        1 => (b(), 0..4000u16).prop_map(|(b, seconds)| Op::Keep { b, seconds }),
        4 => (b(), 0..3u8, proptest::option::of(number())).prop_map(|(b, tag, at)| Op::Tag { b, tag, at }),
        3 => (b(), 0..3u8).prop_map(|(b, tag)| Op::Untag { b, tag }),
        8 => (b(), number(), 0..9u8).prop_map(|(b, at, prefix)| Op::Restore { b, at, prefix }),
        6 => (b(), vec((k(), proptest::option::weighted(0.7, body())), 0..6))
            .prop_map(|(b, changes)| Op::Stage { b, changes }),
        4 => b().prop_map(|b| Op::Publish { b }),
        1 => b().prop_map(|b| Op::GiveUp { b }),
        8 => (proptest::bool::weighted(0.6), proptest::option::weighted(0.2, b()), proptest::bool::weighted(0.1))
            .prop_map(|(now, only, dry)| Op::Collect { now, only, dry }),
        4 => (0..5000u16).prop_map(|seconds| Op::Advance { seconds }),
        1 => any::<bool>().prop_map(|forth| Op::SetClock { forth }),
        8 => (1..6u8).prop_map(|steps| Op::Fold { steps }),
        1 => b().prop_map(|b| Op::Settle { b }),
        3 => any::<bool>().prop_map(|clean| Op::Restart { clean }),
        1 => b().prop_map(|b| Op::CreateBucket { b }),
        1 => b().prop_map(|b| Op::DeleteBucket { b }),
        8 => (b(), proptest::option::of(number())).prop_map(|(b, at)| Op::Look { b, at }),
        6 => (b(), proptest::option::of(number())).prop_map(|(b, at)| Op::Tree { b, at }),
        1 => Just(Op::LookAll),
    ]
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop_oneof![Just(b'a'), Just(b'/'), Just(b'b'), Just(b'-')];
    let strange = prop_oneof![Just(b'a'), Just(b'/'), Just(0u8), Just(1), Just(0xff)];
    prop_oneof![5 => vec(plain, 1..4), 1 => vec(strange, 1..4)]
}

/// Worlds with up to `ops_max` operations.
pub fn world(ops_max: usize) -> impl Strategy<Value = World> {
    let rows = || prop_oneof![Just(1usize), Just(2), Just(3), Just(8), Just(50_000)];
    let few = || prop_oneof![Just(1usize), Just(2), Just(1000)];
    (vec(key(), 1..7), proptest::bool::weighted(0.3), rows(), few(), few(), vec(op(), 1..ops_max)).prop_map(
        |(keys, disk, list_rows_max, fold_rows_max, collect_rows_max, ops)| World {
            keys,
            disk,
            list_rows_max,
            fold_rows_max,
            collect_rows_max,
            ops,
        },
    )
}
