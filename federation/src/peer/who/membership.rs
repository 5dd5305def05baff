//! Who this cluster knows: invitations, peers and what they are called here.

use std::time::Duration;

use crate::catalog::rows::{ClusterRow, GrantRow, InvitationRow, LinkRow, Record};
use crate::catalog::{KeyRange, Rows, Table, Transaction, keys};
use crate::error::{Error, Result};
use crate::master::{Limit, Master};
use crate::peer::protocol::{Join, Joined};
use crate::types::{BucketId, ClusterId, ClusterName, MemberId, PeerAddress, Timestamp, decode_hex};

/// How long an invitation may be used.
pub const INVITATION_LIFE: Duration = Duration::from_secs(60 * 60);
/// How many invitations can be open.
const INVITATIONS_MAX: usize = 64;
/// How many clusters can be known.
const CLUSTERS_MAX: usize = 1024;

/// A cluster that is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCluster {
    /// Its key's fingerprint.
    pub cluster: ClusterId,
    /// What it is called here.
    pub name: ClusterName,
    /// Where it can be reached; none if only it reaches this one.
    pub address: Option<String>,
    /// Since when it is known.
    pub joined: Timestamp,
}

impl From<ClusterRow> for KnownCluster {
    fn from(row: ClusterRow) -> Self {
        let ClusterRow { cluster, name, address, joined } = row;
        KnownCluster { cluster, name, address, joined }
    }
}

/// The clusters that this one knows, as they stand in its catalog.
#[derive(Clone, Debug)]
pub struct Membership {
    master: Master,
    /// This cluster's own key.
    pub cluster: ClusterId,
    /// What it calls itself.
    pub name: ClusterName,
}

impl Membership {
    /// The membership of a cluster.
    #[must_use]
    pub fn new(master: Master, cluster: ClusterId, name: ClusterName) -> Self {
        Membership { master, cluster, name }
    }

    /// Makes an invitation's secret, which can be used once and for an hour.
    pub async fn invite(&self) -> Result<[u8; 32]> {
        let mut secret = [0; 32];
        self.master.ids().fill(&mut secret);
        let (key, now) = (hash_of(&secret), self.master.clock().wall());
        self.master
            .writer()
            .transact(move |txn| {
                drop_expired(txn, now)?;
                let open = txn.range(Table::Invitations, KeyRange::prefix(&[]))?.count();
                if open >= INVITATIONS_MAX {
                    return Err(Error::LimitReached { limit: Limit::Invitations, maximum: INVITATIONS_MAX as u64 });
                }
                txn.put(key, &InvitationRow { expires: now.plus(INVITATION_LIFE) });
                Ok(())
            })
            .await?;
        Ok(secret)
    }

