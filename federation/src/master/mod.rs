//! The Master of a cluster: it numbers the changes of its buckets and answers for their past.
//!
//! Every write is one transaction of the catalog, and is on disk, body and record, when it is answered. Reads look
//! through a lens at the newest state or at one of the past. A [`Master`] is cheap to clone.

mod body;
mod bucket;
mod cache;
mod census;
mod check;
mod collect;
mod diff;
mod elsewhere;
mod generation;
mod handover;
mod home;
mod key;
mod layer;
mod lens;
mod limits;
mod linked;
mod list;
mod look;
mod multipart;
mod older;
mod open;
mod partial;
mod piece;
mod pin;
mod publish;
mod read;
mod readers;
mod request;
mod restore;
mod serve;
mod share;
mod shared;
mod snapshot;
mod tree;
mod write;

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

pub use body::{BodyReader, ByteStream};
pub use cache::CacheUsage;
pub use census::{Amount, Census, SingleCopies};
pub use elsewhere::{Fetch, Later, PiecePlace, Wanted};
pub use layer::{Commit, StagedChange};
pub use limits::{Limit, Limits};
pub(crate) use list::common_prefix;
pub use look::{Found, Look, Looked};
pub use multipart::PART_NUMBER_MAX;
pub(crate) use older::Older;
pub use open::{MasterConfig, Seams};
pub use partial::PartialCopy;
pub use pin::PinInfo;
pub use publish::{KeyRefused, Origin, PeerAnswer, PeerChange};
pub use request::*;
pub(crate) use serve::Given;
pub use serve::Relaying;
pub use share::Behalf;
pub(crate) use tree::{KeptPages, PAGES_PER_REQUEST_MAX, absent as not_in_snapshot, check_page_count, kept_root};
pub use tree::{Tree, TreeWork};

pub use crate::catalog::Durability;

use crate::blobs::{Blobs, Urgency};
use crate::catalog::Writer;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::ids::IdSource;
use crate::types::LayerId;

/// What a transaction adds to the catalog, about, in bytes.
const CATALOG_WRITE_BYTES: u64 = 16 * 1024;

/// Which part of the reserve is the collector's alone.
const COLLECTOR_SHARE: u64 = 4;

/// The Master of a cluster.
#[derive(Clone)]
pub struct Master {
    writer: Writer,
    blobs: Blobs,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    limits: Arc<Limits>,
    readers: readers::Readers,
    /// Commits that are being put together.
    commits: Arc<Mutex<HashSet<LayerId>>>,
    /// Held by the pass of the collector that is under way.
    collecting: Arc<tokio::sync::Mutex<()>>,
    /// What the last life of the process left behind.
    leftovers: Arc<Mutex<collect::Leftovers>>,
    /// Brings bodies from other clusters. It has a Master of its own, so the cluster holds it: neither would ever go else.
    fetch: Arc<OnceLock<Weak<dyn elsewhere::Fetch>>>,
    /// Which copies of other clusters' bodies were read lately.
    read_lately: Arc<cache::ReadLately>,
    /// Snapshot trees that are derived just now.
    trees: Arc<tree::Trees>,
    /// Bodies of other clusters of which parts are here, as far as somebody reads or brings them.
    partials: Arc<partial::Partials>,
    /// Which files were compared with their hashes before they were handed over.
    checks: Arc<handover::Checks>,
    /// When this life began, since boot.
    opened: Duration,
    /// Keeps other processes out of the data directory; absent in simulation.
    _lock: Option<Arc<crate::disk::DirLock>>,
}

impl std::fmt::Debug for Master {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Master").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Master {
    /// The store of bodies.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// What may grow how far.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The catalog's writer, for what other clusters say.
    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Time.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Randomness.
    pub(crate) fn ids(&self) -> &Arc<dyn IdSource> {
        &self.ids
    }

    /// Refuses writes while less than the reserve is free, before they reach the catalog.
    pub(crate) fn admit(&self) -> Result<()> {
        // Rarely more than a look at the clock: the disk's answer is kept for a moment.
        Ok(self.blobs.backend().admit(CATALOG_WRITE_BYTES, Urgency::Normal)?)
    }

    /// Refuses deletes while less than the collector's own share of the reserve is free: what they add to the
    /// catalog must not keep it from giving space back.
    fn admit_delete(&self) -> Result<()> {
        let free = self.blobs.backend().free_space()?;
        if free < self.limits.disk_reserve / COLLECTOR_SHARE { Err(Error::NoSpace) } else { Ok(()) }
    }

    /// Runs `work` to its end even if the caller stops waiting for it.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match tokio::spawn(work).await {
            Ok(result) => result,
            Err(error) => Err(Error::Storage { doing: "running a task", source: error.into() }),
        }
    }
}
