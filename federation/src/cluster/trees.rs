//! Snapshot trees, what is in them, and pins.

use std::time::Duration;

use bytes::Bytes;

use super::Cluster;
use crate::error::{Error, Result};
use crate::master::{BodyReader, PinInfo, Tree, Version, Which};
use crate::snapshot::PageHash;
use crate::types::{BlobHash, BucketAt, BucketName, Number, ObjectPath, PinId, SnapshotRef};

/// How often a body is looked up again when what was found was moved meanwhile.
const LOOKS_MAX: usize = 4;

impl Cluster {
    /// A directory of a state: its path is empty or ends with a `/`.
    pub async fn tree(&self, at: &BucketAt, directory: &[u8]) -> Result<Tree> {
        self.master.tree_directory(at, directory).await
    }

    /// Pages of a directory of a state, in the order in which they are named.
    pub async fn tree_pages(
        &self,
        bucket: &BucketName,
        number: Number,
        directory: &[u8],
        pages: Vec<PageHash>,
    ) -> Result<Vec<Bytes>> {
        self.master.tree_pages(bucket, number, directory, pages).await
    }

    /// One body of an object in a state.
    pub async fn piece(
        &self,
        bucket: &BucketName,
        number: Number,
        path: &ObjectPath,
        hash: BlobHash,
    ) -> Result<BodyReader> {
        for look in 1.. {
            let version = self.in_state(bucket, number, path).await?;
            match self.master.open_piece(bucket, &version, hash).await {
                // Compaction moved a slot between the look-up and the read.
                Err(Error::Damaged { .. }) if look < LOOKS_MAX => {}
                opened => return opened,
            }
        }
        Err(Error::Conflict)
    }

    /// The hash tree of such a body: the chaining values of its groups, none where it has only one.
    pub async fn piece_tree(
        &self,
        bucket: &BucketName,
        number: Number,
        path: &ObjectPath,
        hash: BlobHash,
    ) -> Result<Bytes> {
        let version = self.in_state(bucket, number, path).await?;
        self.master.piece_tree(bucket, &version, hash).await
    }

    async fn in_state(&self, bucket: &BucketName, number: Number, path: &ObjectPath) -> Result<Version> {
        let at = BucketAt::at(bucket.clone(), SnapshotRef::Number(number));
        self.head(&at, path, Which::Newest).await
    }

    /// Keeps a state for a while, below the floor as well.
    pub async fn pin(&self, at: &BucketAt, holder: &str, lasting: Duration) -> Result<PinInfo> {
        self.master.pin(at, None, holder, lasting).await
    }

    /// Lets a pin last from now on.
    pub async fn renew_pin(&self, bucket: &BucketName, pin: PinId, lasting: Duration) -> Result<PinInfo> {
        self.master.renew_pin(bucket, None, pin, lasting).await
    }

    /// Ends a pin.
    pub async fn unpin(&self, bucket: &BucketName, pin: PinId) -> Result<()> {
        self.master.unpin(bucket, None, pin).await
    }
}
