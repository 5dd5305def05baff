//! What mounts and unmounts, as far as volumes have to know.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::name::Source;

/// Why something could not be mounted or detached.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The program that mounts said no.
    #[error("{source_name} could not be mounted: {reason}")]
    Refused {
        /// What.
        source_name: String,
        /// In its words.
        reason: String,
    },
    /// It said yes, but there is no mount.
    #[error("{source_name} was mounted on {at}, but nothing answers there ({found}); the plugin's log may say why")]
    NotThere {
        /// What.
        source_name: String,
        /// Where.
        at: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// A mount or its folder could not be made or taken away.
    #[error("{at} could not be {doing}: {source}")]
    Io {
        /// Where.
        at: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// What is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// No mount.
    Nothing,
    /// A mount that answers.
    Alive,
    /// A mount whose process is gone: whoever looks gets ENOTCONN.
    Ended,
    /// A mount that did not answer in time.
    Silent,
}

/// A mount of ours, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it is mounted.
    pub at: PathBuf,
    /// Whether it is mounted anywhere else, too, as in a container; if that cannot be known, yes.
    pub held: bool,
}

/// Mounts sources, detaches them, and knows what is mounted. Calls for one place never overlap.
#[async_trait]
pub trait Mounter: Send + Sync {
    /// Mounts a source at a place where nothing is mounted. On return it answers, and it goes on without this process.
    /// Where it fails nothing is left behind.
    async fn mount(&self, source: &Source, at: &Path) -> Result<(), MountError>;
    /// Takes away the mounts at a place, if any, and the place. Whoever has them open or bound elsewhere keeps them.
    async fn detach(&self, at: &Path) -> Result<(), MountError>;
    /// What is at a place, within seconds.
    async fn probe(&self, at: &Path) -> Probe;
    /// All mounts that are ours, of earlier processes too.
    async fn survey(&self) -> io::Result<Vec<Seen>>;
}