    /// Whether somebody unknown may say `join` now.
    pub async fn invites(&self) -> Result<bool> {
        let now = self.master.clock().wall();
        self.master
            .writer()
            .read(move |view| {
                for row in view.range(Table::Invitations, KeyRange::prefix(&[]))? {
                    if InvitationRow::decode(&row?.1)?.expires > now {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
            .await
    }

    /// Takes a cluster in that has used an invitation.
    pub async fn admit(&self, cluster: ClusterId, join: Join) -> Result<Joined> {
        let refused = || Error::InvalidRequest {
            reason: "the invitation was used, has expired or is not one of this cluster; ask for a new one".to_owned(),
        };
        let secret = <[u8; 32]>::try_from(decode_hex(&join.secret).ok_or_else(refused)?).map_err(|_| refused())?;
        let (key, now) = (hash_of(&secret), self.master.clock().wall());
        self.master
            .writer()
            .transact(move |txn| {
                let row = InvitationRow::load(txn, &key)?.filter(|row| row.expires > now);
                row.ok_or_else(refused)?;
                txn.remove(Table::Invitations, key);
                put(txn, cluster, join.name, lawful(join.address), now)
            })
            .await?;
        Ok(Joined { name: self.name.clone() })
    }

    /// Notes the cluster whose invitation was used here. Returns what it is called here.
    pub async fn joined(&self, cluster: ClusterId, name: ClusterName, address: String) -> Result<ClusterName> {
        let now = self.master.clock().wall();
        self.master.writer().transact(move |txn| put(txn, cluster, name, Some(address), now)).await
    }

    /// Notes where a peer can be reached from now on.
    pub async fn moved(&self, cluster: ClusterId, address: Option<String>) -> Result<()> {
        let address = lawful(address);
        self.master
            .writer()
            .transact(move |txn| {
                let key = keys::member(cluster.member());
                let Some(mut row) = ClusterRow::load(txn, &key)?.filter(|row| row.cluster == cluster) else {
                    return Ok(());
                };
                if row.address != address {
                    row.address = address;
                    txn.put(key, &row);
                }
                Ok(())
            })
            .await
    }

    /// All clusters that are known, by name.
    pub async fn clusters(&self) -> Result<Vec<KnownCluster>> {
        let mut all: Vec<KnownCluster> = self
            .master
            .writer()
            .read(|view| {
                let rows = view.range(Table::Clusters, KeyRange::prefix(&[]))?;
                rows.map(|row| Ok(ClusterRow::decode(&row?.1)?.into())).collect()
            })
            .await?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The cluster of a name.
    pub async fn named(&self, name: &str) -> Result<KnownCluster> {
        let missing = || Error::NoSuchCluster { cluster: name.to_owned() };
        self.clusters().await?.into_iter().find(|cluster| cluster.name.as_str() == name).ok_or_else(missing)
    }

    /// Forgets a cluster and all its rights. It need not be reachable. Buckets that it numbers stay as they are known.
    pub async fn remove(&self, name: &str) -> Result<KnownCluster> {
        let known = self.named(name).await?;
        let member = known.cluster.member();
        self.master
            .writer()
            .transact(move |txn| {
                txn.remove(Table::Clusters, keys::member(member));
                for key in grants_of(txn, member)? {
                    txn.remove(Table::Grants, key);
                }
                Ok(())
            })
            .await?;
        Ok(known)
    }

    /// Lets a name stand for another key from now on: the cluster of that name lost its own and made a new one.
    pub async fn trust(&self, name: &str, cluster: ClusterId) -> Result<KnownCluster> {
        let known = self.named(name).await?;
        let old = known.cluster.member();
        let row = ClusterRow { cluster, name: known.name, address: known.address, joined: known.joined };
        let new_row = row.clone();
        self.master
            .writer()
            .transact(move |txn| {
                let key = keys::member(cluster.member());
                if cluster.member() != old && ClusterRow::load(txn, &key)?.is_some() {
                    return Err(Error::InvalidRequest {
                        reason: "that key belongs to another known cluster".to_owned(),
                    });
                }
                txn.remove(Table::Clusters, keys::member(old));
                txn.put(key, &new_row);
                for key in grants_of(txn, old)? {
                    let Some(grant) = GrantRow::load(txn, &key)? else { continue };
                    let Some(bucket) = key.get(..16).and_then(|id| id.try_into().ok()) else { continue };
                    txn.remove(Table::Grants, key);
                    txn.put(keys::grant(BucketId(bucket), cluster.member()), &grant);
                }
                let links: Vec<_> =
                    txn.range(Table::Links, KeyRange::prefix(&[]))?.collect::<std::result::Result<_, _>>()?;
                for (key, value) in links {
                    let mut link = LinkRow::decode(&value)?;
                    if link.home == old {
                        link.home = cluster.member();
                        txn.put(key, &link);
                    }
                }
                Ok(())
            })
            .await?;
        Ok(row.into())
    }
}

/// An address that another cluster says it has. What is none is not kept: without one it may still dial us.
fn lawful(address: Option<String>) -> Option<String> {
    address.filter(|address| address.parse::<PeerAddress>().is_ok())
}

fn grants_of(txn: &Transaction<'_>, member: MemberId) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for row in txn.range(Table::Grants, KeyRange::prefix(&[]))? {
        let (key, _) = row?;
        if key.ends_with(&member.0) {
            found.push(key);
        }
    }
    Ok(found)
}

fn drop_expired(txn: &mut Transaction<'_>, now: Timestamp) -> Result<()> {
    let rows: Vec<_> = txn.range(Table::Invitations, KeyRange::prefix(&[]))?.collect::<std::result::Result<_, _>>()?;
    for (key, value) in rows {
        if InvitationRow::decode(&value)?.expires <= now {
            txn.remove(Table::Invitations, key);
        }
    }
    Ok(())
}

/// Notes a cluster under a name that no other one has here.
fn put(
    txn: &mut Transaction<'_>,
    cluster: ClusterId,
    name: ClusterName,
    address: Option<String>,
    now: Timestamp,
) -> Result<ClusterName> {
    let key = keys::member(cluster.member());
    let known = ClusterRow::load(txn, &key)?;
    if known.as_ref().is_some_and(|row| row.cluster != cluster) {
        return Err(Error::InvalidRequest { reason: "another known cluster's key begins like this one's".to_owned() });
    }
    let mut taken = Vec::new();
    for row in txn.range(Table::Clusters, KeyRange::prefix(&[]))? {
        let (row_key, value) = row?;
        if row_key != key {
            taken.push(ClusterRow::decode(&value)?.name);
        }
    }
    if known.is_none() && taken.len() >= CLUSTERS_MAX {
        return Err(Error::LimitReached { limit: Limit::Clusters, maximum: CLUSTERS_MAX as u64 });
    }
    let name = known.as_ref().map_or_else(|| free_name(name, &taken), |row| row.name.clone());
    let joined = known.map_or(now, |row| row.joined);
    txn.put(key, &ClusterRow { cluster, name: name.clone(), address, joined });
    Ok(name)
}

/// `name`, or with a number behind it where another cluster is called so.
fn free_name(name: ClusterName, taken: &[ClusterName]) -> ClusterName {
    if !taken.contains(&name) {
        return name;
    }
    let stem: String = name.as_str().chars().take(56).collect();
    let numbered = (2..).filter_map(|number: u32| format!("{stem}-{number}").parse::<ClusterName>().ok());
    numbered.into_iter().find(|name| !taken.contains(name)).unwrap_or(name)
}

/// Secrets are found by their hash: a look-up tells nobody how much of a guess was right.
fn hash_of(secret: &[u8; 32]) -> Vec<u8> {
    blake3::hash(secret).as_bytes().to_vec()
}
