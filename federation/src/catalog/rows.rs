//! What rows hold, version 1. `docs/data-format.md` describes the bytes.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{CatalogError, Rows, Table};
use crate::blobs::StoredOutboard;
use crate::master::Versioning;
use crate::types::{
    Attributes, BlobHash, BucketId, BucketName, ChangeTime, Checksum, ChecksumAlgorithm, ChecksumKind, ClusterId,
    ClusterName, Consistency, ContentHeader, FileId, LayerId, MemberId, Number, ObjectPath, ObjectRecord, Pair, Piece,
    Rights, Summary, Term, Timestamp, UploadId,
};

/// What a row of a table holds.
pub trait Record: Serialize + DeserializeOwned {
    /// The table.
    const TABLE: Table;

    /// The row's bytes.
    fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("records are plain data, which postcard can always write")
    }

    /// Reads a row's bytes.
    fn decode(bytes: &[u8]) -> Result<Self, CatalogError> {
        postcard::from_bytes(bytes)
            .map_err(|error| CatalogError::DamagedRow { table: Self::TABLE.name(), source: error.into() })
    }

    /// The row of a key.
    fn load(rows: &(impl Rows + ?Sized), key: &[u8]) -> Result<Option<Self>, CatalogError> {
        rows.get(Self::TABLE, key)?.map(|bytes| Self::decode(&bytes)).transpose()
    }
}

macro_rules! records {
    ($($record:ty = $table:ident,)*) => {
        $(impl Record for $record {
            const TABLE: Table = Table::$table;
        })*
    };
}

records! {
    BucketRow = Buckets,
    NameRow = Names,
    CurrentRow = Current,
    HistoryRow = History,
    NullRow = Nulls,
    ChangeRow = Changes,
    AttributesRow = Attributes,
    ConfigRow = Config,
    SlotOwner = Slots,
    BlobRow = Blobs,
    RefCount = BlobRefs,
    MarkedRow = Marked,
    HeldRow = Held,
    TagRow = Tags,
    PinRow = Pins,
    RootRow = Roots,
    UploadRow = Uploads,
    PartRow = Parts,
    CompletedRow = Completed,
    LayerRow = Layers,
    StagedRow = Staged,
    IdempotencyRow = Idempotency,
    TombstoneRow = Tombstones,
    ClusterRow = Clusters,
    InvitationRow = Invitations,
    GrantRow = Grants,
    LinkRow = Links,
    FactRow = Facts,
    VersionRow = Versions,
    BodyRow = Bodies,
    PartialRow = Partials,
    PublishRow = Publishes,
}

/// A bucket. The hottest row of all: every change writes it, once per batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRow {
    /// Its name.
    pub name: BucketName,
    /// When it was created.
    pub created: Timestamp,
    /// Its `LocationConstraint`.
    pub location: String,
    /// S3's versioning, as of the newest number.
    pub versioning: Versioning,
    /// The term.
    pub term: Term,
    /// The number before its first change: where a name that was used before counts on.
    pub first: Number,
    /// The newest number.
    pub last: Number,
    /// When that was issued.
    pub last_time: ChangeTime,
    /// The lowest number that is a snapshot without a tag or pin.
    pub floor: Number,
    /// When the floor's number was issued.
    pub floor_time: ChangeTime,
    /// Up to which change the collector has looked.
    pub collected: (Number, u32),
    /// How long numbers stay snapshots, in seconds.
    pub keep_seconds: Option<u64>,
    /// Live objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Superseded versions and delete markers that S3 lists.
    pub versions: u64,
    /// Uploads in progress.
    pub uploads: u64,
    /// Whether a tag or pin was removed since the collector last looked at what they held.
    pub released: bool,
    /// How many layers are open.
    pub open_layers: u32,
    /// Whether it has been deleted and waits for the collector.
    pub deleted: bool,
    /// Whether another cluster numbers it: its row in `links` says which. What the log here would say, the home says.
    pub linked: bool,
}

/// What a bucket name stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRow {
    /// The bucket that has the name now.
    pub bucket: Option<BucketId>,
    /// The bucket that had it last: its id, term and last number.
    pub past: Option<(BucketId, Term, Number)>,
}

