//! Mounts by running `elton mount`, whose process lives on by itself: a plugin that ends, or is replaced by a newer one,
//! takes no container's files with it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags, memfd_create, statfs};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use tokio::process::Command;

use crate::mountinfo;
use crate::mounts::{MountError, Mounter, Probe, Seen};
use crate::name::Source;

/// How long a mount may take: the server is asked for the root of the tree.
const MOUNT_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a mount may take to answer `statfs`, which it does from memory.
const PROBE_TIME_MAX: Duration = Duration::from_secs(5);
/// Mounts on top of each other that are taken away at one place.
const STACKED_MAX: usize = 64;
/// `statfs` calls a FUSE file system so.
const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;
/// What the service manager tells this process is not for those it starts.
const FOR_THE_PLUGIN_ONLY: [&str; 6] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Mounts below one folder, by one program.
pub struct ProcessMounter {
    /// `elton`
    program: PathBuf,
    /// What comes behind `mount SOURCE DIR`.
    arguments: Vec<OsString>,
    root: PathBuf,
    /// Where a `statfs` has not come back yet: another one would wait beside it.
    waiting: Arc<Mutex<BTreeSet<(PathBuf, String)>>>,
}

impl ProcessMounter {
    /// Runs `PROGRAM mount SOURCE DIR ARGUMENTS…` for mounts below `root`, which is there.
    #[must_use]
    pub fn new(program: PathBuf, arguments: Vec<OsString>, root: PathBuf) -> Self {
        ProcessMounter { program, arguments, root, waiting: Arc::default() }
    }

    /// Runs the program and says what it said. Its output goes to a file in memory: the process that goes on may keep a pipe
    /// open for as long as it lives.
    async fn run(&self, source: &Source, at: &Path) -> io::Result<(ExitStatus, String)> {
        let said = File::from(memfd_create("elton-mount", rustix::fs::MemfdFlags::CLOEXEC)?);
        let mut command = Command::new(&self.program);
        command.arg("mount").arg(format!("{}@{}", source.bucket, source.number)).arg(at).args(&self.arguments);
        if !source.prefix.is_whole() {
            command.arg(format!("--prefix={}", source.prefix.as_str()));
        }
        for name in FOR_THE_PLUGIN_ONLY {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said.try_clone()?).kill_on_drop(true);
        let status = tokio::time::timeout(MOUNT_TIME_MAX, command.spawn()?.wait()).await;
        let status = status.map_err(|_elapsed| io::Error::other(format!("it took over {MOUNT_TIME_MAX:?}")))??;
        let mut text = vec![0; 4096];
        let length = said.read_at(&mut text, 0)?;
        Ok((status, String::from_utf8_lossy(&text[..length]).trim().to_owned()))
    }
}

#[async_trait]
impl Mounter for ProcessMounter {
    async fn mount(&self, source: &Source, at: &Path) -> Result<(), MountError> {
        blocking(at, "made ready", make_place).await?;
        let mounted = match self.run(source, at).await {
            Ok((status, _)) if status.success() => match self.probe(at).await {
                Probe::Alive => Ok(()),
                Probe::Nothing => Err("nothing is mounted"),
                Probe::Ended => Err("a mount that has ended"),
                Probe::Silent => Err("a mount that does not answer"),
            }
            .map_err(|found| MountError::NotThere {
                source_name: source.to_string(),
                at: at.to_owned(),
                found,
            }),
            Ok((status, said)) => {
                let said = said.trim_start_matches("error: ").trim_start_matches("elton: ");
                let reason =
                    if said.is_empty() { format!("`elton mount` ended with {status}") } else { said.to_owned() };
                Err(MountError::Refused { source_name: source.to_string(), reason })
            }
            Err(error) => {
                let reason = format!("`{} mount` could not be run: {error}", self.program.display());
                Err(MountError::Refused { source_name: source.to_string(), reason })
            }
        };
        if mounted.is_err()
            && let Err(error) = self.detach(at).await
        {
            tracing::warn!(%error, "what is left of a mount that failed could not be taken away");
        }
        mounted
    }

