//! Opening and reading files.

use std::fs::File;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use federation::blobs::GROUP_BYTES;
use federation::snapshot::{Content, Entry};

use super::{Fs, lock};
use crate::ahead::ReadAhead;
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::inode::{Inode, Node, Place};
use crate::layout::Layout;
use crate::read::{Body, Origin};
use crate::source::Piece;

/// The most bytes of a list of parts: S3 allows 10,000 parts, and each takes a little over a hundred.
const PART_LIST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What stands for the handle of a file that is read without one.
pub(crate) const NO_HANDLE: u64 = 0;

/// An open file.
pub struct Opened {
    body: Arc<Body>,
    ahead: ReadAhead,
}

impl Opened {
    pub(crate) fn size(&self) -> u64 {
        self.body.size()
    }

    /// Whether all of it is here.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.is_whole()
    }

    /// The file on disk that has all of it, if that is here and verified.
    pub(crate) fn whole(&self) -> Option<Arc<File>> {
        self.body.whole()
    }
}

impl Fs {
    /// Opens a file. Its handle is in use until it is closed.
    pub async fn open(&self, inode: Inode) -> Result<(u64, Arc<Opened>)> {
        let opened = self.open_unnumbered(inode).await?;
        Ok((self.number_handle(opened.clone()), opened))
    }

    /// Opens a file without a handle: it is open for as long as what this returns is held.
    pub(crate) async fn open_unnumbered(&self, inode: Inode) -> Result<Arc<Opened>> {
        self.within(self.find_and_open(inode)).await
    }

    /// Another handle of something that is open.
    pub(crate) fn number_handle(&self, opened: Arc<Opened>) -> u64 {
        let handle = self.handle();
        lock(&self.files).insert(handle, opened);
        handle
    }

    /// Closes a file. Returns what was open, for the last who lets go of a body that is partly here writes its map.
    pub fn close(&self, handle: u64) -> Option<Arc<Opened>> {
        lock(&self.files).remove(&handle)
    }

    /// At most `length` bytes of a file from `offset` on; fewer only at its end. A handle of zero is that of a file
    /// that was not opened.
    pub async fn read(&self, inode: Inode, handle: u64, offset: u64, length: u64) -> Result<Bytes> {
        self.within(async {
            let opened = lock(&self.files).get(&handle).cloned();
            let opened = match opened {
                Some(opened) => opened,
                None => self.unopened(inode).await?,
            };
            let (from, ahead) = opened.ahead.note(offset, length);
            opened.body.read_ahead(from, ahead);
            opened.body.read(offset, length).await
        })
        .await
    }

    /// Brings all of a file into the cache. Returns its size.
    pub async fn prefetch(&self, inode: Inode) -> Result<u64> {
        // A large body takes longer than any operation may; each of its requests has its own end.
        let opened = self.find_and_open(inode).await?;
        opened.body.fetch_all().await?;
        Ok(opened.body.size())
    }

    async fn unopened(&self, inode: Inode) -> Result<Arc<Opened>> {
        if let Some(opened) = lock(&self.unopened).get(&inode) {
            return Ok(opened);
        }
        let opened = self.find_and_open(inode).await?;
        lock(&self.unopened).put(inode, opened.clone());
        Ok(opened)
    }

    async fn find_and_open(&self, inode: Inode) -> Result<Arc<Opened>> {
        let Node { parent, place: Place::Object(name) } = self.place(inode)? else { return Err(Error::IsDirectory) };
        let directory = self.directory(parent).await?;
        let (entry, _) = directory.object(&self.reader, &name).await?.ok_or(Error::NotFound)?;
        let body = self.body(&directory, &name, &entry).await?;
        Ok(Arc::new(Opened { body, ahead: ReadAhead::default() }))
    }

    /// The body of an object: one for all who have the same content open.
    pub(super) async fn body(&self, directory: &Directory, name: &[u8], entry: &Entry) -> Result<Arc<Body>> {
        let path = [directory.path.as_slice(), name].concat();
        let origin = Origin { source: self.source.clone(), number: directory.number, path };
        let layout = self.layout(&origin, entry).await?;
        let key = layout.key();
        if let Some(body) = lock(&self.bodies).get(&key).and_then(Weak::upgrade) {
            return Ok(body);
        }
        // One at a time, so that a file on disk has one reader here.
        let turn = self.opening.turn(key).await;
        if let Some(body) = lock(&self.bodies).get(&key).and_then(Weak::upgrade) {
            return Ok(body);
        }
        // The first look at a large body after a boot reads all of it. It comes to its end even if nobody waits any more, so
        // that who comes again does not begin anew.
        let (body, _turn) = Body::open(layout, origin, self.cache.clone(), self.metrics.clone(), turn).await?;
        let body = Arc::new(body);
        let mut bodies = lock(&self.bodies);
        if bodies.len() >= 1024 && bodies.len().is_power_of_two() {
            bodies.retain(|_, body| body.strong_count() > 0);
        }
        bodies.insert(key, Arc::downgrade(&body));
        Ok(body)
    }

    async fn layout(&self, origin: &Origin, entry: &Entry) -> Result<Layout> {
        let damaged = || Error::Damaged { what: format!("the list of parts of \"{}\"", origin.path.escape_ascii()) };
        let Content::PartList { list, length, .. } = &entry.content else {
            return Layout::of(entry).ok_or_else(damaged);
        };
        if *length > PART_LIST_BYTES_MAX {
            return Err(damaged());
        }
        let list = Layout::single(Piece { hash: *list, length: *length });
        let (list, ()) = Body::open(list, origin.clone(), self.cache.clone(), self.metrics.clone(), ()).await?;
        let mut bytes = Vec::new();
        for offset in (0..*length).step_by(GROUP_BYTES) {
            bytes.extend_from_slice(&list.read(offset, GROUP_BYTES as u64).await?);
        }
        Layout::listed(entry, &bytes).ok_or_else(damaged)
    }
}
