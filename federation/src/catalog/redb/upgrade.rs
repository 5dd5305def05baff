//! Brings a catalog of an earlier format to this one, in one transaction.

use redb::{Database, ReadableTable as _};

use super::{CatalogError, definition};
use crate::catalog::tables::{self, Table};

/// The format before clusters knew each other.
pub(super) const ALONE: u64 = 1;

/// What it had no tables for.
pub(super) const NEW: &[Table] = &[
    Table::Pages,
    Table::Roots,
    Table::Clusters,
    Table::Invitations,
    Table::Grants,
    Table::Links,
    Table::Facts,
    Table::Versions,
    Table::Bodies,
    Table::Partials,
    Table::Publishes,
];

/// The tables whose rows have got one more field at their end: whether a bucket is linked, and whose a pin is. A zero
/// is no, and nobody.
pub(super) const LONGER: &[Table] = &[Table::Buckets, Table::Pins];

/// From [`ALONE`] to the format after it.
pub(super) fn from_alone(database: &Database) -> Result<(), CatalogError> {
    let failed = |error: redb::Error| CatalogError::engine("bringing it to this format", error);
    let mut transaction = database.begin_write().map_err(|error| failed(error.into()))?;
    transaction.set_quick_repair(true);
    for table in NEW {
        transaction.open_table(definition(*table)).map_err(|error| failed(error.into()))?;
    }
    for table in LONGER {
        let mut rows = transaction.open_table(definition(*table)).map_err(|error| failed(error.into()))?;
        let mut longer = Vec::new();
        for row in rows.iter().map_err(|error| failed(error.into()))? {
            let (key, value) = row.map_err(|error| failed(error.into()))?;
            longer.push((key.value().to_vec(), [value.value(), &[0]].concat()));
        }
        for (key, value) in longer {
            rows.insert(key.as_slice(), value.as_slice()).map_err(|error| failed(error.into()))?;
        }
    }
    let mut meta = transaction.open_table(definition(Table::Meta)).map_err(|error| failed(error.into()))?;
    let format = (ALONE + 1).to_be_bytes();
    meta.insert(tables::META_FORMAT, format.as_slice()).map_err(|error| failed(error.into()))?;
    drop(meta);
    transaction.commit().map_err(|error| failed(error.into()))?;
    tracing::info!(from = ALONE, to = ALONE + 1, "the catalog was brought to this version's format");
    Ok(())
}
