//! What an earlier life of the process left behind: bodies whose transaction never committed, and answers to uploads
//! that were completed.

use std::collections::HashSet;
use std::time::Duration;

use super::super::Master;
use super::super::body::blob_row;
use super::super::request::CollectReport;
use crate::catalog::rows::{CompletedRow, Record};
use crate::catalog::{KeyRange, Rows, Table};
use crate::error::Result;
use crate::types::{BlobHash, FileId, SegmentId};

/// How long leftovers are kept after a start, unless space is wanted now.
const LEFTOVERS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a completed upload answers a repeated completion.
const COMPLETIONS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What was there at the start and the catalog does not know, or may know too little of.
#[derive(Debug, Default)]
pub(in super::super) struct Leftovers {
    pub(in super::super) files: Vec<(FileId, BlobHash, u64)>,
    pub(in super::super) segments: HashSet<SegmentId>,
}

impl Master {
    /// Whether leftovers may go.
    fn may_take_leftovers(&self, now: bool) -> bool {
        now || self.clock.boottime().saturating_sub(self.opened) >= LEFTOVERS_KEPT
    }

    /// Segments that are not to be compacted yet.
    pub(super) fn kept_segments(&self, now: bool) -> HashSet<SegmentId> {
        let mut leftovers = self.leftovers.lock().expect("no holder of this lock panics");
        if self.may_take_leftovers(now) {
            leftovers.segments.clear();
        }
        leftovers.segments.clone()
    }

    /// Removes bodies of an earlier life that the catalog still does not know.
    pub(super) async fn remove_leftovers(&self, report: &mut CollectReport, now: bool) -> Result<()> {
        if !self.may_take_leftovers(now) {
            return Ok(());
        }
        let files = std::mem::take(&mut self.leftovers.lock().expect("no holder of this lock panics").files);
        let backend = self.blobs.backend().clone();
        let (count, bytes) = self
            .writer
            .read(move |view| {
                let mut removed = (0, 0);
                for (file, hash, length) in files {
                    if blob_row(view, hash)?.is_some_and(|row| row.file == file) {
                        continue;
                    }
                    match backend.remove_file(file, &hash) {
                        Ok(()) => removed = (removed.0 + 1, removed.1 + length),
                        Err(error) => tracing::warn!(file = file.0, %error, "leftover body not removed"),
                    }
                }
                Ok(removed)
            })
            .await?;
        report.files_removed += count;
        report.bytes_freed += bytes;
        Ok(())
    }

    /// Forgets uploads that were completed long ago.
    pub(super) async fn forget_completions(&self) -> Result<()> {
        let (limit, before) = (self.limits.collect_rows_max, self.clock.wall().minus(COMPLETIONS_KEPT));
        let mut from = std::ops::Bound::Unbounded;
        loop {
            let range = KeyRange::prefix(&[]).starting(from);
            let last = self
                .writer
                .transact(move |txn| {
                    let rows: Vec<_> = txn.range(Table::Completed, range)?.take(limit).collect::<Result<_, _>>()?;
                    for (key, value) in &rows {
                        if CompletedRow::decode(value)?.time < before {
                            txn.remove(Table::Completed, key.clone());
                        }
                    }
                    Ok(if rows.len() < limit { None } else { rows.into_iter().next_back().map(|(key, _)| key) })
                })
                .await?;
            match last {
                Some(last) => from = std::ops::Bound::Excluded(last),
                None => return Ok(()),
            }
        }
    }
}
