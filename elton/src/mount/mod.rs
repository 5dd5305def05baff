//! Mounts: `elton mount`, `umount` and `prefetch`, and the processes that serve them.
//!
//! Each mount is served by a process of its own, so that one that dies takes no other along. It is noted in the state
//! directory (`state.rs`) and answers for itself on a socket there (`control.rs`). Which directories are mounts, the
//! kernel says (`table.rs`).

mod control;
mod daemon;
mod pin;
mod places;
mod prefetch;
mod serve;
mod source;
mod state;
mod table;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Failure;
use crate::cli::{MountArgs, PrefetchArgs, UmountArgs};
use crate::output::Output;

pub use control::MountStatus;
pub use state::{MountRecord, StateDir};

/// How long unmounting waits for the serving process to end.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// Why a mount could not be made, served or ended.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mountpoint cannot be one.
    #[error("{} cannot be mounted on: {reason}", path.display())]
    Mountpoint {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something is mounted there.
    #[error("{} is mounted already ({what}); unmount it first: elton umount {}", path.display(), path.display())]
    Mounted {
        /// Where.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// Nothing is mounted there.
    #[error("nothing of Elton's is mounted at {}; `elton status` lists the mounts of this host", .0.display())]
    NotMounted(PathBuf),
    /// It is in use.
    #[error("{} is in use; end what uses it (`fuser -vm {}` lists that), or detach it now with --lazy", .0.display(), .0.display())]
    Busy(PathBuf),
    /// The kernel or fusermount3 refused.
    #[error("{what}: {reason}")]
    Refused {
        /// What was tried.
        what: String,
        /// Why it did not work.
        reason: String,
    },
    /// The state directory is no use.
    #[error("the state directory {} cannot be used: {source}; name another one with --state", path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cache directory is no use.
    #[error(transparent)]
    Cache(#[from] fuse::CacheError),
    /// The snapshot cannot be read.
    #[error("{what} cannot be read: {source}")]
    Snapshot {
        /// Which.
        what: String,
        /// Why.
        source: fuse::Error,
    },
    /// The process that was to serve it did not.
    #[error("{0}")]
    Daemon(String),
}

/// `elton mount`
pub fn run(arguments: &MountArgs) -> Result<(), Failure> {
    if arguments.daemon {
        return daemon::serve(arguments);
    }
    if arguments.foreground {
        serve::run(arguments, |record| announce(arguments, record))
    } else {
        daemon::start(arguments)
    }
}

/// Says what was mounted.
fn announce(arguments: &MountArgs, record: &MountRecord) -> io::Result<()> {
    if arguments.client.json {
        // One line, so that whoever started this can go on after it.
        return crate::output::print(&(serde_json::to_string(record)? + "\n"));
    }
    crate::output::print(&record.sentence())
}

/// `elton umount`
pub fn umount(arguments: &UmountArgs) -> Result<(), Failure> {
    let state = StateDir::find(arguments.state.state.as_deref())?;
    let directory = table::absolute(&arguments.directory)?;
    let mounted = table::mounted_at(&directory)?.filter(table::is_ours);
    let record = state.record_of(&directory)?;
    if mounted.is_none() {
        // Whoever served it died, or it was unmounted by other means: nothing is left but the note.
        if let Some(record) = record {
            state.forget_if_dead(&record)?;
        }
        return Err(MountError::NotMounted(directory).into());
    }
    table::unmount(&directory, arguments.lazy)?;
    if let Some(record) = record {
        if !arguments.lazy {
            wait_for_end(&state, &record);
        }
        state.forget_if_dead(&record)?;
    }
    let result = serde_json::json!({ "unmounted": directory, "lazy": arguments.lazy });
    Output::new(arguments.json).show(&result, |_| format!("unmounted {}\n", directory.display()))?;
    Ok(())
}

/// Waits for the process of a mount that has ended, so that what it kept is on disk and another mount may begin.
fn wait_for_end(state: &StateDir, record: &MountRecord) {
    let begin = std::time::Instant::now();
    while state.is_alive(record) && begin.elapsed() < END_TIME_MAX {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `elton prefetch`
pub fn prefetch(arguments: &PrefetchArgs) -> Result<(), Failure> {
    prefetch::run(arguments)
}

/// The mounts of this host that answer, and those that are noted and do not.
pub fn list(state: Option<&Path>) -> Result<Vec<MountStatus>, MountError> {
    let Some(state) = StateDir::find_existing(state)? else { return Ok(Vec::new()) };
    Ok(state.records()?.into_iter().map(|record| control::ask(&state, record)).collect())
}
