//! Guards of writes that no catalog transaction has claimed yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::{FileId, SegmentId, Slot};

/// Which segments and files hold writes that were not claimed yet.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Unclaimed>);

#[derive(Debug, Default)]
struct Unclaimed {
    /// How many guarded slots each segment has; none are left out.
    slots: BTreeMap<SegmentId, usize>,
    files: BTreeSet<FileId>,
}

impl Claims {
    pub(super) fn guard_slot(self: &Arc<Self>, slot: Slot) -> SlotGuard {
        *self.unclaimed().slots.entry(slot.segment).or_default() += 1;
        SlotGuard { slot, claims: Arc::clone(self) }
    }

    pub(super) fn guard_file(self: &Arc<Self>, file: FileId) -> FileGuard {
        self.unclaimed().files.insert(file);
        FileGuard { file, claims: Arc::clone(self) }
    }

    pub(super) fn has_slots(&self, segment: SegmentId) -> bool {
        self.unclaimed().slots.contains_key(&segment)
    }

    pub(super) fn segments(&self) -> Vec<SegmentId> {
        self.unclaimed().slots.keys().copied().collect()
    }

    pub(super) fn has_file(&self, file: FileId) -> bool {
        self.unclaimed().files.contains(&file)
    }

    fn unclaimed(&self) -> MutexGuard<'_, Unclaimed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot that was appended, with the protection of its segment from the collector.
///
/// It ends with [`SlotGuard::claimed`], after the catalog transaction that owns the slot, or when dropped.
#[derive(Debug)]
#[must_use = "dropping the guard gives the slot up"]
pub struct SlotGuard {
    slot: Slot,
    claims: Arc<Claims>,
}

impl SlotGuard {
    /// Where the body stands.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// A catalog transaction owns the slot now.
    pub fn claimed(self) -> Slot {
        self.slot
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let mut unclaimed = self.claims.unclaimed();
        if let Some(count) = unclaimed.slots.get_mut(&self.slot.segment) {
            *count -= 1;
            if *count == 0 {
                unclaimed.slots.remove(&self.slot.segment);
            }
        }
    }
}

/// A file that was begun or written, with its protection from being swept as unclaimed.
///
/// It ends with [`FileGuard::claimed`], after the catalog transaction that owns the file, or when dropped.
/// Dropping it does not remove the file.
#[derive(Debug)]
#[must_use = "dropping the guard gives the file up"]
pub struct FileGuard {
    file: FileId,
    claims: Arc<Claims>,
}

impl FileGuard {
    /// Which file.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.file
    }

    /// A catalog transaction owns the file now.
    pub fn claimed(self) -> FileId {
        self.file
    }
}

impl Drop for FileGuard {
    fn drop(&mut self) {
        self.claims.unclaimed().files.remove(&self.file);
    }
}
