//! Jobs that take turns: a schedule with the pauses of real threads and disks that still repeats itself.
//!
//! Each job has a thread of its own, of which one runs at a time. It stands still for some turns before it begins,
//! after it has opened a view of the catalog, and before it commits; whoever was answered, or queued, goes on meanwhile.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use federation::blocking::{Blocking, Job};
use federation::catalog::{Catalog, CatalogError, CatalogSize, Durability, View, WriteSet};
use federation::disk::seeded;

/// For how many turns something stands still, as often as it is in the list.
const TURNS: [usize; 10] = [0, 0, 0, 0, 0, 1, 1, 2, 4, 9];

type Lengths = Box<dyn FnMut() -> usize + Send>;

/// How long everything takes, in turns.
#[derive(Clone)]
pub struct Turns(Arc<Mutex<Lengths>>);

/// What a job says when it gives its turn away: for how many turns.
struct Paused(usize);

/// A job's side of its thread.
struct Baton {
    says: Sender<Paused>,
    goes_on: Receiver<()>,
    turns: Turns,
}

thread_local! {
    static BATON: RefCell<Option<Baton>> = const { RefCell::new(None) };
}

/// Lets the others go on for some turns; nothing if no job runs on this thread.
fn pause() {
    BATON.with_borrow(|baton| {
        let Some(baton) = baton else { return };
        let turns = baton.turns.next();
        // At the end of a run nobody waits for the job any more, and it goes on by itself.
        if turns > 0 && baton.says.send(Paused(turns)).is_ok() {
            let _ = baton.goes_on.recv();
        }
    });
}

impl Turns {
    /// Turns of every length, the same ones for the same seed.
    pub fn seeded(seed: u64) -> Turns {
        let mut random = seeded(seed);
        Turns::new(move || TURNS[(random() >> 32) as usize % TURNS.len()])
    }

    /// Everything takes one turn.
    pub fn even() -> Turns {
        Turns::new(|| 1)
    }

    fn new(lengths: impl FnMut() -> usize + Send + 'static) -> Turns {
        Turns(Arc::new(Mutex::new(Box::new(lengths))))
    }

    fn next(&self) -> usize {
        (self.0.lock().expect("nobody panics with this lock"))()
    }
}

/// Waits for some turns.
pub async fn wait(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

impl Blocking for Turns {
    fn run_job(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let turns = self.clone();
        // A task, so that the job runs to its end even when nobody waits for it.
        let running = tokio::spawn(async move {
            wait(turns.next()).await;
            let (says, said) = channel();
            let (go_on, goes_on) = channel();
            let thread = std::thread::spawn(move || {
                BATON.set(Some(Baton { says, goes_on, turns }));
                job();
                BATON.set(None);
            });
            // This thread stands still while the job's does not.
            while let Ok(Paused(turns)) = said.recv() {
                wait(turns).await;
                go_on.send(()).expect("a job that paused waits to go on");
            }
            thread.join().expect("a job does not panic");
        });
        Box::pin(async move { running.await.expect("the runtime outlives its jobs") })
    }
}

/// A catalog whose calls stand still where those of a busy one do.
#[derive(Debug)]
pub struct Slow(pub Arc<dyn Catalog>);

impl Catalog for Slow {
    fn view(&self) -> Result<Box<dyn View>, CatalogError> {
        let view = self.0.view()?;
        pause();
        Ok(view)
    }

    fn apply(&self, writes: &WriteSet, durability: Durability) -> Result<(), CatalogError> {
        pause();
        self.0.apply(writes, durability)
    }

    fn bytes(&self) -> Result<u64, CatalogError> {
        self.0.bytes()
    }

    fn size(&self) -> Result<CatalogSize, CatalogError> {
        self.0.size()
    }

    fn compact(&self) -> Result<bool, CatalogError> {
        self.0.compact()
    }

    fn close(&self) {
        self.0.close();
    }
}
