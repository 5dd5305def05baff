//! One sequence against the model and the core at once.

use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use federation::blobs::{Backend, MemoryBackend};
use federation::blocking::Inline;
use federation::catalog::{Catalog, MemoryCatalog};
use federation::clock::{Clock, ManualClock};
use federation::disk::{CrashPlan, SimulatedDisk, seeded};
use federation::error::{Error, VersionName};
use federation::ids::SeededIds;
use federation::master::{
    BucketChange, CollectOptions, Commit, CompleteRequest, CopyRequest, DeleteRequest, Description, EtagMatch, Limits,
    Master, NamedPart, PartBody, PartRequest, Precondition, PutRequest, Seams, StagedChange, UploadRequest, Versioning,
    Which,
};
use federation::types::{
    Attributes, Body, BucketAt, BucketName, ETag, Number, ObjectRecord, SnapshotRef, TagName, Timestamp, UploadId,
};
use tokio::runtime::{Builder, Runtime};

use super::super::store::{self, actor, content, etag, newest, path, staged};
use super::op::{Cond, Op, Pick, World};
use super::state::{self, Bucket, Key, Name, Object, Outcome, Tags, Top, Upload};

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
/// How far the wall clock may move against the time since boot, in milliseconds.
const DRIFT_MAX: u64 = 60_000;
/// Parts of an object whose list of parts is a body of its own.
const MANY_PARTS: u16 = 101;
/// More turns than publishing and folding any layer takes.
const ROUNDS_MAX: usize = 10_000;

/// The name of an error's variant.
pub fn name_of(error: &Error) -> String {
    let text = format!("{error:?}");
    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    match error {
        // What the model never says is shown whole.
        Error::Storage { .. } | Error::Damaged { .. } | Error::Conflict => text,
        _ => text[..end].to_owned(),
    }
}

/// An outcome with errors as names, for comparing.
pub fn named<T>(outcome: Result<T, Error>) -> Result<T, String> {
    outcome.map_err(|error| name_of(&error))
}

fn expected<T>(outcome: Outcome<T>) -> Result<T, String> {
    outcome.map_err(ToOwned::to_owned)
}

pub fn bucket_name(b: usize) -> BucketName {
    ["alpha", "beta"][b].parse().expect("a lawful name")
}

fn tag_name(tag: u8) -> TagName {
    ["one", "two", "three"][usize::from(tag) % 3].parse().expect("a lawful name")
}

fn tags(index: u8) -> Tags {
    (0..index).map(|index| (format!("t{index}"), "v".to_owned())).collect()
}

const PREFIXES: [&[u8]; 9] = [b"", b"", b"a", b"a/", b"b", b"-", b"/", b"a\0", b"\xff"];

pub fn prefix(index: usize) -> &'static [u8] {
    PREFIXES[index % PREFIXES.len()]
}

pub fn version_name(name: Name) -> VersionName {
    match name {
        Name::Null => VersionName::Null,
        Name::Number(number) => VersionName::Number(Number(number)),
    }
}

pub fn which(name: Option<Name>) -> Which {
    name.map_or(Which::Newest, |name| Which::Named(version_name(name)))
}

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

/// A commit that is being put together, in both worlds.
#[derive(Default)]
struct Staging {
    commit: Option<Commit>,
    changes: BTreeMap<Key, Option<Object>>,
    count: u64,
    /// The life of the bucket it was begun for.
    life: u64,
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

    fn put(&mut self, b: u8, k: u8, c: u8, t: u8, cond: Cond) -> Verdict {
        let (b, key, wall) = (usize::from(b), self.key(k), self.wall());
        let object = self.object(vec![usize::from(c) % store::CONTENTS], false, tags(t));
        let precondition = self.precondition(b, &key, cond);
        let real = self.wait(async {
            let body = staged(self.master().blobs(), content(c.into())).await;
            let description = describe(&object);
            let request = PutRequest { body, md5: content(c.into()).md5, checksum: None, description, precondition };
            self.master().put(&actor(), &bucket_name(b), &path(&key), request).await
        });
        let model = match &mut self.buckets[b] {
            Some(bucket) => bucket.put(wall, &key, cond, object),
            None => Err("NoSuchBucket"),
        };
        same!(named(real).map(|written| written.number.0), expected(model), "put");
        Ok(())
    }

