//! Who buckets of this cluster are shared with.

use super::Master;
use super::home::numbered;
use super::request::{Actor, BucketInfo};
use crate::catalog::rows::{BucketRow, GrantRow, Record};
use crate::catalog::{KeyRange, Rows, Table, keys};
use crate::error::{Error, Result};
use crate::types::{BucketId, BucketName, MemberId, Rights};

/// On whose behalf a bucket of this cluster is changed.
#[derive(Clone, Copy, Debug)]
pub enum Behalf {
    /// Of this cluster's own clients.
    Own,
    /// Of a member that was granted the bucket of this id.
    Member(MemberId, BucketId),
}

impl Behalf {
    /// Refuses a member that may not write to a bucket, as things stand in the transaction that changes it. `id` is the
    /// bucket that the name stands for by then.
    pub(super) fn check(self, rows: &(impl Rows + ?Sized), id: BucketId) -> Result<()> {
        match self {
            Behalf::Own => Ok(()),
            Behalf::Member(member, bucket) if bucket == id => check_grant(rows, bucket, member),
            Behalf::Member(_, bucket) => Err(Error::NoSuchSharedBucket { bucket }),
        }
    }
}

/// Refuses a member that may not write to a bucket of this cluster.
pub(super) fn check_grant(rows: &(impl Rows + ?Sized), bucket: BucketId, member: MemberId) -> Result<()> {
    let none = || Error::NoSuchSharedBucket { bucket };
    let grant = GrantRow::load(rows, &keys::grant(bucket, member))?.ok_or_else(none)?;
    let row = BucketRow::load(rows, &keys::bucket(bucket))?.filter(|row| !row.linked && !row.deleted);
    let row = row.ok_or_else(none)?;
    if grant.rights == Rights::ReadWrite { Ok(()) } else { Err(Error::SharedReadOnly { bucket: row.name }) }
}

impl Master {
    /// Shares a bucket with a member, changes what it may do, or (none) withdraws it.
    pub async fn share(
        &self,
        actor: &Actor,
        bucket: &BucketName,
        member: MemberId,
        rights: Option<Rights>,
    ) -> Result<()> {
        let (name, actor, granted) = (bucket.clone(), actor.0.clone(), self.clock.wall());
        self.writer
            .transact(move |txn| {
                let key = keys::grant(numbered(txn, &name)?.0, member);
                match rights {
                    Some(rights) => txn.put(key, &GrantRow { rights, granted, actor }),
                    None => txn.remove(Table::Grants, key),
                }
                Ok(())
            })
            .await
    }

    /// All shares of buckets of this cluster.
    pub async fn all_shares(&self) -> Result<Vec<(BucketName, MemberId, Rights)>> {
        self.writer
            .read(|view| {
                let mut shares = Vec::new();
                for row in view.range(Table::Grants, KeyRange::prefix(&[]))? {
                    let (key, value) = row?;
                    let Some((id, member)) = key.split_first_chunk::<16>() else { continue };
                    let Ok(member) = member.try_into().map(MemberId) else { continue };
                    if let Some(row) = BucketRow::load(view, &keys::bucket(BucketId(*id)))?.filter(|row| !row.deleted) {
                        shares.push((row.name, member, GrantRow::decode(&value)?.rights));
                    }
                }
                Ok(shares)
            })
            .await
    }

    /// Who a bucket is shared with.
    pub async fn shares(&self, bucket: &BucketName) -> Result<Vec<(MemberId, Rights)>> {
        let name = bucket.clone();
        self.writer
            .read(move |view| {
                let (id, _) = numbered(view, &name)?;
                let mut shares = Vec::new();
                for row in view.range(Table::Grants, KeyRange::prefix(&keys::bucket(id)))? {
                    let (key, value) = row?;
                    if let Some(member) = key.get(16..).and_then(|id| id.try_into().ok()) {
                        shares.push((MemberId(member), GrantRow::decode(&value)?.rights));
                    }
                }
                Ok(shares)
            })
            .await
    }

    /// The buckets that are shared with a member.
    pub async fn shared_with(&self, member: MemberId) -> Result<Vec<(BucketInfo, Rights)>> {
        self.writer
            .read(move |view| {
                let mut shared = Vec::new();
                for row in view.range(Table::Grants, KeyRange::prefix(&[]))? {
                    let (key, value) = row?;
                    let Some(id) = key.get(..16).and_then(|id| id.try_into().ok()).map(BucketId) else { continue };
                    if !key.ends_with(&member.0) {
                        continue;
                    }
                    if let Some(row) = BucketRow::load(view, &keys::bucket(id))?.filter(|row| !row.deleted) {
                        shared.push((super::bucket::info(id, row), GrantRow::decode(&value)?.rights));
                    }
                }
                Ok(shared)
            })
            .await
    }

    /// What a member may do with a bucket of this cluster, and the bucket's name; `NoSuchSharedBucket` if nothing.
    pub async fn granted(&self, bucket: BucketId, member: MemberId) -> Result<(BucketName, Rights)> {
        self.writer
            .read(move |view| {
                let none = || Error::NoSuchSharedBucket { bucket };
                let grant = GrantRow::load(view, &keys::grant(bucket, member))?.ok_or_else(none)?;
                let row = BucketRow::load(view, &keys::bucket(bucket))?.filter(|row| !row.deleted && !row.linked);
                Ok((row.ok_or_else(none)?.name, grant.rights))
            })
            .await
    }
}
