//! Reading a large body of another cluster: what is here from here, the rest as it arrives. Whoever misses what somebody
//! else brings already waits for that.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::alone;
use super::download::{Download, Failure, again};
use super::fetch::Fetcher;
use super::groups::{BATCH_BYTES, whole_groups};
use crate::error::{Error, Result};
use crate::master::{ByteStream, PartialCopy, Wanted};

/// How far before the end of what arrives the next part is asked for, so that the line does not fall silent in between.
const AHEAD_BYTES: u64 = 16 * 1024 * 1024;

impl Fetcher {
    /// A range of a large body. `all` is the download of the whole of it, if that is what is read.
    pub(super) fn read_large(&self, wanted: Wanted, range: Range<u64>, all: Option<Arc<Download>>) -> ByteStream {
        let left = whole_groups(&range, wanted.length);
        let (skip, length) = (range.start - left.start, range.end - range.start);
        let state = Reading {
            fetcher: self.clone(),
            wanted,
            left,
            copy: Copy::Unknown,
            current: all.map(|all| Waiting { download: all, own: true }),
            ahead: None,
            failed: false,
            rest: None,
        };
        let bytes = stream::try_unfold(state, |mut state| async move {
            Ok::<_, Error>(state.next().await?.map(|bytes| (bytes, state)))
        });
        cut(Box::pin(bytes), skip, length)
    }
}

/// A range that is being read. What it waits for is not given up while it does.
struct Reading {
    fetcher: Fetcher,
    wanted: Wanted,
    /// What is still to come, in whole groups.
    left: Range<u64>,
    copy: Copy,
    current: Option<Waiting>,
    /// What comes behind that.
    ahead: Option<Waiting>,
    /// A download that somebody else began failed while this one waited, and nothing came since.
    failed: bool,
    /// Another way to what is left.
    rest: Option<ByteStream>,
}

struct Waiting {
    download: Arc<Download>,
    /// Whether it was begun for this reader: if it fails, that is the last word.
    own: bool,
}

impl Waiting {
    /// Whether something may come of it at a place.
    fn is_for(&self, at: u64) -> bool {
        self.download.range.contains(&at) && !self.download.has_ended()
    }
}

/// What is known to be here of the body.
enum Copy {
    /// Nobody looked yet.
    Unknown,
    /// Nothing is.
    None,
    Parts(Arc<PartialCopy>),
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.left.is_empty() {
            if let Some(rest) = &mut self.rest {
                return rest.next().await.transpose();
            }
            if matches!(self.copy, Copy::Unknown) && self.current.is_none() {
                let known = self.fetcher.master().known_partial(&self.wanted).await?;
                self.copy = known.map_or(Copy::None, Copy::Parts);
            }
            match self.here().await? {
                Some(bytes) => return Ok(Some(bytes)),
                None if self.rest.is_some() => {}
                None => self.wait().await?,
            }
        }
        Ok(None)
    }

    /// What is read next.
    fn batch(&self) -> Range<u64> {
        self.left.start..self.left.end.min(self.left.start + BATCH_BYTES as u64)
    }

    /// The next bytes, as many as are here.
    async fn here(&mut self) -> Result<Option<Bytes>> {
        let Copy::Parts(copy) = &self.copy else { return Ok(None) };
        let start = self.left.start;
        let Some(here) = copy.body.first(true, &self.batch()).filter(|here| here.start == start) else {
            return Ok(None);
        };
        let Some(bytes) = copy.body.read(here.clone()).await? else {
            // Damaged. A disk that goes on spoiling what is written to it is not waited for.
            self.go_alone().await?;
            return Ok(None);
        };
        self.left.start = here.end;
        self.failed = false;
        self.look_ahead();
        Ok(Some(bytes))
    }

    /// Waits for the next bytes; has them brought unless somebody does.
    async fn wait(&mut self) -> Result<()> {
        let start = self.left.start;
        let waiting = match self.current.take().or_else(|| self.ahead.take()).filter(|waiting| waiting.is_for(start)) {
            Some(waiting) => waiting,
            None => self.fetcher.bring_part(&self.wanted, &self.left).into(),
        };
        let part = start..self.batch().end.min(waiting.download.range.end);
        let arrived = waiting.download.until(&part).await;
        let own = waiting.own;
        if let Some(copy) = waiting.download.copy() {
            // Whatever has come stays, its hash tree too, if this goes on by itself.
            self.copy = Copy::Parts(copy);
        }
        self.current = Some(waiting);
        match arrived {
            Ok(Some(_)) => {}
            Ok(None) => {
                let copy = self.fetcher.master().open_copy(&self.wanted).await?;
                self.rest = Some(copy.body.read(self.left.clone()));
            }
            Err(failure) => match &*failure {
                Failure::NotKept(_) => self.go_alone().await?,
                // It was asked for as part of another version perhaps, by somebody who began to wait long before.
                Failure::NotBrought(_) if !own && !self.failed => {
                    self.failed = true;
                    self.current = None;
                }
                Failure::NotBrought(error) => return Err(again(error)),
            },
        }
        Ok(())
    }

    /// Has brought what comes behind what arrives, shortly before that is needed.
    fn look_ahead(&mut self) {
        let start = self.left.start;
        let Copy::Parts(copy) = &self.copy else { return };
        if self.current.as_ref().is_some_and(|current| current.download.range.end <= start) {
            self.current = self.ahead.take();
        }
        let (Some(current), None) = (&self.current, &self.ahead) else { return };
        let end = current.download.range.end;
        if end >= self.left.end || end - start > AHEAD_BYTES {
            return;
        }
        let missing = copy.body.first(false, &(end..self.left.end));
        if let Some(missing) = missing.filter(|missing| missing.start - start <= AHEAD_BYTES) {
            self.ahead = Some(self.fetcher.bring_part(&self.wanted, &missing).into());
        }
    }

    /// What is left is read without others.
    async fn go_alone(&mut self) -> Result<()> {
        (self.current, self.ahead) = (None, None);
        let copy = self.fetcher.open(&self.wanted).await?;
        self.rest = Some(alone::read(self.fetcher.clone(), self.wanted.clone(), copy, self.left.clone()));
        Ok(())
    }
}

impl From<(Arc<Download>, bool)> for Waiting {
    fn from((download, own): (Arc<Download>, bool)) -> Self {
        Waiting { download, own }
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
