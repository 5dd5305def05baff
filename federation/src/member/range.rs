//! Reading a range of a large body that nobody reads whole: what is here from here, the rest from others, kept on the way.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::fetch::Fetcher;
use super::fill::{Filling, Patience};
use super::groups::{BATCH_BYTES, whole_groups};
use crate::error::{Error, Result};
use crate::master::{ByteStream, PartialCopy, Wanted};

/// How often a range is asked for again after a cut without a byte.
const TRIES_MAX: usize = 8;

impl Fetcher {
    /// A range of a large body.
    pub(super) async fn read_range(&self, wanted: Wanted, range: Range<u64>) -> Result<ByteStream> {
        let copy = self.partial(&wanted).await?;
        let left = whole_groups(&range, wanted.length);
        let (skip, length) = (range.start - left.start, range.end - range.start);
        let filling = Filling::new(self.clone(), wanted.clone(), Arc::clone(&copy), Patience::Tries(TRIES_MAX));
        let state = Reading { fetcher: self.clone(), wanted, copy, left, filling, unkept: false };
        let bytes = stream::try_unfold(state, |mut state| async move {
            Ok::<_, Error>(state.next().await?.map(|bytes| (bytes, state)))
        });
        Ok(cut(Box::pin(bytes), skip, length))
    }
}

/// A range that is being read.
struct Reading {
    fetcher: Fetcher,
    wanted: Wanted,
    copy: Arc<PartialCopy>,
    /// What is still to come, in whole groups.
    left: Range<u64>,
    filling: Filling,
    /// Whether it was said already that there is no room to keep it.
    unkept: bool,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.left.is_empty() {
            let Range { start, end } = self.left;
            // What is arriving is read to its end, even if somebody else brought it meanwhile: it was paid for.
            if !self.filling.is_open() {
                let now = start..end.min(start + BATCH_BYTES as u64);
                if let Some(here) = self.copy.body.first(true, &now).filter(|here| here.start == start)
                    && let Some(bytes) = self.copy.body.read(here.clone()).await?
                {
                    self.left.start = here.end;
                    return Ok(Some(bytes));
                }
            }
            let missing = self.copy.body.first(false, &self.left).unwrap_or(self.left.clone());
            if !self.filling.is_open() && missing.start != start {
                // It came while it was looked for.
                continue;
            }
            let Some(arrived) = self.filling.next(&missing).await? else { continue };
            self.note(arrived.kept);
            if arrived.offset != start {
                continue;
            }
            self.left.start += arrived.bytes.len() as u64;
            if self.copy.body.is_whole() {
                self.fetcher.complete_later(&self.wanted, &self.copy);
            }
            return Ok(Some(arrived.bytes));
        }
        Ok(None)
    }

    /// Without room for it a range is read all the same.
    fn note(&mut self, kept: Result<(), crate::blobs::BackendError>) {
        if let (Err(error), false) = (kept, self.unkept) {
            self.unkept = true;
            tracing::warn!(hash = %self.wanted.hash, %error, "what is read of a body is not kept");
        }
    }
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
