//! Which mounts this host has: a note of each in the state directory, with its socket and its log.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{MountError, places, table};
use crate::data_dir::{Secrecy, write_durably};

/// What is noted of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// The bucket.
    pub bucket: String,
    /// The number that it shows; none if it shows all snapshots.
    pub number: Option<u64>,
    /// Below which prefix.
    pub prefix: String,
    /// Where.
    pub mountpoint: PathBuf,
    /// The process that serves it.
    pub pid: u32,
    /// When that began, in the kernel's ticks since boot: a process of the same number is another one.
    pub pid_start: u64,
    /// How files are read: `passthrough`, `cached` or `small-files`.
    pub mode: String,
    /// Why not otherwise.
    pub mode_reason: Option<String>,
    /// The server.
    pub endpoint: String,
    /// Where bodies are kept.
    pub cache: PathBuf,
    /// Where it writes its log, if it has one of its own.
    pub log: Option<PathBuf>,
    /// Since when it is mounted.
    pub since: String,
    /// The pin that keeps the snapshot.
    pub pin: Option<String>,
}

impl MountRecord {
    /// What is mounted, by its name.
    #[must_use]
    pub fn name(&self) -> String {
        match self.number {
            Some(number) => format!("{}@{number}", self.bucket),
            None => self.bucket.clone(),
        }
    }

    /// What was mounted, for people.
    #[must_use]
    pub fn sentence(&self) -> String {
        let reason = self.mode_reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let below = if self.prefix.is_empty() { String::new() } else { format!(" below {}", self.prefix) };
        format!("mounted {}{below} at {} ({}{reason})\n", self.name(), self.mountpoint.display(), self.mode)
    }
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The given directory or the user's, made if it is not there.
    pub fn find(given: Option<&Path>) -> Result<StateDir, MountError> {
        let path = places::state(given);
        let state = StateDir(path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&state.0).map_err(|source| state.unusable(source))?;
        Ok(state)
    }

    /// The same, if it is there.
    pub fn find_existing(given: Option<&Path>) -> Result<Option<StateDir>, MountError> {
        let path = places::state(given);
        Ok(path.is_dir().then_some(StateDir(path)))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a mount's log is.
    #[must_use]
    pub fn log(&self, mountpoint: &Path) -> PathBuf {
        self.0.join(format!("{}.log", id(mountpoint)))
    }

    /// What a mount's socket is called in the directory.
    #[must_use]
    pub fn socket_name(mountpoint: &Path) -> String {
        format!("{}.socket", id(mountpoint))
    }

    /// Waits until nobody else is about to mount there; it is given back when the file is dropped.
    pub fn lock(&self, mountpoint: &Path) -> Result<fs::File, MountError> {
        let path = self.0.join(format!("{}.lock", id(mountpoint)));
        let file = fs::File::create(&path).map_err(|source| self.unusable(source))?;
        file.lock().map_err(|source| self.unusable(source))?;
        Ok(file)
    }

    fn note(&self, mountpoint: &Path) -> PathBuf {
        self.0.join(format!("{}.json", id(mountpoint)))
    }

    /// Notes a mount.
    pub fn write(&self, record: &MountRecord) -> Result<(), MountError> {
        let text = serde_json::to_string_pretty(record).expect("records have string keys");
        let written = write_durably(&self.note(&record.mountpoint), text.as_bytes(), Secrecy::Secret);
        written.map_err(|source| self.unusable(source))
    }

    /// What is noted of a mountpoint.
    pub fn record_of(&self, mountpoint: &Path) -> Result<Option<MountRecord>, MountError> {
        self.read(&self.note(mountpoint))
    }

    /// All that is noted, by mountpoint.
    pub fn records(&self) -> Result<Vec<MountRecord>, MountError> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(|source| self.unusable(source))? {
            let path = entry.map_err(|source| self.unusable(source))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.extend(self.read(&path)?);
            }
        }
        records.sort_by(|one, other| one.mountpoint.cmp(&other.mountpoint));
        Ok(records)
    }

    /// Removes the note of a mount that has ended, and its socket. Its log stays.
    pub fn forget(&self, mountpoint: &Path) -> Result<(), MountError> {
        for path in [self.note(mountpoint), self.0.join(StateDir::socket_name(mountpoint))] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.unusable(error)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The same, if nobody serves it any more.
    pub fn forget_if_dead(&self, record: &MountRecord) -> Result<(), MountError> {
        // Another one may have been mounted there since.
        let noted = self.record_of(&record.mountpoint)?;
        if noted.is_some_and(|noted| noted == *record) && !self.is_alive(record) {
            return self.forget(&record.mountpoint);
        }
        Ok(())
    }

    /// Removes the note of a mount that this process ended, unless another one was mounted there since.
    pub fn forget_own(&self, record: &MountRecord) -> Result<(), MountError> {
        match self.record_of(&record.mountpoint)? {
            Some(noted) if noted == *record => self.forget(&record.mountpoint),
            _ => Ok(()),
        }
    }

    /// Whether the process of a mount is there.
    #[must_use]
    pub fn is_alive(&self, record: &MountRecord) -> bool {
        process_start(record.pid) == Some(record.pid_start)
    }

    fn read(&self, path: &Path) -> Result<Option<MountRecord>, MountError> {
        match fs::read(path) {
            // One of another version is as good as none: the mount itself is in the kernel's table.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.unusable(source)),
        }
    }

    fn unusable(&self, source: io::Error) -> MountError {
        MountError::State { path: self.0.clone(), source }
    }
}

/// When a process began, in ticks since boot; none if there is no such process or it has ended.
pub(super) fn process_start(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may have anything in it.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then_some(())?;
    fields.nth(18)?.parse().ok()
}

fn id(mountpoint: &Path) -> String {
    Sha256::digest(table::bytes(mountpoint)).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(mountpoint: &Path, pid: u32) -> MountRecord {
        MountRecord {
            bucket: "photos".into(),
            number: Some(42),
            prefix: String::new(),
            mountpoint: mountpoint.to_owned(),
            pid,
            pid_start: process_start(pid).unwrap_or(0),
            mode: "cached".into(),
            mode_reason: Some("passthrough needs root".into()),
            endpoint: "http://127.0.0.1:9000".into(),
            cache: "/c".into(),
            log: None,
            since: "now".into(),
            pin: None,
        }
    }

    #[test]
    fn notes_are_written_read_and_forgotten() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::find(Some(&folder.path().join("state"))).expect("made");
        let alive = record(Path::new("/mnt/a"), std::process::id());
        let dead = MountRecord { pid_start: 1, ..record(Path::new("/mnt/b"), std::process::id()) };
        for record in [&alive, &dead] {
            state.write(record).expect("written");
        }
        assert_eq!(state.records().expect("readable"), [alive.clone(), dead.clone()]);
        assert!(state.is_alive(&alive) && !state.is_alive(&dead));
        for record in [&alive, &dead] {
            state.forget_if_dead(record).expect("looked at");
        }
        assert_eq!(state.records().expect("readable"), std::slice::from_ref(&alive));
        assert_eq!(alive.sentence(), "mounted photos@42 at /mnt/a (cached: passthrough needs root)\n");
    }
}
