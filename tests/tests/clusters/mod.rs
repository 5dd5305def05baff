//! Clusters over a bad network: what clients of all of them do to shared keys is what one register per key could do.
//!
//! The clusters run the shipped core: master, catalog, blobs, member, peer, links. Not simulated are TLS and TCP (a
//! network in memory vouches for its hosts, delays what is sent, and can be cut or silenced), threads (everything runs on
//! one), and the S3 edge. `ELTON_TEST_CLUSTER_RUNS` says how many runs; a failure prints the seed that repeats it.

mod history;
mod network;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use federation::cluster::Cluster;
use federation::disk::seeded;
use federation::error::Error;
use federation::master::{DeleteRequest, Description, EtagMatch, LogChange, Precondition, PutRequest, Which};
use federation::types::{BucketAt, Consistency};
use md5::{Digest as _, Md5};
use tokio::runtime::Builder;

use self::history::{Asked, Heard, Operation, is_linearizable};
use self::world::{World, bucket};
use super::store::{self, Content, actor, newest, parameter, path, read, seed};

const RUNS: u64 = 200;
/// The clusters of a run hold one another and are not given back when it ends, a megabyte or so: this many leave room for
/// the other tests.
const RUNS_PER_PROCESS: u64 = 250;
const KEYS: usize = 3;
const CLIENTS_PER_CLUSTER: usize = 2;
const STEPS: usize = 9;
/// How long a client waits before it gives an operation up as unknown.
const PATIENCE: Duration = Duration::from_secs(40);
/// The bound of bounded reads.
const BOUND: Duration = Duration::from_secs(2);
/// The largest error of the clusters' wall clocks against each other does not matter to a bound; this is what reads take.
const SLACK: Duration = Duration::from_millis(1);

fn key(index: usize) -> Vec<u8> {
    format!("k{index}").into_bytes()
}

/// A content that no other write has. Some share segments, some are files of their own.
fn content(value: u64) -> Content {
    let length = if value.is_multiple_of(4) { 70_000 } else { 20 };
    let mut bytes = value.to_be_bytes().to_vec();
    bytes.resize(length, (value % 251) as u8);
    let md5 = Md5::digest(&bytes).into();
    Content { bytes: bytes.into(), md5 }
}

fn value_of(bytes: &[u8]) -> u64 {
    let value = bytes.get(..8).and_then(|head| head.try_into().ok()).map_or(0, u64::from_be_bytes);
    assert_eq!(content(value).bytes, bytes, "a body is one that was written, and all of it");
    value
}

