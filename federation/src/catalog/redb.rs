//! The catalog in one redb file, written through the [`Disk`] seam.
//!
//! redb latches every I/O error, a full disk among them, and then refuses even reads. So after an error the
//! database is reopened behind the seam; a count of commits in the file tells whether the uncertain one took place.
//! It panics on damaged pages; every call of it is therefore [contained](contain).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::damage::contain;
use super::transaction::slices;
use super::{
    Catalog, CatalogError, CatalogSize, Durability, KeyRange, RowIterator, Rows, Table, View, WriteSet, tables,
};
use crate::disk::{Disk, DiskFile};

mod upgrade;

const fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// A smaller file is not worth compacting, in bytes: an empty catalog is mostly free pages.
const COMPACT_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// How long reopening waits between looks at who still holds the old database.
const REOPEN_WAIT: std::time::Duration = std::time::Duration::from_millis(1);

/// A file of the [`Disk`] seam as redb wants it.
#[derive(Debug)]
struct FileBackend(Arc<dyn DiskFile>);

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(data, offset)
    }
}

#[derive(Debug)]
enum State {
    Open {
        database: Arc<Database>,
        commits: u64,
    },
    /// An error was latched and reopening failed; every call tries again.
    Failed,
    Closed,
}

/// A catalog in one file.
#[derive(Debug)]
pub struct RedbCatalog {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    cache_bytes: usize,
    state: RwLock<State>,
}

impl RedbCatalog {
    /// Opens the catalog at `path`, or creates it there. Whoever calls this owns the folder it is in.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, cache_bytes: usize) -> Result<Self, CatalogError> {
        let state = open_database(&*disk, path, cache_bytes)?;
        Ok(RedbCatalog { disk, path: path.to_owned(), cache_bytes, state: RwLock::new(state) })
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("no holder of this lock panics")
    }

    /// Reopens the database unless it works after all, and says how many commits it holds.
    fn reopen(&self) -> Result<u64, CatalogError> {
        let mut state = self.state.write().expect("no holder of this lock panics");
        match std::mem::replace(&mut *state, State::Failed) {
            State::Closed => {
                *state = State::Closed;
                return Err(CatalogError::Closed);
            }
            State::Failed => {}
            State::Open { database, commits } => {
                // Somebody else reopened it meanwhile.
                if works(&database) {
                    *state = State::Open { database, commits };
                    return Ok(commits);
                }
                // The old database lets go of the file before the new one opens it; who holds it is about to begin
                // a read, which fails.
                let mut held = database;
                loop {
                    match Arc::try_unwrap(held) {
                        Ok(database) => {
                            // What closing it says no longer matters: it has failed.
                            let _ = contain("closing it", || {
                                drop(database);
                                Ok(())
                            });
                            break;
                        }
                        Err(still) => held = still,
                    }
                    std::thread::sleep(REOPEN_WAIT);
                }
            }
        }
        *state = open_database(&*self.disk, &self.path, self.cache_bytes)?;
        match &*state {
            State::Open { commits, .. } => Ok(*commits),
            State::Failed | State::Closed => Err(CatalogError::Closed),
        }
    }

    /// The database, if it is open. The lock is not held while it is used: readers do not wait for a commit's syncs.
    fn database(&self) -> Result<(Arc<Database>, u64), CatalogError> {
        match &*self.state() {
            State::Open { database, commits } => Ok((Arc::clone(database), *commits)),
            State::Failed => Err(CatalogError::engine("using it", "an earlier error")),
            State::Closed => Err(CatalogError::Closed),
        }
    }

    fn try_apply(&self, writes: &WriteSet, durability: Durability) -> Result<(), Attempt> {
        let (database, commits) = self.database().map_err(|error| match error {
            CatalogError::Closed => Attempt::Refused(error),
            error => Attempt::Failed { commit: 0, error },
        })?;
        let commit = commits + 1;
        contain("writing", || write_all(&database, writes, commit, durability))
            .map_err(|error| Attempt::Failed { commit, error })?;
        if let State::Open { commits, .. } = &mut *self.state.write().expect("no holder of this lock panics") {
            *commits = commit;
        }
        Ok(())
    }
}

