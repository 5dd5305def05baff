//! The `Blocking` seam: disk and catalog calls run on threads in production and inline in simulation.

use std::future::Future;
use std::pin::Pin;

/// A job that may block.
pub type Job = Box<dyn FnOnce() + Send>;

/// Where jobs that may block run. A job runs exactly once, to its end, even when nobody waits for it any more.
pub trait Blocking: Send + Sync + 'static {
    /// Runs `job` and returns when it has ended.
    fn run_job(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl dyn Blocking {
    /// Runs `work` where it may block and returns what it returned.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = tokio::sync::oneshot::channel();
        self.run_job(Box::new(move || {
            // The caller may have gone; the work was still to be done.
            let _ = done.send(work());
        }))
        .await;
        result.await.expect("a job runs to its end: a panic aborts the process")
    }
}

/// Tokio's blocking threads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Threads;

impl Blocking for Threads {
    fn run_job(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let task = tokio::task::spawn_blocking(job);
        Box::pin(async move { task.await.expect("a job runs to its end: a panic aborts the process") })
    }
}

/// The caller's own thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inline;

impl Blocking for Inline {
    fn run_job(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        job();
        Box::pin(std::future::ready(()))
    }
}
