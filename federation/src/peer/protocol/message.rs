//! What clusters say to each other: questions and their answers, in JSON. `docs/protocol.md` is their reference.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::master::{
    After, AfterVersion, BucketInfo, Difference, ListItem, ListPage, ListQuery, LogEntry, Look, Looked, Origin,
    PeerAnswer, PeerChange, PinInfo, Restored, TagInfo, VersionItem, Versioning, VersionsQuery,
};
use crate::snapshot::{PageHash, Root, Stand, Totals};
use crate::types::{
    BlobHash, BucketId, BucketName, ClusterName, Number, ObjectPath, Pair, Piece, PinId, Rights, SnapshotRef, TagName,
};

/// The version of the protocol, which begins every path.
pub const VERSION: &str = "v1";

/// A question that one cluster asks another.
pub trait Question: Serialize + DeserializeOwned + Send + 'static {
    /// Where it is asked: `/v1/PATH`.
    const PATH: &'static str;
    /// What its bytes are counted as.
    const PURPOSE: Purpose;
    /// What is answered.
    type Answer: Serialize + DeserializeOwned + Send;

    /// The bucket that it is about, if it is about one.
    fn bucket(&self) -> Option<BucketId>;
}

/// What bytes between clusters are spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Looking up versions and reading bodies for somebody who waits.
    Read,
    /// Listings.
    List,
    /// Changes.
    Publish,
    /// Bodies passed on from one member to another.
    Relay,
    /// Links themselves: joining, pings, offers.
    Link,
}

impl Purpose {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Read => "read",
            Purpose::List => "list",
            Purpose::Publish => "publish",
            Purpose::Relay => "relay",
            Purpose::Link => "link",
        }
    }
}

macro_rules! questions {
    (@bucket $question:ident nothing) => {
        None
    };
    (@bucket $question:ident bucket) => {
        Some($question.bucket)
    };
    ($($(#[$doc:meta])* $name:ident ($path:literal, $purpose:ident, about $about:ident) -> $answer:ty { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Serialize, Deserialize)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl Question for $name {
                const PATH: &'static str = $path;
                const PURPOSE: Purpose = Purpose::$purpose;
                type Answer = $answer;

                fn bucket(&self) -> Option<BucketId> {
                    let question = self;
                    let _ = question;
                    questions!(@bucket question $about)
                }
            }
        )*

        /// What the bytes of a question of this path are counted as.
        #[must_use]
        pub fn purpose_of(path: &str) -> Purpose {
            match path {
                $($path => Purpose::$purpose,)*
                BODY_PATH => Purpose::Read,
                _ => Purpose::Link,
            }
        }
    };
}