/// The live version of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentRow {
    /// Since which number it is the newest: its own, or that of the delete that uncovered it.
    pub since: Number,
    /// What a listing shows.
    pub summary: Summary,
}

/// Until when S3 shows a version in listings of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visibility {
    /// It still does.
    Shown,
    /// From this number on it does not.
    Gone(Number),
    /// From this number on another row shows it: it was uncovered.
    Moved(Number),
}

/// A version that was superseded, or a delete marker, over one stretch of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// What a listing shows.
    pub summary: Summary,
    /// Whether it is a delete marker.
    pub marker: bool,
    /// The first number that no longer reads it as newest; none for a marker that nothing has followed.
    pub end: Option<Number>,
    /// Until when S3 lists it.
    pub visibility: Visibility,
}

impl HistoryRow {
    /// The first number at which no read operation can show the row; none while some still do.
    #[must_use]
    pub fn life_end(&self) -> Option<Number> {
        match self.visibility {
            Visibility::Shown => None,
            Visibility::Gone(number) | Visibility::Moved(number) => {
                Some(self.end.map_or(number, |end| end.max(number)))
            }
        }
    }

    /// Whether listings of versions show the row as of `at`.
    #[must_use]
    pub fn shown_at(&self, at: Number) -> bool {
        match self.visibility {
            Visibility::Shown => true,
            Visibility::Gone(number) | Visibility::Moved(number) => at < number,
        }
    }
}

/// Since which number the `null` version stands in `history`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NullRow(pub Number);

/// A configuration of a bucket, by its place in keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum ConfigTag {
    /// S3 versioning.
    Versioning = 1,
    /// Bucket tags.
    Tagging = 2,
    /// How long numbers stay snapshots.
    Keep = 3,
}

/// One numbered change, or one key of a change that is about many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// When.
    pub time: ChangeTime,
    /// By whom.
    pub actor: String,
    /// The member and its counter, of a change that came from another cluster.
    pub origin: Option<(MemberId, u64)>,
    /// Since when what this change superseded was the newest of its key.
    pub previous: Option<Number>,
    /// The `history` rows of its key (by since) whose life this change ended.
    pub ended: Vec<Number>,
    /// The key; none for a change to the bucket itself.
    pub path: Option<ObjectPath>,
    /// What.
    pub change: Change,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A version was written; this row is its one home.
    Put(ObjectRecord),
    /// A delete marker was made.
    Marker {
        /// Whether S3 shows it as the `null` version.
        null: bool,
    },
    /// The key was deleted without a marker.
    Delete,
    /// A version or marker was removed for good.
    RemoveVersion {
        /// Which.
        version: Number,
        /// Whether it was the `null` one.
        null: bool,
    },
    /// Tags, ACL, retention or hold of a version were changed.
    Attributes {
        /// Which version.
        version: Number,
        /// What from now on.
        attributes: Attributes,
    },
    /// A configuration of the bucket was set, or with none removed.
    Config(ConfigTag, ConfigRow),
    /// A commit or restore: its layer's rows follow under further ordinals.
    Layer(LayerSource),
    /// A content was taken out of every number.
    Purge {
        /// Of which version.
        version: Number,
    },
}

/// Tags, ACL, retention and hold of a version from a change on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributesRow {
    /// All of them, those that this change did not touch included.
    pub attributes: Attributes,
    /// The change that set them before.
    pub previous: Option<Number>,
}

/// A configuration of a bucket from a change on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigRow {
    /// It was removed.
    Absent,
    /// S3 versioning.
    Versioning(Versioning),
    /// Bucket tags.
    Tagging(Vec<Pair>),
    /// How long numbers stay snapshots, in seconds.
    Keep(u64),
}

