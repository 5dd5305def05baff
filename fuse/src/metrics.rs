//! What a mount counts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counters since the mount began.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Groups and small bodies that were in the cache.
    pub hits: AtomicU64,
    /// Groups and small bodies that were not.
    pub misses: AtomicU64,
    /// Bytes of bodies that were fetched.
    pub body_bytes: AtomicU64,
    /// Bodies that the server handed over as open files.
    pub handed_over: AtomicU64,
    /// Bytes of hash trees that were fetched.
    pub hash_tree_bytes: AtomicU64,
    /// Pages that were fetched.
    pub pages: AtomicU64,
    /// Their bytes.
    pub page_bytes: AtomicU64,
    /// Files opened for the kernel to read by itself.
    pub passthrough: AtomicU64,
    /// Files opened to be read through this process.
    pub cached: AtomicU64,
    /// Answers that were not what their hash says.
    pub damaged: AtomicU64,
    /// Operations that failed for want of the server, the cache or time.
    pub failures: AtomicU64,
    /// Bodies that were evicted.
    pub evicted: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Groups and small bodies that were in the cache.
    pub hits: u64,
    /// Groups and small bodies that were not.
    pub misses: u64,
    /// Bytes of bodies that were fetched.
    pub body_bytes: u64,
    /// Bodies that the server handed over as open files.
    pub handed_over: u64,
    /// Bytes of hash trees that were fetched.
    pub hash_tree_bytes: u64,
    /// Pages that were fetched.
    pub pages: u64,
    /// Their bytes.
    pub page_bytes: u64,
    /// Files opened for the kernel to read by itself.
    pub passthrough_opens: u64,
    /// Files opened to be read through this process.
    pub cached_opens: u64,
    /// Answers that were not what their hash says.
    pub damaged: u64,
    /// Operations that failed for want of the server, the cache or time.
    pub failures: u64,
    /// Bodies that were evicted.
    pub evicted: u64,
}

/// Counts up.
pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Metrics {
    /// All of them.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            hits: of(&self.hits),
            misses: of(&self.misses),
            body_bytes: of(&self.body_bytes),
            handed_over: of(&self.handed_over),
            hash_tree_bytes: of(&self.hash_tree_bytes),
            pages: of(&self.pages),
            page_bytes: of(&self.page_bytes),
            passthrough_opens: of(&self.passthrough),
            cached_opens: of(&self.cached),
            damaged: of(&self.damaged),
            failures: of(&self.failures),
            evicted: of(&self.evicted),
        }
    }
}
