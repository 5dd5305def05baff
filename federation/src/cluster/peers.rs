//! Peers, links and shares, as the operator sees them.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Cluster;
use crate::error::{Error, Result};
use crate::master::{Actor, BucketInfo, Fetch, Master, Relaying};
use crate::member::{Fetcher, Linked, Member};
use crate::peer::{
    self, Admission, Bill, Crossed, Identity, Invitation, Join, Joined, KnownCluster, LinkLimits, LinkPeer, LinkStatus,
    Links, Membership, Moved, PeerClient, PeerServer, PeerService, Purpose, Question, Refusal, Request, Response,
    Secret, Service, TlsTransport, Transport, TransportLimits, Wire, WireError,
};
use crate::types::{BucketName, ClusterId, ClusterName, Consistency, MemberId, PeerAddress, Rights};

/// Makes what connects a cluster to others, once it is known who may connect.
pub type MakeTransport = Box<dyn FnOnce(Admission) -> Arc<dyn Transport> + Send>;

/// What a cluster is to other clusters.
pub struct FederationConfig {
    /// Its key's fingerprint.
    pub cluster: ClusterId,
    /// What it calls itself.
    pub name: ClusterName,
    /// What connects it to others.
    pub transport: MakeTransport,
    /// Where others reach it, if they can.
    pub advertise: Option<PeerAddress>,
    /// How many bytes of bodies that were fetched from others are kept.
    pub cache_bytes_max: u64,
    /// About how many rows are kept of what others said of their buckets.
    pub known_rows_max: u64,
    /// Whether bodies that only a member has are passed on to other members.
    pub relaying: Relaying,
}

/// Connections over TCP and TLS; without a listener this cluster only dials.
#[must_use]
pub fn over_tls(identity: Identity, listener: Option<TcpListener>) -> MakeTransport {
    Box::new(move |admission| {
        Arc::new(match listener {
            None => TlsTransport::dialling(&identity),
            Some(listener) => TlsTransport::listening(&identity, listener, admission, &TransportLimits::default()),
        })
    })
}

/// This cluster among others.
#[derive(Debug)]
pub struct Federation {
    pub(super) member: Member,
    membership: Arc<Membership>,
    links: Arc<Links>,
    pub(super) bill: Arc<Bill>,
    advertise: Option<PeerAddress>,
    admitted: Arc<Admitted>,
    pub(super) cache_bytes_max: u64,
    /// Brings bodies for the Master, for as long as it is here.
    _fetcher: Arc<dyn Fetch>,
    /// What goes on in the background ends with this.
    _ending: DropGuard,
}

/// A peer, as the operator sees it.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// What is known of it.
    pub known: KnownCluster,
    /// How the link to it is.
    pub link: Option<LinkStatus>,
}

/// What crossed to and from a peer for one purpose since the process began.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// The peer, by its name here.
    pub cluster: String,
    /// The bucket that it was about, by its name here; none where it was about none, or the bucket is gone.
    pub bucket: Option<BucketName>,
    /// What for.
    pub purpose: Purpose,
    /// How much.
    pub crossed: Crossed,
}

/// Who may connect: peers, and anybody while an invitation is open. Asked in every handshake, so it is in memory.
#[derive(Debug, Default)]
struct Admitted {
    peers: RwLock<HashSet<ClusterId>>,
    /// Until when an invitation is open, since boot.
    invited_until: RwLock<Option<Duration>>,
}

impl Admitted {
    fn admits(&self, cluster: ClusterId, now: Duration) -> bool {
        let invited = *self.invited_until.read().expect("no holder of this lock panics");
        invited.is_some_and(|until| now < until)
            || self.peers.read().expect("no holder of this lock panics").contains(&cluster)
    }
}

