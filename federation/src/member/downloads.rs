//! The downloads that are under way: what one of them brings is not asked for by another.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::delta::WINDOW_BYTES;
use super::download::{Download, Extent};
use crate::types::{BlobHash, BucketId};

/// How much of a body one download of a part brings at the most, in bytes.
const PART_BYTES_MAX: u64 = WINDOW_BYTES;
/// Who has a download under way: this list, and the task that brings it.
const UNREAD: usize = 2;

/// A body, as it is known here.
pub(super) type Key = (BucketId, BlobHash);

/// The downloads of each body. Those of parts never overlap; whoever brings all of it leaves out what they bring.
#[derive(Clone, Debug, Default)]
pub(super) struct Downloads(Arc<Mutex<HashMap<Key, Vec<Arc<Download>>>>>);

impl Downloads {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, Vec<Arc<Download>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The download of a whole body, which is begun unless it is under way.
    pub(super) fn whole(&self, key: Key, begin: impl FnOnce() -> Arc<Download>) -> Arc<Download> {
        let mut all = self.all();
        let downloads = all.entry(key).or_default();
        if let Some(download) = downloads.iter().find(|download| download.extent == Extent::Whole) {
            return Arc::clone(download);
        }
        let download = begin();
        downloads.push(Arc::clone(&download));
        download
    }

    /// The download that brings the beginning of a range, and whether it was begun for this: of as much as nobody else
    /// brings.
    pub(super) fn at(
        &self,
        key: Key,
        range: &Range<u64>,
        begin: impl FnOnce(Range<u64>) -> Arc<Download>,
    ) -> (Arc<Download>, bool) {
        let mut all = self.all();
        let downloads = all.entry(key).or_default();
        match unbrought(downloads.iter(), range) {
            Ok(free) => {
                let download = begin(free.start..free.end.min(free.start + PART_BYTES_MAX));
                downloads.push(Arc::clone(&download));
                (download, true)
            }
            Err(download) => (Arc::clone(download), false),
        }
    }

    /// As much of the beginning of a range as nobody brings but `own`; else who does.
    pub(super) fn free(&self, key: Key, own: &Arc<Download>, range: &Range<u64>) -> Result<Range<u64>, Arc<Download>> {
        let all = self.all();
        let others = all.get(&key).into_iter().flatten().filter(|download| !Arc::ptr_eq(download, own));
        unbrought(others, range).map_err(Arc::clone)
    }

    /// A download has ended: nobody finds it any more.
    pub(super) fn end(&self, key: Key, download: &Arc<Download>) {
        remove(&mut self.all(), key, download);
    }

    /// Ends a download that nobody reads. From then on nobody finds it.
    pub(super) fn end_if_unread(&self, key: Key, download: &Arc<Download>) -> bool {
        if Arc::strong_count(download) > UNREAD {
            return false;
        }
        let mut all = self.all();
        // Whoever begins to read it does so under the lock.
        let unread = Arc::strong_count(download) <= UNREAD;
        if unread {
            remove(&mut all, key, download);
        }
        unread
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }
}

fn remove(all: &mut HashMap<Key, Vec<Arc<Download>>>, key: Key, download: &Arc<Download>) {
    let Some(downloads) = all.get_mut(&key) else { return };
    downloads.retain(|other| !Arc::ptr_eq(other, download));
    if downloads.is_empty() {
        all.remove(&key);
    }
}

/// The beginning of a range that none of some downloads brings, or the one that does; the shortest, if several do.
fn unbrought<'d>(
    downloads: impl Iterator<Item = &'d Arc<Download>> + Clone,
    range: &Range<u64>,
) -> Result<Range<u64>, &'d Arc<Download>> {
    let covering = downloads.clone().filter(|download| download.range.contains(&range.start));
    if let Some(download) = covering.min_by_key(|download| download.range.end - download.range.start) {
        return Err(download);
    }
    let next = downloads.map(|download| download.range.start).filter(|start| *start > range.start).min();
    Ok(range.start..next.map_or(range.end, |next| next.min(range.end)))
}

#[cfg(test)]
mod tests {
    use super::super::download::Progress;
    use super::*;
    use crate::watch;

    const KEY: Key = (BucketId([1; 16]), BlobHash([2; 32]));

    fn begun(extent: Extent, range: Range<u64>) -> Arc<Download> {
        Arc::new(Download::new(extent, range, watch::Sender::new(Progress::default()).subscribe()))
    }

    #[test]
    fn parts_do_not_overlap() {
        let downloads = Downloads::default();
        let part = |range: Range<u64>| downloads.at(KEY, &range, |range| begun(Extent::Part, range));
        let (first, new) = part(100..200);
        assert!(new && first.range == (100..200));
        let (before, new) = part(50..300);
        assert!(new && before.range == (50..100), "what another brings is left out");
        let (joined, new) = part(150..400);
        assert!(!new && Arc::ptr_eq(&joined, &first));
        let (long, _) = part(200..u64::MAX);
        assert_eq!(long.range, 200..200 + PART_BYTES_MAX);

        let whole = downloads.whole(KEY, || begun(Extent::Whole, 0..1000));
        assert!(Arc::ptr_eq(&whole, &downloads.whole(KEY, || unreachable!("it is under way"))));
        assert_eq!(downloads.free(KEY, &whole, &(0..1000)).expect("nobody brings it"), 0..50);
        assert!(Arc::ptr_eq(&downloads.free(KEY, &whole, &(50..1000)).expect_err("brought"), &before));
        assert!(Arc::ptr_eq(&part(0..10).0, &whole));
        for download in [&first, &before, &long, &whole] {
            downloads.end(KEY, download);
        }
        assert!(downloads.is_empty());
    }

    #[test]
    fn one_that_nobody_reads_ends_and_is_not_found_again() {
        let downloads = Downloads::default();
        let (read, _) = downloads.at(KEY, &(0..100), |range| begun(Extent::Part, range));
        let task = Arc::clone(&read);
        assert!(!downloads.end_if_unread(KEY, &task));
        drop(read);
        assert!(downloads.end_if_unread(KEY, &task));
        assert!(downloads.at(KEY, &(0..100), |range| begun(Extent::Part, range)).1);
    }
}
