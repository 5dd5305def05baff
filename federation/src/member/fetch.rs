//! Bringing bodies from other clusters: once per cluster however many wait, verified before anyone sees them, resumed
//! after a cut, from the next holder where one fails.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::Member;
use super::download::{Download, Extent, Failure, Progress};
use super::downloads::{Downloads, Key};
use super::fill::{Filling, Patience};
use super::groups::BATCH_BYTES;
use super::openings::Openings;
use crate::blobs::{APPEND_BYTES_MAX, Proof, ReceiveError, StagedBody};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::master::{ByteStream, Fetch, Later, Limit, Master, PartialCopy, Wanted};
use crate::peer::{self, BodyPart, BodyQuestion, Cost, Holding, Purpose, RECEIVING, WireError};
use crate::types::{MemberId, Piece, SMALL_BODY_MAX};
use crate::watch;

/// How long a body that makes no progress is waited for.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(30);
/// How often a part of a body is asked for again after a cut without a byte.
pub(super) const TRIES_MAX: usize = 8;
/// The longest hash tree, in bytes, which is the longest that can be kept: that of a body of 16 GiB.
const TREE_BYTES_MAX: u64 = APPEND_BYTES_MAX as u64;

/// Brings bodies for a Master.
#[derive(Clone, Debug)]
pub struct Fetcher {
    member: Member,
    pub(super) downloads: Downloads,
    openings: Openings,
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
            let all = whole.then(|| fetcher.download(wanted.clone()));
            Ok(fetcher.read_large(wanted, range, all))
        };
        Box::pin(stream::once(opened).try_flatten())
    }

    fn tree(&self, wanted: Wanted) -> Later<Bytes> {
        let fetcher = self.clone();
        Box::pin(async move {
            if let Some(known) = fetcher.member.master.known_partial(&wanted).await? {
                return Ok(known.body.proof().outboard().as_bytes().clone());
            }
            let length = Proof::outboard_length(wanted.length);
            if length > TREE_BYTES_MAX {
                return Err(Error::LimitReached { limit: Limit::TreeBytes, maximum: TREE_BYTES_MAX });
            }
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
        Fetcher { member, downloads: Downloads::default(), openings: Openings::default() }
    }

    /// The download of a body, which begins unless it is under way. It goes on when those who wait have gone.
    fn download(&self, wanted: Wanted) -> Arc<Download> {
        self.downloads.whole(key_of(&wanted), || self.begin(&wanted, Extent::Whole, 0..wanted.length))
    }

    /// The download that brings the beginning of a range, and whether that begins with this. It ends when nobody reads it.
    pub(super) fn bring_part(&self, wanted: &Wanted, range: &Range<u64>) -> (Arc<Download>, bool) {
        self.downloads.at(key_of(wanted), range, |range| self.begin(wanted, Extent::Part, range))
    }

    fn begin(&self, wanted: &Wanted, extent: Extent, range: Range<u64>) -> Arc<Download> {
        let progress = watch::Sender::new(Progress::default());
        let download = Arc::new(Download::new(extent, range, progress.subscribe()));
        let (fetcher, wanted, own) = (self.clone(), wanted.clone(), Arc::clone(&download));
        tokio::spawn(async move {
            let outcome = match extent {
                Extent::Whole => fetcher.bring_to_end(&wanted, &own, &progress).await,
                Extent::Part => fetcher.bring_range(&wanted, &own, &progress).await,
            };
            if let Err(failure) = &outcome {
                let error = failure.error() as &dyn std::error::Error;
                tracing::warn!(hash = %wanted.hash, error, "body not brought");
            }
            // Whoever hears that it has ended finds another one, or begins it.
            fetcher.downloads.end(key_of(&wanted), &own);
            progress.send_modify(|now| now.ended = Some(outcome.map_err(Arc::new)));
        });
        download
    }

    async fn bring_to_end(
        &self,
        wanted: &Wanted,
        own: &Arc<Download>,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Failure> {
        // It may have come since the reader looked.
        if self.member.master.has_copy(wanted.bucket, wanted.hash).await? {
            return Ok(());
        }
        if wanted.length <= SMALL_BODY_MAX {
            let body = self.bring_small(wanted).await?;
            self.member.master.keep_brought(wanted.bucket, body).await?;
        } else {
            self.bring_large(wanted, own, progress).await?;
        }
        self.tell_home(wanted);
        Ok(())
    }

    /// Brings what is missing of a part of a large body, for as long as somebody reads it.
    async fn bring_range(
        &self,
        wanted: &Wanted,
        own: &Arc<Download>,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Failure> {
        // It may have come whole since the reader looked.
        if self.member.master.has_copy(wanted.bucket, wanted.hash).await? {
            return Ok(());
        }
        let copy = self.open(wanted).await?;
        progress.send_modify(|now| now.copy = Some(Arc::clone(&copy)));
        let mut filling = Filling::new(self.clone(), wanted.clone(), Arc::clone(&copy), Patience::Tries(TRIES_MAX));
        while let Some(missing) = copy.body.first(false, &own.range) {
            if self.downloads.end_if_unread(key_of(wanted), own) {
                return Ok(());
            }
            if let Some(arrived) = filling.next(&missing).await? {
                arrived.kept.map_err(|error| Failure::NotKept(error.into()))?;
            }
            progress.send_modify(|now| now.arrivals += 1);
        }
        if copy.body.is_whole() {
            self.complete_later(wanted, &copy);
        }
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
                Err(error) => last = Some(self.broke_off(holder, error).await),
            }
        }
        Err(last.unwrap_or_else(|| nobody_has(wanted)))
    }

    /// Brings what is missing of a large body, and makes it the copy here.
    async fn bring_large(
        &self,
        wanted: &Wanted,
        own: &Arc<Download>,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Failure> {
        let copy = self.open(wanted).await?;
        progress.send_modify(|now| now.copy = Some(Arc::clone(&copy)));
        let patience = Patience::Time(PROGRESS_PATIENCE);
        let mut filling = Filling::new(self.clone(), wanted.clone(), Arc::clone(&copy), patience);
        loop {
            while let Some(missing) = copy.body.first(false, &own.range) {
                match self.not_brought(wanted, own, &copy, missing, filling.is_open()) {
                    Ok(missing) => {
                        if let Some(arrived) = filling.next(&missing).await? {
                            arrived.kept.map_err(|error| Failure::NotKept(error.into()))?;
                        }
                    }
                    // Whether it comes or not, there is something to look at.
                    Err((other, missing)) => drop(other.until(&missing).await),
                }
                progress.send_modify(|now| now.arrivals += 1);
            }
            // What an earlier life left is compared now: some of it may be missing after all.
            if self.member.master.complete_partial(&copy).await? {
                return Ok(());
            }
        }
    }

    /// The first missing bytes of a body, from `missing` on, that nobody else brings. If there are none: the first that
    /// somebody else does, and who.
    fn not_brought(
        &self,
        wanted: &Wanted,
        own: &Arc<Download>,
        copy: &PartialCopy,
        missing: Range<u64>,
        arriving: bool,
    ) -> Result<Range<u64>, (Arc<Download>, Range<u64>)> {
        if arriving {
            return Ok(missing);
        }
        let (mut first, mut next) = (None, Some(missing));
        while let Some(missing) = next {
            let other = match self.downloads.free(key_of(wanted), own, &missing) {
                Ok(free) => return Ok(free),
                Err(other) => other,
            };
            next = copy.body.first(false, &(other.range.end..own.range.end));
            let soon = missing.start..missing.end.min(missing.start + BATCH_BYTES as u64).min(other.range.end);
            first.get_or_insert((other, soon));
        }
        Err(first.expect("what is missing is brought by another one, or free"))
    }

    /// What is here of a large body.
    pub(super) async fn open(&self, wanted: &Wanted) -> Result<Arc<PartialCopy>> {
        if let Some(known) = self.member.master.known_partial(wanted).await? {
            return Ok(known);
        }
        let (fetcher, asked) = (self.clone(), wanted.clone());
        let opening = async move { fetcher.partial(&asked).await };
        match self.openings.join(key_of(wanted), opening).await? {
            Some(copy) => Ok(copy),
            None => self.partial(wanted).await,
        }
    }

    async fn partial(&self, wanted: &Wanted) -> Result<Arc<PartialCopy>> {
        self.member.master.partial(wanted, self.tree(wanted.clone())).await
    }

    /// Makes a body of which the last part has come the copy here, in the background.
    pub(super) fn complete_later(&self, wanted: &Wanted, copy: &Arc<PartialCopy>) {
        let (fetcher, wanted, copy) = (self.clone(), wanted.clone(), Arc::clone(copy));
        tokio::spawn(async move {
            match fetcher.member.master.complete_partial(&copy).await {
                Ok(true) => fetcher.tell_home(&wanted),
                Ok(false) => {}
                // Its parts stay, and whoever reads it whole tries again.
                Err(error) => {
                    tracing::warn!(hash = %wanted.hash, error = &error as &dyn std::error::Error, "body not made whole");
                }
            }
        });
    }

    pub(super) fn master(&self) -> &Master {
        &self.member.master
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        self.member.master.clock()
    }

    async fn tree_from(&self, holder: MemberId, wanted: &Wanted) -> Result<Bytes> {
        let length = Proof::outboard_length(wanted.length);
        match collect(self.ask(holder, wanted, BodyPart::Tree).await?, length).await {
            Ok(tree) => Ok(tree),
            Err(error) => Err(self.broke_off(holder, error).await),
        }
    }

    /// What it means that a holder began to give something and did not end it.
    pub(super) async fn broke_off(&self, holder: MemberId, error: Error) -> Error {
        match error {
            Error::Storage { doing: RECEIVING, source } => {
                Error::ClusterAway { cluster: self.member.name_of(holder).await, why: source.to_string() }
            }
            other => other,
        }
    }

    pub(super) async fn ask(&self, holder: MemberId, wanted: &Wanted, part: BodyPart) -> Result<ByteStream> {
        let question = BodyQuestion {
            bucket: wanted.bucket,
            path: wanted.path.clone(),
            number: wanted.number,
            ordinal: wanted.ordinal,
            hash: wanted.hash,
            part,
        };
        let purpose = if wanted.relayed { Purpose::Relay } else { Purpose::Read };
        let cost = Cost { purpose, bucket: Some(wanted.bucket) };
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
    pub(super) fn holders(&self, wanted: &Wanted) -> Vec<MemberId> {
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

fn key_of(wanted: &Wanted) -> Key {
    (wanted.bucket, wanted.hash)
}

pub(super) fn nobody_has(wanted: &Wanted) -> Error {
    Error::ClusterAway {
        cluster: "of every holder".to_owned(),
        why: format!("nobody who is known to have body {} could be asked", wanted.hash),
    }
}

pub(super) fn forged(wanted: &Wanted, error: ReceiveError) -> Error {
    tracing::warn!(hash = %wanted.hash, bucket = %wanted.bucket, %error, "a cluster sent what was not asked for");
    Error::Damaged { what: format!("body {} as another cluster sent it", wanted.hash), source: error.into() }
}

/// All of an answer, which has `length` bytes at the most.
pub(super) async fn collect(mut stream: ByteStream, length: u64) -> Result<Bytes> {
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