impl Federation {
    pub(super) async fn open(master: &Arc<Master>, config: FederationConfig) -> Result<Federation> {
        let FederationConfig { cluster, name, transport, advertise, cache_bytes_max, known_rows_max, relaying } =
            config;
        let membership = Arc::new(Membership::new((**master).clone(), cluster, name));
        let admitted = Arc::new(Admitted::default());
        if membership.invites().await? {
            open_door(&admitted, master);
        }
        let (asked, clock) = (Arc::clone(&admitted), Arc::clone(master.clock()));
        let transport = transport(Arc::new(move |cluster| asked.admits(cluster, clock.boottime())));
        let bill = Arc::new(Bill::new(Arc::clone(master.clock())));
        let server = PeerServer::new((**master).clone(), Arc::clone(&membership), relaying);
        let service = Arc::new(Joining {
            service: PeerService::new(server, Arc::clone(&bill)),
            membership: Arc::clone(&membership),
            admitted: Arc::clone(&admitted),
            links: OnceLock::new(),
        });
        let links = Links::start(
            transport,
            Arc::clone(&service) as Arc<dyn Service>,
            Arc::clone(master.clock()),
            Arc::clone(master.ids()),
            LinkLimits::default(),
        );
        // Set once, here.
        let _ = service.links.set(Arc::downgrade(&links));
        let wire: Arc<dyn Wire> =
            Arc::new(PeerClient::new(Arc::clone(&links), Arc::clone(&membership), Arc::clone(&bill)));
        follow(&membership, &links, &admitted).await?;
        let ending = CancellationToken::new();
        let _ending = ending.clone().drop_guard();
        let member =
            Member::open((**master).clone(), Arc::clone(&membership), wire, known_rows_max, ending.clone()).await?;
        let _fetcher: Arc<dyn Fetch> = Arc::new(Fetcher::new(member.clone()));
        master.fetch_with(&_fetcher);
        let announcing = announce(Arc::clone(&membership), member.clone(), advertise.as_ref());
        tokio::spawn(ending.run_until_cancelled_owned(announcing));
        Ok(Federation { member, membership, links, bill, advertise, admitted, cache_bytes_max, _fetcher, _ending })
    }