/// Whether a database can still be read: after an I/O error it refuses everything.
fn works(database: &Database) -> bool {
    let read = || -> Result<(), redb::Error> {
        let reads = database.begin_read()?;
        let meta = reads.open_table(definition(Table::Meta))?;
        ReadableTable::get(&meta, tables::META_COMMITS)?;
        match database.try_begin_write() {
            Ok(transaction) => transaction.abort()?,
            // Somebody writes, which a latched error would have refused.
            Err(redb::TransactionError::WouldBlock) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    };
    contain("using it", || read().map_err(|error| CatalogError::engine("using it", error))).is_ok()
}

enum Attempt {
    Refused(CatalogError),
    Failed { commit: u64, error: CatalogError },
}

fn open_database(disk: &dyn Disk, path: &Path, cache_bytes: usize) -> Result<State, CatalogError> {
    let file = match disk.open(path, true) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = disk.create(path).map_err(|error| CatalogError::engine("creating its file", error))?;
            let folder = path.parent().unwrap_or(Path::new(""));
            disk.sync_dir(folder).map_err(|error| CatalogError::engine("creating its file", error))?;
            file
        }
        Err(error) => return Err(CatalogError::engine("opening its file", error)),
    };
    contain("opening its file", || {
        let database = Builder::new()
            .set_cache_size(cache_bytes)
            .create_with_backend(FileBackend(file))
            .map_err(|error| CatalogError::engine("opening its file", error))?;
        let commits = prepare(&database)?;
        Ok(State::Open { database: Arc::new(database), commits })
    })
}

/// Creates the tables of an empty database, checks the format of another, and says how many commits it holds.
fn prepare(database: &Database) -> Result<u64, CatalogError> {
    let reads = database.begin_read().map_err(|error| CatalogError::engine("reading", error))?;
    let known = match reads.open_table(definition(Table::Meta)) {
        Ok(meta) => {
            let number = |key: &[u8]| -> Result<Option<u64>, CatalogError> {
                let value = meta.get(key).map_err(|error| CatalogError::engine("reading", error))?;
                Ok(value.and_then(|value| Some(u64::from_be_bytes(value.value().try_into().ok()?))))
            };
            Some((number(tables::META_FORMAT)?, number(tables::META_COMMITS)?.unwrap_or(0)))
        }
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(CatalogError::engine("reading", error)),
    };
    match known {
        Some((Some(format), commits)) if format == u64::from(tables::FORMAT) => {
            check_tables(&reads, |_| true)?;
            Ok(commits)
        }
        Some((Some(upgrade::ALONE), commits)) => {
            check_tables(&reads, |table| !upgrade::NEW.contains(&table))?;
            drop(reads);
            upgrade::from_alone(database)?;
            Ok(commits)
        }
        Some((format, _)) => Err(CatalogError::UnknownFormat {
            found: format.and_then(|format| u32::try_from(format).ok()).unwrap_or(0),
            known: tables::FORMAT,
        }),
        None => {
            let mut first = WriteSet::default();
            let format = u64::from(tables::FORMAT).to_be_bytes().to_vec();
            first.set(Table::Meta, tables::META_FORMAT.to_vec(), Some(format));
            write_all(database, &first, 1, Durability::Strict)?;
            Ok(1)
        }
    }
}

/// The first commit makes every table of the format. One that is missing is not made up for: it may be one that the
/// rows of the others count on.
fn check_tables(reads: &ReadTransaction, has: impl Fn(Table) -> bool) -> Result<(), CatalogError> {
    for table in Table::ALL.iter().filter(|table| has(**table)) {
        match reads.open_table(definition(*table)) {
            Ok(_) => {}
            Err(redb::TableError::TableDoesNotExist(_)) => {
                return Err(CatalogError::MissingTable { table: table.name() });
            }
            Err(error) => return Err(CatalogError::engine("reading", error)),
        }
    }
    Ok(())
}

