//! `elton docker-plugin`: the socket, the state directory, and what mounts.

mod snapshots;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugin::error::VolumeError;
use plugin::process::ProcessMounter;
use plugin::server::{Socket, SocketError};
use plugin::store::FileStore;
use plugin::volumes::{Volumes, VolumesConfig};
use sd_notify::NotifyState;

use crate::cli::{ClientArgs, DockerPluginArgs};
use crate::client::{Client, ClientError, Endpoint};
use crate::serve::logging;
use crate::serve::stop::StopSignals;
use snapshots::ServerSnapshots;

/// Which boot of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why the plugin did not start, or broke.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The endpoint is none.
    #[error(transparent)]
    Endpoint(ClientError),
    /// The log's filter is none.
    #[error("--log {given} is no filter: {reason}")]
    Log {
        /// What was given.
        given: String,
        /// Why it is none.
        reason: String,
    },
    /// A directory cannot be used.
    #[error(
        "{path} cannot be used: {source}; the plugin runs as root, for it mounts, and keeps its state there (--state)"
    )]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is another one.
    #[error("another plugin uses {path}: stop it, or choose another --state")]
    Locked {
        /// The state directory.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The volumes cannot be read.
    #[error(transparent)]
    Volumes(#[from] VolumeError),
    /// The process lacks something.
    #[error("the plugin could not run: {0}")]
    Io(#[from] io::Error),
}

impl PluginError {
    /// Whether the way it was called is to blame.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, PluginError::Endpoint(_) | PluginError::Log { .. })
    }
}

/// Answers dockerd until it is told to stop. Mounts go on.
pub fn run(arguments: &DockerPluginArgs) -> Result<(), PluginError> {
    let wrong = |error: tracing_subscriber::filter::ParseError| PluginError::Log {
        given: arguments.log.clone(),
        reason: error.to_string(),
    };
    logging::filter(&arguments.log).map_err(wrong)?;
    if let Some(endpoint) = &arguments.endpoint {
        Endpoint::parse(endpoint).map_err(PluginError::Endpoint)?;
    }
    logging::start(&arguments.log, arguments.log_format);
    let handed_over = handed_over()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(arguments, handed_over));
    // A thread may wait for a mount that never answers.
    runtime.shutdown_background();
    result
}

async fn serve(arguments: &DockerPluginArgs, handed_over: Option<Socket>) -> Result<(), PluginError> {
    let mut signals = StopSignals::catch()?;
    let state = StateDir::open(&arguments.state)?;
    let client = client(arguments);
    if let Err(error) = Client::new(&client) {
        tracing::warn!(%error, "no server can be asked yet");
    }
    let config = VolumesConfig {
        root: state.mounts(),
        boot: fs::read_to_string(BOOT_ID)?.trim().to_owned(),
        forget_after: arguments.forget_after.0,
    };
    let mounter = ProcessMounter::new(std::env::current_exe()?, mount_arguments(arguments)?, state.mounts());
    let store = Arc::new(FileStore::new(state.volumes()));
    let volumes = Volumes::open(config, store, Arc::new(mounter), Arc::new(ServerSnapshots { client })).await?;
    let socket = match handed_over {
        Some(socket) => socket,
        None => Socket::bind(&arguments.socket)?,
    };
    let looking_after = tokio::spawn(volumes.clone().look_after(arguments.reconcile_interval.0));
    tracing::info!(
        socket = %arguments.socket.display(), state = %state.path.display(), volumes = volumes.list().len(),
        version = env!("CARGO_PKG_VERSION"), "answering dockerd"
    );
    notify(NotifyState::Ready);
    let stop = async {
        let signal = signals.next().await;
        tracing::info!(signal, "stopping; what is mounted stays mounted");
        notify(NotifyState::Stopping);
    };
    plugin::server::serve(socket, volumes, stop).await?;
    looking_after.abort();
    Ok(())
}

/// The socket that systemd listens on, if it does.
fn handed_over() -> io::Result<Option<Socket>> {
    let Some(listener) = listenfd::ListenFd::from_env().take_unix_listener(0)? else { return Ok(None) };
    // The mounts that this process starts must not keep it open.
    rustix::io::fcntl_setfd(listener.as_fd(), rustix::io::FdFlags::CLOEXEC)?;
    Ok(Some(Socket::handed_over(listener)))
}

fn client(arguments: &DockerPluginArgs) -> ClientArgs {
    ClientArgs {
        endpoint: arguments.endpoint.clone(),
        ca_cert: arguments.ca_cert.clone(),
        data: arguments.data.clone(),
        json: false,
    }
}

/// What `elton mount` is told beside what and where. Keys go by the environment, where nobody lists them.
fn mount_arguments(arguments: &DockerPluginArgs) -> io::Result<Vec<OsString>> {
    let mut given: Vec<OsString> = vec!["--allow-other".into()];
    let mut give = |option: &str, value: Option<OsString>| {
        if let Some(value) = value {
            given.extend([option.into(), value]);
        }
    };
    let absolute = |path: &Option<PathBuf>| path.as_deref().map(std::path::absolute).transpose();
    give("--cache", absolute(&arguments.cache)?.map(OsString::from));
    give("--endpoint", arguments.endpoint.clone().map(OsString::from));
    give("--ca-cert", absolute(&arguments.ca_cert)?.map(OsString::from));
    give("--data", absolute(&arguments.data)?.map(OsString::from));
    Ok(given)
}

/// The plugin's own directory: one process at a time.
struct StateDir {
    path: PathBuf,
    /// Held for as long as the process lives.
    _lock: File,
}

impl StateDir {
    fn open(path: &Path) -> Result<Self, PluginError> {
        let unusable = |source| PluginError::State { path: path.to_owned(), source };
        let make = |folder: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        make(path).map_err(unusable)?;
        // As the kernel names it: mounts are found again by their path.
        let path = fs::canonicalize(path).map_err(unusable)?;
        let lock = File::create(path.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(PluginError::Locked { path }),
            Err(fs::TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let state = StateDir { path, _lock: lock };
        make(&state.mounts()).map_err(unusable)?;
        Ok(state)
    }

    /// Volumes and their uses.
    fn volumes(&self) -> PathBuf {
        self.path.join("volumes.json")
    }

    /// Where snapshots are mounted.
    fn mounts(&self) -> PathBuf {
        self.path.join("mnt")
    }
}

/// Tells systemd, where it waits to be told.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        tracing::debug!(%error, "systemd could not be notified");
    }
}
