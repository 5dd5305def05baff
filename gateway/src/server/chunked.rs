//! Whether a chunked upload came to its end.
//!
//! An `aws-chunked` body ends with a chunk of no bytes, whose signature covers that there is nothing more. s3s takes a
//! body that breaks off between two chunks for whole once the declared length is met, so the end is looked for here.

use http::HeaderMap;

/// The body broke off before its last chunk.
#[derive(Debug, thiserror::Error)]
#[error("the chunked body ended without its final chunk of zero bytes")]
pub struct FinalChunkMissing;

/// Follows the chunks of a body. It refuses nothing of what stands in them: s3s parses and verifies them.
#[derive(Debug, PartialEq, Eq)]
pub struct ChunkWatch {
    place: Place,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// In a chunk's size, as far as it was read.
    Size(u64),
    /// Behind the size of a chunk, before the end of its line.
    Extension(u64),
    /// Before so many bytes of a chunk and the end of its line.
    Data(u64),
    /// In or behind the final chunk.
    Final,
}

/// The end of the line after a chunk's bytes.
const LINE_END_BYTES: u64 = 2;

impl ChunkWatch {
    /// A watch for a body that comes in chunks; none for others.
    #[must_use]
    pub fn for_request(headers: &HeaderMap) -> Option<Self> {
        let hash = headers.get("x-amz-content-sha256")?;
        hash.as_bytes().starts_with(b"STREAMING-").then_some(ChunkWatch { place: Place::Size(0) })
    }

    /// Takes note of the next bytes.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            self.place = match self.place {
                Place::Size(size) => match char::from(*first).to_digit(16) {
                    Some(digit) => Place::Size(size.saturating_mul(16).saturating_add(u64::from(digit))),
                    None => after(*first, size),
                },
                Place::Extension(size) => after(*first, size),
                Place::Data(left) => {
                    let skipped = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    bytes = &bytes[skipped..];
                    self.place = match left - skipped as u64 {
                        0 => Place::Size(0),
                        left => Place::Data(left),
                    };
                    continue;
                }
                Place::Final => return,
            };
            bytes = rest;
        }
    }

    /// Says whether the body, which is over, had its final chunk.
    pub fn ended(&self) -> Result<(), FinalChunkMissing> {
        if self.place == Place::Final { Ok(()) } else { Err(FinalChunkMissing) }
    }
}

/// Where a byte behind the size of a chunk leads.
fn after(byte: u8, size: u64) -> Place {
    match (byte, size) {
        (b'\n', 0) => Place::Final,
        (b'\n', size) => Place::Data(size.saturating_add(LINE_END_BYTES)),
        (_, size) => Place::Extension(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(body: &[u8], at_a_time: usize) -> bool {
        let headers = [("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let mut watch = ChunkWatch::for_request(&headers.into_iter().collect()).unwrap();
        body.chunks(at_a_time).for_each(|bytes| watch.read(bytes));
        watch.ended().is_ok()
    }

    #[test]
    fn only_a_chunk_of_no_bytes_ends_a_body() {
        let signature = ";chunk-signature=0";
        let two = format!("a{signature}\r\n0\r\n3456789\r\n10{signature}\r\n0123456789abcdef\r\n");
        let whole = format!("{two}0{signature}\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n");
        for at_a_time in [1, 2, 3, 7, 1000] {
            assert!(!ends(two.as_bytes(), at_a_time));
            assert!(ends(whole.as_bytes(), at_a_time));
            assert!(ends(b"0\r\n\r\n", at_a_time));
            assert!(!ends(b"", at_a_time));
            assert!(!ends(b"3\r\n0\r\n", at_a_time), "a chunk that holds what looks like the last");
        }
    }

    #[test]
    fn other_bodies_are_not_watched() {
        assert_eq!(ChunkWatch::for_request(&HeaderMap::new()), None);
    }
}
