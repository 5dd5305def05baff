//! Bringing bodies from other clusters: once per cluster however many wait, verified before anyone sees them, resumed
//! after a cut, from the next holder where one fails.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;

use super::Member;
use super::download::{Download, Progress};
use super::groups::{Broken, Groups, whole_groups};
use crate::blobs::{Proof, ReceiveError, Receiving, StagedBody};
use crate::error::{Error, Result};
use crate::master::{ByteStream, Fetch, Later, Limit, Wanted};
use crate::peer::{self, BodyPart, BodyQuestion, Cost, Holding, Purpose, WireError};
use crate::types::{BlobHash, BucketId, MemberId, Piece, SMALL_BODY_MAX};

/// How long a body that makes no progress is waited for.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(30);
/// The pause before it is asked for again.
const PAUSE: Duration = Duration::from_millis(500);
/// How many bytes of hash trees of bodies that are read in pieces are kept.
const PROOFS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How many hash trees they are.
const PROOFS_MAX: usize = 1024;
/// The longest hash tree, in bytes: that of a body of 5 TiB has 2.5 GiB; one of 64 GiB has 32 MiB.
const TREE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Brings bodies for a Master.
#[derive(Clone, Debug)]
pub struct Fetcher {
    member: Member,
    downloads: Arc<Mutex<HashMap<(BucketId, BlobHash), Arc<Download>>>>,
    proofs: Arc<Mutex<HashMap<(BucketId, BlobHash), Proof>>>,
}

impl Fetch for Fetcher {
    fn read(&self, wanted: Wanted, range: Range<u64>) -> ByteStream {
        let fetcher = self.clone();
        let opened = async move {
            if wanted.length <= SMALL_BODY_MAX {
                fetcher.download(wanted.clone()).wait().await?;
                return Ok::<_, Error>(fetcher.member.master.open_copy(&wanted).await?.body.read(range));
            }
            let whole = range.start == 0 && range.end == wanted.length;
            match fetcher.under_way(&wanted) {
                Some(download) => Ok(download.read(range)),
                None if whole => Ok(fetcher.download(wanted).read(range)),
                None => fetcher.read_range(wanted, range).await,
            }
        };
        Box::pin(stream::once(opened).try_flatten())
    }

    fn tree(&self, wanted: Wanted) -> Later<Bytes> {
        let fetcher = self.clone();
        Box::pin(async move {
            let mut last = None;
            for holder in fetcher.holders(&wanted) {
                let tree = fetcher.tree_from(holder, &wanted).await;
                let proved = tree.and_then(|tree| match Proof::new(wanted.hash, wanted.length, tree.clone()) {
                    Ok(_) => Ok(tree),
                    Err(error) => Err(forged(&wanted, error)),
                });
                match proved {
                    Ok(tree) => return Ok(tree),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| nobody_has(&wanted)))
        })
    }

    fn bring(&self, wanted: Wanted) -> Later<()> {
        let fetcher = self.clone();
        Box::pin(async move {
            if fetcher.member.master.has_copy(wanted.bucket, wanted.hash).await? {
                return Ok(());
            }
            fetcher.download(wanted).wait().await
        })
    }
}

impl Fetcher {
    /// A fetcher for the buckets of a member.
    #[must_use]
    pub fn new(member: Member) -> Fetcher {
        Fetcher { member, downloads: Arc::default(), proofs: Arc::default() }
    }

    fn under_way(&self, wanted: &Wanted) -> Option<Arc<Download>> {
        let downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        downloads.get(&(wanted.bucket, wanted.hash)).cloned()
    }

    /// The download of a body, which begins unless it is under way. It goes on when those who wait have gone.
    fn download(&self, wanted: Wanted) -> Arc<Download> {
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (wanted.bucket, wanted.hash);
        if let Some(download) = downloads.get(&key) {
            return Arc::clone(download);
        }
        let (progress, watching) = watch::channel(Progress::default());
        let download = Arc::new(Download::new(self.member.master.clone(), wanted.clone(), watching));
        downloads.insert(key, Arc::clone(&download));
        drop(downloads);
        let fetcher = self.clone();
        tokio::spawn(async move {
            let outcome = fetcher.bring_to_end(&wanted, &progress).await;
            if let Err(error) = &outcome {
                tracing::warn!(hash = %wanted.hash, error = error as &dyn std::error::Error, "body not brought");
            }
            progress.send_modify(|now| now.ended = Some(outcome.map_err(Arc::new)));
            fetcher.downloads.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        });
        download
    }

