//! Bodies as open files, for processes of this host that read them without this one.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Master;
use super::body::{BodyReader, Source, blob_row, stored, verify};
use crate::blobs::StoredBlob;
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};
use crate::types::FileId;

/// A body whose last check is older than this is checked again before it is handed over.
const CHECK_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many checks are remembered.
const CHECKS_MAX: usize = 64 * 1024;

/// Which files were compared with their hashes, and when.
///
/// Nothing is between a reader and the disk once the file is handed over, so that it is done before: the first time in this
/// life of the process, and now and then. What this life wrote was compared on its way in.
#[derive(Debug)]
pub(super) struct Checks {
    /// Files with this id and later ones were written by this life.
    first: FileId,
    /// When it began, since boot.
    opened: Duration,
    /// When the others were checked, since boot.
    files: Mutex<HashMap<FileId, Duration>>,
    /// Held by the check that is under way: one at a time leaves the disk to others.
    turn: tokio::sync::Mutex<()>,
}

impl Checks {
    pub(super) fn new(first: FileId, opened: Duration) -> Checks {
        Checks { first, opened, files: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    fn is_fresh(&self, file: FileId, now: Duration) -> bool {
        let written = (file >= self.first).then_some(self.opened);
        let checked = self.files().get(&file).copied().or(written);
        checked.is_some_and(|checked| now.saturating_sub(checked) < CHECK_AFTER)
    }

    fn note(&self, file: FileId, now: Duration) {
        let mut files = self.files();
        if files.len() >= CHECKS_MAX {
            // Whatever goes is checked once more.
            files.clear();
        }
        files.insert(file, now);
    }

    fn files(&self) -> MutexGuard<'_, HashMap<FileId, Duration>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Master {
    /// A read-only descriptor of a body that is one file here, compared with its hash lately; `None` of any other. Who has
    /// it can read it for as long as they like, whatever becomes of the object.
    pub async fn hand_over(&self, body: BodyReader) -> Result<Option<OwnedFd>> {
        let [(_, Source::Blob(hash))] = body.pieces.as_slice() else { return Ok(None) };
        let hash = *hash;
        let row = self.writer.read(move |view| blob_row(view, hash)).await?;
        let blob = stored(hash, row.ok_or(Error::Conflict)?);
        self.check_file(&blob).await?;
        let (file, backend) = (blob.file, self.blobs.backend().clone());
        // Until it is open, the body's guard keeps the collector away.
        let opened = self.blobs.blocking().run(move || backend.open(file, &hash)).await?;
        drop(body);
        Ok(opened)
    }

    async fn check_file(&self, blob: &StoredBlob) -> Result<()> {
        let file = blob.file;
        if self.checks.is_fresh(file, self.clock.boottime()) || mutant::on(Mutant::HandOverUnchecked) {
            return Ok(());
        }
        let _turn = self.checks.turn.lock().await;
        if self.checks.is_fresh(file, self.clock.boottime()) {
            return Ok(());
        }
        let (blobs, blob) = (self.blobs.clone(), blob.clone());
        self.blobs.blocking().run(move || verify(&blobs, &blob)).await?;
        self.checks.note(file, self.clock.boottime());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_life_wrote_or_checked_is_fresh_for_a_while() {
        let checks = Checks::new(FileId(10), Duration::from_secs(100));
        let now = Duration::from_secs(200);
        assert!(checks.is_fresh(FileId(10), now));
        assert!(!checks.is_fresh(FileId(9), now));
        checks.note(FileId(9), now);
        assert!(checks.is_fresh(FileId(9), now));
        let later = Duration::from_secs(150) + CHECK_AFTER;
        assert!(!checks.is_fresh(FileId(10), later));
        assert!(checks.is_fresh(FileId(9), later));
        assert!(!checks.is_fresh(FileId(9), now + CHECK_AFTER));
    }

    #[test]
    fn no_more_checks_than_agreed_are_remembered() {
        let checks = Checks::new(FileId(u64::MAX), Duration::ZERO);
        for file in 0..=CHECKS_MAX as u64 {
            checks.note(FileId(file), Duration::ZERO);
        }
        assert!(checks.files().len() <= CHECKS_MAX);
    }
}
