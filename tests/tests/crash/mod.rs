//! Crash states: the real catalog and blob store over a disk that drops, reorders and tears what was not synced.
//!
//! A workload of several clients runs once and is logged; then the power is cut at many of its operations, and what is
//! left is opened and compared. `ELTON_TEST_CRASH_STATES` says how many states; a failure prints the seed that
//! repeats it.

mod claims;
mod damage;
mod partial;
mod recover;
mod turns;
mod workload;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use federation::blocking::{Blocking, Inline};
use federation::catalog::Catalog;
use federation::clock::ManualClock;
use federation::disk::{CrashPlan, SimulatedDisk, seeded};
use federation::error::Result;
use federation::ids::SeededIds;
use federation::master::{Limits, Master, Seams};
use federation::types::Timestamp;
use tokio::runtime::{Builder, Runtime};

use self::turns::{Slow, Turns};
use super::store::{parameter, seed};

const STATES: u64 = 50_000;
/// How many states are made of one workload.
const STATES_PER_WORKLOAD: u64 = 250;
const CACHE_BYTES: usize = 64 * 1024;
/// Small, so that segments end and are compacted.
const SEGMENT_BYTES: u64 = 8 * 1024;
const WALL: Timestamp = Timestamp(1_700_000_000_000);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime without threads needs nothing")
}

/// The real Master over a simulated disk; its catalog may be put behind another.
async fn open(
    disk: &SimulatedDisk,
    blocking: Arc<dyn Blocking>,
    ids: u64,
    behind: impl FnOnce(Arc<dyn Catalog>) -> Arc<dyn Catalog>,
) -> Result<Master> {
    let limits = Limits {
        disk_reserve: 0,
        part_bytes_min: 1,
        fold_rows_max: 2,
        fold_pieces_max: 2,
        collect_rows_max: 5,
        collect_pieces_max: 5,
        keep_default: Duration::from_secs(3600),
        ..Limits::default()
    };
    let (clock, ids) = (Arc::new(ManualClock::new(WALL)), Arc::new(SeededIds::new(ids)));
    let disk = Arc::new(disk.clone());
    let mut seams = Seams::on_disk(disk, &limits, CACHE_BYTES, blocking, clock, ids, SEGMENT_BYTES)?;
    seams.catalog = behind(seams.catalog);
    Master::simulated(seams, limits).await
}

/// A Master that runs everything at once, on the caller's thread.
async fn open_inline(disk: &SimulatedDisk, ids: u64) -> Result<Master> {
    open(disk, Arc::new(Inline), ids, |catalog| catalog).await
}

/// A Master whose jobs take turns with its callers.
async fn open_in_turns(disk: &SimulatedDisk, turns: Turns, ids: u64) -> Result<Master> {
    open(disk, Arc::new(turns), ids, |catalog| Arc::new(Slow(catalog))).await
}

/// A new workload and `states` crashes in it; says what a state got wrong.
fn run_workload(seed: u64, states: u64) -> std::result::Result<(), String> {
    let workload = runtime().block_on(workload::run(seed))?;
    let mut random = seeded(seed ^ 0x5eed);
    for state in 0..states {
        let ops = (random() >> 32) as usize % (workload.disk.ops() + 1);
        let plan = match random() % 8 {
            0 => CrashPlan::Everything,
            1 | 2 => CrashPlan::Synced,
            _ => CrashPlan::Random,
        };
        let disk = workload.disk.crash_at(ops, &mut random, plan);
        recover::compare(&workload, disk, ops, &mut random)
            .map_err(|what| format!("state {state}, power cut after operation {ops} ({plan:?}): {what}"))?;
    }
    Ok(())
}

#[test]
fn crash_states() {
    let (first, states) = (seed(), parameter("ELTON_TEST_CRASH_STATES", STATES));
    println!("{states} crash states from ELTON_TEST_SEED={first}");
    let workloads = states.div_ceil(STATES_PER_WORKLOAD);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= workloads {
                return;
            }
            let states = STATES_PER_WORKLOAD.min(states - index * STATES_PER_WORKLOAD);
            let seed = first + index;
            let run = AssertUnwindSafe(|| run_workload(seed, states));
            let outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| Err("a panic, printed above".to_owned()));
            if let Err(what) = outcome {
                failed.store(true, Ordering::Relaxed);
                panic!("{what}\nrepeat it with ELTON_TEST_SEED={seed} ELTON_TEST_CRASH_STATES={states}");
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
