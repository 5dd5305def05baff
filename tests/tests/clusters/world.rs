//! Clusters in one process: the shipped core over simulated disks, a network in memory and a clock that jumps ahead.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use federation::blocking::{Blocking, Inline};
use federation::clock::Clock;
use federation::cluster::{Cluster, FederationConfig};
use federation::disk::{CrashPlan, SimulatedDisk, seeded};
use federation::error::Result;
use federation::ids::SeededIds;
use federation::master::{Limits, Master, Relaying, Seams};
use federation::peer::{Invitation, MemoryNetwork, Secret, Transport};
use federation::types::{BucketName, ClusterId, PeerAddress, Rights, Timestamp};
use tokio::time::Instant;

use super::super::store::actor;
use super::network::{LongLines, Power, Random};

const CATALOG_CACHE_BYTES: usize = 64 * 1024;
/// So few that what is known is forgotten again and again.
const KNOWN_ROWS: u64 = 4;
const SEGMENT_BYTES: u64 = 256 * 1024;
const WALL: Timestamp = Timestamp(1_700_000_000_000);

/// Time as the runtime has it, on a wall clock that is a little wrong.
struct SimulatedClock {
    began: Instant,
    skew: Duration,
}

impl Clock for SimulatedClock {
    fn wall(&self) -> Timestamp {
        WALL.plus(self.skew + self.began.elapsed())
    }

    fn boottime(&self) -> Duration {
        Duration::from_secs(1) + self.began.elapsed()
    }
}

/// A cluster, which may crash and come back on what its disk kept.
pub struct Node {
    /// None while it is down.
    pub cluster: Option<Arc<Cluster>>,
    pub disk: SimulatedDisk,
    /// How often it has come back.
    pub life: u64,
    power: Power,
}

/// All of it.
pub struct World {
    pub nodes: Mutex<Vec<Node>>,
    network: MemoryNetwork,
    random: Random,
    began: Instant,
    delay_max: Duration,
    events: Mutex<Vec<String>>,
}

pub fn id(index: usize) -> ClusterId {
    ClusterId([u8::try_from(index).expect("few clusters") + 1; 32])
}

fn address(index: usize) -> PeerAddress {
    format!("cluster{index}.example:9001").parse().expect("a lawful address")
}

/// The bucket that all share; the first cluster numbers it.
pub fn bucket() -> BucketName {
    "shared".parse().expect("a lawful name")
}

impl World {
    /// `count` clusters that share a bucket of the first one.
    pub async fn new(count: usize, seed: u64, delay_max: Duration) -> Result<Arc<World>> {
        let random: Random = Arc::new(Mutex::new(Box::new(seeded(seed))));
        let world = Arc::new(World {
            nodes: Mutex::default(),
            network: MemoryNetwork::default(),
            random,
            began: Instant::now(),
            delay_max,
            events: Mutex::default(),
        });
        for index in 0..count {
            let disk = SimulatedDisk::new();
            let power = Power::on();
            let cluster = world.start(index, &disk, 0, power.clone()).await?;
            world.nodes.lock().expect("nobody panics with it").push(Node {
                cluster: Some(cluster),
                disk,
                life: 0,
                power,
            });
        }
        let home = world.cluster(0);
        home.create_bucket(&actor(), &bucket(), "").await?;
        for index in 1..count {
            let member = world.cluster(index);
            let invited = home.federation()?.invite(home.master()).await?;
            let secret = Secret::from_bytes(*invited.secret.expose());
            let name = member.federation()?.join(&Invitation { address: address(0), cluster: id(0), secret }).await?;
            home.share(&actor(), &bucket(), &format!("c{index}"), Some(Rights::ReadWrite)).await?;
            member.link(&actor(), name.as_str(), &bucket(), &bucket()).await?;
        }
        Ok(world)
    }

