//! Several clients at once, with everything that was acknowledged to them and when.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use federation::disk::{SimulatedDisk, seeded};
use federation::error::{Error, VersionName};
use federation::master::{
    BucketChange, CollectOptions, CompleteRequest, CopyRequest, DeleteRequest, Master, NamedPart, PartBody,
    PartRequest, Precondition, PutRequest, StagedChange, UploadRequest, Versioning, Which,
};
use federation::types::{Attributes, BucketName, Number, ObjectRecord, TagName, UploadId};

use super::super::model::op::Cond;
use super::super::model::state::{Bucket, Key, Name, Object, Tags, Versioning as ModelVersioning};
use super::super::model::words::{describe, record, tags};
use super::super::store::{self, actor, content, etag, newest, path, staged};
use super::turns::Turns;
use super::{WALL, open_in_turns, open_inline};

pub const BUCKETS: usize = 2;
const KEYS: [&[u8]; 5] = [b"a", b"a/b", b"a/c", b"b", b"b\0"];
const CLIENTS: u64 = 4;
const STEPS: u64 = 7;

pub fn bucket_name(b: usize) -> BucketName {
    ["plain", "versioned"][b].parse().expect("a lawful name")
}

/// What a number did, as the client that was answered with it knows.
#[derive(Clone, Debug)]
enum Change {
    Put(Key, Object),
    Delete(Key),
    Remove(Key, Name),
    SetTags(Key, Tags),
    Enable,
    Restore(u64, Vec<u8>),
    Commit(u64, BTreeMap<Key, Option<Object>>),
}

impl Change {
    /// Whether the number is certainly this change's own: a delete of nothing is answered with the newest there is.
    fn owns_its_number(&self) -> bool {
        !matches!(self, Change::Delete(_) | Change::Remove(..))
    }
}

/// Something that was acknowledged after so many operations of the disk.
#[derive(Clone, Debug)]
pub struct Ack<T> {
    pub ops: usize,
    pub what: T,
}

/// A part that was acknowledged, until somebody asked to end its upload.
#[derive(Clone, Debug)]
pub struct PartAck {
    pub bucket: usize,
    pub key: Key,
    pub upload: UploadId,
    pub number: u16,
    pub content: usize,
}

/// A workload that ran to its end.
pub struct Workload {
    pub disk: SimulatedDisk,
    /// Every state that there ever was.
    pub buckets: [Bucket; BUCKETS],
    pub numbers: Vec<Ack<(usize, u64)>>,
    pub tags: Vec<Ack<(usize, TagName, u64)>>,
    pub parts: Vec<Ack<PartAck>>,
    /// From which operation on the parts of an upload may be gone.
    pub ending: BTreeMap<UploadId, usize>,
}

#[derive(Default)]
struct Heard {
    changes: [Vec<(u64, Change)>; BUCKETS],
    numbers: Vec<Ack<(usize, u64)>>,
    tags: Vec<Ack<(usize, TagName, u64)>>,
    parts: Vec<Ack<PartAck>>,
    ending: BTreeMap<UploadId, usize>,
}

/// One of the clients.
struct Client {
    master: Master,
    disk: SimulatedDisk,
    heard: Rc<RefCell<Heard>>,
    random: RefCell<Box<dyn FnMut() -> u64>>,
    id: u64,
}

type Done = Result<(), Error>;

impl Client {
    fn below(&self, bound: usize) -> usize {
        ((self.random.borrow_mut())() >> 32) as usize % bound
    }

    fn key(&self) -> Key {
        KEYS[self.below(KEYS.len())].to_vec()
    }

    fn bucket(&self) -> usize {
        self.below(BUCKETS)
    }

    /// Small ones mostly; some that are files.
    fn content(&self) -> usize {
        [0, 1, 1, 2, 3, 3, 4, 4, 6, 7, 6, 5, 8][self.below(13)]
    }

    fn acknowledged(&self, b: usize, number: Number, change: Change) {
        let mut heard = self.heard.borrow_mut();
        heard.numbers.push(Ack { ops: self.disk.ops(), what: (b, number.0) });
        heard.changes[b].push((number.0, change));
    }

