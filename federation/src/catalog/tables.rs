//! Every table of the catalog. A table's name carries the version of what its rows hold.

/// The format of the catalog as a whole, kept in `meta-1` under [`META_FORMAT`].
pub const FORMAT: u32 = 2;

/// The row of `meta-1` that holds [`FORMAT`].
pub const META_FORMAT: &[u8] = b"format";
/// The row of `meta-1` that holds a count of commits, by which an uncertain commit is told from a failed one.
pub const META_COMMITS: &[u8] = b"commits";
/// The row of `meta-1` below whose file id and segment id nothing unclaimed is left on the disk.
pub const META_SWEPT: &[u8] = b"swept";
/// The row of `meta-1` that counts starts, as the file `generation` does.
pub const META_GENERATION: &[u8] = b"generation";
/// The row of `meta-1` that stands there when the last close found over half of the catalog's file free.
pub const META_COMPACT: &[u8] = b"compact";
/// The row of `meta-1` below whose counter this cluster may have sent changes to others.
pub const META_COUNTER: &[u8] = b"counter";
/// The row of `meta-1` that holds the collector's clocks as of its last pass.
pub const META_COLLECTED: &[u8] = b"collected";

macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident = $name:literal,)*) => {
        /// A table of the catalog.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Table {
            $($(#[$doc])* $table,)*
        }

        impl Table {
            /// All of them.
            pub const ALL: &'static [Table] = &[$(Table::$table,)*];

            /// Its name in the engine.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Table::$table => $name,)*
                }
            }
        }
    };
}

tables! {
    /// bucket id → [`super::rows::BucketRow`]
    Buckets = "buckets-1",
    /// bucket name → [`super::rows::NameRow`]
    Names = "names-1",
    /// bucket id, path → [`super::rows::CurrentRow`]: live objects only
    Current = "current-1",
    /// bucket id, path, ~since → [`super::rows::HistoryRow`]: superseded versions and delete markers
    History = "history-1",
    /// bucket id, path → number since which the `null` version stands in `history`
    Nulls = "nulls-1",
    /// bucket id, number, ordinal → [`super::rows::ChangeRow`]: the log, which is the version store
    Changes = "changes-1",
    /// bucket id, path, version, ~change → [`super::rows::AttributesRow`]
    Attributes = "attributes-1",
    /// bucket id, configuration, ~change → its value from that change on
    Config = "config-1",
    /// segment, offset → [`super::rows::SlotOwner`]
    Slots = "slots-1",
    /// content hash → [`super::rows::BlobRow`]
    Blobs = "blobs-1",
    /// content hash, bucket id → how many records of the bucket refer to it
    BlobRefs = "blob-refs-1",
    /// content hash → (): large bodies that nobody referred to when the collector last looked
    Marked = "marked-1",
    /// bucket id, end, since, path → (): history below the floor that a tag or pin keeps
    Held = "held-1",
    /// bucket id, tag → [`super::rows::TagRow`]
    Tags = "tags-1",
    /// bucket id, pin id → [`super::rows::PinRow`]
    Pins = "pins-1",
    /// bucket id, page hash → the bytes of a page of a snapshot tree
    Pages = "pages-1",
    /// bucket id, number → [`super::rows::RootRow`]: roots of snapshot trees, derived from the log or told by the home
    Roots = "roots-1",
    /// bucket id, path, upload id → [`super::rows::UploadRow`]
    Uploads = "uploads-1",
    /// upload id, part number → [`super::rows::PartRow`]
    Parts = "parts-1",
    /// upload id → [`super::rows::CompletedRow`]: completions are answered again for a while
    Completed = "completed-1",
    /// bucket id, number → [`super::rows::LayerRow`]: open commits, restores and clones
    Layers = "layers-1",
    /// layer id, path → [`super::rows::StagedRow`]
    Staged = "staged-1",
    /// member, counter → [`super::rows::IdempotencyRow`]
    Idempotency = "idempotency-1",
    /// member → [`super::rows::ClusterRow`]: the clusters that this one has a link to
    Clusters = "clusters-1",
    /// BLAKE3 of an invitation's secret → [`super::rows::InvitationRow`]
    Invitations = "invitations-1",
    /// bucket id, member → [`super::rows::GrantRow`]: who a bucket of this cluster is shared with
    Grants = "grants-1",
    /// bucket id → [`super::rows::LinkRow`]: a bucket that another cluster numbers
    Links = "links-1",
    /// bucket id, path, ~from → [`super::rows::FactRow`]: what a linked bucket's home said of a key
    Facts = "facts-1",
    /// bucket id, number, ordinal → [`super::rows::VersionRow`]: versions of linked buckets, valid for ever
    Versions = "versions-1",
    /// bucket id, content hash → [`super::rows::BodyRow`]: bodies that came from or may go to other clusters
    Bodies = "bodies-1",
    /// bucket id, content hash → [`super::rows::PartialRow`]: bodies of other clusters of which parts are here
    Partials = "partials-1",
    /// counter → [`super::rows::PublishRow`]: changes sent to other clusters whose outcome is not known yet
    Publishes = "publishes-1",
    /// user → its keys and rights
    Users = "users-1",
    /// bucket id, path, version → [`super::rows::TombstoneRow`]: contents taken out of every number
    Tombstones = "tombstones-1",
    /// name → value: format, commits, sweep marks
    Meta = "meta-1",
}
