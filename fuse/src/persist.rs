//! A source that is asked again while it is away, until the operation's deadline ends that.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use federation::snapshot::PageHash;
use federation::types::Number;
use tokio::time::Instant;

use crate::source::{NamedSnapshot, Piece, Source, SourceError, Tree};

/// How long to wait before asking again, at first and at most.
const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(1);
/// What part of the patience is left for those who come while nothing is heard.
const SILENCE_PART: u32 = 8;

/// Asks again.
pub(crate) struct Persistent {
    source: Arc<dyn Source>,
    /// After so long without an answer, everything is asked once only: those who come later do not wait as long as the first.
    patience: Duration,
    heard: Mutex<Heard>,
}

/// What was heard of the source lately.
#[derive(Default)]
struct Heard {
    away_since: Option<Instant>,
    answered: Option<Instant>,
    /// Somebody waited in vain while it said nothing at all.
    silent_at: Option<Instant>,
}

impl Persistent {
    pub(crate) fn new(source: Arc<dyn Source>, patience: Duration) -> Persistent {
        Persistent { source, patience, heard: Mutex::default() }
    }

    /// How long an operation that begins now may wait. While the source hangs, those who come later wait a part of what
    /// the first waited; once in a while one waits as long again, for a source may also be slow.
    pub(crate) fn patience(&self) -> Duration {
        let silent = self.heard().silent_at.is_some_and(|at| at.elapsed() < self.patience);
        if silent { self.patience / SILENCE_PART } else { self.patience }
    }

    /// Says that an operation waited in vain since then.
    pub(crate) fn in_vain(&self, since: Instant) {
        let mut heard = self.heard();
        let waited = since.elapsed() >= self.patience;
        if waited && heard.answered.is_none_or(|answered| answered < since) {
            heard.silent_at = Some(Instant::now());
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask<T, F: Future<Output = Result<T, SourceError>>>(&self, ask: impl Fn() -> F) -> Result<T, SourceError> {
        let mut wait = WAIT_MIN;
        loop {
            match ask().await {
                Err(SourceError::Away(why)) if self.is_away_for_long() => return Err(SourceError::Away(why)),
                Err(SourceError::Away(why)) => {
                    tracing::debug!(why, "the server is away; it is asked again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(WAIT_MAX);
                }
                other => {
                    *self.heard() = Heard { answered: Some(Instant::now()), ..Heard::default() };
                    return other;
                }
            }
        }
    }

    fn is_away_for_long(&self) -> bool {
        self.heard().away_since.get_or_insert_with(Instant::now).elapsed() >= self.patience
    }
}

#[async_trait]
impl Source for Persistent {
    async fn tree(&self, snapshot: Option<&str>) -> Result<Tree, SourceError> {
        self.ask(|| self.source.tree(snapshot)).await
    }

    async fn snapshots(&self) -> Result<Vec<NamedSnapshot>, SourceError> {
        self.ask(|| self.source.snapshots()).await
    }

    async fn pages(&self, number: Number, directory: &[u8], pages: &[PageHash]) -> Result<Vec<Bytes>, SourceError> {
        self.ask(|| self.source.pages(number, directory, pages)).await
    }

    async fn descriptor(&self, number: Number, path: &[u8], piece: Piece) -> Result<Option<File>, SourceError> {
        // What is not handed over is read in another way, which asks again.
        self.source.descriptor(number, path, piece).await
    }

    async fn hash_tree(&self, number: Number, path: &[u8], piece: Piece) -> Result<Bytes, SourceError> {
        self.ask(|| self.source.hash_tree(number, path, piece)).await
    }

    async fn range(
        &self,
        number: Number,
        path: &[u8],
        piece: Piece,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, SourceError> {
        self.ask(|| self.source.range(number, path, piece, offset, length)).await
    }
}
