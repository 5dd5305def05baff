//! A transaction: reads what earlier closures of its batch wrote, buffers what it writes itself.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use super::rows::Record;
use super::{CatalogError, KeyRange, Row, RowIterator, Rows, Table, View};

/// Writes that are to be committed together: per table and key the new value, or none to remove it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
}

impl WriteSet {
    /// Sets a key's value, or with none removes it.
    pub fn set(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.tables.entry(table).or_default().insert(key, value);
    }

    /// What was set for a key, if anything was.
    #[must_use]
    pub fn get(&self, table: Table, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.tables.get(&table)?.get(key)
    }

    /// Whether nothing was set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The tables with what was set in each, in the order of their keys.
    pub fn tables(&self) -> impl Iterator<Item = (Table, &BTreeMap<Vec<u8>, Option<Vec<u8>>>)> {
        self.tables.iter().map(|(table, writes)| (*table, writes))
    }

    /// Adds what `later` sets, over what this one does.
    pub fn absorb(&mut self, later: WriteSet) {
        for (table, writes) in later.tables {
            self.tables.entry(table).or_default().extend(writes);
        }
    }

    fn in_range(&self, table: Table, range: &KeyRange) -> Vec<Overlay> {
        let Some(writes) = self.tables.get(&table) else { return Vec::new() };
        let bounds = (range.from.as_ref().map(Vec::as_slice), range.to.as_ref().map(Vec::as_slice));
        writes.range::<[u8], _>(bounds).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

type Overlay = (Vec<u8>, Option<Vec<u8>>);

/// One closure's look at the catalog and what it means to write.
#[derive(Debug)]
pub struct Transaction<'a> {
    view: &'a dyn View,
    batch: &'a WriteSet,
    own: WriteSet,
}

impl std::fmt::Debug for dyn View + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("View")
    }
}

impl<'a> Transaction<'a> {
    /// A transaction over what is committed and what its batch has written so far.
    #[must_use]
    pub fn new(view: &'a dyn View, batch: &'a WriteSet) -> Self {
        Transaction { view, batch, own: WriteSet::default() }
    }

    /// Writes a row.
    pub fn put<R: Record>(&mut self, key: Vec<u8>, record: &R) {
        self.own.set(R::TABLE, key, Some(record.encode()));
    }

    /// Writes a row's bytes.
    pub fn put_raw(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.own.set(table, key, Some(value));
    }

    /// Removes a row.
    pub fn remove(&mut self, table: Table, key: Vec<u8>) {
        self.own.set(table, key, None);
    }

    /// What it means to write.
    #[must_use]
    pub fn into_writes(self) -> WriteSet {
        self.own
    }
}

impl Rows for Transaction<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        if let Some(value) = self.own.get(table, key).or_else(|| self.batch.get(table, key)) {
            return Ok(value.clone());
        }
        self.view.get(table, key)
    }

    fn range<'a>(&'a self, table: Table, range: KeyRange) -> Result<RowIterator<'a>, CatalogError> {
        if range.is_empty() {
            return Ok(Box::new(std::iter::empty()));
        }
        let reverse = range.reverse;
        let mut overlay: BTreeMap<_, _> = self.batch.in_range(table, &range).into_iter().collect();
        overlay.extend(self.own.in_range(table, &range));
        let below = self.view.range(table, range)?;
        if overlay.is_empty() {
            return Ok(below);
        }
        let mut overlay: Vec<Overlay> = overlay.into_iter().collect();
        if reverse {
            overlay.reverse();
        }
        Ok(Box::new(Merged { below: below.peekable(), above: overlay.into_iter().peekable(), reverse }))
    }
}

/// Rows of a view with writes laid over them.
struct Merged<'a> {
    below: Peekable<RowIterator<'a>>,
    above: Peekable<std::vec::IntoIter<Overlay>>,
    reverse: bool,
}

impl Iterator for Merged<'_> {
    type Item = Result<Row, CatalogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.below.peek(), self.above.peek()) {
                (Some(Err(_)), _) | (Some(_), None) => return self.below.next(),
                (None, None) => return None,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(Ok((below, _))), Some((above, _))) if self.reverse => above.cmp(below),
                (Some(Ok((below, _))), Some((above, _))) => below.cmp(above),
            };
            match order {
                std::cmp::Ordering::Less => return self.below.next(),
                std::cmp::Ordering::Equal => {
                    // What is laid over a row hides it.
                    self.below.next();
                }
                std::cmp::Ordering::Greater => {}
            }
            if let Some((key, Some(value))) = self.above.next() {
                return Some(Ok((key, value)));
            }
        }
    }
}

/// The bounds of a range as an engine over byte slices takes them.
pub(super) fn slices(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (range.from.as_ref().map(Vec::as_slice), range.to.as_ref().map(Vec::as_slice))
}
