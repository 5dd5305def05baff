//! Who reads what, so that the collector leaves it alone.
//!
//! A read announces itself before it looks anything up, and then names the bodies it found. The
//! collector waits for announced reads (a look-up each) and passes over the bodies that are named.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::types::{BlobHash, SegmentId};

/// What a read holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Held {
    Blob(BlobHash),
    Segment(SegmentId),
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// None for a read that still looks up what it will read.
    reads: HashMap<u64, Option<Vec<Held>>>,
}

/// The reads that are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Readers(Arc<Mutex<Table>>);

impl Readers {
    /// Announces a read.
    pub(super) fn announce(&self) -> ReadGuard {
        let mut table = self.0.lock().expect("no holder of this lock panics");
        let id = table.next;
        table.next += 1;
        table.reads.insert(id, None);
        ReadGuard { readers: self.clone(), id }
    }

    /// Reads that were announced and have not said yet what they hold.
    pub(super) fn announced(&self) -> HashSet<u64> {
        let table = self.0.lock().expect("no holder of this lock panics");
        table.reads.iter().filter(|(_, held)| held.is_none()).map(|(id, _)| *id).collect()
    }

    /// Everything that reads hold.
    pub(super) fn held(&self) -> HashSet<Held> {
        let table = self.0.lock().expect("no holder of this lock panics");
        table.reads.values().flatten().flatten().cloned().collect()
    }
}

/// Keeps what a read holds until it is dropped.
#[derive(Debug)]
pub(super) struct ReadGuard {
    readers: Readers,
    id: u64,
}

impl ReadGuard {
    /// Says what the read holds.
    pub(super) fn hold(&self, held: Vec<Held>) {
        self.readers.0.lock().expect("no holder of this lock panics").reads.insert(self.id, Some(held));
    }
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        self.readers.0.lock().expect("no holder of this lock panics").reads.remove(&self.id);
    }
}