    /// This cluster's own key.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.membership.cluster
    }

    /// What it calls itself.
    #[must_use]
    pub fn name(&self) -> &ClusterName {
        &self.membership.name
    }

    /// Where others reach it.
    #[must_use]
    pub fn advertise(&self) -> Option<&PeerAddress> {
        self.advertise.as_ref()
    }

    /// Makes an invitation that can be used once.
    pub async fn invite(&self, master: &Master) -> Result<Invitation> {
        let refused = |reason: String| Err(Error::InvalidRequest { reason });
        let Some(address) = self.advertise.clone() else {
            return refused("nobody could use the invitation: this cluster does not say where it can be reached. Start it with --peer-advertise HOST:PORT".to_owned());
        };
        if !is_reachable(&address) {
            return refused(format!(
                "nobody else could use the invitation: {address} is only this machine itself. Start the cluster with \
                 --peer-listen on an address that others reach and --peer-advertise HOST:PORT, or let the other side invite"
            ));
        }
        let secret = self.membership.invite().await?;
        open_door(&self.admitted, master);
        Ok(Invitation { address, cluster: self.membership.cluster, secret: Secret::from_bytes(secret) })
    }

    /// Uses an invitation of another cluster. Returns what that is called here.
    pub async fn join(&self, invitation: &Invitation) -> Result<ClusterName> {
        let refused = |why: String| Error::ClusterAway { cluster: invitation.address.to_string(), why };
        if invitation.cluster == self.membership.cluster {
            return Err(Error::InvalidRequest { reason: "the invitation is this cluster's own".to_owned() });
        }
        let mut peers = peers(&self.membership).await?;
        peers.retain(|peer| peer.cluster != invitation.cluster);
        peers.push(LinkPeer { cluster: invitation.cluster, address: Some(invitation.address.clone()) });
        self.links.set_peers(peers);
        let joined = self.say_join(invitation).await;
        let outcome = match joined {
            Ok(joined) => self.membership.joined(invitation.cluster, joined.name, invitation.address.to_string()).await,
            Err(WireError::Refused(Refusal::InvalidRequest { reason })) => Err(Error::InvalidRequest { reason }),
            Err(error) => Err(refused(error.to_string())),
        };
        follow(&self.membership, &self.links, &self.admitted).await?;
        outcome
    }

    async fn say_join(&self, invitation: &Invitation) -> Result<Joined, WireError> {
        let secret = invitation.secret.expose().iter().map(|byte| format!("{byte:02x}")).collect();
        let address = self.advertise.as_ref().filter(|address| is_reachable(address)).map(ToString::to_string);
        let join = Join { secret, name: self.membership.name.clone(), address };
        let response = peer::call(&self.links, invitation.cluster, Join::PATH, peer::json(&join)).await?;
        let (lawful, answer) = (response.status().is_success(), peer::read_whole(response).await?);
        let nonsense = |error: serde_json::Error| WireError::Nonsense { why: error.to_string() };
        if lawful {
            return serde_json::from_slice(&answer).map_err(nonsense);
        }
        Err(serde_json::from_slice::<Refusal>(&answer).map_or_else(nonsense, WireError::Refused))
    }

    /// How many bytes of what was fetched from others are kept, and how many rows of what they said.
    #[must_use]
    pub fn cache_limits(&self) -> (u64, u64) {
        (self.cache_bytes_max, self.member.known_rows_max())
    }

    /// The peers, as buckets know them.
    pub(super) async fn members(&self) -> Result<HashSet<MemberId>> {
        Ok(self.membership.clusters().await?.into_iter().map(|known| known.cluster.member()).collect())
    }

    /// The peers, by name, and how the links to them are.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>> {
        let status = self.links.status();
        let clusters = self.membership.clusters().await?;
        Ok(clusters
            .into_iter()
            .map(|known| PeerInfo {
                link: status.iter().find(|status| status.cluster == known.cluster).cloned(),
                known,
            })
            .collect())
    }

    /// Forgets a peer and its rights; it need not be reachable.
    pub async fn remove_peer(&self, actor: &Actor, name: &str) -> Result<KnownCluster> {
        tracing::info!(cluster = name, actor = actor.0, "peer to be removed");
        let removed = self.membership.remove(name).await?;
        follow(&self.membership, &self.links, &self.admitted).await?;
        Ok(removed)
    }

    /// Lets a peer's name stand for another key from now on.
    pub async fn trust(&self, actor: &Actor, name: &str, cluster: ClusterId) -> Result<KnownCluster> {
        tracing::info!(cluster = name, fingerprint = %cluster, actor = actor.0, "peer's key replaced");
        let known = self.membership.trust(name, cluster).await?;
        // The buckets that it numbers are asked for under the new key from now on.
        self.member.load().await?;
        follow(&self.membership, &self.links, &self.admitted).await?;
        Ok(known)
    }

    /// What crossed since the process began.
    pub async fn traffic(&self, buckets: &[BucketInfo]) -> Result<Vec<Traffic>> {
        let clusters = self.membership.clusters().await?;
        let name_of = |member: MemberId| {
            let known = clusters.iter().find(|known| known.cluster.member() == member);
            known.map_or_else(|| member.to_string(), |known| known.name.to_string())
        };
        let bucket_of = |id| buckets.iter().find(|bucket| bucket.id == id).map(|bucket| bucket.name.clone());
        let items = self.bill.items().into_iter().map(|((member, cost), crossed)| Traffic {
            cluster: name_of(member),
            bucket: cost.bucket.and_then(bucket_of),
            purpose: cost.purpose,
            crossed,
        });
        Ok(items.collect())
    }

    /// The linked buckets, and who numbers each.
    pub async fn links(&self) -> Vec<(Linked, String)> {
        let mut links = Vec::new();
        for linked in self.member.all_linked() {
            let home = self.member.name_of(linked.home).await;
            links.push((linked, home));
        }
        links.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        links
    }

    /// What a member is called here.
    pub async fn name_of(&self, member: MemberId) -> String {
        self.member.name_of(member).await
    }

    /// The member of a name.
    pub async fn member_named(&self, name: &str) -> Result<MemberId> {
        Ok(self.membership.named(name).await?.cluster.member())
    }

    pub(super) async fn close(&self) {
        self.links.close().await;
    }
}

impl Cluster {
    /// Shares a bucket of this cluster with a peer, or (none) withdraws it.
    pub async fn share(&self, actor: &Actor, bucket: &BucketName, with: &str, rights: Option<Rights>) -> Result<()> {
        let federation = self.federation()?;
        if let Some((linked, home)) = self.link_of(bucket).await {
            return Err(super::objects::at_home_only(&linked.name, home));
        }
        let member = federation.member_named(with).await?;
        self.master.share(actor, bucket, member, rights).await
    }

    /// Who a bucket is shared with, by name.
    pub async fn shares(&self, bucket: &BucketName) -> Result<Vec<(String, Rights)>> {
        let mut named = Vec::new();
        if self.linked(bucket).is_some() {
            return Ok(named);
        }
        for (member, rights) in self.master.shares(bucket).await? {
            named.push((self.federation()?.name_of(member).await, rights));
        }
        Ok(named)
    }

