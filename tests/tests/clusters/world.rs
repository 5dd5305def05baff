//! Clusters in one process: the shipped core over simulated disks, each on a host of turmoil's with a runtime of its own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use federation::blocking::{Blocking, Inline};
use federation::clock::Clock;
use federation::cluster::{Cluster, FederationConfig};
use federation::disk::{CrashPlan, SimulatedDisk, seeded};
use federation::error::Result;
use federation::ids::SeededIds;
use federation::master::{Limits, Master, Relaying, Seams};
use federation::peer::{Invitation, Secret, Transport};
use federation::types::{BucketName, ClusterId, PeerAddress, Rights, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use turmoil::Sim;

use super::super::store::actor;
use super::network::{Lines, listener};

const CATALOG_CACHE_BYTES: usize = 64 * 1024;
/// So few that what is known is forgotten again and again.
const KNOWN_ROWS: u64 = 4;
const SEGMENT_BYTES: u64 = 256 * 1024;
const WALL: Timestamp = Timestamp(1_700_000_000_000);
const PORT: u16 = 9001;
/// How far each host runs before the next one does. What they send arrives in a later tick, so none hears of what has
/// not happened yet.
pub const TICK: Duration = Duration::from_millis(10);
/// How many of the messages are lost on a line that loses some.
const LOSS: f64 = 0.1;
/// Longer than anything that is asked of a cluster when all is well takes.
const LONG: Duration = Duration::from_secs(120);

type Task = Pin<Box<dyn Future<Output = ()>>>;
/// What a host is asked to do once.
type Job = Box<dyn FnOnce(Arc<Cluster>) -> Task>;
/// What a host does in each of its lives.
pub type Program = Box<dyn Fn(Arc<Cluster>) -> Task>;

/// Time as the simulation has it.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// Time as the simulation has it, on a wall clock that is a little wrong.
struct SimulatedClock {
    skew: Duration,
}

impl Clock for SimulatedClock {
    fn wall(&self) -> Timestamp {
        WALL.plus(self.skew + now())
    }

    fn boottime(&self) -> Duration {
        Duration::from_secs(1) + now()
    }
}

/// A cluster's host, which may crash and come back on what its disk kept.
struct Node {
    index: usize,
    disk: RefCell<SimulatedDisk>,
    /// How often it has come back.
    life: Cell<u64>,
    skew: Cell<Duration>,
    /// None until the cluster runs.
    jobs: RefCell<Option<mpsc::UnboundedSender<Job>>>,
    programs: RefCell<Vec<Program>>,
}

impl Node {
    async fn live(self: Rc<Self>) -> turmoil::Result {
        let cluster = self.start().await?;
        let (sender, mut jobs) = mpsc::unbounded_channel::<Job>();
        let mut tasks = JoinSet::new();
        for program in self.programs.borrow().iter() {
            tasks.spawn_local(program(Arc::clone(&cluster)));
        }
        self.jobs.replace(Some(sender));
        loop {
            tokio::select! {
                biased;
                // A panic ends the simulation.
                Some(ended) = tasks.join_next() => ended?,
                Some(job) = jobs.recv() => drop(tasks.spawn_local(job(Arc::clone(&cluster)))),
            }
        }
    }

    async fn start(&self) -> turmoil::Result<Arc<Cluster>> {
        let limits = Limits { disk_reserve: 0, part_bytes_min: 1, ..Limits::default() };
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock { skew: self.skew.get() });
        let ids = Arc::new(SeededIds::new(self.index as u64 * 1000 + self.life.get()));
        let blocking: Arc<dyn Blocking> = Arc::new(Inline);
        let disk = Arc::new(self.disk.borrow().clone());
        let seams = Seams::on_disk(disk, &limits, CATALOG_CACHE_BYTES, blocking, clock, ids, SEGMENT_BYTES)?;
        let master = Arc::new(Master::simulated(seams, limits).await?);
        let (own, listener) = (id(self.index), listener(PORT).await?);
        let config = FederationConfig {
            cluster: own,
            name: format!("c{}", self.index).parse().expect("a lawful name"),
            transport: Box::new(move |admission| {
                Arc::new(Lines::listening(own, listener, admission)) as Arc<dyn Transport>
            }),
            advertise: Some(address(self.index)),
            cache_bytes_max: 1 << 30,
            known_rows_max: KNOWN_ROWS,
            relaying: Relaying::On,
        };
        Ok(Cluster::federated(master, config).await?)
    }
}

/// All of it.
pub struct World {
    sim: Sim<'static>,
    nodes: Vec<Rc<Node>>,
    random: Box<dyn FnMut() -> u64>,
    events: Vec<String>,
}

pub fn id(index: usize) -> ClusterId {
    ClusterId([u8::try_from(index).expect("few clusters") + 1; 32])
}

fn host(index: usize) -> String {
    format!("cluster{index}.example")
}

