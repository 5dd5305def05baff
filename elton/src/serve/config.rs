//! The server's configuration: flag over environment over file over default, checked as a whole before a port is
//! bound or a file is touched.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use federation::types::PeerAddress;
use gateway::credentials::RootCredentials;
use gateway::server::HttpLimits;
use serde::Deserialize;

use super::certificate;
use crate::cli::{DurabilityKind, LogFormat, PeerListen, ServeArgs};
use crate::credentials_file::{self, InvalidCredentials};
use crate::data_dir::DataDir;
use crate::output::units::{ByteSize, TimeSpan};

/// The environment's variable for the root access key.
pub const ROOT_ACCESS_KEY: &str = "ELTON_ROOT_ACCESS_KEY";
/// The environment's variable for the root secret key.
pub const ROOT_SECRET_KEY: &str = "ELTON_ROOT_SECRET_KEY";
/// The environment's variable for the token that metrics are read with.
pub const METRICS_TOKEN: &str = "ELTON_METRICS_TOKEN";

/// Why a configuration cannot be used. All of these are usage errors.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {path} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has keys that mean nothing.
    #[error("the configuration file {path} is not understood:\n{source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// An option is out of its range.
    #[error("{option}: {reason}")]
    Option {
        /// Which.
        option: &'static str,
        /// Why it cannot be.
        reason: String,
    },
    /// One of the two root keys was given alone.
    #[error("{given} is set and {missing} is not: set both, or none to use the keys in the data directory")]
    HalfAKey {
        /// The one that is set.
        given: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// The root keys cannot be keys.
    #[error("{ROOT_ACCESS_KEY} and {ROOT_SECRET_KEY} cannot be used: {0}")]
    RootKeys(#[from] InvalidCredentials),
}

/// The configuration of a server.
#[derive(Debug)]
pub struct ServeConfig {
    /// The data directory.
    pub data: DataDir,
    /// The cluster's name.
    pub name: String,
    /// The address to answer on.
    pub listen: SocketAddr,
    /// Where other clusters are answered; none for nowhere.
    pub peer_listen: Option<SocketAddr>,
    /// Whether that was asked for: without it, a port that is taken is done without.
    pub peer_listen_given: bool,
    /// Where other clusters reach this one.
    pub peer_advertise: Option<PeerAddress>,
    /// The only region that may be signed for.
    pub region: Option<String>,
    /// When writes are acknowledged.
    pub durability: DurabilityKind,
    /// Bytes of the disk that writes leave free.
    pub disk_reserve: u64,
    /// Bytes of memory for the catalog's pages.
    pub catalog_cache: usize,
    /// Bytes of bodies fetched from other clusters that are kept.
    pub cache_size: u64,
    /// About how many rows of the catalog keep what other clusters said of their buckets.
    pub known_rows: u64,
    /// Whether bodies that only a member has are passed on to other members.
    pub relay: bool,
    /// How long numbers stay snapshots by default.
    pub keep: Duration,
    /// How often the collector runs.
    pub collect_interval: Duration,
    /// How long requests may take to end.
    pub shutdown_grace: Duration,
    /// Whether and how to speak TLS.
    pub tls: TlsChoice,
    /// What to log.
    pub log: String,
    /// How to log.
    pub log_format: LogFormat,
    /// Lets others than this machine read the metrics.
    pub metrics_token: Option<String>,
    /// Root keys that were given; else those in the data directory are used.
    pub root: Option<RootCredentials>,
    /// Bounds.
    pub limits: HttpLimits,
}

/// Whether and how to speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsChoice {
    /// Plain HTTP.
    Off,
    /// With a certificate from these files.
    Files {
        /// The chain.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// With one that the server made, for these names beside its own.
    SelfSigned {
        /// Further names and addresses.
        names: Vec<String>,
    },
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileConfig {
    data: Option<PathBuf>,
    name: Option<String>,
    listen: Option<SocketAddr>,
    peer_listen: Option<PeerListen>,
    peer_advertise: Option<PeerAddress>,
    region: Option<String>,
    durability: Option<DurabilityKind>,
    disk_reserve: Option<ByteSize>,
    catalog_cache: Option<ByteSize>,
    cache_size: Option<ByteSize>,
    known_rows: Option<u64>,
    relay: Option<bool>,
    keep: Option<TimeSpan>,
    collect_interval: Option<TimeSpan>,
    shutdown_grace: Option<TimeSpan>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_self_signed: Option<bool>,
    tls_names: Option<Vec<String>>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    metrics_token: Option<String>,
    #[serde(default)]
    limits: FileLimits,
}

/// The file's table `limits`; what is not named has its default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLimits {
    connections_max: Option<usize>,
    connections_per_peer_max: Option<usize>,
    requests_in_flight_max: Option<usize>,
    requests_in_flight_per_peer_max: Option<usize>,
    buffered_bytes_max: Option<ByteSize>,
    header_bytes_max: Option<ByteSize>,
    headers_max: Option<usize>,
    first_request_timeout: Option<TimeSpan>,
    header_read_timeout: Option<TimeSpan>,
    idle_timeout: Option<TimeSpan>,
    body_read_stall_timeout: Option<TimeSpan>,
    write_stall_timeout: Option<TimeSpan>,
    bytes_per_second_min: Option<ByteSize>,
    tls_handshake_timeout: Option<TimeSpan>,
    h2_streams_max: Option<u32>,
    unread_body_max: Option<ByteSize>,
}

impl ServeConfig {
    /// Reads and checks everything. `environment` looks a variable up; an empty one counts as not set.
    pub fn load(arguments: &ServeArgs, environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let file = match &arguments.config {
            Some(path) => read_file(path)?,
            None => FileConfig::default(),
        };
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let tls = tls(arguments, &file)?;
        let peer_listen = arguments.peer_listen.or(file.peer_listen);
        let config = ServeConfig {
            data: DataDir::new(arguments.data.as_deref().or(file.data.as_deref())),
            name: first(&arguments.name, file.name, || "elton".to_owned()),
            listen: first(&arguments.listen, file.listen, || SocketAddr::from(([127, 0, 0, 1], 9000))),
            peer_listen: match peer_listen {
                None => Some(SocketAddr::from(([127, 0, 0, 1], 9001))),
                Some(PeerListen::Off) => None,
                Some(PeerListen::At(address)) => Some(address),
            },
            peer_listen_given: peer_listen.is_some(),
            peer_advertise: arguments.peer_advertise.clone().or(file.peer_advertise),
            region: arguments.region.clone().or(file.region),
            durability: first(&arguments.durability, file.durability, || DurabilityKind::Strict),
            disk_reserve: first(&arguments.disk_reserve, file.disk_reserve, || ByteSize(1 << 30)).0,
            catalog_cache: usize::try_from(
                first(&arguments.catalog_cache, file.catalog_cache, || ByteSize(256 << 20)).0,
            )
            .unwrap_or(usize::MAX),
            cache_size: first(&arguments.cache_size, file.cache_size, || ByteSize(64 << 30)).0,
            known_rows: first(&arguments.known_rows, file.known_rows, || KNOWN_ROWS),
            relay: !arguments.no_relay.unwrap_or(!file.relay.unwrap_or(true)),
            keep: first(&arguments.keep, file.keep, || span(24 * 60 * 60)).0,
            collect_interval: first(&arguments.collect_interval, file.collect_interval, || span(10 * 60)).0,
            shutdown_grace: first(&arguments.shutdown_grace, file.shutdown_grace, || span(30)).0,
            tls,
            log: first(&arguments.log, file.log, || "info".to_owned()),
            log_format: first(&arguments.log_format, file.log_format, || LogFormat::Text),
            metrics_token: variable(METRICS_TOKEN).or(file.metrics_token),
            root: root(variable(ROOT_ACCESS_KEY), variable(ROOT_SECRET_KEY))?,
            limits: limits(file.limits)?,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |option, reason: &str| Err(ConfigError::Option { option, reason: reason.to_owned() });
        let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if !word(&self.name) || self.name.len() > NAME_BYTES_MAX {
            return wrong("name", "a cluster's name has 1 to 63 printable characters without spaces and slashes");
        }
        if self.peer_listen.is_none() && self.peer_advertise.is_some() {
            return wrong(
                "peer_advertise",
                "nobody reaches a cluster that does not listen: set --peer-listen to an address",
            );
        }
        if self.region.as_deref().is_some_and(|region| !word(region)) {
            return wrong("region", "a region is a word such as eu-central-1");
        }
        if self.collect_interval < COLLECT_INTERVAL_MIN {
            return wrong("collect_interval", "the collector runs at most once a second");
        }
        if self.catalog_cache < CATALOG_CACHE_MIN {
            return wrong("catalog_cache", "the catalog needs at least 1MiB of memory");
        }
        if self.metrics_token.as_deref().is_some_and(|token| token.len() < TOKEN_BYTES_MIN) {
            return wrong("metrics_token", "a token shorter than 16 characters can be guessed");
        }
        if let TlsChoice::SelfSigned { names } = &self.tls
            && let Some(name) = names.iter().find(|name| !certificate::is_name(name))
        {
            let reason = format!("{name:?} is neither a DNS name (elton.example.org, *.example.org) nor an IP address");
            return Err(ConfigError::Option { option: "tls_names", reason });
        }
        super::logging::filter(&self.log)
            .map(drop)
            .map_err(|reason| ConfigError::Option { option: "log", reason: reason.to_string() })
    }
}

const NAME_BYTES_MAX: usize = 63;
const COLLECT_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// About 2 GB of the catalog: all that is known of over two million keys.
const KNOWN_ROWS: u64 = 5_000_000;
const CATALOG_CACHE_MIN: usize = 1 << 20;
const TOKEN_BYTES_MIN: usize = 16;

fn first<T: Clone>(flag_or_environment: &Option<T>, file: Option<T>, default: impl FnOnce() -> T) -> T {
    flag_or_environment.clone().or(file).unwrap_or_else(default)
}

fn span(seconds: u64) -> TimeSpan {
    TimeSpan(Duration::from_secs(seconds))
}

fn read_file(path: &Path) -> Result<FileConfig, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::File { path: path.to_owned(), source: Box::new(source) })
}

