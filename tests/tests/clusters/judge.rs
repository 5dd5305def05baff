//! What must hold of what clients did and heard, whatever went wrong around them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use federation::master::LogChange;

use super::super::store;
use super::client::{BOUND, KEYS, etag_of};
use super::history::{Asked, Heard, Notes, Operation, is_linearizable};
use super::world::{World, bucket};

/// The largest error of the clusters' wall clocks against each other does not matter to a bound; this is what reads take.
const SLACK: Duration = Duration::from_millis(1);

/// Judges a run: no client saw what one register per key could not have shown, and every cluster is sound.
pub fn judge(world: &mut World, notes: &Notes, clusters: usize) -> Result<(), String> {
    for index in 0..KEYS {
        let of_key: Vec<Operation> =
            notes.operations.iter().filter(|operation| operation.key == index).cloned().collect();
        if !is_linearizable(&of_key) {
            let lines: Vec<String> = of_key.iter().map(|operation| format!("{operation:?}")).collect();
            return Err(format!("no register behaves so:\n{}", lines.join("\n")));
        }
    }
    numbers_are_unique(world, notes)?;
    bounded_reads_are_fresh(notes)?;
    for index in 0..clusters {
        let found = world.at(index, async |cluster| store::findings(cluster.master()).await)?;
        let found = found.map_err(|error| error.to_string())?;
        if !found.is_empty() {
            return Err(format!("check of cluster {index} finds {found:?}"));
        }
    }
    Ok(())
}

/// Every acknowledged write is in the home's log once, under its number; every other one at most once.
fn numbers_are_unique(world: &mut World, notes: &Notes) -> Result<(), String> {
    let page = world.at(0, async |home| home.log(&bucket(), None, 10_000).await)?.map_err(|error| error.to_string())?;
    let mut logged: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut numbers = BTreeSet::new();
    for entry in &page.items {
        if !numbers.insert(entry.number) {
            return Err(format!("number {} is in the log twice", entry.number));
        }
        if let LogChange::Put { etag, .. } = &entry.what {
            logged.entry(etag.to_string()).or_default().push(entry.number.0);
        }
    }
    for operation in &notes.operations {
        let (Asked::Put(value) | Asked::PutNew(value) | Asked::PutOver(_, value)) = operation.asked else { continue };
        let found = logged.get(&etag_of(value)).cloned().unwrap_or_default();
        let lawful = match &operation.heard {
            Heard::Done(number) => found == [*number],
            Heard::Refused => found.is_empty(),
            _ => found.len() <= 1,
        };
        if !lawful {
            return Err(format!("{operation:?} is in the log under {found:?}"));
        }
    }
    Ok(())
}

/// A bounded read never misses what was acknowledged longer ago than the bound.
fn bounded_reads_are_fresh(notes: &Notes) -> Result<(), String> {
    for read in &notes.bounded {
        let writes =
            notes.operations.iter().filter(|operation| operation.key == read.key && operation.asked != Asked::Get);
        let latest = |until: Duration| {
            let acknowledged = writes.clone().filter_map(|write| match write.heard {
                Heard::Done(number) if write.to <= until => Some((number, write)),
                _ => None,
            });
            acknowledged.max_by_key(|(number, _)| *number)
        };
        let Some((floor, _)) = latest(read.from.saturating_sub(BOUND + SLACK)) else { continue };
        let Some(found) = read.found else {
            // A delete hides it, unless nothing was deleted at all since.
            let deleted = writes.clone().any(|write| match write.heard {
                Heard::Done(number) => write.asked == Asked::Delete && number >= floor,
                Heard::Unknown => write.asked == Asked::Delete,
                _ => false,
            });
            if deleted {
                continue;
            }
            return Err(format!("{read:?} misses number {floor}"));
        };
        let number_of = writes.clone().find_map(|write| match (&write.asked, &write.heard) {
            (Asked::Put(value) | Asked::PutNew(value) | Asked::PutOver(_, value), Heard::Done(number))
                if *value == found =>
            {
                Some(*number)
            }
            _ => None,
        });
        if number_of.is_some_and(|number| number < floor) {
            return Err(format!("{read:?} is older than number {floor}"));
        }
    }
    Ok(())
}
