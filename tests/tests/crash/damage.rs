//! Disks that lose or change what was durable: every read is right or an error, never other bytes.

use std::path::{Path, PathBuf};
use std::sync::Once;

use federation::catalog::panic_is_contained;
use federation::disk::{CrashPlan, Disk, SimulatedDisk, seeded};
use federation::error::Error;
use federation::master::{Master, Which};

use super::super::model::state::Key;
use super::super::store::{at, findings, parameter, path, read, seed};
use super::workload::{BUCKETS, Workload, bucket_name};
use super::{STATES, open_inline, runtime, workload};

/// To how many crash states there is one damaged disk.
const STATES_PER_DAMAGE: u64 = 25;
const DAMAGES_PER_WORKLOAD: u64 = 50;
const CATALOG: &str = "catalog.redb";
/// What the catalog reads and writes at once, in bytes.
const PAGE: u64 = 4096;

/// What happens to a disk.
#[derive(Debug)]
enum Damage {
    /// A byte of a file with bodies is another.
    Flipped(PathBuf, u64),
    /// A file with bodies is gone.
    Lost(PathBuf),
    /// A file with bodies ends too early.
    Cut(PathBuf, u64),
    /// A page of the catalog reads as zeros.
    Page(u64),
}

/// The files that hold bodies.
fn body_files(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        let names = disk.list(folder).unwrap_or_default();
        names.into_iter().map(|name| folder.join(name)).collect()
    };
    let mut files = list(Path::new("segments"));
    files.extend(list(Path::new("bodies")).iter().flat_map(|folder| list(folder)));
    files
}

impl Damage {
    fn choose(disk: &SimulatedDisk, random: &mut dyn FnMut() -> u64) -> std::io::Result<Damage> {
        let mut below = |bound: u64| (random() >> 32) % bound.max(1);
        if below(3) == 0 {
            return Ok(Damage::Page(below(disk.open(Path::new(CATALOG), false)?.len()?.div_ceil(PAGE))));
        }
        let files = body_files(disk);
        let file = files[below(files.len() as u64) as usize].clone();
        let length = disk.open(&file, false)?.len()?;
        Ok(match below(4) {
            0 => Damage::Lost(file),
            1 => Damage::Cut(file, below(length)),
            _ => Damage::Flipped(file, below(length)),
        })
    }

    fn make(&self, disk: &SimulatedDisk) -> std::io::Result<()> {
        match self {
            Damage::Flipped(file, offset) => disk.damage(file, *offset),
            Damage::Lost(file) => disk.remove(file),
            Damage::Cut(file, length) => disk.open(file, true)?.set_len(*length),
            Damage::Page(page) => disk.open(Path::new(CATALOG), true)?.write_at(&[0; PAGE as usize], page * PAGE),
        }
    }
}

/// What became of the reads of a damaged disk.
#[derive(Default)]
struct Seen {
    right: usize,
    refused: usize,
}

/// Reads every key of every number. Whether a key is there is the catalog's to say, and a page of it may be gone.
async fn read_all(workload: &Workload, master: &Master, b: usize) -> Result<Seen, String> {
    let (name, bucket) = (bucket_name(b), &workload.buckets[b]);
    let mut seen = Seen::default();
    let Ok(info) = master.bucket(&name).await else {
        return Ok(Seen { refused: 1, ..seen });
    };
    for number in info.floor.0..=info.number.0 {
        let Some(state) = bucket.states.get(&number) else { return Err(format!("{name}@{number} never was")) };
        let keys: Vec<&Key> = state.keys.keys().collect();
        for key in keys {
            let wanted = state.live(key);
            let what = || format!("{name}@{number}, {}", key.escape_ascii());
            let outcome = match master.get(&at(&name, number), &path(key), Which::Newest).await {
                Ok(opened) => read(opened).await,
                Err(error) => Err(error),
            };
            match (outcome, wanted) {
                (Ok(bytes), Some((_, object))) if bytes == object.bytes() => seen.right += 1,
                (Ok(bytes), _) => return Err(format!("{}: {} bytes that it never had", what(), bytes.len())),
                (Err(Error::NoSuchKey { .. } | Error::DeleteMarker { .. }), None) => seen.right += 1,
                (Err(error @ (Error::NoSuchKey { .. } | Error::DeleteMarker { .. })), Some(_)) => {
                    return Err(format!("{}: {error}, but it is there", what()));
                }
                (Err(_), _) => seen.refused += 1,
            }
        }
    }
    Ok(seen)
}

async fn compare(workload: &Workload, disk: &SimulatedDisk, damage: &Damage) -> Result<Seen, String> {
    let Ok(master) = open_inline(disk, 1).await else {
        return match damage {
            Damage::Page(_) => Ok(Seen { refused: 1, ..Seen::default() }),
            _ => Err("a damaged body keeps the data directory from being opened".to_owned()),
        };
    };
    let mut all = Seen::default();
    for b in 0..BUCKETS {
        let seen = read_all(workload, &master, b).await?;
        all.right += seen.right;
        all.refused += seen.refused;
    }
    // What a read refuses, check names.
    let found = findings(&master).await;
    if all.refused > 0 && found.as_ref().is_ok_and(Vec::is_empty) {
        return Err(format!("{} reads fail, and check finds nothing", all.refused));
    }
    Ok(all)
}

/// Panics that the catalog contains are not worth a line each.
fn keep_contained_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !panic_is_contained() {
                before(info);
            }
        }));
    });
}

#[test]
fn damage_is_an_error_and_never_other_bytes() {
    keep_contained_panics_quiet();
    let (first, states) = (seed(), parameter("ELTON_TEST_CRASH_STATES", STATES));
    let damages = states.div_ceil(STATES_PER_DAMAGE).max(DAMAGES_PER_WORKLOAD);
    println!("{damages} damaged disks from ELTON_TEST_SEED={first}");
    let mut all = Seen::default();
    for index in 0..damages.div_ceil(DAMAGES_PER_WORKLOAD) {
        let seed = first + index;
        let again = format!("repeat it with ELTON_TEST_SEED={seed} ELTON_TEST_CRASH_STATES=1");
        let workload = runtime().block_on(workload::run(seed)).unwrap_or_else(|what| panic!("{what}\n{again}"));
        let mut random = seeded(seed ^ 0xDA_DA);
        for _ in 0..DAMAGES_PER_WORKLOAD {
            let disk = workload.disk.crash_at(workload.disk.ops(), &mut random, CrashPlan::Synced);
            let damage = Damage::choose(&disk, &mut random).expect("the disk itself works");
            damage.make(&disk).expect("the disk itself works");
            let seen = runtime().block_on(compare(&workload, &disk, &damage));
            let seen = seen.unwrap_or_else(|what| panic!("{damage:?}: {what}\n{again}"));
            all.right += seen.right;
            all.refused += seen.refused;
        }
    }
    println!("{} reads were right, {} refused", all.right, all.refused);
    assert!(all.right > 0 && all.refused > 0, "some damage is noticed, and most reads are not touched by it");
}
