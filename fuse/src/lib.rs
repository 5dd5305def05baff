//! eltonfs: a snapshot of a bucket as a read-only file system.
//!
//! [`Fs`] is the file system without a kernel: names, attributes and bytes, with errors that have an errno. It reads
//! snapshot trees page by page and bodies range by range from a [`Source`] that may lie, be slow or be away: pages are
//! compared with their hashes, bodies with their hash trees, and every operation has a deadline. What was verified
//! is kept in a [`Cache`] on disk. [`Adapter`] hands the kernel's requests to it and holds no rules of its own.

mod adapter;
mod ahead;
mod attributes;
mod cache;
mod directory;
mod error;
mod escape;
mod flight;
mod fs;
mod inode;
mod layout;
mod metrics;
mod openings;
mod pages;
mod persist;
mod read;
mod source;

pub use adapter::{Adapter, Mode, Profile, Session, SessionOptions};
pub use attributes::{Attributes, Kind, Ownership};
pub use cache::{Cache, CacheError};
pub use error::{Error, Result};
pub use fs::{Found, Fs, Listed, Opened, Options, Statistics, View};
pub use inode::{Inode, InodeTable, ROOT};
pub use metrics::{Counters, Metrics};
pub use source::{NamedSnapshot, Piece, Source, SourceError, Tree};
