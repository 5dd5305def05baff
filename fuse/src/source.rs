//! Where snapshots come from.

use std::fs::File;

use async_trait::async_trait;
use bytes::Bytes;
use federation::snapshot::{PageHash, Root};
use federation::types::{BlobHash, BucketId, Number};

/// A snapshot: a state of a bucket, and the root of its tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The bucket, for ever.
    pub bucket: BucketId,
    /// The state's number.
    pub number: Number,
    /// The root.
    pub root: Root,
}

/// A snapshot that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSnapshot {
    /// The tag.
    pub name: String,
    /// What it names.
    pub number: Number,
}

/// A piece of an object's body: all of it, one part, or its list of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// What its bytes hash to.
    pub hash: BlobHash,
    /// Their number; none where only the answer says it, as for a page of a list.
    pub length: u64,
}

/// Where the snapshots of one bucket come from.
///
/// Pages and ranges that it answers are not believed: readers compare them with their hashes. It may be called many times
/// at once, and a call may be dropped at any time. Errors are told apart by what to do: see [`SourceError`].
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// A state of the bucket: as of a number, tag or time, or the newest.
    async fn tree(&self, snapshot: Option<&str>) -> Result<Tree, SourceError>;

    /// The snapshots that have names.
    async fn snapshots(&self) -> Result<Vec<NamedSnapshot>, SourceError>;

    /// Pages of a directory of a state, in the order in which they are asked for.
    async fn pages(&self, number: Number, directory: &[u8], pages: &[PageHash]) -> Result<Vec<Bytes>, SourceError>;

    /// All of a piece as an open file, where there is one on this host that may be read without the source. Unlike all else
    /// it is believed: who gives it compared it with its hash.
    async fn descriptor(&self, number: Number, path: &[u8], piece: Piece) -> Result<Option<File>, SourceError>;

    /// The hash tree of a piece: the chaining values of its groups, 32 bytes each.
    async fn hash_tree(&self, number: Number, path: &[u8], piece: Piece) -> Result<Bytes, SourceError>;

    /// Bytes of a piece, as many as asked for.
    async fn range(
        &self,
        number: Number,
        path: &[u8],
        piece: Piece,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, SourceError>;
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It is away; asking again may help.
    #[error("{0}")]
    Away(String),
    /// What was asked for is not there.
    #[error("{0}")]
    Gone(String),
    /// It may not be read with these rights.
    #[error("{0}")]
    Denied(String),
    /// It does not do what was asked for, now or ever.
    #[error("{0}")]
    Unfit(String),
}
