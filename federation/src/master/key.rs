//! What happens to one key: versions are written, superseded, deleted, removed and uncovered.
//!
//! A key's past is a row of disjoint stretches of numbers. The live version stands in `current`; a version that was
//! superseded, and every delete marker, in `history` under the number since which it was the newest. Removing
//! the newest version uncovers the newest one that S3 still lists: it becomes current again *since* the number of
//! the removal, while its version number and its record in the log stay what they were.

use super::home::{Author, Home, Stamp};
use super::request::{Deleted, Versioning};
use crate::catalog::rows::{Change, CurrentRow, HistoryRow, NullRow, Record, Visibility};
use crate::catalog::{CatalogError, KeyRange, Rows, Table, keys};
use crate::error::{Result, VersionName};
use crate::types::{BucketId, ETag, Number, ObjectPath, ObjectRecord, Summary};

/// Where a version stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// It is the newest.
    Current(CurrentRow),
    /// It was superseded or is a delete marker; since when it was the newest.
    History(Number, HistoryRow),
}

impl Place {
    pub(super) fn summary(&self) -> &Summary {
        match self {
            Place::Current(row) => &row.summary,
            Place::History(_, row) => &row.summary,
        }
    }

    pub(super) fn since(&self) -> Number {
        match self {
            Place::Current(row) => row.since,
            Place::History(since, _) => *since,
        }
    }

    pub(super) fn is_marker(&self) -> bool {
        matches!(self, Place::History(_, row) if row.marker)
    }
}

/// What S3 calls the version of a summary.
pub(super) fn name_of(summary: &Summary) -> VersionName {
    if summary.null { VersionName::Null } else { VersionName::Number(summary.version) }
}

/// The live version.
pub(super) fn current(
    rows: &(impl Rows + ?Sized),
    bucket: BucketId,
    path: &ObjectPath,
) -> Result<Option<CurrentRow>, CatalogError> {
    CurrentRow::load(rows, &keys::object(bucket, path))
}

/// Rows of `history` by since.
pub(super) type HistoryRows<'a> = Box<dyn Iterator<Item = Result<(Number, HistoryRow), CatalogError>> + 'a>;

/// The key's rows of `history` that begin at `from` or before, newest first.
pub(super) fn history<'a>(
    rows: &'a (impl Rows + ?Sized),
    bucket: BucketId,
    path: &ObjectPath,
    from: Number,
) -> Result<HistoryRows<'a>, CatalogError> {
    let range = KeyRange::prefix(&keys::object(bucket, path))
        .starting(std::ops::Bound::Included(keys::history(bucket, path, from)));
    Ok(Box::new(rows.range(Table::History, range)?.map(|row| {
        let (key, value) = row?;
        Ok((since_of(&key)?, HistoryRow::decode(&value)?))
    })))
}

/// The number that a key of `history` ends with.
pub(super) fn since_of(key: &[u8]) -> Result<Number, CatalogError> {
    keys::split_object(key).and_then(|(_, tail)| keys::descending(tail)).ok_or_else(|| damaged_key(Table::History))
}

/// A key that does not read as its table's keys do.
pub(super) fn damaged_key(table: Table) -> CatalogError {
    CatalogError::DamagedRow { table: table.name(), source: "its key cannot be read".into() }
}

/// The version of a name as of `at` (`Number::MAX` for the newest state), if S3 shows it then.
pub(super) fn find(
    rows: &(impl Rows + ?Sized),
    bucket: BucketId,
    path: &ObjectPath,
    name: VersionName,
    at: Number,
) -> Result<Option<Place>, CatalogError> {
    let current = current(rows, bucket, path)?.filter(|row| row.since <= at);
    match name {
        VersionName::Null => {
            if let Some(row) = current.filter(|row| row.summary.null) {
                return Ok(Some(Place::Current(row)));
            }
            if at == Number::MAX {
                return find_newest_null(rows, bucket, path);
            }
            for row in history(rows, bucket, path, at)? {
                let (since, row) = row?;
                if row.summary.null && row.shown_at(at) {
                    return Ok(Some(Place::History(since, row)));
                }
            }
            Ok(None)
        }
        VersionName::Number(number) => {
            if let Some(row) = current.filter(|row| row.summary.version == number) {
                return Ok(Some(Place::Current(row)).filter(|_| !row.summary.null));
            }
            let Some((since, row)) = find_stretch(rows, bucket, path, number, at)? else { return Ok(None) };
            Ok(Some(Place::History(since, row)).filter(|_| row.shown_at(at) && !row.summary.null))
        }
    }
}

