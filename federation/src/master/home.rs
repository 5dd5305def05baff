//! A bucket at its home, inside a transaction: where numbers are issued and changes recorded.

use crate::catalog::rows::{BucketRow, Change, ChangeRow, LinkRow, NameRow, Record};
use crate::catalog::{Rows, Transaction, keys};
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};
use crate::types::{BucketId, BucketName, ChangeTime, MemberId, Number, ObjectPath, Timestamp};

/// The id and row of a bucket that exists.
///
/// What is read or changed of it here is what is kept here: of a bucket that another cluster numbers, its uploads.
pub(super) fn bucket(rows: &(impl Rows + ?Sized), name: &BucketName) -> Result<(BucketId, BucketRow)> {
    let missing = || Error::NoSuchBucket { bucket: name.clone() };
    let id = NameRow::load(rows, &keys::name(name))?.and_then(|row| row.bucket).ok_or_else(missing)?;
    let row = BucketRow::load(rows, &keys::bucket(id))?.ok_or_else(missing)?;
    Ok((id, row))
}

/// The id and row of a bucket that this cluster numbers.
pub(super) fn numbered(rows: &(impl Rows + ?Sized), name: &BucketName) -> Result<(BucketId, BucketRow)> {
    let (id, row) = bucket(rows, name)?;
    if row.linked {
        let link = LinkRow::load(rows, &keys::bucket(id))?;
        let home = link.map(|link| link.home.to_string()).unwrap_or_default();
        return Err(Error::NotHome { bucket: name.clone(), home });
    }
    Ok((id, row))
}

/// A change's number, its place under that number, and its times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) number: Number,
    pub(super) ordinal: u32,
    pub(super) time: ChangeTime,
}

/// Who makes a change.
#[derive(Clone, Debug)]
pub(super) struct Author {
    pub(super) actor: String,
    /// The member it came from, and its counter.
    pub(super) origin: Option<(MemberId, u64)>,
}

/// A bucket inside a transaction. What is changed of its row is written by [`Home::save`].
pub(super) struct Home<'t, 'v> {
    pub(super) txn: &'t mut Transaction<'v>,
    pub(super) id: BucketId,
    pub(super) row: BucketRow,
}

impl<'t, 'v> Home<'t, 'v> {
    /// Opens a bucket by its name.
    pub(super) fn open(txn: &'t mut Transaction<'v>, name: &BucketName) -> Result<Self> {
        let (id, row) = numbered(txn, name)?;
        Ok(Home { txn, id, row })
    }

    /// Opens a bucket by its name for what is kept of it here, whoever numbers it: its uploads.
    pub(super) fn open_any(txn: &'t mut Transaction<'v>, name: &BucketName) -> Result<Self> {
        let (id, row) = bucket(txn, name)?;
        Ok(Home { txn, id, row })
    }

    /// Opens a bucket by its id; `None` if it is gone.
    pub(super) fn open_id(txn: &'t mut Transaction<'v>, id: BucketId) -> Result<Option<Self>> {
        let row = BucketRow::load(txn, &keys::bucket(id))?;
        Ok(row.map(|row| Home { txn, id, row }))
    }

    /// Issues the next number.
    pub(super) fn issue(&mut self, wall: Timestamp) -> Stamp {
        let number = if mutant::on(Mutant::RepeatNumber) && self.row.last.0 % 3 == 2 {
            self.row.last
        } else {
            self.row.last.next()
        };
        let time = ChangeTime { wall, sequence: self.row.last_time.sequence.max(wall) };
        self.row.last = number;
        self.row.last_time = time;
        Stamp { number, ordinal: 0, time }
    }

    /// Records a change in the log.
    pub(super) fn log(
        &mut self,
        stamp: Stamp,
        author: &Author,
        path: Option<&ObjectPath>,
        change: Change,
        previous: Option<Number>,
        ended: Vec<Number>,
    ) {
        let row = ChangeRow {
            time: stamp.time,
            actor: author.actor.clone(),
            origin: author.origin,
            previous,
            ended,
            path: path.cloned(),
            change,
        };
        self.txn.put(keys::change(self.id, stamp.number, stamp.ordinal), &row);
    }

    /// Writes the bucket's row.
    pub(super) fn save(&mut self) {
        self.txn.put(keys::bucket(self.id), &self.row);
    }
}
