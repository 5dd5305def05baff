//! Snapshot trees, what is in them, and pins.

use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;

use super::Cluster;
use crate::error::{Error, Result};
use crate::master::{BodyReader, PinInfo, Tree, Version, Which, not_in_snapshot};
use crate::snapshot::PageHash;
use crate::types::{BlobHash, BucketAt, BucketName, Number, ObjectPath, PinId, SnapshotRef};

/// How often a body is looked up again when what was found was moved meanwhile.
const LOOKS_MAX: usize = 4;

impl Cluster {
    /// A directory of a state: its path is empty or ends with a `/`.
    pub async fn tree(&self, at: &BucketAt, directory: &[u8]) -> Result<Tree> {
        match self.linked(&at.bucket) {
            None => self.master.tree_directory(at, directory).await,
            Some((member, linked)) => member.tree(&linked, at, directory).await,
        }
    }

    /// Pages of a directory of a state, in the order in which they are named.
    pub async fn tree_pages(
        &self,
        bucket: &BucketName,
        number: Number,
        directory: &[u8],
        pages: Vec<PageHash>,
    ) -> Result<Vec<Bytes>> {
        match self.linked(bucket) {
            None => self.master.tree_pages(bucket, number, directory, pages).await,
            Some((member, linked)) => member.tree_pages(&linked, number, directory, pages).await,
        }
    }

    /// One body of an object in a state: one of its pieces, or the list of its parts.
    pub async fn piece(
        &self,
        bucket: &BucketName,
        number: Number,
        path: &ObjectPath,
        hash: BlobHash,
    ) -> Result<BodyReader> {
        for look in 1.. {
            let version = self.piece_version(bucket, number, path, hash).await?;
            match self.master.open_version(version).await {
                // Compaction moved a slot between the look-up and the read.
                Err(Error::Damaged { .. }) if look < LOOKS_MAX => {}
                opened => return Ok(opened?.body),
            }
        }
        Err(Error::Conflict)
    }

    /// A read-only descriptor of such a body, if it is one file here.
    pub async fn piece_descriptor(
        &self,
        bucket: &BucketName,
        number: Number,
        path: &ObjectPath,
        hash: BlobHash,
    ) -> Result<Option<OwnedFd>> {
        let body = self.piece(bucket, number, path, hash).await?;
        self.master.hand_over(body).await
    }

    /// The hash tree of such a body: the chaining values of its groups, none where it has only one.
    pub async fn piece_tree(
        &self,
        bucket: &BucketName,
        number: Number,
        path: &ObjectPath,
        hash: BlobHash,
    ) -> Result<Bytes> {
        let version = self.piece_version(bucket, number, path, hash).await?;
        self.master.tree_of_body(version, false).await
    }

    /// One body of an object in a state, as a version of its own.
    async fn piece_version(
        &self,
        bucket: &BucketName,
        number: Number,
        path: &ObjectPath,
        hash: BlobHash,
    ) -> Result<Version> {
        let at = BucketAt::at(bucket.clone(), SnapshotRef::Number(number));
        let version = self.head(&at, path, Which::Newest).await?;
        let found = match self.master.version_of_piece(&version, hash).await? {
            // What the home keeps a long list of parts as is not in what it says of the version.
            None => match self.linked(bucket) {
                Some((member, linked)) => member.part_list(&linked, &version, number, hash).await?,
                None => None,
            },
            found => found,
        };
        found.ok_or_else(|| not_in_snapshot(bucket, number, format!("body {hash} in {path}")))
    }

    /// Keeps a state for a while, below the floor as well.
    pub async fn pin(&self, at: &BucketAt, holder: &str, lasting: Duration) -> Result<PinInfo> {
        match self.linked(&at.bucket) {
            None => self.master.pin(at, None, holder, lasting).await,
            Some((member, linked)) => member.pin(&linked, at, holder, lasting.as_secs()).await,
        }
    }

    /// Lets a pin last from now on.
    pub async fn renew_pin(&self, bucket: &BucketName, pin: PinId, lasting: Duration) -> Result<PinInfo> {
        match self.linked(bucket) {
            None => self.master.renew_pin(bucket, None, pin, lasting).await,
            Some((member, linked)) => member.renew_pin(&linked, pin, lasting.as_secs()).await,
        }
    }

    /// Ends a pin.
    pub async fn unpin(&self, bucket: &BucketName, pin: PinId) -> Result<()> {
        match self.linked(bucket) {
            None => self.master.unpin(bucket, None, pin).await,
            Some((member, linked)) => member.unpin(&linked, pin).await,
        }
    }
}
