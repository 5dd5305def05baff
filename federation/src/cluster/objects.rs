//! Objects.

use super::Cluster;
use crate::error::{Error, Result, VersionName};
use crate::master::{
    Actor, After, AfterVersion, CopyRequest, DeleteRequest, Deleted, ListItem, ListPage, ListQuery, Opened, PartInfo,
    PutRequest, Version, VersionItem, VersionsQuery, Which, Written,
};
use crate::types::{Attributes, BucketAt, BucketName, Number, ObjectPath, Pair};

impl Cluster {
    /// A version without its body.
    pub async fn head(&self, at: &BucketAt, path: &ObjectPath, which: Which) -> Result<Version> {
        match self.linked(&at.bucket) {
            None => self.master.head(at, path, which).await,
            Some((member, linked)) => member.head(&linked, at, path, which).await,
        }
    }

    /// A version and its body.
    pub async fn get(&self, at: &BucketAt, path: &ObjectPath, which: Which) -> Result<Opened> {
        match self.linked(&at.bucket) {
            None => self.master.get(at, path, which).await,
            Some((member, linked)) => member.get(&linked, at, path, which).await,
        }
    }

    /// The parts of a version; none unless it was uploaded in parts.
    pub async fn parts(&self, version: &Version) -> Result<Vec<PartInfo>> {
        self.master.parts(version).await
    }

    /// The tags of a version.
    pub async fn tags(&self, at: &BucketAt, path: &ObjectPath, which: Which) -> Result<(Version, Vec<Pair>)> {
        match self.linked(&at.bucket) {
            None => self.master.tags(at, path, which).await,
            Some((member, linked)) => {
                let version = member.head(&linked, at, path, which).await?;
                let tags = version.record.tags.clone();
                Ok((version, tags))
            }
        }
    }

    /// A page of the live objects of a state.
    pub async fn list(&self, at: &BucketAt, query: ListQuery) -> Result<ListPage<ListItem, After>> {
        match self.linked(&at.bucket) {
            None => self.master.list(at, query).await,
            Some((member, linked)) => member.list(&linked, at, query).await,
        }
    }

    /// A page of versions.
    pub async fn list_versions(
        &self,
        at: &BucketAt,
        query: VersionsQuery,
    ) -> Result<ListPage<VersionItem, AfterVersion>> {
        match self.linked(&at.bucket) {
            None => self.master.list_versions(at, query).await,
            Some((member, linked)) => member.list_versions(&linked, at, query).await,
        }
    }

    /// Writes an object. Its body is on disk here and its record at its home when this returns.
    pub async fn put(
        &self,
        actor: &Actor,
        bucket: &BucketName,
        path: &ObjectPath,
        request: PutRequest,
    ) -> Result<Written> {
        match self.linked(bucket) {
            None => self.master.put(actor, bucket, path, request).await,
            Some((member, linked)) => member.put(&linked, actor, path, request).await,
        }
    }

    /// Copies a version, within a bucket or between any two.
    pub async fn copy(
        &self,
        actor: &Actor,
        source: &Version,
        bucket: &BucketName,
        path: &ObjectPath,
        request: CopyRequest,
    ) -> Result<Written> {
        match self.linked(bucket) {
            None => self.master.copy(actor, source, bucket, path, request).await,
            Some((member, linked)) => member.copy(&linked, actor, source, path, request).await,
        }
    }

    /// Deletes keys and versions, each its own number.
    pub async fn delete(
        &self,
        actor: &Actor,
        bucket: &BucketName,
        requests: Vec<DeleteRequest>,
    ) -> Result<Vec<Result<Deleted>>> {
        match self.linked(bucket) {
            None => self.master.delete(actor, bucket, requests).await,
            Some((member, linked)) => member.delete(&linked, actor, requests).await,
        }
    }

    /// Changes what may change about a version. Says under which number, and which version it was.
    pub async fn set_attributes(
        &self,
        actor: &Actor,
        bucket: &BucketName,
        path: &ObjectPath,
        which: Which,
        attributes: Attributes,
    ) -> Result<(Number, Option<VersionName>)> {
        match self.linked(bucket) {
            None => self.master.set_attributes(actor, bucket, path, which, attributes).await,
            Some((member, linked)) => member.set_attributes(&linked, actor, path, which, attributes).await,
        }
    }

    /// Whether a bucket exists, as far as is known here without asking anybody. A snapshot of it is looked up.
    pub async fn require(&self, at: &BucketAt) -> Result<()> {
        match (self.linked(&at.bucket), &at.snapshot) {
            (Some(_), None) => Ok(()),
            (Some((member, linked)), Some(_)) => member.resolve(&linked, at).await.map(drop),
            (None, _) => self.master.resolve(at).await.map(drop),
        }
    }

    /// The number that a snapshot names; the newest without one.
    pub async fn resolve(&self, at: &BucketAt) -> Result<Number> {
        match self.linked(&at.bucket) {
            None => self.master.resolve(at).await,
            Some((member, linked)) => member.resolve(&linked, at).await,
        }
    }
}

/// What cannot be done with a bucket that another cluster numbers.
pub(super) fn at_home_only(bucket: &BucketName, home: String) -> Error {
    Error::NotHome { bucket: bucket.clone(), home }
}
