//! Serving a mount: from the first question to the server until it is unmounted.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use federation::clock::SystemClock;
use federation::ids::SystemIds;
use federation::types::{Number, SnapshotRef};
use fuse::{Cache, Fs, Metrics, Mode, Options, Ownership, Profile, Session, SessionOptions, Source as _, View};
use tokio::signal::unix::{SignalKind, signal};

use super::pin::Pin;
use super::source::Server;
use super::{END_TIME_MAX, MountError, MountRecord, StateDir, control, places, state, table};
use crate::Failure;
use crate::cli::{LogFormat, MountArgs, MountProfile};
use crate::client::Client;

/// Mounts, says so, and serves until it is unmounted or told to end.
pub(super) fn run(arguments: &MountArgs, announce: impl FnOnce(&MountRecord) -> io::Result<()>) -> Result<(), Failure> {
    crate::serve::logging::start("info,fuser=error", LogFormat::Text);
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| MountError::Daemon(format!("no runtime could be made: {error}")))?;
    let served = runtime.block_on(serve(arguments, announce));
    // What is still being fetched is of no use to anybody; what was fetched is to be noted.
    runtime.shutdown_timeout(END_TIME_MAX);
    served
}

/// Every file that somebody has open is a file of the cache that this process has open, too.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

async fn serve(arguments: &MountArgs, announce: impl FnOnce(&MountRecord) -> io::Result<()>) -> Result<(), Failure> {
    let state_dir = StateDir::find(arguments.places.state.state.as_deref())?;
    // Who else wants to mount there waits until it is known what is there.
    let turn = state_dir.lock(&table::absolute(&arguments.directory)?)?;
    let mountpoint = free_mountpoint(arguments, &state_dir)?;
    let metrics = Arc::new(Metrics::default());
    let cache = open_cache(&arguments.places, &metrics)?;
    let client = Client::new(&arguments.client)?;
    let endpoint = client.endpoint().to_string();
    let handover = !arguments.places.copy_bodies;
    let server = Server::new(client, arguments.bucket.bucket.clone(), arguments.deadline.0, handover);
    let server = Arc::new(server);
    let (view, number) = view(arguments, &server).await?;
    let mut pin = match number {
        Some(number) => Some(Pin::take(server.clone(), number, &mountpoint.display().to_string()).await),
        None => None,
    };
    let fs = show(arguments, server, cache.clone(), metrics, view, number).await;
    let served = match fs {
        Ok(fs) => {
            let place = Place { state_dir: &state_dir, mountpoint, endpoint, turn };
            mounted(arguments, place, &fs, &cache, number, pin.as_mut(), announce).await
        }
        Err(error) => Err(error.into()),
    };
    if let Some(pin) = pin {
        pin.release().await;
    }
    served
}

async fn show(
    arguments: &MountArgs,
    server: Arc<Server>,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    view: View,
    number: Option<Number>,
) -> Result<Arc<Fs>, MountError> {
    let options = Options { ownership: ownership(arguments), deadline: arguments.deadline.0, ..Options::default() };
    let fs = Fs::new(server, cache, metrics, view, options).await;
    fs.map(Arc::new).map_err(|source| MountError::Snapshot { what: name(arguments, number), source })
}

/// What is mounted, by its name.
fn name(arguments: &MountArgs, number: Option<Number>) -> String {
    let bucket = &arguments.bucket.bucket;
    number.map_or_else(|| bucket.to_string(), |number| format!("{bucket}@{number}"))
}

/// Where it is mounted, and from where.
struct Place<'a> {
    state_dir: &'a StateDir,
    mountpoint: PathBuf,
    endpoint: String,
    /// Held until it is announced.
    turn: std::fs::File,
}