questions! {
    /// Uses an invitation. The one question that a stranger may ask.
    Join("join", Link, about nothing) -> Joined {
        /// The invitation's secret, in hexadecimal.
        secret: String,
        /// What the asker calls itself.
        name: ClusterName,
        /// Where it can be reached, if it can.
        address: Option<String>,
    }
    /// Says where the asker can be reached from now on.
    Moved("moved", Link, about nothing) -> () {
        /// Where.
        address: Option<String>,
    }
    /// What is known of a bucket that is shared with the asker.
    Offer("offer", Link, about nothing) -> Offered {
        /// Its name at its home.
        bucket: BucketName,
    }
    /// The buckets that are shared with the asker.
    Offers("offers", Link, about nothing) -> Vec<Offered> {}
    /// A key.
    LookAt("look", Read, about bucket) -> Looked {
        /// The bucket.
        bucket: BucketId,
        /// What is asked.
        look: Look,
    }
    /// The number that a snapshot names; the newest without one.
    Resolve("resolve", Read, about bucket) -> Number {
        /// The bucket.
        bucket: BucketId,
        /// The snapshot.
        snapshot: Option<SnapshotRef>,
    }
    /// What is known of a bucket.
    Info("info", Read, about bucket) -> BucketInfo {
        /// The bucket.
        bucket: BucketId,
    }
    /// A bucket's configuration in a state of it.
    Configuration("configuration", Read, about bucket) -> Configured {
        /// The bucket.
        bucket: BucketId,
        /// The state.
        snapshot: Option<SnapshotRef>,
    }
    /// A page of the live objects of a state.
    List("list", List, about bucket) -> ListPage<ListItem, After> {
        /// The bucket.
        bucket: BucketId,
        /// The state.
        snapshot: Option<SnapshotRef>,
        /// The page.
        query: ListQuery,
    }
    /// The root of a state's tree, with the pages that a listing of it takes.
    TreeAt("tree", List, about bucket) -> TreeTold {
        /// The bucket.
        bucket: BucketId,
        /// The state; the newest without one.
        snapshot: Option<SnapshotRef>,
        /// A state whose root the asker has, with all pages that the same listing takes of it.
        known: Option<Number>,
        /// The listing, if it is for one.
        query: Option<ListQuery>,
    }
    /// Pages of a directory of a state.
    TreePages("pages", List, about bucket) -> Vec<PageBytes> {
        /// The bucket.
        bucket: BucketId,
        /// The state.
        number: Number,
        /// The directory: empty, or with a `/` at the end.
        #[serde(with = "crate::types::serde_bytes_or_text")]
        directory: Vec<u8>,
        /// Their hashes.
        pages: Vec<BlobHash>,
    }
    /// Keeps a state for a while.
    Pin("pin", Read, about bucket) -> PinInfo {
        /// The bucket.
        bucket: BucketId,
        /// The state; the newest without one.
        snapshot: Option<SnapshotRef>,
        /// Who holds it, in words.
        holder: String,
        /// How long, unless it is renewed.
        seconds: u64,
    }
    /// Lets a pin last from now on.
    RenewPin("renew", Read, about bucket) -> PinInfo {
        /// The bucket.
        bucket: BucketId,
        /// The pin.
        pin: PinId,
        /// How long.
        seconds: u64,
    }
    /// Ends a pin.
    Unpin("unpin", Read, about bucket) -> () {
        /// The bucket.
        bucket: BucketId,
        /// The pin.
        pin: PinId,
    }
    /// A page of versions.
    Versions("versions", List, about bucket) -> ListPage<VersionItem, AfterVersion> {
        /// The bucket.
        bucket: BucketId,
        /// The state.
        snapshot: Option<SnapshotRef>,
        /// The page.
        query: VersionsQuery,
    }
    /// A change.
    Publish("publish", Publish, about bucket) -> PeerAnswer {
        /// The bucket.
        bucket: BucketId,
        /// Which change it is.
        origin: Origin,
        /// Who makes it, as the asker knows them.
        actor: String,
        /// What is changed.
        change: PeerChange,
    }
    /// What became of a change. If it has not taken place, it never will.
    Outcome("outcome", Publish, about bucket) -> Option<PeerAnswer> {
        /// The bucket.
        bucket: BucketId,
        /// The change.
        counter: u64,
    }
    /// Says that the asker has bodies now.
    Holding("holding", Read, about bucket) -> () {
        /// The bucket.
        bucket: BucketId,
        /// The bodies.
        bodies: Vec<Piece>,
    }
    /// Which of the asker's own bodies no version needs any more.
    Unneeded("unneeded", Publish, about bucket) -> Vec<BlobHash> {
        /// The bucket.
        bucket: BucketId,
        /// The bodies.
        hashes: Vec<BlobHash>,
    }
    /// The tags of a bucket.
    Snapshots("snapshots", Read, about bucket) -> Vec<TagInfo> {
        /// The bucket.
        bucket: BucketId,
    }
    /// Names a state.
    TagSnapshot("tag", Publish, about bucket) -> (Number, Option<TagInfo>) {
        /// The bucket.
        bucket: BucketId,
        /// The state.
        snapshot: Option<SnapshotRef>,
        /// The tag.
        tag: Option<TagName>,
        /// What is said of it.
        message: String,
        /// Who makes it.
        actor: String,
    }
    /// Removes a tag.
    RemoveTag("untag", Publish, about bucket) -> () {
        /// The bucket.
        bucket: BucketId,
        /// The tag.
        tag: TagName,
    }
    /// A page of the log.
    Log("log", Read, about bucket) -> ListPage<LogEntry, Number> {
        /// The bucket.
        bucket: BucketId,
        /// Only changes before this one.
        before: Option<Number>,
        /// How many at the most.
        max: usize,
    }
    /// A page of the differences between two states.
    Diff("diff", Read, about bucket) -> ListPage<Difference, ObjectPath> {
        /// The bucket.
        bucket: BucketId,
        /// The earlier state.
        a: Option<SnapshotRef>,
        /// The later state.
        b: Option<SnapshotRef>,
        /// Only keys that begin with this.
        #[serde(with = "crate::types::serde_bytes_or_text")]
        prefix: Vec<u8>,
        /// Only keys after this one.
        after: Option<ObjectPath>,
        /// How many at the most.
        max: usize,
    }
    /// Brings a state back.
    Restore("restore", Publish, about bucket) -> Restored {
        /// The bucket.
        bucket: BucketId,
        /// The state.
        snapshot: SnapshotRef,
        /// Below which prefix.
        #[serde(with = "crate::types::serde_bytes_or_text")]
        prefix: Vec<u8>,
        /// Who does it.
        actor: String,
    }
}

