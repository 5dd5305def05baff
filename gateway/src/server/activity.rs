//! Whether a connection has anything to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The requests of one connection.
#[derive(Debug)]
pub struct Activity {
    opened: Instant,
    in_flight: AtomicUsize,
    begun: AtomicU64,
    // Milliseconds after `opened` at which the last request ended.
    quiet_since: AtomicU64,
}

impl Activity {
    /// A connection that was opened now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Activity {
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            quiet_since: AtomicU64::new(0),
        })
    }

    /// A request begins; it ends when what is returned is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(self.clone())
    }

    /// When the connection was opened.
    #[must_use]
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// How many requests have begun so far.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Since when there is no request, unless there is one.
    #[must_use]
    pub fn quiet_since(&self) -> Option<Instant> {
        let since = self.opened + Duration::from_millis(self.quiet_since.load(Ordering::SeqCst));
        (self.in_flight.load(Ordering::SeqCst) == 0).then_some(since)
    }

    /// Returns once there was no request for `timeout`.
    pub async fn idle(&self, timeout: Duration) {
        loop {
            let wait = match self.quiet_since() {
                Some(since) if since.elapsed() >= timeout => return,
                Some(since) => timeout.saturating_sub(since.elapsed()),
                None => timeout,
            };
            // At least a tick: milliseconds are rounded down.
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        }
    }
}

/// A request in flight on a connection.
#[derive(Debug)]
pub struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.quiet_since.store(now, Ordering::SeqCst);
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_without_requests() {
        let activity = Activity::new();
        let request = activity.begin();
        let timeout = Duration::from_secs(10);
        assert!(tokio::time::timeout(Duration::from_secs(60), activity.idle(timeout)).await.is_err());
        drop(request);
        assert!(tokio::time::timeout(Duration::from_secs(21), activity.idle(timeout)).await.is_ok());
        assert_eq!(activity.begun(), 1);
    }
}
