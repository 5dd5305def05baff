//! Clusters over a bad network: what clients of all of them do to shared keys is what one register per key could do.
//!
//! The clusters run the shipped core: master, catalog, blobs, member, peer, links. Each is a host of turmoil's with a
//! runtime and a simulated disk of its own; time and the network are turmoil's. Processes are killed, machines lose their
//! power at any operation of their disks, lines are slow, lose what is sent, hold it up, are cut. All of it is decided by
//! a seed. Not simulated are TLS (the simulation vouches for who its hosts say they are), TCP's repetitions (what is lost
//! breaks its connection, and its ends find out by their own pings), threads (everything runs on one), and the S3 edge.
//! Hosts take turns, a tick each, and what one sends arrives in a later tick: so a crash between two operations of a disk
//! is one within the tick before, of which nobody has heard. `ELTON_TEST_CLUSTER_RUNS` says how many runs; a failure prints
//! the seed that repeats it.

mod client;
mod history;
mod judge;
mod network;
mod world;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use federation::disk::seeded;

use self::client::{Client, KEYS, ask};
use self::history::{Asked, Heard, Notes};
use self::judge::judge;
use self::world::{World, bucket};
use super::seeds::on_all_cores;
use super::store::{parameter, seed};

/// Says how many runs.
const COUNT: &str = "ELTON_TEST_CLUSTER_RUNS";
const RUNS: u64 = 200;
/// How many seeds are run twice.
const REPEATED: u64 = 10;
const TROUBLES: usize = 8;
/// Longer than clients take for all their steps, if each is given up.
const LONG: Duration = Duration::from_secs(600);
/// What became of every change is found out within this, once the network is well.
const RESOLVED: Duration = Duration::from_secs(12);
/// After this, everything can be read everywhere, once the network is well: a dead connection was noticed and another made.
const HEALED: Duration = Duration::from_secs(120);

/// How much of a world there is.
struct Size {
    clusters: usize,
    clients_per_cluster: usize,
}

impl Size {
    fn of(seed: u64) -> Size {
        Size { clusters: 3 + (seed % 3) as usize, clients_per_cluster: 2 }
    }
}

/// A run that went well.
struct Run {
    notes: Notes,
    /// What happened around the clients.
    events: String,
}

impl Run {
    /// How many changes through members were acknowledged.
    fn written(&self) -> usize {
        let operations = self.notes.operations.iter();
        operations.filter(|operation| operation.at > 0 && matches!(operation.heard, Heard::Done(_))).count()
    }
}

/// What goes wrong around the clients.
fn trouble(world: &mut World, notes: &RefCell<Notes>, clusters: u64) -> Result<(), String> {
    for _ in 0..TROUBLES {
        let pause = Duration::from_millis(50 + world.below(600));
        world.pass(pause)?;
        let (one, other) = (world.below(clusters) as usize, world.below(clusters) as usize);
        // Most troubles are short: what was asked is asked again while its asker still waits.
        let mut short = || Duration::from_millis(20 + world.below(300));
        let (time, kind) = (short(), world.below(14));
        match kind {
            0 | 1 => world.kill(one, time)?,
            2 | 3 => {
                let began = world.power_off(one, time)?;
                notes.borrow_mut().forget(one, began);
            }
            // Members hear of it with their next change, which is made once all the same.
            4 => world.begin(0, async |home| {
                // It may crash meanwhile.
                let _ = home.master().begin_term(&bucket()).await;
            }),
            5..8 if one != other => world.cut(one, other, time)?,
            8 if one != other => world.cut(one, other, 10 * time)?,
            9..11 if one != other => world.hold(one, other, time)?,
            11 if one != other => world.hold(one, other, 10 * time)?,
            12 if one != other => world.lose(one, other, time)?,
            _ => {}
        }
    }
    Ok(())
}

fn run(seed: u64, size: &Size) -> Result<Run, String> {
    let &Size { clusters, clients_per_cluster } = size;
    let delay_max = Duration::from_millis(1 + seeded(seed)() % 150);
    let mut world = World::new(clusters, seed, delay_max).map_err(|error| format!("no world: {error}"))?;
    let notes = Rc::new(RefCell::new(Notes::default()));
    let clients: Vec<_> = (0..clusters * clients_per_cluster)
        .map(|number| (number % clusters, number as u64 + 1))
        .map(|(at, number)| Client::new(&notes, at, number, seed ^ number << 32))
        .collect();
    for client in &clients {
        let (at, client) = (client.at(), Rc::clone(client));
        world.run(at, Box::new(move |cluster| Box::pin(Rc::clone(&client).run(cluster))));
    }
    trouble(&mut world, &notes, clusters as u64)?;
    if !world.pass_until(LONG, || clients.iter().all(|client| client.is_done()))? {
        return Err("clients do not come to an end".to_owned());
    }
    world.pass(RESOLVED)?;
    read_everywhere(&mut world, &notes, clusters)?;
    let notes = notes.take();
    let events = world.events();
    judge(&mut world, &notes, clusters).map_err(|what| format!("{what}\nmeanwhile:\n{events}"))?;
    Ok(Run { notes, events })
}