    fn delete(&mut self, b: u8, keys: Vec<(Key, Option<Name>, Cond)>) -> Verdict {
        let (b, wall) = (usize::from(b), self.wall());
        let requests = keys.iter().map(|(key, name, cond)| DeleteRequest {
            path: path(key),
            version: name.map(version_name),
            precondition: self.precondition(b, key, *cond),
        });
        let real = self.wait(self.master().delete(&actor(), &bucket_name(b), requests.collect()));
        let real = named(real).map(|results| {
            let results = results.into_iter();
            let result = results.map(|result| named(result).map(|done| (done.number.0, done.name, done.marker)));
            result.collect::<Vec<_>>()
        });
        let model = self.buckets[b].as_mut().ok_or("NoSuchBucket").map(|bucket| {
            let results = keys.iter().map(|(key, name, cond)| match name {
                None => {
                    let (number, marker) = bucket.delete(wall, key, *cond).map_err(ToOwned::to_owned)?;
                    Ok((number, marker.map(version_name), marker.is_some()))
                }
                Some(name) => {
                    let (number, marker) = bucket.remove(wall, key, *name);
                    Ok((number, Some(version_name(*name)), marker))
                }
            });
            results.collect::<Vec<Result<_, String>>>()
        });
        same!(real, expected(model), "delete");
        Ok(())
    }

    fn set_tags(&mut self, b: u8, k: u8, pick: Pick, t: u8) -> Verdict {
        let (key, wall) = (self.key(k), self.wall());
        let name = self.pick(b, &key, pick);
        let b = usize::from(b);
        let attributes = Attributes { tags: Some(tags(t)), ..Attributes::default() };
        let master = self.master();
        let real = self.wait(master.set_attributes(&actor(), &bucket_name(b), &path(&key), which(name), attributes));
        let model = match &mut self.buckets[b] {
            Some(bucket) => bucket.set_tags(wall, &key, name, tags(t)),
            None => Err("NoSuchBucket"),
        };
        same!(named(real).map(|(number, _)| number.0), expected(model), "tags of {:?}", key.escape_ascii().to_string());
        Ok(())
    }

    /// The version that a copy is made from, in both worlds.
    fn source(
        &self,
        f: usize,
        key: &[u8],
        at: Option<u8>,
        pick: Pick,
    ) -> Verdict<Option<(federation::master::Version, state::Version)>> {
        let number = at.and_then(|at| Some(self.buckets[f].as_ref()?.number(at)));
        let from = number.map_or_else(|| newest(&bucket_name(f)), |number| store::at(&bucket_name(f), number));
        let (model, name) = match &self.buckets[f] {
            None => (Err("NoSuchBucket"), None),
            Some(bucket) => match bucket.at(number.unwrap_or(bucket.last)) {
                (_, true) => return Ok(None),
                (Err(error), _) => (Err(error), None),
                (Ok(state), _) => {
                    let name = state.keys.get(key).and_then(|versions| pick_of(versions, pick));
                    (find(state, key, name), name)
                }
            },
        };
        let real = self.wait(self.master().head(&from, &path(key), which(name)));
        same!(
            real.as_ref().map(|version| version.number.0).map_err(name_of),
            expected(model.as_ref().map(|version| version.number).map_err(|error| *error)),
            "the source of a copy"
        );
        Ok(real.ok().zip(model.ok()))
    }

    fn copy(&mut self, (f, fk, at, pick): (u8, u8, Option<u8>, Pick), b: u8, k: u8, cond: Cond) -> Verdict {
        let (from, to, b, wall) = (self.key(fk), self.key(k), usize::from(b), self.wall());
        let Some((source, version)) = self.source(f.into(), &from, at, pick)? else { return Ok(()) };
        let request = CopyRequest {
            description: None,
            tags: None,
            checksum: None,
            precondition: self.precondition(b, &to, cond),
        };
        let real = self.wait(self.master().copy(&actor(), &source, &bucket_name(b), &path(&to), request));
        let tags = version.tags();
        let object = version.object.map(|object| Object { tags, ..object }).ok_or("a copy of a marker")?;
        let model = match &mut self.buckets[b] {
            Some(bucket) => bucket.put(wall, &to, cond, object),
            None => Err("NoSuchBucket"),
        };
        same!(named(real).map(|written| written.number.0), expected(model), "copy");
        Ok(())
    }

