//! Snapshot trees: what a bucket holds as of a number, as a tree of content-addressed pages.
//!
//! A tree is derived from the catalog and its log, never the other way round. It is a tree of directories. A directory
//! is an ordered map from names to objects and directories, cut into pages of 2 to 16 KiB that are named by their
//! BLAKE3 hash; where it takes more than one page, index pages stand above them. A small directory stands inside its
//! parent's page. Where pages end is decided by what is in them alone (`page::ends`), so the same content has the same
//! pages and the same [`Root`] whatever its history: two trees are compared by their roots, a diff skips pages that are
//! equal, and a change of *k* keys writes O(*k* log *n*) pages.
//!
//! **Names and order.** A path is split at every `/`. What is before the last one names directories, what follows it,
//! possibly nothing, names the object in them: `a/` is the object with the empty name in directory `a`, `a//b` is `b`
//! in the directory with the empty name in `a`. In its directory an object sorts by its name and a directory by its
//! name and `/`, which makes a walk meet objects in the order of their paths' bytes, S3's order: `a`, `a!`, `a/b`, `a0`.
//!
//! **Numbers are not in the pages.** An [`Entry`] has what a listing and a mount show and what is equal for equal
//! content, so restoring, cloning or writing the same again shares pages. The number of a version comes from the
//! catalog (`current`, `history`). S3's ListObjects does not show it; who needs it for a key (GetObject,
//! ListObjectVersions) asks the home for that key, as it must for whatever is not in a snapshot.
//!
//! **Pages come from anywhere.** Each is compared with its hash, and what it says with what pointed to it: sizes, order,
//! names, counts. A page that is not there is [`TreeError::Need`], which says what to fetch and for which directory;
//! the call is then repeated. What is not checked is that pages end where ours would: a tree of another's making reads
//! well, but may have another root than ours for the same content.
//!
//! Everything here is synchronous and reaches storage through [`Pages`] and [`PagesMut`] only. `docs/data-format.md`
//! describes the bytes.

mod children;
mod cursor;
mod diff;
mod edit;
mod entry;
mod error;
mod key;
mod list;
mod memory;
mod page;
mod reach;
mod read;
mod store;
mod write;

#[cfg(test)]
mod tests;

pub use children::{Child, ChildNode, Named, children, named};
pub use diff::{Diff, Difference, diff};
pub use edit::{apply, build};
pub use entry::{Content, Entry, PartContent};
pub use error::{Flaw, Missing, TreeError};
pub use list::{Listed, Listing, list};
pub use memory::MemoryPages;
pub use page::{INLINE_BYTES_MAX, PAGE_BYTES_MAX, Root, Stand, Totals};
pub use reach::{below, own_pages};
pub use read::{directory, lookup};
pub use store::{PageHash, Pages, PagesMut, Recording};

/// How many directories a path may lead through. S3's keys have at most 1,024 bytes and Linux's paths 4,096, so
/// neither can name what lies deeper; it bounds what a hostile tree can make a reader keep open.
pub const DEPTH_MAX: usize = 4096;
