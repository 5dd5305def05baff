//! A short life of a bucket, with what every number of it shows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use federation::blocking::{Blocking, Inline};
use federation::clock::ManualClock;
use federation::disk::{Disk, SimulatedDisk, seeded};
use federation::error::{Error, Result};
use federation::ids::SeededIds;
use federation::master::{
    BucketChange, CollectOptions, CompleteRequest, CopyRequest, DeleteRequest, Description, EtagMatch, Limits, Master,
    NamedPart, PartBody, PartRequest, Precondition, PutRequest, Seams, StagedChange, UploadRequest, Versioning, Which,
};
use federation::types::{Attributes, Body, BucketName, ETag, ObjectRecord, Timestamp};
use futures_util::future::{BoxFuture, join_all};

use super::super::store::{CONTENTS, actor, at, content, newest, path, staged};

/// Keys of the workload.
pub const KEYS: [&[u8]; 5] = [b"a", b"a/b", b"a/c", b"b", b"z\xff\0"];
/// How many rounds a workload has; the operations of a round run at once.
const ROUNDS: u64 = 9;
const ROUND_OPS_MAX: u64 = 4;
/// Small, so that workloads have several and the collector compacts them.
const SEGMENT_BYTES: u64 = 96 * 1024;
const CATALOG_CACHE_BYTES: usize = 4 << 20;

/// An object: its contents one after the other, and its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub contents: Vec<usize>,
    pub tag: Option<u64>,
}

/// All objects of a state.
pub type State = BTreeMap<Vec<u8>, Object>;

/// What a number did.
#[derive(Clone, Debug)]
enum Did {
    Put(Vec<u8>, Object),
    Delete(Vec<u8>),
    Tag(Vec<u8>, u64),
    Commit(Vec<(Vec<u8>, Option<Object>)>),
    Restore(u64, Vec<u8>),
    Nothing,
}

/// What was acknowledged when the disk had made so many changes.
#[derive(Clone, Debug)]
pub enum Acknowledged {
    Number(u64),
    Tag(String, u64),
}

/// A workload that has run.
pub struct Run {
    pub disk: SimulatedDisk,
    pub bucket: BucketName,
    /// What each number shows; the first is that of the empty bucket.
    pub states: Vec<State>,
    /// By how many changes the disk had made.
    pub acknowledged: Vec<(usize, Acknowledged)>,
}

/// A Master on a simulated disk.
pub async fn open(disk: &SimulatedDisk, seed: u64) -> Result<(Master, Arc<ManualClock>)> {
    let limits = Limits {
        disk_reserve: 0,
        part_bytes_min: 0,
        fold_rows_max: 2,
        fold_pieces_max: 2,
        collect_rows_max: 3,
        collect_pieces_max: 3,
        ..Limits::default()
    };
    let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let blocking: Arc<dyn Blocking> = Arc::new(Inline);
    let ids = Arc::new(SeededIds::new(seed));
    let seams = Seams::on_disk(disk, &limits, CATALOG_CACHE_BYTES, blocking, clock.clone(), ids, SEGMENT_BYTES)?;
    Ok((Master::simulated(seams, limits).await?, clock))
}

struct Log {
    did: BTreeMap<u64, Did>,
    acknowledged: Vec<(usize, Acknowledged)>,
}

#[derive(Clone)]
struct Worker {
    master: Master,
    disk: SimulatedDisk,
    bucket: BucketName,
    log: Arc<Mutex<Log>>,
}

