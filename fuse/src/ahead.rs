//! How far ahead of a reader to read.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far read-ahead goes at least, where it goes at all, and at most, in bytes.
const AHEAD_MIN: u64 = 256 * 1024;
const AHEAD_MAX: u64 = 16 * 1024 * 1024;

/// How many times what was read in a row is read ahead.
const AHEAD_TIMES: u64 = 4;

/// The kernel reads ahead by itself, in pieces that may arrive out of order: so far from where a reader is, it still reads
/// one after the other.
const NEAR: u64 = 512 * 1024;

/// Where a reader is, and what was asked for ahead of it: in proportion to what it has read in a row, so that whoever reads
/// a little of a large file fetches a little.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    /// Where it began to read one after the other.
    began: AtomicU64,
    /// Where it is expected next.
    next: AtomicU64,
    /// Up to where was asked for.
    asked: AtomicU64,
}

impl ReadAhead {
    /// Notes a read. Returns what to read ahead: from where and how many bytes.
    pub(crate) fn note(&self, offset: u64, length: u64) -> (u64, u64) {
        let next = self.next.load(Ordering::Relaxed);
        let end = offset + length;
        if offset.abs_diff(next) > NEAR {
            self.began.store(offset, Ordering::Relaxed);
            self.next.store(end, Ordering::Relaxed);
            self.asked.store(end, Ordering::Relaxed);
            return (end, 0);
        }
        let next = next.max(end);
        self.next.store(next, Ordering::Relaxed);
        let row = next.saturating_sub(self.began.load(Ordering::Relaxed));
        let window = row.saturating_mul(AHEAD_TIMES).clamp(AHEAD_MIN, AHEAD_MAX);
        let asked = self.asked.load(Ordering::Relaxed).max(end);
        let until = next + window;
        // Asking for little at a time makes many small requests.
        if until < asked + window / 2 {
            return (asked, 0);
        }
        self.asked.store(until, Ordering::Relaxed);
        (asked, until - asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;

    /// What a reader of `bytes` in a row, 128 KiB at a time, makes be there.
    fn there_after(ahead: &ReadAhead, from: u64, bytes: u64) -> u64 {
        (from..from + bytes).step_by(128 * KIB as usize).fold(0, |there, offset| {
            let (at, length) = ahead.note(offset, 128 * KIB);
            there.max(at + length).max(offset + 128 * KIB)
        })
    }

    #[test]
    fn it_goes_further_the_more_is_read_in_a_row() {
        assert_eq!(there_after(&ReadAhead::default(), 0, 128 * KIB), 640 * KIB);
        let after_one = there_after(&ReadAhead::default(), 0, MIB);
        assert!((3 * MIB..=5 * MIB).contains(&after_one), "{after_one}");
        let after_many = there_after(&ReadAhead::default(), 0, 64 * MIB);
        assert!((72 * MIB..=80 * MIB).contains(&after_many), "{after_many}");
    }

    #[test]
    fn who_jumps_is_not_read_ahead_for() {
        let ahead = ReadAhead::default();
        there_after(&ahead, 0, 32 * MIB);
        assert_eq!(ahead.note(100 * MIB, 4 * KIB), (100 * MIB + 4 * KIB, 0));
        // And begins anew where it goes on from there.
        let (from, length) = ahead.note(100 * MIB + 4 * KIB, 4 * KIB);
        assert_eq!((from, length), (100 * MIB + 8 * KIB, AHEAD_MIN));
    }

    #[test]
    fn pieces_of_the_kernel_may_overtake_each_other() {
        let ahead = ReadAhead::default();
        for offset in [0, 256 * KIB, 128 * KIB, 512 * KIB, 384 * KIB] {
            ahead.note(offset, 128 * KIB);
        }
        assert!(ahead.asked.load(Ordering::Relaxed) >= MIB);
    }
}
