//! `elton serve`: configuration, keys, TLS, the core, the gateway, and an orderly end.

mod certificate;
mod collector;
mod config;
mod keys;
pub mod logging;
mod peers;
pub mod stop;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use federation::clock::{Clock, SystemClock};
use federation::cluster::Cluster;
use federation::ids::SystemIds;
use federation::master::{Durability, Master, MasterConfig};
use gateway::admin::{AdminApi, ServerFacts};
use gateway::metrics::Metrics;
use gateway::request_id::RequestIds;
use gateway::s3::{Owner, S3Edge, S3EdgeConfig, S3Limits};
use gateway::server::{Front, FrontConfig, Server, describe};
use gateway::tls::TlsError;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::cli::{DurabilityKind, ServeArgs};
use crate::data_dir::DataDir;
use crate::handover;
use crate::output;
use config::{ConfigError, ServeConfig, TlsChoice};
use stop::StopSignals;

/// Threads for calls that block: disk reads, hashing, the catalog.
const BLOCKING_THREADS_MAX: usize = 128;
/// How long the core may take to close beyond the requests' own time.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(20);

/// Why a server did not start, or broke.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The runtime could not be made.
    #[error("the server's threads could not be started: {0}; look at the limits on processes and memory")]
    Runtime(#[source] io::Error),
    /// The core could not open its data.
    #[error("{message}")]
    Open {
        /// Why, and what to do next.
        message: String,
    },
    /// Keys could not be read or made.
    #[error(transparent)]
    Keys(#[from] keys::KeysError),
    /// This cluster cannot be one among others.
    #[error(transparent)]
    Peers(#[from] peers::PeerError),
    /// The self-signed certificate could not be read or made.
    #[error(transparent)]
    Certificate(#[from] certificate::CertificateError),
    /// A certificate file could not be read.
    #[error("{path} cannot be read: {source}")]
    CertificateFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Certificate and key are no use.
    #[error("TLS cannot be served with {files}: {reason}")]
    Tls {
        /// Which files.
        files: String,
        /// Why.
        reason: String,
    },
    /// It was told twice to stop.
    #[error("ended at once by {signal} before it had stopped; what was acknowledged is on disk")]
    Cut {
        /// The second signal.
        signal: &'static str,
    },
    /// The port could not be bound.
    #[error("{message}")]
    Bind {
        /// Why, and what to do next.
        message: String,
    },
}

impl ServeError {
    /// Whether the way the server was called is to blame.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            ServeError::Config(_) => true,
            ServeError::Runtime(_)
            | ServeError::Open { .. }
            | ServeError::Keys(_)
            | ServeError::Peers(_)
            | ServeError::Certificate(_)
            | ServeError::CertificateFile { .. }
            | ServeError::Tls { .. }
            | ServeError::Cut { .. }
            | ServeError::Bind { .. } => false,
        }
    }
}

/// Runs a server until it is told to stop.
pub fn serve(arguments: &ServeArgs) -> Result<(), ServeError> {
    let config = ServeConfig::load(arguments, |name| std::env::var(name).ok())?;
    logging::start(&config.log, config.log_format);
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(ServeError::Runtime)?;
    let result = runtime.block_on(run(config));
    // What is still running took longer than it was given.
    runtime.shutdown_background();
    result
}

async fn run(config: ServeConfig) -> Result<(), ServeError> {
    let mut signals = StopSignals::catch().map_err(ServeError::Runtime)?;
    let given = given_certificate(&config.tls)?;
    let master = open(&config).await?;
    let Started { server, cluster, ca, handover } = match start(&config, master.clone(), given).await {
        Ok(started) => started,
        Err(error) => {
            master.close().await;
            return Err(error);
        }
    };
    let address = server.local_addr().map_err(|error| ServeError::Bind { message: error.to_string() })?;
    let (stop, stopping) = watch::channel(false);
    let collecting = tokio::spawn(collector::run(cluster.clone(), config.collect_interval, stopping.clone()));
    let grace = config.shutdown_grace;
    let mut stopped = stopping;
    let serving = tokio::spawn(server.run(
        async move {
            // An error means that nobody is left to say it.
            let _ = stopped.wait_for(|stop| *stop).await;
        },
        grace,
    ));
    let handing_over = handover.map(|listener| tokio::spawn(handover::serve::run(listener, cluster.clone())));
    announce(&config.tls, address, ca.as_deref());

    let signal = signals.next().await;
    tracing::info!(signal, grace_seconds = grace.as_secs(), "stopping; a second signal ends the process at once");
    notify(&[NotifyState::Stopping]);
    stop.send_replace(true);
    if let Some(handing_over) = handing_over {
        handing_over.abort();
    }
    tokio::select! {
        () = wind_down(serving, collecting, &cluster, grace) => {
            tracing::info!("stopped");
            Ok(())
        }
        signal = signals.next() => {
            // Returning ends the process: nothing that still runs is waited for.
            Err(ServeError::Cut { signal })
        }
    }
}

async fn wind_down(
    serving: tokio::task::JoinHandle<usize>,
    collecting: tokio::task::JoinHandle<()>,
    cluster: &Cluster,
    grace: Duration,
) {
    match serving.await {
        Ok(0) => {}
        Ok(connections) => tracing::warn!(connections, "cut connections off that took longer than the grace period"),
        Err(error) => tracing::error!(%error, "the server's task ended"),
    }
    let closing = async {
        // A pass of the collector that has begun is ended; it touches the core.
        if let Err(error) = collecting.await {
            tracing::error!(%error, "the collector's task ended");
        }
        cluster.close().await;
    };
    if tokio::time::timeout(grace.max(CLOSE_TIME_MAX), closing).await.is_err() {
        tracing::warn!("the core took too long to close; nothing acknowledged is lost, the next start recovers");
    }
}

async fn open(config: &ServeConfig) -> Result<Arc<Master>, ServeError> {
    Master::open(master_config(config)).await.map_err(|error| ServeError::Open { message: cannot_open(config, &error) })
}

fn cannot_open(config: &ServeConfig, error: &federation::Error) -> String {
    let data = config.data.path().display();
    match error {
        // These name the directory and the next step themselves.
        federation::Error::DataInUse { .. } | federation::Error::DataUnusable { .. } => describe(error),
        federation::Error::NoSpace => format!(
            "the disk of {data} is full: free some of it, or lower --disk-reserve for this start and collect with \
             `elton gc`"
        ),
        error if is_forbidden(error) => format!(
            "the data directory {data} cannot be written ({}): let the user that runs Elton own it and all that is in \
             it, on a file system that is mounted for writing",
            describe(error)
        ),
        error => format!(
            "the data directory {data} cannot be opened ({}): if the disk is well and this \
             stays, put a copy of the whole directory back in its place",
            describe(error)
        ),
    }
}

/// Whether the operating system does not let this process write.
fn is_forbidden(error: &federation::Error) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem))
}