/// The `null` version where it is not the newest.
fn find_newest_null(
    rows: &(impl Rows + ?Sized),
    bucket: BucketId,
    path: &ObjectPath,
) -> Result<Option<Place>, CatalogError> {
    let Some(NullRow(since)) = NullRow::load(rows, &keys::object(bucket, path))? else { return Ok(None) };
    let row = HistoryRow::load(rows, &keys::history(bucket, path, since))?;
    Ok(row.filter(|row| row.visibility == Visibility::Shown).map(|row| Place::History(since, row)))
}

/// The stretch of history that stands for a version as of `at`.
fn find_stretch(
    rows: &(impl Rows + ?Sized),
    bucket: BucketId,
    path: &ObjectPath,
    number: Number,
    at: Number,
) -> Result<Option<(Number, HistoryRow)>, CatalogError> {
    // A version that was uncovered has moved to a later stretch; each row says to which.
    let mut since = number;
    while since <= at {
        let Some(row) = HistoryRow::load(rows, &keys::history(bucket, path, since))? else { break };
        if row.summary.version != number {
            break;
        }
        match row.visibility {
            Visibility::Moved(next) if next <= at => since = next,
            _ => return Ok(Some((since, row))),
        }
    }
    // The first stretches may have been collected: the newest that is left says what the version is.
    for row in history(rows, bucket, path, at)? {
        let (since, row) = row?;
        if since <= number {
            break;
        }
        if row.summary.version == number {
            return Ok(Some((since, row)));
        }
    }
    Ok(None)
}

impl Home<'_, '_> {
    /// Puts the live version into history: from `number` on it is superseded.
    fn retire(&mut self, path: &ObjectPath, row: CurrentRow, number: Number, visibility: Visibility) {
        self.row.objects = self.row.objects.saturating_sub(1);
        self.row.bytes = self.row.bytes.saturating_sub(row.summary.size);
        if visibility == Visibility::Shown {
            self.row.versions += 1;
        }
        let past = HistoryRow { summary: row.summary, marker: false, end: Some(number), visibility };
        self.txn.put(keys::history(self.id, path, row.since), &past);
    }

    /// Takes a row of history out of S3's listings from a number on.
    fn hide(&mut self, path: &ObjectPath, since: Number, mut row: HistoryRow, visibility: Visibility) {
        if row.visibility == Visibility::Shown {
            self.row.versions = self.row.versions.saturating_sub(1);
        }
        row.visibility = visibility;
        self.txn.put(keys::history(self.id, path, since), &row);
    }

    fn set_current(&mut self, path: &ObjectPath, since: Number, summary: Summary) {
        self.row.objects += 1;
        self.row.bytes += summary.size;
        self.txn.put(keys::object(self.id, path), &CurrentRow { since, summary });
    }

    /// Makes room for a new newest version: supersedes the live one, and where the new one is the `null`
    /// version, ends the `null` version that there was. Returns what it superseded and whose life it ended.
    fn supersede(&mut self, path: &ObjectPath, number: Number, null: bool) -> Result<(Option<Number>, Vec<Number>)> {
        let mut ended = Vec::new();
        let current = current(self.txn, self.id, path)?;
        if let Some(row) = current {
            let replaced = null && row.summary.null;
            let visibility = if replaced { Visibility::Gone(number) } else { Visibility::Shown };
            self.retire(path, row, number, visibility);
            if replaced {
                ended.push(row.since);
            } else if row.summary.null {
                self.txn.put(keys::object(self.id, path), &NullRow(row.since));
            }
        }
        if null && self.row.versioning != Versioning::Off {
            let key = keys::object(self.id, path);
            if let Some(NullRow(since)) = NullRow::load(self.txn, &key)? {
                if let Some(row) = HistoryRow::load(self.txn, &keys::history(self.id, path, since))? {
                    self.hide(path, since, row, Visibility::Gone(number));
                    ended.push(since);
                }
                self.txn.remove(Table::Nulls, key);
            }
        }
        Ok((current.map(|row| row.since), ended))
    }

    /// Writes a version.
    pub(super) fn put_version(
        &mut self,
        path: &ObjectPath,
        stamp: Stamp,
        author: &Author,
        record: ObjectRecord,
    ) -> Result<Summary> {
        let null = self.row.versioning != Versioning::Enabled;
        let (previous, ended) = self.supersede(path, stamp.number, null)?;
        let summary = Summary {
            version: stamp.number,
            ordinal: stamp.ordinal,
            null,
            size: record.size,
            modified: record.modified,
            etag: record.etag,
            checksum: record.checksum.as_ref().map(|checksum| (checksum.algorithm, checksum.kind)),
        };
        self.set_current(path, stamp.number, summary);
        self.log(stamp, author, Some(path), Change::Put(record), previous, ended);
        Ok(summary)
    }