    async fn bring_to_end(&self, wanted: &Wanted, progress: &watch::Sender<Progress>) -> Result<()> {
        // It may have come since the reader looked.
        if self.member.master.has_copy(wanted.bucket, wanted.hash).await? {
            return Ok(());
        }
        let body = if wanted.length <= SMALL_BODY_MAX {
            self.bring_small(wanted).await?
        } else {
            self.bring_large(wanted, progress).await?
        };
        self.member.master.keep_brought(wanted.bucket, body).await?;
        self.tell_home(wanted);
        Ok(())
    }

    async fn bring_small(&self, wanted: &Wanted) -> Result<StagedBody> {
        let mut last = None;
        for holder in self.holders(wanted) {
            let bytes = match self.ask(holder, wanted, BodyPart::Range(0, wanted.length)).await {
                Ok(stream) => collect(stream, wanted.length).await,
                Err(error) => Err(error),
            };
            match bytes {
                Ok(bytes) => match self.member.master.blobs().received_small(wanted.hash, bytes) {
                    Ok(body) => return Ok(body),
                    Err(error) => last = Some(forged(wanted, error)),
                },
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| nobody_has(wanted)))
    }

    async fn bring_large(&self, wanted: &Wanted, progress: &watch::Sender<Progress>) -> Result<StagedBody> {
        let proof = self.proof(wanted).await?;
        let mut receiving = self.member.master.blobs().receive(proof.clone()).await?;
        progress.send_modify(|now| now.reader = Some(receiving.reader()));
        let clock = Arc::clone(self.member.master.clock());
        let holders = self.holders(wanted);
        let (mut turns, mut moved, mut hopeless) = (holders.iter().cycle(), clock.boottime(), 0);
        loop {
            if receiving.received() == wanted.length {
                return receiving.whole().ok_or_else(|| nobody_has(wanted));
            }
            let holder = *turns.next().ok_or_else(|| nobody_has(wanted))?;
            let before = receiving.received();
            let failed;
            (receiving, failed) = self.receive_from(holder, wanted, &proof, receiving, progress).await?;
            if receiving.received() > before {
                (moved, hopeless) = (clock.boottime(), 0);
            }
            let Some(error) = failed else { continue };
            hopeless = if worth_waiting(&error) { 0 } else { hopeless + 1 };
            // One that has it no more or sends something else says nothing about the others.
            if clock.boottime().saturating_sub(moved) > PROGRESS_PATIENCE || hopeless >= holders.len() {
                return Err(error);
            }
            if hopeless == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Takes in what one holder sends, until it has sent all or fails.
    async fn receive_from(
        &self,
        holder: MemberId,
        wanted: &Wanted,
        proof: &Proof,
        mut receiving: Receiving,
        progress: &watch::Sender<Progress>,
    ) -> Result<(Receiving, Option<Error>)> {
        let range = receiving.received()..wanted.length;
        let stream = match self.ask(holder, wanted, BodyPart::Range(range.start, range.end)).await {
            Ok(stream) => stream,
            Err(error) => return Ok((receiving, Some(error))),
        };
        let mut groups = Groups::new(stream, range, proof.clone());
        while let Some(next) = groups.next().await {
            let bytes = match next {
                Ok(bytes) => bytes,
                Err(Broken::Stream(error)) => return Ok((receiving, Some(error))),
                Err(Broken::Forged(error)) => return Ok((receiving, Some(forged(wanted, error)))),
            };
            receiving = match receiving.add(bytes).await {
                Ok(receiving) => receiving,
                Err((_, ReceiveError::Backend(error))) => return Err(error.into()),
                Err((_, error)) => return Err(forged(wanted, error)),
            };
            progress.send_modify(|now| now.received = receiving.received());
        }
        Ok((receiving, None))
    }

    /// A range of a large body that nobody reads whole: fetched, verified, passed on.
    async fn read_range(&self, wanted: Wanted, range: Range<u64>) -> Result<ByteStream> {
        let proof = self.proof(&wanted).await?;
        let groups = whole_groups(&range, wanted.length);
        let holders = self.holders(&wanted);
        let state =
            Reading { fetcher: self.clone(), wanted, holders, proof, groups, open: None, tries: 0, hopeless: 0 };
        let skip = range.start - state.groups.start;
        let length = range.end - range.start;
        let bytes = stream::try_unfold(state, |mut state| async move {
            Ok::<_, Error>(state.next().await?.map(|bytes| (bytes, state)))
        });
        Ok(cut(Box::pin(bytes), skip, length))
    }

    /// The hash tree of a body, proved by its hash.
    async fn proof(&self, wanted: &Wanted) -> Result<Proof> {
        let key = (wanted.bucket, wanted.hash);
        if let Some(proof) = self.proofs.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(proof.clone());
        }
        let tree =
            if Proof::outboard_length(wanted.length) == 0 { Bytes::new() } else { self.tree(wanted.clone()).await? };
        let proof = Proof::new(wanted.hash, wanted.length, tree).map_err(|error| forged(wanted, error))?;
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: u64 = proofs.values().map(Proof::bytes).sum();
        if proofs.len() >= PROOFS_MAX || kept + proof.bytes() > PROOFS_BYTES_MAX {
            proofs.clear();
        }
        proofs.insert(key, proof.clone());
        Ok(proof)
    }

    async fn tree_from(&self, holder: MemberId, wanted: &Wanted) -> Result<Bytes> {
        let length = Proof::outboard_length(wanted.length);
        if length > TREE_BYTES_MAX {
            return Err(Error::LimitReached { limit: Limit::TreeBytes, maximum: TREE_BYTES_MAX });
        }
        collect(self.ask(holder, wanted, BodyPart::Tree).await?, length).await
    }

    async fn ask(&self, holder: MemberId, wanted: &Wanted, part: BodyPart) -> Result<ByteStream> {
        let question = BodyQuestion {
            bucket: wanted.bucket,
            path: wanted.path.clone(),
            number: wanted.number,
            ordinal: wanted.ordinal,
            hash: wanted.hash,
            part,
        };
        let cost = Cost { purpose: Purpose::Read, bucket: Some(wanted.bucket) };
        match self.member.wire.body(holder, cost, peer::json(&question)).await {
            Ok(stream) => Ok(stream),
            Err(error) => Err(self.not_given(holder, wanted, error).await),
        }
    }

    /// What it means that a holder did not give a body.
    async fn not_given(&self, holder: MemberId, wanted: &Wanted, error: WireError) -> Error {
        const DOING: &str = "for a body";
        match (self.member.linked_by_id(wanted.bucket), error) {
            (Some(linked), error) => self.member.error(holder, &linked.name, DOING, error).await,
            // The bucket is this cluster's own: what a member says of its rights means nothing here.
            (None, WireError::Refused(refusal)) => {
                let why = format!("it was to have body {} and refuses it ({refusal})", wanted.hash);
                Error::ClusterFailed { cluster: self.member.name_of(holder).await, doing: DOING, why }
            }
            (None, WireError::NotSent { why } | WireError::Unknown { why }) => {
                Error::ClusterAway { cluster: self.member.name_of(holder).await, why }
            }
            (None, WireError::Nonsense { why }) => {
                Error::ClusterFailed { cluster: self.member.name_of(holder).await, doing: DOING, why }
            }
        }
    }

    /// Whom to ask: the home of a linked bucket, which passes on what others have; at the home, those who have it.
    fn holders(&self, wanted: &Wanted) -> Vec<MemberId> {
        match self.member.linked_by_id(wanted.bucket) {
            Some(linked) => vec![linked.home],
            None => wanted.holders.clone(),
        }
    }

    /// The home learns of one more holder. Should that fail, it asks the others.
    fn tell_home(&self, wanted: &Wanted) {
        let Some(linked) = self.member.linked_by_id(wanted.bucket) else { return };
        let bodies = vec![Piece::Shared { hash: wanted.hash, length: wanted.length }];
        let (member, bucket) = (self.member.clone(), wanted.bucket);
        tokio::spawn(async move {
            if let Err(error) = member.wire_ask(linked.home, &Holding { bucket, bodies }).await {
                tracing::debug!(%error, "home not told of a copy");
            }
        });
    }
}

/// A range that is being read from others.
struct Reading {
    fetcher: Fetcher,
    wanted: Wanted,
    proof: Proof,
    /// What is still to come.
    groups: Range<u64>,
    open: Option<Groups>,
    /// Whom to ask in turn.
    holders: Vec<MemberId>,
    tries: usize,
    /// How many of the last tries said that they cannot succeed.
    hopeless: usize,
}

/// How often a range is asked for again after a cut without a byte.
const RANGE_TRIES_MAX: usize = 8;

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.groups.is_empty() {
                return Ok(None);
            }
            let failed = match self.step().await {
                Ok(bytes) => {
                    (self.tries, self.hopeless) = (0, 0);
                    self.groups.start += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Err(error) => error,
            };
            self.open = None;
            self.tries += 1;
            self.hopeless = if worth_waiting(&failed) { 0 } else { self.hopeless + 1 };
            // One that has it no more or sends something else says nothing about the others.
            if self.tries > RANGE_TRIES_MAX || self.hopeless >= self.holders.len() {
                return Err(failed);
            }
            if self.hopeless == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn step(&mut self) -> Result<Bytes> {
        let groups = match &mut self.open {
            Some(groups) => groups,
            open => {
                let turn = self.tries % self.holders.len().max(1);
                let holder = self.holders.get(turn).ok_or_else(|| nobody_has(&self.wanted))?;
                let part = BodyPart::Range(self.groups.start, self.groups.end);
                let stream = self.fetcher.ask(*holder, &self.wanted, part).await?;
                open.insert(Groups::new(stream, self.groups.clone(), self.proof.clone()))
            }
        };
        match groups.next().await {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(Broken::Stream(error))) => Err(error),
            Some(Err(Broken::Forged(error))) => Err(forged(&self.wanted, error)),
            None => Err(nobody_has(&self.wanted)),
        }
    }
}

