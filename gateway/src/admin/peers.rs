//! Other clusters: invitations, peers, shares and links.

use federation::cluster::{Cluster, PeerInfo};
use federation::master::Actor;
use federation::member::Linked;
use federation::peer::{INVITATION_LIFE, Invitation, KnownCluster};
use federation::types::{BucketAt, BucketName, ClusterId, ObjectPath, Rights};

use super::error::AdminError;
use super::{Answer, Inner, shape};

fn bad(reason: impl ToString) -> AdminError {
    AdminError::BadBody { reason: reason.to_string() }
}

pub(super) async fn list(api: &Inner) -> Result<Answer, AdminError> {
    Ok(Answer::ok(&all(&api.cluster).await?))
}

/// All that is known of other clusters.
pub(super) async fn all(cluster: &Cluster) -> Result<shape::Peers, AdminError> {
    let federation = cluster.federation()?;
    let own = shape::OwnCluster {
        name: federation.name().to_string(),
        fingerprint: federation.cluster().to_string(),
        address: federation.advertise().map(ToString::to_string),
    };
    let peers = federation.peers().await?.iter().map(peer).collect();
    let links = federation.links().await.iter().map(|(linked, home)| link(linked, home)).collect();
    let traffic = federation.traffic(&cluster.buckets().await?).await?;
    let traffic = traffic.into_iter().map(|traffic| shape::PeerTraffic {
        cluster: traffic.cluster,
        bucket: traffic.bucket.map(|bucket| bucket.to_string()),
        purpose: traffic.purpose.name().to_owned(),
        sent: traffic.crossed.sent,
        received: traffic.crossed.received,
    });
    Ok(shape::Peers { own, peers, links, traffic: traffic.collect() })
}

fn peer(info: &PeerInfo) -> shape::Peer {
    let link = info.link.as_ref();
    shape::Peer {
        name: info.known.name.to_string(),
        fingerprint: info.known.cluster.to_string(),
        address: info.known.address.clone(),
        joined: info.known.joined.to_string(),
        connected: link.is_some_and(|link| link.connected),
        since: link.map(|link| link.since.to_string()),
        round_trip_us: link.and_then(|link| link.round_trip?.as_micros().try_into().ok()),
        last_error: link.and_then(|link| link.last_error.clone()),
        bytes_sent: link.map_or(0, |link| link.bytes_sent),
        bytes_received: link.map_or(0, |link| link.bytes_received),
    }
}

/// A linked bucket and who numbers it.
pub(super) fn link(linked: &Linked, home: &str) -> shape::Link {
    shape::Link {
        bucket: linked.name.to_string(),
        home: home.to_owned(),
        remote: linked.remote.to_string(),
        consistency: linked.consistency.to_string(),
    }
}

fn named(known: &KnownCluster) -> shape::NamedPeer {
    shape::NamedPeer { name: known.name.to_string(), fingerprint: known.cluster.to_string() }
}

pub(super) async fn invite(api: &Inner) -> Result<Answer, AdminError> {
    let invitation = api.cluster.federation()?.invite(api.cluster.master()).await?;
    let invited = shape::Invited { token: invitation.to_string(), seconds: INVITATION_LIFE.as_secs() };
    Ok(Answer::json(http::StatusCode::CREATED, &invited))
}

pub(super) async fn join(api: &Inner, request: shape::JoinPeer) -> Result<Answer, AdminError> {
    let invitation: Invitation = request.token.parse().map_err(bad)?;
    let name = api.cluster.federation()?.join(&invitation).await?;
    let joined = shape::NamedPeer { name: name.to_string(), fingerprint: invitation.cluster.to_string() };
    Ok(Answer::json(http::StatusCode::CREATED, &joined))
}

pub(super) async fn remove(api: &Inner, actor: Actor, name: &str) -> Result<Answer, AdminError> {
    Ok(Answer::ok(&named(&api.cluster.federation()?.remove_peer(&actor, name).await?)))
}

pub(super) async fn trust(
    api: &Inner,
    actor: Actor,
    name: &str,
    request: shape::TrustPeer,
) -> Result<Answer, AdminError> {
    let fingerprint: ClusterId = request.fingerprint.parse().map_err(bad)?;
    Ok(Answer::ok(&named(&api.cluster.federation()?.trust(&actor, name, fingerprint).await?)))
}

pub(super) async fn share(
    api: &Inner,
    actor: Actor,
    bucket: &BucketName,
    request: shape::SetShare,
) -> Result<Answer, AdminError> {
    let rights = match request.rights.as_deref() {
        None => None,
        Some("ro") => Some(Rights::ReadOnly),
        Some("rw") => Some(Rights::ReadWrite),
        Some(other) => return Err(bad(format!("rights are ro or rw, not {other}"))),
    };
    api.cluster.share(&actor, bucket, &request.cluster, rights).await?;
    super::buckets::show(api, bucket).await
}

pub(super) async fn create_link(api: &Inner, actor: Actor, request: shape::CreateLink) -> Result<Answer, AdminError> {
    let parse = |name: &str| name.parse::<BucketName>().map_err(federation::Error::from);
    let (remote, name) = (parse(&request.remote)?, parse(&request.bucket)?);
    api.cluster.link(&actor, &request.cluster, &remote, &name).await?;
    super::buckets::show(api, &name).await
}

pub(super) async fn remove_link(api: &Inner, actor: Actor, bucket: &BucketName) -> Result<Answer, AdminError> {
    api.cluster.unlink(&actor, bucket).await?;
    Ok(Answer::nothing())
}

pub(super) async fn locate(api: &Inner, bucket: BucketName, path: &ObjectPath) -> Result<Answer, AdminError> {
    let located = api.cluster.locate(&BucketAt::newest(bucket), path).await?;
    let bodies = located.bodies.into_iter().map(|body| shape::BodyPlace {
        hash: body.hash.to_string(),
        length: body.length,
        here: body.here,
        holders: body.holders,
    });
    let (number, size) = (located.version.number.0, located.version.record.size);
    Ok(Answer::ok(&shape::Where { number, size, home: located.home, bodies: bodies.collect() }))
}

/// What a bucket has to do with other clusters.
pub(super) async fn ties(
    cluster: &Cluster,
    bucket: &BucketName,
) -> Result<(Option<shape::Link>, Vec<shape::Share>), AdminError> {
    let tied = cluster.link_of(bucket).await.map(|(linked, home)| link(&linked, &home));
    let shares = cluster.shares(bucket).await?;
    let shares = shares.into_iter().map(|(cluster, rights)| shape::Share { cluster, rights: rights.to_string() });
    Ok((tied, shares.collect()))
}
