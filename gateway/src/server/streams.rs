//! HTTP/2 streams: each ends when its client gives no room for the reply.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

tokio::task_local! {
    static WATCH: Arc<ReplyWatch>;
}

/// Since when a client leaves bytes of a reply where they are.
///
/// A stalled socket says nothing about HTTP/2: a client that gives a stream no window keeps the connection alive with
/// pings. hyper then waits for room and polls the body no more, so the body itself cannot notice.
#[derive(Debug, Default)]
pub struct ReplyWatch {
    offered: Mutex<Option<Instant>>,
    changed: Notify,
}

impl ReplyWatch {
    /// The watch of the HTTP/2 stream that this task serves; none on HTTP/1.
    #[must_use]
    pub fn current() -> Option<Arc<Self>> {
        WATCH.try_with(Arc::clone).ok()
    }

    /// Bytes were handed over; the client has to take them.
    pub fn offer(&self) {
        self.set(Some(Instant::now()));
        self.changed.notify_one();
    }

    /// The bytes were taken.
    pub fn taken(&self) {
        self.set(None);
    }

    fn set(&self, offered: Option<Instant>) {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = offered;
    }

    fn offered(&self) -> Option<Instant> {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once bytes were left for `timeout`.
    async fn stalled(&self, timeout: Duration) {
        loop {
            let Some(offered) = self.offered() else {
                self.changed.notified().await;
                continue;
            };
            tokio::time::sleep_until(offered + timeout).await;
            if self.offered() == Some(offered) {
                return;
            }
        }
    }
}

/// Runs the streams of HTTP/2 connections, each as a task of its own.
#[derive(Clone, Debug)]
pub struct StreamExecutor {
    write_stall_timeout: Duration,
}

impl StreamExecutor {
    /// A stream whose client takes no bytes for `write_stall_timeout` is reset.
    #[must_use]
    pub fn new(write_stall_timeout: Duration) -> Self {
        StreamExecutor { write_stall_timeout }
    }
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(watched(stream, self.write_stall_timeout));
    }
}

async fn watched(stream: impl Future<Output = ()>, timeout: Duration) {
    let watch = Arc::<ReplyWatch>::default();
    tokio::select! {
        biased;
        () = WATCH.scope(watch.clone(), stream) => {}
        // Dropping the stream resets it and gives up its reply.
        () = watch.stalled(timeout) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    async fn reply(pauses: &[u64]) {
        let watch = ReplyWatch::current().expect("within a stream");
        for pause in pauses {
            // What the server itself takes is not the client's time.
            tokio::time::sleep(TIMEOUT * 2).await;
            watch.offer();
            tokio::time::sleep(Duration::from_secs(*pause)).await;
            watch.taken();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_reply_is_left() {
        let started = Instant::now();
        watched(reply(&[59, 59]), TIMEOUT).await;
        assert_eq!(started.elapsed().as_secs(), 2 * (120 + 59));
        let started = Instant::now();
        watched(reply(&[59, 3600]), TIMEOUT).await;
        assert_eq!(started.elapsed().as_secs(), 120 + 59 + 120 + 60);
        assert!(ReplyWatch::current().is_none());
    }
}
