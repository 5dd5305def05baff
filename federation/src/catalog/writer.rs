//! Group commit: one task owns all write transactions and commits together what queued while the last one synced.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{Catalog, CatalogError, Durability, Transaction, View, WriteSet};
use crate::blocking::Blocking;
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};

/// How many transactions one commit holds at the most.
const BATCH_TRANSACTIONS_MAX: usize = 256;
/// How many transactions may wait; who comes later waits for a place.
const QUEUE_TRANSACTIONS_MAX: usize = 1024;
/// How long a relaxed commit may wait for the strict one that makes it durable.
const RELAXED_LAG_MAX: std::time::Duration = std::time::Duration::from_secs(1);
/// Stands for "nothing came in time" where a count of jobs is expected.
const TIMED_OUT: usize = usize::MAX;

type Failure = Option<Arc<CatalogError>>;
/// Tells the caller how its transaction ended.
type Completion = Box<dyn FnOnce(Failure) + Send>;
/// Runs a closure, or learns why it cannot; says whether its writes are to be kept.
type Run = Box<dyn FnOnce(Result<&mut Transaction<'_>, Arc<CatalogError>>) -> (bool, Completion) + Send>;

/// A transaction that waits for its turn.
struct Job {
    run: Run,
    /// Whether its batch is durable when it is answered, whatever the catalog's durability.
    strict: bool,
}

/// The one way to write to a catalog, and a way to read it.
#[derive(Clone)]
pub struct Writer {
    catalog: Arc<dyn Catalog>,
    blocking: Arc<dyn Blocking>,
    queue: mpsc::Sender<Job>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("catalog", &self.catalog).finish_non_exhaustive()
    }
}

impl Writer {
    /// Takes a catalog over. Its task ends when the last clone of the writer is gone.
    #[must_use]
    pub fn new(catalog: Arc<dyn Catalog>, blocking: Arc<dyn Blocking>, durability: Durability) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_TRANSACTIONS_MAX);
        tokio::spawn(run(Arc::clone(&catalog), Arc::clone(&blocking), jobs, durability));
        Writer { catalog, blocking, queue }
    }

    /// The catalog.
    #[must_use]
    pub fn catalog(&self) -> &Arc<dyn Catalog> {
        &self.catalog
    }

    /// Where its calls run.
    #[must_use]
    pub fn blocking(&self) -> &Arc<dyn Blocking> {
        &self.blocking
    }

    /// Runs `read` over a view, where it may block.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn View) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let catalog = Arc::clone(&self.catalog);
        self.blocking.run(move || read(&*catalog.view()?)).await
    }

    /// Runs `change` as a transaction: it sees every transaction before it and none after, its writes are all
    /// durable when this returns `Ok`, and none of them takes place when it returns `Err`.
    ///
    /// The transaction runs to its end even if the caller stops waiting.
    pub async fn transact<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.queue(change, false).await
    }

    /// As [`Writer::transact`], and durable on return even where durability is relaxed: it and all before it.
    pub async fn transact_strictly<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.queue(change, true).await
    }

    /// Waits until every transaction before this call is durable.
    pub async fn barrier(&self) -> Result<()> {
        self.transact_strictly(|_| Ok(())).await
    }

    async fn queue<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T> + Send + 'static,
        strict: bool,
    ) -> Result<T> {
        let (done, outcome) = oneshot::channel();
        let run: Run = Box::new(move |transaction| {
            let result = match transaction {
                Ok(transaction) => change(transaction),
                Err(failure) => Err(uncommitted(failure)),
            };
            let keep = result.is_ok();
            let completion: Completion = Box::new(move |failure| {
                // The caller may have gone.
                let _ = done.send(failure.map_or(result, |failure| Err(uncommitted(failure))));
            });
            (keep, completion)
        });
        if self.queue.send(Job { run, strict }).await.is_err() {
            return Err(CatalogError::Closed.into());
        }
        outcome.await.unwrap_or_else(|_| Err(CatalogError::Closed.into()))
    }
}

