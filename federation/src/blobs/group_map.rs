//! Which groups of a body are there: a bit for each.

use std::ops::Range;

use super::digest::GROUP_BYTES;

/// Which of a body's groups are there. Ranges are of bytes, and are taken as the whole groups that they touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMap {
    /// The lowest bit of the first byte is the first group.
    bits: Vec<u8>,
    /// The length of the body.
    length: u64,
    /// How many groups are there.
    count: u64,
}

impl GroupMap {
    /// The map of a body of which nothing is there.
    #[must_use]
    pub fn new(length: u64) -> GroupMap {
        let bytes = usize::try_from(groups_of(length).div_ceil(8)).expect("a map is far smaller than its body");
        GroupMap { bits: vec![0; bytes], length, count: 0 }
    }

    /// A map as it was kept; `None` where the bytes cannot be one's of a body of `length`.
    #[must_use]
    pub fn from_bytes(bits: Vec<u8>, length: u64) -> Option<GroupMap> {
        let count = bits.iter().map(|byte| u64::from(byte.count_ones())).sum();
        let map = GroupMap { bits, length, count };
        let fits = map.bits.len() == GroupMap::new(length).bits.len()
            && (groups_of(length)..map.bits.len() as u64 * 8).all(|group| !map.get(group));
        fits.then_some(map)
    }

    /// The bits, a byte for eight groups.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// How many bytes of the body are there.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let last = self.length % GROUP_BYTES as u64;
        let all = self.count * GROUP_BYTES as u64;
        // The last group may be shorter than the others.
        if last > 0 && self.get(groups_of(self.length) - 1) { all - (GROUP_BYTES as u64 - last) } else { all }
    }

    /// Whether all of the body is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.count == groups_of(self.length)
    }

    /// Whether all of a range is there.
    #[must_use]
    pub fn has(&self, range: &Range<u64>) -> bool {
        groups(range).all(|group| self.get(group))
    }

    /// The first bytes of a range that are there (or not), in whole groups within the body; none if there are none.
    #[must_use]
    pub fn first(&self, there: bool, range: &Range<u64>) -> Option<Range<u64>> {
        let mut groups = groups(range);
        let end = groups.end;
        let first = groups.find(|group| self.get(*group) == there)?;
        let last = (first..end).find(|group| self.get(*group) != there).unwrap_or(end);
        Some(first * GROUP_BYTES as u64..self.length.min(last * GROUP_BYTES as u64))
    }

    /// As [`GroupMap::first`], all that are in the range, `max` at the most.
    #[must_use]
    pub fn runs(&self, there: bool, range: &Range<u64>, max: usize) -> Vec<Range<u64>> {
        let mut left = range.clone();
        let next = || {
            let run = self.first(there, &left)?;
            left.start = run.end.max(left.start);
            Some(run)
        };
        std::iter::from_fn(next).take(max).collect()
    }

    /// Notes that the groups of a range are there.
    pub fn add(&mut self, range: &Range<u64>) {
        self.set(range, true);
    }

    /// Notes that the groups of a range are not there.
    pub fn remove(&mut self, range: &Range<u64>) {
        self.set(range, false);
    }

    fn get(&self, group: u64) -> bool {
        let byte = usize::try_from(group / 8).ok().and_then(|byte| self.bits.get(byte));
        byte.is_some_and(|byte| byte >> (group % 8) & 1 == 1)
    }

    fn set(&mut self, range: &Range<u64>, there: bool) {
        for group in groups(&(range.start..range.end.min(self.length))) {
            if self.get(group) != there {
                let byte = usize::try_from(group / 8).expect("within the map");
                self.bits[byte] ^= 1 << (group % 8);
                self.count = if there { self.count + 1 } else { self.count - 1 };
            }
        }
    }
}

fn groups_of(length: u64) -> u64 {
    length.div_ceil(GROUP_BYTES as u64)
}

/// The groups that a range touches.
fn groups(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / GROUP_BYTES as u64..groups_of(range.end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROUP: u64 = GROUP_BYTES as u64;

    #[test]
    fn the_last_group_may_be_short() {
        let mut map = GroupMap::new(9 * GROUP + 5);
        assert_eq!((map.bytes(), map.is_whole(), map.as_bytes().len()), (0, false, 2));
        map.add(&(9 * GROUP..9 * GROUP + 5));
        assert_eq!((map.bytes(), map.first(true, &(0..9 * GROUP + 5))), (5, Some(9 * GROUP..9 * GROUP + 5)));
        map.add(&(0..9 * GROUP));
        assert!(map.is_whole());
        assert_eq!(map.bytes(), 9 * GROUP + 5);
        assert_eq!(map.first(false, &(0..9 * GROUP + 5)), None);
        map.remove(&(GROUP..GROUP + 1));
        assert_eq!(map.first(false, &(0..9 * GROUP + 5)), Some(GROUP..2 * GROUP));
    }

    #[test]
    fn bits_that_are_no_groups_are_refused() {
        assert!(GroupMap::from_bytes(vec![0xff, 0b11], 10 * GROUP).is_some_and(|map| map.is_whole()));
        assert_eq!(GroupMap::from_bytes(vec![0xff, 0b111], 10 * GROUP), None);
        assert_eq!(GroupMap::from_bytes(vec![0xff], 10 * GROUP), None);
        assert_eq!(GroupMap::from_bytes(vec![0xff, 0, 0], 10 * GROUP), None);
    }

    proptest! {
        #[test]
        fn a_map_is_a_set(length in 1..40 * GROUP, steps in prop::collection::vec((any::<bool>(), 0..40_u64, 1..6_u64), 1..20)) {
            let (mut map, mut set) = (GroupMap::new(length), std::collections::BTreeSet::new());
            let all = length.div_ceil(GROUP);
            for (there, from, count) in steps {
                let (from, to) = (from.min(all), (from + count).min(all));
                let range = from * GROUP..(to * GROUP).min(length);
                if there { map.add(&range) } else { map.remove(&range) }
                for group in from..to {
                    if there { set.insert(group); } else { set.remove(&group); }
                }
                let bytes: u64 = set.iter().map(|group| GROUP.min(length - group * GROUP)).sum();
                prop_assert_eq!(map.bytes(), bytes);
                prop_assert_eq!(map.first(false, &(0..length)).map(|run| run.start / GROUP), (0..all).find(|group| !set.contains(group)));
                prop_assert_eq!(map.first(true, &(0..length)).map(|run| run.start / GROUP), set.first().copied());
                let runs = map.runs(true, &(0..length), usize::MAX);
                prop_assert_eq!(runs.iter().map(|run| run.end - run.start).sum::<u64>(), bytes);
                prop_assert_eq!(GroupMap::from_bytes(map.as_bytes().to_vec(), length), Some(map.clone()));
            }
        }
    }
}
