//! A source that is asked again while it is away, until the operation's deadline ends that.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
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

/// Asks again.
pub(crate) struct Persistent {
    source: Arc<dyn Source>,
    /// After so long without an answer, everything is asked once only: those who come later do not wait as long as the first.
    patience: Duration,
    away_since: Mutex<Option<Instant>>,
}

impl Persistent {
    pub(crate) fn new(source: Arc<dyn Source>, patience: Duration) -> Persistent {
        Persistent { source, patience, away_since: Mutex::new(None) }
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
                    *self.away_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return other;
                }
            }
        }
    }

    fn is_away_for_long(&self) -> bool {
        let mut since = self.away_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now).elapsed() >= self.patience
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