/// An invitation was used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// What the inviter calls itself.
    pub name: ClusterName,
}

/// A bucket that is shared with the asker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offered {
    /// What is known of it.
    pub bucket: BucketInfo,
    /// What the asker may do.
    pub rights: Rights,
}

/// A bucket's configuration in a state of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Configured {
    /// The state's number.
    pub at: Number,
    /// S3's versioning.
    pub versioning: Versioning,
    /// Bucket tags.
    pub tagging: Option<Vec<Pair>>,
}

/// What is told of a state's tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TreeTold {
    /// The state's number.
    pub number: Number,
    /// The newest number of the bucket.
    pub newest: Number,
    /// Its root; none where the asker knows it, or where it is still being derived.
    pub root: Option<TreeRoot>,
    /// Pages that the listing takes.
    pub pages: Vec<PageBytes>,
    /// The listing itself, where the tree is still being derived.
    pub listing: Option<ListPage<ListItem, After>>,
}

/// The root of a tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TreeRoot {
    /// The hash of its page, unless it stands in `rows`.
    pub page: Option<BlobHash>,
    /// Its rows, in base64.
    pub rows: PageBytes,
    /// Objects below it.
    pub objects: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

impl From<&Root> for TreeRoot {
    fn from(root: &Root) -> Self {
        let (page, rows) = match &root.stand {
            Stand::Page(page) => (Some(BlobHash(page.0)), Bytes::new()),
            Stand::Inline(rows) => (None, Bytes::copy_from_slice(rows)),
        };
        TreeRoot { page, rows: PageBytes(rows), objects: root.totals.objects, bytes: root.totals.bytes }
    }
}

impl From<TreeRoot> for Root {
    fn from(root: TreeRoot) -> Self {
        let stand = match root.page {
            Some(page) => Stand::Page(PageHash(page.0)),
            None => Stand::Inline(root.rows.0.into()),
        };
        Root { stand, totals: Totals { objects: root.objects, bytes: root.bytes } }
    }
}

/// The bytes of a page, which cross in base64.
#[derive(Clone, Debug)]
pub struct PageBytes(pub Bytes);

impl Serialize for PageBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for PageBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = STANDARD_NO_PAD.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        Ok(PageBytes(bytes.into()))
    }
}

/// The path of [`BodyQuestion`], which is answered by raw bytes.
pub const BODY_PATH: &str = "body";

/// A part of a body of a version, or its hash tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BodyQuestion {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub path: ObjectPath,
    /// The version.
    pub number: Number,
    /// Its ordinal.
    pub ordinal: u32,
    /// Which of its bodies.
    pub hash: BlobHash,
    /// What of it.
    pub part: BodyPart,
}

/// What of a body is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BodyPart {
    /// The chaining values of its 64 KiB groups, 32 bytes each.
    Tree,
    /// Its bytes from the one on and before the other.
    Range(u64, u64),
    /// The same of several ranges, one after the other.
    Ranges(Vec<(u64, u64)>),
    /// The chaining values of the 4 KiB leaves of these groups, 32 bytes each.
    Leaves(Vec<u64>),
}
