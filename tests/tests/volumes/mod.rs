//! Docker volumes over a simulated dockerd and kernel: what a container begins with and reads is there, and in the end
//! nothing is left, whatever dockerd says twice or not at all.
//!
//! The shipped `plugin::volumes` runs; dockerd's part is the steps below, each seen with a
//! real one. `ELTON_TEST_SEQUENCES` says how many sequences run; a failure prints the seed that repeats it.

mod kernel;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use federation::disk::seeded;
use federation::types::{Number, SnapshotRef};
use plugin::error::LookupError;
use plugin::name::Wanted;
use plugin::store::MemoryStore;
use plugin::volumes::{Snapshots, Volumes, VolumesConfig};
use tokio::time::{advance, sleep};

use self::kernel::Kernel;
use super::store::{parameter, seed};

const SEQUENCES: u64 = 2000;
const STEPS: usize = 30;
/// Two names of one source, and one of another.
const NAMES: [&str; 3] = ["photos@7", "photos@seven", "photos@8"];
const FORGET_AFTER: Duration = Duration::from_secs(600);
const RECONCILE_EVERY: Duration = Duration::from_secs(10);
/// How long dockerd may take from the answer to `Mount` until the container has its mount.
const BIND_TIME_MAX: u64 = 300;

/// Numbers are what they are, and one tag is 7.
struct Home;

#[async_trait]
impl Snapshots for Home {
    async fn number(&self, wanted: &Wanted) -> Result<Number, LookupError> {
        match &wanted.snapshot {
            SnapshotRef::Number(number) => Ok(*number),
            SnapshotRef::Tag(_) => Ok(Number(7)),
            SnapshotRef::Time(_) => Err(LookupError("there were no changes then".to_owned())),
        }
    }
}

/// A container that runs, or is about to.
struct Container {
    id: String,
    name: &'static str,
    /// dockerd was restarted under it and then had the volume mounted once more: its own Unmount will not come.
    forgotten: bool,
}

struct Host {
    kernel: Kernel,
    store: Arc<MemoryStore>,
    volumes: Option<Arc<Volumes>>,
    running: Vec<Container>,
    restarted: bool,
    next_id: u64,
}

impl Host {
    async fn new() -> Self {
        let (kernel, store) = (Kernel::default(), Arc::new(MemoryStore::default()));
        let mut host = Host { kernel, store, volumes: None, running: Vec::new(), restarted: false, next_id: 0 };
        host.start_plugin().await;
        for name in NAMES {
            host.volumes().create(name, &BTreeMap::new()).await.expect("lawful");
        }
        host
    }

    fn volumes(&self) -> Arc<Volumes> {
        self.volumes.clone().expect("it runs")
    }

    /// A new process: nothing is left of the one before but its store and its mounts.
    async fn start_plugin(&mut self) {
        let config = VolumesConfig { root: "/mnt".into(), boot: "boot".to_owned(), forget_after: FORGET_AFTER };
        self.volumes = None;
        let opened = Volumes::open(config, self.store.clone(), Arc::new(self.kernel.clone()), Arc::new(Home)).await;
        self.volumes = Some(opened.expect("its state is readable"));
    }

    async fn time_passes(&self, seconds: u64) {
        let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
        while tokio::time::Instant::now() < end {
            advance(RECONCILE_EVERY).await;
            self.volumes().reconcile().await;
        }
    }

    fn new_id(&mut self) -> String {
        self.next_id += 1;
        format!("{:064x}", self.next_id)
    }

    /// `docker start`, with whatever comes between the answer and the container's own mount.
    async fn start(&mut self, name: &'static str, between: u64) -> Result<(), String> {
        let id = self.new_id();
        let Ok(at) = self.volumes().mount(name, &id).await else { return Ok(()) };
        match between % 8 {
            0 => self.start_plugin().await,
            1 => self.time_passes(between / 8 % BIND_TIME_MAX).await,
            // `docker cp` at the same moment: the same id.
            2 => self.mount_and_unmount(name, &id).await,
            // Somebody else's container of the same source ends.
            3 => self.stop(between).await?,
            // The answer was lost, and dockerd asks again.
            4 => drop(self.volumes().mount(name, &id).await),
            5 => {
                self.start_plugin().await;
                self.time_passes(between / 8 % BIND_TIME_MAX).await;
            }
            _ => {}
        }
        self.bind(&id, &at, name)?;
        self.running.push(Container { id, name, forgotten: false });
        Ok(())
    }

    async fn mount_and_unmount(&self, name: &str, id: &str) {
        if self.volumes().mount(name, id).await.is_ok() {
            self.volumes().unmount(name, id).await.expect("the store works");
        }
    }

