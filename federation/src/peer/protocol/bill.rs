//! What crosses between clusters, by whom it is exchanged with, what it is about and what it is spent on.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::message::Purpose;
use crate::types::{BucketId, MemberId};

/// How many items a bill has; what comes later is counted without its bucket.
const ITEMS_MAX: usize = 10_000;

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

/// What crossed to and from whom, and what for.
#[derive(Debug, Default)]
pub struct Bill(Mutex<BTreeMap<(MemberId, Cost), Crossed>>);

impl Bill {
    /// Counts bytes of messages and bodies; what HTTP and TLS add is not in it.
    pub fn count(&self, member: MemberId, cost: Cost, sent: u64, received: u64) {
        let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (member, cost);
        if items.len() >= ITEMS_MAX && !items.contains_key(&key) {
            key.1.bucket = None;
        }
        let crossed = items.entry(key).or_default();
        crossed.sent += sent;
        crossed.received += received;
    }

    /// All that was counted since the process began.
    #[must_use]
    pub fn items(&self) -> Vec<((MemberId, Cost), Crossed)> {
        let items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        items.iter().map(|(key, crossed)| (*key, *crossed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_has_an_end() {
        let (bill, member) = (Bill::default(), MemberId([1; 16]));
        for number in 0..2 * ITEMS_MAX as u64 {
            let mut bucket = [0; 16];
            bucket[..8].copy_from_slice(&number.to_be_bytes());
            bill.count(member, Cost { purpose: Purpose::Read, bucket: Some(BucketId(bucket)) }, 1, 2);
        }
        let items = bill.items();
        assert_eq!(items.len(), ITEMS_MAX + 1);
        assert_eq!(items.iter().map(|(_, crossed)| crossed.received).sum::<u64>(), 4 * ITEMS_MAX as u64);
    }
}
