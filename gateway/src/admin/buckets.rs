//! Buckets: list, create, show, set, log.

use std::collections::HashMap;

use federation::cluster::Cluster;
use federation::master::{Actor, BucketChange, Versioning};
use federation::types::{BucketName, Consistency, Number};

use super::error::AdminError;
use super::shape::{self, VersioningState};
use super::{Answer, Inner, peers, to_its_end};

/// Entries of a page of the log.
const LOG_PAGE_MAX: usize = 1000;
/// Entries of a page that was asked for without a size.
const LOG_PAGE_DEFAULT: usize = 100;

pub(super) async fn list(api: &Inner) -> Result<Answer, AdminError> {
    let mut buckets: Vec<shape::Bucket> = api.cluster.buckets().await?.iter().map(Into::into).collect();
    if let Ok(federation) = api.cluster.federation() {
        let homes: HashMap<_, _> =
            federation.links().await.into_iter().map(|(linked, home)| (linked.name.to_string(), home)).collect();
        for bucket in &mut buckets {
            bucket.home = homes.get(&bucket.name).cloned();
        }
    }
    Ok(Answer::ok(&shape::Buckets { buckets }))
}

pub(super) async fn create(api: &Inner, actor: Actor, request: shape::CreateBucket) -> Result<Answer, AdminError> {
    let name: BucketName = request.name.parse().map_err(federation::Error::from)?;
    let is_elsewhere = |region: &&String| !request.location.is_empty() && request.location != **region;
    if let Some(region) = api.facts.region.as_ref().filter(is_elsewhere) {
        let reason = format!("the location {} is not of this server, whose region is {region}", request.location);
        return Err(AdminError::BadBody { reason });
    }
    let bucket = api.cluster.create_bucket(&actor, &name, &request.location).await?;
    Ok(Answer::json(http::StatusCode::CREATED, &shape::Bucket::from(&bucket)))
}

pub(super) async fn show(api: &Inner, bucket: &BucketName) -> Result<Answer, AdminError> {
    Ok(Answer::ok(&details(&api.cluster, bucket).await?))
}

async fn details(cluster: &Cluster, bucket: &BucketName) -> Result<shape::BucketDetails, AdminError> {
    let (link, shares) = peers::ties(cluster, bucket).await?;
    Ok(shape::BucketDetails { bucket: shape::Bucket::from(&cluster.bucket(bucket).await?), link, shares })
}

/// What is known of a linked bucket without asking its home.
async fn known(cluster: &Cluster, bucket: &BucketName) -> Result<shape::BucketDetails, AdminError> {
    let (link, shares) = peers::ties(cluster, bucket).await?;
    let here = shape::Bucket::from(&cluster.master().bucket(bucket).await?);
    let home = link.as_ref().map(|link| link.home.clone());
    Ok(shape::BucketDetails { bucket: shape::Bucket { home, ..here }, link, shares })
}

pub(super) async fn set(
    api: &Inner,
    actor: Actor,
    bucket: BucketName,
    request: shape::SetBucket,
) -> Result<Answer, AdminError> {
    let consistency = request.consistency.as_deref().map(str::parse::<Consistency>).transpose();
    let consistency = consistency.map_err(|error| AdminError::BadBody { reason: error.to_string() })?;
    let changes = changes(request, consistency.is_some())?;
    let asks_home = !changes.is_empty();
    let cluster = api.cluster.clone();
    let changed = to_its_end(async move {
        if let Some(consistency) = consistency {
            cluster.set_consistency(&bucket, consistency).await?;
        }
        for change in changes {
            cluster.change_bucket(&actor, &bucket, change).await?;
        }
        match details(&cluster, &bucket).await {
            // What is set here is set, whether its home can be asked or not.
            Err(AdminError::Core(federation::Error::ClusterAway { .. })) if !asks_home => {
                known(&cluster, &bucket).await
            }
            details => details,
        }
    });
    Ok(Answer::ok(&changed.await?))
}

fn changes(request: shape::SetBucket, and_more: bool) -> Result<Vec<BucketChange>, AdminError> {
    let versioning = match request.versioning {
        None => None,
        Some(VersioningState::Enabled) => Some(Versioning::Enabled),
        Some(VersioningState::Suspended) => Some(Versioning::Suspended),
        Some(VersioningState::Off) => {
            let reason = "versioning can be enabled and suspended, never switched off".to_owned();
            return Err(AdminError::BadBody { reason });
        }
    };
    let keep = request.keep_seconds.map(BucketChange::Keep);
    let changes: Vec<_> = versioning.map(BucketChange::Versioning).into_iter().chain(keep).collect();
    if changes.is_empty() && !and_more {
        let reason = "it names nothing to change: keep_seconds, versioning, consistency".to_owned();
        return Err(AdminError::BadBody { reason });
    }
    Ok(changes)
}

pub(super) async fn log(
    api: &Inner,
    bucket: &BucketName,
    before: Option<u64>,
    max: Option<usize>,
) -> Result<Answer, AdminError> {
    let max = max.unwrap_or(LOG_PAGE_DEFAULT).clamp(1, LOG_PAGE_MAX);
    let page = api.cluster.log(bucket, before.map(Number), max).await?;
    let entries = page.items.iter().map(Into::into).collect();
    Ok(Answer::ok(&shape::Log { entries, next: page.next.map(|number| number.0) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_nothing_and_versioning_off_are_refused() {
        assert!(changes(shape::SetBucket::default(), false).is_err());
        let off = shape::SetBucket { versioning: Some(VersioningState::Off), ..shape::SetBucket::default() };
        assert!(changes(off, false).is_err());
        let keep = shape::SetBucket { keep_seconds: Some(None), ..shape::SetBucket::default() };
        assert!(matches!(changes(keep, false).expect("lawful").as_slice(), [BucketChange::Keep(None)]));
    }
}
