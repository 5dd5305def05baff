//! What travels about the state of a cluster among others.

use serde::{Deserialize, Serialize};

/// Somebody a bucket of this cluster is shared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketMember {
    /// The bucket.
    pub bucket: String,
    /// The member, by its name here.
    pub cluster: String,
    /// `ro` or `rw`.
    pub rights: String,
}

/// How far what is known here of a linked bucket is behind its home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkLag {
    /// Its name here.
    pub bucket: String,
    /// The cluster that numbers it, by its name here.
    pub home: String,
    /// The newest number that was heard of here. Asking for the status does not change it.
    pub known: u64,
    /// How many seconds ago the home said that this was the newest; null if not since the process began.
    pub heard_seconds: Option<u64>,
    /// The newest number, as the home says now; null if it does not answer within two seconds.
    pub newest: Option<u64>,
}

/// Bodies of a bucket of this cluster of which there is one whole copy at the most, as far as is known.
///
/// Counted are bodies that members wrote and that a version still has. Members say what they have; nobody proves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SingleCopies {
    /// The bucket.
    pub bucket: String,
    /// How many one other cluster has and this one has not.
    pub elsewhere: u64,
    /// Their bytes.
    pub elsewhere_bytes: u64,
    /// How many this cluster has and no peer has.
    pub here: u64,
    /// Their bytes.
    pub here_bytes: u64,
    /// How many neither this cluster nor any peer has.
    pub nowhere: u64,
    /// Their bytes.
    pub nowhere_bytes: u64,
}

/// What crossed today.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Today {
    /// Since when: midnight UTC, or when the process began if that was later.
    pub since: String,
    /// By peer and purpose.
    pub traffic: Vec<PeerPurpose>,
}

/// What crossed to and from a peer for one purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPurpose {
    /// The peer.
    pub cluster: String,
    /// `read`, `list`, `publish`, `relay` or `link`.
    pub purpose: String,
    /// Bytes of messages and bodies that were sent.
    pub sent: u64,
    /// Bytes of messages and bodies that were received.
    pub received: u64,
}
