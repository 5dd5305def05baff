//! The command line.

mod mount;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use federation::types::{
    BucketAt, BucketName, ClusterName, Consistency, InvalidClusterName, InvalidName, PeerAddress, TagName,
};
use serde::Deserialize;

use crate::output::units::{ByteSize, TimeSpan};

pub use mount::{MountArgs, MountProfile, PlaceArgs, PrefetchArgs, StateArgs, UmountArgs};

/// A versioned, S3-compatible object store: every change to a bucket has a number, and every number reads back.
#[derive(Debug, Parser)]
#[command(name = "elton", version, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the S3 gateway.
    Serve(Box<ServeArgs>),
    /// Create, list and configure buckets, and read their log.
    Bucket(BucketArgs),
    /// Name, compare and bring back states of a bucket.
    Snapshot(SnapshotArgs),
    /// Know other clusters: invite, join, list and remove them.
    Peer(PeerArgs),
    /// Show a snapshot as a directory.
    Mount(Box<MountArgs>),
    /// End a mount.
    Umount(UmountArgs),
    /// Bring what a mount would read into the cache.
    Prefetch(Box<PrefetchArgs>),
    /// Say which clusters have the bodies of an object.
    Where(WhereArgs),
    /// End old numbers by each bucket's rule and give the disk space back.
    Gc(GcArgs),
    /// Say where the bytes are.
    Du(DuArgs),
    /// Verify the catalog against the bodies and the log.
    Check(CheckArgs),
    /// Say how the server is.
    Status(StatusArgs),
    /// Give snapshots to containers: Docker's volumes of the driver `elton`.
    DockerPlugin(DockerPluginArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
}

impl Command {
    /// Whether the command prints JSON, what goes wrong included.
    #[must_use]
    pub fn prints_json(&self) -> bool {
        match self {
            Command::Serve(_) | Command::DockerPlugin(_) | Command::Completions(_) => false,
            Command::Bucket(arguments) => arguments.client.json,
            Command::Snapshot(arguments) => arguments.client.json,
            Command::Peer(arguments) => arguments.client.json,
            Command::Mount(arguments) => arguments.client.json,
            Command::Umount(arguments) => arguments.json,
            Command::Prefetch(arguments) => arguments.client.json,
            Command::Where(arguments) => arguments.client.json,
            Command::Gc(arguments) => arguments.client.json,
            Command::Du(arguments) => arguments.client.json,
            Command::Check(arguments) => arguments.client.json,
            Command::Status(arguments) => arguments.client.json,
        }
    }
}

