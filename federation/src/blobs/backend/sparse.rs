//! Large bodies that come from elsewhere in any order, and may never come whole: files with holes.
//!
//! Such a body is `bodies/FOLDER/ID.sparse` and has its whole length from the beginning. When all of it is there it gets
//! the name of an ordinary body; its id stays. What of it is there, the catalog knows.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::claims::FileGuard;
use super::file::{Files, Name, folder, path};
use super::{BackendError, BodyReader, Item, SparseFile, Urgency};
use crate::disk::DiskFile;
use crate::types::{BlobHash, FileId};

impl Files {
    pub(super) fn create_sparse(self: &Arc<Self>, length: u64) -> Result<Arc<dyn SparseFile>, BackendError> {
        self.space.take(0, Urgency::Normal)?;
        let id = FileId(self.next.fetch_add(1, Ordering::SeqCst));
        let on_file = |error| BackendError::from_io(Item::File(id), error);
        self.disk.create_dir(&folder(id)).map_err(on_file)?;
        let handle = self.disk.create(&path(Name::Sparse(id))).map_err(on_file)?;
        handle.set_len(length).map_err(on_file)?;
        Ok(Arc::new(Sparse { files: Arc::clone(self), file: id, handle }))
    }

    pub(super) fn open_sparse(
        self: &Arc<Self>,
        file: FileId,
        hash: &BlobHash,
    ) -> Result<Arc<dyn SparseFile>, BackendError> {
        let handle = match self.disk.open(&path(Name::Sparse(file)), true) {
            // It was whole, and the power went before the catalog said so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.open(&path(Name::Body(file, *hash)), true)
            }
            opened => opened,
        };
        let handle = handle.map_err(|error| BackendError::from_io(Item::File(file), error))?;
        Ok(Arc::new(Sparse { files: Arc::clone(self), file, handle }))
    }

    pub(super) fn finish_sparse(&self, file: FileId, hash: &BlobHash) -> Result<FileGuard, BackendError> {
        let guard = self.claims.guard_file(file);
        let name = path(Name::Body(file, *hash));
        match self.disk.rename(&path(Name::Sparse(file)), &name) {
            // It has its name already, or is gone: who opens it finds out.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.open(&name, false).map_err(|error| BackendError::from_io(Item::File(file), error))?;
            }
            renamed => renamed.map_err(|error| BackendError::from_io(Item::File(file), error))?,
        }
        Ok(guard)
    }

    pub(super) fn remove_sparse(&self, file: FileId) -> Result<(), BackendError> {
        self.remove_name(Name::Sparse(file))
    }
}

/// An open body that may be incomplete.
#[derive(Debug)]
struct Sparse {
    files: Arc<Files>,
    file: FileId,
    handle: Arc<dyn DiskFile>,
}

impl Sparse {
    fn on_file(&self, error: io::Error) -> BackendError {
        BackendError::from_io(Item::File(self.file), error)
    }
}

impl BodyReader for Sparse {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), BackendError> {
        self.handle.read_at(bytes, offset).map_err(|error| self.on_file(error))
    }
}

impl SparseFile for Sparse {
    fn file(&self) -> FileId {
        self.file
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), BackendError> {
        self.files.space.take(bytes.len() as u64, Urgency::Normal)?;
        self.handle.write_at(bytes, offset).map_err(|error| self.on_file(error))
    }

    fn sync(&self) -> Result<(), BackendError> {
        self.handle.sync_data().map_err(|error| self.on_file(error))
    }
}
