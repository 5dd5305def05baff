//! What travels about other clusters.

use serde::{Deserialize, Serialize};

use super::Bucket;

/// A bucket, with what it has to do with other clusters: `GET /_elton/v1/buckets/BUCKET`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketDetails {
    /// The bucket.
    #[serde(flatten)]
    pub bucket: Bucket,
    /// Where it is numbered, if that is another cluster.
    pub link: Option<Link>,
    /// Who it is shared with.
    pub shares: Vec<Share>,
}

/// A bucket that another cluster numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name here.
    pub bucket: String,
    /// The cluster that numbers it, by its name here.
    pub home: String,
    /// Its name there.
    pub remote: String,
    /// How fresh reads are: `strong`, `bounded=SECONDS` or `available`.
    pub consistency: String,
}

/// Somebody a bucket is shared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The cluster, by its name here.
    pub cluster: String,
    /// `ro` or `rw`.
    pub rights: String,
}

/// `POST /_elton/v1/buckets/BUCKET/shares`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetShare {
    /// The cluster, by its name here.
    pub cluster: String,
    /// `ro`, `rw`, or null to withdraw.
    pub rights: Option<String>,
}

/// `POST /_elton/v1/links`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateLink {
    /// The cluster, by its name here.
    pub cluster: String,
    /// The bucket's name there.
    pub remote: String,
    /// Its name here.
    pub bucket: String,
}

/// `GET /_elton/v1/peers`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// This cluster.
    pub own: OwnCluster,
    /// The peers, by name.
    pub peers: Vec<Peer>,
    /// The linked buckets, by name.
    pub links: Vec<Link>,
    /// What crossed since the process began.
    pub traffic: Vec<PeerTraffic>,
}

/// This cluster, as others know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnCluster {
    /// What it calls itself.
    pub name: String,
    /// The fingerprint of its key.
    pub fingerprint: String,
    /// Where others reach it, if they can.
    pub address: Option<String>,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// What it is called here.
    pub name: String,
    /// The fingerprint of its key.
    pub fingerprint: String,
    /// Where it is reached; null if only it reaches this cluster.
    pub address: Option<String>,
    /// Since when it is known.
    pub joined: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// Since when that is so.
    pub since: Option<String>,
    /// The round trip, in microseconds.
    pub round_trip_us: Option<u64>,
    /// Why there is no connection.
    pub last_error: Option<String>,
    /// Bytes sent over its connections, above TLS.
    pub bytes_sent: u64,
    /// Bytes received over them.
    pub bytes_received: u64,
}

/// What crossed to and from a peer for one purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerTraffic {
    /// The peer.
    pub cluster: String,
    /// The bucket that it was about; null where it was about none.
    pub bucket: Option<String>,
    /// `read`, `list`, `publish`, `relay` or `link`.
    pub purpose: String,
    /// Bytes of messages and bodies that were sent.
    pub sent: u64,
    /// Bytes of messages and bodies that were received.
    pub received: u64,
}

/// `POST /_elton/v1/peers/invitations`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// What the other side joins with: `elton peer join TOKEN`. Whoever has it first can use it, once.
    pub token: String,
    /// For how many seconds.
    pub seconds: u64,
}

/// `POST /_elton/v1/peers`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinPeer {
    /// The token of an invitation.
    pub token: String,
}

/// `GET /_elton/v1/where?bucket=BUCKET&key=KEY`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Where {
    /// The newest version's number.
    pub number: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The cluster that numbers the bucket; null for this one.
    pub home: Option<String>,
    /// Its bodies, in order.
    pub bodies: Vec<BodyPlace>,
}

/// Where a body is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyPlace {
    /// The BLAKE3 hash of its content.
    pub hash: String,
    /// Its length in bytes.
    pub length: u64,
    /// Whether a copy is here.
    pub here: bool,
    /// Other clusters that are known to have it, or to know who has it.
    pub holders: Vec<String>,
}

/// How much of what is here has to do with other clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Bodies that were fetched from other clusters.
    pub copies: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bodies that were written here and that other clusters read from here: nobody else may have them.
    pub own: u64,
    /// Their bytes.
    pub own_bytes: u64,
    /// How many bytes of what was fetched are kept; null where there are no other clusters.
    pub bytes_max: Option<u64>,
    /// Rows of the catalog that keep what other clusters said of keys and versions.
    pub known_rows: u64,
    /// How many of them are kept, about; as many fetched bodies at the most. Null where there are no other clusters.
    pub known_rows_max: Option<u64>,
}

/// A peer by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPeer {
    /// What it is called here.
    pub name: String,
    /// The fingerprint of its key.
    pub fingerprint: String,
}

/// `PATCH /_elton/v1/peers/NAME`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustPeer {
    /// The fingerprint of the key that the name stands for from now on.
    pub fingerprint: String,
}