fn master_config(config: &ServeConfig) -> MasterConfig {
    let mut master = MasterConfig::new(config.data.path());
    master.durability = match config.durability {
        DurabilityKind::Strict => Durability::Strict,
        DurabilityKind::Relaxed => Durability::Relaxed,
    };
    master.disk_reserve = config.disk_reserve;
    master.catalog_cache_bytes = config.catalog_cache;
    master.keep_seconds = config.keep.as_secs();
    master
}

/// What serves.
struct Started {
    server: Server,
    cluster: Arc<Cluster>,
    /// The certificate that clients may have to trust.
    ca: Option<PathBuf>,
    /// Where the mounts of this host ask for open files.
    handover: Option<tokio::net::UnixListener>,
}

/// Everything between the core and the port.
async fn start(config: &ServeConfig, master: Arc<Master>, given: Option<TlsAcceptor>) -> Result<Started, ServeError> {
    warn_of_plain_http(config);
    let root = keys::root(&config.data, config.root.clone(), &local_endpoint(config), &SystemIds)?;
    if root.made {
        let file = config.data.credentials();
        tracing::info!(file = %file.display(), "made root keys; the file says how clients use them");
    }
    let owner_id = keys::owner_id(&config.data, &SystemIds)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (tls, ca) = match &config.tls {
        TlsChoice::SelfSigned { names } => {
            let acceptor = made_certificate(config, names, clock.as_ref())?;
            (Some(acceptor), Some(config.data.ca_certificate()))
        }
        TlsChoice::Off | TlsChoice::Files { .. } => (given, None),
    };
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    let handover = handover_socket(&config.data);
    let data = absolute(&config.data);
    let facts = ServerFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: config.name.clone(),
        region: config.region.clone(),
        data: data.display().to_string(),
        handover: handover.is_some().then(|| data.join(handover::SOCKET).display().to_string()),
        started: clock.wall(),
    };
    let others = peers::configure(config, &SystemIds).await?;
    let opened = Cluster::federated(master, others).await;
    let cluster = opened.map_err(|error| ServeError::Open { message: cannot_open(config, &error) })?;
    let admin = AdminApi::new(cluster.clone(), metrics.clone(), clock, facts);
    let s3_limits = S3Limits::default();
    let s3 = S3Edge::new(
        cluster.clone(),
        S3EdgeConfig {
            region: config.region.clone(),
            credentials: Arc::new(root.keys),
            owner: Owner { id: owner_id, display_name: config.name.clone() },
            limits: s3_limits,
            https: tls.is_some(),
            admin: Arc::new(admin),
        },
    )
    .map_err(|error| ConfigError::Option { option: "region", reason: error.to_string() })?
    .into_service();
    let front = Front::new(FrontConfig {
        cluster: cluster.clone(),
        s3,
        metrics,
        ids: RequestIds::new(&SystemIds),
        region: config.region.clone(),
        metrics_token: config.metrics_token.clone(),
        limits: config.limits.clone(),
        s3_limits,
    });
    let server = Server::bind(config.listen, tls, front).await.map_err(|error| bind_error(config.listen, &error))?;
    Ok(Started { server, cluster, ca, handover })
}

