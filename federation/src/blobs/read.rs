//! Reading bodies. No byte leaves before it was compared with the hash that names it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};

use super::backend::{BackendError, BodyReader, Item};
use super::body::{StoredBlob, StoredOutboard};
use super::digest::{GROUP_BYTES, Outboard};
use super::store::Blobs;
use crate::mutant::{self, Mutant};
use crate::types::{FileId, Slot};

/// How many groups one job reads: 256 KiB.
const WINDOW_GROUPS: u64 = 4;

/// How many windows of a stream are in memory: the one that is sent, and the one that is read meanwhile.
const WINDOWS_IN_FLIGHT_MAX: usize = 2;

impl Blobs {
    /// A small body, compared with its hash. One `Blocking` job.
    pub async fn read_small(&self, slot: Slot) -> Result<Bytes, BackendError> {
        let backend = Arc::clone(&self.shared.backend);
        self.shared.blocking.run(move || backend.read_slot(&slot)).await
    }

    /// A small body, compared with its hash; for use in a `Blocking` job that runs already.
    pub fn read_slot(&self, slot: &Slot) -> Result<Bytes, BackendError> {
        self.shared.backend.read_slot(slot)
    }

    /// A range of a large body, verified, all of it in memory; for use in a `Blocking` job that runs already.
    ///
    /// What of the range is behind the body's end is left out.
    pub fn read_range(&self, blob: &StoredBlob, range: Range<u64>) -> Result<Bytes, BackendError> {
        let range = within(blob, range);
        let groups = groups(&range);
        OpenBlob::new(self, blob.clone()).read(groups, &range)
    }

    /// A range of a large body, each group verified before its bytes leave. Memory is constant: what is read runs one
    /// window of 256 KiB ahead of what is taken. The file stays readable when it is removed meanwhile.
    ///
    /// What of the range is behind the body's end is left out. After an error nothing more of use comes.
    pub fn stream(
        &self,
        blob: StoredBlob,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, BackendError>> + Send + 'static {
        let range = within(&blob, range);
        let blob = Arc::new(OpenBlob::new(self, blob));
        let blocking = Arc::clone(&self.shared.blocking);
        futures_util::stream::iter(windows(groups(&range)))
            .map(move |groups| {
                let (blob, range, blocking) = (Arc::clone(&blob), range.clone(), Arc::clone(&blocking));
                async move { blocking.run(move || blob.read(groups, &range)).await }
            })
            .buffered(WINDOWS_IN_FLIGHT_MAX)
    }
}

/// The hash tree of a large body, proved by its hash. For use in a `Blocking` job.
pub(super) fn stored_outboard(blobs: &Blobs, blob: &StoredBlob) -> Result<Arc<Outboard>, BackendError> {
    OpenBlob::new(blobs, blob.clone()).outboard()
}

fn within(blob: &StoredBlob, range: Range<u64>) -> Range<u64> {
    range.start.min(blob.length)..range.end.min(blob.length)
}

/// The groups that a range is in.
fn groups(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / GROUP_BYTES as u64..range.end.div_ceil(GROUP_BYTES as u64)
}

fn windows(groups: Range<u64>) -> impl Iterator<Item = Range<u64>> + Send {
    let end = groups.end;
    let starts = (groups.start..end).step_by(usize::try_from(WINDOW_GROUPS).expect("a few"));
    starts.map(move |start| start..end.min(start + WINDOW_GROUPS))
}

/// A large body that is read. Its methods are for `Blocking` jobs.
struct OpenBlob {
    blobs: Blobs,
    blob: StoredBlob,
    /// Opened by the first job; the second waits for it here rather than doing the same.
    opened: Mutex<Option<Arc<Opened>>>,
}

struct Opened {
    reader: Arc<dyn BodyReader>,
    outboard: Arc<Outboard>,
}

impl OpenBlob {
    fn new(blobs: &Blobs, blob: StoredBlob) -> OpenBlob {
        OpenBlob { blobs: blobs.clone(), blob, opened: Mutex::new(None) }
    }

