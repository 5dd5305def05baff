//! One sequence against the model and the core at once.

mod buckets;
mod objects;
mod snapshots;
mod uploads;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use federation::blobs::{Backend, MemoryBackend};
use federation::blocking::Inline;
use federation::catalog::{Catalog, MemoryCatalog};
use federation::clock::{Clock, ManualClock};
use federation::disk::{CrashPlan, SimulatedDisk, seeded};
use federation::ids::SeededIds;
use federation::master::{BucketChange, EtagMatch, Limits, Master, Precondition, Seams};
use federation::types::{Timestamp, UploadId};
use tokio::runtime::{Builder, Runtime};

use self::snapshots::Staging;
use super::super::store::{content, etag};
use super::op::{Cond, Op, Pick, World};
use super::state::{Bucket, Key, Name, Object, Tags, Upload};
use super::words::{pick_of, prefix, tags};

/// What differs between the two worlds, in words; or that nothing does.
pub type Verdict<T = ()> = Result<T, String>;

/// Fails the sequence unless both worlds say the same.
macro_rules! same {
    ($real:expr, $model:expr, $($what:tt)+) => {{
        let (real, model) = ($real, $model);
        if real != model {
            return Err(format!("{}: the core says {real:?}, the model {model:?}", format!($($what)+)));
        }
    }};
}
pub(super) use same;

pub const BUCKETS: usize = 2;
const KEEP_DEFAULT_SECONDS: u64 = 3600;
const SEGMENT_BYTES: u64 = 200 * 1024;
const CACHE_BYTES: usize = 256 * 1024;
const BEGINNING: u64 = 1_700_000_000_000;
/// More turns than publishing and folding any layer takes.
const ROUNDS_MAX: usize = 10_000;

/// What outlives a restart.
enum Storage {
    Memory(Arc<MemoryCatalog>, Arc<MemoryBackend>),
    Disk(SimulatedDisk),
}

/// A Master with the runtimes that its tasks are on.
struct Open {
    master: Master,
    main: Runtime,
    aside: Runtime,
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime without threads needs nothing")
}

impl Open {
    fn new(world: &World, storage: &Storage, clock: &Arc<ManualClock>, ids: &Arc<SeededIds>) -> Verdict<Open> {
        let limits = Limits {
            disk_reserve: 0,
            part_bytes_min: 1,
            list_rows_max: world.list_rows_max,
            tree_rows_max: world.fold_rows_max,
            fold_rows_max: world.fold_rows_max,
            fold_pieces_max: world.fold_rows_max,
            collect_rows_max: world.collect_rows_max,
            collect_pieces_max: world.collect_rows_max,
            keep_default: Duration::from_secs(KEEP_DEFAULT_SECONDS),
            ..Limits::default()
        };
        let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
        let seams = match storage {
            Storage::Memory(catalog, backend) => Ok(Seams {
                catalog: Arc::clone(catalog) as Arc<dyn Catalog>,
                backend: Arc::clone(backend) as Arc<dyn Backend>,
                blocking: Arc::new(Inline),
                clock,
                ids: Arc::clone(ids) as _,
            }),
            Storage::Disk(disk) => {
                let disk = Arc::new(disk.clone());
                Seams::on_disk(disk, &limits, CACHE_BYTES, Arc::new(Inline), clock, Arc::clone(ids) as _, SEGMENT_BYTES)
            }
        };
        let seams = seams.map_err(|error| format!("the data cannot be opened: {error:?}"))?;
        let (main, aside) = (runtime(), runtime());
        let opened = main.block_on(Master::simulated(seams, limits));
        let master = opened.map_err(|error| format!("the Master cannot be opened: {error:?}"))?;
        Ok(Open { master, main, aside })
    }
}

/// Both worlds.
pub struct Run {
    pub world: World,
    storage: Storage,
    clock: Arc<ManualClock>,
    ids: Arc<SeededIds>,
    open: Option<Open>,
    staging: [Staging; BUCKETS],
    pub buckets: [Option<Bucket>; BUCKETS],
    /// Where a name that was used before counts on.
    past: [u64; BUCKETS],
    /// How often each name was given to a bucket.
    lives: [u64; BUCKETS],
    pub uploads: Vec<(UploadId, Upload)>,
    /// The clocks as of the collector's last pass.
    collected: Option<(u64, Duration)>,
    steps: u64,
}