/// A server without the socket is as good, but that mounts copy what they read.
fn handover_socket(data: &DataDir) -> Option<tokio::net::UnixListener> {
    let bound = handover::serve::bind(data);
    bound.inspect_err(|error| tracing::warn!(%error, "mounts of this host are not given open files")).ok()
}

fn bind_error(address: SocketAddr, error: &io::Error) -> ServeError {
    let next = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program answers there already: stop it, or choose another address with --listen"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose one it has with --listen",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: grant it, or choose a higher port with --listen"
        }
        _ => "choose another address with --listen",
    };
    ServeError::Bind { message: format!("{address} cannot be listened on ({error}): {next}") }
}

/// The acceptor for certificate files, which are read before anything else is touched.
fn given_certificate(tls: &TlsChoice) -> Result<Option<TlsAcceptor>, ServeError> {
    let TlsChoice::Files { certificate, key } = tls else { return Ok(None) };
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| ServeError::CertificateFile { path: path.clone(), source })
    };
    let acceptor = gateway::tls::acceptor(&read(certificate)?, &read(key)?);
    acceptor.map(Some).map_err(|error| tls_error(format!("{} and {}", certificate.display(), key.display()), &error))
}

fn made_certificate(config: &ServeConfig, names: &[String], clock: &dyn Clock) -> Result<TlsAcceptor, ServeError> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let names = certificate::names(config.listen.ip(), &host, names);
    let made = certificate::self_signed(&config.data, &names, year(clock))?;
    let folder = absolute(&config.data).join("tls");
    if !made.missing.is_empty() {
        tracing::warn!(
            names = made.missing.join(", "), folder = %folder.display(),
            "the kept certificate is not for these names; remove the folder to have a new one made",
        );
    }
    gateway::tls::acceptor(made.chain.as_bytes(), made.key.as_bytes())
        .map_err(|error| tls_error(format!("what is kept in {}; remove that folder", folder.display()), &error))
}

fn tls_error(files: String, error: &TlsError) -> ServeError {
    ServeError::Tls { files, reason: describe(error) }
}

fn year(clock: &dyn Clock) -> i32 {
    let millis = i64::try_from(clock.wall().0).unwrap_or(i64::MAX);
    let now = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    i32::from(now.to_zoned(jiff::tz::TimeZone::UTC).year())
}

fn absolute(data: &DataDir) -> PathBuf {
    std::path::absolute(data.path()).unwrap_or_else(|_| data.path().to_owned())
}

fn scheme(tls: &TlsChoice) -> &'static str {
    match tls {
        TlsChoice::Off => "http",
        TlsChoice::Files { .. } | TlsChoice::SelfSigned { .. } => "https",
    }
}

/// Where clients on this machine find the server, as far as that is known before the port is bound.
fn local_endpoint(config: &ServeConfig) -> String {
    let mut address = config.listen;
    if address.ip().is_unspecified() {
        let loopback_v4 = address.is_ipv4();
        address.set_ip(if loopback_v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let scheme = scheme(&config.tls);
    match address.port() {
        // The port is another at each start.
        0 => format!("{scheme}://{}:PORT", host_of(address)),
        _ => format!("{scheme}://{address}"),
    }
}

fn host_of(address: SocketAddr) -> String {
    if address.is_ipv4() { address.ip().to_string() } else { format!("[{}]", address.ip()) }
}

/// Signatures keep their secret over plain HTTP; what is stored, and presigned URLs, do not stay between two.
fn warn_of_plain_http(config: &ServeConfig) {
    if config.tls == TlsChoice::Off && !config.listen.ip().to_canonical().is_loopback() {
        tracing::warn!(
            address = %config.listen,
            "plain HTTP on an address that others reach: anybody on the way reads and changes what is sent; use \
             --tls-self-signed or --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy that speaks TLS",
        );
    }
}

/// Says that the server answers: on standard output, in the log and to systemd.
fn announce(tls: &TlsChoice, address: SocketAddr, ca: Option<&Path>) {
    let scheme = scheme(tls);
    let mut text = format!("S3 endpoint {scheme}://{address}\n");
    if let Some(ca) = ca {
        let ca = std::path::absolute(ca).unwrap_or_else(|_| ca.to_owned());
        text.push_str(&format!("CA certificate {}\n", ca.display()));
    }
    // Serving goes on even if nobody reads this.
    if let Err(error) = output::print(&text) {
        tracing::debug!(%error, "the endpoint could not be printed");
    }
    tracing::info!(%address, scheme, version = env!("CARGO_PKG_VERSION"), "serving");
    notify(&[NotifyState::Ready]);
}

/// Tells systemd, where it waits to be told.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::debug!(%error, "systemd could not be notified");
    }
}

/// Each connection and each body that is read takes a descriptor; the soft limit is there for programs that use
/// `select`, which this one does not.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(from = limit.current, to = limit.maximum, "raised the limit on open files"),
        Err(error) => tracing::warn!(%error, "the limit on open files could not be raised"),
    }
}
