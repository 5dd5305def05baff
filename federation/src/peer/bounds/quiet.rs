//! Log lines that strangers can cause, at a bounded rate.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long it is quiet after a line.
const QUIET: Duration = Duration::from_secs(10);

/// Lets one line through at a time, and counts what it kept back.
#[derive(Debug, Default)]
pub(in crate::peer) struct Quiet(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    kept_back: u64,
}

impl Quiet {
    /// Whether a line may be written now; if so, how many were kept back since the last one.
    pub(in crate::peer) fn pass(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| last.elapsed() < QUIET) {
            state.kept_back += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_are_kept_back_and_counted() {
        let quiet = Quiet::default();
        assert_eq!(quiet.pass(), Some(0));
        assert_eq!((quiet.pass(), quiet.pass()), (None, None));
        tokio::time::advance(QUIET).await;
        assert_eq!(quiet.pass(), Some(2));
    }
}
