//! Hashing a body so that any 64 KiB of it can be verified alone.
//!
//! A body is named by its plain BLAKE3 hash. BLAKE3 is a tree, and the *outboard* keeps one level of it:
//! the chaining value of each [`GROUP_BYTES`] of the body, 32 bytes per group. The values merge into the
//! hash, which proves the outboard; each value then proves its group.

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use bytes::Bytes;

use crate::types::BlobHash;

/// What one value of an outboard covers, in bytes. It is a power of two of BLAKE3's chunks, hence a subtree.
pub const GROUP_BYTES: usize = 64 * 1024;

/// What a leaf covers, in bytes: groups that differ are compared leaf by leaf. A power of two of BLAKE3's chunks, too.
pub const LEAF_BYTES: usize = 4 * 1024;

/// What a body was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The hash of all its bytes.
    pub hash: BlobHash,
    /// Their number.
    pub length: u64,
    /// The hash tree at the groups' level.
    pub outboard: Outboard,
}

impl Digest {
    /// The digest of a body in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = TreeHasher::new();
        hasher.update(bytes);
        hasher.digest()
    }
}

/// The chaining values of a body's groups; none for a body of at most one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outboard(Bytes);

impl Outboard {
    /// An outboard as it was stored; `None` where the length cannot be one's.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Option<Outboard> {
        bytes.len().is_multiple_of(blake3::OUT_LEN).then_some(Outboard(bytes))
    }

    /// The values, 32 bytes each, in the groups' order.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether the values are those of the body of `length` bytes whose hash is `hash`. A body of at
    /// most one group needs no values: its hash alone verifies it.
    #[must_use]
    pub fn verify_root(&self, hash: &BlobHash, length: u64) -> bool {
        if length <= GROUP_BYTES as u64 {
            return self.0.is_empty();
        }
        let values = self.values();
        length.div_ceil(GROUP_BYTES as u64) == values.len() as u64 && merge_root(values) == *hash
    }

    /// Whether `bytes` are the body's group `index`. The outboard itself must have been verified.
    #[must_use]
    pub fn verify_group(&self, index: u64, bytes: &[u8]) -> bool {
        let value = usize::try_from(index).ok().and_then(|index| self.values().get(index));
        // An empty group is in no tree, and a longer one is no group: BLAKE3 refuses both.
        let sized = (1..=GROUP_BYTES).contains(&bytes.len());
        sized && value.is_some_and(|value| group_value(index, bytes) == *value)
    }

    /// The value of group `index`, by which equal groups of two bodies are told.
    #[must_use]
    pub fn group(&self, index: u64) -> Option<&[u8; blake3::OUT_LEN]> {
        usize::try_from(index).ok().and_then(|index| self.values().get(index))
    }

    /// Whether the values are those of the leaves of group `index`. The outboard itself must have been verified.
    #[must_use]
    pub fn verify_leaves(&self, index: u64, leaves: &[u8]) -> bool {
        let (leaves, rest) = leaves.as_chunks();
        let sized = rest.is_empty() && (1..=GROUP_BYTES / LEAF_BYTES).contains(&leaves.len());
        sized && self.group(index).is_some_and(|value| merge(leaves) == *value)
    }

    fn values(&self) -> &[ChainingValue] {
        self.0.as_chunks().0
    }
}

/// Hashes a body that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct TreeHasher {
    /// The values of the groups that are complete and known not to be the last.
    values: Vec<u8>,
    /// The group that bytes are added to.
    group: Hasher,
    /// How many bytes it has. A full group stays here until another byte shows that it is not the only one.
    filled: usize,
}

impl TreeHasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> TreeHasher {
        TreeHasher::default()
    }

    /// How many bytes it has seen.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.groups() * GROUP_BYTES as u64 + self.filled as u64
    }

    /// Adds the body's next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled == GROUP_BYTES {
                self.next_group();
            }
            let (now, later) = bytes.split_at(bytes.len().min(GROUP_BYTES - self.filled));
            self.group.update(now);
            self.filled += now.len();
            bytes = later;
        }
    }

    /// What the bytes seen so far are.
    #[must_use]
    pub fn digest(&self) -> Digest {
        if self.values.is_empty() {
            let hash = self.group.finalize().into();
            return Digest { hash, length: self.length(), outboard: Outboard::default() };
        }
        // Invariant: behind the first value the current group has a byte at least, see `filled`.
        let mut values = Vec::with_capacity(self.values.len() + blake3::OUT_LEN);
        values.extend_from_slice(&self.values);
        values.extend_from_slice(&self.group.finalize_non_root());
        let outboard = Outboard(values.into());
        Digest { hash: merge_root(outboard.values()), length: self.length(), outboard }
    }

    fn groups(&self) -> u64 {
        (self.values.len() / blake3::OUT_LEN) as u64
    }

    fn next_group(&mut self) {
        self.values.extend_from_slice(&self.group.finalize_non_root());
        // Not `reset`, which forgets that the input had an offset.
        self.group = Hasher::new();
        self.group.set_input_offset(self.groups() * GROUP_BYTES as u64);
        self.filled = 0;
    }
}