impl Run {
    pub fn new(world: World) -> Verdict<Run> {
        let storage = if world.disk {
            Storage::Disk(SimulatedDisk::new())
        } else {
            Storage::Memory(Arc::new(MemoryCatalog::new()), Arc::new(MemoryBackend::new(SEGMENT_BYTES)))
        };
        let clock = Arc::new(ManualClock::new(Timestamp(BEGINNING)));
        let ids = Arc::new(SeededIds::new(7));
        let open = Some(Open::new(&world, &storage, &clock, &ids)?);
        let mut run = Run {
            world,
            storage,
            clock,
            ids,
            open,
            staging: Default::default(),
            buckets: [None, None],
            past: [0; BUCKETS],
            lives: [0; BUCKETS],
            uploads: Vec::new(),
            collected: None,
            steps: 0,
        };
        for b in 0..BUCKETS {
            run.create_bucket(b)?;
        }
        Ok(run)
    }

    fn opened(&self) -> &Open {
        self.open.as_ref().expect("only a restart takes it, and puts it back")
    }

    pub fn master(&self) -> &Master {
        &self.opened().master
    }

    /// Runs what the sequence waits for. Nothing that a layer left in the background makes a step meanwhile.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.opened().main.block_on(future)
    }

    /// Publishes a layer. What it leaves in the background runs aside, only when it is told to: so the layer stays open
    /// for as long as the sequence likes.
    fn wait_publishing<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let publishing = self.opened().aside.spawn(future);
        for _ in 0..ROUNDS_MAX {
            self.fold(1);
            if publishing.is_finished() {
                return self.wait(publishing).expect("it does not panic");
            }
        }
        panic!("a layer is never published");
    }

    fn wall(&self) -> u64 {
        self.clock.wall().0
    }

    /// Makes a step in both worlds.
    pub fn step(&mut self, op: &Op) -> Verdict {
        self.steps += 1;
        // Some changes have the time of the one before.
        if self.steps.is_multiple_of(2) {
            self.clock.advance(Duration::from_millis(7));
        }
        match op.clone() {
            Op::Put { b, k, c, tags: t, cond } => self.put(b, k, c, t, cond),
            Op::Delete { b, k, cond } => self.delete(b, vec![(self.key(k), None, cond)]),
            Op::DeleteMany { b, ks } => {
                let ks = ks.into_iter().map(|(k, pick)| {
                    let key = self.key(k);
                    let name = pick.and_then(|pick| self.pick(b, &key, pick));
                    (key, name, Cond::None)
                });
                self.delete(b, ks.collect())
            }
            Op::Remove { b, k, pick } => {
                let key = self.key(k);
                match self.pick(b, &key, pick) {
                    Some(name) => self.delete(b, vec![(key, Some(name), Cond::None)]),
                    None => Ok(()),
                }
            }
            Op::SetTags { b, k, pick, tags: t } => self.set_tags(b, k, pick, t),
            Op::Copy { f, fk, at, pick, b, k, cond } => self.copy((f, fk, at, pick), b, k, cond),
            Op::BeginUpload { b, k } => self.begin_upload(b.into(), k).map(|_| ()),
            Op::Part { u, n, c } => self.part(u, n.into(), c.into()),
            Op::PartCopy { u, n, b, k } => self.part_copy(u, n.into(), b, k),
            Op::Complete { u, mask, extra, cond } => self.complete(u, mask, extra, cond),
            Op::ManyParts { b, k, c, last } => self.many_parts(b, k, c, last),
            Op::Abort { u } => self.abort(u),
            Op::Versioning { b, on } => self.versioning(b.into(), on),
            Op::BucketTags { b, tags: t } => {
                let wanted = Some(tags(t)).filter(|tags| !tags.is_empty());
                let change = BucketChange::Tagging(wanted.clone());
                self.configure(b.into(), change, "Tagging", |bucket| bucket.tags = wanted)
            }
            Op::Keep { b, seconds } => {
                let seconds = Some(u64::from(seconds)).filter(|seconds| *seconds >= 100);
                self.configure(b.into(), BucketChange::Keep(seconds), "Keep", |_| ())?;
                if let Some(bucket) = &mut self.buckets[usize::from(b)] {
                    bucket.keep = seconds;
                }
                Ok(())
            }
            Op::Tag { b, tag, at } => self.tag(b.into(), tag, at),
            Op::Untag { b, tag } => self.untag(b.into(), tag),
            Op::Restore { b, at, prefix: p } => self.restore(b.into(), at, prefix(p.into())),
            Op::Stage { b, changes } => self.stage(b.into(), &changes),
            Op::Publish { b } => self.publish(b.into()),
            Op::GiveUp { b } => {
                self.staging[usize::from(b)] = Staging::default();
                Ok(())
            }
            Op::Collect { now, only, dry } => self.collect(now, only.map(usize::from), dry),
            Op::Advance { seconds } => {
                self.clock.advance(Duration::from_secs(seconds.into()));
                Ok(())
            }
            Op::SetClock { forth } => {
                let wall = self.wall();
                let moved = if forth { wall + 600_000 } else { wall - 600_000 };
                self.clock.set_wall(Timestamp(moved));
                Ok(())
            }
            Op::Fold { steps } => {
                self.fold(steps.into());
                Ok(())
            }
            Op::Settle { b } => self.settle(b.into()),
            Op::Restart { clean } => self.restart(clean),
            Op::CreateBucket { b } => self.create_bucket(b.into()),
            Op::DeleteBucket { b } => self.delete_bucket(b.into()),
            Op::Look { b, at } => {
                let at = at.and_then(|at| Some(self.buckets[usize::from(b)].as_ref()?.number(at)));
                self.compare_state(b.into(), at)
            }
            Op::Tree { b, at } => {
                let at = at.and_then(|at| Some(self.buckets[usize::from(b)].as_ref()?.number(at)));
                self.look_at_tree(b.into(), at)
            }
            Op::LookAll => self.compare_all(),
        }
    }

    fn key(&self, k: u8) -> Key {
        self.world.keys[usize::from(k) % self.world.keys.len()].clone()
    }

    /// The version that a pick means in the newest state.
    fn pick(&self, b: u8, key: &[u8], pick: Pick) -> Option<Name> {
        let versions = self.buckets[usize::from(b)].as_ref().and_then(|bucket| bucket.now().keys.get(key).cloned());
        pick_of(&versions.unwrap_or_default(), pick)
    }

    fn object(&self, contents: Vec<usize>, multipart: bool, tags: Tags) -> Object {
        let metadata = vec![("first".to_owned(), contents[0].to_string())];
        Object { contents: Rc::new(contents), multipart, metadata, tags, modified: self.wall() }
    }

    fn precondition(&self, b: usize, key: &[u8], cond: Cond) -> Precondition {
        let mut precondition = Precondition::default();
        match cond {
            Cond::None => {}
            Cond::Absent => precondition.if_none_match = Some(EtagMatch::Any),
            Cond::Present => precondition.if_match = Some(EtagMatch::Any),
            Cond::Same => {
                let live = self.buckets[b].as_ref().and_then(|bucket| bucket.now().live(key));
                let there = live.map_or("none".to_owned(), |(_, object)| object.etag());
                precondition.if_match = Some(EtagMatch::OneOf(vec![there]));
            }
            Cond::Etag(index) => {
                precondition.if_match = Some(EtagMatch::OneOf(vec![etag(&[index.into()], false)]));
            }
            Cond::Size(index) => precondition.if_match_size = Some(content(index.into()).bytes.len() as u64),
        }
        precondition
    }

    /// Lets what runs in the background make some steps, each up to its next transaction.
    pub fn fold(&self, steps: usize) {
        let open = self.opened();
        for _ in 0..steps {
            open.aside.block_on(tokio::task::yield_now());
            open.main.block_on(tokio::task::yield_now());
        }
    }

    pub fn restart(&mut self, clean: bool) -> Verdict {
        self.staging = Default::default();
        if let Storage::Disk(disk) = &self.storage {
            if clean {
                self.wait(self.master().close());
            } else {
                // The power goes; everything was acknowledged, so nothing is lost.
                let after = disk.crash(&mut seeded(self.steps), CrashPlan::Random);
                self.storage = Storage::Disk(after);
            }
        }
        self.open = None;
        self.open = Some(Open::new(&self.world, &self.storage, &self.clock, &self.ids)?);
        Ok(())
    }

    /// Brings everything that was begun to an end.
    pub fn quiesce(&mut self) -> Verdict {
        self.staging = Default::default();
        self.fold(100);
        for b in 0..BUCKETS {
            if self.buckets[b].is_some() {
                self.settle(b)?;
            }
        }
        Ok(())
    }
}

impl Bucket {
    /// The number that an index means: mostly one that there is.
    pub fn number(&self, index: u8) -> u64 {
        if index >= 250 { self.last + 1 } else { self.first + u64::from(index) % (self.last - self.first + 1) }
    }
}

/// Runs a world from its beginning to its end and compares everything.
pub fn run(world: &World) -> Verdict {
    let mut run = Run::new(world.clone())?;
    for (index, op) in world.ops.iter().enumerate() {
        run.step(op).map_err(|what| format!("step {index}, {op:?}: {what}"))?;
    }
    run.compare_at_the_end()
}
