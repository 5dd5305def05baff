//! Named breaches of a promise, for the controls of the safety tests.
//!
//! A safety test that passes with its promise broken proves nothing. Built with the feature `mutants`, the
//! program breaks the promise that `ELTON_MUTANT` names; without it, [`on`] is a constant `false`.

/// A promise that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Small bodies are reported durable without a sync of their segment.
    ReplyBeforeSync,
    /// A large body's folder is not synced.
    SkipFolderSync,
    /// Bodies leave without being compared with their hash.
    ServeUnverified,
    /// Which parts of a body are here is written down before they are.
    MapBeforeData,
    /// Files are handed over without being compared with their hash.
    HandOverUnchecked,
    /// The catalog acknowledges a batch before it is committed.
    AckBeforeCommit,
    /// Conditional writes are not checked inside the transaction.
    SkipPrecondition,
    /// The collector removes before the raised floor is durable.
    CollectBeforeFloor,
    /// The collector deletes a marked blob even if it was claimed since.
    CollectClaimed,
    /// The collector takes versions that a tag still names.
    IgnoreTags,
    /// A multipart object is completed without its last part.
    CompleteWithoutLastPart,
    /// Numbers are issued twice.
    RepeatNumber,
    /// A failed closure's writes stay in the batch.
    KeepFailedWrites,
    /// The home does not keep what it answered to a member's change.
    ForgetAnswers,
    /// The home makes a change that was asked for under another term than its own.
    PublishUnderOldTerm,
    /// A member does not ask the home for what it knows to be absent.
    TrustAbsence,
    /// A member reads what it knows of a key as the newest.
    TrustFacts,
    /// The Docker plugin counts a volume's mount ID once, however often it is mounted.
    CountUsesOnce,
    /// The Docker plugin acknowledges before its state is kept.
    ReplyBeforeState,
    /// The Docker plugin unmounts what the kernel says is still in use, if dockerd does not.
    DetachHeld,
    /// The Docker plugin believes every use that dockerd has not given back.
    TrustUses,
    /// A mount hands on what it fetched without comparing it with the hash tree.
    MountServeUnverified,
    /// A mount says that a group is in its cache before its bytes are.
    MountMapBeforeData,
    /// A mount fetches what another one of its host is about to fetch.
    MountSkipClaim,
    /// A mount gives a number that is in use to another file.
    MountReuseInode,
    /// A snapshot tree is derived without what commits and restores did to keys.
    TreeSkipsLayer,
}

impl Mutant {
    /// The name that `ELTON_MUTANT` knows it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mutant::ReplyBeforeSync => "reply-before-sync",
            Mutant::SkipFolderSync => "skip-folder-sync",
            Mutant::ServeUnverified => "serve-unverified",
            Mutant::MapBeforeData => "map-before-data",
            Mutant::HandOverUnchecked => "hand-over-unchecked",
            Mutant::AckBeforeCommit => "ack-before-commit",
            Mutant::SkipPrecondition => "skip-precondition",
            Mutant::CollectBeforeFloor => "collect-before-floor",
            Mutant::CollectClaimed => "collect-claimed",
            Mutant::IgnoreTags => "ignore-tags",
            Mutant::CompleteWithoutLastPart => "complete-without-last-part",
            Mutant::RepeatNumber => "repeat-number",
            Mutant::KeepFailedWrites => "keep-failed-writes",
            Mutant::ForgetAnswers => "forget-answers",
            Mutant::PublishUnderOldTerm => "publish-under-old-term",
            Mutant::TrustAbsence => "trust-absence",
            Mutant::TrustFacts => "trust-facts",
            Mutant::CountUsesOnce => "count-uses-once",
            Mutant::ReplyBeforeState => "reply-before-state",
            Mutant::DetachHeld => "detach-held",
            Mutant::TrustUses => "trust-uses",
            Mutant::MountServeUnverified => "mount-serve-unverified",
            Mutant::MountMapBeforeData => "mount-map-before-data",
            Mutant::MountSkipClaim => "mount-skip-claim",
            Mutant::MountReuseInode => "mount-reuse-inode",
            Mutant::TreeSkipsLayer => "tree-skips-layer",
        }
    }
}

/// Whether the promise is to be broken.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline]
pub const fn on(_mutant: Mutant) -> bool {
    false
}

/// Whether the promise is to be broken.
#[cfg(feature = "mutants")]
#[must_use]
pub fn on(mutant: Mutant) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("ELTON_MUTANT").ok()).as_deref() == Some(mutant.name())
}