fn address(index: usize) -> PeerAddress {
    format!("{}:{PORT}", host(index)).parse().expect("a lawful address")
}

/// The bucket that all share; the first cluster numbers it.
pub fn bucket() -> BucketName {
    "shared".parse().expect("a lawful name")
}

impl World {
    /// `count` clusters that share a bucket of the first one.
    pub fn new(count: usize, seed: u64, delay_max: Duration) -> Result<World, String> {
        let sim = turmoil::Builder::new()
            .tick_duration(TICK)
            .simulation_duration(Duration::MAX)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(delay_max + Duration::from_millis(1))
            .epoch(std::time::UNIX_EPOCH)
            .rng_seed(seed)
            .build();
        let mut world = World { sim, nodes: Vec::new(), random: Box::new(seeded(seed)), events: Vec::new() };
        for index in 0..count {
            let skew = Duration::from_millis(world.below(4000));
            let node = Rc::new(Node {
                index,
                disk: RefCell::new(SimulatedDisk::new()),
                life: Cell::new(0),
                skew: Cell::new(skew),
                jobs: RefCell::default(),
                programs: RefCell::default(),
            });
            world.nodes.push(Rc::clone(&node));
            world.sim.host(host(index), move || Rc::clone(&node).live());
        }
        world.at(0, async |home| home.create_bucket(&actor(), &bucket(), "").await.map(drop))?.map_err(said)?;
        for index in 1..count {
            let invited = world.at(0, async |home| home.federation()?.invite(home.master()).await)?.map_err(said)?;
            let secret = Secret::from_bytes(*invited.secret.expose());
            let invitation = Invitation { address: address(0), cluster: id(0), secret };
            let name = world.at(index, async move |member| member.federation()?.join(&invitation).await)?;
            let name = name.map_err(said)?;
            let with = format!("c{index}");
            world
                .at(0, async move |home| home.share(&actor(), &bucket(), &with, Some(Rights::ReadWrite)).await)?
                .map_err(said)?;
            world
                .at(index, async move |member| {
                    member.link(&actor(), name.as_str(), &bucket(), &bucket()).await.map(drop)
                })?
                .map_err(said)?;
        }
        Ok(world)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.random)() % limit
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets every host run for a tick.
    pub fn step(&mut self) -> Result<(), String> {
        self.sim.step().map(drop).map_err(|error| error.to_string())
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) -> Result<(), String> {
        let until = self.now() + time;
        while self.now() < until {
            self.step()?;
        }
        Ok(())
    }

    /// Lets time pass until something is the case, but no longer than that; whether it is.
    pub fn pass_until(&mut self, longest: Duration, is_so: impl Fn() -> bool) -> Result<bool, String> {
        let until = self.now() + longest;
        while !is_so() && self.now() < until {
            self.step()?;
        }
        Ok(is_so())
    }

