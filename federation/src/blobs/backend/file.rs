//! Large bodies: files named by their id and content.
//!
//! A body is written as `bodies/FOLDER/ID.part` and gets the name `ID-HASH` when it is whole, so whatever
//! has such a name after a crash had all its bytes before it had the name. One that comes from elsewhere, in any
//! order and not all of it, is `ID.sparse` until then (`sparse.rs`).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::claims::{Claims, FileGuard};
use super::space::Space;
use super::{BackendError, BodyReader, BodyWriter, Found, Item, SyncJob, Urgency, WrittenFile, folder_of};
use crate::blobs::digest::{Digest, TreeHasher};
use crate::disk::{Disk, DiskFile};
use crate::mutant::{self, Mutant};
use crate::types::{BlobHash, FileId};

/// The folder of the folders of the large bodies.
pub(super) const FOLDER: &str = "bodies";

/// After how many bytes a body that is still being written is synced. Else the last sync of a large body,
/// for which its writer waits, would take as long as the disk needs for all of it.
const SYNC_EVERY_BYTES: u64 = 16 * 1024 * 1024;

/// The large bodies on a disk.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) claims: Arc<Claims>,
    pub(super) space: Arc<Space>,
    pub(super) next: AtomicU64,
    /// The first id of this life: below it, nobody is writing any more.
    first: FileId,
}

/// What the name of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Unfinished(FileId),
    Sparse(FileId),
    Body(FileId, BlobHash),
}

impl Files {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        claims: Arc<Claims>,
        space: Arc<Space>,
        first: FileId,
    ) -> Result<Files, BackendError> {
        let on_store = |error| BackendError::from_io(Item::Store, error);
        disk.create_dir(Path::new(FOLDER)).map_err(on_store)?;
        let highest = highest(&*disk).map_err(on_store)?;
        let first = highest.map_or(first, |highest| first.max(FileId(highest.0 + 1)));
        Ok(Files { disk, claims, space, next: AtomicU64::new(first.0), first })
    }

    pub(super) fn next(&self) -> FileId {
        FileId(self.next.load(Ordering::SeqCst))
    }

    pub(super) fn create(self: &Arc<Self>, urgency: Urgency) -> Result<FileWriter, BackendError> {
        self.space.take(0, urgency)?;
        let id = FileId(self.next.fetch_add(1, Ordering::SeqCst));
        let on_file = |error| BackendError::from_io(Item::File(id), error);
        let guard = self.claims.guard_file(id);
        self.disk.create_dir(&folder(id)).map_err(on_file)?;
        let file = self.disk.create(&path(Name::Unfinished(id))).map_err(on_file)?;
        let hasher = TreeHasher::new();
        Ok(FileWriter { files: Arc::clone(self), id, file, guard: Some(guard), hasher, urgency, unsynced: 0 })
    }

    pub(super) fn sync_folder(&self, file: FileId) -> Result<(), BackendError> {
        if mutant::on(Mutant::SkipFolderSync) {
            return Ok(());
        }
        self.disk.sync_dir(&folder(file)).map_err(|error| BackendError::from_io(Item::File(file), error))
    }

    pub(super) fn reader(&self, file: FileId, hash: &BlobHash) -> Result<FileReader, BackendError> {
        let handle = self.disk.open(&path(Name::Body(file, *hash)), false);
        let handle = handle.map_err(|error| BackendError::from_io(Item::File(file), error))?;
        Ok(FileReader { file, handle })
    }

    pub(super) fn descriptor(&self, file: FileId, hash: &BlobHash) -> Result<Option<OwnedFd>, BackendError> {
        let descriptor = self.reader(file, hash)?.handle.descriptor();
        descriptor.map_err(|error| BackendError::from_io(Item::File(file), error))
    }

    pub(super) fn remove(&self, file: FileId, hash: &BlobHash) -> Result<(), BackendError> {
        self.remove_name(Name::Body(file, *hash))
    }

    pub(super) fn remove_unfinished(&self, file: FileId) -> Result<(), BackendError> {
        self.remove_name(Name::Unfinished(file))
    }

    pub(super) fn remove_name(&self, name: Name) -> Result<(), BackendError> {
        let file = name.file();
        match self.disk.remove(&path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BackendError::from_io(Item::File(file), error));
            }
            _ => {}
        }
        // New files never go into an earlier folder, so one that is empty stays so. Most are not; that is no error.
        if folder_of(file) < folder_of(self.next()) {
            let _ = self.disk.remove_dir(&folder(file));
        }
        Ok(())
    }

    /// The bodies in all folders, and what else is there.
    pub(super) fn list(&self, found: &mut Vec<Found>) -> io::Result<()> {
        for folder in self.disk.list(Path::new(FOLDER))? {
            let folder_path = Path::new(FOLDER).join(&folder);
            if parse_folder(&folder).is_none() {
                found.push(Found::Foreign { path: folder_path.to_string_lossy().into_owned() });
                continue;
            }
            for name in unless_gone(self.disk.list(&folder_path))?.unwrap_or_default() {
                self.find(&folder_path.join(&name), found)?;
            }
        }
        Ok(())
    }

    fn find(&self, place: &Path, found: &mut Vec<Found>) -> io::Result<()> {
        let name = place.file_name().and_then(|name| name.to_str()).and_then(Name::parse);
        let Some(name) = name.filter(|name| path(*name) == place) else {
            found.push(Found::Foreign { path: place.to_string_lossy().into_owned() });
            return Ok(());
        };
        let Some(length) = unless_gone(self.disk.open(place, false).and_then(|file| file.len()))? else {
            return Ok(());
        };
        match name {
            // Somebody may be writing it now.
            Name::Unfinished(file) if file >= self.first => {}
            Name::Unfinished(file) => found.push(Found::Unfinished { file, length }),
            Name::Sparse(file) => found.push(Found::Sparse { file, length }),
            Name::Body(file, hash) => {
                found.push(Found::File { file, hash, length, unclaimed: self.claims.has_file(file) });
            }
        }
        Ok(())
    }
}

