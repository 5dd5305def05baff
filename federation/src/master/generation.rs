//! Whether a catalog belongs to the bodies beside it.
//!
//! The sweep at start removes bodies that the catalog does not know, so a catalog that was lost, or replaced by an
//! older copy, must not come to sweep. Every start counts one up, first in the catalog, then in a file beside it:
//! a catalog that counts less than the file is not the one that was there last.
//!
//! The file is overwritten in place, so that a start needs no space on a disk that is full. It holds the last two
//! counts, each in a line of its own with a digest, and the older one is what is overwritten: a write that a power
//! failure tears spoils only the line of a start that had not come to change anything.

use std::io;
use std::path::Path;

use crate::catalog::{Catalog, Durability, Table, WriteSet, tables};
use crate::disk::Disk;
use crate::error::{Error, Result};

const FILE: &str = "generation";
const FILE_NEW: &str = "generation.new";
/// Digits of a count.
const COUNT_DIGITS: usize = 20;
/// Characters of a count's digest.
const DIGEST_DIGITS: usize = 16;
/// Bytes of a line: a count, a space, its digest, the end of the line.
const LINE_BYTES: usize = COUNT_DIGITS + 1 + DIGEST_DIGITS + 1;

fn line(count: u64) -> String {
    let count = format!("{count:0COUNT_DIGITS$}");
    let digest = blake3::hash(count.as_bytes()).to_hex();
    format!("{count} {}\n", &digest[..DIGEST_DIGITS])
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let count = std::str::from_utf8(bytes.get(..COUNT_DIGITS)?).ok()?.parse().ok()?;
    (line(count).as_bytes() == bytes).then_some(count)
}

/// What the file's lines count, as far as they are whole; `None` where there is no file.
fn lines(disk: &dyn Disk) -> Result<Option<[Option<u64>; 2]>> {
    let mut text = [0; 2 * LINE_BYTES];
    let read = disk.open(Path::new(FILE), false).and_then(|file| file.read_at(&mut text, 0));
    match read.map_err(|error| (error.kind(), error)) {
        Ok(()) => Ok(Some([parse(&text[..LINE_BYTES]), parse(&text[LINE_BYTES..])])),
        Err((io::ErrorKind::NotFound, _)) => Ok(None),
        Err((io::ErrorKind::UnexpectedEof, _)) => Ok(Some([None, None])),
        Err((_, error)) => Err(failed(error)),
    }
}

/// What the file counts; zero where there is none.
pub(super) fn read(disk: &dyn Disk) -> Result<u64> {
    let Some(lines) = lines(disk)? else { return Ok(0) };
    let count = lines.into_iter().flatten().max();
    count.ok_or_else(|| Error::Damaged { what: format!("the file `{FILE}`"), source: "it holds no count".into() })
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
    write(disk, next)
}

fn write(disk: &dyn Disk, count: u64) -> Result<()> {
    let Some(lines) = lines(disk)? else { return create(disk, count).map_err(failed) };
    // The greater count stays whole whatever happens to this write.
    let older = if lines[0] < lines[1] { 0 } else { LINE_BYTES as u64 };
    let overwrite = || {
        let file = disk.open(Path::new(FILE), true)?;
        file.write_at(line(count).as_bytes(), older)?;
        file.sync_data()
    };
    overwrite().map_err(failed)
}

fn create(disk: &dyn Disk, count: u64) -> io::Result<()> {
    // What a crash left behind.
    match disk.remove(Path::new(FILE_NEW)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = disk.create(Path::new(FILE_NEW))?;
    file.write_at(format!("{}{}", line(count.saturating_sub(1)), line(count)).as_bytes(), 0)?;
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

    #[test]
    fn torn_writes_leave_the_count_before_them() {
        let disk = SimulatedDisk::new();
        for count in 1..=12 {
            write(&disk, count).expect("writes");
            assert_eq!(read(&disk).expect("reads"), count);
        }
        let file = disk.open(Path::new(FILE), true).expect("opens");
        for torn in [0, 3, COUNT_DIGITS, LINE_BYTES - 4] {
            let lines = lines(&disk).expect("reads").expect("it is there");
            let place = if lines[0] == Some(12) { LINE_BYTES as u64 } else { 0 };
            file.write_at(&line(13).as_bytes()[..torn], place).expect("writes");
            assert_eq!(read(&disk).expect("one line is whole"), 12, "torn at {torn}");
        }
        write(&disk, 13).expect("writes");
        assert_eq!(lines(&disk).expect("reads").map(|lines| lines.into_iter().max()), Some(Some(Some(13))));
        assert_eq!(lines(&disk).expect("reads").map(|lines| lines.into_iter().min()), Some(Some(Some(12))));
        assert_eq!(file.len().expect("a length"), 2 * LINE_BYTES as u64, "it never grows");
        file.write_at(&[0; 2 * LINE_BYTES], 0).expect("writes");
        assert!(matches!(read(&disk), Err(Error::Damaged { .. })), "no count is not a count of none");
    }
}