    /// Deletes a key. Where S3 versioning is off and there is nothing to delete, nothing changes.
    pub(super) fn delete_key(
        &mut self,
        path: &ObjectPath,
        stamp: impl FnOnce(&mut Self) -> Stamp,
        author: &Author,
    ) -> Result<Deleted> {
        let versioning = self.row.versioning;
        if versioning == Versioning::Off {
            if current(self.txn, self.id, path)?.is_none() {
                return Ok(Deleted { number: self.row.last, name: None, marker: false });
            }
            let stamp = stamp(self);
            let (previous, ended) = self.supersede(path, stamp.number, true)?;
            self.txn.remove(Table::Current, keys::object(self.id, path));
            self.log(stamp, author, Some(path), Change::Delete, previous, ended);
            return Ok(Deleted { number: stamp.number, name: None, marker: false });
        }
        let stamp = stamp(self);
        let null = versioning == Versioning::Suspended;
        let (previous, ended) = self.supersede(path, stamp.number, null)?;
        self.txn.remove(Table::Current, keys::object(self.id, path));
        let summary = Summary {
            version: stamp.number,
            ordinal: stamp.ordinal,
            null,
            size: 0,
            modified: stamp.time.wall,
            etag: ETag { md5: [0; 16], parts: None },
            checksum: None,
        };
        let marker = HistoryRow { summary, marker: true, end: None, visibility: Visibility::Shown };
        self.row.versions += 1;
        self.txn.put(keys::history(self.id, path, stamp.number), &marker);
        if null {
            self.txn.put(keys::object(self.id, path), &NullRow(stamp.number));
        }
        self.log(stamp, author, Some(path), Change::Marker { null }, previous, ended);
        Ok(Deleted { number: stamp.number, name: Some(name_of(&summary)), marker: true })
    }

    /// Removes a version for good, as far as S3 can see; snapshots keep it until the floor passes.
    pub(super) fn remove_version(
        &mut self,
        path: &ObjectPath,
        name: VersionName,
        wall: crate::types::Timestamp,
        author: &Author,
    ) -> Result<Deleted> {
        let Some(place) = find(self.txn, self.id, path, name, Number::MAX)? else {
            return Ok(Deleted { number: self.row.last, name: Some(name), marker: false });
        };
        let stamp = self.issue(wall);
        let number = stamp.number;
        let summary = *place.summary();
        let mut ended = vec![place.since()];
        let was_newest = match place {
            Place::Current(row) => {
                self.retire(path, row, number, Visibility::Gone(number));
                self.txn.remove(Table::Current, keys::object(self.id, path));
                true
            }
            Place::History(since, row) => {
                self.hide(path, since, row, Visibility::Gone(number));
                current(self.txn, self.id, path)?.is_none()
            }
        };
        if summary.null {
            self.txn.remove(Table::Nulls, keys::object(self.id, path));
        }
        if was_newest && let Some(uncovered) = self.uncover(path, number)? {
            ended.push(uncovered);
        }
        let change = Change::RemoveVersion { version: summary.version, null: summary.null };
        self.log(stamp, author, Some(path), change, Some(place.since()), ended);
        Ok(Deleted { number, name: Some(name), marker: place.is_marker() })
    }

    /// Makes the newest version that S3 lists current again, unless it is a delete marker. Returns the row
    /// that no longer stands for it.
    fn uncover(&mut self, path: &ObjectPath, number: Number) -> Result<Option<Number>> {
        // Without versioning nothing that was superseded is listed.
        if self.row.versioning == Versioning::Off {
            return Ok(None);
        }
        let mut newest = None;
        for row in history(self.txn, self.id, path, Number::MAX)? {
            let (since, row) = row?;
            if row.visibility == Visibility::Shown {
                newest = Some((since, row));
                break;
            }
        }
        let Some((since, row)) = newest.filter(|(_, row)| !row.marker) else { return Ok(None) };
        self.hide(path, since, row, Visibility::Moved(number));
        self.set_current(path, number, row.summary);
        if row.summary.null {
            self.txn.remove(Table::Nulls, keys::object(self.id, path));
        }
        Ok(Some(since))
    }
}