fn group_value(index: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(index * GROUP_BYTES as u64);
    hasher.update(bytes).finalize_non_root()
}

/// The values of the leaves of a body's group `index`, 32 bytes each.
#[must_use]
pub fn leaf_values(index: u64, bytes: &[u8]) -> Vec<u8> {
    let offsets = (index * GROUP_BYTES as u64..).step_by(LEAF_BYTES);
    let value = |(offset, leaf): (u64, &[u8])| {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(offset);
        hasher.update(leaf).finalize_non_root()
    };
    offsets.zip(bytes.chunks(LEAF_BYTES)).flat_map(value).collect()
}

/// The hash of a body of at least two groups.
fn merge_root(values: &[ChainingValue]) -> BlobHash {
    let (left, right) = children(values);
    merge_subtrees_root(&merge(left), &merge(right), Mode::Hash).into()
}

fn merge(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [value] => *value,
        _ => {
            let (left, right) = children(values);
            merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
        }
    }
}

/// BLAKE3's tree: the left child is the largest power of two that leaves something for the right one.
fn children(values: &[ChainingValue]) -> (&[ChainingValue], &[ChainingValue]) {
    values.split_at(values.len().next_power_of_two() / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8 ^ (at >> 13) as u8).collect()
    }

    fn check(bytes: &[u8], step: usize) {
        let mut hasher = TreeHasher::new();
        bytes.chunks(step).for_each(|piece| hasher.update(piece));
        let digest = hasher.digest();
        assert_eq!(digest.hash, blake3::hash(bytes).into());
        assert_eq!(digest.length, bytes.len() as u64);
        assert!(digest.outboard.verify_root(&digest.hash, digest.length));
        if bytes.len() <= GROUP_BYTES {
            assert!(digest.outboard.as_bytes().is_empty());
            return;
        }
        for (index, group) in (0..).zip(bytes.chunks(GROUP_BYTES)) {
            assert!(digest.outboard.verify_group(index, group));
            let mut leaves = leaf_values(index, group);
            assert_eq!(leaves.len(), group.len().div_ceil(LEAF_BYTES) * 32);
            assert!(digest.outboard.verify_leaves(index, &leaves));
            leaves[step % 32] ^= 1;
            assert!(!digest.outboard.verify_leaves(index, &leaves));
            assert!(!digest.outboard.verify_leaves(index, &[]));
            assert!(!digest.outboard.verify_group(index + 1, group));
        }
    }

    #[test]
    fn the_root_is_plain_blake3_around_every_boundary() {
        for groups in [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33] {
            for off in [-1025_isize, -1, 0, 1, 1024, 1025] {
                if let Some(length) = (groups * GROUP_BYTES).checked_add_signed(off) {
                    check(&body(length), 50_000);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn the_root_is_plain_blake3(length in 0_usize..1_500_000, step in 1_usize..300_000) {
            check(&body(length), step);
        }

        #[test]
        fn a_flipped_bit_is_found(length in GROUP_BYTES + 1..600_000, at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = body(length);
            let digest = Digest::of(&bytes);
            let at = at.index(length);
            bytes[at] ^= 1_u8 << bit;
            for (index, group) in bytes.chunks(GROUP_BYTES).enumerate() {
                prop_assert_eq!(digest.outboard.verify_group(index as u64, group), at / GROUP_BYTES != index);
            }
        }

        #[test]
        fn a_damaged_outboard_is_found(length in GROUP_BYTES + 1..600_000, at in any::<prop::sample::Index>()) {
            let digest = Digest::of(&body(length));
            let mut values = digest.outboard.as_bytes().to_vec();
            let at = at.index(values.len());
            values[at] ^= 1;
            let damaged = Outboard::from_bytes(values.clone().into()).expect("as many values");
            prop_assert!(!damaged.verify_root(&digest.hash, digest.length));
            values[at] ^= 1;
            values.truncate(values.len() - 32);
            let cut = Outboard::from_bytes(values.into()).expect("one value less");
            prop_assert!(!cut.verify_root(&digest.hash, digest.length));
        }
    }

    #[test]
    fn groups_that_cannot_be_are_refused() {
        let bytes = body(GROUP_BYTES * 2);
        let digest = Digest::of(&bytes);
        assert!(!digest.outboard.verify_group(0, &[]));
        assert!(!digest.outboard.verify_group(0, &bytes));
        assert!(!digest.outboard.verify_group(u64::MAX, &bytes[..1]));
        assert_eq!(Outboard::from_bytes(Bytes::from_static(b"31 bytes at the most")), None);
    }
}
