//! Segments: append-only files of records, each a header and a small body.
//!
//! Bytes of a record: [`MAGIC`], the body's length (`u32`, little-endian), its BLAKE3 hash, the body.
//! A segment is written in one life of the process only, and its id is never used again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::claims::{Claims, SlotGuard};
use super::handles::Handles;
use super::{APPEND_BYTES_MAX, BackendError, Item, SealedSegment};
use crate::disk::{Disk, DiskFile};
use crate::mutant::{self, Mutant};
use crate::types::{BlobHash, SegmentId, Slot};

/// The folder of the segments.
pub(super) const FOLDER: &str = "segments";

/// What a record begins with. The digit is the format's version.
const MAGIC: [u8; 4] = *b"els1";

/// A record's bytes before its body.
pub(super) const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>() + blake3::OUT_LEN;

/// A record's bytes.
pub(super) fn encode(bytes: &[u8], hash: &BlobHash) -> Result<Vec<u8>, BackendError> {
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= APPEND_BYTES_MAX);
    let Some(length) = length else {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the body is too long for a segment");
        return Err(BackendError::from_io(Item::Store, source));
    };
    let mut record = Vec::with_capacity(HEADER_BYTES + bytes.len());
    record.extend_from_slice(&MAGIC);
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&hash.0);
    record.extend_from_slice(bytes);
    Ok(record)
}

/// How many bytes the record in `slot` has; `Damaged` where no record is as long as that.
pub(super) fn record_length(slot: &Slot) -> Result<usize, BackendError> {
    let body = usize::try_from(slot.length).ok().filter(|length| *length <= APPEND_BYTES_MAX);
    body.map(|length| HEADER_BYTES + length).ok_or(BackendError::Damaged { what: Item::Slot(*slot) })
}

/// The body in a record, if the record is the one that `slot` names and is whole.
pub(super) fn decode(record: Bytes, slot: &Slot) -> Result<Bytes, BackendError> {
    let header = [&MAGIC[..], &slot.length.to_le_bytes(), &slot.hash.0].concat();
    let body = record.strip_prefix(&header[..]).filter(|body| BlobHash::from(blake3::hash(body)) == slot.hash);
    if body.is_none() && !mutant::on(Mutant::ServeUnverified) {
        return Err(BackendError::Damaged { what: Item::Slot(*slot) });
    }
    Ok(record.slice(HEADER_BYTES..))
}

/// The segments on a disk.
#[derive(Debug)]
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    claims: Arc<Claims>,
    handles: Handles<SegmentId>,
    state: Mutex<State>,
    /// Held while a sync runs: who comes second must not return before the first has what it took on.
    syncing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    next: SegmentId,
    /// The segment that bodies are appended to; it is among `written` as well.
    active: Option<SegmentId>,
    /// Segments of this life that may hold bytes which are not durable.
    written: BTreeMap<SegmentId, Written>,
    /// The length of every segment there is.
    lengths: BTreeMap<SegmentId, u64>,
    failed: BTreeSet<SegmentId>,
}

#[derive(Debug)]
struct Written {
    file: Arc<dyn DiskFile>,
    /// How many appends have their place but not yet their bytes.
    appending: usize,
    /// Whether an append ended since the last sync began.
    dirty: bool,
    /// Whether the segment's name is durable.
    named: bool,
}