/// The highest id of which there is a file.
fn highest(disk: &dyn Disk) -> io::Result<Option<FileId>> {
    let names = disk.list(Path::new(FOLDER))?;
    let folders: BTreeMap<u64, String> =
        names.into_iter().filter_map(|name| Some((parse_folder(&name)?, name))).collect();
    for name in folders.values().rev() {
        let files = disk.list(&Path::new(FOLDER).join(name))?;
        if let Some(highest) = files.iter().filter_map(|name| Some(Name::parse(name)?.file())).max() {
            return Ok(Some(highest));
        }
    }
    Ok(None)
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

impl Name {
    fn file(self) -> FileId {
        match self {
            Name::Unfinished(file) | Name::Sparse(file) | Name::Body(file, _) => file,
        }
    }

    fn parse(name: &str) -> Option<Name> {
        if let Some(id) = name.strip_suffix(".part") {
            return Some(Name::Unfinished(FileId(u64::from_str_radix(id, 16).ok()?)));
        }
        if let Some(id) = name.strip_suffix(".sparse") {
            return Some(Name::Sparse(FileId(u64::from_str_radix(id, 16).ok()?)));
        }
        let (id, hash) = name.split_once('-')?;
        let hash = blake3::Hash::from_hex(hash).ok()?.into();
        Some(Name::Body(FileId(u64::from_str_radix(id, 16).ok()?), hash))
    }
}

pub(super) fn folder(file: FileId) -> PathBuf {
    Path::new(FOLDER).join(format!("{:08x}", folder_of(file)))
}

fn parse_folder(name: &str) -> Option<u64> {
    let folder = u64::from_str_radix(name, 16).ok()?;
    (format!("{folder:08x}") == name).then_some(folder)
}

pub(super) fn path(name: Name) -> PathBuf {
    let folder = folder(name.file());
    match name {
        Name::Unfinished(file) => folder.join(format!("{:016x}.part", file.0)),
        Name::Sparse(file) => folder.join(format!("{:016x}.sparse", file.0)),
        Name::Body(file, hash) => folder.join(format!("{:016x}-{hash}", file.0)),
    }
}

/// A body on its way into its file.
#[derive(Debug)]
pub(super) struct FileWriter {
    files: Arc<Files>,
    id: FileId,
    file: Arc<dyn DiskFile>,
    /// `None` once the body is whole.
    guard: Option<FileGuard>,
    hasher: TreeHasher,
    urgency: Urgency,
    /// Bytes written since the last sync.
    unsynced: u64,
}

impl FileWriter {
    fn on_file(&self, error: io::Error) -> BackendError {
        BackendError::from_io(Item::File(self.id), error)
    }
}

impl BodyWriter for FileWriter {
    fn file(&self) -> FileId {
        self.id
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.files.space.take(bytes.len() as u64, self.urgency)?;
        self.file.write_at(bytes, self.hasher.length()).map_err(|error| self.on_file(error))?;
        self.hasher.update(bytes);
        self.unsynced += bytes.len() as u64;
        Ok(())
    }

    fn sync_due(&mut self) -> Option<SyncJob> {
        if self.unsynced < SYNC_EVERY_BYTES {
            return None;
        }
        self.unsynced = 0;
        let (file, id) = (Arc::clone(&self.file), self.id);
        Some(Box::new(move || file.sync_data().map_err(|error| BackendError::from_io(Item::File(id), error))))
    }

    fn digest(&self) -> Digest {
        self.hasher.digest()
    }

    fn finish(mut self: Box<Self>) -> Result<WrittenFile, BackendError> {
        let digest = self.digest();
        self.file.sync_data().map_err(|error| self.on_file(error))?;
        let name = path(Name::Body(self.id, digest.hash));
        self.files.disk.rename(&path(Name::Unfinished(self.id)), &name).map_err(|error| self.on_file(error))?;
        let guard = self.guard.take().expect("only `finish` takes it, and it consumes the writer");
        Ok(WrittenFile { guard, digest })
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if self.guard.is_some()
            && let Err(error) = self.files.remove_unfinished(self.id)
        {
            tracing::warn!(file = self.id.0, %error, "unfinished body not removed");
        }
    }
}

/// An open body.
#[derive(Debug)]
pub(super) struct FileReader {
    file: FileId,
    handle: Arc<dyn DiskFile>,
}

impl BodyReader for FileReader {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), BackendError> {
        self.handle.read_at(bytes, offset).map_err(|error| BackendError::from_io(Item::File(self.file), error))
    }
}
