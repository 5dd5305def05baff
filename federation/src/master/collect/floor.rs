//! Which numbers end, and by which clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::Master;
use super::super::home::Home;
use super::super::lens::number_at;
use super::bucket_row;
use crate::catalog::rows::{BucketRow, ChangeRow, PinRow, Record};
use crate::catalog::{KeyRange, Rows, Table, keys, tables};
use crate::error::Result;
use crate::types::{BucketId, Number, Timestamp};

/// How far the wall clock may move against the time since boot between two passes.
const CLOCK_DRIFT_MAX: Duration = Duration::from_secs(60);

/// How many numbers a pass looks at one by one where the clock was ahead.
const NUMBERS_LOOKED_AT_MAX: u64 = 20_000;

/// The clocks as of the last pass.
#[derive(Serialize, Deserialize)]
struct Clocks {
    wall: Timestamp,
    boottime: Duration,
}

impl Master {
    /// Compares how far both clocks went since the last pass; says so if they disagree.
    pub(super) async fn compare_clocks(&self) -> Result<Option<String>> {
        let now = Clocks { wall: self.clock.wall(), boottime: self.clock.boottime() };
        self.writer
            .transact(move |txn| {
                let key = tables::META_COLLECTED;
                let last = txn.get(Table::Meta, key)?.and_then(|bytes| postcard::from_bytes::<Clocks>(&bytes).ok());
                let value = postcard::to_stdvec(&now).expect("clocks are plain data, which postcard can always write");
                txn.put_raw(Table::Meta, key.to_vec(), value);
                Ok(last.and_then(|last| disagreement(&last, &now)))
            })
            .await
    }

    /// The floor that a bucket's rule asks for.
    pub(super) async fn target_floor(&self, id: BucketId, now: bool) -> Result<Number> {
        let wall = self.clock.wall();
        let keep = self.limits.keep_default;
        self.writer
            .read(move |view| match bucket_row(view, id)? {
                Some(row) => target(view, id, &row, wall, keep, now),
                None => Ok(Number::ZERO),
            })
            .await
    }

    /// How many numbers would end.
    pub(super) async fn ending(&self, id: BucketId, now: bool) -> Result<u64> {
        let target = self.target_floor(id, now).await?;
        self.writer
            .read(move |view| Ok(bucket_row(view, id)?.map_or(0, |row| target.0.saturating_sub(row.floor.0))))
            .await
    }

    /// Raises a bucket's floor by its rule. It is durable on return. Says how many numbers ended.
    pub(super) async fn raise_floor(&self, id: BucketId, now: bool) -> Result<u64> {
        let (wall, keep) = (self.clock.wall(), self.limits.keep_default);
        self.writer
            .transact(move |txn| {
                let Some(mut home) = Home::open_id(txn, id)? else { return Ok(0) };
                // A layer that was opened meanwhile is above every floor until it is folded.
                if home.row.open_layers > 0 {
                    return Ok(0);
                }
                let target = target(home.txn, id, &home.row, wall, keep, now)?;
                let ended = target.0.saturating_sub(home.row.floor.0);
                if ended > 0 {
                    let change = ChangeRow::load(home.txn, &keys::change(id, target, 0))?;
                    home.row.floor_time = change.map_or(home.row.last_time, |change| change.time);
                    home.row.floor = target;
                    home.save();
                }
                Ok(ended)
            })
            .await
    }

    /// Removes pins that nobody renewed.
    pub(super) async fn expire_pins(&self, id: BucketId) -> Result<()> {
        let wall = self.clock.wall();
        self.writer
            .transact(move |txn| {
                let Some(mut home) = Home::open_id(txn, id)? else { return Ok(()) };
                let mut expired = Vec::new();
                for row in home.txn.range(Table::Pins, KeyRange::prefix(&keys::bucket(id)))? {
                    let (key, value) = row?;
                    if PinRow::decode(&value)?.expires.is_some_and(|expires| expires <= wall) {
                        expired.push(key);
                    }
                }
                if !expired.is_empty() {
                    expired.into_iter().for_each(|key| home.txn.remove(Table::Pins, key));
                    home.row.released = true;
                    home.save();
                }
                Ok(())
            })
            .await
    }
}

fn target(
    rows: &(impl Rows + ?Sized),
    id: BucketId,
    row: &BucketRow,
    wall: Timestamp,
    keep: Duration,
    now: bool,
) -> Result<Number> {
    if now {
        return Ok(row.last);
    }
    let limit = wall.minus(row.keep_seconds.map_or(keep, Duration::from_secs));
    if row.last_time.sequence > wall {
        // The clock was ahead once: since then sequence times stand still, and only wall times tell ages.
        return target_by_wall(rows, id, row, wall, limit);
    }
    if limit < row.floor_time.sequence {
        return Ok(row.floor);
    }
    number_at(rows, id, row, limit)
}

/// The newest number from the floor on up to which every number is older than `limit` or was issued ahead of time.
fn target_by_wall(
    rows: &(impl Rows + ?Sized),
    id: BucketId,
    row: &BucketRow,
    wall: Timestamp,
    limit: Timestamp,
) -> Result<Number> {
    let mut target = row.floor;
    let last = row.last.0.min(row.floor.0.saturating_add(NUMBERS_LOOKED_AT_MAX));
    for number in (row.floor.0 + 1..=last).map(Number) {
        match ChangeRow::load(rows, &keys::change(id, number, 0))?.map(|change| change.time.wall) {
            Some(issued) if issued <= limit => target = number,
            Some(issued) if issued <= wall => break,
            _ => {}
        }
    }
    Ok(target)
}

fn disagreement(last: &Clocks, now: &Clocks) -> Option<String> {
    // After a reboot the time since boot says nothing but that the wall clock must not be behind.
    let ran = now.boottime.checked_sub(last.boottime);
    let expected = last.wall.plus(ran.unwrap_or_default());
    let behind = now.wall.until(expected);
    let ahead = expected.until(now.wall);
    let moved = if ran.is_some() { behind.max(ahead) } else { behind };
    (moved > CLOCK_DRIFT_MAX).then(|| {
        format!(
            "the wall clock moved by {} s against the time since boot since the last pass; no floor was raised. \
             If the clock is right now, the next pass goes on",
            moved.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(wall: u64, boottime: u64) -> Clocks {
        Clocks { wall: Timestamp(wall * 1000), boottime: Duration::from_secs(boottime) }
    }

    #[test]
    fn a_jump_of_the_wall_clock_is_noticed_either_way() {
        let last = clocks(1_000_000, 500);
        assert_eq!(disagreement(&last, &clocks(1_000_600, 1_100)), None);
        assert!(disagreement(&last, &clocks(1_086_400, 1_100)).is_some());
        assert!(disagreement(&last, &clocks(990_000, 1_100)).is_some());
        assert_eq!(disagreement(&last, &clocks(1_086_400, 10)), None, "a machine that was off for a day");
        assert!(disagreement(&last, &clocks(900_000, 10)).is_some());
    }
}
