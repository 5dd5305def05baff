//! What must hold of whatever a power failure left.

use std::collections::BTreeMap;

use federation::disk::SimulatedDisk;
use federation::error::{Error, Result};
use federation::master::{Description, ListItem, ListQuery, Master, Precondition, PutRequest, Which};
use federation::types::{BucketAt, SnapshotRef};

use super::super::store::{actor, at, content, findings, newest, path, read, staged};
use super::workload::{Acknowledged, Object, Run, State, open};

/// Opens the Master on a disk and compares it with the run, as of the disk's change `ops`. Returns after how many changes
/// to what was left the Master had recovered.
pub async fn verify(run: &Run, disk: &SimulatedDisk, ops: usize, seed: u64) -> Result<usize, String> {
    let outcome = look(run, disk, ops, seed).await;
    outcome.unwrap_or_else(|error| Err(format!("reading failed: {}", chain(&error))))
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

async fn look(run: &Run, disk: &SimulatedDisk, ops: usize, seed: u64) -> Result<Result<usize, String>> {
    let (master, _) = open(disk, seed).await?;
    let info = master.bucket(&run.bucket).await?;
    let (floor, last) = (info.floor.0, info.number.0);
    for (at, acknowledged) in run.acknowledged.iter().filter(|(at, _)| *at <= ops) {
        match acknowledged {
            Acknowledged::Number(number) if *number > last => {
                return Ok(Err(format!("number {number} was acknowledged at change {at}; the newest is {last}")));
            }
            Acknowledged::Tag(tag, number) => {
                let snapshot = BucketAt { bucket: run.bucket.clone(), snapshot: Some(SnapshotRef::Tag(tag.parse()?)) };
                let shown = state_of(&master, &snapshot).await?;
                if let Some(wrong) = differs(run, *number, &shown) {
                    return Ok(Err(format!("tag {tag}: {wrong}")));
                }
            }
            Acknowledged::Number(_) => {}
        }
    }
    // A number that was issued and not acknowledged may be there, but then it is what it was to be.
    for number in floor..=last {
        let shown = state_of(&master, &at(&run.bucket, number)).await?;
        if let Some(wrong) = differs(run, number, &shown) {
            return Ok(Err(wrong));
        }
    }
    let newest_state = state_of(&master, &newest(&run.bucket)).await?;
    if let Some(wrong) = differs(run, last, &newest_state) {
        return Ok(Err(format!("newest: {wrong}")));
    }
    master.settle(&run.bucket).await?;
    let found = findings(&master).await?;
    if !found.is_empty() {
        return Ok(Err(format!("check: {found:?}")));
    }
    let recovered = disk.ops();
    Ok(goes_on(run, &master, last).await?.map(|()| recovered))
}

/// The bucket goes on where it was: the next number is a new one.
async fn goes_on(run: &Run, master: &Master, last: u64) -> Result<Result<(), String>> {
    let content = content(3);
    let body = staged(master.blobs(), content).await;
    let (description, precondition) = (Description::default(), Precondition::default());
    let request = PutRequest { body, md5: content.md5, checksum: None, description, precondition };
    let written = master.put(&actor(), &run.bucket, &path(b"after"), request).await?;
    if written.number.0 != last + 1 {
        return Ok(Err(format!("the number after {last} is {}", written.number)));
    }
    let opened = master.get(&newest(&run.bucket), &path(b"after"), Which::Newest).await?;
    if read(opened).await? != content.bytes {
        return Ok(Err("what was written afterwards reads back wrong".to_owned()));
    }
    Ok(Ok(()))
}

/// What a state shows: each key's bytes and tag.
type Shown = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

async fn state_of(master: &Master, at: &BucketAt) -> Result<Shown> {
    let query = ListQuery { max: 1000, ..ListQuery::default() };
    let page = master.list(at, query).await?;
    let mut shown = Shown::new();
    for item in page.items {
        let ListItem::Object(path, summary) = item else { continue };
        let opened = master.get(at, &path, Which::Newest).await?;
        if opened.version.number != summary.version {
            return Err(Error::InvalidRequest { reason: format!("{path} is listed as another version than it reads") });
        }
        let bytes = read(opened).await?;
        let (_, tags) = master.tags(at, &path, Which::Newest).await?;
        let tag = tags.first().and_then(|(_, value)| value.parse().ok());
        shown.insert(path.as_bytes().to_vec(), (bytes, tag));
    }
    Ok(shown)
}

/// In what a state differs from what the run gave its number.
fn differs(run: &Run, number: u64, shown: &Shown) -> Option<String> {
    let Some(wanted): Option<&State> = run.states.get(number as usize) else {
        return Some(format!("number {number} was never issued"));
    };
    let bytes = |object: &Object| -> Vec<u8> {
        object.contents.iter().flat_map(|index| content(*index).bytes.iter().copied()).collect()
    };
    let names = |keys: Vec<&Vec<u8>>| keys.iter().map(|key| key.escape_ascii().to_string()).collect::<Vec<_>>();
    if !wanted.keys().eq(shown.keys()) {
        let (wanted, shown) = (names(wanted.keys().collect()), names(shown.keys().collect()));
        return Some(format!("number {number} shows {shown:?}, not {wanted:?}"));
    }
    for (key, object) in wanted {
        let (read, tag) = &shown[key];
        let key = key.escape_ascii();
        if *read != bytes(object) {
            return Some(format!("number {number}: {key} has {} other bytes", read.len()));
        }
        if *tag != object.tag {
            return Some(format!("number {number}: {key} has tag {tag:?}, not {:?}", object.tag));
        }
    }
    None
}
