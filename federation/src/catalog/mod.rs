//! The truth: an ordered key/value store with serialisable transactions.
//!
//! [`Catalog`] is the narrow seam that an engine fills; [`Writer`] gives it group commit. What stands in which
//! table is in [`tables`], how keys are spelled in [`keys`], what rows hold in [`rows`].

use std::fmt;
use std::ops::Bound;

pub mod conformance;
mod damage;
pub mod keys;
mod memory;
mod redb;
pub mod rows;
pub mod tables;
mod transaction;
mod writer;

pub use self::redb::RedbCatalog;
pub use damage::panic_is_contained;
pub use memory::MemoryCatalog;
pub use tables::Table;
pub use transaction::{Transaction, WriteSet};
pub use writer::Writer;

use crate::error::BoxError;

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A range of keys in order, or in reverse.
#[derive(Clone, Debug)]
pub struct KeyRange {
    /// Where it begins.
    pub from: Bound<Vec<u8>>,
    /// Where it ends.
    pub to: Bound<Vec<u8>>,
    /// Whether it is read from its end.
    pub reverse: bool,
}

impl KeyRange {
    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let to = keys::successor(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        KeyRange { from: Bound::Included(prefix.to_vec()), to, reverse: false }
    }

    /// The same keys, not before `from`.
    #[must_use]
    pub fn starting(mut self, from: Bound<Vec<u8>>) -> Self {
        self.from = from;
        self
    }

    /// The same keys from the end.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Whether no key can be in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        }
    }
}

/// What an engine says when it fails.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The engine failed; it is as it was before the call, or was reopened so.
    #[error("the catalog failed while {doing}")]
    Engine {
        /// What it was doing.
        doing: &'static str,
        /// How it failed.
        source: BoxError,
    },
    /// A row does not hold what its table says.
    #[error("a row of {table} is damaged")]
    DamagedRow {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        source: BoxError,
    },
    /// The catalog was written by a version that this one does not know.
    #[error("the catalog has format {found}; this version of elton reads format {known}")]
    UnknownFormat {
        /// The format that was found.
        found: u32,
        /// The format that is known.
        known: u32,
    },
    /// The catalog lacks a table of its format: a build that was never released wrote it.
    #[error(
        "the catalog has no table `{table}`, so its format is not this one's: it was written by another development \
         build of elton. Open it with that build, or begin with an empty data directory"
    )]
    MissingTable {
        /// The table.
        table: &'static str,
    },
    /// The catalog is closed.
    #[error("the catalog is closed")]
    Closed,
}

impl CatalogError {
    pub(crate) fn engine(doing: &'static str, source: impl Into<BoxError>) -> Self {
        CatalogError::Engine { doing, source: source.into() }
    }
}

/// Something that rows can be read from: a view of what is committed, or a transaction.
pub trait Rows {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError>;

    /// The rows of a range, in order.
    fn range<'a>(&'a self, table: Table, range: KeyRange) -> Result<RowIterator<'a>, CatalogError>;
}

/// Rows in order.
pub type RowIterator<'a> = Box<dyn Iterator<Item = Result<Row, CatalogError>> + 'a>;

/// What one look at the catalog sees: everything committed before it, nothing after.
///
/// A view holds pages of the past; none outlives a page of a listing.
pub trait View: Rows + Send {}

impl<T: Rows + Send> View for T {}

/// How sure a commit is when it returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It survives power loss.
    #[default]
    Strict,
    /// It survives the end of the process's machine only after the next strict commit.
    Relaxed,
}

/// How large a catalog is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CatalogSize {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Of these, in pages that are free to be used again.
    pub free: u64,
}

/// An ordered key/value store. It has one user, the [`Writer`], which never calls [`Catalog::apply`] twice at once.
///
/// Promises, shown by [`conformance`]: `apply` is atomic, and durable on return unless it was asked to be relaxed;
/// a view sees whole commits only, all of those that returned before it was opened, and never changes;
/// keys are ordered by their bytes.
pub trait Catalog: Send + Sync + fmt::Debug + 'static {
    /// A view of what is committed now.
    fn view(&self) -> Result<Box<dyn View>, CatalogError>;

    /// Commits all of `writes` or, on an error, none of them.
    fn apply(&self, writes: &WriteSet, durability: Durability) -> Result<(), CatalogError>;

    /// Bytes that it takes.
    fn bytes(&self) -> Result<u64, CatalogError>;

    /// How large it is. This may walk all of it, and commits wait meanwhile.
    fn size(&self) -> Result<CatalogSize, CatalogError>;

    /// Gives free pages back to the disk if they were more than half of it when it was last closed. Nobody may have a
    /// view open.
    fn compact(&self) -> Result<bool, CatalogError>;

    /// Writes everything out and lets go of the files. Every later call fails.
    fn close(&self);
}