/// All is well again: every key can be read through every cluster.
fn read_everywhere(world: &mut World, notes: &Rc<RefCell<Notes>>, clusters: usize) -> Result<(), String> {
    let healed = world.now() + HEALED;
    for (at, index) in (0..clusters).flat_map(|at| (0..KEYS).map(move |index| (at, index))) {
        let last = Client::new(notes, at, 0, 0);
        loop {
            let last = Rc::clone(&last);
            let heard = world.at(at, async move |cluster| last.operate(&cluster, index, Asked::Get).await)?;
            if heard != Heard::Unknown {
                break;
            }
            if world.now() > healed {
                let events = world.events();
                return Err(format!(
                    "cluster {at} cannot read key {index} when all is well again\nmeanwhile:\n{events}"
                ));
            }
            world.pass(Duration::from_secs(1))?;
        }
    }
    Ok(())
}

#[test]
fn clusters_behave_like_one_register_per_key() {
    let (first, runs) = (seed(), parameter(COUNT, RUNS));
    println!("{runs} runs from ELTON_TEST_SEED={first}");
    let written = on_all_cores(first, runs, COUNT, |seed| run(seed, &Size::of(seed)).map(|run| run.written()));
    println!("{written} changes through members were acknowledged");
    assert!(written as u64 > 2 * runs, "members that cannot write show nothing");
}

#[test]
fn a_seed_repeats_itself() {
    let first = seed();
    println!("{REPEATED} runs from ELTON_TEST_SEED={first}");
    on_all_cores(first, REPEATED, COUNT, |seed| {
        let (one, other) = (run(seed, &Size::of(seed))?, run(seed, &Size::of(seed))?);
        let [one, other] = [one, other].map(|run| format!("{}\n{:#?}", run.events, run.notes));
        let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        if one == other { Ok(1) } else { Err(format!("the same seed does something else: {differs:?}")) }
    });
}

/// A home that is replaced while it stands on an older copy of its data: a member that has heard of the later term is
/// told no number twice.
fn run_with_an_older_home(seed: u64) -> Result<usize, String> {
    let mut random = seeded(seed);
    let mut world = World::new(2, seed, Duration::from_millis(1 + random() % 100))?;
    let mut numbers = Vec::new();
    let mut value = 0;
    let mut put = |world: &mut World, count: u64| {
        let mut done = 0;
        for _ in 0..count {
            value += 1;
            let put = world.at(1, async move |member| ask(member, value as usize % KEYS, &Asked::Put(value)).await);
            if let Heard::Done(number) = put? {
                numbers.push(number);
                done += 1;
            }
        }
        Ok::<_, String>(done)
    };
    put(&mut world, 1 + random() % 3)?;
    let older = world.copy_of_disk(0);
    let term =
        world.at(0, async |home| home.master().begin_term(&bucket()).await)?.map_err(|error| error.to_string())?;
    let later = 1 + random() % 3;
    if put(&mut world, later)? != later {
        return Err(format!("a member does not follow its bucket into {term:?}"));
    }
    world.replace(0, older, Duration::ZERO)?;
    // The links come up again.
    world.pass(Duration::from_secs(60))?;
    let believed = put(&mut world, later + 1)?;
    let distinct: BTreeSet<_> = numbers.iter().collect();
    if distinct.len() != numbers.len() {
        return Err(format!("numbers {numbers:?} were acknowledged, {believed} of them by a home in an older term"));
    }
    Ok(numbers.len())
}

#[test]
fn a_home_in_an_older_term_numbers_nothing_for_who_knows_the_later_one() {
    let (first, runs) = (seed(), parameter(COUNT, RUNS).min(RUNS));
    println!("{runs} runs from ELTON_TEST_SEED={first}");
    on_all_cores(first, runs, COUNT, |seed| match run_with_an_older_home(seed)? {
        0 | 1 => Err("it shows nothing".to_owned()),
        numbers => Ok(numbers),
    });
}
