//! A new version of a large body, taken from another one that is here as far as they are the same.
//!
//! Hash trees are compared: groups that are equal in the same place are copied. Where most are, those that differ are
//! compared by their 4 KiB leaves, and only leaves that differ cross. Whatever comes of it is compared with the new body's tree
//! like all that arrives.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::fetch::{Fetcher, collect, forged};
use super::fill::worth_waiting;
use super::groups::BATCH_BYTES;
use crate::blobs::{BackendError, GROUP_BYTES, GroupMap, LEAF_BYTES, Outboard, ReceiveError, leaf_values};
use crate::error::{Error, Result};
use crate::master::{ByteStream, Older, PartialCopy, Wanted};
use crate::peer::{BodyPart, RECEIVING};
use crate::types::MemberId;

/// How much of a body is compared at once.
pub(super) const WINDOW_BYTES: u64 = 512 * GROUP_BYTES as u64;

const GROUP: u64 = GROUP_BYTES as u64;
const LEAF: u64 = LEAF_BYTES as u64;
/// The length of a hash.
const VALUE: usize = blake3::OUT_LEN;

/// Another body of the same key, of which at least parts are here.
pub(super) struct Base {
    fetcher: Fetcher,
    wanted: Wanted,
    older: Older,
    length: u64,
    /// Groups that are the same in both.
    same: GroupMap,
    /// Whether groups that differ are compared leaf by leaf.
    leaves: bool,
}

/// A group of which only some leaves differ.
struct Patch {
    group: u64,
    old: Bytes,
    ranges: Vec<Range<u64>>,
}

impl Base {
    /// The body that has most of a wanted one in it, if there is one.
    pub(super) async fn find(fetcher: &Fetcher, wanted: &Wanted, copy: &PartialCopy) -> Result<Option<Base>> {
        let Some(older) = fetcher.master().older(wanted).await? else { return Ok(None) };
        let (length, tree) = match &older {
            Older::Parts(parts) => (parts.body.length(), parts.body.proof().outboard().clone()),
            Older::Whole(blob) => {
                let (blobs, asked) = (fetcher.master().blobs().clone(), blob.clone());
                let tree = fetcher.master().blobs().blocking().run(move || blobs.outboard(&asked)).await;
                // A damaged copy helps nobody; the check finds it.
                let Some(tree) = tree.ok().and_then(Outboard::from_bytes) else { return Ok(None) };
                (blob.length, tree)
            }
        };
        let (same, groups) = (equal_groups(&tree, copy.body.proof().outboard(), wanted.length), wanted.length / GROUP);
        let leaves = same.bytes() / GROUP * 2 >= groups;
        let (fetcher, wanted) = (fetcher.clone(), wanted.clone());
        Ok(Some(Base { fetcher, wanted, older, length, same, leaves }))
    }

    /// Takes what it can of a part of the body; what differs as a whole is left.
    pub(super) async fn fill(&mut self, holder: MemberId, copy: &Arc<PartialCopy>, window: &Range<u64>) -> Result<()> {
        if let Err(error) = self.copy_equal(copy, window).await {
            tracing::warn!(hash = %self.wanted.hash, %error, "equal parts of a body not copied");
            self.same = GroupMap::new(self.wanted.length);
            self.leaves = false;
        }
        if !self.leaves {
            return Ok(());
        }
        match self.patch(holder, copy, window).await {
            Err(error) if !worth_waiting(&error) => {
                // An older cluster does not know the question.
                tracing::info!(hash = %self.wanted.hash, error = &error as &dyn std::error::Error, "leaves of a body not compared");
                self.leaves = false;
                Ok(())
            }
            patched => patched,
        }
    }