/// Mounts, and serves until the end.
async fn mounted(
    arguments: &MountArgs,
    place: Place<'_>,
    fs: &Arc<Fs>,
    cache: &Cache,
    number: Option<Number>,
    pin: Option<&mut Pin>,
    announce: impl FnOnce(&MountRecord) -> io::Result<()>,
) -> Result<(), Failure> {
    let Place { state_dir, mountpoint, endpoint, turn } = place;
    let session = mount(arguments, fs, cache, &mountpoint, name(arguments, number))?;
    let device = table::mounted_at(&mountpoint)?.filter(table::is_ours).map(|mounted| mounted.device);
    let record = MountRecord {
        bucket: arguments.bucket.bucket.to_string(),
        number: number.map(|number| number.0),
        prefix: arguments.prefix.clone(),
        pid: std::process::id(),
        pid_start: state::process_start(std::process::id()).unwrap_or(0),
        mode: session.mode().to_string(),
        mode_reason: match session.mode() {
            Mode::Cached(reason) => Some(reason.clone()),
            Mode::Passthrough | Mode::SmallFiles => None,
        },
        endpoint,
        cache: cache.folder().to_owned(),
        log: arguments.daemon.then(|| state_dir.log(&mountpoint)),
        since: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        pin: pin.as_ref().and_then(|pin| pin.id().map(ToOwned::to_owned)),
        mountpoint,
    };
    let announce = |record: &MountRecord| {
        drop(turn);
        announce(record)
    };
    let mount = Mount { record: &record, device: device.as_deref() };
    let served = until_the_end(state_dir, &mount, fs, session, pin, announce).await;
    if served.is_err() {
        mount.end();
    }
    state_dir.forget_own(&record)?;
    served
}

/// Notes the mount, answers for it, and waits for its end.
async fn until_the_end(
    state_dir: &StateDir,
    mount: &Mount<'_>,
    fs: &Arc<Fs>,
    session: Session,
    pin: Option<&mut Pin>,
    announce: impl FnOnce(&MountRecord) -> io::Result<()>,
) -> Result<(), Failure> {
    let unusable = |source| MountError::State { path: state_dir.path().to_owned(), source };
    let record = mount.record;
    let mut ended = tokio::task::spawn_blocking(move || session.join());
    let mut stop = signal(SignalKind::terminate()).map_err(unusable)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unusable)?;
    state_dir.write(record)?;
    answers(&record.mountpoint).await?;
    let listener = control::bind(state_dir, record)?;
    announce(record)?;
    // The directory that it was started in is not to be kept from being unmounted.
    std::env::set_current_dir("/").map_err(unusable)?;
    let mountpoint = record.mountpoint.display().to_string();
    let keep_pin = async {
        match pin {
            Some(pin) => pin.keep(&mountpoint).await,
            None => std::future::pending().await,
        }
    };
    let control = control::serve(listener, record.clone(), fs.clone());
    tokio::pin!(keep_pin, control);
    loop {
        tokio::select! {
            outcome = &mut ended => {
                outcome.map_err(io::Error::other)?;
                return Ok(());
            }
            () = &mut keep_pin => {}
            never = &mut control => match never {},
            _ = stop.recv() => mount.end(),
            _ = interrupt.recv() => mount.end(),
        }
    }
}

/// A mount of this process.
struct Mount<'a> {
    record: &'a MountRecord,
    /// Which file system it is, if the kernel's table had it.
    device: Option<&'a str>,
}

impl Mount<'_> {
    /// Unmounts, if it still is what stands there. Whoever still uses it goes on, and so does this process until they
    /// have ended.
    fn end(&self) {
        let mountpoint = &self.record.mountpoint;
        let ended = table::mounted_at(mountpoint).and_then(|top| match top {
            Some(top) if Some(top.device.as_str()) == self.device => table::unmount(mountpoint, true),
            // It was detached before, and what is there now is another's.
            Some(_) | None => Ok(()),
        });
        if let Err(error) = ended {
            tracing::warn!(%error, "the mount could not be ended");
        }
    }
}

/// Returns once the kernel answers for the mount: what stands there is ours, and not the directory below it.
async fn answers(mountpoint: &std::path::Path) -> Result<(), Failure> {
    let at = mountpoint.to_owned();
    let stat = tokio::task::spawn_blocking(move || rustix::fs::statfs(&at)).await.map_err(io::Error::other)?;
    const FUSE_MAGIC: i64 = 0x6573_5546;
    let refused = |reason: String| MountError::Refused { what: "mounting".into(), reason };
    let stat = stat.map_err(|error| refused(error.to_string()))?;
    if stat.f_type as i64 != FUSE_MAGIC {
        return Err(refused("the kernel shows another file system there".to_owned()).into());
    }
    Ok(())
}

