//! A stream of a body's bytes, cut into whole groups. Nobody has compared them with anything yet.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::blobs::GROUP_BYTES;
use crate::error::{Error, Result};
use crate::master::ByteStream;
use crate::peer::RECEIVING;

/// How many bytes are verified and handed on at once, unless a range ends before.
pub(super) const BATCH_BYTES: usize = 4 * GROUP_BYTES;

/// The bytes of ranges that begin and end with groups, one after the other.
pub(super) struct Groups {
    stream: ByteStream,
    buffer: BytesMut,
    left: VecDeque<Range<u64>>,
}

impl Groups {
    pub(super) fn new(stream: ByteStream, ranges: Vec<Range<u64>>) -> Groups {
        Groups { stream, buffer: BytesMut::with_capacity(BATCH_BYTES), left: ranges.into() }
    }

    /// The next bytes and where they stand; none at the end of the last range.
    pub(super) async fn next(&mut self) -> Option<Result<(u64, Bytes)>> {
        while self.left.front().is_some_and(Range::is_empty) {
            self.left.pop_front();
        }
        let range = self.left.front_mut()?;
        let left = range.end - range.start;
        let wanted = usize::try_from(left).map_or(BATCH_BYTES, |left| left.min(BATCH_BYTES));
        while self.buffer.len() < wanted {
            match self.stream.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    let cut = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the body ended too soon");
                    return Some(Err(Error::Storage { doing: RECEIVING, source: cut.into() }));
                }
            }
        }
        let (offset, bytes) = (range.start, self.buffer.split_to(wanted).freeze());
        range.start += bytes.len() as u64;
        Some(Ok((offset, bytes)))
    }
}

/// The smallest range of whole groups that a range is in.
pub(super) fn whole_groups(range: &Range<u64>, length: u64) -> Range<u64> {
    let group = GROUP_BYTES as u64;
    range.start / group * group..(range.end.div_ceil(group) * group).min(length)
}
