//! A stream of a body's bytes, cut into whole groups. Nobody has compared them with anything yet.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::blobs::GROUP_BYTES;
use crate::error::{Error, Result};
use crate::master::ByteStream;

/// How many bytes are verified and handed on at once, unless the stream ends before.
pub(super) const BATCH_BYTES: usize = 4 * GROUP_BYTES;

/// The bytes of a range that begins and ends with groups.
pub(super) struct Groups {
    stream: ByteStream,
    buffer: BytesMut,
    left: Range<u64>,
}

impl Groups {
    pub(super) fn new(stream: ByteStream, range: Range<u64>) -> Groups {
        Groups { stream, buffer: BytesMut::with_capacity(BATCH_BYTES), left: range }
    }

    /// The next bytes and where they stand; none at the end of the range.
    pub(super) async fn next(&mut self) -> Option<Result<(u64, Bytes)>> {
        let left = self.left.end - self.left.start;
        if left == 0 {
            return None;
        }
        let wanted = usize::try_from(left).map_or(BATCH_BYTES, |left| left.min(BATCH_BYTES));
        while self.buffer.len() < wanted {
            match self.stream.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    let cut = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the body ended too soon");
                    return Some(Err(Error::Storage { doing: "receiving a body", source: cut.into() }));
                }
            }
        }
        let (offset, bytes) = (self.left.start, self.buffer.split_to(wanted).freeze());
        self.left.start += bytes.len() as u64;
        Some(Ok((offset, bytes)))
    }
}

/// The smallest range of whole groups that a range is in.
pub(super) fn whole_groups(range: &Range<u64>, length: u64) -> Range<u64> {
    let group = GROUP_BYTES as u64;
    range.start / group * group..(range.end.div_ceil(group) * group).min(length)
}