    fn begin_upload(&mut self, b: usize, k: u8) -> Verdict<bool> {
        let (key, wall) = (self.key(k), self.wall());
        let object = self.object(vec![usize::from(k)], true, tags(k % 3));
        let request = UploadRequest {
            path: path(&key),
            description: describe(&object),
            checksum: None,
            checksum_declared: false,
        };
        let real = self.wait(self.master().begin_upload(&actor(), &bucket_name(b), request));
        let exists = self.buckets[b].is_some();
        same!(real.as_ref().map_err(name_of).err(), (!exists).then(|| "NoSuchBucket".to_owned()), "begin an upload");
        if let Ok(info) = real {
            let Object { metadata, tags, .. } = object;
            let upload = Upload { bucket: b, key, metadata, tags, parts: BTreeMap::new(), begun: wall };
            self.uploads.push((info.upload, upload));
        }
        Ok(exists)
    }

    fn upload(&self, u: u8) -> Option<usize> {
        (!self.uploads.is_empty()).then(|| usize::from(u) % self.uploads.len())
    }

    fn part(&mut self, u: u8, n: u16, c: usize) -> Verdict {
        let Some(u) = self.upload(u) else { return Ok(()) };
        self.put_part(u, n, c)
    }

    fn put_part(&mut self, u: usize, n: u16, c: usize) -> Verdict {
        let (id, upload) = &self.uploads[u];
        let real = self.wait(async {
            let body = PartBody::Staged(staged(self.master().blobs(), content(c)).await);
            let request = PartRequest { body, md5: content(c).md5, checksum: None };
            self.master().put_part(&bucket_name(upload.bucket), &path(&upload.key), *id, n, request).await
        });
        same!(named(real).map(|part| part.size), Ok(content(c).bytes.len() as u64), "a part");
        self.uploads[u].1.parts.insert(n, c % store::CONTENTS);
        Ok(())
    }

    fn part_copy(&mut self, u: u8, n: u16, b: u8, k: u8) -> Verdict {
        let Some(u) = self.upload(u) else { return Ok(()) };
        let from = self.key(k);
        let Some((source, version)) = self.source(b.into(), &from, None, Pick::Newest)? else { return Ok(()) };
        let Some(object) = version.object else { return Ok(()) };
        let (id, upload) = &self.uploads[u];
        let md5 = content(object.contents[0]).md5;
        let request = PartRequest { body: PartBody::Reference(Box::new(source)), md5, checksum: None };
        let real = self.wait(self.master().put_part(&bucket_name(upload.bucket), &path(&upload.key), *id, n, request));
        let model = if object.multipart { Err("InvalidRequest") } else { Ok(object.size()) };
        same!(named(real).map(|part| part.size), expected(model), "a copied part");
        if model.is_ok() {
            self.uploads[u].1.parts.insert(n, object.contents[0]);
        }
        Ok(())
    }

    fn complete(&mut self, u: u8, mask: u8, extra: bool, cond: Cond) -> Verdict {
        let Some(u) = self.upload(u) else { return Ok(()) };
        let parts = self.uploads[u].1.parts.clone();
        let mut chosen: Vec<(u16, Option<usize>)> =
            parts.into_iter().filter(|(n, _)| mask >> (n % 8) & 1 == 1).map(|(n, c)| (n, Some(c))).collect();
        if extra {
            chosen.push((9999, None));
        }
        self.complete_with(u, &chosen, cond)
    }

    fn complete_with(&mut self, u: usize, chosen: &[(u16, Option<usize>)], cond: Cond) -> Verdict {
        let wall = self.wall();
        let (id, upload) = self.uploads[u].clone();
        let b = upload.bucket;
        let parts = chosen.iter().map(|(number, c)| NamedPart {
            number: *number,
            etag: c.map(|c| etag(&[c], false)),
            checksum: None,
        });
        let precondition = self.precondition(b, &upload.key, cond);
        let request = CompleteRequest { parts: parts.collect(), checksum: None, size: None, precondition };
        let complete = || {
            let (bucket, key, request) = (bucket_name(b), path(&upload.key), request.clone());
            self.wait(async { self.master().complete_upload(&actor(), &bucket, &key, id, request).await })
        };
        let real = complete();
        if real.is_ok() {
            let again = complete().ok();
            same!(again.as_ref(), real.as_ref().ok(), "the answer to a completion that is repeated");
        }
        let too_small = chosen.iter().rev().skip(1).any(|(_, c)| c.is_some_and(|c| content(c).bytes.is_empty()));
        let contents: Option<Vec<usize>> = chosen.iter().map(|(_, c)| *c).collect();
        let model = match (contents, &mut self.buckets[b]) {
            (_, None) => Err("NoSuchBucket"),
            (Some(contents), _) if contents.is_empty() => Err("InvalidRequest"),
            _ if too_small => Err("PartTooSmall"),
            (None, _) => Err("InvalidPart"),
            (Some(contents), Some(bucket)) => {
                let Upload { metadata, tags, .. } = upload.clone();
                let object = Object { contents: Rc::new(contents), multipart: true, metadata, tags, modified: 0 };
                bucket.put(wall, &upload.key, cond, object)
            }
        };
        same!(named(real).map(|written| written.number.0), expected(model), "complete");
        if model.is_ok() {
            self.uploads.remove(u);
        }
        Ok(())
    }