    async fn start(&self, index: usize, disk: &SimulatedDisk, life: u64, power: Power) -> Result<Arc<Cluster>> {
        let limits = Limits { disk_reserve: 0, part_bytes_min: 1, ..Limits::default() };
        let skew = Duration::from_millis(self.below(4000));
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock { began: self.began, skew });
        let ids = Arc::new(SeededIds::new(index as u64 * 1000 + life));
        let blocking: Arc<dyn Blocking> = Arc::new(Inline);
        let on_disk = Arc::new(disk.clone());
        let seams = Seams::on_disk(on_disk, &limits, CATALOG_CACHE_BYTES, blocking, clock, ids, SEGMENT_BYTES)?;
        let master = Arc::new(Master::simulated(seams, limits).await?);
        let (network, random, delay_max) = (self.network.clone(), Arc::clone(&self.random), self.delay_max);
        let config = FederationConfig {
            cluster: id(index),
            name: format!("c{index}").parse().expect("a lawful name"),
            transport: Box::new(move |admission| {
                let host = network.host(address(index), id(index), admission);
                Arc::new(LongLines::new(host, random, delay_max, power)) as Arc<dyn Transport>
            }),
            advertise: Some(address(index)),
            cache_bytes_max: 1 << 30,
            known_rows_max: KNOWN_ROWS,
            relaying: Relaying::On,
        };
        Cluster::federated(master, config).await
    }

    /// A number below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        (self.random.lock().expect("nobody panics with it"))() % limit
    }

    /// A cluster as it is now, unless it is down.
    pub fn running(&self, index: usize) -> Option<Arc<Cluster>> {
        self.nodes.lock().expect("nobody panics with it")[index].cluster.clone()
    }

    /// A cluster that the caller knows to be up.
    pub fn cluster(&self, index: usize) -> Arc<Cluster> {
        self.running(index).expect("nothing crashes now")
    }

    /// Which life of a cluster this is.
    pub fn life(&self, index: usize) -> u64 {
        self.nodes.lock().expect("nobody panics with it")[index].life
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn note(&self, what: String) {
        self.events.lock().expect("nobody panics with it").push(format!("{:?}: {what}", self.now()));
    }

    /// What happened around the clients, a line each.
    pub fn events(&self) -> String {
        self.events.lock().expect("nobody panics with it").join("\n")
    }

    /// Cuts two clusters off from each other for a while.
    pub async fn cut(&self, one: usize, other: usize, silently: bool, time: Duration) {
        self.note(format!("{one} and {other} cut off, silently: {silently}"));
        if silently {
            self.network.silence(id(one), id(other));
        } else {
            self.network.cut(id(one), id(other));
        }
        tokio::time::sleep(time).await;
        self.network.heal(id(one), id(other));
        self.note(format!("{one} and {other} joined again"));
    }

    /// What a cluster's disk would keep if it lost its power now.
    pub fn copy_of_disk(&self, index: usize) -> SimulatedDisk {
        let nodes = self.nodes.lock().expect("nobody panics with it");
        let disk = &nodes[index].disk;
        disk.crash_at(disk.ops(), &mut seeded(self.below(u64::MAX)), CrashPlan::Synced)
    }

    /// Takes the power from a cluster, and lets it come back on what its disk kept.
    pub async fn crash(&self, index: usize) -> Result<()> {
        self.crash_onto(index, None).await
    }

    /// The same, but it comes back on another disk.
    pub async fn crash_onto(&self, index: usize, other_disk: Option<SimulatedDisk>) -> Result<()> {
        let count = self.nodes.lock().expect("nobody panics with it").len();
        for other in (0..count).filter(|other| *other != index) {
            self.network.cut(id(index), id(other));
        }
        let (disk, life, gone) = {
            let mut nodes = self.nodes.lock().expect("nobody panics with it");
            let node = &mut nodes[index];
            node.life += 1;
            node.power.off();
            self.note(format!("{index} crashes after operation {} of its disk", node.disk.ops()));
            let mut random = seeded(self.below(u64::MAX));
            (node.disk.crash_at(node.disk.ops(), &mut random, CrashPlan::Random), node.life, node.cluster.take())
        };
        drop(gone);
        let disk = other_disk.unwrap_or(disk);
        let power = Power::on();
        let cluster = self.start(index, &disk, life, power.clone()).await?;
        {
            let mut nodes = self.nodes.lock().expect("nobody panics with it");
            let node = &mut nodes[index];
            node.disk = disk;
            node.power = power;
            node.cluster = Some(cluster);
        }
        for other in (0..count).filter(|other| *other != index) {
            self.network.heal(id(index), id(other));
        }
        Ok(())
    }
}
