//! `/proc/PID/mountinfo`: what is mounted where, in every mount namespace that a process is in.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::mounts::Seen;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file system's device, `MAJOR:MINOR`: the same for all mounts of one file system.
    pub device: String,
    /// Where it is mounted, as the process sees it.
    pub at: PathBuf,
    /// The file system's type.
    pub kind: OsString,
    /// What it calls itself: a device, or of ours `bucket@number`.
    pub name: OsString,
}

/// What this process sees.
pub fn own() -> io::Result<Vec<Line>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The mounts directly below `root`, and whether any process sees them anywhere else.
pub fn survey(root: &Path) -> io::Result<Vec<Seen>> {
    let own = own()?;
    let mut ours = BTreeMap::new();
    for Line { device, at, .. } in own.iter().filter(|line| line.at.parent() == Some(root)) {
        // Of several at one place the last is on top.
        ours.insert(at.clone(), device.clone());
    }
    if ours.is_empty() {
        return Ok(Vec::new());
    }
    let mut held = Held { ours, held: BTreeSet::new() };
    held.look(&own);
    let all_seen = others(|lines| held.look(&lines))?;
    let Held { ours, held } = held;
    Ok(ours.into_keys().map(|at| Seen { held: !all_seen || held.contains(&at), at }).collect())
}

struct Held {
    ours: BTreeMap<PathBuf, String>,
    held: BTreeSet<PathBuf>,
}

impl Held {
    fn look(&mut self, lines: &[Line]) {
        for (at, device) in &self.ours {
            if lines.iter().any(|line| line.device == *device && !is_copy_of(&line.at, at)) {
                self.held.insert(at.clone());
            }
        }
    }
}

/// Whoever copies a whole tree of mounts, as a new namespace does or a container that is given `/`, has ours in it at its own
/// place. That is no use of a volume.
fn is_copy_of(seen: &Path, at: &Path) -> bool {
    seen.as_os_str().as_bytes().ends_with(at.as_os_str().as_bytes())
}

/// Shows the mounts of each namespace, and root within it, that a process has. Says whether all could be seen.
fn others(mut look: impl FnMut(Vec<Line>)) -> io::Result<bool> {
    let mut known = BTreeSet::new();
    let mut all = true;
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        if !folder.file_name().is_some_and(|name| name.as_bytes().iter().all(u8::is_ascii_digit)) {
            continue;
        }
        // Which namespace that is may be a secret of processes with more rights than ours; what is mounted there is none.
        let view = fs::read_link(folder.join("ns/mnt"))
            .and_then(|space| Ok((space, fs::read_link(folder.join("root"))?)))
            .ok();
        if view.as_ref().is_some_and(|view| known.contains(view)) {
            continue;
        }
        match fs::read(folder.join("mountinfo")) {
            Ok(lines) => {
                look(parse(&lines));
                known.extend(view);
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                tracing::debug!(process = %folder.display(), %error, "its mounts cannot be read");
                all = false;
            }
        }
    }
    Ok(all)
}

/// The process ended meanwhile, or is a zombie, which has no mounts any more.
fn is_gone(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    error.kind() == io::ErrorKind::NotFound || matches!(errno, Some(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL))
}

fn parse(text: &[u8]) -> Vec<Line> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /inside /mnt rw,noatime shared:1 - fuse.elton photos@42 ro`: the place is the fifth field, and behind a lone
/// `-`, before which any number of fields may stand, come type and name.
fn parse_line(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let at = unescape(fields.nth(1)?).into();
    let mut system = fields.skip_while(|field| *field != b"-").skip(1).map(unescape);
    Some(Line { device, at, kind: system.next()?, name: system.next()? })
}

/// Blanks, tabs, newlines and backslashes are written as `\040`.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        90 22 0:50 / /srv/mnt/photos@42 ro,nosuid - fuse.elton photos@42 ro,user_id=0\n\
        91 22 0:51 / /srv/mnt/photos@43 ro,nosuid - fuse.elton photos@43 ro,user_id=0\n\
        92 22 0:52 / /srv/a\\040b\\134c rw shared:3 master:1 - tmpfs tmpfs rw\n\
        93 22 0:53 / /srv/\xff rw - tmpfs none rw\n\n";

    #[test]
    fn lines_are_read() {
        let lines = parse(TEXT);
        assert_eq!(lines.len(), 5);
        let ours = &lines[1];
        assert_eq!((ours.device.as_str(), ours.at.as_path()), ("0:50", Path::new("/srv/mnt/photos@42")));
        assert_eq!((ours.kind.as_os_str(), ours.name.as_os_str()), ("fuse.elton".as_ref(), "photos@42".as_ref()));
        assert_eq!(lines[3].at, Path::new("/srv/a b\\c"));
        assert_eq!(unescape(b"\\"), OsString::from("\\"));
        assert!(parse(b"nonsense\n1 2 0:1 / /mnt ro").is_empty());
    }

    #[test]
    fn a_container_is_told_from_a_copy_of_the_host() {
        let ours = [("/srv/mnt/photos@42", "0:50"), ("/srv/mnt/photos@43", "0:51")];
        let ours = ours.map(|(at, device)| (PathBuf::from(at), device.to_owned())).into();
        let mut held = Held { ours, held: BTreeSet::new() };
        held.look(&parse(TEXT));
        assert!(held.held.is_empty());
        let copies = b"9 1 0:50 / /host/srv/mnt/photos@42 ro - fuse.elton x ro\n8 1 0:51 / /srv/mnt/photos@43 ro - fuse.elton x ro\n";
        held.look(&parse(copies));
        assert!(held.held.is_empty());
        held.look(&parse(b"9 1 0:51 /a /data ro - fuse.elton x ro\n"));
        assert_eq!(held.held, BTreeSet::from([PathBuf::from("/srv/mnt/photos@43")]));
    }

    #[test]
    fn processes_can_be_read() {
        let mut views = 0;
        others(|lines| views += usize::from(!lines.is_empty())).expect("there is a /proc");
        assert!(views > 0);
        assert!(survey(Path::new("/nowhere")).expect("readable").is_empty());
    }
}
