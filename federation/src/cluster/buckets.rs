//! Buckets.

use super::Cluster;
use super::objects::at_home_only;
use crate::error::Result;
use crate::master::{Actor, BucketChange, BucketInfo, Versioning};
use crate::types::{BucketAt, BucketName, Number, Pair};

impl Cluster {
    /// Makes a bucket that this cluster numbers.
    pub async fn create_bucket(&self, actor: &Actor, name: &BucketName, location: &str) -> Result<BucketInfo> {
        self.master.create_bucket(actor, name, location).await
    }

    /// Deletes an empty bucket, at its home only.
    pub async fn delete_bucket(&self, actor: &Actor, name: &BucketName) -> Result<()> {
        match self.linked(name) {
            None => self.master.delete_bucket(actor, name).await,
            Some((member, linked)) => Err(at_home_only(name, member.name_of(linked.home).await)),
        }
    }

    /// All buckets, linked ones among them, by name. Of these only what is known here.
    pub async fn buckets(&self) -> Result<Vec<BucketInfo>> {
        self.master.buckets().await
    }

    /// A bucket.
    pub async fn bucket(&self, name: &BucketName) -> Result<BucketInfo> {
        match self.linked(name) {
            None => self.master.bucket(name).await,
            Some((member, linked)) => member.bucket(&linked).await,
        }
    }

    /// Changes a bucket's configuration. Returns the number of the change.
    pub async fn change_bucket(&self, actor: &Actor, name: &BucketName, change: BucketChange) -> Result<Number> {
        match self.linked(name) {
            None => self.master.change_bucket(actor, name, change).await,
            Some((member, linked)) => member.configure(&linked, actor, change).await,
        }
    }

    /// The bucket's tags in a state of it.
    pub async fn bucket_tagging(&self, at: &BucketAt) -> Result<Option<Vec<Pair>>> {
        match self.linked(&at.bucket) {
            None => self.master.bucket_tagging(at).await,
            Some((member, linked)) => Ok(member.configuration(&linked, at).await?.tagging),
        }
    }

    /// S3's versioning of the bucket in a state of it.
    pub async fn bucket_versioning(&self, at: &BucketAt) -> Result<Versioning> {
        match self.linked(&at.bucket) {
            None => self.master.bucket_versioning(at).await,
            Some((member, linked)) => Ok(member.configuration(&linked, at).await?.versioning),
        }
    }
}