fn etag_of(value: u64) -> String {
    content(value).md5.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A bounded read: which content it found, and when.
#[derive(Clone, Debug)]
struct Bounded {
    key: usize,
    found: Option<u64>,
    from: Duration,
}

/// What all clients did.
#[derive(Default)]
struct Notes {
    operations: Vec<Operation>,
    bounded: Vec<Bounded>,
}

struct Client {
    world: Arc<World>,
    notes: Arc<Mutex<Notes>>,
    at: usize,
    /// Makes contents that are this client's alone.
    number: u64,
    random: Box<dyn FnMut() -> u64 + Send>,
}

impl Client {
    fn below(&mut self, limit: usize) -> usize {
        (self.random)() as usize % limit
    }

    async fn run(mut self) {
        let mut last: Option<(usize, u64)> = None;
        for step in 0..STEPS {
            let pause = Duration::from_millis(self.below(400) as u64);
            tokio::time::sleep(pause).await;
            let value = self.number * 1000 + step as u64 + 1;
            let key = self.below(KEYS);
            let asked = match self.below(12) {
                0..3 => Asked::Put(value),
                3 => Asked::PutNew(value),
                4 => match last.filter(|(seen, _)| *seen == key) {
                    Some((_, old)) => Asked::PutOver(old, value),
                    None => Asked::Put(value),
                },
                5 => Asked::Delete,
                6 => {
                    self.read_bounded(key).await;
                    continue;
                }
                _ => Asked::Get,
            };
            let heard = self.operate(key, asked).await;
            if let Heard::Holds(Some(value)) = heard {
                last = Some((key, value));
            }
        }
    }

    async fn operate(&mut self, key: usize, asked: Asked) -> Heard {
        let (from, life) = (self.world.now(), self.world.life(self.at));
        let Some(cluster) = self.world.running(self.at) else { return Heard::Unknown };
        let heard = match tokio::time::timeout(PATIENCE, ask(cluster, key, &asked)).await {
            // What a cluster says that has crashed meanwhile nobody hears.
            Ok(heard) if self.world.life(self.at) == life => heard,
            _ => Heard::Unknown,
        };
        let operation = Operation { key, at: self.at, asked, heard: heard.clone(), from, to: self.world.now() };
        self.notes.lock().expect("nobody panics with it").operations.push(operation);
        heard
    }

    async fn read_bounded(&mut self, index: usize) {
        let Some(cluster) = self.world.running(self.at) else { return };
        let path = path(&key(index));
        let bound = Consistency::Bounded(u32::try_from(BOUND.as_secs()).expect("seconds"));
        let at = BucketAt { consistency: Some(bound), ..newest(&bucket()) };
        let from = self.world.now();
        let found = match cluster.get(&at, &path, Which::Newest).await {
            Ok(opened) => match read(opened).await {
                Ok(bytes) => Some(value_of(&bytes)),
                Err(_) => return,
            },
            Err(Error::NoSuchKey { .. } | Error::DeleteMarker { .. }) => None,
            Err(_) => return,
        };
        self.notes.lock().expect("nobody panics with it").bounded.push(Bounded { key: index, found, from });
    }
}

/// Lets a cluster do what a client asks for.
async fn ask(cluster: Arc<Cluster>, index: usize, asked: &Asked) -> Heard {
    let (name, path) = (bucket(), path(&key(index)));
    let put = async |value: u64, precondition: Precondition| {
        let content = content(value);
        let body = store::staged(cluster.blobs(), &content).await;
        let description = Description::default();
        let request = PutRequest { body, md5: content.md5, checksum: None, description, precondition };
        cluster.put(&actor(), &name, &path, request).await.map(|written| Heard::Done(written.number.0))
    };
    let only = |etags| Precondition { if_match: Some(EtagMatch::OneOf(etags)), ..Precondition::default() };
    let outcome = match asked {
        Asked::Put(value) => put(*value, Precondition::default()).await,
        Asked::PutNew(value) => {
            put(*value, Precondition { if_none_match: Some(EtagMatch::Any), ..Precondition::default() }).await
        }
        Asked::PutOver(old, value) => put(*value, only(vec![etag_of(*old)])).await,
        Asked::Delete => {
            let precondition = Precondition::default();
            let request = DeleteRequest { path: path.clone(), version: None, precondition };
            let deleted = cluster.delete(&actor(), &name, vec![request]).await;
            deleted.and_then(|mut results| results.remove(0)).map(|deleted| Heard::Done(deleted.number.0))
        }
        Asked::Get => match cluster.get(&newest(&name), &path, Which::Newest).await {
            Ok(opened) => read(opened).await.map(|bytes| Heard::Holds(Some(value_of(&bytes)))),
            Err(Error::NoSuchKey { .. } | Error::DeleteMarker { .. }) => Ok(Heard::Holds(None)),
            Err(error) => Err(error),
        },
    };
    match outcome {
        Ok(heard) => heard,
        // `If-Match` on nothing is answered like a missing key.
        Err(Error::PreconditionFailed { .. } | Error::NoSuchKey { .. }) => Heard::Refused,
        Err(_) => Heard::Unknown,
    }
}

/// What goes wrong around the clients.
async fn trouble(world: Arc<World>, clusters: usize) {
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(50 + world.below(600))).await;
        let (one, other) = (world.below(clusters as u64) as usize, world.below(clusters as u64) as usize);
        match world.below(12) {
            0..3 => world.crash(one).await.expect("a cluster starts on what its disk kept"),
            // Members hear of it with their next change, which is made once all the same.
            3 => {
                if let Some(home) = world.running(0) {
                    // It may crash meanwhile.
                    let _ = home.master().begin_term(&bucket()).await;
                }
            }
            // Most cuts are short: what was asked is asked again while its asker still waits.
            kind if one != other => {
                let longest = if kind == 1 { 3000 } else { 300 };
                let time = Duration::from_millis(20 + world.below(longest));
                world.cut(one, other, kind == 1, time).await;
            }
            _ => {}
        }
    }
}

/// How many changes through members were acknowledged in a run that went well.
async fn run(seed: u64) -> Result<usize, String> {
    let mut random = seeded(seed);
    let clusters = 2 + (random() % 3) as usize;
    let delay_max = Duration::from_millis(1 + random() % 150);
    let world = World::new(clusters, seed, delay_max).await.map_err(|error| format!("no world: {error}"))?;
    let notes = Arc::new(Mutex::new(Notes::default()));
    let clients = (0..clusters * CLIENTS_PER_CLUSTER).map(|number| Client {
        world: Arc::clone(&world),
        notes: Arc::clone(&notes),
        at: number % clusters,
        number: number as u64 + 1,
        random: Box::new(seeded(seed ^ (number as u64 + 1) << 32)),
    });
    let clients: Vec<_> = clients.map(|client| tokio::spawn(client.run())).collect();
    let trouble = tokio::spawn(trouble(Arc::clone(&world), clusters));
    for task in clients {
        task.await.map_err(|error| error.to_string())?;
    }
    trouble.await.map_err(|error| error.to_string())?;
    // Links heal, and what became of every change is found out.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let mut last = Client {
        world: Arc::clone(&world),
        notes: Arc::clone(&notes),
        at: 0,
        number: 0,
        random: Box::new(seeded(seed)),
    };
    for at in 0..clusters {
        last.at = at;
        for index in 0..KEYS {
            if last.operate(index, Asked::Get).await == Heard::Unknown {
                return Err(format!("cluster {at} cannot read key {index} when all is well again"));
            }
        }
    }
    let notes = std::mem::take(&mut *notes.lock().expect("nobody panics with it"));
    let verdict = judge(&world, &notes, clusters).await;
    verdict.map_err(|what| format!("{what}\nmeanwhile:\n{}", world.events()))?;
    let written = |operation: &&Operation| operation.at > 0 && matches!(operation.heard, Heard::Done(_));
    Ok(notes.operations.iter().filter(written).count())
}