impl Segments {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        claims: Arc<Claims>,
        segment_bytes: u64,
        first: SegmentId,
        open_files_max: usize,
    ) -> Result<Segments, BackendError> {
        let on_store = |error| BackendError::from_io(Item::Store, error);
        disk.create_dir(Path::new(FOLDER)).map_err(on_store)?;
        let mut lengths = BTreeMap::new();
        for name in disk.list(Path::new(FOLDER)).map_err(on_store)? {
            if let Some(segment) = parse_name(&name) {
                let length = disk.open(&path(segment), false).and_then(|file| file.len());
                lengths.insert(segment, length.map_err(|error| BackendError::from_io(Item::Segment(segment), error))?);
            }
        }
        let next = lengths.last_key_value().map_or(first, |(last, _)| first.max(SegmentId(last.0 + 1)));
        let state = State { next, active: None, written: BTreeMap::new(), lengths, failed: BTreeSet::new() };
        let handles = Handles::new(open_files_max);
        Ok(Segments { disk, segment_bytes, claims, handles, state: Mutex::new(state), syncing: Mutex::new(()) })
    }

    pub(super) fn append(&self, bytes: &[u8], hash: BlobHash) -> Result<SlotGuard, BackendError> {
        let record = encode(bytes, &hash)?;
        let (guard, file) = self.reserve(&record, hash)?;
        let slot = guard.slot();
        // Outside of the lock: appends of many threads need only their places one after the other.
        let result = file.write_at(&record, slot.offset.into());
        let mut state = self.state();
        let Some(written) = state.written.get_mut(&slot.segment) else {
            return Err(lost(slot.segment));
        };
        written.appending -= 1;
        written.dirty = true;
        result.map_err(|error| BackendError::from_io(Item::Segment(slot.segment), error))?;
        Ok(guard)
    }

    /// A place for a record, which holds a guard from the moment on that it has one.
    fn reserve(&self, record: &[u8], hash: BlobHash) -> Result<(SlotGuard, Arc<dyn DiskFile>), BackendError> {
        let mut state = self.state();
        let segment = self.active_with_room(&mut state, record.len() as u64)?;
        let end = state.lengths.entry(segment).or_default();
        let offset = u32::try_from(*end).expect("a segment is far shorter than 4 GiB");
        *end += record.len() as u64;
        let length = u32::try_from(record.len() - HEADER_BYTES).expect("a body is at most 8 MiB");
        let guard = self.claims.guard_slot(Slot { segment, offset, length, hash });
        let written = state.written.get_mut(&segment).expect("the active segment is among the written ones");
        written.appending += 1;
        Ok((guard, Arc::clone(&written.file)))
    }

    fn active_with_room(&self, state: &mut State, length: u64) -> Result<SegmentId, BackendError> {
        if let Some(active) = state.active {
            let filled = state.lengths.get(&active).copied().unwrap_or(0);
            if filled + length <= self.segment_bytes || filled == 0 {
                return Ok(active);
            }
            state.active = None;
        }
        let segment = state.next;
        // Taken before the file exists: an id whose creation failed half way is not tried again.
        state.next = SegmentId(segment.0.checked_add(1).expect("no disk holds four billion segments"));
        let file =
            self.disk.create(&path(segment)).map_err(|error| BackendError::from_io(Item::Segment(segment), error))?;
        state.written.insert(segment, Written { file, appending: 0, dirty: false, named: false });
        state.lengths.insert(segment, 0);
        state.active = Some(segment);
        Ok(segment)
    }

    pub(super) fn sync(&self) -> Result<(), BackendError> {
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let round = self.begin_round();
        let mut result = Ok(());
        for (segment, file, named) in round {
            let synced =
                file.sync_data().and_then(|()| if named { Ok(()) } else { self.disk.sync_dir(Path::new(FOLDER)) });
            let mut state = self.state();
            match synced {
                Ok(()) => state.synced(segment),
                Err(error) => {
                    tracing::error!(segment = segment.0, %error, "segment sync failed");
                    state.fail(segment);
                    result = Err(BackendError::from_io(Item::Segment(segment), error));
                }
            }
        }
        self.state().retire();
        result
    }

    fn begin_round(&self) -> Vec<(SegmentId, Arc<dyn DiskFile>, bool)> {
        let mut state = self.state();
        let dirty = state.written.iter_mut().filter(|(_, written)| written.dirty);
        dirty
            .map(|(segment, written)| {
                written.dirty = false;
                (*segment, Arc::clone(&written.file), written.named)
            })
            .collect()
    }

    pub(super) fn has_failed(&self, segment: SegmentId) -> bool {
        self.state().failed.contains(&segment)
    }

    pub(super) fn seal_active(&self) {
        self.state().active = None;
    }

    pub(super) fn sealed(&self) -> Vec<SealedSegment> {
        let state = self.state();
        let sealed = state.lengths.iter().filter(|(segment, _)| state.active != Some(**segment));
        let unguarded = sealed.filter(|(segment, _)| !self.claims.has_slots(**segment));
        unguarded.map(|(segment, length)| SealedSegment { segment: *segment, length: *length }).collect()
    }

    pub(super) fn all(&self) -> Vec<(SegmentId, u64)> {
        self.state().lengths.iter().map(|(segment, length)| (*segment, *length)).collect()
    }

    pub(super) fn next(&self) -> SegmentId {
        self.state().next
    }

    pub(super) fn remove(&self, segment: SegmentId) -> Result<(), BackendError> {
        let mut state = self.state();
        if state.active == Some(segment) || self.claims.has_slots(segment) {
            let source = std::io::Error::new(std::io::ErrorKind::ResourceBusy, "the segment is in use");
            return Err(BackendError::Io { what: Item::Segment(segment), source: Arc::new(source) });
        }
        match self.disk.remove(&path(segment)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(BackendError::from_io(Item::Segment(segment), error));
            }
            _ => {}
        }
        state.lengths.remove(&segment);
        state.written.remove(&segment);
        state.failed.remove(&segment);
        self.handles.forget(&segment);
        Ok(())
    }

    pub(super) fn read(&self, slot: &Slot) -> Result<Bytes, BackendError> {
        let on_slot = |error| BackendError::from_io(Item::Slot(*slot), error);
        let mut record = vec![0; record_length(slot)?];
        let file = self.handles.get(slot.segment, || self.disk.open(&path(slot.segment), false)).map_err(on_slot)?;
        file.read_at(&mut record, slot.offset.into()).map_err(on_slot)?;
        decode(record.into(), slot)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn synced(&mut self, segment: SegmentId) {
        if let Some(written) = self.written.get_mut(&segment) {
            written.named = true;
        }
    }

    /// What was appended since the last sync may be gone, and a later sync would not say so: nothing more
    /// is appended to the segment, and it is never synced again.
    fn fail(&mut self, segment: SegmentId) {
        self.failed.insert(segment);
        self.written.remove(&segment);
        if self.active == Some(segment) {
            self.active = None;
        }
    }

    /// Lets go of the sealed segments that are durable.
    fn retire(&mut self) {
        let active = self.active;
        self.written.retain(|segment, written| active == Some(*segment) || written.dirty || written.appending > 0);
    }
}

fn lost(segment: SegmentId) -> BackendError {
    let source = std::io::Error::other("a sync of the segment failed while the body was appended");
    BackendError::Io { what: Item::Segment(segment), source: Arc::new(source) }
}

fn path(segment: SegmentId) -> PathBuf {
    Path::new(FOLDER).join(format!("{:08x}.seg", segment.0))
}

/// The segment that a file of this name is.
pub(super) fn parse_name(name: &str) -> Option<SegmentId> {
    let segment = SegmentId(u32::from_str_radix(name.strip_suffix(".seg")?, 16).ok()?);
    (path(segment).file_name()?.to_str()? == name).then_some(segment)
}