/// Runs the workload of a seed.
pub async fn run(seed: u64) -> Result<Run> {
    let disk = SimulatedDisk::new();
    let (master, clock) = open(&disk, seed).await?;
    let bucket: BucketName = "bucket".parse()?;
    master.create_bucket(&actor(), &bucket, "").await?;
    disk.forget_ops();
    let log = Arc::new(Mutex::new(Log { did: BTreeMap::new(), acknowledged: Vec::new() }));
    let worker = Worker { master: master.clone(), disk: disk.clone(), bucket: bucket.clone(), log: Arc::clone(&log) };
    let mut random = seeded(seed);
    if random().is_multiple_of(2) {
        let change = BucketChange::Versioning(Versioning::Enabled);
        let number = master.change_bucket(&actor(), &bucket, change).await?;
        worker.acknowledge(number.0, Did::Nothing);
    }
    for _ in 0..ROUNDS {
        let ops = 1 + random() % ROUND_OPS_MAX;
        let round: Vec<BoxFuture<'_, Result<()>>> = (0..ops).map(|_| worker.operation(&mut random)).collect();
        for outcome in join_all(round).await {
            match outcome {
                Ok(())
                | Err(Error::PreconditionFailed { .. } | Error::NoSuchKey { .. } | Error::DeleteMarker { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        clock.advance(Duration::from_secs(random() % 100));
    }
    master.settle(&bucket).await?;
    let log = log.lock().expect("no holder of this lock panics");
    Ok(Run { disk, bucket, states: states(&log.did), acknowledged: log.acknowledged.clone() })
}

/// What each number shows.
fn states(did: &BTreeMap<u64, Did>) -> Vec<State> {
    let mut states = vec![State::new()];
    for (number, did) in did {
        assert_eq!(*number, states.len() as u64, "numbers are issued one after the other");
        let mut state = states.last().cloned().unwrap_or_default();
        match did {
            Did::Put(key, object) => drop(state.insert(key.clone(), object.clone())),
            Did::Delete(key) => drop(state.remove(key)),
            Did::Tag(key, tag) => {
                if let Some(object) = state.get_mut(key) {
                    object.tag = Some(*tag);
                }
            }
            Did::Commit(changes) => {
                for (key, object) in changes {
                    match object {
                        Some(object) => drop(state.insert(key.clone(), object.clone())),
                        None => drop(state.remove(key)),
                    }
                }
            }
            Did::Restore(source, prefix) => {
                state.retain(|key, _| !key.starts_with(prefix));
                let source = states[*source as usize].iter().filter(|(key, _)| key.starts_with(prefix));
                state.extend(source.map(|(key, object)| (key.clone(), object.clone())));
            }
            Did::Nothing => {}
        }
        states.push(state);
    }
    states
}

impl Worker {
    fn acknowledge(&self, number: u64, did: Did) {
        let mut log = self.log.lock().expect("no holder of this lock panics");
        let ops = self.disk.ops();
        log.acknowledged.push((ops, Acknowledged::Number(number)));
        assert!(log.did.insert(number, did).is_none(), "number {number} was acknowledged twice");
    }

    /// One operation. What it will be is decided now, what it does happens when it is awaited.
    fn operation(&self, random: &mut impl FnMut() -> u64) -> BoxFuture<'static, Result<()>> {
        let worker = self.clone();
        let key = KEYS[(random() % KEYS.len() as u64) as usize].to_vec();
        let other = KEYS[(random() % KEYS.len() as u64) as usize].to_vec();
        let (index, second) = ((random() % CONTENTS as u64) as usize, (random() % CONTENTS as u64) as usize);
        let more = random();
        match random() % 16 {
            0..=4 => Box::pin(async move { worker.put(key, index, more).await }),
            5 | 6 => Box::pin(async move { worker.delete(key).await }),
            7 => Box::pin(async move { worker.copy(key, other).await }),
            8 => Box::pin(async move { worker.multipart(key, vec![index, second]).await }),
            9 => Box::pin(async move { worker.tag_object(key, more % 4).await }),
            10 => Box::pin(async move { worker.restore(more).await }),
            11 => Box::pin(async move { worker.commit(vec![(key, Some(index)), (other, None)]).await }),
            12 | 13 => Box::pin(async move { worker.collect(true).await }),
            14 => Box::pin(async move { worker.collect(false).await }),
            _ => Box::pin(async move { worker.tag_snapshot(more % 3).await }),
        }
    }

    async fn put(&self, key: Vec<u8>, index: usize, more: u64) -> Result<()> {
        let content = content(index);
        let precondition = match more % 4 {
            0 => Precondition { if_none_match: Some(EtagMatch::Any), ..Precondition::default() },
            _ => Precondition::default(),
        };
        let body = staged(self.master.blobs(), content).await;
        let request =
            PutRequest { body, md5: content.md5, checksum: None, description: Description::default(), precondition };
        let written = self.master.put(&actor(), &self.bucket, &path(&key), request).await?;
        self.acknowledge(written.number.0, Did::Put(key, Object { contents: vec![index], tag: None }));
        Ok(())
    }

    async fn delete(&self, key: Vec<u8>) -> Result<()> {
        let request = DeleteRequest { path: path(&key), version: None, precondition: Precondition::default() };
        let before = self.known();
        for deleted in self.master.delete(&actor(), &self.bucket, vec![request]).await? {
            let number = deleted?.number.0;
            // Where there was nothing to delete no number was issued.
            if number > before && !self.log.lock().expect("no holder of this lock panics").did.contains_key(&number) {
                self.acknowledge_delete(number, key.clone()).await?;
            }
        }
        Ok(())
    }

    /// A delete that found nothing answers the newest number, which may be somebody else's.
    async fn acknowledge_delete(&self, number: u64, key: Vec<u8>) -> Result<()> {
        use federation::master::LogChange;
        let page = self.master.log(&self.bucket, Some(federation::types::Number(number + 1)), 1).await?;
        let own = page.items.first().is_some_and(|entry| {
            entry.number.0 == number
                && matches!(&entry.what, LogChange::Delete { path: logged, .. } if *logged == path(&key))
        });
        if own && !self.log.lock().expect("no holder of this lock panics").did.contains_key(&number) {
            self.acknowledge(number, Did::Delete(key));
        }
        Ok(())
    }

    /// The highest number that was acknowledged.
    fn known(&self) -> u64 {
        let log = self.log.lock().expect("no holder of this lock panics");
        log.did.keys().next_back().copied().unwrap_or(0)
    }

    async fn copy(&self, from: Vec<u8>, to: Vec<u8>) -> Result<()> {
        // The copy is of a state that is known to the log: the one that its source was written in.
        let source = self.master.head(&newest(&self.bucket), &path(&from), Which::Newest).await?;
        let request = CopyRequest {
            description: None,
            tags: Some(Vec::new()),
            checksum: None,
            precondition: Precondition::default(),
        };
        let etag = source.record.etag.to_string();
        let contents = (0..CONTENTS).find(|index| super::super::store::etag(&[*index], false) == etag);
        // Objects of parts are copied as well, but what they hold is not to be told from an entity tag alone.
        let Some(index) = contents else { return Ok(()) };
        match self.master.copy(&actor(), &source, &self.bucket, &path(&to), request).await {
            Ok(written) => {
                self.acknowledge(written.number.0, Did::Put(to, Object { contents: vec![index], tag: None }));
                Ok(())
            }
            // The source was collected in between.
            Err(Error::Conflict | Error::Damaged { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn multipart(&self, key: Vec<u8>, contents: Vec<usize>) -> Result<()> {
        let request = UploadRequest {
            path: path(&key),
            description: Description::default(),
            checksum: None,
            checksum_declared: false,
        };
        let upload = self.master.begin_upload(&actor(), &self.bucket, request).await?.upload;
        let mut parts = Vec::new();
        for (number, index) in (1..).zip(&contents) {
            let content = content(*index);
            let body = PartBody::Staged(staged(self.master.blobs(), content).await);
            let request = PartRequest { body, md5: content.md5, checksum: None };
            self.master.put_part(&self.bucket, &path(&key), upload, number, request).await?;
            let etag = ETag { md5: content.md5, parts: None }.to_string();
            parts.push(NamedPart { number, etag: Some(etag), checksum: None });
        }
        let request = CompleteRequest { parts, checksum: None, size: None, precondition: Precondition::default() };
        let written = self.master.complete_upload(&actor(), &self.bucket, &path(&key), upload, request).await?;
        self.acknowledge(written.number.0, Did::Put(key, Object { contents, tag: None }));
        Ok(())
    }

    async fn tag_object(&self, key: Vec<u8>, tag: u64) -> Result<()> {
        let attributes = Attributes { tags: Some(vec![("n".to_owned(), tag.to_string())]), ..Attributes::default() };
        let (number, _) =
            self.master.set_attributes(&actor(), &self.bucket, &path(&key), Which::Newest, attributes).await?;
        self.acknowledge(number.0, Did::Tag(key, tag));
        Ok(())
    }

    async fn restore(&self, more: u64) -> Result<()> {
        let info = self.master.bucket(&self.bucket).await?;
        let (floor, last) = (info.floor.0, info.number.0);
        let source = floor + more % (last - floor + 1);
        let prefix: &[u8] = if more.is_multiple_of(3) { b"a/" } else { b"" };
        match self.master.restore(&actor(), &at(&self.bucket, source), prefix).await {
            Ok(restored) if restored.changed => {
                self.acknowledge(restored.number.0, Did::Restore(source, prefix.to_vec()));
            }
            Ok(_) => {}
            // The collector was faster.
            Err(Error::BelowFloor { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn commit(&self, changes: Vec<(Vec<u8>, Option<usize>)>) -> Result<()> {
        let mut commit = self.master.begin_commit(&self.bucket).await?;
        let mut did: Vec<(Vec<u8>, Option<Object>)> = Vec::new();
        let mut rows = Vec::new();
        for (key, index) in changes {
            let content = match index {
                None => None,
                Some(index) => {
                    let content = content(index);
                    let record = ObjectRecord {
                        body: Body::Empty,
                        size: content.bytes.len() as u64,
                        etag: ETag { md5: content.md5, parts: None },
                        modified: Timestamp(0),
                        checksum: None,
                        headers: Vec::new(),
                        metadata: Vec::new(),
                        tags: Vec::new(),
                    };
                    Some((record, Some(staged(self.master.blobs(), content).await)))
                }
            };
            did.retain(|(earlier, _)| *earlier != key);
            did.push((key.clone(), index.map(|index| Object { contents: vec![index], tag: None })));
            rows.push(StagedChange { path: path(&key), content });
        }
        commit.stage(rows).await?;
        let number = commit.publish(&actor(), "a commit").await?;
        self.acknowledge(number.0, Did::Commit(did));
        Ok(())
    }

    async fn collect(&self, now: bool) -> Result<()> {
        self.master.collect(CollectOptions { now, ..CollectOptions::default() }).await.map(drop)
    }

    async fn tag_snapshot(&self, name: u64) -> Result<()> {
        let tag = format!("tag-{name}");
        match self.master.tag_snapshot(&actor(), &newest(&self.bucket), Some(tag.parse()?), "").await {
            Ok((number, _)) => {
                let ops = self.disk.ops();
                let mut log = self.log.lock().expect("no holder of this lock panics");
                log.acknowledged.push((ops, Acknowledged::Tag(tag, number.0)));
                Ok(())
            }
            Err(Error::TagExists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
