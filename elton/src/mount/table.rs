//! The kernel's table of mounts, and ending those that are there.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plugin::mountinfo::{self, Line};
use rustix::mount::UnmountFlags;

use super::MountError;

/// What the kernel calls our file systems.
const KIND: &str = "fuse.elton";

/// Whether a mount is one of this program.
pub(super) fn is_ours(mounted: &Line) -> bool {
    mounted.kind == KIND
}

/// A path without links and dots, of something that may not answer: only what leads to it is looked at.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, MountError> {
    let unusable = |source: io::Error| MountError::Mountpoint { path: path.to_owned(), reason: source.to_string() };
    match path.canonicalize() {
        Ok(path) => Ok(path),
        // A mount whose process died.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOTCONN.raw_os_error()) => {
            let path = std::path::absolute(path).map_err(unusable)?;
            match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) => Ok(parent.canonicalize().map_err(unusable)?.join(name)),
                _ => Ok(path),
            }
        }
        Err(error) => Err(unusable(error)),
    }
}

/// What is mounted exactly there; of several the one on top.
pub(super) fn mounted_at(path: &Path) -> Result<Option<Line>, MountError> {
    let table = mountinfo::own().map_err(|error| MountError::Refused {
        what: "reading the table of mounts".into(),
        reason: error.to_string(),
    })?;
    Ok(table.into_iter().rfind(|mounted| mounted.at == path))
}

/// Whether a mount's process has gone.
pub(super) fn is_stale(path: &Path) -> bool {
    // Not a stat of a file, which a slow server could hold up.
    let stale = [rustix::io::Errno::NOTCONN, rustix::io::Errno::CONNABORTED];
    rustix::fs::statfs(path).is_err_and(|error| stale.contains(&error))
}

/// Ends a mount. A lazy end detaches it now and ends it when nobody uses it any more.
pub(super) fn unmount(path: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::BUSY) => Err(MountError::Busy(path.to_owned())),
        Err(rustix::io::Errno::PERM) => fusermount(path, lazy),
        Err(error) => Err(refused(path, error.to_string())),
    }
}

/// What users who are not root unmount with.
fn fusermount(path: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = if lazy { "-uz" } else { "-u" };
    let output = Command::new("fusermount3")
        .args([OsStr::new(flags), OsStr::new("--"), path.as_os_str()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| refused(path, format!("fusermount3 could not be run ({error}); install fuse3")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("busy") {
        Err(MountError::Busy(path.to_owned()))
    } else {
        Err(refused(path, text.trim().to_owned()))
    }
}

fn refused(path: &Path, reason: String) -> MountError {
    MountError::Refused { what: format!("{} could not be unmounted", path.display()), reason }
}

/// A path as bytes, for what names are made of.
pub(super) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_found() {
        let root = mounted_at(Path::new("/")).expect("readable").expect("there is a root");
        assert_eq!(root.at, Path::new("/"));
        assert!(!root.kind.is_empty() && !is_ours(&root));
        assert_eq!(mounted_at(Path::new("/no such place")).expect("readable"), None);
    }
}
