//! A body of which some groups are here.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use federation::blobs::Outboard;
use federation::types::BlobHash;

use super::{is_named, missing_is_none};
use crate::layout::{Layout, Placed};

/// The format of maps, which is their beginning. The inode number of the file they are of follows, and a byte for each group.
const MAP_FORMAT: &[u8; 16] = b"elton-map-2\0\0\0\0\0";
/// What stands in the map for a group that is here.
const HERE: u8 = 1;
/// How long a map's head is.
const MAP_HEAD_BYTES: usize = MAP_FORMAT.len() + 8;
/// How often a file is opened anew that was evicted while it was opened.
const OPENS_MAX: usize = 8;

/// A sparse file with the groups of a body that are here, shared by all mounts of a host that read the body.
///
/// A group gets into the map after its bytes are written, but neither is synced: what the map names is compared with the
/// hash tree before a process hands it on for the first time. So a crash, or a damaged file, costs a fetch and nothing else.
pub(crate) struct Partial {
    layout: Layout,
    file: Arc<File>,
    path: PathBuf,
    /// Where others see what is here; nowhere if the shared file cannot be had.
    companions: Option<Companions>,
    groups: Mutex<Groups>,
    /// Whether it has become a whole body, which is nobody's to remove.
    promoted: AtomicBool,
}

/// The map and the hash trees.
struct Companions {
    map: File,
    trees: File,
    paths: [PathBuf; 2],
}

/// What is known of the groups, a bit each.
struct Groups {
    here: Bits,
    verified: Bits,
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is not here.
    Missing,
    /// It is here, but this process has not compared it with its hash.
    Unverified,
    /// It is here and right.
    Verified,
}

