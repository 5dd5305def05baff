//! Restores: a state of a bucket brought back, as one change, whatever its size.
//!
//! What is as it was already is not restored: that is found out before a number is spent, as far as a bounded look
//! can tell.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::home::{Home, bucket};
use super::layer::{Publication, settle};
use super::lens::{Effect, Layer, effect, layer_paths, resolve};
use super::request::{Actor, Restored};
use super::write::author;
use super::{Behalf, Master};
use crate::catalog::rows::{BucketRow, ChangeRow, LayerRow, LayerSource, Record};
use crate::catalog::{KeyRange, Rows, Table, keys};
use crate::error::{Error, Result};
use crate::types::{BucketAt, BucketId, BucketName, Number, ObjectPath, SnapshotRef};

/// What a bucket was found to be as it was at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alike {
    bucket: BucketId,
    /// The state that was to be brought back.
    source: Number,
    /// The newest number at the time.
    newest: Number,
}

impl Master {
    /// Brings a state of a bucket back below a prefix, as one change; spends no number where nothing differs.
    pub async fn restore(&self, actor: &Actor, source: &BucketAt, prefix: &[u8]) -> Result<Restored> {
        self.restore_for(Behalf::Own, actor, source, prefix).await
    }

    /// The same on behalf of a member, if it may.
    pub async fn restore_for(
        &self,
        behalf: Behalf,
        actor: &Actor,
        source: &BucketAt,
        prefix: &[u8],
    ) -> Result<Restored> {
        let Some(snapshot) = source.snapshot.clone() else {
            return Err(Error::InvalidRequest { reason: "name the snapshot to restore: BUCKET@SNAPSHOT".to_owned() });
        };
        let alike = self.find_alike(&source.bucket, &snapshot, prefix).await?;
        // Within the transaction only what came since is looked at.
        let (prefix, rows_max) = (prefix.to_vec(), self.limits.fold_rows_max);
        self.publish(&source.bucket, None, author(actor), move |home| {
            behalf.check(home.txn, home.id)?;
            publication(home, alike, &snapshot, &prefix, rows_max)
        })
        .await
    }

    /// Looks whether a bucket is what it was already; `None` if it is not, or too much would have to be looked at.
    pub(super) async fn find_alike(
        &self,
        name: &BucketName,
        snapshot: &SnapshotRef,
        prefix: &[u8],
    ) -> Result<Option<Alike>> {
        // Only what is folded can be compared.
        settle(self, name).await?;
        let (name, snapshot, prefix) = (name.clone(), snapshot.clone(), prefix.to_vec());
        let rows_max = self.limits.restore_rows_compared_max;
        self.writer
            .read(move |view| {
                let (id, row) = bucket(view, &name)?;
                let source = resolve(view, id, &row, &snapshot)?;
                let alike = row.open_layers == 0 && is_alike(view, id, &row, source, &prefix, rows_max)?;
                Ok(alike.then_some(Alike { bucket: id, source, newest: row.last }))
            })
            .await
    }
}

/// What a restore publishes: nothing if the bucket was found to be `alike`, and nothing happened below the prefix since.
pub(super) fn publication(
    home: &Home<'_, '_>,
    alike: Option<Alike>,
    snapshot: &SnapshotRef,
    prefix: &[u8],
    rows_max: usize,
) -> Result<Publication> {
    let number = resolve(home.txn, home.id, &home.row, snapshot)?;
    let still = match alike {
        Some(alike) if alike.bucket == home.id && alike.source == number => {
            let since = touched(home.txn, home.id, &home.row, alike.newest, prefix, rows_max)?;
            since.is_some_and(|paths| paths.is_empty())
        }
        _ => false,
    };
    let source = LayerSource::Snapshot { bucket: home.id, number, prefix: prefix.to_vec() };
    Ok(if still { Publication::Nothing } else { Publication::Layer(source) })
}

/// Whether a restore is known to change nothing.
fn is_alike(
    rows: &dyn Rows,
    id: BucketId,
    row: &BucketRow,
    source: Number,
    prefix: &[u8],
    rows_max: usize,
) -> Result<bool> {
    let snapshot = LayerSource::Snapshot { bucket: id, number: source, prefix: prefix.to_vec() };
    let layer = LayerRow { source: snapshot, time: row.last_time, actor: String::new(), next_ordinal: 1, folded: None };
    let layer = Layer { number: row.last, row: layer };
    let differs = |path: &ObjectPath| Ok(!matches!(effect(rows, id, &layer, path)?, Effect::None));
    // Few changes in a large bucket, or few keys with many changes: one of both is mostly the case.
    if let Some(paths) = touched(rows, id, row, source, prefix, rows_max)? {
        return none(paths.iter().map(differs));
    }
    let mut paths = layer_paths(rows, id, &layer, prefix, None)?;
    for _ in 0..rows_max {
        match paths.next()? {
            None => return Ok(true),
            Some(path) if differs(&path)? => return Ok(false),
            Some(_) => {}
        }
    }
    Ok(false)
}

fn none(mut answers: impl Iterator<Item = Result<bool>>) -> Result<bool> {
    // Stops at the first that is.
    Ok(answers.find(|answer| !matches!(answer, Ok(false))).transpose()?.is_none())
}

/// The paths below a prefix that were changed after a number; `None` if the log has more than `rows_max` rows from
/// there on, or does not go back as far.
fn touched(
    rows: &(impl Rows + ?Sized),
    id: BucketId,
    row: &BucketRow,
    after: Number,
    prefix: &[u8],
    rows_max: usize,
) -> Result<Option<BTreeSet<ObjectPath>>> {
    if after < row.floor {
        return Ok(None);
    }
    let range = KeyRange::prefix(&keys::bucket(id)).starting(Bound::Excluded(keys::change(id, after, u32::MAX)));
    let mut paths = BTreeSet::new();
    for (index, change) in rows.range(Table::Changes, range)?.enumerate() {
        if index == rows_max {
            return Ok(None);
        }
        let path = ChangeRow::decode(&change?.1)?.path;
        paths.extend(path.filter(|path| path.as_bytes().starts_with(prefix)));
    }
    Ok(Some(paths))
}