/// `elton serve`. Each option can also stand in the configuration file or, where shown, in the environment; a flag
/// goes over the environment and that over the file.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// Where the data is kept [default: ./elton-data].
    #[arg(long, value_name = "DIR", env = "ELTON_DATA")]
    pub data: Option<PathBuf>,
    /// The cluster's name: the owner of buckets, and what it calls itself to other clusters [default: elton].
    #[arg(long, value_name = "CLUSTER", env = "ELTON_NAME")]
    pub name: Option<String>,
    /// The address to answer S3 on [default: 127.0.0.1:9000].
    #[arg(long, value_name = "ADDR", env = "ELTON_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// The address to answer other clusters on, or `off` [default: 127.0.0.1:9001].
    #[arg(long, value_name = "ADDR", env = "ELTON_PEER_LISTEN")]
    pub peer_listen: Option<PeerListen>,
    /// Where other clusters reach this one [default: the address of --peer-listen, if that is not only this machine's].
    #[arg(long, value_name = "HOST:PORT", env = "ELTON_PEER_ADVERTISE")]
    pub peer_advertise: Option<PeerAddress>,
    /// The only region that clients may sign for; any without it.
    #[arg(long, value_name = "REGION", env = "ELTON_REGION")]
    pub region: Option<String>,
    /// Whether a write is acknowledged only once it is on disk [default: strict].
    #[arg(long, value_enum, value_name = "KIND", env = "ELTON_DURABILITY")]
    pub durability: Option<DurabilityKind>,
    /// Writes are refused when less than this is free on the disk [default: 1GiB].
    #[arg(long, value_name = "SIZE", env = "ELTON_DISK_RESERVE")]
    pub disk_reserve: Option<ByteSize>,
    /// Memory for the catalog's pages [default: 256MiB].
    #[arg(long, value_name = "SIZE", env = "ELTON_CATALOG_CACHE")]
    pub catalog_cache: Option<ByteSize>,
    /// How much is kept of what was fetched from other clusters; the collector evicts what was read longest ago [default: 64GiB].
    #[arg(long, value_name = "SIZE", env = "ELTON_CACHE_SIZE")]
    pub cache_size: Option<ByteSize>,
    /// About how many rows of the catalog keep what other clusters said of their buckets; the collector forgets what was
    /// used longest ago [default: 5000000].
    #[arg(long, value_name = "ROWS", env = "ELTON_KNOWN_ROWS")]
    pub known_rows: Option<u64>,
    /// Do not pass bodies that only one member has on to other members: they hear who has them.
    #[arg(
        long, env = "ELTON_NO_RELAY", value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL",
    )]
    pub no_relay: Option<bool>,
    /// How long numbers stay snapshots in buckets without a rule of their own [default: 24h].
    #[arg(long, value_name = "SPAN", env = "ELTON_KEEP")]
    pub keep: Option<TimeSpan>,
    /// How often the collector looks for what can go [default: 10m].
    #[arg(long, value_name = "SPAN", env = "ELTON_COLLECT_INTERVAL")]
    pub collect_interval: Option<TimeSpan>,
    /// How long requests may take to end after a signal to stop [default: 30s].
    #[arg(long, value_name = "SPAN", env = "ELTON_SHUTDOWN_GRACE")]
    pub shutdown_grace: Option<TimeSpan>,
    /// The certificate chain to show, PEM.
    #[arg(long, value_name = "FILE", env = "ELTON_TLS_CERT", requires = "tls_key", conflicts_with = "tls_self_signed")]
    pub tls_cert: Option<PathBuf>,
    /// The key to it, PEM.
    #[arg(long, value_name = "FILE", env = "ELTON_TLS_KEY", requires = "tls_cert", conflicts_with = "tls_self_signed")]
    pub tls_key: Option<PathBuf>,
    /// Make a certificate on first start, keep it in DIR/tls and show it.
    #[arg(
        long, env = "ELTON_TLS_SELF_SIGNED", value_parser = clap::builder::BoolishValueParser::new(),
        num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL",
    )]
    pub tls_self_signed: Option<bool>,
    /// A further name or address that the made certificate is for; may be repeated.
    #[arg(long, value_name = "NAME", env = "ELTON_TLS_NAME", value_delimiter = ',')]
    pub tls_name: Vec<String>,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,federation=debug [default: info].
    #[arg(long, value_name = "FILTER", env = "ELTON_LOG")]
    pub log: Option<String>,
    /// How to log [default: text].
    #[arg(long, value_enum, value_name = "FORMAT", env = "ELTON_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// A TOML file with these options; their names there have underscores.
    #[arg(long, value_name = "FILE", env = "ELTON_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Where other clusters are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum PeerListen {
    /// Nowhere: this cluster only dials.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl std::str::FromStr for PeerListen {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" { Ok(PeerListen::Off) } else { text.parse().map(PeerListen::At) }
    }
}

