//! Health: `/_elton/live` says that the process answers, `/_elton/ready` that it can serve requests.

use std::sync::atomic::{AtomicBool, Ordering};

use federation::Error;
use federation::cluster::Cluster;
use federation::types::BucketName;

/// Answered with 200 as long as the process answers at all.
pub const LIVE_PATH: &str = "/_elton/live";
/// Answered with 200 while the catalog can be read and the server is not stopping, else with 503.
pub const READY_PATH: &str = "/_elton/ready";

/// Why the server is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It was told to stop.
    #[error("the server is stopping")]
    Stopping,
    /// The catalog cannot be read.
    #[error("the catalog cannot be read; the server's log says why")]
    Catalog(#[source] Error),
}

/// Whether the server can serve.
#[derive(Debug, Default)]
pub struct Health {
    stopping: AtomicBool,
}

impl Health {
    /// From now on the server is not ready: it finishes what it has and ends.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether requests can be served: looks one row up in the catalog.
    pub async fn ready(&self, cluster: &Cluster) -> Result<(), NotReady> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(NotReady::Stopping);
        }
        let nobody = "elton-ready".parse::<BucketName>().expect("a lawful name, checked by a test");
        match cluster.bucket(&nobody).await {
            // That there is no such bucket is an answer of the catalog.
            Ok(_) | Err(Error::NoSuchBucket { .. }) => Ok(()),
            Err(error) => Err(NotReady::Catalog(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_name_that_is_looked_up_is_lawful() {
        assert!("elton-ready".parse::<federation::types::BucketName>().is_ok());
    }
}
