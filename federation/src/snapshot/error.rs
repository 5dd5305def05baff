//! What can go wrong with a tree.

use super::{DEPTH_MAX, PAGE_BYTES_MAX, PageHash};
use crate::error::Error;
use crate::types::ObjectPath;

/// A page that is needed and not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The page.
    pub page: PageHash,
    /// The directory that it is a page of: empty, or its path with a `/` at the end. Who asks for the page names it.
    pub directory: Vec<u8>,
}

impl Missing {
    /// Adds pages to those that are asked for, each once: directories with equal content share theirs.
    pub(super) fn add(all: &mut Vec<Missing>, more: Vec<Missing>) {
        for missing in more {
            if all.iter().all(|known| known.page != missing.page) {
                all.push(missing);
            }
        }
    }
}

/// Why a tree could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Pages are not here. The call changed nothing that matters and is to be repeated when they are; it may need
    /// more then. An error and not an answer, so that `?` carries it out of any depth.
    #[error("{} pages of the snapshot are not here; fetch them and repeat", .0.len())]
    Need(
        /// The pages: one at least.
        Vec<Missing>,
    ),
    /// A page or a directory that stands inside one is not what it should be.
    #[error(
        "the directory \"{}\" of the snapshot {flaw}{}; discard what was kept of it and fetch it from another member, \
         or derive the tree from the catalog again",
        directory.escape_ascii(),
        page.map_or_else(String::new, |page| format!(" (page {page})"))
    )]
    Unlawful {
        /// The directory.
        directory: Vec<u8>,
        /// Its page, if it does not stand inside another's.
        page: Option<PageHash>,
        /// What is wrong.
        flaw: Flaw,
    },
    /// Paths were not given in strictly ascending order.
    #[error("{path} came out of order; a tree is built from paths in ascending order, each once")]
    Unordered {
        /// The first path that was not greater than the one before.
        path: ObjectPath,
    },
    /// A path leads through too many directories.
    #[error("\"{}\" lies more than {DEPTH_MAX} directories deep; move what is in it up", directory.escape_ascii())]
    TooDeep {
        /// The first directory that is too deep.
        directory: Vec<u8>,
    },
    /// What is to be written has no place in a page.
    #[error("\"{}\" of \"{}\" {flaw}", name.escape_ascii(), directory.escape_ascii())]
    Unwritable {
        /// The directory.
        directory: Vec<u8>,
        /// The name in it.
        name: Vec<u8>,
        /// What is wrong.
        flaw: Flaw,
    },
    /// Pages could not be read or kept, or the changes not be read.
    #[error("the pages of the snapshot could not be reached")]
    Storage(#[from] Error),
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The bytes are other ones.
    #[error("has a page with another hash than the one it is named by")]
    Hash,
    /// Too many bytes.
    #[error("has a page of more than {PAGE_BYTES_MAX} bytes")]
    Size,
    /// Not a format that we know.
    #[error("has a page in format {0}, which this version cannot read")]
    Format(u8),
    /// The page belongs at another height.
    #[error("has a page at the wrong level")]
    Level,
    /// The bytes are not rows.
    #[error("has rows that cannot be decoded")]
    Encoding,
    /// A name with a `/` in it, or one that makes a path empty or too long.
    #[error("has a name that no path can have")]
    Name,
    /// The rows are not in strictly ascending order, or not where the index says.
    #[error("has names out of order")]
    Order,
    /// Counts or sizes are not the sum of what is below, or exceed 64 bits.
    #[error("has counts or sizes that do not add up")]
    Totals,
    /// The page has more or fewer rows than a page of its place can have.
    #[error("has a page that is too small or too large for its place")]
    Shape,
    /// The parts of an object's content contradict its size.
    #[error("has an object whose content contradicts its size")]
    Content,
    /// An entry is too long.
    #[error("has an entry of more than {} bytes", super::page::ENTRY_BYTES_MAX)]
    Entry,
}
