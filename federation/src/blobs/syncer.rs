//! Group sync: one sync of the disk serves everybody who waited for one when it began.
//!
//! Who finds nobody at work becomes the leader: one `Blocking` job that appends what the waiters brought, syncs, answers
//! them, and goes on while others queued meanwhile. So a small body costs its writer one hop to a thread,
//! append and sync together, and the appends of a round reach the disk with one sync.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::backend::{Backend, BackendError, Item, SlotGuard, Urgency, folder_of};
use crate::blocking::Blocking;
use crate::mutant::{self, Mutant};
use crate::types::{BlobHash, FileId, SegmentId};

/// Shares syncs among those who wait for one. Clones share with each other.
#[derive(Clone)]
pub struct Syncer {
    blocking: Arc<dyn Blocking>,
    segments: Arc<Queue<SegmentWaiter>>,
    folders: Arc<Queue<FolderWaiter>>,
}

impl Syncer {
    /// A syncer for `backend`, whose syncs run in jobs of `blocking`.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, blocking: Arc<dyn Blocking>) -> Syncer {
        Syncer { blocking, segments: Queue::new(&backend), folders: Queue::new(&backend) }
    }

    /// Everything in `segments` whose append returned before the call is durable on return.
    ///
    /// After an error, what was not durable before will never be: it has to be appended again.
    pub async fn segments(&self, segments: &[SegmentId]) -> Result<(), BackendError> {
        self.wait(&self.segments, |done| SegmentWaiter {
            bodies: Vec::new(),
            urgency: Urgency::Normal,
            segments: segments.to_vec(),
            done,
        })
        .await
        .map(|_none| ())
    }

    /// Appends bodies, each with its hash; all are durable on return. After an error, none of them is kept.
    pub async fn append(
        &self,
        bodies: Vec<(Bytes, BlobHash)>,
        urgency: Urgency,
    ) -> Result<Vec<SlotGuard>, BackendError> {
        self.wait(&self.segments, |done| SegmentWaiter { bodies, urgency, segments: Vec::new(), done }).await
    }

    /// The name of a file that is whole is durable on return.
    pub async fn folder(&self, file: FileId) -> Result<(), BackendError> {
        self.wait(&self.folders, |done| FolderWaiter { file, done }).await
    }

    async fn wait<W: Waiter, T>(
        &self,
        queue: &Arc<Queue<W>>,
        waiter: impl FnOnce(oneshot::Sender<Result<T, BackendError>>) -> W,
    ) -> Result<T, BackendError> {
        let (done, result) = oneshot::channel();
        if queue.join(waiter(done)) {
            let leader = Leader { queue: Arc::clone(queue), done: false };
            // The leader works for the others too, so its job does not end with its own wait.
            detach(self.blocking.run_job(Box::new(move || leader.run())));
        }
        result.await.unwrap_or_else(|_gone| Err(ending()))
    }
}

impl std::fmt::Debug for Syncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syncer").finish_non_exhaustive()
    }
}

/// What those learn whose job the end of the process overtook.
pub(super) fn ending() -> BackendError {
    let source = std::io::Error::other("the process is ending");
    BackendError::Io { what: Item::Store, source: Arc::new(source) }
}

/// Lets a job run to its end without anybody waiting for it.
pub(super) fn detach(mut job: Pin<Box<dyn Future<Output = ()> + Send>>) {
    if (&mut job).now_or_never().is_none() {
        tokio::spawn(job);
    }
}

/// Those who wait for the next round.
struct Queue<W> {
    backend: Arc<dyn Backend>,
    state: Mutex<QueueState<W>>,
}

struct QueueState<W> {
    waiting: Vec<W>,
    /// Whether somebody leads.
    led: bool,
}

impl<W> Queue<W> {
    fn new(backend: &Arc<dyn Backend>) -> Arc<Queue<W>> {
        let state = Mutex::new(QueueState { waiting: Vec::new(), led: false });
        Arc::new(Queue { backend: Arc::clone(backend), state })
    }