/// A choice made by flag or environment goes over all of the file's.
fn tls(arguments: &ServeArgs, file: &FileConfig) -> Result<TlsChoice, ConfigError> {
    let names = || match arguments.tls_name.is_empty() {
        true => file.tls_names.clone().unwrap_or_default(),
        false => arguments.tls_name.clone(),
    };
    let choose = |certificate: &Option<PathBuf>, key: &Option<PathBuf>, self_signed: Option<bool>| match (
        certificate,
        key,
        self_signed,
    ) {
        (Some(certificate), Some(key), None | Some(false)) => {
            Ok(Some(TlsChoice::Files { certificate: certificate.clone(), key: key.clone() }))
        }
        (None, None, Some(true)) => Ok(Some(TlsChoice::SelfSigned { names: names() })),
        (None, None, Some(false)) => Ok(Some(TlsChoice::Off)),
        (None, None, None) => Ok(None),
        (Some(_), None, _) | (None, Some(_), _) => Err("tls_cert and tls_key go together: name both"),
        (Some(_), Some(_), Some(true)) => Err("tls_self_signed excludes tls_cert and tls_key"),
    };
    let chosen = choose(&arguments.tls_cert, &arguments.tls_key, arguments.tls_self_signed)
        .and_then(|choice| match choice {
            Some(choice) => Ok(Some(choice)),
            None => choose(&file.tls_cert, &file.tls_key, file.tls_self_signed),
        })
        .map_err(|reason| ConfigError::Option { option: "tls", reason: reason.to_owned() })?;
    Ok(chosen.unwrap_or(TlsChoice::Off))
}

