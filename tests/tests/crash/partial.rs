//! Bodies of which only parts came: whatever the power failure, no group is said to be here that is not, and none is
//! forgotten that was kept.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use federation::blobs::{Digest, GROUP_BYTES};
use federation::disk::{CrashPlan, Disk, SimulatedDisk, seeded};
use federation::master::{Master, PartialCopy, Wanted};
use federation::types::{BucketId, Number};

use super::super::store::{parameter, path, seed};
use super::{STATES, open_inline, runtime};

/// To how many crash states of whole workloads there is one of these.
const STATES_PER_STATE: u64 = 25;
const STATES_PER_BODY: u64 = 50;
const GROUP: u64 = GROUP_BYTES as u64;

/// A body that is somewhere else.
struct Elsewhere {
    bytes: Bytes,
    digest: Digest,
}

impl Elsewhere {
    fn new(random: &mut dyn FnMut() -> u64) -> Elsewhere {
        let length = GROUP * (2 + random() % 40) + 1 + random() % GROUP;
        // No sector is all zeros: a hole is never mistaken for content.
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ (at >> 16) as u8 | 1).collect();
        Elsewhere { digest: Digest::of(&bytes), bytes: bytes.into() }
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            bucket: BucketId([7; 16]),
            path: path(b"large"),
            number: Number(3),
            ordinal: 0,
            hash: self.digest.hash,
            length: self.digest.length,
            holders: Vec::new(),
            relayed: false,
        }
    }

    async fn open(&self, master: &Master) -> Result<Arc<PartialCopy>, String> {
        let tree = self.digest.outboard.as_bytes().clone();
        master.partial(&self.wanted(), async { Ok(tree) }).await.map_err(|error| error.to_string())
    }

    fn group(&self, group: u64) -> Range<u64> {
        group * GROUP..self.digest.length.min((group + 1) * GROUP)
    }

    fn groups(&self) -> Range<u64> {
        0..self.digest.length.div_ceil(GROUP)
    }

    fn part(&self, range: &Range<u64>) -> Bytes {
        self.bytes.slice(range.start as usize..range.end as usize)
    }

    fn here(&self, copy: &PartialCopy) -> BTreeSet<u64> {
        self.groups().filter(|group| copy.body.has(&self.group(*group))).collect()
    }
}

/// What was kept when: how many operations the disk had made, and which groups were there.
type Kept = Vec<(usize, BTreeSet<u64>)>;