fn mount(
    arguments: &MountArgs,
    fs: &Arc<Fs>,
    cache: &Cache,
    mountpoint: &std::path::Path,
    name: String,
) -> Result<Session, MountError> {
    let options = SessionOptions {
        name,
        profile: match arguments.profile {
            MountProfile::Files => Profile::Files,
            MountProfile::SmallFiles => Profile::SmallFiles,
        },
        allow_other: arguments.allow_other,
        trust_attributes: arguments.trust_attributes,
    };
    let refused = |error: io::Error| {
        let hint = if places::is_root() { "is the module fuse loaded?" } else { "is fuse3 installed?" };
        MountError::Refused {
            what: format!("mounting at {}", mountpoint.display()),
            reason: format!("{error}; {hint}"),
        }
    };
    let trial = cache.trial().map_err(refused)?;
    Session::mount(fs.clone(), tokio::runtime::Handle::current(), mountpoint, &options, &trial).map_err(refused)
}

/// The mountpoint, nothing being mounted there. A mount whose process died is ended first.
fn free_mountpoint(arguments: &MountArgs, state_dir: &StateDir) -> Result<PathBuf, MountError> {
    let path = table::absolute(&arguments.directory)?;
    while let Some(mounted) = table::mounted_at(&path)?.filter(table::is_ours) {
        if !table::is_stale(&path) {
            return Err(MountError::Mounted { path, what: mounted.name.to_string_lossy().into_owned() });
        }
        tracing::info!(mountpoint = %path.display(), "the process of an earlier mount died; that mount is ended");
        table::unmount(&path, true)?;
    }
    if let Some(record) = state_dir.record_of(&path)? {
        state_dir.forget_if_dead(&record)?;
    }
    let unusable = |reason: String| MountError::Mountpoint { path: path.clone(), reason };
    let mut entries = std::fs::read_dir(&path).map_err(|error| unusable(error.to_string()))?;
    if entries.next().is_some() {
        return Err(unusable("it is not empty; what is in it would be hidden".to_owned()));
    }
    Ok(path)
}

pub(super) fn open_cache(arguments: &crate::cli::PlaceArgs, metrics: &Arc<Metrics>) -> Result<Arc<Cache>, MountError> {
    let folder = places::cache(arguments.cache.as_deref());
    let cache =
        Cache::open(&folder, arguments.cache_size.0, Arc::new(SystemClock), Arc::new(SystemIds), metrics.clone())?;
    Ok(Arc::new(cache))
}

async fn view(arguments: &MountArgs, server: &Server) -> Result<(View, Option<Number>), Failure> {
    if arguments.snapshots {
        if arguments.bucket.snapshot.is_some() {
            let text = "--snapshots shows all snapshots of a bucket: name the bucket alone";
            return Err(Failure::Usage(text.to_owned()));
        }
        return Ok((View::Snapshots, None));
    }
    let snapshot = arguments.bucket.snapshot.as_ref().map(SnapshotRef::to_string);
    let unread =
        |error| MountError::Snapshot { what: arguments.bucket.to_string(), source: fuse::Error::Source(error) };
    let tree = server.tree(snapshot.as_deref()).await.map_err(unread)?;
    let mut prefix = arguments.prefix.clone().into_bytes();
    if !prefix.is_empty() && !prefix.ends_with(b"/") {
        prefix.push(b'/');
    }
    let number = tree.number;
    Ok((View::Snapshot(tree, prefix), Some(number)))
}

/// Root shows the owners that the metadata names; everybody else owns what they mount.
fn ownership(arguments: &MountArgs) -> Ownership {
    Ownership {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        foreign: places::is_root() || arguments.trust_attributes,
        trust: arguments.trust_attributes,
    }
}
