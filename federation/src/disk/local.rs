//! A folder of the machine as a [`Disk`].

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileExt, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FlockOperation;

use super::{Disk, DiskFile};

/// Only the owner reads the data, whatever the umask says.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A folder of the machine.
#[derive(Debug, Clone)]
pub struct LocalDisk {
    root: PathBuf,
    /// Folders whose own names this process has made durable.
    durable: Arc<Mutex<HashSet<PathBuf>>>,
}

/// The lock of a folder; other processes get it when this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Another process has the lock. It is the inner error of the `io::Error` that
/// [`LocalDisk::lock_exclusive`] returns with the kind `ResourceBusy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("in use by {}", pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
pub struct LockHeld {
    /// Which process, where it could be read.
    pub pid: Option<u32>,
}

impl LocalDisk {
    /// The folder `root`, which is created (with those above it) where it does not exist.
    pub fn open(root: impl AsRef<Path>) -> io::Result<LocalDisk> {
        let root = std::path::absolute(root.as_ref())?;
        create_dirs(&root)?;
        Ok(LocalDisk { root, durable: Arc::default() })
    }

    /// Where the disk's files are.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the lock file at `path` for this process and writes the process's id into it.
    ///
    /// While another process holds it, the error has the kind `ResourceBusy` and holds a [`LockHeld`].
    pub fn lock_exclusive(&self, path: &Path) -> io::Result<DirLock> {
        let path = self.place(path)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                write_pid(&file)?;
                Ok(DirLock { _file: file })
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = io::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
                Err(io::Error::new(io::ErrorKind::ResourceBusy, LockHeld { pid }))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn place(&self, path: &Path) -> io::Result<PathBuf> {
        if !path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a path on a disk is relative and stays within it",
            ));
        }
        Ok(self.root.join(path))
    }
}

/// Writes the process's id in place: emptied first, the file would need a block that a full disk does not have.
fn write_pid(file: &File) -> io::Result<()> {
    let pid = format!("{}\n", std::process::id());
    let written = file.write_all_at(pid.as_bytes(), 0).and_then(|()| file.set_len(pid.len() as u64));
    match written {
        // It is there for a message alone: the lock holds without it.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        written => written,
    }
}

/// Creates `path` and those above it, readable for their owner only, each name synced in the folder that holds it.
fn create_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_dirs(parent)?;
        match DirBuilder::new().mode(FOLDER_MODE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(self.place(path)?)?;
        Ok(Arc::new(LocalFile(file)))
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(writable).open(self.place(path)?)?;
        Ok(Arc::new(LocalFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(self.place(from)?, self.place(to)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(self.place(path)?)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let path = self.place(path)?;
        let known = || self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&path) {
            return Ok(());
        }
        create_dirs(&path)?;
        // Who found the folder there does not know whether its name was synced.
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        known().insert(path);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let path = self.place(path)?;
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
        std::fs::remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(self.place(path)?)?
            // The core gives names of its own in ASCII; what is not UTF-8 is a stranger's and shown as well as it can be.
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(self.place(path)?)?.sync_all()
    }

    fn free_space(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[derive(Debug)]
struct LocalFile(File);

impl DiskFile for LocalFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        // A duplicate would share this handle's right to write, so the file is opened again, by its descriptor.
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.0));
        Ok(Some(File::open(name)?.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::conformance;

    #[test]
    fn conforms() {
        let folder = tempfile::tempdir().expect("a folder");
        conformance::run(&LocalDisk::open(folder.path().join("not/yet/there")).expect("opened"));
    }

    #[test]
    fn a_lock_has_one_holder() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = LocalDisk::open(folder.path()).expect("opened");
        let lock = disk.lock_exclusive(Path::new("lock")).expect("nobody has it");
        let error = disk.lock_exclusive(Path::new("lock")).expect_err("it is held");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        let held = error.get_ref().and_then(|inner| inner.downcast_ref::<LockHeld>()).expect("says who");
        assert_eq!(held.pid, Some(std::process::id()));
        assert_eq!(held.to_string(), format!("in use by process {}", std::process::id()));
        drop(lock);
        disk.lock_exclusive(Path::new("lock")).expect("it is free again");
    }
}
