//! The `Clock` seam: time comes in through the door, so that a failing seed replays.

use std::sync::Mutex;
use std::time::Duration;

use crate::types::Timestamp;

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. It may jump either way.
    fn wall(&self) -> Timestamp;

    /// Time since boot, suspended time included. It never runs backwards while the machine is up.
    fn boottime(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the door that wall time comes in through")]
    fn wall(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn boottime(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

/// A clock that stands still until it is told otherwise, for simulations.
#[derive(Debug)]
pub struct ManualClock(Mutex<(Timestamp, Duration)>);

impl ManualClock {
    /// A clock that shows `wall`.
    #[must_use]
    pub fn new(wall: Timestamp) -> Self {
        ManualClock(Mutex::new((wall, Duration::from_secs(1))))
    }

    /// Lets both clocks run on.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().expect("no holder of this lock panics");
        *now = (now.0.plus(by), now.1 + by);
    }

    /// Sets the wall clock alone, as an operator or NTP would.
    pub fn set_wall(&self, wall: Timestamp) {
        self.0.lock().expect("no holder of this lock panics").0 = wall;
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        self.0.lock().expect("no holder of this lock panics").0
    }

    fn boottime(&self) -> Duration {
        self.0.lock().expect("no holder of this lock panics").1
    }
}