fn root(access_key: Option<String>, secret_key: Option<String>) -> Result<Option<RootCredentials>, ConfigError> {
    match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) => Ok(Some(credentials_file::check(&access_key, &secret_key)?)),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::HalfAKey { given: ROOT_ACCESS_KEY, missing: ROOT_SECRET_KEY }),
        (None, Some(_)) => Err(ConfigError::HalfAKey { given: ROOT_SECRET_KEY, missing: ROOT_ACCESS_KEY }),
    }
}

fn limits(file: FileLimits) -> Result<HttpLimits, ConfigError> {
    let default = HttpLimits::default();
    let time = |span: Option<TimeSpan>, default: Duration| span.map_or(default, |span| span.0);
    let size = |size: Option<ByteSize>, default: u64| size.map_or(default, |size| size.0);
    let connections_max = file.connections_max.unwrap_or(default.connections_max);
    let requests_in_flight_max = file.requests_in_flight_max.unwrap_or(default.requests_in_flight_max);
    let limits = HttpLimits {
        connections_max,
        connections_per_peer_max: file
            .connections_per_peer_max
            .unwrap_or_else(|| HttpLimits::connections_per_peer(connections_max)),
        requests_in_flight_max,
        requests_in_flight_per_peer_max: file
            .requests_in_flight_per_peer_max
            .unwrap_or_else(|| HttpLimits::requests_per_peer(requests_in_flight_max)),
        buffered_bytes_max: size(file.buffered_bytes_max, default.buffered_bytes_max),
        header_bytes_max: usize::try_from(size(file.header_bytes_max, default.header_bytes_max as u64))
            .unwrap_or(usize::MAX),
        headers_max: file.headers_max.unwrap_or(default.headers_max),
        first_request_timeout: time(file.first_request_timeout, default.first_request_timeout),
        header_read_timeout: time(file.header_read_timeout, default.header_read_timeout),
        idle_timeout: time(file.idle_timeout, default.idle_timeout),
        body_read_stall_timeout: time(file.body_read_stall_timeout, default.body_read_stall_timeout),
        write_stall_timeout: time(file.write_stall_timeout, default.write_stall_timeout),
        bytes_per_second_min: size(file.bytes_per_second_min, default.bytes_per_second_min),
        tls_handshake_timeout: time(file.tls_handshake_timeout, default.tls_handshake_timeout),
        h2_streams_max: file.h2_streams_max.unwrap_or(default.h2_streams_max),
        unread_body_max: size(file.unread_body_max, default.unread_body_max),
    };
    check_limits(&limits)?;
    Ok(limits)
}