    /// Adds a waiter; whether it has to lead.
    fn join(&self, waiter: W) -> bool {
        let mut state = self.state();
        state.waiting.push(waiter);
        !std::mem::replace(&mut state.led, true)
    }

    /// Those of the next round; `None`, and the lead is free, when there are none.
    fn next_round(&self) -> Option<Vec<W>> {
        let mut state = self.state();
        if state.waiting.is_empty() {
            state.led = false;
            return None;
        }
        Some(std::mem::take(&mut state.waiting))
    }

    fn state(&self) -> MutexGuard<'_, QueueState<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for a sync.
trait Waiter: Sized + Send + 'static {
    /// Does what all of a round wait for, and answers each.
    fn serve(round: Vec<Self>, backend: &dyn Backend);
}

/// Leads until nobody waits any more.
struct Leader<W: Waiter> {
    queue: Arc<Queue<W>>,
    done: bool,
}

impl<W: Waiter> Leader<W> {
    fn run(mut self) {
        while let Some(round) = self.queue.next_round() {
            W::serve(round, &*self.queue.backend);
        }
        self.done = true;
    }
}

impl<W: Waiter> Drop for Leader<W> {
    fn drop(&mut self) {
        // The runtime ended before the job could run. Those who wait must not wait for ever.
        if !self.done {
            let mut state = self.queue.state();
            state.led = false;
            state.waiting.clear();
        }
    }
}

struct SegmentWaiter {
    bodies: Vec<(Bytes, BlobHash)>,
    urgency: Urgency,
    /// Where it appended before.
    segments: Vec<SegmentId>,
    done: oneshot::Sender<Result<Vec<SlotGuard>, BackendError>>,
}

impl Waiter for SegmentWaiter {
    fn serve(round: Vec<Self>, backend: &dyn Backend) {
        let mut appended = Vec::with_capacity(round.len());
        // Nobody waits any more for those that are closed, and nothing of them was promised.
        for waiter in round.into_iter().filter(|waiter| !waiter.done.is_closed()) {
            let append = |(bytes, hash): &(Bytes, BlobHash)| backend.append(bytes, *hash, waiter.urgency);
            match waiter.bodies.iter().map(append).collect::<Result<Vec<_>, _>>() {
                Ok(slots) => appended.push((slots, waiter.segments, waiter.done)),
                Err(error) => drop(waiter.done.send(Err(error))),
            }
        }
        if appended.is_empty() {
            return;
        }
        let synced = if mutant::on(Mutant::ReplyBeforeSync) { Ok(()) } else { backend.sync_segments() };
        for (slots, segments, done) in appended {
            let mut own = slots.iter().map(|guard| guard.slot().segment).chain(segments);
            // Invariant: a segment that failed in an earlier round is not synced again, so this round's
            // success says nothing about it.
            let result = match &synced {
                Ok(()) => {
                    own.find(|segment| backend.has_failed(*segment)).map_or(Ok(()), |segment| Err(failed(segment)))
                }
                Err(error) => Err(error.clone()),
            };
            // Who went away gives up the slots: the guards are dropped.
            drop(done.send(result.map(|()| slots)));
        }
    }
}

fn failed(segment: SegmentId) -> BackendError {
    let source = std::io::Error::other("an earlier sync of the segment failed");
    BackendError::Io { what: Item::Segment(segment), source: Arc::new(source) }
}

struct FolderWaiter {
    file: FileId,
    done: oneshot::Sender<Result<(), BackendError>>,
}

impl Waiter for FolderWaiter {
    fn serve(round: Vec<Self>, backend: &dyn Backend) {
        let mut synced: BTreeMap<u64, Result<(), BackendError>> = BTreeMap::new();
        for waiter in round.into_iter().filter(|waiter| !waiter.done.is_closed()) {
            let result = synced.entry(folder_of(waiter.file)).or_insert_with(|| backend.sync_folder(waiter.file));
            drop(waiter.done.send(result.clone()));
        }
    }
}
