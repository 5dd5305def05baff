//! Bodies on a disk: segments and files below one folder, which one process has for itself.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::claims::{Claims, SlotGuard};
use super::file::Files;
use super::segment::{self, Segments};
use super::space::Space;
use super::{
    Backend, BackendError, BodyReader, BodyWriter, FileGuard, Found, Item, SEGMENT_BYTES, SealedSegment, SparseFile,
    Urgency,
};
use crate::clock::{Clock, SystemClock};
use crate::disk::{Disk, spare};
use crate::types::{BlobHash, FileId, SegmentId, Slot};

/// How a [`LocalBackend`] keeps bodies.
#[derive(Clone)]
pub struct LocalOptions {
    /// How long a segment grows before the next one begins, in bytes.
    pub segment_bytes: u64,
    /// Free space in bytes below which bodies are refused, unless they may use the reserve.
    pub reserve: u64,
    /// No segment id below this one is given out: the catalog knows which were used.
    pub first_segment: SegmentId,
    /// No file id below this one is given out: the catalog knows which were used.
    pub first_file: FileId,
    /// How many segments are kept open for reading.
    pub open_files_max: usize,
    /// Says when the free space is looked at again.
    pub clock: Arc<dyn Clock>,
}

impl Default for LocalOptions {
    fn default() -> Self {
        LocalOptions {
            segment_bytes: SEGMENT_BYTES,
            reserve: 1 << 30,
            first_segment: SegmentId(0),
            first_file: FileId(0),
            open_files_max: 128,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Bodies on a disk.
#[derive(Debug)]
pub struct LocalBackend {
    disk: Arc<dyn Disk>,
    claims: Arc<Claims>,
    space: Arc<Space>,
    segments: Segments,
    files: Arc<Files>,
}

impl LocalBackend {
    /// Opens the store on `disk`, which may be empty. No other process may have it open.
    pub fn open(disk: Arc<dyn Disk>, options: LocalOptions) -> Result<LocalBackend, BackendError> {
        let LocalOptions { segment_bytes, reserve, first_segment, first_file, open_files_max, clock } = options;
        let claims = Arc::new(Claims::default());
        let space = Arc::new(Space::new(Arc::clone(&disk), clock, reserve));
        let segments =
            Segments::open(Arc::clone(&disk), Arc::clone(&claims), segment_bytes, first_segment, open_files_max)?;
        let files = Files::open(Arc::clone(&disk), Arc::clone(&claims), Arc::clone(&space), first_file)?;
        Ok(LocalBackend { disk, claims, space, segments, files: Arc::new(files) })
    }

    fn list_segments(&self, found: &mut Vec<Found>) -> std::io::Result<()> {
        let segments = self.segments.all();
        found.extend(segments.into_iter().map(|(segment, length)| Found::Segment { segment, length }));
        let names = self.disk.list(Path::new(segment::FOLDER))?;
        let foreign = names.into_iter().filter(|name| segment::parse_name(name).is_none());
        found.extend(foreign.map(|name| Found::Foreign { path: format!("{}/{name}", segment::FOLDER) }));
        Ok(())
    }
}

impl Backend for LocalBackend {
    fn append(&self, bytes: &[u8], hash: BlobHash, urgency: Urgency) -> Result<SlotGuard, BackendError> {
        self.space.take(bytes.len() as u64, urgency)?;
        self.segments.append(bytes, hash)
    }

    fn read_slot(&self, slot: &Slot) -> Result<Bytes, BackendError> {
        self.segments.read(slot)
    }

    fn sync_segments(&self) -> Result<(), BackendError> {
        self.segments.sync()
    }

    fn has_failed(&self, segment: SegmentId) -> bool {
        self.segments.has_failed(segment)
    }

    fn seal_active(&self) {
        self.segments.seal_active();
    }

    fn sealed_segments(&self) -> Vec<SealedSegment> {
        self.segments.sealed()
    }

    fn segments_unclaimed(&self) -> Vec<SegmentId> {
        self.claims.segments()
    }

    fn is_unclaimed(&self, segment: SegmentId) -> bool {
        self.claims.has_slots(segment)
    }

    fn remove_segment(&self, segment: SegmentId) -> Result<(), BackendError> {
        self.segments.remove(segment)
    }

    fn create(&self, urgency: Urgency) -> Result<Box<dyn BodyWriter>, BackendError> {
        Ok(Box::new(self.files.create(urgency)?))
    }

    fn create_sparse(&self, length: u64) -> Result<Arc<dyn SparseFile>, BackendError> {
        self.files.create_sparse(length)
    }

    fn open_sparse(&self, file: FileId, hash: &BlobHash) -> Result<Arc<dyn SparseFile>, BackendError> {
        self.files.open_sparse(file, hash)
    }

    fn finish_sparse(&self, file: FileId, hash: &BlobHash) -> Result<FileGuard, BackendError> {
        self.files.finish_sparse(file, hash)
    }

    fn remove_sparse(&self, file: FileId) -> Result<(), BackendError> {
        self.files.remove_sparse(file)
    }

    fn sync_folder(&self, file: FileId) -> Result<(), BackendError> {
        self.files.sync_folder(file)
    }

    fn reader(&self, file: FileId, hash: &BlobHash) -> Result<Arc<dyn BodyReader>, BackendError> {
        Ok(Arc::new(self.files.reader(file, hash)?))
    }

    fn open(&self, file: FileId, hash: &BlobHash) -> Result<Option<OwnedFd>, BackendError> {
        self.files.descriptor(file, hash)
    }

    fn remove_file(&self, file: FileId, hash: &BlobHash) -> Result<(), BackendError> {
        self.files.remove(file, hash)
    }

    fn remove_unfinished(&self, file: FileId) -> Result<(), BackendError> {
        self.files.remove_unfinished(file)
    }

    fn list(&self) -> Result<Vec<Found>, BackendError> {
        let mut found = Vec::new();
        let listed = self.list_segments(&mut found).and_then(|()| self.files.list(&mut found));
        listed.map_err(|error| BackendError::from_io(Item::Store, error))?;
        Ok(found)
    }

    fn next_ids(&self) -> (SegmentId, FileId) {
        (self.segments.next(), self.files.next())
    }

    fn admit(&self, length: u64, urgency: Urgency) -> Result<(), BackendError> {
        self.space.take(length, urgency)
    }

    fn free_space(&self) -> Result<u64, BackendError> {
        self.space.free()
    }

    fn release_spare(&self) -> Result<bool, BackendError> {
        spare::release(&*self.disk).map_err(|error| BackendError::from_io(Item::Store, error))
    }

    fn keep_spare(&self) -> Result<(), BackendError> {
        spare::keep(&*self.disk, self.space.reserve()).map_err(|error| BackendError::from_io(Item::Store, error))
    }
}

#[cfg(test)]
mod tests;