fn check_limits(limits: &HttpLimits) -> Result<(), ConfigError> {
    let wrong = |option, reason: &str| Err(ConfigError::Option { option, reason: reason.to_owned() });
    let counts = [
        ("limits.connections_max", limits.connections_max),
        ("limits.connections_per_peer_max", limits.connections_per_peer_max),
        ("limits.requests_in_flight_max", limits.requests_in_flight_max),
        ("limits.requests_in_flight_per_peer_max", limits.requests_in_flight_per_peer_max),
        ("limits.headers_max", limits.headers_max),
        ("limits.h2_streams_max", limits.h2_streams_max as usize),
    ];
    // The upper bound is that of tokio's semaphores.
    if let Some((option, _)) = counts.iter().find(|(_, count)| !(1..=1 << 20).contains(count)) {
        return wrong(option, "it is at least 1 and at most 1048576");
    }
    let times = [
        ("limits.first_request_timeout", limits.first_request_timeout),
        ("limits.header_read_timeout", limits.header_read_timeout),
        ("limits.idle_timeout", limits.idle_timeout),
        ("limits.body_read_stall_timeout", limits.body_read_stall_timeout),
        ("limits.write_stall_timeout", limits.write_stall_timeout),
        ("limits.tls_handshake_timeout", limits.tls_handshake_timeout),
    ];
    let lawful = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
    if let Some((option, _)) = times.iter().find(|(_, time)| !lawful.contains(time)) {
        return wrong(option, "it is at least 1s and at most 24h");
    }
    if !(HttpLimits::HEADER_BYTES_FLOOR..=1 << 20).contains(&limits.header_bytes_max) {
        return wrong("limits.header_bytes_max", "it is at least 8KiB and at most 1MiB");
    }
    if limits.buffered_bytes_max < HttpLimits::BUFFERED_BYTES_FLOOR {
        return wrong("limits.buffered_bytes_max", "it is at least 16MiB");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("written");
        file
    }

    fn load(arguments: ServeArgs, text: &str) -> Result<ServeConfig, ConfigError> {
        let file = file(text);
        ServeConfig::load(&ServeArgs { config: Some(file.path().to_owned()), ..arguments }, |_| None)
    }

    #[test]
    fn flags_go_over_the_file_and_that_over_defaults() {
        let arguments = ServeArgs { name: Some("flag".into()), ..ServeArgs::default() };
        let text = "name = 'file'\nlisten = '0.0.0.0:1'\ndisk_reserve = '2GiB'\ncatalog_cache = 2097152\n";
        let config = load(arguments, text).expect("lawful");
        assert_eq!(config.name, "flag");
        assert_eq!(config.listen, "0.0.0.0:1".parse().expect("an address"));
        assert_eq!((config.disk_reserve, config.catalog_cache), (2 << 30, 2 << 20));
        assert_eq!(config.keep, Duration::from_secs(86_400));
        assert_eq!(config.data, DataDir::new(None));
    }

    #[test]
    fn unknown_keys_are_errors_that_name_them() {
        for (text, named) in [("listne = 'x'", "listne"), ("[limits]\nconnection_max = 1", "connection_max")] {
            let error = load(ServeArgs::default(), text).expect_err("unknown").to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn values_out_of_range_are_errors_that_name_the_option() {
        for (text, named) in [
            ("keep = '24'", "time span"),
            ("log = 'federation=loud'", "log"),
            ("metrics_token = 'short'", "metrics_token"),
            ("[limits]\nidle_timeout = '0'", "limits.idle_timeout"),
            ("[limits]\nheader_bytes_max = '1KiB'", "limits.header_bytes_max"),
            ("[limits]\nbuffered_bytes_max = '1MiB'", "limits.buffered_bytes_max"),
            ("[limits]\nconnections_per_peer_max = 0", "limits.connections_per_peer_max"),
            ("tls_self_signed = true\ntls_names = ['bad name!!']", "bad name!!"),
            ("tls_cert = 'a.pem'", "tls_key"),
        ] {
            let error = load(ServeArgs::default(), text).expect_err(text).to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn a_peers_share_follows_the_whole() {
        let text = "[limits]\nconnections_max = 40\nrequests_in_flight_max = 3\nbytes_per_second_min = 0";
        let limits = load(ServeArgs::default(), text).expect("lawful").limits;
        assert_eq!((limits.connections_per_peer_max, limits.requests_in_flight_per_peer_max), (10, 1));
        assert_eq!(limits.bytes_per_second_min, 0);
    }

    #[test]
    fn a_flag_for_tls_goes_over_all_of_the_file() {
        let arguments = ServeArgs { tls_self_signed: Some(true), ..ServeArgs::default() };
        let config = load(arguments, "tls_cert = 'a'\ntls_key = 'b'\ntls_names = ['host']").expect("lawful");
        assert_eq!(config.tls, TlsChoice::SelfSigned { names: vec!["host".into()] });
    }

    #[test]
    fn root_keys_come_in_pairs() {
        let environment = |name: &str| (name == ROOT_ACCESS_KEY).then(|| "KEY".to_owned());
        let error = ServeConfig::load(&ServeArgs::default(), environment).expect_err("half a key");
        assert!(matches!(error, ConfigError::HalfAKey { missing: ROOT_SECRET_KEY, .. }));
        let both = |name: &str| match name {
            ROOT_ACCESS_KEY => Some("KEY".to_owned()),
            ROOT_SECRET_KEY => Some("12345678".to_owned()),
            _ => None,
        };
        let config = ServeConfig::load(&ServeArgs::default(), both).expect("a pair");
        assert_eq!(config.root.expect("given").access_key(), "KEY");
    }
}
