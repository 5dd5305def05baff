//! A body, or a part of one, that is being brought. Many may read it while it arrives; it is asked for once.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::master::PartialCopy;
use crate::watch;

/// How far a download has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// What is there of the body; none until that is known.
    pub(super) copy: Option<Arc<PartialCopy>>,
    /// How often something came.
    pub(super) arrivals: u64,
    /// How it ended: with all of it here, or with why not.
    pub(super) ended: Option<Result<(), Arc<Failure>>>,
}

/// Why a download ended without all of it being here.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody gave it.
    NotBrought(Error),
    /// It came, and there is no room to keep it.
    NotKept(Error),
}

impl Failure {
    pub(super) fn error(&self) -> &Error {
        match self {
            Failure::NotBrought(error) | Failure::NotKept(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::NotBrought(error)
    }
}

/// How much of a body a download brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it, to its end even if those who wait have gone.
    Whole,
    /// Some of it, for as long as somebody reads it.
    Part,
}

/// A download.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) extent: Extent,
    /// What it brings, in whole groups.
    pub(super) range: Range<u64>,
    progress: watch::Receiver<Progress>,
}

impl Download {
    pub(super) fn new(extent: Extent, range: Range<u64>, progress: watch::Receiver<Progress>) -> Download {
        Download { extent, range, progress }
    }

    /// Waits until all of it is here and kept.
    pub(super) async fn wait(&self) -> Result<()> {
        let ended = self.progress.wait_for(|now| now.ended.is_some()).await.map_err(|_| given_up())?;
        match &ended.ended {
            Some(Err(failure)) => Err(again(failure.error())),
            _ => Ok(()),
        }
    }

    /// What is there of the body, as soon as that is known.
    pub(super) fn copy(&self) -> Option<Arc<PartialCopy>> {
        self.progress.borrow().copy.clone()
    }

    /// Whether it has come to its end, be it good or bad.
    pub(super) fn has_ended(&self) -> bool {
        self.progress.borrow().ended.is_some()
    }

    /// Waits until a part of it is there, or it has ended. None if the whole body was here all the time.
    pub(super) async fn until(&self, part: &Range<u64>) -> Result<Option<Arc<PartialCopy>>, Arc<Failure>> {
        let has = |now: &Progress| now.copy.as_ref().is_some_and(|copy| copy.body.has(part));
        let now = self.progress.wait_for(|now| has(now) || now.ended.is_some()).await;
        let now = now.map_err(|_| Arc::new(Failure::NotBrought(given_up())))?;
        match (&now.copy, &now.ended) {
            (Some(copy), _) if has(&now) => Ok(Some(Arc::clone(copy))),
            (_, Some(Err(failure))) => Err(Arc::clone(failure)),
            // What is damaged by now is missing again.
            (copy, _) => Ok(copy.clone()),
        }
    }
}

/// An error that several wait for, for one of them.
pub(super) fn again(error: &Error) -> Error {
    match error {
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
