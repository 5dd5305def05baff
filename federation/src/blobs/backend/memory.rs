//! Bodies in memory: the honest model of a [`Backend`], for tests and simulations.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::claims::{Claims, FileGuard, SlotGuard};
use super::segment::{HEADER_BYTES, decode, encode, record_length};
use super::{
    Backend, BackendError, BodyReader, BodyWriter, Found, Item, SEGMENT_BYTES, SealedSegment, SparseFile, SyncJob,
    Urgency, WrittenFile,
};
use crate::blobs::digest::{Digest, TreeHasher};
use crate::types::{BlobHash, FileId, SegmentId, Slot};

/// Bodies in memory. Everything is durable at once, as long as the process lives.
#[derive(Debug)]
pub struct MemoryBackend {
    segment_bytes: u64,
    claims: Arc<Claims>,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    next_segment: u32,
    active: Option<SegmentId>,
    segments: BTreeMap<SegmentId, Vec<u8>>,
    next_file: u64,
    files: BTreeMap<FileId, (BlobHash, Arc<Vec<u8>>)>,
    sparse: BTreeMap<FileId, Arc<Mutex<Vec<u8>>>>,
}

impl Default for MemoryBackend {
    fn default() -> Self {
        MemoryBackend::new(SEGMENT_BYTES)
    }
}

impl MemoryBackend {
    /// An empty store whose segments grow to `segment_bytes`.
    #[must_use]
    pub fn new(segment_bytes: u64) -> MemoryBackend {
        MemoryBackend { segment_bytes, claims: Arc::default(), held: Arc::default() }
    }

    /// Flips a bit of a small body.
    pub fn damage_slot(&self, slot: &Slot) {
        if let Some(segment) = self.held().segments.get_mut(&slot.segment)
            && let Some(byte) = segment.get_mut(slot.offset as usize + HEADER_BYTES)
        {
            *byte ^= 1;
        }
    }

