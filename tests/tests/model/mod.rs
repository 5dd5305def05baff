//! The reference model: generated operations run against the core and against an ordered map of keys to versions.
//!
//! After each sequence every number reads equal to the model or is refused, through every way to read it.
//! `ELTON_TEST_SEQUENCES` says how many sequences run; a failure prints the seed that repeats it.

mod compare;
pub mod op;
mod regressions;
mod run;
pub mod state;
mod trees;
pub mod words;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use self::op::World;
use super::store::{parameter, seed};

const SEQUENCES: u64 = 2000;
const OPS_MAX: usize = 45;
/// How often a failing sequence is tried again with less in it.
const SHRINKS_MAX: usize = 3000;

/// Runs a world; a panic is a failure like any other.
fn run(world: &World) -> Result<(), String> {
    std::panic::catch_unwind(AssertUnwindSafe(|| run::run(world))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}

/// Runs the sequence of a seed. A failure comes shrunk, with what went wrong.
fn run_sequence(seed: u64) -> Result<(), (World, String)> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut tree = op::world(OPS_MAX).new_tree(&mut runner).expect("the strategy rejects nothing");
    let Err(first) = run(&tree.current()) else { return Ok(()) };
    let (mut world, mut what) = (tree.current(), first);
    let mut smaller = tree.simplify();
    for _ in 0..SHRINKS_MAX {
        if !smaller {
            break;
        }
        let candidate = tree.current();
        match run(&candidate) {
            Err(failure) => {
                (world, what) = (candidate, failure);
                smaller = tree.simplify();
            }
            Ok(()) => smaller = tree.complicate(),
        }
    }
    Err((world, what))
}

#[test]
fn reftest() {
    let (first, sequences) = (seed(), parameter("ELTON_TEST_SEQUENCES", SEQUENCES));
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    println!("{sequences} sequences from ELTON_TEST_SEED={first}");
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= sequences {
                return;
            }
            if let Err((world, what)) = run_sequence(first + index) {
                failed.store(true, Ordering::Relaxed);
                let again = format!("ELTON_TEST_SEED={} ELTON_TEST_SEQUENCES=1", first + index);
                panic!("{what}\n{world:?}\nrepeat it with {again}");
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let failures = workers.into_iter().filter_map(|worker| worker.join().err());
        if let Some(failure) = failures.into_iter().next() {
            std::panic::resume_unwind(failure);
        }
    });
}