/// Which record a small body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotOwner {
    /// A version's body or one of its pieces.
    Version {
        /// The bucket.
        bucket: BucketId,
        /// The version's number.
        number: Number,
        /// Its ordinal.
        ordinal: u32,
        /// The slot's length, so that a segment's live bytes are known from this table alone.
        length: u32,
    },
    /// A part of an upload.
    Part {
        /// The upload.
        upload: UploadId,
        /// The part's number.
        number: u16,
        /// The slot's length.
        length: u32,
    },
    /// The hash tree of a large body.
    Outboard {
        /// The content.
        hash: crate::types::BlobHash,
        /// The slot's length.
        length: u32,
    },
    /// The body of a key that is staged for a commit.
    Staged {
        /// The layer; the key is found by its staged row.
        layer: LayerId,
        /// The slot's length.
        length: u32,
    },
    /// The copy here of a body that other clusters know, too.
    Shared {
        /// The bucket.
        bucket: BucketId,
        /// The content.
        hash: crate::types::BlobHash,
        /// The slot's length.
        length: u32,
    },
    /// The hash tree of a body of which parts are here.
    Partial {
        /// The bucket.
        bucket: BucketId,
        /// The content.
        hash: crate::types::BlobHash,
        /// The slot's length.
        length: u32,
    },
}

impl SlotOwner {
    /// The slot's length in bytes.
    #[must_use]
    pub fn length(&self) -> u32 {
        match self {
            SlotOwner::Version { length, .. }
            | SlotOwner::Part { length, .. }
            | SlotOwner::Outboard { length, .. }
            | SlotOwner::Staged { length, .. }
            | SlotOwner::Shared { length, .. }
            | SlotOwner::Partial { length, .. } => *length,
        }
    }
}

/// A large body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRow {
    /// The file that holds it.
    pub file: FileId,
    /// Its length in bytes.
    pub length: u64,
    /// Its hash tree.
    pub outboard: StoredOutboard,
    /// Whether the collector found nobody referring to it (its row in `marked`); whoever claims it takes the mark away.
    pub marked: bool,
}

/// How many records refer to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefCount(pub u64);

/// Nothing but the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedRow;

/// Nothing but the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRow;

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRow {
    /// What it names.
    pub number: Number,
    /// When it was made.
    pub created: Timestamp,
    /// By whom.
    pub actor: String,
    /// What was said of it.
    pub message: String,
}

/// A pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRow {
    /// What it keeps.
    pub number: Number,
    /// When it ends unless it is renewed; none for a clone's.
    pub expires: Option<Timestamp>,
    /// Who holds it.
    pub holder: String,
    /// The cluster that asked for it; none for this one.
    pub member: Option<MemberId>,
}

/// The root of a snapshot tree. It never changes: a number names one content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRow(pub crate::snapshot::Root);

/// An upload in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRow {
    /// When it was begun.
    pub begun: Timestamp,
    /// By whom.
    pub actor: String,
    /// Content headers of the object to be.
    pub headers: Vec<(ContentHeader, String)>,
    /// Its user metadata.
    pub metadata: Vec<Pair>,
    /// Its tags.
    pub tags: Vec<Pair>,
    /// The checksum that its parts and it shall have.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// Whether its client asked for that checksum; else its parts may state theirs by any algorithm.
    pub checksum_declared: bool,
}

/// A part of an upload in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRow {
    /// The body; none when it is empty.
    pub piece: Option<Piece>,
    /// Its MD5.
    pub md5: [u8; 16],
    /// Its checksum.
    pub checksum: Option<Checksum>,
    /// When it was uploaded.
    pub modified: Timestamp,
}

/// What an upload became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedRow {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub path: ObjectPath,
    /// The version.
    pub summary: Summary,
    /// When.
    pub time: Timestamp,
}

/// What a layer lays over its bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerSource {
    /// Rows that were staged.
    Staged {
        /// Which.
        layer: LayerId,
        /// What its maker said of it.
        message: String,
        /// How many keys were staged.
        keys: u64,
    },
    /// A state of a bucket below a prefix.
    Snapshot {
        /// The bucket.
        bucket: BucketId,
        /// The state.
        number: Number,
        /// The prefix.
        prefix: Vec<u8>,
    },
}

/// A layer that is published and not yet folded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRow {
    /// What it lays over.
    pub source: LayerSource,
    /// When its number was issued.
    pub time: ChangeTime,
    /// By whom.
    pub actor: String,
    /// The next ordinal for a key that is folded.
    pub next_ordinal: u32,
    /// Up to and with which path everything is folded.
    pub folded: Option<ObjectPath>,
}

/// A key that is staged for a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StagedRow {
    /// It will have this content.
    Put(ObjectRecord),
    /// It will be deleted.
    Delete,
}

