//! What crosses between clusters, by whom it is exchanged with, what it is about and what it is spent on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::message::Purpose;
use crate::clock::Clock;
use crate::types::{BucketId, MemberId, Timestamp};

/// How many items a bill has; what comes later is counted without its bucket.
const ITEMS_MAX: usize = 10_000;

const DAY_MILLISECONDS: u64 = 24 * 60 * 60 * 1000;

/// What bytes are counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost {
    /// What they are spent on.
    pub purpose: Purpose,
    /// The bucket that they are about, if they are about one.
    pub bucket: Option<BucketId>,
}

/// Bytes that crossed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    /// To the other cluster.
    pub sent: u64,
    /// From it.
    pub received: u64,
}

impl Crossed {
    fn add(&mut self, sent: u64, received: u64) {
        self.sent += sent;
        self.received += received;
    }
}

/// What crossed to and from whom, and what for.
pub struct Bill {
    clock: Arc<dyn Clock>,
    /// When counting began.
    began: Timestamp,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    all: BTreeMap<(MemberId, Cost), Crossed>,
    /// The day, in days since 1970 UTC, that `today` is about.
    day: u64,
    today: BTreeMap<(MemberId, Purpose), Crossed>,
}

impl Counted {
    fn turn_to(&mut self, day: u64) {
        if self.day != day {
            self.day = day;
            self.today.clear();
        }
    }
}

impl Bill {
    /// An empty bill, by days of the wall clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Bill {
        Bill { began: clock.wall(), clock, counted: Mutex::default() }
    }

    /// Counts bytes of messages and bodies; what HTTP and TLS add is not in it.
    pub fn count(&self, member: MemberId, cost: Cost, sent: u64, received: u64) {
        let mut counted = self.counted();
        let mut key = (member, cost);
        if counted.all.len() >= ITEMS_MAX && !counted.all.contains_key(&key) {
            key.1.bucket = None;
        }
        counted.all.entry(key).or_default().add(sent, received);
        counted.today.entry((member, cost.purpose)).or_default().add(sent, received);
    }

    /// All that was counted since the process began.
    #[must_use]
    pub fn items(&self) -> Vec<((MemberId, Cost), Crossed)> {
        self.counted().all.iter().map(|(key, crossed)| (*key, *crossed)).collect()
    }

    /// What was counted since the day began (UTC), or the process if that was later, and since when that is.
    #[must_use]
    pub fn today(&self) -> (Timestamp, Vec<((MemberId, Purpose), Crossed)>) {
        let counted = self.counted();
        let since = Timestamp(counted.day * DAY_MILLISECONDS).max(self.began);
        (since, counted.today.iter().map(|(key, crossed)| (*key, *crossed)).collect())
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        let day = self.clock.wall().0 / DAY_MILLISECONDS;
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.turn_to(day);
        counted
    }
}

impl fmt::Debug for Bill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bill").field("items", &self.counted().all.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    const MEMBER: MemberId = MemberId([1; 16]);

    #[test]
    fn a_bill_has_an_end() {
        let bill = Bill::new(Arc::new(ManualClock::new(Timestamp(0))));
        for number in 0..2 * ITEMS_MAX as u64 {
            let mut bucket = [0; 16];
            bucket[..8].copy_from_slice(&number.to_be_bytes());
            bill.count(MEMBER, Cost { purpose: Purpose::Read, bucket: Some(BucketId(bucket)) }, 1, 2);
        }
        let items = bill.items();
        assert_eq!(items.len(), ITEMS_MAX + 1);
        assert_eq!(items.iter().map(|(_, crossed)| crossed.received).sum::<u64>(), 4 * ITEMS_MAX as u64);
    }

    #[test]
    fn a_day_begins_with_nothing() {
        let morning = Timestamp(3 * DAY_MILLISECONDS + 5000);
        let clock = Arc::new(ManualClock::new(morning));
        let bill = Bill::new(clock.clone());
        let cost = Cost { purpose: Purpose::Relay, bucket: Some(BucketId([2; 16])) };
        bill.count(MEMBER, cost, 10, 20);
        bill.count(MEMBER, Cost { bucket: None, ..cost }, 1, 2);
        let crossed = Crossed { sent: 11, received: 22 };
        assert_eq!(bill.today(), (morning, vec![((MEMBER, Purpose::Relay), crossed)]));
        clock.advance(Duration::from_millis(DAY_MILLISECONDS));
        assert_eq!(bill.today(), (Timestamp(4 * DAY_MILLISECONDS), vec![]));
        bill.count(MEMBER, cost, 1, 0);
        assert_eq!(bill.today().1, vec![((MEMBER, Purpose::Relay), Crossed { sent: 1, received: 0 })]);
        assert_eq!(bill.items().iter().map(|(_, crossed)| crossed.sent).sum::<u64>(), 12);
    }
}
