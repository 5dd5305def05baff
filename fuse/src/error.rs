//! What can go wrong, and the errno of each.

use std::io;

use federation::snapshot::TreeError;
use rustix::io::Errno;

use crate::cache::is_full;
use crate::source::SourceError;

/// What an operation returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing of that name or number.
    #[error("there is none")]
    NotFound,
    /// It is not a directory.
    #[error("not a directory")]
    NotDirectory,
    /// It is a directory.
    #[error("a directory")]
    IsDirectory,
    /// It is not a symbolic link, or one that cannot be one.
    #[error("not a symbolic link")]
    NotLink,
    /// It has no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The name is longer than any.
    #[error("the name is too long")]
    NameTooLong,
    /// Nothing here can be changed.
    #[error("a snapshot cannot be changed")]
    ReadOnly,
    /// The deadline passed.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The server refused or does not have it.
    #[error("the server: {0}")]
    Source(#[from] SourceError),
    /// A page of the tree is not what it should be.
    #[error(transparent)]
    Tree(TreeError),
    /// What the server sent is not what its hash says.
    #[error("{what} is not what its hash says; check the server with `elton check --bodies`")]
    Damaged {
        /// What.
        what: String,
    },
    /// The cache could not be read or written.
    #[error("the cache: {0}")]
    Cache(#[from] io::Error),
}

impl Error {
    /// What the kernel is told.
    #[must_use]
    pub fn errno(&self) -> i32 {
        let errno = match self {
            Error::NotFound => Errno::NOENT,
            Error::NotDirectory => Errno::NOTDIR,
            Error::IsDirectory => Errno::ISDIR,
            Error::NotLink => Errno::INVAL,
            Error::NoAttribute => Errno::NODATA,
            Error::NameTooLong => Errno::NAMETOOLONG,
            Error::ReadOnly => Errno::ROFS,
            Error::TimedOut => Errno::TIMEDOUT,
            Error::Source(SourceError::Denied(_)) => Errno::ACCESS,
            Error::Source(SourceError::Away(_) | SourceError::Gone(_) | SourceError::Unfit(_)) => Errno::IO,
            Error::Cache(error) if is_full(error) => Errno::NOSPC,
            Error::Tree(_) | Error::Damaged { .. } | Error::Cache(_) => Errno::IO,
        };
        errno.raw_os_error()
    }

    /// Whether it is an answer, as opposed to something that somebody should look at.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        match self {
            Error::NotFound
            | Error::NotDirectory
            | Error::IsDirectory
            | Error::NotLink
            | Error::NoAttribute
            | Error::NameTooLong
            | Error::ReadOnly => true,
            Error::TimedOut | Error::Source(_) | Error::Tree(_) | Error::Damaged { .. } | Error::Cache(_) => false,
        }
    }
}