async fn run(
    catalog: Arc<dyn Catalog>,
    blocking: Arc<dyn Blocking>,
    mut jobs: mpsc::Receiver<Job>,
    durability: Durability,
) {
    let mut batch = Vec::with_capacity(BATCH_TRANSACTIONS_MAX);
    // Whether something was answered that is not durable yet.
    let mut owed = false;
    loop {
        let received = jobs.recv_many(&mut batch, BATCH_TRANSACTIONS_MAX);
        let received = if owed {
            tokio::time::timeout(RELAXED_LAG_MAX, received).await.unwrap_or(TIMED_OUT)
        } else {
            received.await
        };
        if received == 0 {
            return;
        }
        let work = std::mem::take(&mut batch);
        let strict = durability == Durability::Strict || work.is_empty() || work.iter().any(|job| job.strict);
        let durability = if strict { Durability::Strict } else { Durability::Relaxed };
        // Where nothing is owed, a batch that wrote nothing costs no sync.
        let even_empty = std::mem::replace(&mut owed, !strict);
        let catalog = Arc::clone(&catalog);
        blocking.run(move || commit_together(&*catalog, work, durability, even_empty)).await;
    }
}

fn commit_together(catalog: &dyn Catalog, jobs: Vec<Job>, durability: Durability, even_empty: bool) {
    let view = match catalog.view() {
        Ok(view) => view,
        Err(error) => return fail_all(jobs, error),
    };
    let mut batch = WriteSet::default();
    let mut completions = Vec::with_capacity(jobs.len());
    for job in jobs {
        let mut transaction = Transaction::new(&*view, &batch);
        let (keep, completion) = (job.run)(Ok(&mut transaction));
        let writes = transaction.into_writes();
        if keep || mutant::on(Mutant::KeepFailedWrites) {
            batch.absorb(writes);
        }
        completions.push(completion);
    }
    drop(view);
    if mutant::on(Mutant::AckBeforeCommit) {
        completions.drain(..).for_each(|completion| completion(None));
    }
    let failure =
        if batch.is_empty() && !even_empty { None } else { catalog.apply(&batch, durability).err().map(Arc::new) };
    for completion in completions {
        completion(failure.clone());
    }
}

fn fail_all(jobs: Vec<Job>, error: CatalogError) {
    tracing::error!(error = &error as &dyn std::error::Error, "catalog cannot be read");
    let error = Arc::new(error);
    for job in jobs {
        let (_, completion) = (job.run)(Err(Arc::clone(&error)));
        completion(None);
    }
}

fn uncommitted(failure: Arc<CatalogError>) -> Error {
    Error::Storage { doing: "committing a change", source: failure.into() }
}

impl From<CatalogError> for Error {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::DamagedRow { .. }
            | CatalogError::UnknownFormat { .. }
            | CatalogError::MissingTable { .. } => {
                Error::Damaged { what: "the catalog".to_owned(), source: error.into() }
            }
            CatalogError::Engine { .. } | CatalogError::Closed => {
                Error::Storage { doing: "using the catalog", source: error.into() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryCatalog, Rows, Table};
    use super::*;
    use crate::blocking::Inline;

    fn writer() -> Writer {
        Writer::new(Arc::new(MemoryCatalog::new()), Arc::new(Inline), Durability::Strict)
    }

    #[tokio::test]
    async fn a_failed_closure_leaks_nothing_and_fails_no_neighbour() {
        let writer = writer();
        let good = writer.transact(|txn| {
            txn.put_raw(Table::Meta, b"good".to_vec(), b"1".to_vec());
            Ok(())
        });
        let bad = writer.transact(|txn| {
            txn.put_raw(Table::Meta, b"bad".to_vec(), b"1".to_vec());
            Err::<(), _>(Error::Conflict)
        });
        let (good, bad) = tokio::join!(good, bad);
        assert!(good.is_ok() && matches!(bad, Err(Error::Conflict)));
        let seen = writer.read(|view| Ok((view.get(Table::Meta, b"good")?, view.get(Table::Meta, b"bad")?))).await;
        assert_eq!(seen.expect("reads"), (Some(b"1".to_vec()), None));
    }

    #[tokio::test]
    async fn later_closures_of_a_batch_see_earlier_ones() {
        let writer = writer();
        let count = |txn: &mut Transaction<'_>| {
            let count = txn.get(Table::Meta, b"n")?.map_or(0, |value| value[0]);
            txn.put_raw(Table::Meta, b"n".to_vec(), vec![count + 1]);
            Ok(count)
        };
        let (a, b, c) = tokio::join!(writer.transact(count), writer.transact(count), writer.transact(count));
        let mut seen = [a, b, c].map(|count| count.expect("commits"));
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
    }
}
