//! What the bodies that several clusters know of come to, in one look over a bounded number of rows.

use std::collections::{BTreeMap, HashSet};

use super::{CacheUsage, Master, partial};
use crate::catalog::rows::{BodyRow, Record};
use crate::catalog::{KeyRange, Table, View, keys};
use crate::error::Result;
use crate::types::{BucketId, MemberId};

/// How many rows of each table are looked at; beyond, the census says that it is not complete.
const ROWS_MAX: usize = 1_000_000;

/// Some bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub bodies: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.bodies += 1;
        self.bytes += bytes;
    }
}

/// Bodies of which there is one whole copy at the most, as far as their home knows.
///
/// Counted are the bodies that members wrote to a bucket of this cluster and that a record of it still has. A copy is one
/// here, or one at a peer that said that it has it; nobody proves that. Parts of a copy, and what was written here, do not
/// count: of that others may have copies, but this cluster has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SingleCopies {
    /// One other cluster has them, this one does not.
    pub elsewhere: Amount,
    /// This cluster has them and nobody else.
    pub here: Amount,
    /// Nobody who is still a peer has them.
    pub nowhere: Amount,
}

/// What the rows of shared bodies come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// What was fetched from others, or is read by them.
    pub cache: CacheUsage,
    /// By bucket; those of which every body has several copies are left out.
    pub single: BTreeMap<BucketId, SingleCopies>,
    /// Rows that keep what other clusters said of keys and versions.
    pub known_rows: u64,
    /// Whether all rows were looked at.
    pub complete: bool,
}

impl Master {
    /// Counts. `peers` are those whose copies can be asked for.
    pub async fn census(&self, peers: HashSet<MemberId>) -> Result<Census> {
        self.writer.read(move |view| census(view, &peers)).await
    }
}

fn census(view: &dyn View, peers: &HashSet<MemberId>) -> Result<Census> {
    let mut census = Census { complete: true, ..Census::default() };
    let links = view.range(Table::Links, KeyRange::prefix(&[]))?;
    let links: HashSet<Vec<u8>> = links.map(|row| row.map(|(key, _)| key)).collect::<Result<_, _>>()?;
    for (count, row) in view.range(Table::Bodies, KeyRange::prefix(&[]))?.enumerate() {
        if count == ROWS_MAX {
            census.complete = false;
            break;
        }
        let (key, value) = row?;
        let Some((bucket, _)) = keys::split_body(&key) else { continue };
        let row = BodyRow::decode(&value)?;
        census.cache.count(&row);
        if row.references > 0 && !links.contains(&keys::bucket(bucket)) {
            count_copies(&mut census.single, bucket, &row, peers);
        }
    }
    for (_, space, _) in partial::all(view)? {
        (census.cache.copies, census.cache.bytes) = (census.cache.copies + 1, census.cache.bytes + space);
    }
    for table in [Table::Facts, Table::Versions] {
        let mut rows = view.range(table, KeyRange::prefix(&[]))?;
        let counted = rows.by_ref().take(ROWS_MAX).try_fold(0, |sum, row| row.map(|_| sum + 1))?;
        census.known_rows += counted;
        census.complete &= rows.next().is_none();
    }
    Ok(census)
}

fn count_copies(
    single: &mut BTreeMap<BucketId, SingleCopies>,
    bucket: BucketId,
    row: &BodyRow,
    peers: &HashSet<MemberId>,
) {
    let others = row.holders.iter().filter(|holder| peers.contains(holder)).count();
    let counted = match (row.copy.is_some(), others) {
        (false, 1) => |copies: &mut SingleCopies, bytes| copies.elsewhere.add(bytes),
        (true, 0) => |copies: &mut SingleCopies, bytes| copies.here.add(bytes),
        (false, 0) => |copies: &mut SingleCopies, bytes| copies.nowhere.add(bytes),
        _ => return,
    };
    counted(single.entry(bucket).or_default(), row.length);
}