    /// Flips a bit of a large body.
    pub fn damage_file(&self, file: FileId, offset: usize) {
        if let Some((_, bytes)) = self.held().files.get_mut(&file)
            && let Some(byte) = Arc::make_mut(bytes).get_mut(offset)
        {
            *byte ^= 1;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    fn active_with_room(&mut self, length: usize, segment_bytes: u64) -> SegmentId {
        if let Some(active) = self.active
            && let Some(filled) = self.segments.get(&active).map(Vec::len)
            && (filled == 0 || (filled + length) as u64 <= segment_bytes)
        {
            return active;
        }
        let segment = SegmentId(self.next_segment);
        self.next_segment += 1;
        self.segments.insert(segment, Vec::new());
        self.active = Some(segment);
        segment
    }
}

impl Backend for MemoryBackend {
    fn append(&self, bytes: &[u8], hash: BlobHash, _urgency: Urgency) -> Result<SlotGuard, BackendError> {
        let record = encode(bytes, &hash)?;
        let mut held = self.held();
        let segment = held.active_with_room(record.len(), self.segment_bytes);
        let held = held.segments.entry(segment).or_default();
        let offset = u32::try_from(held.len()).expect("a segment is far shorter than 4 GiB");
        let length = u32::try_from(bytes.len()).expect("a body is at most 8 MiB");
        held.extend_from_slice(&record);
        Ok(self.claims.guard_slot(Slot { segment, offset, length, hash }))
    }

    fn read_slot(&self, slot: &Slot) -> Result<Bytes, BackendError> {
        let length = record_length(slot)?;
        let held = self.held();
        let segment = held.segments.get(&slot.segment).ok_or(BackendError::Missing { what: Item::Slot(*slot) })?;
        let record = segment.get(slot.offset as usize..).and_then(|rest| rest.get(..length));
        decode(Bytes::copy_from_slice(record.ok_or(BackendError::Damaged { what: Item::Slot(*slot) })?), slot)
    }

    fn sync_segments(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn has_failed(&self, _segment: SegmentId) -> bool {
        false
    }

    fn seal_active(&self) {
        self.held().active = None;
    }

    fn sealed_segments(&self) -> Vec<SealedSegment> {
        let held = self.held();
        let sealed = held.segments.iter().filter(|(segment, _)| held.active != Some(**segment));
        let unguarded = sealed.filter(|(segment, _)| !self.claims.has_slots(**segment));
        unguarded.map(|(segment, bytes)| SealedSegment { segment: *segment, length: bytes.len() as u64 }).collect()
    }

    fn segments_unclaimed(&self) -> Vec<SegmentId> {
        self.claims.segments()
    }

    fn remove_segment(&self, segment: SegmentId) -> Result<(), BackendError> {
        let mut held = self.held();
        if held.active == Some(segment) || self.claims.has_slots(segment) {
            let source = std::io::Error::new(std::io::ErrorKind::ResourceBusy, "the segment is in use");
            return Err(BackendError::Io { what: Item::Segment(segment), source: Arc::new(source) });
        }
        held.segments.remove(&segment);
        Ok(())
    }

    fn create(&self, _urgency: Urgency) -> Result<Box<dyn BodyWriter>, BackendError> {
        let mut held = self.held();
        let file = FileId(held.next_file);
        held.next_file += 1;
        Ok(Box::new(MemoryWriter {
            held: Arc::clone(&self.held),
            guard: self.claims.guard_file(file),
            bytes: Vec::new(),
            hasher: TreeHasher::new(),
        }))
    }

    fn create_sparse(&self, length: u64) -> Result<Arc<dyn SparseFile>, BackendError> {
        let mut held = self.held();
        let file = FileId(held.next_file);
        held.next_file += 1;
        let length = usize::try_from(length).map_err(|_| BackendError::NoSpace)?;
        let bytes = Arc::new(Mutex::new(vec![0; length]));
        held.sparse.insert(file, Arc::clone(&bytes));
        Ok(Arc::new(MemorySparse { file, bytes }))
    }

    fn open_sparse(&self, file: FileId, hash: &BlobHash) -> Result<Arc<dyn SparseFile>, BackendError> {
        let held = self.held();
        let whole = || held.files.get(&file).filter(|(content, _)| content == hash);
        let bytes = match (held.sparse.get(&file), whole()) {
            (Some(bytes), _) => Arc::clone(bytes),
            (None, Some((_, bytes))) => Arc::new(Mutex::new(bytes.to_vec())),
            (None, None) => return Err(BackendError::Missing { what: Item::File(file) }),
        };
        Ok(Arc::new(MemorySparse { file, bytes }))
    }

    fn finish_sparse(&self, file: FileId, hash: &BlobHash) -> Result<FileGuard, BackendError> {
        let guard = self.claims.guard_file(file);
        let mut held = self.held();
        if let Some(bytes) = held.sparse.remove(&file) {
            let bytes = lock(&bytes).clone();
            held.files.insert(file, (*hash, Arc::new(bytes)));
        }
        if held.files.contains_key(&file) { Ok(guard) } else { Err(BackendError::Missing { what: Item::File(file) }) }
    }

    fn remove_sparse(&self, file: FileId) -> Result<(), BackendError> {
        self.held().sparse.remove(&file);
        Ok(())
    }

    fn sync_folder(&self, _file: FileId) -> Result<(), BackendError> {
        Ok(())
    }

    fn reader(&self, file: FileId, hash: &BlobHash) -> Result<Arc<dyn BodyReader>, BackendError> {
        let held = self.held();
        let found = held.files.get(&file).filter(|(content, _)| content == hash);
        let (_, bytes) = found.ok_or(BackendError::Missing { what: Item::File(file) })?;
        Ok(Arc::new(MemoryReader { file, bytes: Arc::clone(bytes) }))
    }

    fn open(&self, file: FileId, hash: &BlobHash) -> Result<Option<OwnedFd>, BackendError> {
        self.reader(file, hash).map(|_| None)
    }

    fn remove_file(&self, file: FileId, _hash: &BlobHash) -> Result<(), BackendError> {
        self.held().files.remove(&file);
        Ok(())
    }

    fn remove_unfinished(&self, _file: FileId) -> Result<(), BackendError> {
        Ok(())
    }

    fn list(&self) -> Result<Vec<Found>, BackendError> {
        let held = self.held();
        let segments = held.segments.iter();
        let segments =
            segments.map(|(segment, bytes)| Found::Segment { segment: *segment, length: bytes.len() as u64 });
        let files = held.files.iter().map(|(file, (hash, bytes))| Found::File {
            file: *file,
            hash: *hash,
            length: bytes.len() as u64,
            unclaimed: self.claims.has_file(*file),
        });
        let sparse = held.sparse.iter();
        let sparse = sparse.map(|(file, bytes)| Found::Sparse { file: *file, length: lock(bytes).len() as u64 });
        Ok(segments.chain(files).chain(sparse).collect())
    }

    fn next_ids(&self) -> (SegmentId, FileId) {
        let held = self.held();
        (SegmentId(held.next_segment), FileId(held.next_file))
    }

    fn admit(&self, _length: u64, _urgency: Urgency) -> Result<(), BackendError> {
        Ok(())
    }

    fn free_space(&self) -> Result<u64, BackendError> {
        Ok(u64::MAX)
    }
}

#[derive(Debug)]
struct MemoryWriter {
    held: Arc<Mutex<Held>>,
    guard: FileGuard,
    bytes: Vec<u8>,
    hasher: TreeHasher,
}

fn copy_at(from: &[u8], file: FileId, bytes: &mut [u8], offset: u64) -> Result<(), BackendError> {
    let found = usize::try_from(offset).ok().and_then(|offset| from.get(offset..)?.get(..bytes.len()));
    bytes.copy_from_slice(found.ok_or(BackendError::Damaged { what: Item::File(file) })?);
    Ok(())
}

impl BodyWriter for MemoryWriter {
    fn file(&self) -> FileId {
        self.guard.file()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.bytes.extend_from_slice(bytes);
        self.hasher.update(bytes);
        Ok(())
    }

    fn sync_due(&mut self) -> Option<SyncJob> {
        None
    }

    fn digest(&self) -> Digest {
        self.hasher.digest()
    }

    fn finish(self: Box<Self>) -> Result<WrittenFile, BackendError> {
        let digest = self.digest();
        lock(&self.held).files.insert(self.guard.file(), (digest.hash, Arc::new(self.bytes)));
        Ok(WrittenFile { guard: self.guard, digest })
    }
}

/// A body that may be incomplete.
#[derive(Debug)]
struct MemorySparse {
    file: FileId,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl BodyReader for MemorySparse {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), BackendError> {
        copy_at(&lock(&self.bytes), self.file, bytes, offset)
    }
}

impl SparseFile for MemorySparse {
    fn file(&self) -> FileId {
        self.file
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), BackendError> {
        let mut held = lock(&self.bytes);
        let start = usize::try_from(offset).map_err(|_| BackendError::NoSpace)?;
        let end = start + bytes.len();
        if held.len() < end {
            held.resize(end, 0);
        }
        held[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryReader {
    file: FileId,
    bytes: Arc<Vec<u8>>,
}

impl BodyReader for MemoryReader {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), BackendError> {
        copy_at(&self.bytes, self.file, bytes, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::backend::conformance;

    #[test]
    fn conforms() {
        conformance::run(&MemoryBackend::default());
        conformance::run(&MemoryBackend::new(1000));
    }
}
