//! One body that is being brought. Many may read it while it arrives; it is asked for once.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::master::{ByteStream, Master, PartialCopy, Wanted};

/// How many bytes a reader takes at once.
const READ_BYTES: u64 = 256 * 1024;

/// How far a body has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// What is there; none until that is known.
    pub(super) copy: Option<Arc<PartialCopy>>,
    /// How often something came.
    pub(super) arrivals: u64,
    /// How it ended: with a copy here, or with why not.
    pub(super) ended: Option<Result<(), Arc<Error>>>,
}

/// A body that is being brought.
#[derive(Debug)]
pub(super) struct Download {
    master: Master,
    wanted: Wanted,
    progress: watch::Receiver<Progress>,
}

impl Download {
    pub(super) fn new(master: Master, wanted: Wanted, progress: watch::Receiver<Progress>) -> Download {
        Download { master, wanted, progress }
    }

    /// Waits until all of it is here and kept.
    pub(super) async fn wait(&self) -> Result<()> {
        let mut progress = self.progress.clone();
        let ended = progress.wait_for(|now| now.ended.is_some()).await.map_err(|_| given_up())?;
        match &ended.ended {
            Some(Err(error)) => Err(again(error)),
            _ => Ok(()),
        }
    }

    /// The bytes of a range as they arrive.
    pub(super) fn read(self: Arc<Self>, range: Range<u64>) -> ByteStream {
        let reading = Reading { download: self, range, copy: None };
        Box::pin(stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await?.map(|bytes| (bytes, reading)))
        }))
    }

    /// Waits until a range is there. None if the whole body is here in the meantime.
    async fn until(&self, range: &Range<u64>) -> Result<Option<Arc<PartialCopy>>> {
        let mut progress = self.progress.clone();
        let has = |now: &Progress| now.copy.as_ref().is_some_and(|copy| copy.body.has(range));
        let now = progress.wait_for(|now| has(now) || now.ended.is_some()).await;
        let now = now.map_err(|_| given_up())?;
        match (&now.copy, &now.ended) {
            (Some(copy), _) if has(&now) => Ok(Some(Arc::clone(copy))),
            (_, Some(Err(error))) => Err(again(error)),
            (_, Some(Ok(())) | None) => Ok(None),
        }
    }
}

/// Somebody who reads a body while it arrives.
struct Reading {
    download: Arc<Download>,
    /// What is still to come.
    range: Range<u64>,
    /// The copy here, if it had come before.
    copy: Option<ByteStream>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(copy) = &mut self.copy {
            return copy.next().await.transpose();
        }
        while !self.range.is_empty() {
            let now = self.range.start..self.range.end.min(self.range.start + READ_BYTES);
            let Some(copy) = self.download.until(&now).await? else {
                let opened = self.download.master.open_copy(&self.download.wanted).await?;
                return self.copy.insert(opened.body.read(self.range.clone())).next().await.transpose();
            };
            // What is damaged is brought again.
            if let Some(bytes) = copy.body.read(now.clone()).await? {
                self.range.start = now.end;
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// An error of a download, for one more of those who waited for it.
fn again(error: &Arc<Error>) -> Error {
    match &**error {
        Error::ClusterAway { cluster, why } => Error::ClusterAway { cluster: cluster.clone(), why: why.clone() },
        Error::NoLongerShared { bucket, cluster } => {
            Error::NoLongerShared { bucket: bucket.clone(), cluster: cluster.clone() }
        }
        Error::ClusterFailed { cluster, doing, why } => {
            Error::ClusterFailed { cluster: cluster.clone(), doing, why: why.clone() }
        }
        Error::NotRelayed { holders, home } => Error::NotRelayed { holders: holders.clone(), home: home.clone() },
        Error::NoSpace => Error::NoSpace,
        other => Error::Storage { doing: "bringing a body from another cluster", source: other.to_string().into() },
    }
}

/// The process is ending.
fn given_up() -> Error {
    Error::Storage { doing: "bringing a body from another cluster", source: "it was given up".into() }
}
