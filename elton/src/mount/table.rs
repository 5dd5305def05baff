//! The kernel's table of mounts, and ending those that are there.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::UnmountFlags;

use super::MountError;

/// What the kernel calls our file systems.
const KIND: &str = "fuse.elton";

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    /// Where.
    pub(super) at: PathBuf,
    /// The file system's type.
    pub(super) kind: String,
    /// What it calls itself: of ours `bucket@number`.
    pub(super) name: String,
    /// The file system's device, `MAJOR:MINOR`, which no other has as long as it is there.
    pub(super) device: String,
}

impl Mounted {
    pub(super) fn is_ours(&self) -> bool {
        self.kind == KIND
    }
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
pub(super) fn mounted_at(path: &Path) -> Result<Option<Mounted>, MountError> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(|error| MountError::Refused {
        what: "reading the table of mounts".into(),
        reason: error.to_string(),
    })?;
    Ok(table.lines().filter_map(parse).rfind(|mounted| mounted.at == path))
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

/// A line of `/proc/self/mountinfo`: the mountpoint is the fifth field; behind a lone `-` stand type and name.
fn parse(line: &str) -> Option<Mounted> {
    let (own, system) = line.split_once(" - ")?;
    let mut own = own.split(' ').skip(2);
    let (device, _root, at) = (own.next()?.to_owned(), own.next()?, unescape(own.next()?));
    let mut system = system.split(' ');
    let (kind, name) = (system.next()?.to_owned(), system.next()?);
    Some(Mounted { at: at.into(), kind, name: unescape(name).to_string_lossy().into_owned(), device })
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> OsString {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&first, tail)) = rest.split_first() {
        let digits =
            tail.first_chunk::<3>().filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// A path as bytes, for what names are made of.
pub(super) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_understood() {
        let line = r"98 29 0:52 / /mnt/a\040b\134c ro,nosuid shared:1 - fuse.elton photos@42 ro,user_id=0";
        let mounted = parse(line).expect("a mount");
        assert_eq!(mounted.at, Path::new(r"/mnt/a b\c"));
        assert_eq!((mounted.kind.as_str(), mounted.name.as_str()), ("fuse.elton", "photos@42"));
        assert_eq!(mounted.device, "0:52");
        assert!(mounted.is_ours());
        assert!(parse("nonsense").is_none());
        assert_eq!(mounted_at(Path::new("/")).expect("readable").map(|root| root.at), Some("/".into()));
    }
}
