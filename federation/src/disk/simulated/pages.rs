//! The bytes of a file, in pages that copies share until one of them is written to: thousands of crash states are
//! mostly the same.

use std::io;
use std::ops::Range;
use std::sync::Arc;

const PAGE: usize = 4096;

type Page = Arc<[u8; PAGE]>;

/// Bytes that are cheap to copy.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    // Invariant: as many as `length` needs; what the last one has beyond it is zero.
    pages: Vec<Page>,
    length: usize,
}

impl Pages {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Fills `bytes` from `offset`, if there are as many.
    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let to = from.checked_add(bytes.len()).filter(|to| *to <= self.length).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut rest = bytes;
        for (page, within) in pieces(from..to) {
            let (piece, following) = rest.split_at_mut(within.len());
            piece.copy_from_slice(&self.pages[page][within]);
            rest = following;
        }
        Ok(())
    }

    /// Writes `bytes` at `offset`; what was not there in between is zero.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.length < end {
            self.resize(end);
        }
        let mut rest = bytes;
        for (page, within) in pieces(offset..end) {
            let (piece, following) = rest.split_at(within.len());
            Arc::make_mut(&mut self.pages[page])[within].copy_from_slice(piece);
            rest = following;
        }
    }

    /// Sets a range that is there to zero.
    pub(super) fn clear(&mut self, range: Range<usize>) {
        for (page, within) in pieces(range) {
            Arc::make_mut(&mut self.pages[page])[within].fill(0);
        }
    }

    /// Cuts the bytes off at `length`, or adds zeros up to it.
    pub(super) fn resize(&mut self, length: usize) {
        let pages = length.div_ceil(PAGE);
        if length < self.length {
            self.pages.truncate(pages);
            self.clear(length..pages * PAGE);
        } else if pages > self.pages.len() {
            // One page of zeros for all of them.
            self.pages.resize(pages, Arc::new([0; PAGE]));
        }
        self.length = length;
    }

    /// Changes one bit of a byte.
    pub(super) fn flip(&mut self, offset: usize) -> io::Result<()> {
        if offset >= self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Arc::make_mut(&mut self.pages[offset / PAGE])[offset % PAGE] ^= 1;
        Ok(())
    }
}

/// The pages that a range touches, and what of each.
fn pieces(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let pages = if range.is_empty() { 0..0 } else { range.start / PAGE..range.end.div_ceil(PAGE) };
    pages.map(move |page| {
        let begin = page * PAGE;
        (page, range.start.max(begin) - begin..range.end.min(begin + PAGE) - begin)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pages: &Pages) -> Vec<u8> {
        let mut bytes = vec![7; pages.len()];
        pages.read(&mut bytes, 0).expect("as long as it is");
        bytes
    }

    #[test]
    fn behave_like_a_vector_of_bytes() {
        let mut random = super::super::seeded(1);
        let mut below = |bound: usize| (random() >> 32) as usize % bound;
        let (mut pages, mut vector) = (Pages::default(), Vec::new());
        for step in 0..500_u32 {
            let (at, length) = (below(3 * PAGE), below(2 * PAGE));
            match below(4) {
                0 => {
                    pages.resize(at);
                    vector.resize(at, 0);
                }
                1 if at + length <= vector.len() => {
                    pages.clear(at..at + length);
                    vector[at..at + length].fill(0);
                }
                2 if at < vector.len() => {
                    pages.flip(at).expect("it is there");
                    vector[at] ^= 1;
                }
                _ => {
                    let bytes = vec![step as u8; length];
                    pages.write(at, &bytes);
                    vector.resize(vector.len().max(at + length), 0);
                    vector[at..at + length].copy_from_slice(&bytes);
                }
            }
            assert_eq!(all(&pages), vector, "after step {step}");
        }
    }

    #[test]
    fn copies_go_their_own_ways() {
        let mut one = Pages::default();
        one.write(0, &[1; 2 * PAGE]);
        let mut other = one.clone();
        other.write(PAGE, &[2]);
        assert_eq!((all(&one)[PAGE], all(&other)[PAGE]), (1, 2));
        assert!(Arc::ptr_eq(&one.pages[0], &other.pages[0]), "what neither wrote to is shared");
        assert!(one.read(&mut [0; 2], 2 * PAGE as u64 - 1).is_err());
        assert!(one.flip(2 * PAGE).is_err());
    }
}
