//! A source that is slow, goes away and lies.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use federation::blobs::{Digest, GROUP_BYTES};
use federation::snapshot::{MemoryPages, PageHash, Pages as _};
use federation::types::{BlobHash, Number};
use fuse::{NamedSnapshot, Piece, Source, SourceError, Tree};

/// A bucket in memory, and how its source behaves.
pub struct Bucket {
    pub tree: Tree,
    pub pages: MemoryPages,
    pub bodies: HashMap<BlobHash, Bytes>,
    pub manners: Mutex<Manners>,
    /// The pieces of all files.
    pub pieces: Vec<BlobHash>,
    /// How often each group was asked for, by body and place.
    pub asked: Mutex<HashMap<(BlobHash, u64), u64>>,
    /// Whether some bodies are handed over as open files.
    pub hands_over: bool,
}

/// How a source behaves.
pub struct Manners {
    pub random: Box<dyn FnMut() -> u64 + Send>,
    /// It does not answer.
    pub away: bool,
    /// One answer in so many is wrong; none if it is zero.
    pub lies: u64,
}

impl Bucket {
    fn random(&self, below: u64) -> u64 {
        (self.manners.lock().expect("no holder panics").random)() % below
    }

    /// Waits for some turns of the others. Says whether it is there.
    async fn reach(&self) -> Result<(), SourceError> {
        for _ in 0..self.random(4) {
            tokio::task::yield_now().await;
        }
        if self.manners.lock().expect("no holder panics").away {
            return Err(SourceError::Away("cut".to_owned()));
        }
        Ok(())
    }

    fn perhaps_wrong(&self, bytes: Bytes) -> Bytes {
        let lies = self.manners.lock().expect("no holder panics").lies;
        if lies == 0 || self.random(lies) > 0 || bytes.is_empty() {
            return bytes;
        }
        let mut wrong = bytes.to_vec();
        match self.random(3) {
            0 => wrong.truncate(wrong.len() - 1),
            _ => {
                let at = self.random(wrong.len() as u64) as usize;
                wrong[at] ^= 1;
            }
        }
        wrong.into()
    }

    fn body(&self, piece: Piece) -> Result<&Bytes, SourceError> {
        self.bodies.get(&piece.hash).ok_or_else(|| SourceError::Gone("no such body".to_owned()))
    }
}

/// What the file system holds: a bucket that the test keeps, too.
pub struct Shared(pub std::sync::Arc<Bucket>);

#[async_trait]
impl Source for Shared {
    async fn tree(&self, _snapshot: Option<&str>) -> Result<Tree, SourceError> {
        self.0.reach().await?;
        Ok(self.0.tree.clone())
    }

    async fn snapshots(&self) -> Result<Vec<NamedSnapshot>, SourceError> {
        self.0.reach().await?;
        Ok(Vec::new())
    }

    async fn pages(&self, _number: Number, _directory: &[u8], pages: &[PageHash]) -> Result<Vec<Bytes>, SourceError> {
        self.0.reach().await?;
        let page =
            |hash| self.0.pages.get(hash).expect("memory").ok_or_else(|| SourceError::Gone("no page".to_owned()));
        pages.iter().map(|hash| Ok(self.0.perhaps_wrong(page(hash)?))).collect()
    }

    async fn descriptor(&self, _number: Number, _path: &[u8], piece: Piece) -> Result<Option<File>, SourceError> {
        self.0.reach().await?;
        // Bodies are brought in the other way, too.
        if !self.0.hands_over || self.0.random(4) > 0 {
            return Ok(None);
        }
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(self.0.body(piece)?).expect("room for it");
        Ok(Some(file))
    }

    async fn hash_tree(&self, _number: Number, _path: &[u8], piece: Piece) -> Result<Bytes, SourceError> {
        self.0.reach().await?;
        let tree = Digest::of(self.0.body(piece)?).outboard.as_bytes().clone();
        Ok(self.0.perhaps_wrong(tree))
    }

    async fn range(
        &self,
        _number: Number,
        _path: &[u8],
        piece: Piece,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, SourceError> {
        self.0.reach().await?;
        let body = self.0.body(piece)?;
        assert!(offset + length <= body.len() as u64, "a range within the piece");
        for group in offset / GROUP_BYTES as u64..(offset + length).div_ceil(GROUP_BYTES as u64) {
            *self.0.asked.lock().expect("no holder panics").entry((piece.hash, group)).or_default() += 1;
        }
        Ok(self.0.perhaps_wrong(body.slice(offset as usize..(offset + length) as usize)))
    }
}