    fn many_parts(&mut self, b: u8, k: u8, c: u8, last: u8) -> Verdict {
        if !self.begin_upload(b.into(), k)? {
            return Ok(());
        }
        let u = self.uploads.len() - 1;
        let small = 1 + usize::from(c) % 3;
        for n in 1..MANY_PARTS {
            self.put_part(u, n, small + usize::from(n % 2))?;
        }
        self.put_part(u, MANY_PARTS, last.into())?;
        let chosen: Vec<_> = self.uploads[u].1.parts.iter().map(|(n, c)| (*n, Some(*c))).collect();
        self.complete_with(u, &chosen, Cond::None)
    }

    fn abort(&mut self, u: u8) -> Verdict {
        let Some(u) = self.upload(u) else { return Ok(()) };
        let (id, upload) = self.uploads.remove(u);
        let (bucket, key) = (bucket_name(upload.bucket), path(&upload.key));
        same!(named(self.wait(self.master().abort_upload(&bucket, &key, id))), Ok(()), "abort");
        let again = self.wait(self.master().abort_upload(&bucket, &key, id));
        same!(named(again), Err("NoSuchUpload".to_owned()), "abort again");
        Ok(())
    }

    fn versioning(&mut self, b: usize, on: bool) -> Verdict {
        let (real, model) = if on {
            (Versioning::Enabled, state::Versioning::Enabled)
        } else {
            (Versioning::Suspended, state::Versioning::Suspended)
        };
        self.configure(b, BucketChange::Versioning(real), "Versioning", |bucket| bucket.versioning = model)
    }

    fn configure(
        &mut self,
        b: usize,
        change: BucketChange,
        name: &'static str,
        model: impl FnOnce(&mut state::State),
    ) -> Verdict {
        let wall = self.wall();
        let real = self.wait(self.master().change_bucket(&actor(), &bucket_name(b), change));
        let model = self.buckets[b].as_mut().ok_or("NoSuchBucket").map(|bucket| bucket.configure(wall, name, model));
        same!(named(real).map(|number| number.0), expected(model), "configure");
        Ok(())
    }

    fn tag(&mut self, b: usize, tag: u8, at: Option<u8>) -> Verdict {
        let number = at.and_then(|at| Some(self.buckets[b].as_ref()?.number(at)));
        let from = number.map_or_else(|| newest(&bucket_name(b)), |number| store::at(&bucket_name(b), number));
        let name = tag_name(tag);
        let model = match &self.buckets[b] {
            None => Err("NoSuchBucket"),
            Some(bucket) => match bucket.at(number.unwrap_or(bucket.last)) {
                (_, true) => return Ok(()),
                (Err(error), _) => Err(error),
                (Ok(_), _) if bucket.tags.contains_key(name.as_str()) => Err("TagExists"),
                (Ok(_), _) => Ok(number.unwrap_or(bucket.last)),
            },
        };
        let real = self.wait(self.master().tag_snapshot(&actor(), &from, Some(name.clone()), "kept"));
        same!(named(real).map(|(number, _)| number.0), expected(model), "tag");
        if let (Ok(number), Some(bucket)) = (model, &mut self.buckets[b]) {
            bucket.tags.insert(name.as_str().to_owned(), number);
        }
        Ok(())
    }

    fn untag(&mut self, b: usize, tag: u8) -> Verdict {
        let name = tag_name(tag);
        let real = self.wait(self.master().remove_tag(&bucket_name(b), &name));
        let model = match &mut self.buckets[b] {
            None => Err("NoSuchBucket"),
            Some(bucket) => bucket.tags.remove(name.as_str()).map(|_| ()).ok_or("NoSuchTag"),
        };
        same!(named(real), expected(model), "untag");
        Ok(())
    }