    async fn copy_equal(&mut self, copy: &Arc<PartialCopy>, window: &Range<u64>) -> Result<(), BackendError> {
        for missing in copy.body.missing(window, usize::MAX) {
            for run in self.same.runs(true, &missing, usize::MAX) {
                for start in run.clone().step_by(BATCH_BYTES) {
                    let piece = start..run.end.min(start + BATCH_BYTES as u64);
                    let added = match self.read(piece.clone()).await? {
                        Some(bytes) => copy.body.add(start, bytes).await,
                        None => Err(ReceiveError::Forged { what: "the older version" }),
                    };
                    match added {
                        Ok(()) => {}
                        // It is not what it was: it is fetched instead.
                        Err(ReceiveError::Forged { .. }) => self.same.remove(&piece),
                        Err(ReceiveError::Backend(error)) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    async fn patch(&self, holder: MemberId, copy: &Arc<PartialCopy>, window: &Range<u64>) -> Result<()> {
        let missing = copy.body.missing(window, usize::MAX);
        let groups = missing.iter().flat_map(|run| run.start / GROUP..run.end.div_ceil(GROUP));
        let groups: Vec<u64> = groups.filter(|group| group * GROUP < self.length).collect();
        if groups.is_empty() {
            return Ok(());
        }
        let patches = self.compare(holder, copy, groups).await?;
        let ranges: Vec<_> =
            patches.iter().flat_map(|patch| &patch.ranges).map(|range| (range.start, range.end)).collect();
        if ranges.is_empty() {
            return Ok(());
        }
        let stream = self.fetcher.ask(holder, &self.wanted, BodyPart::Ranges(ranges)).await?;
        let mut arriving = Arriving { stream, buffer: BytesMut::new() };
        for patch in patches {
            let start = patch.group * GROUP;
            let mut bytes = BytesMut::from(&patch.old[..]);
            bytes.resize(to_usize(self.group(patch.group).end - start), 0);
            for range in patch.ranges {
                let new = arriving.take(to_usize(range.end - range.start)).await?;
                bytes[to_usize(range.start - start)..to_usize(range.end - start)].copy_from_slice(&new);
            }
            match copy.body.add(start, bytes.freeze()).await {
                Ok(()) => {}
                Err(ReceiveError::Backend(error)) => return Err(error.into()),
                Err(error @ ReceiveError::Forged { .. }) => return Err(forged(&self.wanted, error)),
            }
        }
        Ok(())
    }

    /// Which leaves of groups differ.
    async fn compare(&self, holder: MemberId, copy: &PartialCopy, groups: Vec<u64>) -> Result<Vec<Patch>> {
        let count = |group: u64| (self.group(group).end - group * GROUP).div_ceil(LEAF);
        let length = groups.iter().map(|group| count(*group) * VALUE as u64).sum();
        let stream = self.fetcher.ask(holder, &self.wanted, BodyPart::Leaves(groups.clone())).await?;
        let mut leaves = collect(stream, length).await?;
        let mut patches = Vec::new();
        for group in groups {
            let new = leaves.split_to((to_usize(count(group)) * VALUE).min(leaves.len()));
            if !copy.body.proof().outboard().verify_leaves(group, &new) {
                return Err(forged(&self.wanted, ReceiveError::Forged { what: "the leaves of a group" }));
            }
            let range = self.group(group);
            let Some(old) = self.read(range.start..range.end.min(self.length)).await? else { continue };
            let ranges = differing(&leaf_values(group, &old), &new, &range);
            patches.push(Patch { group, old, ranges });
        }
        Ok(patches)
    }

    /// Bytes of the older body, verified; none if they are not here.
    async fn read(&self, range: Range<u64>) -> Result<Option<Bytes>, BackendError> {
        match &self.older {
            Older::Parts(parts) => parts.body.read(range).await,
            Older::Whole(blob) => {
                let (blobs, blob) = (self.fetcher.master().blobs().clone(), blob.clone());
                let read = self.fetcher.master().blobs().blocking().run(move || blobs.read_range(&blob, range)).await;
                match read {
                    Err(BackendError::Missing { .. } | BackendError::Damaged { .. }) => Ok(None),
                    read => read.map(Some),
                }
            }
        }
    }

    /// The range of a group of the new body.
    fn group(&self, group: u64) -> Range<u64> {
        group * GROUP..self.wanted.length.min((group + 1) * GROUP)
    }
}

/// The groups of a body of `length` that another one has in the same place.
fn equal_groups(old: &Outboard, new: &Outboard, length: u64) -> GroupMap {
    let mut same = GroupMap::new(length);
    for group in 0..length.div_ceil(GROUP) {
        // Equal values are those of equal bytes, however many.
        if new.group(group).is_some() && old.group(group) == new.group(group) {
            same.add(&(group * GROUP..group * GROUP + 1));
        }
    }
    same
}

/// The ranges of leaves whose values differ, adjacent ones joined.
fn differing(old: &[u8], new: &[u8], group: &Range<u64>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (index, value) in (0..).zip(new.chunks(VALUE)) {
        let at = to_usize(index) * VALUE;
        if old.get(at..at + VALUE) == Some(value) {
            continue;
        }
        let leaf = group.start + index * LEAF..group.end.min(group.start + (index + 1) * LEAF);
        match ranges.last_mut().filter(|last| last.end == leaf.start) {
            Some(last) => last.end = leaf.end,
            None => ranges.push(leaf),
        }
    }
    ranges
}

/// An answer that is taken piece by piece.
struct Arriving {
    stream: ByteStream,
    buffer: BytesMut,
}

impl Arriving {
    async fn take(&mut self, length: usize) -> Result<BytesMut> {
        while self.buffer.len() < length {
            let Some(bytes) = self.stream.next().await else {
                let cut = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the answer ended too soon");
                return Err(Error::Storage { doing: RECEIVING, source: cut.into() });
            };
            self.buffer.extend_from_slice(&bytes?);
        }
        Ok(self.buffer.split_to(length))
    }
}

fn to_usize(length: u64) -> usize {
    usize::try_from(length).expect("at most a group, or a few values of one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::Digest;

    fn body(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8 ^ (at >> 13) as u8).collect()
    }

    fn pairs(ranges: Vec<Range<u64>>) -> Vec<(u64, u64)> {
        ranges.into_iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn a_changed_byte_is_one_leaf_of_one_group() {
        let old = body(3 * GROUP_BYTES + 5000);
        let mut new = old.clone();
        new[GROUP_BYTES + 9000] ^= 1;
        new[3 * GROUP_BYTES + 4999] ^= 1;
        let (before, after) = (Digest::of(&old), Digest::of(&new));
        let same = equal_groups(&before.outboard, &after.outboard, after.length);
        let length = after.length;
        assert_eq!(pairs(same.runs(false, &(0..length), 9)), [(GROUP, 2 * GROUP), (3 * GROUP, length)]);
        let leaves = |body: &[u8], group: u64| {
            let range = group as usize * GROUP_BYTES..body.len().min((group as usize + 1) * GROUP_BYTES);
            leaf_values(group, &body[range])
        };
        let found = differing(&leaves(&old, 1), &leaves(&new, 1), &(GROUP..2 * GROUP));
        assert_eq!(pairs(found), [(GROUP + 2 * LEAF, GROUP + 3 * LEAF)]);
        let found = differing(&leaves(&old, 3), &leaves(&new, 3), &(3 * GROUP..length));
        assert_eq!(pairs(found), [(3 * GROUP + LEAF, length)]);
    }

    #[test]
    fn what_the_older_body_has_not_differs() {
        let (old, new) = (body(GROUP_BYTES + 5000), body(GROUP_BYTES + 20_000));
        let (before, after) = (Digest::of(&old), Digest::of(&new));
        let same = equal_groups(&before.outboard, &after.outboard, after.length);
        assert_eq!(pairs(same.runs(true, &(0..after.length), 9)), [(0, GROUP)]);
        let found = differing(
            &leaf_values(1, &old[GROUP_BYTES..]),
            &leaf_values(1, &new[GROUP_BYTES..]),
            &(GROUP..after.length),
        );
        assert_eq!(pairs(found), [(GROUP + LEAF, after.length)]);
    }
}