impl TryFrom<String> for PeerListen {
    type Error = std::net::AddrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Whether a write is acknowledged only once it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityKind {
    /// After body and metadata are on disk.
    Strict,
    /// Before: faster, and what was acknowledged last may be lost in a power failure.
    Relaxed,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object per line.
    Json,
}

/// How a client command finds its server.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct ClientArgs {
    /// The server's URL [default: http://127.0.0.1:9000].
    #[arg(long, value_name = "URL", env = "ELTON_ENDPOINT", global = true)]
    pub endpoint: Option<String>,
    /// The certificate to trust for https, PEM [default: DIR/tls/ca.pem, then the system's].
    #[arg(long, value_name = "FILE", env = "ELTON_CA_CERT", global = true)]
    pub ca_cert: Option<PathBuf>,
    /// The data directory whose keys are used if the environment has none [default: ./elton-data].
    #[arg(long, value_name = "DIR", env = "ELTON_DATA", global = true)]
    pub data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// `elton bucket`
#[derive(Debug, Args)]
pub struct BucketArgs {
    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: BucketCommand,
}

/// The commands of `elton bucket`.
#[derive(Debug, Subcommand)]
pub enum BucketCommand {
    /// Create a bucket.
    Create {
        /// Its name.
        bucket: BucketName,
        /// The location constraint that GetBucketLocation answers.
        #[arg(long, default_value = "")]
        location: String,
    },
    /// List all buckets.
    Ls,
    /// Show a bucket.
    #[command(visible_alias = "show")]
    Info {
        /// Which.
        bucket: BucketName,
    },
    /// Change how a bucket keeps what was, and how fresh reads of a linked one are.
    Set {
        /// Which.
        bucket: BucketName,
        /// How long numbers stay snapshots: a span such as 24h, 0, or `default` for the server's.
        #[arg(long, value_name = "SPAN")]
        keep: Option<Keep>,
        /// S3 versioning.
        #[arg(long, value_enum)]
        versioning: Option<VersioningChange>,
        /// How fresh reads of a linked bucket are: `strong`, `bounded=SECONDS` or `available`.
        #[arg(long, value_name = "CONSISTENCY")]
        consistency: Option<Consistency>,
    },
    /// Share a bucket with another cluster, which then can link it.
    Share {
        /// Which.
        bucket: BucketName,
        /// The cluster, by its name here (`elton peer ls`).
        #[arg(long, value_name = "CLUSTER")]
        with: String,
        /// It may read.
        #[arg(long, group = "rights")]
        ro: bool,
        /// It may read and write.
        #[arg(long, group = "rights")]
        rw: bool,
        /// It may do nothing any more. What it has read it may still have.
        #[arg(long, group = "rights")]
        withdraw: bool,
    },
    /// Use a bucket of another cluster here.
    Link {
        /// The cluster, by its name here, and the bucket's name there.
        #[arg(value_name = "CLUSTER/BUCKET")]
        remote: RemoteBucket,
        /// What it is called here [default: as there].
        #[arg(long = "as", value_name = "NAME")]
        name: Option<BucketName>,
    },
    /// End a link.
    Unlink {
        /// Which.
        bucket: BucketName,
    },
    /// Show who changed what, newest first.
    Log {
        /// Of which bucket.
        bucket: BucketName,
        /// Begin below this number.
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
        /// Show at most so many changes.
        #[arg(long, value_name = "COUNT", default_value_t = 50, conflicts_with = "all")]
        max: u64,
        /// Show all of them.
        #[arg(long)]
        all: bool,
    },
}

/// A bucket of another cluster: `CLUSTER/BUCKET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteBucket {
    /// The cluster, by its name here.
    pub cluster: ClusterName,
    /// The bucket's name there.
    pub bucket: BucketName,
}

impl std::str::FromStr for RemoteBucket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (cluster, bucket) = text.split_once('/').ok_or("a bucket of another cluster is CLUSTER/BUCKET")?;
        let cluster = cluster.parse().map_err(|error: InvalidClusterName| error.to_string())?;
        Ok(RemoteBucket { cluster, bucket: bucket.parse().map_err(|error: InvalidName| error.to_string())? })
    }
}

/// How long numbers stay snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// As the server says.
    Default,
    /// For so many seconds.
    Seconds(u64),
}

impl std::str::FromStr for Keep {
    type Err = crate::output::units::InvalidSpan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "default" {
            return Ok(Keep::Default);
        }
        text.parse::<TimeSpan>().map(|span| Keep::Seconds(span.0.as_secs()))
    }
}

/// What S3 versioning can be changed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VersioningChange {
    /// Every write makes a version.
    Enabled,
    /// Writes replace the `null` version.
    Suspended,
}

