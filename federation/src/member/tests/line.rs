//! Two clusters and the line between them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::{Fetcher, Linked, Member};
use crate::blobs::MemoryBackend;
use crate::blocking::Inline;
use crate::catalog::MemoryCatalog;
use crate::clock::ManualClock;
use crate::ids::SeededIds;
use crate::master::{
    Actor, ByteStream, Description, Limits, Master, Precondition, PutRequest, Relaying, Seams, Wanted,
};
use crate::peer::{BodyPart, BodyQuestion, Cost, Join, Membership, PeerServer, Refusal, Reply, Wire, WireError};
use crate::types::{BucketName, ClusterId, MemberId, Number, ObjectPath, Piece, Rights, Timestamp};

const HOME: ClusterId = ClusterId([1; 32]);
const MEMBER: ClusterId = ClusterId([2; 32]);

/// The line from a member to the home.
pub(super) struct Line {
    home: PeerServer,
    /// What was asked for of bodies.
    pub(super) asked: Mutex<Vec<BodyPart>>,
    /// Bodies stand still behind their first bytes until this is set.
    pub(super) flowing: watch::Sender<bool>,
    /// So many questions for bodies are refused.
    pub(super) refused: AtomicUsize,
    /// How many answers to questions about changes are lost.
    pub(super) lost: AtomicUsize,
    /// Whether the other side cannot be reached.
    pub(super) cut: AtomicBool,
    /// What was asked that is about no body.
    pub(super) questions: Mutex<Vec<&'static str>>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

fn taken(count: &AtomicUsize) -> bool {
    count.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Line {
    /// How many bytes of bodies were asked for, and how many hash trees.
    pub(super) fn asked(&self) -> (u64, usize) {
        let asked = self.asked.lock().expect("nobody panics with it");
        let bytes = asked.iter().map(|part| match part {
            BodyPart::Range(from, to) => to - from,
            BodyPart::Ranges(ranges) => ranges.iter().map(|(from, to)| to - from).sum(),
            BodyPart::Tree | BodyPart::Leaves(_) => 0,
        });
        (bytes.sum(), asked.iter().filter(|part| matches!(part, BodyPart::Tree)).count())
    }
}

#[async_trait]
impl Wire for Line {
    async fn ask(&self, _: MemberId, path: &'static str, _: Cost, question: Bytes) -> Result<Bytes, WireError> {
        if self.cut.load(Ordering::SeqCst) {
            return Err(WireError::NotSent { why: "cut".to_owned() });
        }
        self.questions.lock().expect("nobody panics with it").push(path);
        let reply = self.home.answer(MEMBER, path, question).await.0;
        if ["publish", "outcome"].contains(&path) && taken(&self.lost) {
            return Err(WireError::Unknown { why: "lost".to_owned() });
        }
        match reply {
            Reply::Json(answer) => Ok(answer),
            Reply::Refused(refusal) => Err(refusal.into()),
            Reply::Body { .. } => panic!("{path} is answered in JSON"),
        }
    }

    async fn body(&self, _: MemberId, _: Cost, question: Bytes) -> Result<ByteStream, WireError> {
        let asked: BodyQuestion = serde_json::from_slice(&question).expect("a lawful question");
        let is_tree = matches!(asked.part, BodyPart::Tree);
        if !is_tree && taken(&self.refused) {
            return Err(Refusal::NoSuchVersion { path: asked.path, version: "gone".to_owned() }.into());
        }
        self.asked.lock().expect("nobody panics with it").push(asked.part);
        let bytes = match self.home.answer(MEMBER, "body", question).await.0 {
            Reply::Body { bytes, .. } => bytes,
            Reply::Refused(refusal) => return Err(refusal.into()),
            Reply::Json(_) => panic!("bodies are bytes"),
        };
        let flowing = self.flowing.subscribe();
        let slow = stream::unfold((bytes, flowing, is_tree), |(mut bytes, mut flowing, free)| async move {
            if !free {
                flowing.wait_for(|flowing| *flowing).await.expect("the line lives as long");
            }
            Some((bytes.next().await?, (bytes, flowing, false)))
        });
        Ok(Box::pin(slow))
    }
}

/// A bucket of one cluster that is linked in another.
pub(super) struct Pair {
    pub(super) home: Master,
    pub(super) line: Arc<Line>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) master: Master,
    membership: Arc<Membership>,
    pub(super) member: Member,
    ending: CancellationToken,
    pub(super) linked: Linked,
}

pub(super) fn actor() -> Actor {
    Actor("tester".to_owned())
}

pub(super) fn bucket() -> BucketName {
    "bucket".parse().expect("lawful")
}

pub(super) fn path(name: &str) -> ObjectPath {
    ObjectPath::try_from(name.as_bytes()).expect("lawful")
}

async fn master(seed: u64, clock: &Arc<ManualClock>) -> Master {
    let seams = Seams {
        catalog: Arc::new(MemoryCatalog::new()),
        backend: Arc::new(MemoryBackend::default()),
        blocking: Arc::new(Inline),
        clock: clock.clone(),
        ids: Arc::new(SeededIds::new(seed)),
    };
    Master::simulated(seams, Limits { disk_reserve: 0, ..Limits::default() }).await.expect("opens")
}

impl Pair {
    pub(super) async fn new() -> Pair {
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
        let (home, master) = (master(1, &clock).await, master(2, &clock).await);
        let name = |name: &str| name.parse().expect("lawful");
        let at_home = Arc::new(Membership::new(home.clone(), HOME, name("home")));
        let secret = at_home.invite().await.expect("invites").iter().map(|byte| format!("{byte:02x}")).collect();
        at_home.admit(MEMBER, Join { secret, name: name("member"), address: None }).await.expect("admitted");
        let membership = Arc::new(Membership::new(master.clone(), MEMBER, name("member")));
        membership.joined(HOME, name("home"), "home.example:9001".to_owned()).await.expect("joined");

        home.create_bucket(&actor(), &bucket(), "").await.expect("creates");
        home.share(&actor(), &bucket(), MEMBER.member(), Some(Rights::ReadWrite)).await.expect("shares");
        let line = Arc::new(Line {
            home: PeerServer::new(home.clone(), at_home, Relaying::On),
            asked: Mutex::default(),
            flowing: watch::Sender::new(true),
            refused: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            cut: AtomicBool::new(false),
            questions: Mutex::default(),
        });
        let (wire, ending): (Arc<dyn Wire>, _) = (line.clone(), CancellationToken::new());
        let member = Member::open(master.clone(), membership.clone(), wire, 1000, ending.clone());
        let member = member.await.expect("opens");
        member.link(&actor(), "home", &bucket(), &bucket()).await.expect("links");
        let linked = member.linked(&bucket()).expect("linked");
        Pair { home, line, clock, master, membership, member, ending, linked }
    }

