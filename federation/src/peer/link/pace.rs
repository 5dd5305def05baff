//! How slow the other side of a body may be: it has to send a little all the time, and to take a piece now and then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How fast a body arrives, as far as its sender is waited for.
///
/// A limit on pauses alone is satisfied by a byte now and then, for ever.
#[derive(Debug)]
pub(super) struct Pace {
    window: Duration,
    bytes_min: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// At least so many bytes in every `window` of waiting.
    pub(super) fn new(window: Duration, bytes_min: u64) -> Pace {
        Pace { window, bytes_min, waited: Duration::ZERO, bytes: 0 }
    }

    /// So many bytes came after so long a wait. Whether that is too slow.
    pub(super) fn moved(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited += waited;
        if self.waited < self.window {
            return false;
        }
        let is_slow = self.bytes < self.bytes_min;
        (self.bytes, self.waited) = (0, Duration::ZERO);
        is_slow
    }

    /// How long a wait may be until it is known whether that is too slow.
    pub(super) fn left(&self) -> Duration {
        self.window - self.waited
    }
}

tokio::task_local! {
    static TAKING: Arc<Taking>;
}

/// Since when the other side leaves a piece of an answer where it is.
///
/// A side that gives a stream no room keeps its connection alive with pings. HTTP/2 then waits for room and polls the
/// body no more, so the body itself cannot notice: the stream's task is watched from beside it.
#[derive(Debug, Default)]
pub(super) struct Taking {
    offered: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Taking {
    /// Of the stream that this task serves.
    pub(super) fn current() -> Option<Arc<Taking>> {
        TAKING.try_with(Arc::clone).ok()
    }

    /// A piece was handed over; the other side has to take it.
    pub(super) fn offer(&self) {
        self.set(Some(Instant::now()));
        self.changed.notify_one();
    }

    /// It was taken.
    pub(super) fn taken(&self) {
        self.set(None);
    }

    fn set(&self, offered: Option<Instant>) {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = offered;
    }

    fn offered(&self) -> Option<Instant> {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn left_for(&self, limit: Duration) {
        loop {
            let Some(offered) = self.offered() else {
                self.changed.notified().await;
                continue;
            };
            tokio::time::sleep_until(offered + limit).await;
            if self.offered() == Some(offered) {
                return;
            }
        }
    }
}

/// Runs the task of a stream until it ends, or a piece of its answer is left for `limit`. Dropping it resets the stream
/// and gives up its body.
pub(super) async fn watched(stream: impl Future<Output: Send>, limit: Duration) {
    let taking = Arc::<Taking>::default();
    tokio::select! {
        biased;
        _ = TAKING.scope(taking.clone(), stream) => {}
        () = taking.left_for(limit) => tracing::info!(limit_seconds = limit.as_secs(), "an answer that nobody takes is given up"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dribble_is_too_slow_and_what_is_not_waited_for_is_not() {
        let seconds = Duration::from_secs;
        let mut pace = Pace::new(seconds(30), 30 * 1024);
        assert!(!pace.moved(1, seconds(29)));
        assert_eq!(pace.left(), seconds(1));
        assert!(pace.moved(1, seconds(1)));
        assert!(!pace.moved(30 * 1024, seconds(30)), "as fast as that is fast enough");
        assert!(!pace.moved(0, seconds(29)), "a new window");
        assert!(!pace.moved(40 * 1024, seconds(1)));
    }
}
