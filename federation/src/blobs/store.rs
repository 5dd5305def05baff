//! Taking bodies in, and making them durable.

use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::future::try_join;
use futures_util::{Stream, StreamExt, TryFutureExt, TryStreamExt};

use super::backend::{Backend, BackendError, SlotGuard, Urgency};
use super::body::StagedBody;
use super::inbound::Inbound;
use super::read::OutboardCache;
use super::syncer::Syncer;
use crate::blocking::Blocking;
use crate::types::{BlobHash, SMALL_BODY_MAX, SegmentId};

/// An error of somebody else's type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One of the two buffers of a large body on its way in, in bytes: 256 bodies at once take 128 MiB.
pub const TRANSFER_BUFFER_BYTES: usize = 256 * 1024;

/// Up to here hashing a body is done before a thread could have been woken for it.
const INLINE_BYTES_MAX: usize = 16 * 1024;

/// How many large bodies of one [`Blobs::persist_many`] are made durable at a time.
const PERSISTS_IN_FLIGHT_MAX: usize = 8;

/// Sees all the bytes of a body in their order, in `Blocking` jobs unless they are few: checksums.
pub trait Observer: Send {
    /// Sees the next bytes.
    fn update(&mut self, bytes: &[u8]);
}

impl Observer for () {
    fn update(&mut self, _bytes: &[u8]) {}
}

/// Why a body was not stored. Nothing of it remains.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its bytes stopped coming.
    #[error("the body could not be received")]
    Source {
        /// What the stream said.
        source: BoxError,
    },
    /// It is longer than it may be.
    #[error("the body is longer than {length_max} bytes")]
    TooLong {
        /// What it may be.
        length_max: u64,
    },
    /// The backend would not take it.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// What may be held in memory.
#[derive(Clone, Copy, Debug)]
pub struct BlobLimits {
    /// Verified hash trees kept for later reads, in bytes.
    pub outboard_cache_bytes_max: usize,
}

impl Default for BlobLimits {
    fn default() -> Self {
        BlobLimits { outboard_cache_bytes_max: 8 * 1024 * 1024 }
    }
}

/// The store of bodies, for asynchronous callers. Clones are the same store.
#[derive(Clone)]
pub struct Blobs {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) blocking: Arc<dyn Blocking>,
    pub(super) outboards: OutboardCache,
    syncer: Syncer,
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blobs").field("backend", &self.shared.backend).finish_non_exhaustive()
    }
}

