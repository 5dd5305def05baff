//! Opening a body whose hash tree is not here: the tree is brought once for all who open it at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::download::again;
use super::downloads::Key;
use super::fill::worth_waiting;
use crate::error::{Error, Result};
use crate::master::PartialCopy;

type Opened = Result<Arc<PartialCopy>, Arc<Error>>;

/// The bodies that are being opened.
#[derive(Clone, Default)]
pub(super) struct Openings(Arc<Mutex<HashMap<Key, Shared<BoxFuture<'static, Opened>>>>>);

impl std::fmt::Debug for Openings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Openings")
    }
}

impl Openings {
    /// Opens a body by `open`, or with whoever is about to. What the other was refused for its own version is no answer:
    /// None then.
    pub(super) async fn join(
        &self,
        key: Key,
        open: impl Future<Output = Result<Arc<PartialCopy>>> + Send + 'static,
    ) -> Result<Option<Arc<PartialCopy>>> {
        let (opening, own) = self.begin(key, open);
        match opening.await {
            Ok(copy) => Ok(Some(copy)),
            Err(error) if own || worth_waiting(&error) => Err(again(&error)),
            Err(_) => Ok(None),
        }
    }

    fn begin(
        &self,
        key: Key,
        open: impl Future<Output = Result<Arc<PartialCopy>>> + Send + 'static,
    ) -> (Shared<BoxFuture<'static, Opened>>, bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opening) = all.get(&key) {
            return (opening.clone(), false);
        }
        let openings = self.clone();
        // A task of its own: whoever began it may go away.
        let task = tokio::spawn(async move {
            let opened = open.await.map_err(Arc::new);
            openings.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            opened
        });
        let ending = |error: tokio::task::JoinError| {
            Err(Arc::new(Error::Storage { doing: "bringing the hash tree of a body", source: error.into() }))
        };
        let opening = task.map(move |opened| opened.unwrap_or_else(ending)).boxed().shared();
        all.insert(key, opening.clone());
        (opening, true)
    }
}