    /// What runc does with the answer.
    fn bind(&self, id: &str, at: &PathBuf, name: &str) -> Result<(), String> {
        let mut mounts = self.kernel.now();
        let device =
            *mounts.host.get(at).ok_or_else(|| format!("{name}: a container begins with nothing at {at:?}"))?;
        let source =
            mounts.alive.get(&device).ok_or_else(|| format!("{name}: a container begins with a dead mount"))?;
        let number = if name == NAMES[2] { 8 } else { 7 };
        if source.number != Number(number) {
            return Err(format!("{name}: a container begins with {source}"));
        }
        mounts.bound.insert(id.to_owned(), device);
        Ok(())
    }

    async fn stop(&mut self, which: u64) -> Result<(), String> {
        if self.running.is_empty() {
            return Ok(());
        }
        let Container { id, name, forgotten } = self.running.swap_remove(which as usize % self.running.len());
        self.kernel.now().bound.remove(&id);
        if !forgotten {
            self.volumes().unmount(name, &id).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn step(&mut self, random: &mut impl FnMut() -> u64) -> Result<(), String> {
        let (what, which) = (random() % 14, random());
        let name = NAMES[which as usize % NAMES.len()];
        let one = self.running.len().checked_sub(1).map(|last| which as usize % (last + 1));
        match (what, one) {
            (0..=3, _) => self.start(name, random()).await?,
            (4 | 5, _) => self.stop(which).await?,
            // `docker cp` of a running container.
            (6, Some(one)) => {
                let (name, id) = (self.running[one].name, self.running[one].id.clone());
                self.mount_and_unmount(name, &id).await;
                self.running[one].forgotten |= self.restarted;
            }
            // The plugin was killed after it had done what dockerd asked, so dockerd asks again.
            (7, Some(one)) => {
                let (name, id) = (self.running[one].name, self.running[one].id.clone());
                if self.volumes().mount(name, &id).await.is_ok() {
                    for _ in 0..2 {
                        self.volumes().unmount(name, &id).await.map_err(|error| error.to_string())?;
                    }
                }
            }
            // It stops while the plugin is away.
            (8, Some(one)) => {
                self.running[one].forgotten = true;
                self.stop(one as u64).await?;
            }
            (9, _) => self.restarted = true,
            (10, _) => self.start_plugin().await,
            (11, _) => self.time_passes(which / 8 % 1200).await,
            (12, _) => {
                let mut mounts = self.kernel.now();
                if let Some(device) = mounts.alive.keys().nth(which as usize % (mounts.alive.len() + 1)).copied() {
                    mounts.alive.remove(&device);
                }
            }
            (13, _) if which.is_multiple_of(3) => self.kernel.now().refuses = true,
            _ => sleep(Duration::from_millis(100)).await,
        }
        self.check()
    }

    /// A container's mount that lives is the host's, too, so that the next container shares it.
    fn check(&self) -> Result<(), String> {
        let mounts = self.kernel.now();
        if let Some(broken) = &mounts.broken {
            return Err(broken.clone());
        }
        let lost = mounts.bound.iter().find(|(_, device)| {
            mounts.alive.contains_key(device) && !mounts.host.values().any(|mounted| mounted == *device)
        });
        match lost {
            Some((id, device)) => Err(format!("{:?} was unmounted under container {id}", mounts.alive[device])),
            None => Ok(()),
        }
    }

    /// All containers stop, and not all of them are given back.
    async fn end(&mut self) -> Result<(), String> {
        while !self.running.is_empty() {
            self.stop(0).await?;
        }
        self.time_passes(2 * FORGET_AFTER.as_secs()).await;
        let uses: u64 = self.volumes().list().iter().map(|info| info.volume.use_count()).sum();
        let mounted = self.kernel.now().host.len();
        if (uses, mounted) == (0, 0) { Ok(()) } else { Err(format!("{uses} uses and {mounted} mounts are left")) }
    }
}

async fn sequence(seed: u64) -> Result<(), String> {
    let mut random = seeded(seed);
    let mut host = Host::new().await;
    for _ in 0..STEPS {
        host.step(&mut random).await?;
    }
    host.end().await
}

#[test]
fn what_containers_have_is_there_and_nothing_else_stays() {
    let (first, sequences) = (seed(), parameter("ELTON_TEST_SEQUENCES", SEQUENCES));
    println!("{sequences} sequences from ELTON_TEST_SEED={first}");
    for seed in first..first + sequences {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        if let Err(what) = runtime.expect("a runtime").block_on(sequence(seed)) {
            panic!("{what}\nrepeat it with ELTON_TEST_SEED={seed} ELTON_TEST_SEQUENCES=1");
        }
    }
}