    /// Has a host do something in this life of it, and does not wait.
    pub fn begin<F: Future<Output = ()> + 'static>(
        &mut self,
        index: usize,
        job: impl FnOnce(Arc<Cluster>) -> F + 'static,
    ) {
        if let Some(jobs) = &*self.nodes[index].jobs.borrow() {
            let _ = jobs.send(Box::new(move |cluster| Box::pin(job(cluster))));
        }
    }

    /// What a cluster that runs, or is about to, says.
    pub fn at<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        index: usize,
        job: impl FnOnce(Arc<Cluster>) -> F + 'static,
    ) -> Result<T, String> {
        let until = self.now() + LONG;
        while self.nodes[index].jobs.borrow().is_none() && self.now() < until {
            self.step()?;
        }
        let answer = Rc::new(RefCell::new(None));
        let given = Rc::clone(&answer);
        self.begin(index, async move |cluster| {
            let said = job(cluster).await;
            given.replace(Some(said));
        });
        while self.now() < until {
            if let Some(said) = answer.take() {
                return Ok(said);
            }
            self.step()?;
        }
        Err(format!("cluster {index} does not answer"))
    }

    /// Has a host run a program from now on, in each of its lives.
    pub fn run(&mut self, index: usize, program: Program) {
        let program = Rc::new(program);
        let first = Rc::clone(&program);
        self.begin(index, move |cluster| first(cluster));
        self.nodes[index].programs.borrow_mut().push(Box::new(move |cluster| program(cluster)));
    }

    fn note(&mut self, what: String) {
        self.events.push(format!("{:?}: {what}", self.now()));
    }

    /// What happened around the clients, a line each.
    pub fn events(&self) -> String {
        self.events.join("\n")
    }

    /// Cuts two clusters off from each other for a while: what is sent is lost, and nobody is told.
    pub fn cut(&mut self, one: usize, other: usize, time: Duration) -> Result<(), String> {
        self.note(format!("{one} and {other} cut off"));
        self.sim.partition(host(one), host(other));
        self.pass(time)?;
        self.sim.repair(host(one), host(other));
        self.note(format!("{one} and {other} joined again"));
        Ok(())
    }

    /// Holds what two clusters send to each other for a while; then all of it arrives.
    pub fn hold(&mut self, one: usize, other: usize, time: Duration) -> Result<(), String> {
        self.note(format!("{one} and {other} held up"));
        self.sim.hold(host(one), host(other));
        self.pass(time)?;
        self.sim.release(host(one), host(other));
        self.note(format!("{one} and {other} go on"));
        Ok(())
    }

    /// Lets a line between two clusters lose some of what is sent for a while.
    pub fn lose(&mut self, one: usize, other: usize, time: Duration) -> Result<(), String> {
        self.note(format!("the line between {one} and {other} loses something"));
        self.sim.set_link_fail_rate(host(one), host(other), LOSS);
        self.pass(time)?;
        self.sim.set_link_fail_rate(host(one), host(other), 0.0);
        self.note(format!("the line between {one} and {other} loses nothing any more"));
        Ok(())
    }

    /// What a cluster's disk would keep if it lost its power now.
    pub fn copy_of_disk(&mut self, index: usize) -> SimulatedDisk {
        let seed = self.below(u64::MAX);
        let disk = self.nodes[index].disk.borrow();
        disk.crash_at(disk.ops(), &mut seeded(seed), CrashPlan::Synced)
    }

    /// Kills a cluster's process: what it wrote stays, and others hear that their connections ended.
    pub fn kill(&mut self, index: usize, down: Duration) -> Result<(), String> {
        self.note(format!("{index} is killed"));
        let disk = self.nodes[index].disk.borrow().clone();
        let kept = disk.crash_at(disk.ops(), &mut self.random, CrashPlan::Everything);
        let others = self.others(index);
        for other in &others {
            self.sim.hold(host(index), other.as_str());
        }
        self.crash(index);
        self.deliver_in_order(index)?;
        for other in &others {
            self.sim.release(host(index), other.as_str());
        }
        self.pass(down)?;
        self.start(index, kept);
        Ok(())
    }

    /// Lets what is held of a host's connections arrive, one connection after the other: the order in which a runtime drops
    /// its tasks depends on how many there were before it, in the whole process.
    fn deliver_in_order(&mut self, index: usize) -> Result<(), String> {
        let ip = self.sim.lookup(host(index));
        let mut connections = BTreeSet::new();
        self.sim.links(|links| connections.extend(links.flatten().map(|sent| sent.pair())));
        connections.retain(|(from, to)| from.ip() == ip || to.ip() == ip);
        for connection in connections {
            self.sim.links(|links| {
                links.flatten().filter(|sent| sent.pair() == connection).for_each(|sent| sent.deliver());
            });
            self.step()?;
        }
        Ok(())
    }

    /// Takes the power from a cluster's machine at some operation of its disk in the tick that comes, and lets it come back
    /// on what its disk kept. What it did in that tick nobody has heard. Returns when that tick began.
    pub fn power_off(&mut self, index: usize, down: Duration) -> Result<Duration, String> {
        let (began, first) = (self.now(), self.nodes[index].disk.borrow().ops());
        self.step()?;
        let disk = self.nodes[index].disk.borrow().clone();
        let last = disk.ops();
        let at = first + self.below((last - first) as u64 + 1) as usize;
        let kept = disk.crash_at(at, &mut seeded(self.below(u64::MAX)), CrashPlan::Random);
        self.note(format!("{index} loses its power after operation {at} of {first} to {last}"));
        self.replace(index, kept, down)?;
        Ok(began)
    }

    /// Turns a cluster's machine off, and lets it come back on another disk.
    pub fn replace(&mut self, index: usize, disk: SimulatedDisk, down: Duration) -> Result<(), String> {
        let others = self.others(index);
        for other in &others {
            self.sim.partition(host(index), other.as_str());
        }
        self.crash(index);
        self.pass(down)?;
        for other in &others {
            self.sim.repair(host(index), other.as_str());
        }
        self.start(index, disk);
        Ok(())
    }

    fn others(&self, index: usize) -> Vec<String> {
        (0..self.nodes.len()).filter(|other| *other != index).map(host).collect()
    }

    fn crash(&mut self, index: usize) {
        self.sim.crash(host(index));
        self.nodes[index].jobs.take();
    }

    fn start(&mut self, index: usize, disk: SimulatedDisk) {
        let skew = Duration::from_millis(self.below(4000));
        let node = &self.nodes[index];
        node.disk.replace(disk);
        node.life.set(node.life.get() + 1);
        node.skew.set(skew);
        self.note(format!("{index} comes back"));
        self.sim.bounce(host(index));
    }
}

fn said(error: federation::error::Error) -> String {
    error.to_string()
}
