//! The `Disk` seam: the file operations that the core makes, and what each promises about power loss.
//!
//! Paths are relative to the disk's root. Nothing is durable before the sync that is named for it:
//! a file's bytes and length before [`DiskFile::sync_data`], a name before [`Disk::sync_dir`] of its folder.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

pub mod conformance;
mod local;
mod simulated;
pub mod spare;

pub use local::{DirLock, LocalDisk, LockHeld};
pub use simulated::{CrashPlan, SimulatedDisk, seeded};

/// A tree of files.
pub trait Disk: Send + Sync + std::fmt::Debug + 'static {
    /// Creates a file that must not exist, open for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file, for reading only unless `writable`.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name in one step, replacing what had that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away; who has it open keeps reading.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Creates a folder and those above it; fine if it exists. Its name is durable on return.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes that can still be written.
    fn free_space(&self) -> io::Result<u64>;
}

/// An open file. Reads and writes carry their position, so one handle serves many.
pub trait DiskFile: Send + Sync + std::fmt::Debug {
    /// Fills `bytes` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts or extends (with zeros) to `length`.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|length| length == 0)
    }

    /// Makes the bytes and the length durable.
    fn sync_data(&self) -> io::Result<()>;

    /// A read-only descriptor of its own, where the disk is a kernel's.
    fn descriptor(&self) -> io::Result<Option<OwnedFd>>;
}