    async fn detach(&self, at: &Path) -> Result<(), MountError> {
        blocking(at, "unmounted", |at| {
            for _ in 0..STACKED_MAX {
                if !is_mounted(at)? {
                    return remove_place(at);
                }
                // At once for everybody who comes, and later for those who have it open.
                unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
            }
            Err(io::Error::other(format!("over {STACKED_MAX} mounts are on top of each other")))
        })
        .await
    }

    async fn probe(&self, at: &Path) -> Probe {
        // The list of mounts is asked first, for it always answers.
        let device = match blocking(at, "found", mounted_device).await {
            Ok(Some(device)) => device,
            Ok(None) => return Probe::Nothing,
            Err(error) => {
                tracing::warn!(%error, "the mounts of this host cannot be read");
                return Probe::Silent;
            }
        };
        // Of this mount, and not of one that was there before.
        let asked_about = (at.to_owned(), device);
        if !lock(&self.waiting).insert(asked_about.clone()) {
            return Probe::Silent;
        }
        let waiting = self.waiting.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let found = ask(&asked_about.0);
            lock(&waiting).remove(&asked_about);
            found
        });
        match tokio::time::timeout(PROBE_TIME_MAX, asked).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Probe::Silent,
        }
    }

    async fn survey(&self) -> io::Result<Vec<Seen>> {
        let root = self.root.clone();
        tokio::task::spawn_blocking(move || mountinfo::survey(&root))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

fn lock<T>(waiting: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    at: &Path,
    doing: &'static str,
    job: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, MountError> {
    let place = at.to_owned();
    let done = tokio::task::spawn_blocking(move || job(&place)).await;
    let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
    done.map_err(|source| MountError::Io { at: at.to_owned(), doing, source })
}

fn is_mounted(at: &Path) -> io::Result<bool> {
    Ok(mounted_device(at)?.is_some())
}

/// The device of what is mounted there; of several the one on top.
fn mounted_device(at: &Path) -> io::Result<Option<String>> {
    Ok(mountinfo::own()?.into_iter().rfind(|line| line.at == at).map(|line| line.device))
}

fn ask(at: &Path) -> Probe {
    match statfs(at) {
        Ok(found) if found.f_type as u64 == FUSE_SUPER_MAGIC => Probe::Alive,
        // Something else was mounted over it: of no use as what it should be.
        Ok(_) | Err(Errno::NOTCONN | Errno::CONNABORTED) => Probe::Ended,
        Err(Errno::NOENT) => Probe::Nothing,
        Err(error) => {
            tracing::warn!(at = %at.display(), %error, "a mount answers with an error");
            Probe::Silent
        }
    }
}

/// An empty folder that nobody can write to, root included where the file system knows how: what is written below a mount
/// that is not there would be lost from sight.
fn make_place(at: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o500).create(at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let folder = File::open(at)?;
    set_immutable(&folder, at, false);
    folder.set_permissions(fs::Permissions::from_mode(0o500))?;
    set_immutable(&folder, at, true);
    Ok(())
}

/// What is not there cannot be bound into a container by mistake.
fn remove_place(at: &Path) -> io::Result<()> {
    match File::open(at) {
        Ok(folder) => set_immutable(&folder, at, false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    fs::remove_dir(at)
}

fn set_immutable(folder: &File, at: &Path, immutable: bool) {
    let changed = ioctl_getflags(folder).and_then(|mut flags| {
        if flags.contains(IFlags::IMMUTABLE) == immutable {
            return Ok(());
        }
        flags.set(IFlags::IMMUTABLE, immutable);
        ioctl_setflags(folder, flags)
    });
    if let Err(error) = changed {
        tracing::debug!(at = %at.display(), %error, "this file system has no immutable folders");
    }
}
