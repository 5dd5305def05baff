//! A cluster as its gateway uses it: buckets that it numbers and buckets that others number, behind the same calls.
//!
//! Each call goes to the [`Master`] or, for a linked bucket, to the [`Member`]. Names of linked buckets are in memory,
//! so that a bucket of one's own pays nothing for those of others.

mod buckets;
mod locate;
mod objects;
mod overview;
mod peers;
mod snapshots;
#[cfg(test)]
mod tests;
mod trees;
mod uploads;

use std::sync::Arc;

pub use locate::{BodyPlace, Located};
pub use overview::{LinkLag, Today};
pub use peers::{Federation, FederationConfig, MakeTransport, PeerInfo, Traffic, is_reachable, over_tls};

use crate::blobs::Blobs;
use crate::error::{Error, Result};
use crate::master::{CheckOptions, CheckReport, CollectOptions, CollectReport, Counts, DiskUsage, Limits, Master};
use crate::member::{Linked, Member};
use crate::types::BucketName;

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    master: Arc<Master>,
    federation: Option<Federation>,
    census: overview::LastCensus,
}

impl Cluster {
    /// A cluster that knows no other.
    #[must_use]
    pub fn alone(master: Arc<Master>) -> Arc<Cluster> {
        Arc::new(Cluster { master, federation: None, census: overview::LastCensus::default() })
    }

    /// A cluster that has links to others.
    pub async fn federated(master: Arc<Master>, config: FederationConfig) -> Result<Arc<Cluster>> {
        let federation = Federation::open(&master, config).await?;
        Ok(Arc::new(Cluster { master, federation: Some(federation), census: overview::LastCensus::default() }))
    }

    /// The Master of the buckets that this cluster numbers.
    #[must_use]
    pub fn master(&self) -> &Arc<Master> {
        &self.master
    }

    /// What this cluster has to do with others.
    pub fn federation(&self) -> Result<&Federation> {
        let alone = || Error::InvalidRequest { reason: "this process was started without a peer port".to_owned() };
        self.federation.as_ref().ok_or_else(alone)
    }

    /// Whether another cluster numbers the bucket of this name.
    #[must_use]
    pub fn is_linked(&self, name: &BucketName) -> bool {
        self.linked(name).is_some()
    }

    /// The linked bucket of a name, with whom to ask about it.
    fn linked(&self, name: &BucketName) -> Option<(&Member, Linked)> {
        let member = &self.federation.as_ref()?.member;
        member.linked(name).map(|linked| (member, linked))
    }

    /// The store of bodies.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        self.master.blobs()
    }

    /// What may grow how far.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.master.limits()
    }

    /// Runs one pass of the collector. Before it goes what other clusters need no more of what was written here, and
    /// what of theirs is more than the cache may have.
    pub async fn collect(&self, options: CollectOptions) -> Result<CollectReport> {
        if let (Some(federation), false) = (&self.federation, options.dry) {
            federation.member.drop_unneeded().await;
            let (bytes_max, copies_max) = federation.cache_limits();
            self.master.evict(bytes_max, copies_max).await?;
            federation.member.forget_oldest().await?;
        }
        self.master.collect(options).await
    }

    /// What there is, by the counts that are kept.
    pub async fn counts(&self) -> Result<Counts> {
        self.master.counts().await
    }

    /// Where the bytes are.
    pub async fn usage(&self) -> Result<DiskUsage> {
        self.master.usage().await
    }

    /// Verifies everything.
    pub async fn check(&self, options: CheckOptions, progress: impl FnMut(u64, u64) + Send) -> Result<CheckReport> {
        self.master.check(options, progress).await
    }

    /// Ends the links, then the Master.
    pub async fn close(&self) {
        if let Some(federation) = &self.federation {
            federation.close().await;
        }
        self.master.close().await;
    }
}