/// Parts come in any order; what came is kept now and then, and sometimes the process starts anew.
async fn arrive(body: &Elsewhere, disk: &SimulatedDisk, random: &mut dyn FnMut() -> u64) -> Result<Kept, String> {
    let said = |error: federation::error::Error| error.to_string();
    let mut master = open_inline(disk, 1).await.map_err(said)?;
    // How a data directory begins, other tests try.
    disk.forget_ops();
    let mut copy = body.open(&master).await?;
    let mut kept = Vec::new();
    for _ in 0..12 + random() % 12 {
        match random() % 8 {
            0 => {
                drop(copy);
                master.close().await;
                master = open_inline(disk, 2).await.map_err(said)?;
                copy = body.open(&master).await?;
            }
            1 | 2 => {
                let here = body.here(&copy);
                master.keep_partial(&copy).await.map_err(said)?;
                kept.push((disk.ops(), here));
            }
            _ => {
                let first = random() % body.groups().end;
                let last = (first + 1 + random() % 4).min(body.groups().end);
                let range = body.group(first).start..body.group(last - 1).end;
                let added = copy.body.add(range.start, body.part(&range)).await;
                added.map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(kept)
}

async fn compare(body: &Elsewhere, disk: SimulatedDisk, sure: &BTreeSet<u64>) -> Result<(), String> {
    let master = open_inline(&disk, 3).await.map_err(|error| format!("not opened: {error}"))?;
    let copy = body.open(&master).await?;
    let here = body.here(&copy);
    if let Some(lost) = sure.difference(&here).next() {
        return Err(format!("group {lost} was kept and is forgotten"));
    }
    for group in here {
        let range = body.group(group);
        match copy.body.read(range.clone()).await.map_err(|error| error.to_string())? {
            Some(bytes) if bytes == body.part(&range) => {}
            Some(_) => return Err(format!("group {group} is something else")),
            None => return Err(format!("group {group} is said to be here, and is not")),
        }
    }
    // The rest comes, and it is whole.
    for group in body.groups() {
        let range = body.group(group);
        copy.body.add(range.start, body.part(&range)).await.map_err(|error| error.to_string())?;
    }
    master.keep_partial(&copy).await.map_err(|error| error.to_string())?;
    if copy.body.verify_whole().await.map_err(|error| error.to_string())? {
        Ok(())
    } else {
        Err("not whole".to_owned())
    }
}

fn run_body(seed: u64, states: u64) -> Result<(), String> {
    let mut random = seeded(seed);
    let body = Elsewhere::new(&mut random);
    let disk = SimulatedDisk::new();
    let kept = runtime().block_on(arrive(&body, &disk, &mut random))?;
    for state in 0..states {
        let ops = (random() >> 32) as usize % (disk.ops() + 1);
        let plan = match random() % 8 {
            0 => CrashPlan::Everything,
            1 | 2 => CrashPlan::Synced,
            _ => CrashPlan::Random,
        };
        let sure = kept.iter().filter(|(then, _)| *then <= ops).map(|(_, here)| here.clone()).next_back();
        let after = disk.crash_at(ops, &mut random, plan);
        let sure = sure.unwrap_or_default();
        runtime()
            .block_on(compare(&body, after, &sure))
            .map_err(|what| format!("state {state}, power cut after operation {ops} ({plan:?}): {what}"))?;
    }
    Ok(())
}

#[test]
fn what_is_said_to_be_here_is() {
    let (first, states) = (seed(), parameter("ELTON_TEST_CRASH_STATES", STATES).div_ceil(STATES_PER_STATE));
    for index in 0..states.div_ceil(STATES_PER_BODY) {
        let (seed, states) = (first + index, STATES_PER_BODY.min(states - index * STATES_PER_BODY));
        if let Err(what) = run_body(seed, states) {
            panic!("{what}\nrepeat it with ELTON_TEST_SEED={seed}");
        }
    }
}

/// The files with holes on a disk.
fn sparse_files(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let folders = disk.list(Path::new("bodies")).unwrap_or_default();
    let folders = folders.into_iter().map(|folder| Path::new("bodies").join(folder));
    let names = folders.flat_map(|folder| {
        let names = disk.list(&folder).unwrap_or_default();
        names.into_iter().map(move |name| folder.join(name))
    });
    names.filter(|name| name.extension().is_some_and(|extension| extension == "sparse")).collect()
}

/// A byte that rots, a file that is cut or lost: found, never handed out, and fetched again.
#[test]
fn parts_that_are_damaged_are_given_up() {
    for seed in 0..30 {
        let mut random = seeded(seed);
        let body = Elsewhere::new(&mut random);
        let disk = SimulatedDisk::new();
        runtime().block_on(async {
            let master = open_inline(&disk, 1).await.expect("opened");
            let copy = body.open(&master).await.expect("begun");
            copy.body.add(0, body.part(&(0..2 * GROUP))).await.expect("added");
            master.keep_partial(&copy).await.expect("kept");
            drop(copy);
            master.close().await;
            let [file] = sparse_files(&disk).try_into().expect("one file");
            match seed % 3 {
                0 => disk.damage(&file, random() % (2 * GROUP)).expect("there"),
                1 => disk.open(&file, true).and_then(|file| file.set_len(random() % (2 * GROUP))).expect("cut"),
                _ => disk.remove(&file).expect("removed"),
            }
            let master = open_inline(&disk, 2).await.expect("opened");
            let copy = body.open(&master).await.expect("opened again");
            let mut found = 0;
            for group in 0..2 {
                match copy.body.read(body.group(group)).await.expect("readable") {
                    Some(bytes) => assert_eq!(bytes, body.part(&body.group(group)), "seed {seed}"),
                    None => found += 1,
                }
            }
            assert!(found > 0, "seed {seed}: the damage was not noticed");
            compare_again(&body, &master, &copy).await;
        });
    }
}

async fn compare_again(body: &Elsewhere, master: &Master, copy: &Arc<PartialCopy>) {
    let whole = 0..body.digest.length;
    while let Some(missing) = copy.body.first(false, &whole) {
        copy.body.add(missing.start, body.part(&missing)).await.expect("added");
    }
    master.keep_partial(copy).await.expect("kept");
    assert!(copy.body.verify_whole().await.expect("readable"));
    assert_eq!(copy.body.read(whole).await.expect("readable").expect("whole"), body.bytes);
}
