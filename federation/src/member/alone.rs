//! Reading a range of a large body without others: where there is no room to keep what comes, or what was kept is damaged.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;

use super::fetch::{Fetcher, TRIES_MAX};
use super::fill::{Filling, Patience};
use super::groups::BATCH_BYTES;
use crate::error::{Error, Result};
use crate::master::{ByteStream, PartialCopy, Wanted};

/// The bytes of whole groups: what is here from here, the rest straight from others, kept if that can be.
pub(super) fn read(fetcher: Fetcher, wanted: Wanted, copy: Arc<PartialCopy>, left: Range<u64>) -> ByteStream {
    let filling = Filling::new(fetcher.clone(), wanted.clone(), Arc::clone(&copy), Patience::Tries(TRIES_MAX));
    let state = Reading { fetcher, wanted, copy, left, filling, unkept: false };
    Box::pin(stream::try_unfold(state, |mut state| async move {
        Ok::<_, Error>(state.next().await?.map(|bytes| (bytes, state)))
    }))
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
