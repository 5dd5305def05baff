//! Runs that are decided by seeds.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

/// Runs seeds from `first` on, on each core one, until one fails. Returns how much all of them show. `count` is the variable
/// that says how many run.
pub fn on_all_cores(first: u64, runs: u64, count: &str, run: impl Fn(u64) -> Result<usize, String> + Sync) -> usize {
    let (next, failed, shown) = (AtomicU64::new(first), AtomicBool::new(false), AtomicUsize::new(0));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + runs {
                return;
            }
            match run(seed) {
                Ok(shows) => drop(shown.fetch_add(shows, Ordering::Relaxed)),
                Err(what) => {
                    failed.store(true, Ordering::Relaxed);
                    panic!("{what}\nrepeat it with ELTON_TEST_SEED={seed} {count}=1");
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let failures = workers.into_iter().filter_map(|worker| worker.join().err());
        if let Some(failure) = failures.into_iter().next() {
            resume_unwind(failure);
        }
    });
    shown.into_inner()
}
