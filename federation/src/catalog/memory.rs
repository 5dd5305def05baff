//! The in-memory twin of the catalog: for tests, and for what they compare the others with.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use super::transaction::slices;
use super::{Catalog, CatalogError, CatalogSize, Durability, KeyRange, RowIterator, Rows, Table, View, WriteSet};

type Tables = BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A catalog that is gone with the process. A commit costs a copy of every table it touches.
#[derive(Debug, Default)]
pub struct MemoryCatalog(RwLock<Option<Arc<Tables>>>);

impl MemoryCatalog {
    /// An empty catalog.
    #[must_use]
    pub fn new() -> Self {
        MemoryCatalog(RwLock::new(Some(Arc::default())))
    }

    fn tables(&self) -> Result<Arc<Tables>, CatalogError> {
        self.0.read().expect("no holder of this lock panics").clone().ok_or(CatalogError::Closed)
    }
}

struct MemoryView(Arc<Tables>);

impl Rows for MemoryView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        Ok(self.0.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn range<'a>(&'a self, table: Table, range: KeyRange) -> Result<RowIterator<'a>, CatalogError> {
        let Some(rows) = self.0.get(&table).filter(|_| !range.is_empty()) else {
            return Ok(Box::new(std::iter::empty()));
        };
        let rows = rows.range::<[u8], _>(slices(&range)).map(|(key, value)| Ok((key.clone(), value.clone())));
        Ok(if range.reverse { Box::new(rows.rev()) } else { Box::new(rows) })
    }
}

impl Catalog for MemoryCatalog {
    fn view(&self) -> Result<Box<dyn View>, CatalogError> {
        Ok(Box::new(MemoryView(self.tables()?)))
    }

    fn apply(&self, writes: &WriteSet, _durability: Durability) -> Result<(), CatalogError> {
        let mut guard = self.0.write().expect("no holder of this lock panics");
        let tables = Arc::make_mut(guard.as_mut().ok_or(CatalogError::Closed)?);
        for (table, writes) in writes.tables() {
            let rows = tables.entry(table).or_default();
            for (key, value) in writes {
                match value {
                    Some(value) => rows.insert(key.clone(), value.clone()),
                    None => rows.remove(key),
                };
            }
        }
        Ok(())
    }

    fn bytes(&self) -> Result<u64, CatalogError> {
        self.size().map(|size| size.bytes)
    }

    fn size(&self) -> Result<CatalogSize, CatalogError> {
        let rows = self.tables()?;
        let bytes = rows.values().flatten().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        Ok(CatalogSize { bytes: bytes as u64, free: 0 })
    }

    fn compact(&self) -> Result<bool, CatalogError> {
        self.tables().map(|_| false)
    }

    fn close(&self) {
        *self.0.write().expect("no holder of this lock panics") = None;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn keeps_the_catalog_promises() {
        super::super::conformance::run(&super::MemoryCatalog::new());
    }
}