impl Blobs {
    /// A store that keeps bodies in `backend`.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, blocking: Arc<dyn Blocking>, limits: BlobLimits) -> Blobs {
        let syncer = Syncer::new(Arc::clone(&backend), Arc::clone(&blocking));
        let outboards = OutboardCache::new(limits.outboard_cache_bytes_max);
        Blobs { shared: Arc::new(Shared { backend, blocking, outboards, syncer }) }
    }

    /// Where the bodies are kept.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.shared.backend
    }

    /// Where jobs run.
    #[must_use]
    pub fn blocking(&self) -> &Arc<dyn Blocking> {
        &self.shared.blocking
    }

    /// What shares the syncs.
    #[must_use]
    pub fn syncer(&self) -> &Syncer {
        &self.shared.syncer
    }

    /// The segments in which slots are guarded.
    #[must_use]
    pub fn segments_unclaimed(&self) -> Vec<SegmentId> {
        self.shared.backend.segments_unclaimed()
    }

    /// Whether a slot of the segment is guarded.
    #[must_use]
    pub fn is_unclaimed(&self, segment: SegmentId) -> bool {
        self.shared.backend.is_unclaimed(segment)
    }

    /// Takes a body in, of at most `length_max` bytes; `length_hint` saves growing the buffers.
    ///
    /// Nothing is durable before [`Blobs::persist`], so that the caller can compare what `observer` saw
    /// with what the client said, and drop the body without a trace. A small body is only in memory until then.
    pub async fn store<S, E, O>(
        &self,
        source: S,
        observer: O,
        length_hint: Option<u64>,
        length_max: u64,
    ) -> Result<(StagedBody, O), StoreError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BoxError> + Send,
        O: Observer + 'static,
    {
        if length_hint.is_some_and(|length| length > length_max) {
            return Err(StoreError::TooLong { length_max });
        }
        let mut source = Source { stream: pin!(source), chunk: Bytes::new(), left: length_max, length_max };
        let capacity = length_hint.unwrap_or(0).min(TRANSFER_BUFFER_BYTES as u64);
        let mut buffer = Vec::with_capacity(usize::try_from(capacity).expect("at most a buffer"));
        let small_max = usize::try_from(SMALL_BODY_MAX).expect("a small body fits into memory");
        let ended = source.fill(&mut buffer, small_max + 1).await?;
        if ended {
            Ok(self.take_small(buffer.into(), observer).await)
        } else {
            self.take_large(source, buffer, observer).await
        }
    }

    async fn take_small<O: Observer + 'static>(&self, bytes: Bytes, mut observer: O) -> (StagedBody, O) {
        let inline = bytes.len() <= INLINE_BYTES_MAX;
        let work = move || {
            observer.update(&bytes);
            let hash = blake3::hash(&bytes).into();
            (StagedBody::small(bytes, hash), observer)
        };
        if inline { work() } else { self.shared.blocking.run(work).await }
    }

    /// While one buffer is hashed and written, the other is filled.
    async fn take_large<S, E, O>(
        &self,
        mut source: Source<'_, S>,
        mut buffer: Vec<u8>,
        observer: O,
    ) -> Result<(StagedBody, O), StoreError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BoxError> + Send,
        O: Observer + 'static,
    {
        let mut ended = source.fill(&mut buffer, TRANSFER_BUFFER_BYTES).await?;
        let mut inbound = Inbound::new(Arc::clone(&self.shared), observer);
        let mut spare = Vec::new();
        while !ended {
            let take = inbound.take(buffer).map_err(StoreError::from);
            // Whichever fails first ends both; a job that still runs drops the unfinished body where it ends.
            let (taken, filled) = try_join(take, source.fill(&mut spare, TRANSFER_BUFFER_BYTES)).await?;
            let (next, mut emptied) = taken;
            std::mem::swap(&mut spare, &mut emptied);
            (inbound, buffer, ended) = (next, emptied, filled);
        }
        Ok(inbound.end(buffer).await?)
    }

    /// Makes a body durable: its bytes and their name are on the disk on return. Fine if it is already.
    ///
    /// After an error, or when the call is given up, a small body can be persisted again; a large one is lost.
    pub async fn persist(&self, staged: &mut StagedBody) -> Result<(), BackendError> {
        if staged.bytes().is_some() { self.persist_small(vec![staged]).await } else { staged.persist_file(self).await }
    }

    /// Makes many bodies durable; the small ones share one sync.
    pub async fn persist_many(&self, staged: &mut [StagedBody]) -> Result<(), BackendError> {
        let (small, large): (Vec<_>, Vec<_>) = staged.iter_mut().partition(|body| body.bytes().is_some());
        let large: Vec<_> = large.into_iter().map(|body| body.persist_file(self)).collect();
        let large = futures_util::stream::iter(large).buffer_unordered(PERSISTS_IN_FLIGHT_MAX).try_collect::<()>();
        try_join(self.persist_small(small), large).await.map(|_both| ())
    }

    async fn persist_small(&self, staged: Vec<&mut StagedBody>) -> Result<(), BackendError> {
        let bodies: Vec<_> = staged.iter().filter_map(|body| Some((body.bytes()?.clone(), body.hash()))).collect();
        if bodies.is_empty() {
            return Ok(());
        }
        let guards = self.shared.syncer.append(bodies, Urgency::Normal).await?;
        for (body, guard) in staged.into_iter().zip(guards) {
            body.set_slot(guard);
        }
        Ok(())
    }

    /// Appends bytes of up to [`super::APPEND_BYTES_MAX`], durable on return: part lists, copies of small bodies.
    pub async fn append_bytes(&self, bytes: Bytes, urgency: Urgency) -> Result<SlotGuard, BackendError> {
        let mut guards = self.append_many(vec![bytes], urgency).await?;
        Ok(guards.pop().expect("one body has one guard"))
    }

    /// As [`Blobs::append_bytes`], many with one sync; the guards are in the bodies' order.
    pub async fn append_many(&self, bodies: Vec<Bytes>, urgency: Urgency) -> Result<Vec<SlotGuard>, BackendError> {
        let inline = bodies.iter().map(Bytes::len).sum::<usize>() <= INLINE_BYTES_MAX;
        let hash = move || bodies.into_iter().map(|bytes| (blake3::hash(&bytes).into(), bytes)).map(swap).collect();
        let hashed: Vec<(Bytes, BlobHash)> = if inline { hash() } else { self.shared.blocking.run(hash).await };
        self.shared.syncer.append(hashed, urgency).await
    }
}

fn swap<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

/// A stream that is read into buffers.
struct Source<'a, S> {
    stream: Pin<&'a mut S>,
    /// What of the last chunk did not fit.
    chunk: Bytes,
    left: u64,
    length_max: u64,
}

impl<S, E> Source<'_, S>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: Into<BoxError>,
{
    /// Adds to `buffer` until it has `length` bytes or the stream has ended; whether it has.
    async fn fill(&mut self, buffer: &mut Vec<u8>, length: usize) -> Result<bool, StoreError> {
        while buffer.len() < length {
            if !self.chunk.has_remaining() {
                match self.stream.next().await {
                    None => return Ok(true),
                    Some(chunk) => self.chunk = chunk.map_err(|error| StoreError::Source { source: error.into() })?,
                }
                let left = self.left.checked_sub(self.chunk.len() as u64);
                self.left = left.ok_or(StoreError::TooLong { length_max: self.length_max })?;
            }
            buffer.reserve_exact(length.min(buffer.len() + self.chunk.len()) - buffer.len());
            let now = self.chunk.split_to(self.chunk.len().min(length - buffer.len()));
            buffer.extend_from_slice(&now);
        }
        Ok(false)
    }
}