fn write_all(database: &Database, writes: &WriteSet, commit: u64, durability: Durability) -> Result<(), CatalogError> {
    let failed = |error: redb::Error| CatalogError::engine("writing", error);
    let mut transaction = database.begin_write().map_err(|error| failed(error.into()))?;
    match durability {
        // Recovery after a crash does not walk the database.
        Durability::Strict => transaction.set_quick_repair(true),
        Durability::Relaxed => {
            transaction.set_durability(redb::Durability::None).map_err(|error| failed(error.into()))?;
        }
    }
    if commit == 1 {
        for table in Table::ALL {
            transaction.open_table(definition(*table)).map_err(|error| failed(error.into()))?;
        }
    }
    for (table, writes) in writes.tables() {
        let mut rows = transaction.open_table(definition(table)).map_err(|error| failed(error.into()))?;
        for (key, value) in writes {
            match value {
                Some(value) => rows.insert(key.as_slice(), value.as_slice()).map(drop),
                None => rows.remove(key.as_slice()).map(drop),
            }
            .map_err(|error| failed(error.into()))?;
        }
    }
    let count = commit.to_be_bytes();
    let mut meta = transaction.open_table(definition(Table::Meta)).map_err(|error| failed(error.into()))?;
    meta.insert(tables::META_COMMITS, count.as_slice()).map_err(|error| failed(error.into()))?;
    drop(meta);
    transaction.commit().map_err(|error| failed(error.into()))
}

struct RedbView(ReadTransaction);

impl Rows for RedbView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        contain("reading", || {
            let rows = self.0.open_table(definition(table)).map_err(|error| CatalogError::engine("reading", error))?;
            let value = ReadableTable::get(&rows, key).map_err(|error| CatalogError::engine("reading", error))?;
            Ok(value.map(|value| value.value().to_vec()))
        })
    }

    fn range<'a>(&'a self, table: Table, range: KeyRange) -> Result<RowIterator<'a>, CatalogError> {
        if range.is_empty() {
            return Ok(Box::new(std::iter::empty()));
        }
        contain("reading", || {
            let rows = self.0.open_table(definition(table)).map_err(|error| CatalogError::engine("reading", error))?;
            let rows =
                rows.range_owned::<&[u8]>(slices(&range)).map_err(|error| CatalogError::engine("reading", error))?;
            Ok(if range.reverse { contained_rows(rows.rev()) } else { contained_rows(rows) })
        })
    }
}

type FoundRow =
    Result<(redb::OwnedAccessGuard<&'static [u8]>, redb::OwnedAccessGuard<&'static [u8]>), redb::StorageError>;

/// Rows as they are read, up to the first that cannot be.
fn contained_rows<'a>(mut rows: impl Iterator<Item = FoundRow> + 'a) -> RowIterator<'a> {
    let mut failed = false;
    Box::new(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let row = contain("reading", || {
            let Some(row) = rows.next() else { return Ok(None) };
            let (key, value) = row.map_err(|error| CatalogError::engine("reading", error))?;
            Ok(Some((key.value().to_vec(), value.value().to_vec())))
        });
        failed = row.is_err();
        row.transpose()
    }))
}

impl Catalog for RedbCatalog {
    fn view(&self) -> Result<Box<dyn View>, CatalogError> {
        let read = || {
            let (database, _) = self.database()?;
            contain("reading", || database.begin_read().map_err(|error| CatalogError::engine("reading", error)))
        };
        let transaction = match read() {
            Ok(transaction) => transaction,
            Err(CatalogError::Closed) => return Err(CatalogError::Closed),
            Err(_) => {
                self.reopen()?;
                read()?
            }
        };
        Ok(Box::new(RedbView(transaction)))
    }