    /// The member in its next life.
    pub(super) async fn reopen(&mut self) {
        self.ending.cancel();
        self.ending = CancellationToken::new();
        let wire: Arc<dyn Wire> = self.line.clone();
        let opened = Member::open(self.master.clone(), self.membership.clone(), wire, 1000, self.ending.clone());
        self.member = opened.await.expect("opens");
    }

    pub(super) fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.member.clone())
    }

    /// Writes an object at the home.
    pub(super) async fn put(&self, key: &str, content: Vec<u8>) -> Number {
        let length = content.len() as u64;
        let source = stream::iter([Ok::<_, std::io::Error>(Bytes::from(content))]);
        let body = self.home.blobs().store(source, (), Some(length), length).await.expect("stores").0;
        let request = PutRequest {
            body,
            md5: [0; 16],
            checksum: None,
            description: Description::default(),
            precondition: Precondition::default(),
        };
        self.home.put(&actor(), &bucket(), &path(key), request).await.expect("puts").number
    }

    /// The same, and how its body is asked for.
    pub(super) async fn wanted(&self, key: &str, content: Vec<u8>) -> Wanted {
        let piece = Piece::Shared { hash: blake3::hash(&content).into(), length: content.len() as u64 };
        let number = self.put(key, content).await;
        Wanted {
            bucket: self.linked.id,
            path: path(key),
            number,
            ordinal: 0,
            hash: piece.hash(),
            length: piece.length(),
            holders: Vec::new(),
            relayed: false,
        }
    }
}