/// Whether the same question may have a better answer soon.
fn worth_waiting(error: &Error) -> bool {
    matches!(error, Error::ClusterAway { .. } | Error::Storage { .. } | Error::Conflict)
}

fn nobody_has(wanted: &Wanted) -> Error {
    Error::ClusterAway {
        cluster: "of every holder".to_owned(),
        why: format!("nobody who is known to have body {} could be asked", wanted.hash),
    }
}

fn forged(wanted: &Wanted, error: ReceiveError) -> Error {
    tracing::warn!(hash = %wanted.hash, bucket = %wanted.bucket, %error, "a cluster sent what was not asked for");
    Error::Damaged { what: format!("body {} as another cluster sent it", wanted.hash), source: error.into() }
}

async fn collect(mut stream: ByteStream, length: u64) -> Result<Bytes> {
    let capacity = usize::try_from(length).map_err(|_| Error::BodyTooLarge { maximum: TREE_BYTES_MAX })?;
    let mut bytes = BytesMut::with_capacity(capacity);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if bytes.len() + chunk.len() > capacity {
            let longer = "more came than was asked for".into();
            return Err(Error::Damaged { what: "an answer of another cluster".to_owned(), source: longer });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// Leaves out the first `skip` bytes and ends after `length`.
fn cut(bytes: ByteStream, skip: u64, length: u64) -> ByteStream {
    let state = (bytes, skip, length);
    Box::pin(stream::try_unfold(state, |(mut bytes, mut skip, mut left)| async move {
        while left > 0 {
            let Some(chunk) = bytes.next().await else { break };
            let mut chunk = chunk?;
            let dropped = skip.min(chunk.len() as u64);
            skip -= dropped;
            let chunk_left = chunk.split_off(usize::try_from(dropped).expect("at most the chunk"));
            let taken = left.min(chunk_left.len() as u64);
            if taken > 0 {
                left -= taken;
                let chunk = chunk_left.slice(..usize::try_from(taken).expect("at most the chunk"));
                return Ok(Some((chunk, (bytes, skip, left))));
            }
        }
        Ok(None)
    }))
}