/// `elton snapshot`
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: SnapshotCommand,
}

/// The commands of `elton snapshot`. BUCKET@SNAPSHOT names a state by number (photos@42), tag
/// (photos@before-upgrade) or UTC time (photos@2026-11-20T10:00Z).
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Say which number a bucket is at, and give it a name that keeps it.
    Create {
        /// The bucket as it is, or as of a snapshot.
        #[arg(value_name = "BUCKET[@SNAPSHOT]")]
        bucket: BucketAt,
        /// The name: a lower-case letter, then up to 30 letters, digits and hyphens. Without one the number lasts until it falls below the floor.
        #[arg(long)]
        tag: Option<TagName>,
        /// What to remember of it.
        #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        message: String,
    },
    /// List the snapshots of a bucket that have names.
    Ls {
        /// Which bucket.
        bucket: BucketName,
    },
    /// Show what differs between two states of a bucket.
    Diff {
        /// The earlier one.
        #[arg(value_name = "BUCKET@SNAPSHOT")]
        from: BucketAt,
        /// The later one; the bucket as it is, if it has no snapshot.
        #[arg(value_name = "BUCKET[@SNAPSHOT]")]
        to: BucketAt,
        /// Only keys that begin with this.
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Show a snapshot.
    #[command(visible_alias = "info")]
    Show {
        /// Which.
        #[arg(value_name = "BUCKET@SNAPSHOT")]
        snapshot: BucketAt,
        /// Count its objects and bytes, which takes a while in large buckets.
        #[arg(long)]
        count: bool,
    },
    /// Make a bucket, or what is below a prefix, what it was; that is a change of its own and can be undone.
    Restore {
        /// Which state.
        #[arg(value_name = "BUCKET@SNAPSHOT")]
        snapshot: BucketAt,
        /// Only keys that begin with this.
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Remove a name; its number lasts on until it falls below the floor.
    Rm {
        /// Which.
        #[arg(value_name = "BUCKET@TAG")]
        tag: BucketAt,
    },
}

/// `elton peer`
#[derive(Debug, Args)]
pub struct PeerArgs {
    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: PeerCommand,
}

/// The commands of `elton peer`.
#[derive(Debug, Subcommand)]
pub enum PeerCommand {
    /// Print a token that another cluster can join with, once and within an hour.
    Invite,
    /// Use another cluster's token.
    Join {
        /// What `elton peer invite` printed there.
        token: String,
    },
    /// List the clusters that are known, and how the links to them are.
    Ls,
    /// Forget a cluster, and what was shared with it. It need not be reachable.
    Rm {
        /// Which, by its name here.
        name: String,
    },
    /// Let a cluster's name stand for another key: it lost its own and made a new one.
    Trust {
        /// Which, by its name here.
        name: String,
        /// The new key's fingerprint, as `elton peer ls` prints it there.
        #[arg(long, value_name = "FINGERPRINT")]
        fingerprint: String,
    },
}

/// `elton where`
#[derive(Debug, Args)]
pub struct WhereArgs {
    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
    /// The object.
    #[arg(value_name = "BUCKET/KEY")]
    pub object: ObjectName,
}

/// An object of a bucket: `BUCKET/KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: String,
}

impl std::str::FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (bucket, key) = text.split_once('/').filter(|(_, key)| !key.is_empty()).ok_or("an object is BUCKET/KEY")?;
        Ok(ObjectName { bucket: bucket.parse().map_err(|error: InvalidName| error.to_string())?, key: key.to_owned() })
    }
}

/// `elton gc`
#[derive(Debug, Args)]
pub struct GcArgs {
    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
    /// End every number without a tag first, whatever the buckets' rules say. There is no way back.
    #[arg(long)]
    pub now: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Only say how many numbers would end.
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Only this bucket.
    #[arg(long)]
    pub bucket: Option<BucketName>,
}

