//! A stream of a body's bytes, cut into whole groups, each verified before it goes on.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::blobs::{GROUP_BYTES, Proof, ReceiveError};
use crate::error::Error;
use crate::master::ByteStream;

/// How many bytes are verified and handed on at once, unless the stream ends before.
const BATCH_BYTES: usize = 4 * GROUP_BYTES;

/// Why no more came.
#[derive(Debug)]
pub(super) enum Broken {
    /// The stream failed or ended before its time.
    Stream(Error),
    /// What came was not what was asked for.
    Forged(ReceiveError),
}

/// Verified bytes of a range that begins and ends with groups.
pub(super) struct Groups {
    stream: ByteStream,
    buffer: BytesMut,
    offset: u64,
    end: u64,
    proof: Proof,
}

impl Groups {
    pub(super) fn new(stream: ByteStream, range: Range<u64>, proof: Proof) -> Groups {
        Groups { stream, buffer: BytesMut::with_capacity(BATCH_BYTES), offset: range.start, end: range.end, proof }
    }

    /// The next bytes; none at the end of the range.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        let left = self.end - self.offset;
        if left == 0 {
            return None;
        }
        let wanted = usize::try_from(left).map_or(BATCH_BYTES, |left| left.min(BATCH_BYTES));
        while self.buffer.len() < wanted {
            match self.stream.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Some(Err(Broken::Stream(error))),
                None => {
                    let cut = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the body ended too soon");
                    let error = Error::Storage { doing: "receiving a body", source: cut.into() };
                    return Some(Err(Broken::Stream(error)));
                }
            }
        }
        let bytes = self.buffer.split_to(wanted).freeze();
        if let Err(error) = self.proof.check(self.offset, &bytes) {
            return Some(Err(Broken::Forged(error)));
        }
        self.offset += bytes.len() as u64;
        Some(Ok(bytes))
    }
}

/// The smallest range of whole groups that a range is in.
pub(super) fn whole_groups(range: &Range<u64>, length: u64) -> Range<u64> {
    let group = GROUP_BYTES as u64;
    range.start / group * group..(range.end.div_ceil(group) * group).min(length)
}
