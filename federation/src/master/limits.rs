//! What may grow how far. Each limit has a name that errors and the documentation use.

use std::time::Duration;

use crate::error::{Error, Result};

/// Limits of the core.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of disk that writes must leave free; deletes and the collector may use them.
    pub disk_reserve: u64,
    /// Buckets of a cluster.
    pub buckets_max: usize,
    /// Tags of a bucket's snapshots.
    pub bucket_tags_max: usize,
    /// Uploads in progress in a bucket.
    pub bucket_uploads_max: usize,
    /// Bytes of what is said of a snapshot.
    pub snapshot_message_bytes_max: usize,
    /// Bytes that a part needs unless it is the last.
    pub part_bytes_min: u64,
    /// Rows that are looked at for a page of a listing.
    pub list_rows_max: usize,
    /// Rows that are looked at in one go while a snapshot tree is derived.
    pub tree_rows_max: usize,
    /// Objects, or changes since a root that is kept, that a tree is derived of while a member waits for a listing.
    pub tree_near_rows_max: usize,
    /// Pins of a bucket's snapshots.
    pub bucket_pins_max: usize,
    /// Bytes of what a pin's holder calls itself.
    pub pin_holder_bytes_max: usize,
    /// How long a pin may last without being renewed.
    pub pin_max: Duration,
    /// Keys that are staged at once.
    pub commit_stage_keys_max: usize,
    /// Keys that are folded in a transaction.
    pub fold_rows_max: usize,
    /// Pieces of bodies that are claimed by a transaction that folds, but for the last key's.
    pub fold_pieces_max: usize,
    /// Rows that a restore compares before it spends a number all the same.
    pub restore_rows_compared_max: usize,
    /// Rows that the collector looks at in a transaction.
    pub collect_rows_max: usize,
    /// Pieces of bodies that the collector lets go of in a transaction, but for the last version's.
    pub collect_pieces_max: usize,
    /// Findings that a check reports.
    pub check_findings_max: usize,
    /// How long numbers stay snapshots where a bucket has no rule of its own.
    pub keep_default: Duration,
}

/// A limit that refuses what would exceed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `buckets_max`
    Buckets,
    /// `bucket_tags_max`
    BucketTags,
    /// `bucket_pins_max`
    BucketPins,
    /// `pin_holder_bytes_max`
    PinHolderBytes,
    /// `pin_max`, in seconds
    PinSeconds,
    /// `bucket_uploads_max`
    BucketUploads,
    /// `snapshot_message_bytes_max`
    SnapshotMessageBytes,
    /// `commit_stage_keys_max`
    CommitStageKeys,
    /// `invitations_max`
    Invitations,
    /// `clusters_max`
    Clusters,
    /// `tree_bytes_max`
    TreeBytes,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Limit::Buckets => "buckets_max",
            Limit::BucketTags => "bucket_tags_max",
            Limit::BucketPins => "bucket_pins_max",
            Limit::PinHolderBytes => "pin_holder_bytes_max",
            Limit::PinSeconds => "pin_max",
            Limit::BucketUploads => "bucket_uploads_max",
            Limit::SnapshotMessageBytes => "snapshot_message_bytes_max",
            Limit::CommitStageKeys => "commit_stage_keys_max",
            Limit::Invitations => "invitations_max",
            Limit::Clusters => "clusters_max",
            Limit::TreeBytes => "tree_bytes_max",
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            disk_reserve: 1 << 30,
            buckets_max: 10_000,
            bucket_tags_max: 1000,
            bucket_uploads_max: 100_000,
            snapshot_message_bytes_max: 1024,
            part_bytes_min: 5 * 1024 * 1024,
            list_rows_max: 50_000,
            tree_rows_max: 10_000,
            tree_near_rows_max: 20_000,
            bucket_pins_max: 10_000,
            pin_holder_bytes_max: 256,
            pin_max: Duration::from_secs(7 * 24 * 60 * 60),
            commit_stage_keys_max: 10_000,
            fold_rows_max: 1000,
            fold_pieces_max: 10_000,
            restore_rows_compared_max: 50_000,
            collect_rows_max: 1000,
            collect_pieces_max: 10_000,
            check_findings_max: 1000,
            keep_default: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Limits {
    /// Refuses what would exceed a limit.
    pub(super) fn check(limit: Limit, wanted: impl TryInto<u64>, maximum: impl TryInto<u64>) -> Result<()> {
        let maximum = maximum.try_into().unwrap_or(u64::MAX);
        if wanted.try_into().unwrap_or(u64::MAX) > maximum {
            return Err(Error::LimitReached { limit, maximum });
        }
        Ok(())
    }
}
