//! A bounded number of files kept open for reading.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::DiskFile;

/// Open files by their id; the one that was not used for longest makes room.
#[derive(Debug)]
pub(super) struct Handles<K> {
    open: Mutex<Open<K>>,
    max: usize,
}

#[derive(Debug)]
struct Open<K> {
    files: HashMap<K, (Arc<dyn DiskFile>, u64)>,
    uses: u64,
}

impl<K: Hash + Eq + Copy> Handles<K> {
    pub(super) fn new(max: usize) -> Self {
        Handles { open: Mutex::new(Open { files: HashMap::new(), uses: 0 }), max: max.max(1) }
    }

    /// The open file `id`, opened if it was not.
    pub(super) fn get(
        &self,
        id: K,
        open: impl FnOnce() -> io::Result<Arc<dyn DiskFile>>,
    ) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open().find(id) {
            return Ok(file);
        }
        let file = open()?;
        self.open().add(id, Arc::clone(&file), self.max);
        Ok(file)
    }

    /// Closes the file `id` once its last reader is done.
    pub(super) fn forget(&self, id: &K) {
        self.open().files.remove(id);
    }

    fn open(&self) -> MutexGuard<'_, Open<K>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Copy> Open<K> {
    fn find(&mut self, id: K) -> Option<Arc<dyn DiskFile>> {
        self.uses += 1;
        let (file, used) = self.files.get_mut(&id)?;
        *used = self.uses;
        Some(Arc::clone(file))
    }

    fn add(&mut self, id: K, file: Arc<dyn DiskFile>, max: usize) {
        if self.files.len() >= max {
            let oldest = self.files.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
            oldest.map(|id| self.files.remove(&id));
        }
        self.files.insert(id, (file, self.uses));
    }
}
