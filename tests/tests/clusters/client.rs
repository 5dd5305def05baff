//! Somebody who uses the shared keys through one cluster.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use federation::cluster::Cluster;
use federation::disk::seeded;
use federation::error::Error;
use federation::master::{DeleteRequest, Description, EtagMatch, Precondition, PutRequest, Which};
use federation::types::{BucketAt, Consistency};
use md5::{Digest as _, Md5};

use super::super::store::{self, Content, actor, newest, path, read};
use super::history::{Asked, Bounded, Heard, Notes, Operation};
use super::world::{bucket, now};

/// How many keys all clients share.
pub const KEYS: usize = 3;
/// What a client does, one after the other.
const STEPS: usize = 9;
/// How long a client waits before it gives an operation up as unknown.
const PATIENCE: Duration = Duration::from_secs(40);
/// The bound of bounded reads.
pub const BOUND: Duration = Duration::from_secs(2);

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

/// The entity tag of a content.
pub fn etag_of(value: u64) -> String {
    content(value).md5.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Somebody at a cluster, who goes on with what is left after it crashed.
pub struct Client {
    notes: Rc<RefCell<Notes>>,
    at: usize,
    /// Makes contents that are this client's alone.
    number: u64,
    random: RefCell<Box<dyn FnMut() -> u64>>,
    step: Cell<usize>,
    last: Cell<Option<(usize, u64)>>,
    /// What was asked and not answered yet.
    asking: RefCell<Option<Operation>>,
}

impl Client {
    /// A client at a cluster, who makes contents of its own and repeats itself for the same seed.
    pub fn new(notes: &Rc<RefCell<Notes>>, at: usize, number: u64, seed: u64) -> Rc<Client> {
        Rc::new(Client {
            notes: Rc::clone(notes),
            at,
            number,
            random: RefCell::new(Box::new(seeded(seed))),
            step: Cell::new(0),
            last: Cell::new(None),
            asking: RefCell::default(),
        })
    }

    fn below(&self, limit: usize) -> usize {
        (self.random.borrow_mut())() as usize % limit
    }

    /// The cluster that it is at.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether it has taken all its steps.
    pub fn is_done(&self) -> bool {
        self.step.get() == STEPS && self.asking.borrow().is_none()
    }

    /// Takes its steps, as far as they were not taken in an earlier life of the cluster.
    pub async fn run(self: Rc<Self>, cluster: Arc<Cluster>) {
        self.hear(Heard::Unknown);
        while self.step.get() < STEPS {
            tokio::time::sleep(Duration::from_millis(self.below(400) as u64)).await;
            let step = self.step.get() + 1;
            let value = self.number * 1000 + step as u64;
            let key = self.below(KEYS);
            let asked = match self.below(12) {
                0..3 => Asked::Put(value),
                3 => Asked::PutNew(value),
                4 => match self.last.get().filter(|(seen, _)| *seen == key) {
                    Some((_, old)) => Asked::PutOver(old, value),
                    None => Asked::Put(value),
                },
                5 => Asked::Delete,
                6 => {
                    self.read_bounded(&cluster, key).await;
                    self.step.set(step);
                    continue;
                }
                _ => Asked::Get,
            };
            // A content is put once: what is under way counts as taken.
            self.step.set(step);
            if let Heard::Holds(Some(value)) = self.operate(&cluster, key, asked).await {
                self.last.set(Some((key, value)));
            }
        }
    }

    /// Asks for something, and notes what was heard.
    pub async fn operate(&self, cluster: &Arc<Cluster>, key: usize, asked: Asked) -> Heard {
        let from = now();
        let operation = Operation { key, at: self.at, asked: asked.clone(), heard: Heard::Unknown, from, to: from };
        self.asking.replace(Some(operation));
        let heard = tokio::time::timeout(PATIENCE, ask(Arc::clone(cluster), key, &asked)).await;
        let heard = heard.unwrap_or(Heard::Unknown);
        self.hear(heard.clone());
        heard
    }

    /// Notes what became of what was asked, if something was.
    fn hear(&self, heard: Heard) {
        if let Some(operation) = self.asking.take() {
            self.notes.borrow_mut().operations.push(Operation { heard, to: now(), ..operation });
        }
    }

    async fn read_bounded(&self, cluster: &Arc<Cluster>, index: usize) {
        let path = path(&key(index));
        let bound = Consistency::Bounded(u32::try_from(BOUND.as_secs()).expect("seconds"));
        let at = BucketAt { consistency: Some(bound), ..newest(&bucket()) };
        let from = now();
        let found = match cluster.get(&at, &path, Which::Newest).await {
            Ok(opened) => match read(opened).await {
                Ok(bytes) => Some(value_of(&bytes)),
                Err(_) => return,
            },
            Err(Error::NoSuchKey { .. } | Error::DeleteMarker { .. }) => None,
            Err(_) => return,
        };
        self.notes.borrow_mut().bounded.push(Bounded { key: index, found, from });
    }
}

/// Lets a cluster do what a client asks for.
pub async fn ask(cluster: Arc<Cluster>, index: usize, asked: &Asked) -> Heard {
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
