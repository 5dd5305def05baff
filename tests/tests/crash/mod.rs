//! Every state that a power failure can leave, as far as the simulated disk can make it.
//!
//! A workload runs over the real catalog and the real store of bodies on a disk that logs its changes. Then the power
//! is cut after many of these changes, with what was not synced dropped, reordered and torn, and the Master is
//! opened on what is left: every acknowledged number must be there, every number that is there must show the state
//! it was given, and no number may be given again. `ELTON_TEST_CRASH_STATES` says how many states are looked at.

mod verify;
mod workload;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use federation::disk::{CrashPlan, seeded};
use tokio::runtime::{Builder, Runtime};

use super::store::{parameter, seed};

const STATES: u64 = 50_000;
/// How many states are made of one workload.
const STATES_PER_WORKLOAD: u64 = 250;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime on this thread starts")
}

/// Runs the workload of a seed and looks at some of the states that cutting its power leaves.
fn run_workload(seed: u64, states: u64) -> Result<(), String> {
    let run =
        runtime().block_on(workload::run(seed)).map_err(|error| format!("the workload itself failed: {error}"))?;
    let mut random = seeded(seed ^ 0x5EED);
    for _ in 0..states {
        let ops = (random() % (run.disk.ops() as u64 + 1)) as usize;
        let plan = match random() % 8 {
            0 => CrashPlan::Everything,
            1 | 2 => CrashPlan::Synced,
            _ => CrashPlan::Random,
        };
        let left = run.disk.crash_at(ops, &mut random, plan);
        let found = runtime().block_on(verify::verify(&run, &left, ops, random()));
        let recovered = found.map_err(|what| format!("{what} (after change {ops} of {}, {plan:?})", run.disk.ops()))?;
        // Power fails while the Master recovers, too.
        if random().is_multiple_of(8) {
            let again = (random() % (recovered as u64 + 1)) as usize;
            let twice = left.crash_at(again, &mut random, CrashPlan::Random);
            let found = runtime().block_on(verify::verify(&run, &twice, ops, random()));
            found.map_err(|what| format!("{what} (after change {ops}, then after {again} of the recovery)"))?;
        }
    }
    Ok(())
}

#[test]
fn crash_states() {
    let (first, states) = (seed(), parameter("ELTON_TEST_CRASH_STATES", STATES));
    let workloads = states.div_ceil(STATES_PER_WORKLOAD);
    println!("{states} states from ELTON_TEST_SEED={first}");
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= workloads {
                return;
            }
            if let Err(what) = run_workload(first + index, STATES_PER_WORKLOAD.min(states)) {
                failed.store(true, Ordering::Relaxed);
                panic!("{what}\nrepeat it with ELTON_TEST_SEED={} ELTON_TEST_CRASH_STATES=250", first + index);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let failures: Vec<_> = workers.into_iter().filter_map(|worker| worker.join().err()).collect();
        if let Some(failure) = failures.into_iter().next() {
            std::panic::resume_unwind(failure);
        }
    });
}
