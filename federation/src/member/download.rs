//! One body that is being brought. Many may read it while it arrives; it is asked for once.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::blobs::BodyReader;
use crate::error::{Error, Result};
use crate::master::{ByteStream, Master, Wanted};

/// How many bytes a reader takes at once.
const READ_BYTES: u64 = 256 * 1024;

/// How far a body has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Reads what is there; none until the first bytes are.
    pub(super) reader: Option<Arc<dyn BodyReader>>,
    /// How many bytes are there, verified.
    pub(super) received: u64,
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

    /// Waits until the bytes before `end` are there. None if the whole body is here in the meantime.
    async fn until(&self, end: u64) -> Result<Option<Arc<dyn BodyReader>>> {
        let mut progress = self.progress.clone();
        let now = progress.wait_for(|now| now.received >= end || now.ended.is_some()).await;
        let now = now.map_err(|_| given_up())?;
        match (&now.reader, &now.ended) {
            (Some(reader), _) if now.received >= end => Ok(Some(Arc::clone(reader))),
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
        if self.range.is_empty() {
            return Ok(None);
        }
        let (start, end) = (self.range.start, self.range.end.min(self.range.start + READ_BYTES));
        let Some(reader) = self.download.until(end).await? else {
            let opened = self.download.master.open_copy(&self.download.wanted).await?;
            return self.copy.insert(opened.body.read(self.range.clone())).next().await.transpose();
        };
        let length = usize::try_from(end - start).expect("at most a buffer");
        let read = move || {
            let mut bytes = BytesMut::zeroed(length);
            reader.read_at(&mut bytes, start).map(|()| bytes.freeze())
        };
        let bytes = self.download.master.blobs().blocking().run(read).await?;
        self.range.start = end;
        Ok(Some(bytes))
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
        Error::NoSpace => Error::NoSpace,
        other => Error::Storage { doing: "bringing a body from another cluster", source: other.to_string().into() },
    }
}

/// The process is ending.
fn given_up() -> Error {
    Error::Storage { doing: "bringing a body from another cluster", source: "it was given up".into() }
}