/// `elton du`
#[derive(Debug, Args)]
pub struct DuArgs {
    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `elton check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The server. Where none answers and --data names a directory, that is checked itself.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Read every body and compare it with its hash, too.
    #[arg(long)]
    pub bodies: bool,
}

/// `elton status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
    /// The mounts of this host.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `elton docker-plugin`
#[derive(Debug, Args)]
pub struct DockerPluginArgs {
    /// Where dockerd finds it: the driver is called as the socket. Unused where systemd hands a socket over.
    #[arg(long, value_name = "PATH", env = "ELTON_PLUGIN_SOCKET", default_value = "/run/docker/plugins/elton.sock")]
    pub socket: PathBuf,
    /// Where volumes and their uses are kept, and snapshots are mounted.
    #[arg(long, value_name = "DIR", env = "ELTON_PLUGIN_STATE", default_value = "/var/lib/elton/docker-plugin")]
    pub state: PathBuf,
    /// Where mounts keep what they have read [default: as `elton mount`].
    #[arg(long, value_name = "DIR", env = "ELTON_CACHE")]
    pub cache: Option<PathBuf>,
    /// The server's URL [default: http://127.0.0.1:9000].
    #[arg(long, value_name = "URL", env = "ELTON_ENDPOINT")]
    pub endpoint: Option<String>,
    /// The certificate to trust for https, PEM [default: DIR/tls/ca.pem, then the system's].
    #[arg(long, value_name = "FILE", env = "ELTON_CA_CERT")]
    pub ca_cert: Option<PathBuf>,
    /// The data directory whose keys are used if the environment has none [default: ./elton-data].
    #[arg(long, value_name = "DIR", env = "ELTON_DATA")]
    pub data: Option<PathBuf>,
    /// How often dockerd's count is compared with the kernel's mounts.
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = some_time)]
    pub reconcile_interval: TimeSpan,
    /// After how long without a container a use that dockerd never gave back is forgotten.
    #[arg(long, value_name = "SPAN", default_value = "10m")]
    pub forget_after: TimeSpan,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,plugin=debug.
    #[arg(long, value_name = "FILTER", env = "ELTON_LOG", default_value = "info")]
    pub log: String,
    /// How to log.
    #[arg(long, value_enum, value_name = "FORMAT", env = "ELTON_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// A span that is not zero: a timer cannot tick all the time.
fn some_time(text: &str) -> Result<TimeSpan, String> {
    let span: TimeSpan = text.parse().map_err(|error: crate::output::units::InvalidSpan| error.to_string())?;
    if span.0.is_zero() { Err("it cannot be 0".to_owned()) } else { Ok(span) }
}

/// `elton completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// For which shell.
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_parts_that_do_not_exist_are_usage_errors() {
        for flag in ["--master", "--domain", "--backup", "--backend"] {
            let error = Cli::try_parse_from(["elton", "serve", flag, "x"]).expect_err("unknown");
            assert_eq!(error.exit_code(), 2, "{flag}");
        }
    }

    #[test]
    fn client_options_stand_before_or_behind_the_subcommand() {
        for line in [["elton", "bucket", "--json", "ls"], ["elton", "bucket", "ls", "--json"]] {
            let command = Cli::try_parse_from(line).expect("lawful").command;
            assert!(command.prints_json());
            let Command::Bucket(arguments) = command else {
                panic!("another command");
            };
            assert!(arguments.client.json);
        }
    }

    #[test]
    fn a_self_signed_certificate_is_a_switch() {
        let parse = |line: &[&str]| match Cli::try_parse_from(line).expect("lawful").command {
            Command::Serve(arguments) => arguments.tls_self_signed,
            _ => panic!("another command"),
        };
        assert_eq!(parse(&["elton", "serve", "--tls-self-signed"]), Some(true));
        assert_eq!(parse(&["elton", "serve", "--tls-self-signed=false"]), Some(false));
        assert_eq!(parse(&["elton", "serve"]), None);
        let both = ["elton", "serve", "--tls-self-signed", "--tls-cert", "a", "--tls-key", "b"];
        assert!(Cli::try_parse_from(both).is_err());
    }
}
