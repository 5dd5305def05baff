//! Counters of the changes that are sent to other clusters: none is used twice, also across restarts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::catalog::rows::{PublishRow, Record};
use crate::catalog::{KeyRange, Table, keys, tables};
use crate::error::Result;
use crate::master::Master;
use crate::types::BucketId;

/// How many counters one transaction reserves.
const RESERVED: u64 = 1024;
/// Faster than this, over a whole life, no cluster sends changes.
const COUNTERS_PER_MILLISECOND: u64 = 1024;

#[derive(Debug)]
struct State {
    next: u64,
    /// Below this one counters are reserved.
    reserved: u64,
    /// Those whose outcome is not known here yet, and which bucket each is about.
    open: BTreeMap<u64, BucketId>,
}

/// The counters of this cluster's changes.
#[derive(Debug)]
pub(super) struct Counters {
    state: Mutex<State>,
    /// Held while more are reserved.
    reserving: tokio::sync::Mutex<()>,
}

impl Counters {
    /// Goes on behind what an earlier life may have used. Also says which changes that one left open.
    ///
    /// Counters begin with the time: a life whose catalog is an older copy uses none that were used since the copy was
    /// made, which homes would answer by what they made then.
    pub(super) async fn open(master: &Master) -> Result<(Counters, Vec<u64>)> {
        let by_time = master.clock().wall().0.saturating_mul(COUNTERS_PER_MILLISECOND);
        let (next, open) = master
            .writer()
            .read(move |view| {
                let bytes = view.get(Table::Meta, tables::META_COUNTER)?;
                let next = bytes.and_then(|bytes| bytes.try_into().ok()).map_or(1, u64::from_be_bytes);
                let mut open = BTreeMap::new();
                for row in view.range(Table::Publishes, KeyRange::prefix(&[]))? {
                    let (key, value) = row?;
                    let row = PublishRow::decode(&value)?;
                    open.extend(key.try_into().ok().map(|counter| (u64::from_be_bytes(counter), row.bucket)));
                }
                Ok((next.max(by_time), open))
            })
            .await?;
        let left = open.keys().copied().collect();
        let state = Mutex::new(State { next, reserved: next, open });
        Ok((Counters { state, reserving: tokio::sync::Mutex::default() }, left))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next counter, for a change of a bucket. It stays open until [`Counters::settle`].
    pub(super) async fn next(&self, master: &Master, bucket: BucketId) -> Result<u64> {
        loop {
            if let Some(counter) = self.take(bucket) {
                return Ok(counter);
            }
            let _one_at_a_time = self.reserving.lock().await;
            let reserved = {
                let state = self.state();
                if state.next < state.reserved {
                    continue;
                }
                state.reserved + RESERVED
            };
            master
                .writer()
                .transact_strictly(move |txn| {
                    txn.put_raw(Table::Meta, tables::META_COUNTER.to_vec(), reserved.to_be_bytes().to_vec());
                    Ok(())
                })
                .await?;
            self.state().reserved = reserved;
        }
    }

    fn take(&self, bucket: BucketId) -> Option<u64> {
        let mut state = self.state();
        if state.next >= state.reserved {
            return None;
        }
        let counter = state.next;
        state.next += 1;
        state.open.insert(counter, bucket);
        Some(counter)
    }

    /// The outcome of a change is known, and written down.
    pub(super) fn settle(&self, counter: u64) {
        self.state().open.remove(&counter);
    }

    /// Below this counter every outcome is known of changes to the buckets that are meant: those of one home. What is
    /// open at another home must not keep this one from forgetting.
    pub(super) fn settled(&self, meant: impl Fn(BucketId) -> bool) -> u64 {
        let state = self.state();
        let mut open = state.open.iter().filter(|(_, bucket)| meant(**bucket));
        open.next().map_or(state.next, |(counter, _)| *counter)
    }
}

/// The key of a change whose outcome is not known.
pub(super) fn key(counter: u64) -> Vec<u8> {
    keys::publish(counter)
}
