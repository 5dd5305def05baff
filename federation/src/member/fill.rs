//! Bringing what is missing of a large body: from those who have it in turn, verified, kept as far as there is room.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::delta::{Base, WINDOW_BYTES};
use super::fetch::{Fetcher, forged, nobody_has};
use super::groups::Groups;
use crate::blobs::{BackendError, ReceiveError};
use crate::error::{Error, Result};
use crate::master::{PartialCopy, Wanted};
use crate::peer::BodyPart;
use crate::types::MemberId;

/// The pause before a body is asked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a body is asked for at least, however long each time takes.
const TURNS_MIN: usize = 2;

/// How many ranges one question asks for.
const RANGES_MAX: usize = 1024;

/// How long to go on without a byte.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// So long.
    Time(Duration),
    /// So many questions.
    Tries(usize),
}

/// A large body of which parts are being brought.
pub(super) struct Filling {
    fetcher: Fetcher,
    wanted: Wanted,
    copy: Arc<PartialCopy>,
    patience: Patience,
    /// Whom to ask in turn.
    holders: Vec<MemberId>,
    /// Another version of it that is here; none until it was looked for.
    base: Option<Option<Base>>,
    /// What is arriving.
    open: Option<Groups>,
    tries: usize,
    /// How many of the last tries said that they cannot succeed.
    hopeless: usize,
    /// When the last bytes came.
    moved: Duration,
}

/// Bytes that came, verified.
pub(super) struct Arrived {
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    /// Whether they are here now, too.
    pub(super) kept: Result<(), BackendError>,
}

impl Filling {
    pub(super) fn new(fetcher: Fetcher, wanted: Wanted, copy: Arc<PartialCopy>, patience: Patience) -> Filling {
        let (holders, moved) = (fetcher.holders(&wanted), fetcher.clock().boottime());
        Filling { fetcher, wanted, copy, patience, holders, base: None, open: None, tries: 0, hopeless: 0, moved }
    }

    /// The next bytes: of what is arriving, else of `missing`, which is then asked for. None if there is something to
    /// look at without that: what was asked for has come, or was taken from another version.
    pub(super) async fn next(&mut self, missing: &Range<u64>) -> Result<Option<Arrived>> {
        loop {
            let failed = match self.step(missing).await {
                Ok(arrived) => {
                    (self.tries, self.hopeless, self.moved) = (0, 0, self.fetcher.clock().boottime());
                    return Ok(arrived);
                }
                Err(error) => error,
            };
            self.open = None;
            self.tries += 1;
            self.hopeless = if worth_waiting(&failed) { 0 } else { self.hopeless + 1 };
            let tired = match self.patience {
                // One that sends nothing takes all that time, and whoever else has it is to be asked; a home that passes
                // bodies on has gone on to the next meanwhile.
                Patience::Time(time) => {
                    let waited = self.fetcher.clock().boottime().saturating_sub(self.moved);
                    waited > time && self.tries >= self.holders.len().max(TURNS_MIN)
                }
                Patience::Tries(tries) => self.tries > tries,
            };
            // One that has it no more or sends something else says nothing about the others.
            if tired || self.hopeless >= self.holders.len() {
                let holder = self.holders.get((self.tries - 1) % self.holders.len().max(1)).copied();
                return Err(match holder {
                    Some(holder) => self.fetcher.broke_off(holder, failed).await,
                    None => failed,
                });
            }
            if self.hopeless == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Whether something is arriving.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What has to come from elsewhere of `missing`, or of its beginning, once another version gave what it has.
    async fn still_missing(&mut self, holder: MemberId, missing: &Range<u64>) -> Result<Vec<Range<u64>>> {
        let base = match &mut self.base {
            Some(base) => base,
            unknown => unknown.insert(Base::find(&self.fetcher, &self.wanted, &self.copy).await?),
        };
        let Some(base) = base else { return Ok(vec![missing.clone()]) };
        let window = missing.start..missing.end.min(missing.start + WINDOW_BYTES);
        base.fill(holder, &self.copy, &window).await?;
        self.fetcher.master().keep_in_time(&self.copy);
        Ok(self.copy.body.missing(&window, RANGES_MAX))
    }

    async fn step(&mut self, missing: &Range<u64>) -> Result<Option<Arrived>> {
        let groups = match self.open.take() {
            Some(groups) => self.open.insert(groups),
            None => {
                let turn = self.tries % self.holders.len().max(1);
                let holder = *self.holders.get(turn).ok_or_else(|| nobody_has(&self.wanted))?;
                let ranges = self.still_missing(holder, missing).await?;
                let part = match ranges.as_slice() {
                    [] => return Ok(None),
                    [one] => BodyPart::Range(one.start, one.end),
                    many => BodyPart::Ranges(many.iter().map(|range| (range.start, range.end)).collect()),
                };
                let stream = self.fetcher.ask(holder, &self.wanted, part).await?;
                self.open.insert(Groups::new(stream, ranges))
            }
        };
        let Some(next) = groups.next().await else {
            self.open = None;
            return Ok(None);
        };
        let (offset, bytes) = next?;
        let kept = match self.copy.body.add(offset, bytes.clone()).await {
            Ok(()) => Ok(()),
            Err(ReceiveError::Backend(error)) => Err(error),
            Err(error @ ReceiveError::Forged { .. }) => return Err(forged(&self.wanted, error)),
        };
        self.fetcher.master().keep_in_time(&self.copy);
        Ok(Some(Arrived { offset, bytes, kept }))
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.fetcher.master().keep_later(&self.copy);
    }
}

/// Whether the same question may have a better answer soon.
pub(super) fn worth_waiting(error: &Error) -> bool {
    matches!(error, Error::ClusterAway { .. } | Error::Storage { .. } | Error::Conflict)
}
