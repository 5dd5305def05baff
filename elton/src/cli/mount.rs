//! The arguments of mounts.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use federation::types::BucketAt;

use super::ClientArgs;
use crate::output::units::{ByteSize, TimeSpan};

/// `elton mount`
#[derive(Clone, Debug, Args)]
pub struct MountArgs {
    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
    /// What: by number (photos@42), tag (photos@before-upgrade) or UTC time, or as it is now.
    #[arg(value_name = "BUCKET[@SNAPSHOT]")]
    pub bucket: BucketAt,
    /// Where: an empty directory.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Show all snapshots of the bucket, each as a directory of its name or number.
    #[arg(long, conflicts_with = "prefix")]
    pub snapshots: bool,
    /// Show only what is below this directory of the bucket.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub prefix: String,
    /// Where and how.
    #[command(flatten)]
    pub places: PlaceArgs,
    /// What the mount is to be good at.
    #[arg(long, value_enum, value_name = "PROFILE", default_value = "files")]
    pub profile: MountProfile,
    /// Let other users look at it, too.
    #[arg(long)]
    pub allow_other: bool,
    /// Let set-id bits, devices, owners and attributes of the system have their effect, whoever put them into the bucket.
    #[arg(long)]
    pub trust_attributes: bool,
    /// How long the server may be away before reads fail.
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    pub deadline: TimeSpan,
    /// Go on in this process, and end with it.
    #[arg(long)]
    pub foreground: bool,
    /// This is the process that serves: it was started by one that waits for its first line.
    #[arg(long, hide = true)]
    pub daemon: bool,
}

/// Where a mount keeps things.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Where bodies are kept that were read [default: /var/cache/elton for root, else $XDG_CACHE_HOME/elton].
    #[arg(long, value_name = "DIR", env = "ELTON_CACHE")]
    pub cache: Option<PathBuf>,
    /// How much is kept there.
    #[arg(long, value_name = "SIZE", env = "ELTON_MOUNT_CACHE_SIZE", default_value = "20GiB")]
    pub cache_size: ByteSize,
    /// Keep copies even of what the server of this host would hand over as open files: read on when it is away.
    #[arg(long)]
    pub copy_bodies: bool,
    /// What is mounted on this host.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Where is written down what is mounted.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    /// Where mounts are noted [default: /var/lib/elton/mounts for root, else $XDG_STATE_HOME/elton].
    #[arg(long, value_name = "DIR", env = "ELTON_STATE")]
    pub state: Option<PathBuf>,
}

/// What a mount is good at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MountProfile {
    /// Files of all sizes; large ones are read by the kernel itself where it can.
    Files,
    /// Many small files: no calls to open and close.
    SmallFiles,
}

/// `elton umount`
#[derive(Clone, Debug, Args)]
pub struct UmountArgs {
    /// What to unmount.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Detach it now even if it is in use; it ends when nobody uses it any more.
    #[arg(long)]
    pub lazy: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where mounts are noted.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `elton prefetch`
#[derive(Clone, Debug, Args)]
pub struct PrefetchArgs {
    /// The server.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Of which state.
    #[arg(value_name = "BUCKET[@SNAPSHOT]")]
    pub bucket: BucketAt,
    /// Only keys like this: `*` stands for anything within a name, `**` for anything, `?` for one character.
    #[arg(value_name = "PATTERN")]
    pub pattern: Option<String>,
    /// Where to.
    #[command(flatten)]
    pub places: PlaceArgs,
}