    fn apply(&self, writes: &WriteSet, durability: Durability) -> Result<(), CatalogError> {
        match self.try_apply(writes, durability) {
            Ok(()) => Ok(()),
            Err(Attempt::Refused(error)) => Err(error),
            Err(Attempt::Failed { commit, error }) => {
                tracing::error!(error = &error as &dyn std::error::Error, "catalog failed; reopening it");
                match self.reopen() {
                    // The engine failed after the commit had taken place.
                    Ok(commits) if commit != 0 && commits >= commit => Ok(()),
                    Ok(_) => Err(error),
                    Err(again) => {
                        tracing::error!(error = &again as &dyn std::error::Error, "catalog could not be reopened");
                        Err(error)
                    }
                }
            }
        }
    }

    fn bytes(&self) -> Result<u64, CatalogError> {
        file_bytes(&*self.disk, &self.path)
    }

    fn size(&self) -> Result<CatalogSize, CatalogError> {
        let (database, _) = self.database()?;
        contain("measuring", || size_of(&*self.disk, &self.path, &database))
    }

    fn compact(&self) -> Result<bool, CatalogError> {
        let mut state = self.state.write().expect("no holder of this lock panics");
        let State::Open { database, commits } = &mut *state else { return Err(CatalogError::Closed) };
        contain("compacting", || {
            if !take_mark(database, commits)? {
                return Ok(false);
            }
            let Some(database) = Arc::get_mut(database) else { return Ok(false) };
            database.compact().map_err(|error| CatalogError::engine("compacting", error))
        })
    }

    fn close(&self) {
        let mut state = self.state.write().expect("no holder of this lock panics");
        if let State::Open { database, commits } = &mut *state
            && let Err(error) = contain("measuring", || mark(&*self.disk, &self.path, database, *commits + 1))
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "catalog not measured");
        }
        let last = std::mem::replace(&mut *state, State::Closed);
        if let Err(error) = contain("closing it", || {
            drop(last);
            Ok(())
        }) {
            tracing::warn!(error = &error as &dyn std::error::Error, "catalog not closed");
        }
    }
}

impl Drop for RedbCatalog {
    /// Whoever did not close it lets go of it all the same; redb panics over a damaged page even then.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let last = std::mem::replace(state, State::Closed);
        if let Err(error) = contain("closing it", || {
            drop(last);
            Ok(())
        }) {
            tracing::warn!(error = &error as &dyn std::error::Error, "catalog not closed");
        }
    }
}

/// Notes at the end whether the next start is to compact. Measuring walks the whole catalog, which a start
/// after a crash has no time for.
fn mark(disk: &dyn Disk, path: &Path, database: &Database, commit: u64) -> Result<(), CatalogError> {
    if file_bytes(disk, path)? < COMPACT_BYTES_MIN {
        return Ok(());
    }
    let size = size_of(disk, path, database)?;
    if size.free * 2 <= size.bytes {
        return Ok(());
    }
    let mut mark = WriteSet::default();
    mark.set(Table::Meta, tables::META_COMPACT.to_vec(), Some(Vec::new()));
    write_all(database, &mark, commit, Durability::Strict)
}

/// Takes the mark away, if there is one.
fn take_mark(database: &Database, commits: &mut u64) -> Result<bool, CatalogError> {
    let reads = database.begin_read().map_err(|error| CatalogError::engine("reading", error))?;
    if RedbView(reads).get(Table::Meta, tables::META_COMPACT)?.is_none() {
        return Ok(false);
    }
    let mut taken = WriteSet::default();
    taken.set(Table::Meta, tables::META_COMPACT.to_vec(), None);
    write_all(database, &taken, *commits + 1, Durability::Strict)?;
    *commits += 1;
    Ok(true)
}

fn file_bytes(disk: &dyn Disk, path: &Path) -> Result<u64, CatalogError> {
    let bytes = disk.open(path, false).and_then(|file| file.len());
    bytes.map_err(|error| CatalogError::engine("measuring", error))
}

