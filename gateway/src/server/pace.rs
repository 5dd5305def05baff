//! A lower bound on how fast bytes move while others wait for a place.

use std::sync::Arc;
use std::time::Duration;

use super::places::Places;

/// Speed is judged over so much time that was spent waiting for the client.
const WINDOW: Duration = Duration::from_secs(30);

/// How fast a client moves bytes, as far as it is the client that is waited for.
///
/// A stall timer alone is satisfied by one byte a minute.
#[derive(Debug)]
pub struct Pace {
    places: Arc<Places>,
    bytes_per_second_min: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Judges while `places` are scarce.
    #[must_use]
    pub fn new(places: Arc<Places>, bytes_per_second_min: u64) -> Self {
        Pace { places, bytes_per_second_min, waited: Duration::ZERO, bytes: 0 }
    }

    /// So many bytes moved after so long a wait for the client. Whether that is too slow while others wait for a place.
    pub fn moved(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited += waited;
        if self.waited < WINDOW {
            return false;
        }
        let slow = self.bytes < self.bytes_per_second_min.saturating_mul(self.waited.as_secs());
        if !slow {
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
        slow && self.places.are_scarce()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::super::limits::HttpLimits;
    use super::*;

    #[test]
    fn a_trickle_is_too_slow_only_while_places_are_scarce() {
        let places = Places::new(&HttpLimits { requests_in_flight_max: 2, ..HttpLimits::default() });
        let mut pace = Pace::new(places.clone(), 1024);
        assert!(!pace.moved(1, Duration::from_secs(29)));
        assert!(!pace.moved(1, Duration::from_secs(29)), "nobody waits");
        let peer = Arc::new(Semaphore::new(2));
        let _held = [places.take(&peer), places.take(&peer)];
        assert!(pace.moved(1, Duration::from_secs(1)));
        assert!(!pace.moved(59 * 1024, Duration::ZERO), "fast enough over all");
        assert!(!pace.moved(1, Duration::from_secs(29)), "a new window");
        assert!(pace.moved(1, Duration::from_secs(2)));
    }
}
