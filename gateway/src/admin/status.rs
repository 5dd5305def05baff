//! How the server is, alone and among others.

use federation::cluster::{Federation, LinkLag, Today};
use federation::master::{CacheUsage, SingleCopies};
use federation::types::BucketName;

use super::error::AdminError;
use super::{Answer, Inner, peers, shape};

pub(super) async fn status(api: &Inner) -> Result<Answer, AdminError> {
    let cluster = &api.cluster;
    let federation = cluster.federation().ok();
    let (peers, lag, today) = match federation {
        Some(federation) => {
            (Some(peers::all(cluster).await?), federation.lags(true).await, Some(federation.today().await))
        }
        None => (None, Vec::new(), None),
    };
    let (counts, census) = (cluster.counts().await?, cluster.census().await?);
    let members = cluster.members().await?.into_iter().map(|(bucket, cluster, rights)| shape::BucketMember {
        bucket: bucket.to_string(),
        cluster,
        rights: rights.to_string(),
    });
    let single_copies = cluster.single_copies(&census).await?;
    let facts = &api.facts;
    Ok(Answer::ok(&shape::Status {
        version: facts.version.clone(),
        name: facts.name.clone(),
        region: facts.region.clone(),
        data: facts.data.clone(),
        started: facts.started.to_string(),
        uptime_seconds: facts.started.until(api.clock.wall()).as_secs(),
        buckets: counts.buckets,
        objects: counts.objects,
        bytes: counts.object_bytes,
        disk_free_bytes: counts.disk_free_bytes,
        requests_in_flight: u64::try_from(api.metrics.in_flight.get()).unwrap_or(0),
        peers,
        cache: cache(&census.cache, census.known_rows, federation),
        catalog_bytes: counts.catalog_bytes,
        members: members.collect(),
        lag: lag.iter().map(lag_of).collect(),
        single_copies: single_copies.iter().map(|(name, copies)| single(name, copies)).collect(),
        counted_all: census.complete,
        today: today.map(today_of),
    }))
}

fn cache(usage: &CacheUsage, known_rows: u64, federation: Option<&Federation>) -> shape::Cache {
    let limits = federation.map(Federation::cache_limits);
    shape::Cache {
        copies: usage.copies,
        bytes: usage.bytes,
        own: usage.own,
        own_bytes: usage.own_bytes,
        bytes_max: limits.map(|(bytes, _)| bytes),
        known_rows,
        known_rows_max: limits.map(|(_, rows)| rows),
    }
}

fn lag_of(link: &LinkLag) -> shape::LinkLag {
    shape::LinkLag {
        bucket: link.lag.linked.name.to_string(),
        home: link.home.clone(),
        known: link.lag.known.0,
        heard_seconds: link.lag.heard.map(|heard| heard.as_secs()),
        newest: link.lag.newest.map(|newest| newest.0),
    }
}

fn single(name: &BucketName, copies: &SingleCopies) -> shape::SingleCopies {
    let SingleCopies { elsewhere, here, nowhere } = copies;
    shape::SingleCopies {
        bucket: name.to_string(),
        elsewhere: elsewhere.bodies,
        elsewhere_bytes: elsewhere.bytes,
        here: here.bodies,
        here_bytes: here.bytes,
        nowhere: nowhere.bodies,
        nowhere_bytes: nowhere.bytes,
    }
}

fn today_of(today: Today) -> shape::Today {
    let traffic = today.traffic.into_iter().map(|(cluster, purpose, crossed)| shape::PeerPurpose {
        cluster,
        purpose: purpose.name().to_owned(),
        sent: crossed.sent,
        received: crossed.received,
    });
    shape::Today { since: today.since.to_string(), traffic: traffic.collect() }
}
