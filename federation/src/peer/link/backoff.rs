//! How long to wait before the next attempt to dial.

use std::time::Duration;

use crate::ids::IdSource;

/// Doubles from `min` to `max`. What is waited is half of that at least and chosen at random above it, so that peers
/// that lost each other at once do not come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Backoff { min, max, next: min }
    }

    /// Begins anew, after a connection that held.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }

    /// How long to wait this time.
    pub(super) fn next(&mut self, ids: &dyn IdSource) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        let mut random = [0; 2];
        ids.fill(&mut random);
        let half = whole / 2;
        half + half.mul_f64(f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SeededIds;

    #[test]
    fn waits_double_up_to_a_bound_and_begin_anew() {
        let (min, max) = (Duration::from_millis(500), Duration::from_secs(30));
        let mut backoff = Backoff::new(min, max);
        let ids = SeededIds::new(1);
        for whole in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000].map(Duration::from_millis) {
            let waited = backoff.next(&ids);
            assert!(whole / 2 <= waited && waited <= whole, "{waited:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.next(&ids) <= min);
    }

    #[test]
    fn two_peers_wait_differently() {
        let [one, other] = [1, 2].map(|seed| {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
            backoff.next(&SeededIds::new(seed))
        });
        assert_ne!(one, other);
    }
}
