//! The core of Elton: buckets as sequences of numbered changes, and the bodies that those refer to.
//!
//! The core knows no errno, no S3 XML and no argv. Everything that differs between production and simulation comes
//! in through a seam: [`catalog::Catalog`], [`blobs::Backend`], [`disk::Disk`], [`clock::Clock`],
//! [`ids::IdSource`], [`blocking::Blocking`] and [`peer::Transport`].

pub mod blobs;
pub mod blocking;
pub mod catalog;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod error;
pub mod ids;
pub mod master;
pub mod member;
pub mod mutant;
pub mod peer;
pub mod snapshot;
pub mod types;
mod watch;

pub use error::{Error, Result};