    fn restore(&mut self, b: usize, at: u8, prefix: &[u8]) -> Verdict {
        let wall = self.wall();
        let number = self.buckets[b].as_ref().map_or(0, |bucket| bucket.number(at));
        if self.buckets[b].as_ref().is_some_and(|bucket| bucket.at(number).1) {
            return Ok(());
        }
        let source = store::at(&bucket_name(b), number);
        let (master, below) = (self.master().clone(), prefix.to_vec());
        let real = self.wait_publishing(async move { master.restore(&actor(), &source, &below).await });
        let model = match &mut self.buckets[b] {
            None => Err("NoSuchBucket"),
            Some(bucket) => bucket.restore(wall, number, prefix),
        };
        same!(named(real).map(|done| (done.number.0, done.changed)), expected(model), "restore {number}");
        Ok(())
    }

    fn stage(&mut self, b: usize, changes: &[(u8, Option<u8>)]) -> Verdict {
        if self.staging[b].commit.is_none() {
            let real = self.wait(self.master().begin_commit(&bucket_name(b)));
            let model = if self.buckets[b].is_some() { None } else { Some("NoSuchBucket".to_owned()) };
            same!(real.as_ref().map_err(name_of).err(), model, "begin a commit");
            self.staging[b] = Staging { commit: real.ok(), life: self.lives[b], ..Staging::default() };
        }
        let Some(mut commit) = self.staging[b].commit.take() else { return Ok(()) };
        let objects: Vec<_> = changes
            .iter()
            .map(|(k, c)| {
                let object = c.map(|c| self.object(vec![usize::from(c) % store::CONTENTS], false, tags(c % 2)));
                (self.key(*k), object)
            })
            .collect();
        let real = self.wait(async {
            let mut staging = Vec::new();
            for (key, object) in &objects {
                let content = match object {
                    None => None,
                    Some(object) => {
                        let content = content(object.contents[0]);
                        let body = staged(self.master().blobs(), content).await;
                        Some((record(object, content.md5), Some(body)))
                    }
                };
                staging.push(StagedChange { path: path(key), content });
            }
            commit.stage(staging).await
        });
        let staging = &mut self.staging[b];
        staging.commit = Some(commit);
        if staging.life != self.lives[b] || self.buckets[b].is_none() {
            // Its bucket is gone; whether that is said now or at the end is all the same.
            return Ok(());
        }
        same!(named(real), Ok(()), "stage");
        staging.count += changes.len() as u64;
        staging.changes.extend(objects);
        Ok(())
    }

    fn publish(&mut self, b: usize) -> Verdict {
        let wall = self.wall();
        let staging = std::mem::take(&mut self.staging[b]);
        let Some(commit) = staging.commit else { return Ok(()) };
        let real = self.wait_publishing(async move { commit.publish(&actor(), "together").await });
        let model = match &mut self.buckets[b] {
            Some(bucket) if staging.life == self.lives[b] => {
                Ok(bucket.commit(wall, "together", staging.count, staging.changes))
            }
            _ => Err("NoSuchBucket"),
        };
        same!(named(real).map(|number| number.0), expected(model), "publish");
        Ok(())
    }

    pub fn collect(&mut self, now: bool, only: Option<usize>, dry: bool) -> Verdict {
        let (wall, boot) = (self.wall(), self.clock.boottime());
        let options = CollectOptions { now, bucket: only.map(bucket_name), dry };
        let real = self.wait(self.master().collect(options));
        let mut warned = false;
        if !dry {
            let last = self.collected.replace((wall, boot));
            warned = last.is_some_and(|(last_wall, last_boot)| {
                let expected = last_wall + (boot - last_boot).as_millis() as u64;
                expected.abs_diff(wall) > DRIFT_MAX
            });
        }
        if only.is_some_and(|b| self.buckets[b].is_none()) {
            same!(named(real).map(|_| ()), Err("NoSuchBucket".to_owned()), "collect");
            return Ok(());
        }
        let mut ended = 0;
        for (b, bucket) in self.buckets.iter_mut().enumerate() {
            let Some(bucket) = bucket.as_mut().filter(|_| only.is_none_or(|only| only == b)) else { continue };
            let raises = dry || now || !warned;
            let target = if raises { bucket.target(wall, KEEP_DEFAULT_SECONDS, now) } else { bucket.floor };
            ended += target - bucket.floor;
            if !dry {
                bucket.raise(target);
            }
        }
        let real = named(real).map(|report| {
            let warning =
                report.warning.map(|text| if text.starts_with("the wall clock moved") { "clock".into() } else { text });
            (report.numbers_ended, warning)
        });
        same!(real, Ok((ended, warned.then(|| "clock".to_owned()))), "collect");
        Ok(())
    }

