//! Pages in the catalog.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::catalog::{Rows, Table, keys};
use crate::error::Result;
use crate::snapshot::{Flaw, Missing, PageHash, Pages, PagesMut, TreeError};
use crate::types::BucketId;

/// The pages of a bucket as a view shows them, and over them those that were made and are still to be written.
pub(crate) struct KeptPages<'a> {
    rows: &'a dyn Rows,
    bucket: BucketId,
    made: BTreeMap<PageHash, Bytes>,
    read: Cell<u64>,
}

impl<'a> KeptPages<'a> {
    pub(crate) fn new(rows: &'a dyn Rows, bucket: BucketId) -> Self {
        KeptPages { rows, bucket, made: BTreeMap::new(), read: Cell::new(0) }
    }

    /// A page's bytes, compared with its hash before they are handed out.
    pub(crate) fn checked(&self, page: &PageHash, directory: &[u8]) -> Result<Bytes, TreeError> {
        match self.get(page)? {
            Some(bytes) if PageHash::of(&bytes) == *page => Ok(bytes),
            Some(_) => Err(TreeError::Unlawful { directory: directory.to_vec(), page: Some(*page), flaw: Flaw::Hash }),
            None => Err(TreeError::Need(vec![Missing { page: *page, directory: directory.to_vec() }])),
        }
    }

    /// What was made, and how many pages were read for it.
    pub(super) fn into_made(self) -> (BTreeMap<PageHash, Bytes>, u64) {
        (self.made, self.read.get())
    }
}

impl Pages for KeptPages<'_> {
    fn get(&self, page: &PageHash) -> Result<Option<Bytes>> {
        if let Some(bytes) = self.made.get(page) {
            return Ok(Some(bytes.clone()));
        }
        self.read.set(self.read.get() + 1);
        Ok(self.rows.get(Table::Pages, &keys::page(self.bucket, page))?.map(Bytes::from))
    }
}

impl PagesMut for KeptPages<'_> {
    fn put(&mut self, page: PageHash, bytes: Bytes) -> Result<()> {
        // Most pages that a change makes are new, and writing one that is there costs what looking for it does.
        self.made.insert(page, bytes);
        Ok(())
    }
}
