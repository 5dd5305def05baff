//! What an operator has to know of a cluster among others, cheaply enough to be asked often.

use std::sync::Arc;
use std::time::Duration;

use super::{Cluster, Federation};
use crate::error::Result;
use crate::master::{Census, SingleCopies};
use crate::member::Lag;
use crate::peer::{Crossed, Purpose};
use crate::types::{BucketName, Rights, Timestamp};

/// After a census that took long it is made again only when this many times as long has gone by, so that it costs a
/// twentieth of a core at the most.
const CENSUS_REST: u32 = 20;
/// What is not long.
const CENSUS_QUICK: Duration = Duration::from_millis(250);

/// The census that was made last.
#[derive(Debug, Default)]
pub(super) struct LastCensus(tokio::sync::Mutex<Option<Made>>);

#[derive(Debug)]
struct Made {
    census: Arc<Census>,
    at: Duration,
    took: Duration,
}

/// A linked bucket, and who numbers it.
#[derive(Clone, Debug)]
pub struct LinkLag {
    /// How far it is known here.
    pub lag: Lag,
    /// Its home, by its name here.
    pub home: String,
}

/// What crossed since the day began (UTC), or the process if that was later.
#[derive(Clone, Debug)]
pub struct Today {
    /// Since when.
    pub since: Timestamp,
    /// By peer and purpose.
    pub traffic: Vec<(String, Purpose, Crossed)>,
}

impl Cluster {
    /// What the bodies that several clusters know of come to.
    pub async fn census(&self) -> Result<Arc<Census>> {
        let clock = self.master.clock();
        let mut last = self.census.0.lock().await;
        if let Some(made) = &*last
            && made.took > CENSUS_QUICK
            && clock.boottime().saturating_sub(made.at) < made.took * CENSUS_REST
        {
            return Ok(Arc::clone(&made.census));
        }
        let began = clock.boottime();
        let peers = match &self.federation {
            Some(federation) => federation.members().await?,
            None => Default::default(),
        };
        let census = Arc::new(self.master.census(peers).await?);
        let at = clock.boottime();
        *last = Some(Made { census: Arc::clone(&census), at, took: at.saturating_sub(began) });
        Ok(census)
    }

    /// The buckets of this cluster of which bodies have one copy at the most.
    pub async fn single_copies(&self, census: &Census) -> Result<Vec<(BucketName, SingleCopies)>> {
        let named =
            self.buckets().await?.into_iter().filter_map(|bucket| Some((bucket.name, *census.single.get(&bucket.id)?)));
        Ok(named.collect())
    }

    /// Who the buckets of this cluster are shared with: bucket, member, rights.
    pub async fn members(&self) -> Result<Vec<(BucketName, String, Rights)>> {
        let Ok(federation) = self.federation() else { return Ok(Vec::new()) };
        let mut members = Vec::new();
        for (bucket, member, rights) in self.master.all_shares().await? {
            members.push((bucket, federation.name_of(member).await, rights));
        }
        members.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        Ok(members)
    }
}

impl Federation {
    /// How far each linked bucket is known here. With `ask` their homes are asked what is the newest now.
    pub async fn lags(&self, ask: bool) -> Vec<LinkLag> {
        let lags = if ask { self.member.lags_now().await } else { self.member.lags() };
        let mut named = Vec::with_capacity(lags.len());
        for lag in lags {
            named.push(LinkLag { home: self.name_of(lag.linked.home).await, lag });
        }
        named
    }

    /// What crossed today.
    pub async fn today(&self) -> Today {
        let (since, items) = self.bill.today();
        let mut traffic = Vec::with_capacity(items.len());
        for ((member, purpose), crossed) in items {
            traffic.push((self.name_of(member).await, purpose, crossed));
        }
        Today { since, traffic }
    }
}