    async fn step(&self, step: u64) -> Done {
        match self.below(40) {
            0..12 => self.put().await,
            12..17 => self.delete().await,
            17..20 => self.copy().await,
            20..25 => self.multipart().await,
            25..28 => self.set_tags().await,
            28..31 => self.tag(step).await,
            31..33 => self.restore().await,
            33..36 => self.commit().await,
            _ => self.collect().await,
        }
    }

    async fn put(&self) -> Done {
        let (b, key, c) = (self.bucket(), self.key(), self.content());
        let object = object(vec![c], false, (c % 2) as u8);
        let body = staged(self.master.blobs(), content(c)).await;
        let description = describe(&object);
        let precondition = Precondition::default();
        let request = PutRequest { body, md5: content(c).md5, checksum: None, description, precondition };
        let written = self.master.put(&actor(), &bucket_name(b), &path(&key), request).await?;
        self.acknowledged(b, written.number, Change::Put(key, object));
        Ok(())
    }

    async fn delete(&self) -> Done {
        let (b, key) = (self.bucket(), self.key());
        let version = match self.below(3) {
            0 => match self.master.head(&newest(&bucket_name(b)), &path(&key), Which::Newest).await {
                Ok(version) => Some(version.name),
                Err(_) => None,
            },
            _ => None,
        };
        let request = DeleteRequest { path: path(&key), version, precondition: Precondition::default() };
        for deleted in self.master.delete(&actor(), &bucket_name(b), vec![request]).await? {
            let change = match version {
                None => Change::Delete(key.clone()),
                Some(VersionName::Null) => Change::Remove(key.clone(), Name::Null),
                Some(VersionName::Number(number)) => Change::Remove(key.clone(), Name::Number(number.0)),
            };
            self.acknowledged(b, deleted?.number, change);
        }
        Ok(())
    }

