//! The reserve: bodies are refused before the disk is full, so that what gives space back still works.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{BackendError, Item, Urgency};
use crate::clock::Clock;
use crate::disk::Disk;

/// How old the answer of the disk may be.
const ANSWER_AGE_MAX: Duration = Duration::from_millis(200);

/// How much may be written on the strength of one answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Says whether there is room for a write.
pub(super) struct Space {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    reserve: u64,
    answer: Mutex<Option<Answer>>,
}

#[derive(Clone, Copy)]
struct Answer {
    /// Free bytes, less what was written since.
    free: u64,
    written: u64,
    at: Duration,
}

impl Space {
    pub(super) fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, reserve: u64) -> Space {
        Space { disk, clock, reserve, answer: Mutex::new(None) }
    }

    pub(super) fn reserve(&self) -> u64 {
        self.reserve
    }

    pub(super) fn free(&self) -> Result<u64, BackendError> {
        self.disk.free_space().map_err(|error| BackendError::from_io(Item::Store, error))
    }

    /// Takes `length` bytes for a write.
    pub(super) fn take(&self, length: u64, urgency: Urgency) -> Result<(), BackendError> {
        if urgency == Urgency::Reserve {
            return Ok(());
        }
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.boottime();
        let known = answer.filter(|known| {
            now.saturating_sub(known.at) < ANSWER_AGE_MAX
                && known.written + length <= ANSWER_BYTES_MAX
                && known.free >= self.reserve + length
        });
        // Nobody is refused by an old answer: space may have been given back since.
        let known = known.map_or_else(|| self.free().map(|free| Answer { free, written: 0, at: now }), Ok)?;
        if known.free < self.reserve.saturating_add(length) {
            return Err(BackendError::NoSpace);
        }
        *answer = Some(Answer { free: known.free - length, written: known.written + length, at: known.at });
        Ok(())
    }
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space").field("reserve", &self.reserve).finish_non_exhaustive()
    }
}