/// The answer to a change that another cluster published, kept until that cluster says it has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRow {
    /// In which bucket.
    pub bucket: BucketId,
    /// What was answered; none once the member gave the change up, so that it can no longer take place.
    pub answer: Option<crate::master::PeerAnswer>,
}

/// A content that was taken out of every number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TombstoneRow {
    /// The change that did it.
    pub change: Number,
    /// By whom.
    pub actor: String,
}

/// A cluster that this one has a link to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRow {
    /// The fingerprint of its key.
    pub cluster: ClusterId,
    /// What it is called here.
    pub name: ClusterName,
    /// Where it can be reached; none if only it reaches this one.
    pub address: Option<String>,
    /// Since when it is known.
    pub joined: Timestamp,
}

/// An invitation that nobody has used yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationRow {
    /// Until when it may be used.
    pub expires: Timestamp,
}

/// What a member may do with a bucket of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRow {
    /// What.
    pub rights: Rights,
    /// Since when.
    pub granted: Timestamp,
    /// By whom.
    pub actor: String,
}

/// A bucket that another cluster numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// Which cluster.
    pub home: MemberId,
    /// What the bucket is called there.
    pub remote: BucketName,
    /// The highest number that was seen; nothing older is ever shown as the newest.
    pub seen: Number,
    /// How fresh reads of the newest are here.
    pub consistency: Consistency,
}

/// What the home of a linked bucket said of a key: over a stretch of numbers, from the one in the row's key on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactRow {
    /// The last number of which it was said.
    pub until: Number,
    /// When that was asked, by this cluster's clock.
    pub asked: Timestamp,
    /// Whether S3 shows version ids in the bucket.
    pub versioned: bool,
    /// What the key is.
    pub state: FactState,
}

/// What a key of a linked bucket is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FactState {
    /// It has this version, with these tags as of the stretch.
    Live {
        /// The version.
        number: Number,
        /// Its ordinal.
        ordinal: u32,
        /// Whether S3 shows it as the `null` version.
        null: bool,
        /// Its tags.
        tags: Vec<Pair>,
    },
    /// Its newest version is a delete marker.
    Marker {
        /// What S3 calls it.
        version: crate::error::VersionName,
        /// When it was made.
        modified: Timestamp,
    },
    /// There is nothing.
    Absent,
}

/// A version of a linked bucket. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow {
    /// The key.
    pub path: ObjectPath,
    /// The content; its pieces are all [`Piece::Shared`].
    pub record: ObjectRecord,
}

/// A body that more than one cluster knows of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyRow {
    /// Its length in bytes.
    pub length: u64,
    /// How many records of this cluster's log refer to it.
    pub references: u64,
    /// The copy here, if there is one.
    pub copy: Option<Copy>,
    /// Whether the copy was written here: others read it from here, and it is not evicted.
    pub own: bool,
    /// Who else has it, the one that wrote it first.
    pub holders: Vec<MemberId>,
    /// When the copy was last read, roughly.
    pub used: Timestamp,
}

/// Where the copy of a shared body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Copy {
    /// In a segment.
    Slot(crate::types::Slot),
    /// A large body, counted like those of this cluster's own buckets.
    Blob,
}

/// A large body of another cluster of which parts are here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialRow {
    /// The file with holes that they stand in.
    pub file: FileId,
    /// The length of the whole body in bytes.
    pub length: u64,
    /// Its hash tree.
    pub outboard: StoredOutboard,
    /// Which groups are there, a bit for each, the lowest of the first byte first. Whatever it names is on the disk.
    pub map: Vec<u8>,
    /// How many bytes that is.
    pub bytes: u64,
    /// When it was last read or added to, roughly.
    pub used: Timestamp,
    /// Whether it was given up: nothing of it is used any more, and its file waits to be removed.
    pub gone: bool,
}

/// A change that was sent to the home of a linked bucket and whose outcome is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishRow {
    /// The bucket.
    pub bucket: BucketId,
    /// The bodies that were made durable for it, which go again if it did not take place.
    pub bodies: Vec<BlobHash>,
    /// The upload that it completes, which ends if it did.
    pub upload: Option<(ObjectPath, UploadId)>,
}
