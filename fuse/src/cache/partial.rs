//! A body of which some groups are here.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use federation::blobs::Outboard;
use federation::types::BlobHash;

use super::missing_is_none;
use crate::layout::{Layout, Placed};

/// The format of maps, which is their beginning.
const MAP_FORMAT: &[u8; 16] = b"elton-map-1\0\0\0\0\0";

/// After so many bytes the map is written while the body still is read.
const SAVE_BYTES: u64 = 64 * 1024 * 1024;

/// A sparse file with the groups of a body that are here.
///
/// Invariant: the map that is on disk names no group whose bytes are not; they are synced first. What it names is still
/// compared with the hash tree before this process hands it on, so that a damaged file costs a fetch and nothing else.
pub(crate) struct Partial {
    layout: Layout,
    file: Arc<File>,
    path: PathBuf,
    /// Where the map and the trees are kept; nowhere if another process writes the shared file.
    companions: Option<(PathBuf, PathBuf)>,
    groups: Mutex<Groups>,
    /// Whether it has become a whole body, which is nobody's to remove.
    promoted: AtomicBool,
}

/// What is known of the groups, a bit each.
struct Groups {
    here: Bits,
    verified: Bits,
    unsaved: u64,
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is not here.
    Missing,
    /// It was here when the file was opened.
    Unverified,
    /// It is here and right.
    Verified,
}

impl Partial {
    /// The shared partial body in `folder`, or an own one from `own` if another process writes that.
    pub(super) fn open(
        folder: &Path,
        layout: &Layout,
        own: impl FnOnce() -> io::Result<(File, PathBuf)>,
    ) -> io::Result<Partial> {
        let named = |kind| folder.join(format!("{}.{kind}", layout.key()));
        let path = named("data");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let locked = match file.try_lock() {
            // Between opening and locking, it may have been evicted or have become a whole body.
            Ok(()) => missing_is_none(fs::metadata(&path))?.map(|named| named.ino()) == Some(file.metadata()?.ino()),
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Err(error),
        };
        if !locked {
            let (file, path) = own()?;
            return Partial::new(layout, file, path, None, Bits::new(layout.groups()));
        }
        let (map, trees) = (named("map"), named("trees"));
        let here = missing_is_none(fs::read(&map))?.and_then(|bytes| read_map(&bytes, layout));
        let here = here.unwrap_or_else(|| Bits::new(layout.groups()));
        Partial::new(layout, file, path, Some((map, trees)), here)
    }

    fn new(
        layout: &Layout,
        file: File,
        path: PathBuf,
        companions: Option<(PathBuf, PathBuf)>,
        here: Bits,
    ) -> io::Result<Partial> {
        file.set_len(layout.size())?;
        let groups = Groups { here, verified: Bits::new(layout.groups()), unsaved: 0 };
        let (file, groups) = (Arc::new(file), Mutex::new(groups));
        Ok(Partial { layout: layout.clone(), file, path, companions, groups, promoted: AtomicBool::new(false) })
    }

    pub(super) fn key(&self) -> BlobHash {
        self.layout.key()
    }