fn size_of(disk: &dyn Disk, path: &Path, database: &Database) -> Result<CatalogSize, CatalogError> {
    let failed = |error: redb::Error| CatalogError::engine("measuring", error);
    let transaction = database.begin_write().map_err(|error| failed(error.into()))?;
    let stats = transaction.stats().map_err(|error| failed(error.into()))?;
    transaction.abort().map_err(|error| failed(error.into()))?;
    let used = stats.allocated_pages() * stats.page_size() as u64;
    let bytes = file_bytes(disk, path)?;
    Ok(CatalogSize { bytes, free: bytes.saturating_sub(used) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    fn open(disk: &Arc<dyn Disk>) -> RedbCatalog {
        RedbCatalog::open(Arc::clone(disk), Path::new("catalog.redb"), 4 << 20).expect("the catalog opens")
    }

    #[test]
    fn keeps_the_catalog_promises() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        super::super::conformance::run(&open(&disk));
    }

    #[test]
    fn is_there_after_it_was_closed() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        let catalog = open(&disk);
        let mut writes = WriteSet::default();
        writes.set(Table::Meta, b"k".to_vec(), Some(b"v".to_vec()));
        catalog.apply(&writes, Durability::Strict).expect("commits");
        catalog.close();
        assert!(matches!(catalog.view().map(drop), Err(CatalogError::Closed)));
        let value = open(&disk).view().expect("opens").get(Table::Meta, b"k").expect("reads");
        assert_eq!(value, Some(b"v".to_vec()));
    }

    /// Makes a catalog what it was in the format before clusters knew each other.
    fn back_to_alone(disk: &Arc<dyn Disk>) {
        let file = disk.open(Path::new("catalog.redb"), true).expect("opens");
        let database = Builder::new().create_with_backend(FileBackend(file)).expect("opens");
        let transaction = database.begin_write().expect("begins");
        for table in upgrade::NEW {
            assert!(transaction.delete_table(definition(*table)).expect("deletes"));
        }
        for table in upgrade::LONGER {
            let mut rows = transaction.open_table(definition(*table)).expect("opens");
            let all: Vec<_> = rows
                .iter()
                .expect("reads")
                .map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).expect("reads"))
                .collect();
            for (key, value) in all {
                rows.insert(key.as_slice(), &value[..value.len() - 1]).expect("writes");
            }
        }
        let mut meta = transaction.open_table(definition(Table::Meta)).expect("opens");
        meta.insert(tables::META_FORMAT, upgrade::ALONE.to_be_bytes().as_slice()).expect("writes");
        drop(meta);
        transaction.commit().expect("commits");
    }

    #[test]
    fn a_catalog_of_the_format_before_is_brought_to_this_one_and_keeps_what_it_has() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        let catalog = open(&disk);
        let mut writes = WriteSet::default();
        writes.set(Table::Buckets, b"b".to_vec(), Some(b"bucket\0".to_vec()));
        writes.set(Table::Current, b"k".to_vec(), Some(b"v".to_vec()));
        catalog.apply(&writes, Durability::Strict).expect("commits");
        catalog.close();
        back_to_alone(&disk);
        // Twice: what was brought to this format is of this format.
        for _ in 0..2 {
            let catalog = open(&disk);
            let view = catalog.view().expect("opens");
            assert_eq!(view.get(Table::Buckets, b"b").expect("reads"), Some(b"bucket\0".to_vec()));
            assert_eq!(view.get(Table::Current, b"k").expect("reads"), Some(b"v".to_vec()));
            assert_eq!(view.get(Table::Links, b"b").expect("reads"), None);
            drop(view);
            catalog.close();
        }
    }

    #[test]
    fn a_catalog_without_one_of_its_tables_is_not_of_this_format() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        open(&disk).close();
        let file = disk.open(Path::new("catalog.redb"), true).expect("opens");
        let database = Builder::new().create_with_backend(FileBackend(file)).expect("opens");
        let transaction = database.begin_write().expect("begins");
        assert!(transaction.delete_table(definition(Table::Held)).expect("deletes"));
        transaction.commit().expect("commits");
        drop(database);
        let refused = RedbCatalog::open(disk, Path::new("catalog.redb"), 4 << 20).expect_err("it is refused");
        assert!(matches!(refused, CatalogError::MissingTable { table: "held-1" }));
    }
}