async fn judge(world: &World, notes: &Notes, clusters: usize) -> Result<(), String> {
    for index in 0..KEYS {
        let of_key: Vec<Operation> =
            notes.operations.iter().filter(|operation| operation.key == index).cloned().collect();
        if !is_linearizable(&of_key) {
            let lines: Vec<String> = of_key.iter().map(|operation| format!("{operation:?}")).collect();
            return Err(format!("no register behaves so:\n{}", lines.join("\n")));
        }
    }
    numbers_are_unique(world, notes).await?;
    bounded_reads_are_fresh(notes)?;
    for index in 0..clusters {
        let found = store::findings(world.cluster(index).master()).await.map_err(|error| error.to_string())?;
        if !found.is_empty() {
            return Err(format!("check of cluster {index} finds {found:?}"));
        }
    }
    Ok(())
}

/// Every acknowledged write is in the home's log once, under its number; every other one at most once.
async fn numbers_are_unique(world: &World, notes: &Notes) -> Result<(), String> {
    let page = world.cluster(0).log(&bucket(), None, 10_000).await.map_err(|error| error.to_string())?;
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

#[test]
fn clusters_behave_like_one_register_per_key() {
    let (first, runs) = (seed(), parameter("ELTON_TEST_CLUSTER_RUNS", RUNS));
    println!("{runs} runs from ELTON_TEST_SEED={first}");
    if runs > RUNS_PER_PROCESS {
        return by_processes(first, runs);
    }
    let mut written = 0;
    for index in 0..runs {
        let seed = first + index;
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime without threads needs nothing");
        match runtime.block_on(run(seed)) {
            Ok(count) => written += count,
            Err(what) => panic!("{what}\nrepeat it with ELTON_TEST_SEED={seed} ELTON_TEST_CLUSTER_RUNS=1"),
        }
    }
    println!("{written} changes through members were acknowledged");
    assert!(written as u64 > 2 * runs, "members that cannot write show nothing");
}

/// Many runs, by processes of this program one after the other.
fn by_processes(first: u64, runs: u64) {
    let program = std::env::current_exe().expect("this program has a path");
    for from in (0..runs).step_by(RUNS_PER_PROCESS as usize) {
        let done = std::process::Command::new(&program)
            .args(["--exact", "--nocapture", "clusters::clusters_behave_like_one_register_per_key"])
            .env("ELTON_TEST_SEED", (first + from).to_string())
            .env("ELTON_TEST_CLUSTER_RUNS", RUNS_PER_PROCESS.min(runs - from).to_string())
            .status()
            .expect("this program can be run");
        assert!(done.success(), "one of {RUNS_PER_PROCESS} runs from ELTON_TEST_SEED={} failed", first + from);
    }
}

/// A home that is replaced while it stands on an older copy of its data: a member that has heard of the later term is
/// told no number twice.
async fn run_with_an_older_home(seed: u64) -> Result<usize, String> {
    let mut random = seeded(seed);
    let world = World::new(2, seed, Duration::from_millis(1 + random() % 100)).await;
    let world = world.map_err(|error| format!("no world: {error}"))?;
    let mut numbers = Vec::new();
    let mut value = 0;
    let mut put = async |count: u64| {
        let mut done = 0;
        for _ in 0..count {
            value += 1;
            if let Heard::Done(number) = ask(world.cluster(1), value as usize % KEYS, &Asked::Put(value)).await {
                numbers.push(number);
                done += 1;
            }
        }
        done
    };
    put(1 + random() % 3).await;
    let older = world.copy_of_disk(0);
    let term = world.cluster(0).master().begin_term(&bucket()).await.map_err(|error| error.to_string())?;
    let later = 1 + random() % 3;
    if put(later).await != later {
        return Err(format!("a member does not follow its bucket into {term:?}"));
    }
    world.crash_onto(0, Some(older)).await.map_err(|error| error.to_string())?;
    // The links come up again.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let believed = put(later + 1).await;
    let distinct: BTreeSet<_> = numbers.iter().collect();
    if distinct.len() != numbers.len() {
        return Err(format!("numbers {numbers:?} were acknowledged, {believed} of them by a home in an older term"));
    }
    Ok(numbers.len())
}

#[test]
fn a_home_in_an_older_term_numbers_nothing_for_who_knows_the_later_one() {
    let (first, runs) = (seed(), parameter("ELTON_TEST_CLUSTER_RUNS", RUNS).min(RUNS));
    println!("{runs} runs from ELTON_TEST_SEED={first}");
    for seed in (0..runs).map(|index| first + index) {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime without threads needs nothing");
        match runtime.block_on(run_with_an_older_home(seed)) {
            Ok(numbers) => assert!(numbers >= 2, "seed {seed} shows nothing"),
            Err(what) => panic!("{what}\nrepeat it with ELTON_TEST_SEED={seed} ELTON_TEST_CLUSTER_RUNS=1"),
        }
    }
}