impl Partial {
    /// The shared partial body in `folder`, or an own one from `own` if another program holds that alone.
    pub(super) fn open(
        folder: &Path,
        layout: &Layout,
        own: impl FnOnce() -> io::Result<(File, PathBuf)>,
    ) -> io::Result<Partial> {
        let named = |kind| folder.join(format!("{}.{kind}", layout.key()));
        let path = named("data");
        let (file, path, companions) = match open_shared(&path)? {
            Some(file) => {
                let paths = [named("map"), named("trees")];
                let map = open_map(&paths[0], file.metadata()?.ino())?;
                let companions = Companions { map, trees: create(&paths[1])?, paths };
                (file, path, Some(companions))
            }
            None => {
                let (file, path) = own()?;
                (file, path, None)
            }
        };
        file.set_len(layout.size())?;
        let groups = Groups { here: Bits::new(layout.groups()), verified: Bits::new(layout.groups()) };
        let (file, groups, promoted) = (Arc::new(file), Mutex::new(groups), AtomicBool::new(false));
        let partial = Partial { layout: layout.clone(), file, path, companions, groups, promoted };
        partial.look_at_map(0..layout.groups())?;
        Ok(partial)
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

    /// Whether nothing was here when it was last looked.
    pub(crate) fn is_empty(&self) -> bool {
        self.groups().here.count() == 0
    }

    /// Whether all groups are here and right.
    pub(crate) fn is_whole(&self) -> bool {
        self.groups().verified.count() == self.layout.groups()
    }

    /// Learns which groups others have brought.
    pub(crate) fn look_at_map(&self, groups: Range<u64>) -> io::Result<()> {
        let Some(companions) = &self.companions else { return Ok(()) };
        let offset = map_offset(groups.start);
        // It is as long as what was written of it, which may be little of a large body.
        let written = companions.map.metadata()?.len().saturating_sub(offset).min(groups.end - groups.start);
        let (mut read, mut bytes) = (0, vec![0; usize::try_from(written).map_err(io::Error::other)?]);
        while read < bytes.len() {
            match companions.map.read_at(&mut bytes[read..], offset + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        let mut known = self.groups();
        for (group, byte) in groups.zip(&bytes[..read]) {
            known.here.set(group, *byte == HERE);
        }
        Ok(())
    }

    /// Writes the bytes of groups, which were verified.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Notes that groups are here and right, for others as well.
    pub(crate) fn note(&self, groups: Range<u64>) {
        {
            let mut known = self.groups();
            for group in groups.clone() {
                known.here.set(group, true);
                known.verified.set(group, true);
            }
        }
        self.note_in_map(groups, HERE);
    }

    /// Notes that a group that was here is right.
    pub(crate) fn note_verified(&self, group: u64) {
        self.groups().verified.set(group, true);
    }

    /// Notes that a group is not what it should be.
    pub(crate) fn forget(&self, group: u64) {
        {
            let mut known = self.groups();
            known.here.set(group, false);
            known.verified.set(group, false);
        }
        self.note_in_map(group..group + 1, 0);
    }

    fn note_in_map(&self, groups: Range<u64>, byte: u8) {
        let Some(companions) = &self.companions else { return };
        let bytes = vec![byte; usize::try_from(groups.end - groups.start).unwrap_or(0)];
        // What the map does not name is fetched again by whoever comes next.
        if let Err(error) = companions.map.write_all_at(&bytes, map_offset(groups.start)) {
            tracing::debug!(%error, key = %self.key(), "the map of a body could not be written");
        }
    }

    /// The hash tree of a piece that was kept; none if there is none that fits.
    pub(crate) fn hash_tree(&self, placed: &Placed) -> io::Result<Option<Outboard>> {
        let Some(Companions { trees, .. }) = &self.companions else { return Ok(None) };
        let mut bytes = vec![0; tree_bytes(placed)];
        match trees.read_exact_at(&mut bytes, tree_offset(placed)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let outboard = Outboard::from_bytes(Bytes::from(bytes));
        Ok(outboard.filter(|outboard| outboard.verify_root(&placed.piece.hash, placed.piece.length)))
    }

    /// Keeps the hash tree of a piece.
    pub(crate) fn keep_hash_tree(&self, placed: &Placed, tree: &Outboard) -> io::Result<()> {
        let Some(Companions { trees, .. }) = &self.companions else { return Ok(()) };
        trees.write_all_at(tree.as_bytes(), tree_offset(placed))
    }

    /// Notes that the body has become a whole one, gives back the lock on it, and removes what is not needed for that.
    pub(super) fn promoted(&self) -> io::Result<()> {
        self.promoted.store(true, Ordering::Release);
        self.file.unlock()?;
        self.remove_companions()
    }

    /// Removes it, because there is a whole one. Others that have it open read on.
    pub(crate) fn withdraw(&self) -> io::Result<()> {
        if self.companions.is_some() && is_named(&self.path, &self.file)? {
            missing_is_none(fs::remove_file(&self.path))?;
        }
        self.remove_companions()
    }

    fn remove_companions(&self) -> io::Result<()> {
        let Some(companions) = &self.companions else { return Ok(()) };
        for (path, file) in companions.paths.iter().zip([&companions.map, &companions.trees]) {
            // A new one may be another body's.
            if is_named(path, file)? {
                missing_is_none(fs::remove_file(path))?;
            }
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
        if self.companions.is_some() || self.promoted.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "an own partial body was gone before it was removed");
        }
    }
}

/// Opens the map of a file, a new one if what is there is of another file, which has become a whole body, or is none.
fn open_map(path: &Path, inode: u64) -> io::Result<File> {
    let head = [MAP_FORMAT.as_slice(), &inode.to_le_bytes()].concat();
    for _ in 0..OPENS_MAX {
        let map = create(path)?;
        let mut found = [0; MAP_HEAD_BYTES];
        match map.read_at(&mut found, 0)? {
            // Others may be about to write the same.
            0 => map.write_all_at(&head, 0)?,
            _ if found.as_slice() == head => {}
            // Who has it open reads on from it.
            _ => {
                missing_is_none(fs::remove_file(path))?;
                continue;
            }
        }
        return Ok(map);
    }
    Err(io::Error::other("others keep replacing the map of a body"))
}

/// Opens a file that is shared with other processes and that nobody evicts meanwhile; none if somebody has it alone.
fn open_shared(path: &Path) -> io::Result<Option<File>> {
    for _ in 0..OPENS_MAX {
        let file = create(path)?;
        // Between opening and locking, it may have been evicted or have become a whole body.
        if file.try_lock_shared().is_ok() && is_named(path, &file)? {
            return Ok(Some(file));
        }
        std::thread::yield_now();
    }
    Ok(None)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn map_offset(group: u64) -> u64 {
    MAP_HEAD_BYTES as u64 + group
}

fn tree_offset(placed: &Placed) -> u64 {
    placed.first_group * blake3::OUT_LEN as u64
}

fn tree_bytes(placed: &Placed) -> usize {
    usize::try_from(placed.groups()).unwrap_or(0) * blake3::OUT_LEN
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
