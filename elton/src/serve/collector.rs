//! The collector in the background: a pass now and then, each with a line in the log.

use std::sync::Arc;
use std::time::Duration;

use federation::cluster::Cluster;
use federation::master::CollectOptions;
use tokio::sync::watch;

/// The first pass comes early, so that a server that is restarted often collects at all.
const FIRST_PASS_AFTER: Duration = Duration::from_secs(60);

/// Collects every `interval` until `stop` is true. A pass that has begun is ended.
pub async fn run(cluster: Arc<Cluster>, interval: Duration, mut stop: watch::Receiver<bool>) {
    let mut wait = interval.min(FIRST_PASS_AFTER);
    loop {
        tokio::select! {
            // An error means that the server is gone.
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(wait) => {}
        }
        pass(&cluster).await;
        wait = interval;
    }
}

async fn pass(cluster: &Cluster) {
    let started = tokio::time::Instant::now();
    match cluster.collect(CollectOptions::default()).await {
        Ok(report) => {
            if let Some(warning) = &report.warning {
                tracing::warn!(warning, "the collector left floors where they are");
            }
            tracing::info!(
                numbers_ended = report.numbers_ended,
                versions = report.versions,
                bytes_freed = report.bytes_freed,
                files_removed = report.files_removed,
                bytes_waiting = report.bytes_waiting,
                ms = started.elapsed().as_millis(),
                "collected",
            );
        }
        Err(error) => {
            tracing::error!(error = gateway::server::describe(&error), "the collector failed and will try again");
        }
    }
}