    pub(super) fn size(&self) -> u64 {
        self.layout.size()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where a group stands.
    pub(crate) fn standing(&self, group: u64) -> Standing {
        let groups = self.groups();
        match (groups.here.get(group), groups.verified.get(group)) {
            (_, true) => Standing::Verified,
            (true, false) => Standing::Unverified,
            (false, false) => Standing::Missing,
        }
    }

    /// Whether all groups are here and right.
    pub(crate) fn is_whole(&self) -> bool {
        self.groups().verified.count() == self.layout.groups()
    }

    /// Writes a group's bytes, which were verified.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Notes that a group is here and right.
    pub(crate) fn note(&self, group: u64, bytes: u64) {
        let mut groups = self.groups();
        if !groups.here.get(group) {
            groups.unsaved += bytes;
        }
        groups.here.set(group, true);
        groups.verified.set(group, true);
    }

    /// Notes that a group is not what it should be.
    pub(crate) fn forget(&self, group: u64) {
        let mut groups = self.groups();
        groups.here.set(group, false);
        groups.verified.set(group, false);
    }

    /// Whether enough is new for the map to be written.
    pub(crate) fn wants_saving(&self) -> bool {
        self.groups().unsaved >= SAVE_BYTES
    }

    /// Makes what is here known to later processes: data first, then the map. Returns how many bytes were new.
    pub(crate) fn save(&self) -> io::Result<u64> {
        let Some((map, _)) = &self.companions else { return Ok(0) };
        let (bytes, unsaved) = {
            let mut groups = self.groups();
            (write_map(&groups.here, &self.layout), std::mem::take(&mut groups.unsaved))
        };
        if unsaved == 0 {
            return Ok(0);
        }
        self.file.sync_data()?;
        let unfinished = map.with_extension("map.new");
        File::create(&unfinished)?.write_all(&bytes)?;
        fs::rename(&unfinished, map)?;
        Ok(unsaved)
    }

    /// The hash tree of a piece that was kept; none if there is none that fits.
    pub(crate) fn hash_tree(&self, placed: &Placed) -> io::Result<Option<Outboard>> {
        let Some((_, trees)) = &self.companions else { return Ok(None) };
        let Some(file) = missing_is_none(File::open(trees))? else { return Ok(None) };
        let mut bytes = vec![0; tree_bytes(placed)];
        match file.read_exact_at(&mut bytes, tree_offset(placed)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let outboard = Outboard::from_bytes(Bytes::from(bytes));
        Ok(outboard.filter(|outboard| outboard.verify_root(&placed.piece.hash, placed.piece.length)))
    }

    /// Keeps the hash tree of a piece.
    pub(crate) fn keep_hash_tree(&self, placed: &Placed, tree: &Outboard) -> io::Result<()> {
        let Some((_, trees)) = &self.companions else { return Ok(()) };
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(trees)?;
        file.write_all_at(tree.as_bytes(), tree_offset(placed))
    }

    /// Notes that the body has become a whole one, and lets go of what is not needed for that.
    pub(super) fn promoted(&self) -> io::Result<()> {
        self.promoted.store(true, Ordering::Release);
        self.file.unlock()?;
        for path in self.companions.iter().flat_map(|(map, trees)| [map, trees]) {
            missing_is_none(fs::remove_file(path))?;
        }
        Ok(())
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        // Bits are set one by one, each after its fact.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.promoted.load(Ordering::Acquire) {
            return;
        }
        if self.companions.is_none() {
            if let Err(error) = fs::remove_file(&self.path) {
                tracing::debug!(%error, "an own partial body was gone before it was removed");
            }
            return;
        }
        if let Err(error) = self.save() {
            tracing::warn!(%error, path = %self.path.display(), "what was fetched of a body will be fetched again");
        }
    }
}

fn tree_offset(placed: &Placed) -> u64 {
    placed.first_group * blake3::OUT_LEN as u64
}

fn tree_bytes(placed: &Placed) -> usize {
    usize::try_from(placed.groups()).unwrap_or(0) * blake3::OUT_LEN
}

/// Format, key and number of groups, the bits, and the hash of all that.
fn write_map(here: &Bits, layout: &Layout) -> Vec<u8> {
    let mut bytes = [MAP_FORMAT.as_slice(), &layout.key().0, &layout.groups().to_le_bytes()].concat();
    bytes.extend(here.words.iter().flat_map(|word| word.to_le_bytes()));
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

fn read_map(bytes: &[u8], layout: &Layout) -> Option<Bits> {
    let (content, hash) = bytes.split_last_chunk::<{ blake3::OUT_LEN }>()?;
    let head = [MAP_FORMAT.as_slice(), &layout.key().0, &layout.groups().to_le_bytes()].concat();
    let words = content.strip_prefix(head.as_slice()).filter(|_| blake3::hash(content) == *hash)?;
    let mut here = Bits::new(layout.groups());
    (words.len() == here.words.len() * 8).then_some(())?;
    for (word, bytes) in here.words.iter_mut().zip(words.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Some(here)
}

/// Bits, all clear at first.
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    fn new(count: u64) -> Bits {
        Bits { words: vec![0; usize::try_from(count.div_ceil(64)).unwrap_or(0)] }
    }

    fn get(&self, at: u64) -> bool {
        self.words.get((at / 64) as usize).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    fn set(&mut self, at: u64, to: bool) {
        if let Some(word) = self.words.get_mut((at / 64) as usize) {
            let bit = 1 << (at % 64);
            *word = if to { *word | bit } else { *word & !bit };
        }
    }

    fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}