    async fn copy(&self) -> Done {
        let (f, from, b, key) = (self.bucket(), self.key(), self.bucket(), self.key());
        let Ok(source) = self.master.head(&newest(&bucket_name(f)), &path(&from), Which::Newest).await else {
            return Ok(());
        };
        let object = object_of(&source.record);
        let request =
            CopyRequest { description: None, tags: None, checksum: None, precondition: Precondition::default() };
        match self.master.copy(&actor(), &source, &bucket_name(b), &path(&key), request).await {
            Ok(written) => self.acknowledged(b, written.number, Change::Put(key, object)),
            // It was deleted and collected since it was looked up.
            Err(Error::Conflict | Error::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn multipart(&self) -> Done {
        let (b, key, first, last) = (self.bucket(), self.key(), 1 + self.below(4), self.content());
        let contents = vec![first, last];
        let object = object(contents.clone(), true, 1);
        let request = UploadRequest {
            path: path(&key),
            description: describe(&object),
            checksum: None,
            checksum_declared: false,
        };
        let upload = self.master.begin_upload(&actor(), &bucket_name(b), request).await?.upload;
        let mut parts = Vec::new();
        for (number, c) in (1u16..).zip(contents) {
            let body = PartBody::Staged(staged(self.master.blobs(), content(c)).await);
            let request = PartRequest { body, md5: content(c).md5, checksum: None };
            self.master.put_part(&bucket_name(b), &path(&key), upload, number, request).await?;
            let what = PartAck { bucket: b, key: key.clone(), upload, number, content: c };
            self.heard.borrow_mut().parts.push(Ack { ops: self.disk.ops(), what });
            parts.push(NamedPart { number, etag: Some(etag(&[c], false)), checksum: None });
        }
        let fate = self.below(5);
        if fate == 0 {
            return Ok(());
        }
        self.heard.borrow_mut().ending.insert(upload, self.disk.ops());
        if fate == 1 {
            return self.master.abort_upload(&bucket_name(b), &path(&key), upload).await;
        }
        let request = CompleteRequest { parts, checksum: None, size: None, precondition: Precondition::default() };
        let written = self.master.complete_upload(&actor(), &bucket_name(b), &path(&key), upload, request).await?;
        self.acknowledged(b, written.number, Change::Put(key, object));
        Ok(())
    }

    async fn set_tags(&self) -> Done {
        let (b, key, tags) = (self.bucket(), self.key(), tags(1 + self.below(2) as u8));
        let attributes = Attributes { tags: Some(tags.clone()), ..Attributes::default() };
        let (name, key_path) = (bucket_name(b), path(&key));
        match self.master.set_attributes(&actor(), &name, &key_path, Which::Newest, attributes).await {
            Ok((number, _)) => self.acknowledged(b, number, Change::SetTags(key, tags)),
            Err(Error::NoSuchKey { .. } | Error::DeleteMarker { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn tag(&self, step: u64) -> Done {
        let b = self.bucket();
        let tag: TagName = format!("t{}-{step}", self.id).parse().expect("a lawful name");
        let (number, _) = self.master.tag_snapshot(&actor(), &newest(&bucket_name(b)), Some(tag.clone()), "").await?;
        self.heard.borrow_mut().tags.push(Ack { ops: self.disk.ops(), what: (b, tag, number.0) });
        Ok(())
    }

    async fn restore(&self) -> Done {
        let b = self.bucket();
        let info = self.master.bucket(&bucket_name(b)).await?;
        let source = info.floor.0 + self.below(usize::try_from(info.number.0 - info.floor.0).unwrap_or(0) + 1) as u64;
        let prefix: &[u8] = [b"".as_slice(), b"a/", b"b"][self.below(3)];
        match self.master.restore(&actor(), &store::at(&bucket_name(b), source), prefix).await {
            Ok(restored) if restored.changed => {
                self.acknowledged(b, restored.number, Change::Restore(source, prefix.to_vec()));
            }
            Ok(_) => {}
            // The collector passed it meanwhile.
            Err(Error::BelowFloor { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn commit(&self) -> Done {
        let b = self.bucket();
        let mut commit = self.master.begin_commit(&bucket_name(b)).await?;
        let mut changes = BTreeMap::new();
        for _ in 0..=self.below(3) {
            let (key, c) = (self.key(), self.content());
            if changes.contains_key(&key) {
                continue;
            }
            let put = (self.below(4) > 0).then(|| object(vec![c], false, 1));
            let content = match &put {
                None => None,
                Some(object) => {
                    let body = staged(self.master.blobs(), content(c)).await;
                    Some((record(object, content(c).md5), Some(body)))
                }
            };
            commit.stage(vec![StagedChange { path: path(&key), content }]).await?;
            changes.insert(key, put);
        }
        if self.below(6) == 0 {
            return Ok(());
        }
        let count = changes.len() as u64;
        let number = commit.publish(&actor(), "together").await?;
        self.acknowledged(b, number, Change::Commit(count, changes));
        Ok(())
    }

    async fn collect(&self) -> Done {
        let now = self.below(3) > 0;
        let report = self.master.collect(CollectOptions { now, bucket: None, dry: false }).await?;
        match report.warning {
            Some(warning) => Err(Error::InvalidRequest { reason: warning }),
            None => Ok(()),
        }
    }
}

pub fn object(contents: Vec<usize>, multipart: bool, tag_count: u8) -> Object {
    let text: Vec<String> = contents.iter().map(ToString::to_string).collect();
    let metadata = vec![("contents".to_owned(), text.join(" ")), ("multipart".to_owned(), multipart.to_string())];
    Object { contents: Rc::new(contents), multipart, metadata, tags: tags(tag_count), modified: WALL.0 }
}

/// What an object is, as its metadata say.
fn object_of(record: &ObjectRecord) -> Object {
    let value = |name: &str| {
        let pair = record.metadata.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let contents = value("contents").split(' ').filter_map(|text| text.parse().ok()).collect();
    let multipart = value("multipart") == "true";
    Object { tags: record.tags.clone(), ..object(contents, multipart, 0) }
}

/// Runs a workload to its end.
pub async fn run(seed: u64) -> Result<Workload, String> {
    let disk = SimulatedDisk::new();
    let heard = Rc::new(RefCell::new(Heard::default()));
    let told = |error: Error| format!("the workload failed: {error:?}");
    begin(&disk, &heard, seed).await.map_err(told)?;
    disk.forget_ops();
    heard.borrow_mut().numbers.iter_mut().for_each(|ack| ack.ops = 0);

    let master = open_in_turns(&disk, Turns::seeded(seed), seed + 1).await.map_err(told)?;
    let clients = (0..CLIENTS).map(|id| {
        let random = RefCell::new(Box::new(seeded(seed * CLIENTS + id)) as Box<dyn FnMut() -> u64>);
        Client { master: master.clone(), disk: disk.clone(), heard: Rc::clone(&heard), random, id }
    });
    let work = clients.map(|client| async move {
        for step in 0..STEPS {
            client.step(step).await?;
        }
        Done::Ok(())
    });
    futures_util::future::try_join_all(work).await.map_err(told)?;
    // What is folded and collected in the background comes to its end as well.
    master.settle_all().await.map_err(told)?;
    drop(master);
    let heard = std::mem::take(&mut *heard.borrow_mut());
    let mut buckets = Vec::new();
    for changes in heard.changes {
        buckets.push(replay(changes)?);
    }
    let Ok(buckets) = <[Bucket; BUCKETS]>::try_from(buckets) else { return Err("too few buckets".to_owned()) };
    let Heard { numbers, tags, parts, ending, .. } = heard;
    Ok(Workload { disk, buckets, numbers, tags, parts, ending })
}

/// Two buckets with something in them, and nothing under way.
async fn begin(disk: &SimulatedDisk, heard: &Rc<RefCell<Heard>>, seed: u64) -> Done {
    let master = open_inline(disk, seed).await?;
    let random = RefCell::new(Box::new(seeded(!seed)) as Box<dyn FnMut() -> u64>);
    let client = Client { master: master.clone(), disk: disk.clone(), heard: Rc::clone(heard), random, id: CLIENTS };
    for b in 0..BUCKETS {
        master.create_bucket(&actor(), &bucket_name(b), "").await?;
    }
    let change = BucketChange::Versioning(Versioning::Enabled);
    let number = master.change_bucket(&actor(), &bucket_name(1), change).await?;
    client.acknowledged(1, number, Change::Enable);
    for _ in 0..4 {
        client.put().await?;
    }
    master.close().await;
    Ok(())
}

/// The states of a bucket, from what its numbers did.
fn replay(changes: Vec<(u64, Change)>) -> Result<Bucket, String> {
    let mut by_number: BTreeMap<u64, Vec<Change>> = BTreeMap::new();
    let mut owned = BTreeSet::new();
    for (number, change) in changes {
        if change.owns_its_number() {
            if !owned.insert(number) {
                return Err(format!("number {number} was issued twice"));
            }
            by_number.insert(number, vec![change]);
        } else if !owned.contains(&number) {
            by_number.entry(number).or_default().push(change);
        }
    }
    let mut bucket = Bucket::new(0, WALL.0);
    for (number, changes) in by_number {
        // Of several deletes that were answered alike one was a change, and the others found nothing after it.
        let attempts = changes.iter().map(|change| {
            let mut next = bucket.clone();
            apply(&mut next, change).map(|()| next)
        });
        let attempts: Vec<_> = attempts.collect();
        let next = attempts.iter().flatten().find(|next| next.last == number).cloned();
        // The bucket as it was made is no change, and deletes of nothing may be answered with it.
        match next {
            Some(next) => bucket = next,
            None if number == bucket.last => {}
            None => return Err(format!("number {number}, {changes:?}: the model is at {}", bucket.last)),
        }
    }
    Ok(bucket)
}

fn apply(bucket: &mut Bucket, change: &Change) -> Result<(), &'static str> {
    let wall = WALL.0;
    match change.clone() {
        Change::Put(key, object) => bucket.put(wall, &key, Cond::None, object).map(drop),
        Change::Delete(key) => bucket.delete(wall, &key, Cond::None).map(drop),
        Change::Remove(key, name) => {
            bucket.remove(wall, &key, name);
            Ok(())
        }
        Change::SetTags(key, tags) => bucket.set_tags(wall, &key, None, tags).map(drop),
        Change::Enable => {
            bucket.configure(wall, "Versioning", |state| state.versioning = ModelVersioning::Enabled);
            Ok(())
        }
        Change::Restore(source, prefix) => bucket.restore_numbered(wall, source, &prefix).map(drop),
        Change::Commit(count, changes) => {
            bucket.commit(wall, "together", count, changes);
            Ok(())
        }
    }
}