    /// What of `range` is in `groups`.
    fn read(&self, groups: Range<u64>, range: &Range<u64>) -> Result<Bytes, BackendError> {
        if groups.is_empty() {
            return Ok(Bytes::new());
        }
        let opened = self.opened()?;
        let start = groups.start * GROUP_BYTES as u64;
        let end = self.blob.length.min(groups.end * GROUP_BYTES as u64);
        let length = usize::try_from(end - start).map_err(|_| self.damaged())?;
        let mut bytes = BytesMut::zeroed(length);
        opened.reader.read_at(&mut bytes, start)?;
        if !self.verify(&opened.outboard, groups.start, &bytes) {
            return Err(self.damaged());
        }
        let wanted = range.start.max(start) - start..range.end.min(end) - start;
        let at = |position: u64| usize::try_from(position).expect("within the buffer");
        Ok(bytes.freeze().slice(at(wanted.start)..at(wanted.end)))
    }

    fn verify(&self, outboard: &Outboard, first: u64, bytes: &[u8]) -> bool {
        if mutant::on(Mutant::ServeUnverified) {
            return true;
        }
        if self.blob.length <= GROUP_BYTES as u64 {
            return blake3::hash(bytes).as_bytes() == &self.blob.hash.0;
        }
        (first..).zip(bytes.chunks(GROUP_BYTES)).all(|(index, group)| outboard.verify_group(index, group))
    }

    fn opened(&self) -> Result<Arc<Opened>, BackendError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*opened {
            return Ok(Arc::clone(opened));
        }
        let reader = self.blobs.shared.backend.reader(self.blob.file, &self.blob.hash)?;
        let outboard = self.outboard()?;
        Ok(Arc::clone(opened.insert(Arc::new(Opened { reader, outboard }))))
    }

    /// The outboard, proved by the hash.
    fn outboard(&self) -> Result<Arc<Outboard>, BackendError> {
        let cache = &self.blobs.shared.outboards;
        let values = match &self.blob.outboard {
            StoredOutboard::None => Bytes::new(),
            StoredOutboard::Inline(values) => Bytes::copy_from_slice(values),
            StoredOutboard::Slot(slot) => match cache.get(self.blob.file) {
                Some(outboard) => return Ok(outboard),
                None => self.blobs.shared.backend.read_slot(slot)?,
            },
        };
        let outboard = Outboard::from_bytes(values).filter(|tree| tree.verify_root(&self.blob.hash, self.blob.length));
        let outboard = Arc::new(outboard.ok_or_else(|| self.damaged())?);
        if let StoredOutboard::Slot(_) = self.blob.outboard {
            cache.add(self.blob.file, &outboard);
        }
        Ok(outboard)
    }

    fn damaged(&self) -> BackendError {
        BackendError::Damaged { what: Item::File(self.blob.file) }
    }
}

/// Outboards that were proved. A file holds one content for ever, so they are never out of date.
pub(super) struct OutboardCache {
    kept: Mutex<Kept>,
    bytes_max: usize,
}

#[derive(Default)]
struct Kept {
    outboards: HashMap<FileId, (Arc<Outboard>, u64)>,
    bytes: usize,
    uses: u64,
}

impl OutboardCache {
    pub(super) fn new(bytes_max: usize) -> OutboardCache {
        OutboardCache { kept: Mutex::default(), bytes_max }
    }

    fn get(&self, file: FileId) -> Option<Arc<Outboard>> {
        let mut kept = self.kept();
        kept.uses += 1;
        let uses = kept.uses;
        let (outboard, used) = kept.outboards.get_mut(&file)?;
        *used = uses;
        Some(Arc::clone(outboard))
    }

    fn add(&self, file: FileId, outboard: &Arc<Outboard>) {
        let length = outboard.as_bytes().len();
        if length > self.bytes_max {
            return;
        }
        let mut kept = self.kept();
        kept.remove(file);
        while kept.bytes + length > self.bytes_max {
            let oldest = kept.outboards.iter().min_by_key(|(_, (_, used))| *used).map(|(file, _)| *file);
            let Some(oldest) = oldest else { break };
            kept.remove(oldest);
        }
        let uses = kept.uses;
        kept.bytes += length;
        kept.outboards.insert(file, (Arc::clone(outboard), uses));
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, file: FileId) {
        if let Some((outboard, _)) = self.outboards.remove(&file) {
            self.bytes -= outboard.as_bytes().len();
        }
    }
}
