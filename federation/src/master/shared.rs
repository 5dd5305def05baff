//! Bodies that more than one cluster knows of.
//!
//! A version that was written in another cluster names its bodies by their content ([`Piece::Shared`]), and so does every
//! version of a linked bucket. The row of (bucket, content) says whether there is a copy here and who else has one. A
//! copy that one bucket has is never another's: what one bucket holds does not show in another's answers.

use super::body::{self, Adopted, adopt};
use super::partial;
use crate::blobs::Stored;
use crate::catalog::rows::{BodyRow, Copy, Record, SlotOwner};
use crate::catalog::{Rows, Table, Transaction, keys};
use crate::error::{Error, Result};
use crate::types::{BlobHash, BucketId, FileId, MemberId, Piece, Timestamp};

/// What is known of a shared body.
pub(super) fn body_row(rows: &(impl Rows + ?Sized), bucket: BucketId, hash: BlobHash) -> Result<Option<BodyRow>> {
    Ok(BodyRow::load(rows, &keys::body(bucket, hash))?)
}

/// Where the copy here is, as a record of this cluster would name it.
pub(super) fn here(rows: &(impl Rows + ?Sized), bucket: BucketId, hash: BlobHash) -> Result<Option<Piece>> {
    let row = body_row(rows, bucket, hash)?;
    Ok(row.and_then(|row| row.copy.map(|copy| piece_of(hash, row.length, copy))))
}

fn piece_of(hash: BlobHash, length: u64, copy: Copy) -> Piece {
    match copy {
        Copy::Slot(slot) => Piece::Slot(slot),
        Copy::Blob => Piece::Blob { hash, length },
    }
}

fn load_or_new(txn: &Transaction<'_>, bucket: BucketId, hash: BlobHash, length: u64) -> Result<BodyRow> {
    let new = || BodyRow { length, references: 0, copy: None, own: false, holders: Vec::new(), used: Timestamp(0) };
    Ok(body_row(txn, bucket, hash)?.unwrap_or_else(new))
}

/// Counts one more record that refers to a shared body. A content has one length: who states another has it not.
pub(super) fn refer(txn: &mut Transaction<'_>, bucket: BucketId, hash: BlobHash, length: u64) -> Result<()> {
    let mut row = load_or_new(txn, bucket, hash, length)?;
    if row.length != length {
        return Err(Error::InvalidRequest { reason: format!("body {hash} has {} bytes, not {length}", row.length) });
    }
    row.references += 1;
    txn.put(keys::body(bucket, hash), &row);
    Ok(())
}

/// Counts one record less; after the last one the copy here goes.
pub(super) fn unrefer(txn: &mut Transaction<'_>, bucket: BucketId, hash: BlobHash) -> Result<()> {
    let Some(mut row) = body_row(txn, bucket, hash)? else { return Ok(()) };
    row.references = row.references.saturating_sub(1);
    if row.references == 0 {
        return forget(txn, bucket, hash, &row);
    }
    txn.put(keys::body(bucket, hash), &row);
    Ok(())
}

/// Notes that a member has a body.
pub(super) fn add_holder(txn: &mut Transaction<'_>, bucket: BucketId, piece: &Piece, member: MemberId) -> Result<()> {
    let mut row = load_or_new(txn, bucket, piece.hash(), piece.length())?;
    if !row.holders.contains(&member) {
        row.holders.push(member);
        txn.put(keys::body(bucket, piece.hash()), &row);
    }
    Ok(())
}

/// Takes a body that was brought from elsewhere as the copy here, unless there is one; `damaged` is a file of its
/// content that is not what it was.
pub(super) fn keep_copy(
    txn: &mut Transaction<'_>,
    bucket: BucketId,
    stored: &Stored,
    now: Timestamp,
    damaged: Option<FileId>,
) -> Result<Adopted> {
    keep(txn, bucket, stored, now, damaged, |_| ())
}

/// Takes a body that was written here: one more version has it, and others read it from here.
pub(super) fn keep_own(
    txn: &mut Transaction<'_>,
    bucket: BucketId,
    stored: &Stored,
    now: Timestamp,
    damaged: Option<FileId>,
) -> Result<Adopted> {
    keep(txn, bucket, stored, now, damaged, |row| {
        row.own = true;
        row.references += 1;
    })
}

fn keep(
    txn: &mut Transaction<'_>,
    bucket: BucketId,
    stored: &Stored,
    now: Timestamp,
    damaged: Option<FileId>,
    change: impl FnOnce(&mut BodyRow),
) -> Result<Adopted> {
    let Some(piece) = stored.piece() else { return Ok(Adopted::Taken) };
    let (hash, length) = (piece.hash(), piece.length());
    let mut row = load_or_new(txn, bucket, hash, length)?;
    change(&mut row);
    row.used = now;
    // Of all that is said of its length this was measured.
    row.length = length;
    let adopted = match stored {
        Stored::Blob(blob) => adopt(txn, blob, damaged)?,
        // A slot that nobody takes over is dead space.
        Stored::Slot(_) | Stored::Empty => Adopted::Taken,
    };
    match (row.copy, piece) {
        (Some(_), _) | (None, Piece::Shared { .. }) => {}
        (None, Piece::Slot(slot)) => {
            let owner = SlotOwner::Shared { bucket, hash, length: slot.length };
            txn.put(keys::slot(slot.segment, slot.offset), &owner);
            row.copy = Some(Copy::Slot(slot));
        }
        (None, Piece::Blob { .. }) => {
            body::claim_blob(txn, bucket, hash)?;
            row.copy = Some(Copy::Blob);
        }
    }
    txn.put(keys::body(bucket, hash), &row);
    Ok(adopted)
}

/// Lets go of the copy here; what is known of the body stays as long as a record refers to it.
pub(super) fn drop_copy(txn: &mut Transaction<'_>, bucket: BucketId, hash: BlobHash, mut row: BodyRow) -> Result<()> {
    if row.references == 0 {
        return forget(txn, bucket, hash, &row);
    }
    if let Some(copy) = row.copy.take() {
        body::release(txn, bucket, &piece_of(hash, row.length, copy))?;
    }
    txn.put(keys::body(bucket, hash), &row);
    Ok(())
}

/// Lets go of the copy here, if there is one or parts of one, and of what is known of the body.
pub(super) fn forget(txn: &mut Transaction<'_>, bucket: BucketId, hash: BlobHash, row: &BodyRow) -> Result<()> {
    partial::give_up(txn, bucket, hash)?;
    if let Some(copy) = row.copy {
        body::release(txn, bucket, &piece_of(hash, row.length, copy))?;
    }
    txn.remove(Table::Bodies, keys::body(bucket, hash));
    Ok(())
}
