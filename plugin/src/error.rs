//! What goes wrong with volumes, in the words that users of `docker` read.

use crate::mounts::MountError;
use crate::name::{InvalidVolume, Source, VolumeName};
use crate::store::StoreError;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Name or options are no good.
    #[error(transparent)]
    Invalid(#[from] InvalidVolume),
    /// There is no such volume. dockerd asks every plugin for every name it does not know, so this is no failure.
    #[error("no such volume")]
    NoSuchVolume,
    /// There is another one of that name.
    #[error("the volume {name} is there already and shows {source_name}: `docker volume rm {name}` first")]
    Exists {
        /// The name.
        name: VolumeName,
        /// What it shows.
        source_name: Source,
    },
    /// The server was asked and said no, or could not be asked.
    #[error("{0}")]
    Lookup(#[from] LookupError),
    /// It is not mounted.
    #[error("the volume {name} is not mounted")]
    NotMounted {
        /// Which.
        name: VolumeName,
    },
    /// Mounting failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The state could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a snapshot could not be found.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LookupError(pub String);