    /// Lets what runs in the background make some steps, each up to its next transaction.
    pub fn fold(&self, steps: usize) {
        let open = self.opened();
        for _ in 0..steps {
            open.aside.block_on(tokio::task::yield_now());
            open.main.block_on(tokio::task::yield_now());
        }
    }

    pub fn settle(&mut self, b: usize) -> Verdict {
        let real = self.wait(self.master().settle(&bucket_name(b)));
        let model = match &mut self.buckets[b] {
            None => Err("NoSuchBucket"),
            Some(bucket) => {
                bucket.uncertain.clear();
                Ok(())
            }
        };
        same!(named(real), expected(model), "settle");
        Ok(())
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

    fn create_bucket(&mut self, b: usize) -> Verdict {
        let wall = self.wall();
        let real = self.wait(self.master().create_bucket(&actor(), &bucket_name(b), ""));
        let model = match &self.buckets[b] {
            Some(_) => Err("BucketExists"),
            None => Ok(self.past[b]),
        };
        same!(named(real).map(|info| info.number.0), expected(model), "create a bucket");
        if let Ok(first) = model {
            self.buckets[b] = Some(Bucket::new(first, wall));
            self.lives[b] += 1;
        }
        Ok(())
    }

    fn delete_bucket(&mut self, b: usize) -> Verdict {
        if self.buckets[b].is_some() {
            // A bucket with an open layer may not be deleted yet, which the model has no word for.
            self.settle(b)?;
        }
        let real = self.wait(self.master().delete_bucket(&actor(), &bucket_name(b)));
        let uploads = self.uploads.iter().any(|(_, upload)| upload.bucket == b);
        let model = match &self.buckets[b] {
            None => Err("NoSuchBucket"),
            Some(bucket) if !bucket.now().keys.is_empty() || !bucket.tags.is_empty() || uploads => {
                Err("BucketNotEmpty")
            }
            Some(_) => Ok(()),
        };
        same!(named(real), expected(model), "delete a bucket");
        if model.is_ok()
            && let Some(bucket) = self.buckets[b].take()
        {
            self.past[b] = bucket.last;
        }
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

fn pick_of(versions: &[state::Version], pick: Pick) -> Option<Name> {
    match pick {
        Pick::Newest => None,
        Pick::Null => Some(Name::Null),
        Pick::Shown(_) if versions.is_empty() => Some(Name::Number(1)),
        Pick::Shown(index) => Some(versions[usize::from(index) % versions.len()].name()),
        Pick::Number(number) => Some(Name::Number(number.into())),
    }
}

/// A version that can be read, or why there is none.
pub fn find(state: &state::State, key: &[u8], name: Option<Name>) -> Outcome<state::Version> {
    match name {
        None => match state.top(key) {
            Top::Live(version, _) => Ok(version.clone()),
            Top::Marker(_) => Err("DeleteMarker"),
            Top::Absent => Err("NoSuchKey"),
        },
        Some(name) => match state.named(key, name) {
            None => Err("NoSuchVersion"),
            Some(version) if version.object.is_none() => Err("DeleteMarker"),
            Some(version) => Ok(version.clone()),
        },
    }
}

fn describe(object: &Object) -> Description {
    Description { headers: Vec::new(), metadata: object.metadata.clone(), tags: object.tags.clone() }
}

fn record(object: &Object, md5: [u8; 16]) -> ObjectRecord {
    ObjectRecord {
        body: Body::Empty,
        size: 0,
        etag: ETag { md5, parts: None },
        modified: Timestamp(0),
        checksum: None,
        headers: Vec::new(),
        metadata: object.metadata.clone(),
        tags: object.tags.clone(),
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

/// A snapshot by time.
pub fn at_time(b: usize, time: u64) -> BucketAt {
    BucketAt { bucket: bucket_name(b), snapshot: Some(SnapshotRef::Time(Timestamp(time))) }
}