    /// Links a bucket of a peer under a name of this cluster.
    pub async fn link(
        &self,
        actor: &Actor,
        cluster: &str,
        remote: &BucketName,
        name: &BucketName,
    ) -> Result<BucketInfo> {
        self.federation()?.member.link(actor, cluster, remote, name).await
    }

    /// Ends a link.
    pub async fn unlink(&self, actor: &Actor, name: &BucketName) -> Result<()> {
        self.federation()?.member.unlink(actor, name).await
    }

    /// Sets how fresh reads of a linked bucket are.
    pub async fn set_consistency(&self, name: &BucketName, consistency: Consistency) -> Result<()> {
        self.federation()?.member.set_consistency(name, consistency).await
    }

    /// The link of a name and who numbers it, if it is one.
    pub async fn link_of(&self, name: &BucketName) -> Option<(Linked, String)> {
        let (member, linked) = self.linked(name)?;
        let home = member.name_of(linked.home).await;
        Some((linked, home))
    }
}

/// Whether an address means the same to other machines as to this one, as far as it says so itself.
#[must_use]
pub fn is_reachable(address: &PeerAddress) -> bool {
    let host = address.host();
    match host.parse::<IpAddr>() {
        Ok(ip) => !ip.is_loopback() && !ip.is_unspecified(),
        Err(_) => host != "localhost" && !host.ends_with(".localhost"),
    }
}

/// Lets strangers connect for as long as an invitation lives; what they may say is to join.
fn open_door(admitted: &Admitted, master: &Master) {
    let until = master.clock().boottime() + peer::INVITATION_LIFE;
    *admitted.invited_until.write().expect("no holder of this lock panics") = Some(until);
}

async fn peers(membership: &Membership) -> Result<Vec<LinkPeer>> {
    let clusters = membership.clusters().await?;
    Ok(clusters
        .into_iter()
        .map(|known| LinkPeer {
            cluster: known.cluster,
            // What cannot be read as an address came from another cluster: without one it may still dial us.
            address: known.address.and_then(|address| address.parse().ok()),
        })
        .collect())
}

/// Tells every peer where this cluster is reached now: an address that changed is followed.
fn announce(
    membership: Arc<Membership>,
    member: Member,
    advertise: Option<&PeerAddress>,
) -> impl Future<Output = ()> + Send + 'static {
    let address = advertise.filter(|address| is_reachable(address)).map(ToString::to_string);
    async move {
        let mut told = HashSet::new();
        loop {
            let clusters = membership.clusters().await.unwrap_or_default();
            let mut untold = false;
            for known in clusters.into_iter().map(|known| known.cluster.member()) {
                if !told.contains(&known) {
                    match member.tell(known, &Moved { address: address.clone() }).await {
                        Ok(()) => drop(told.insert(known)),
                        Err(_) => untold = true,
                    }
                }
            }
            if !untold {
                return;
            }
            tokio::time::sleep(ANNOUNCE_PAUSE).await;
        }
    }
}

/// How long a peer that could not be told where this cluster is reached is left alone.
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(30);

/// Links follow what is known.
async fn follow(membership: &Membership, links: &Links, admitted: &Admitted) -> Result<()> {
    let peers = peers(membership).await?;
    *admitted.peers.write().expect("no holder of this lock panics") = peers.iter().map(|peer| peer.cluster).collect();
    links.set_peers(peers);
    Ok(())
}

/// A service after whose every answer to a stranger the links follow: it may have joined.
struct Joining {
    service: PeerService,
    membership: Arc<Membership>,
    admitted: Arc<Admitted>,
    links: OnceLock<std::sync::Weak<Links>>,
}

#[async_trait::async_trait]
impl Service for Joining {
    async fn serve(&self, peer: ClusterId, request: Request) -> Response {
        let path = request.uri().path();
        let changes = path.ends_with(Join::PATH) || path.ends_with(Moved::PATH);
        let response = self.service.serve(peer, request).await;
        if changes
            && response.status().is_success()
            && let Some(links) = self.links.get().and_then(std::sync::Weak::upgrade)
            && let Err(error) = follow(&self.membership, &links, &self.admitted).await
        {
            tracing::error!(error = &error as &dyn std::error::Error, "links do not follow a peer that joined");
        }
        response
    }
}
