//! Whether a catalog belongs to the bodies beside it.
//!
//! The sweep at start removes bodies that the catalog does not know, so a catalog that was lost, or replaced by an
//! older copy, must not come to sweep. Every start counts one up, first in the catalog, then in a file beside it:
//! a catalog that counts less than the file is not the one that was there last.

use std::io;
use std::path::Path;

use crate::catalog::{Catalog, Durability, Table, WriteSet, tables};
use crate::disk::Disk;
use crate::error::{Error, Result};

const FILE: &str = "generation";
const FILE_NEW: &str = "generation.new";
/// More digits than a count of starts has.
const DIGITS_MAX: u64 = 20;

/// What the file counts; zero where there is none.
pub(super) fn read(disk: &dyn Disk) -> Result<u64> {
    let text = match disk.open(Path::new(FILE), false) {
        Ok(file) => {
            let length = file.len().map_err(failed)?.min(DIGITS_MAX);
            let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_at(&mut text, 0).map_err(failed)?;
            text
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let count = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    count.ok_or_else(|| Error::Damaged { what: format!("the file `{FILE}`"), source: "it holds no number".into() })
}

/// Counts one up, unless the catalog counts less than the file, which counts `known`.
pub(super) fn advance(disk: &dyn Disk, catalog: &dyn Catalog, known: u64) -> Result<()> {
    let value = catalog.view()?.get(Table::Meta, tables::META_GENERATION)?;
    let counted = value.and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes);
    if counted < known {
        return Err(Error::CatalogOutdated);
    }
    let next = counted + 1;
    let mut writes = WriteSet::default();
    writes.set(Table::Meta, tables::META_GENERATION.to_vec(), Some(next.to_be_bytes().to_vec()));
    catalog.apply(&writes, Durability::Strict)?;
    write(disk, next).map_err(failed)
}

fn write(disk: &dyn Disk, count: u64) -> io::Result<()> {
    // What a crash left behind.
    match disk.remove(Path::new(FILE_NEW)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = disk.create(Path::new(FILE_NEW))?;
    file.write_at(format!("{count}\n").as_bytes(), 0)?;
    file.sync_data()?;
    disk.rename(Path::new(FILE_NEW), Path::new(FILE))?;
    disk.sync_dir(Path::new(""))
}

fn failed(error: io::Error) -> Error {
    Error::Storage { doing: "reading or writing the generation file", source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::MemoryCatalog;
    use crate::disk::SimulatedDisk;

    #[test]
    fn an_older_catalog_is_refused_and_its_own_is_not() {
        let disk = SimulatedDisk::new();
        let catalog = MemoryCatalog::new();
        for start in 0..3 {
            assert_eq!(read(&disk).expect("reads"), start);
            advance(&disk, &catalog, start).expect("its own catalog");
        }
        let lost = MemoryCatalog::new();
        assert!(matches!(advance(&disk, &lost, read(&disk).expect("reads")), Err(Error::CatalogOutdated)));
    }
}
