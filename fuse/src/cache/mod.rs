//! The cache on disk: what was fetched and verified, shared by all mounts of a host and kept between them.
//!
//! ```text
//! DIR/bodies/ab/HASH      a whole body or page, named by what it hashes to (of a file of several parts: by their list's)
//! DIR/parts/HASH.data     a body of which some groups are here, sparse; who writes it holds a lock on it
//! DIR/parts/HASH.map      which groups those are
//! DIR/parts/HASH.trees    its hash trees
//! DIR/unfinished/         files on their way to their names
//! ```
//!
//! A whole body gets its name only when all of it was verified. It is not synced: the first reader after a boot
//! compares it with its hash again (its modification time says when that was done last), and one that a crash
//! damaged is fetched anew. A reader holds a shared lock on what it has open, so that eviction passes over it.

mod evict;
mod partial;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use federation::clock::Clock;
use federation::ids::IdSource;
use federation::types::{BlobHash, Timestamp};
use rustix::fs::{FlockOperation, flock};

use crate::layout::Layout;
use crate::metrics::{Metrics, add};

pub(crate) use partial::{Partial, Standing};

/// Bodies whose last check is older than this are checked again when they are opened.
const VERIFY_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many bytes are read at once when a body is checked.
const CHECK_BYTES: usize = 1024 * 1024;

/// Eviction looks after this share of the limit was added, so that it does not look at every file for each.
const EVICT_SHARE: u64 = 32;

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
#[error("the cache directory {} cannot be used: {source}; name another one with --cache", path.display())]
pub struct CacheError {
    path: PathBuf,
    source: io::Error,
}

/// The cache directory.
pub struct Cache {
    folder: PathBuf,
    /// The most bytes that are kept.
    limit: u64,
    /// Bytes that were added since eviction looked.
    added: AtomicU64,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    metrics: Arc<Metrics>,
}

impl Cache {
    /// Opens a cache directory, and makes it where it is not there.
    pub fn open(
        folder: &Path,
        limit: u64,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        metrics: Arc<Metrics>,
    ) -> Result<Cache, CacheError> {
        let folder = folder.to_owned();
        let make = || {
            for part in ["bodies", "parts", "unfinished"] {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.join(part))?;
            }
            // A directory that cannot be written to is better known now than at the first read.
            let trial = folder.join("unfinished").join(random_name(&*ids));
            File::create_new(&trial)?;
            fs::remove_file(&trial)
        };
        make().map_err(|source| CacheError { path: folder.clone(), source })?;
        let cache = Cache { folder, limit, added: AtomicU64::new(0), clock, ids, metrics };
        cache.evict().map_err(|source| CacheError { path: cache.folder.clone(), source })?;
        Ok(cache)
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many bytes it keeps, at most.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// An open file in the directory, to try what the kernel can do with files there. It has no name any more.
    pub fn trial(&self) -> io::Result<File> {
        let (_, path) = self.unfinished()?;
        let file = File::open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    /// The bytes of a page; none if it is not here. Whoever reads it compares it with its hash.
    pub(crate) fn page(&self, hash: BlobHash, longest: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = missing_is_none(File::open(self.body_path(hash)))? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(longest as u64 + 1).read_to_end(&mut bytes)?;
        Ok((bytes.len() <= longest).then_some(bytes))
    }

    /// A whole body, open to be read and as its hashes say; none if it is not here.
    pub(crate) fn whole(&self, layout: &Layout) -> io::Result<Option<File>> {
        let path = self.body_path(layout.key());
        let Some(file) = missing_is_none(File::open(&path))? else { return Ok(None) };
        // Whoever holds it alone is about to remove it: what is open can still be read.
        let _held_by_us = file.try_lock_shared();
        let metadata = file.metadata()?;
        let (now, checked) = (self.clock.wall(), mtime(&metadata));
        let boot = now.minus(self.clock.boottime());
        let fresh = checked >= boot && checked <= now && checked.until(now) < VERIFY_AFTER;
        if metadata.len() != layout.size() || !(fresh || self.is_as_hashed(&file, layout)?) {
            tracing::warn!(path = %path.display(), "a body in the cache is damaged; it is fetched again");
            add(&self.metrics.damaged, 1);
            missing_is_none(fs::remove_file(&path))?;
            return Ok(None);
        }
        let times = fs::FileTimes::new().set_accessed(system(now));
        // Only the order of eviction and the next check depend on it, so a cache that cannot be written to still serves.
        if let Err(error) = file.set_times(if fresh { times } else { times.set_modified(system(now)) }) {
            tracing::debug!(%error, "the times of a cached body could not be set");
        }
        Ok(Some(file))
    }

    /// Keeps a whole body or page, which was verified. Returns it open.
    pub(crate) fn keep(&self, hash: BlobHash, bytes: &[u8]) -> io::Result<File> {
        match self.try_keep(hash, bytes) {
            // The limit may be more than the disk has.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.evict_to(self.limit / 2)?;
                self.try_keep(hash, bytes)
            }
            kept => kept,
        }
    }

    fn try_keep(&self, hash: BlobHash, bytes: &[u8]) -> io::Result<File> {
        let (file, unfinished) = self.unfinished()?;
        file.write_all_at(bytes, 0)?;
        file.unlock()?;
        self.name_whole(hash, &unfinished, bytes.len() as u64)
    }

    /// The partial body of a file: from before, or new.
    pub(crate) fn partial(&self, layout: &Layout) -> io::Result<Partial> {
        Partial::open(&self.folder.join("parts"), layout, || self.unfinished())
    }

    /// Makes a partial body, all of which was verified, a whole one. Returns it open.
    pub(crate) fn promote(&self, partial: &Partial) -> io::Result<File> {
        // Shared with the reader, and nobody's to remove or to open anew, until it has its name.
        flock(partial.file(), FlockOperation::NonBlockingLockShared)?;
        let whole = if is_named(partial.path(), partial.file())? {
            self.name_whole(partial.key(), partial.path(), partial.size())?
        } else {
            // Somebody removed it, and what has its name now is another's. Who reads this one goes on.
            File::open(format!("/proc/self/fd/{}", partial.file().as_raw_fd()))?
        };
        partial.promoted()?;
        Ok(whole)
    }

    /// Gives a verified file its name as a whole body. Returns it open: readers never have a file that they could write to.
    fn name_whole(&self, hash: BlobHash, from: &Path, size: u64) -> io::Result<File> {
        let file = File::open(from)?;
        // Before it has a name that could be evicted.
        let _held_by_us = file.try_lock_shared();
        let now = system(self.clock.wall());
        file.set_times(fs::FileTimes::new().set_accessed(now).set_modified(now))?;
        let path = self.body_path(hash);
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        fs::rename(from, &path)?;
        self.added(size);
        Ok(file)
    }

    /// Notes that the cache has grown, and evicts if it may have grown too much.
    pub(crate) fn added(&self, bytes: u64) {
        let added = self.added.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if added < self.limit / EVICT_SHARE {
            return;
        }
        if let Err(error) = self.evict() {
            tracing::warn!(%error, folder = %self.folder.display(), "the cache could not be made smaller");
        }
    }

    fn evict(&self) -> io::Result<()> {
        self.evict_to(self.limit - self.limit / EVICT_SHARE)
    }

    fn evict_to(&self, bytes: u64) -> io::Result<()> {
        self.added.store(0, Ordering::Relaxed);
        let evicted = evict::evict(&self.folder, bytes)?;
        add(&self.metrics.evicted, evicted);
        Ok(())
    }

    fn unfinished(&self) -> io::Result<(File, PathBuf)> {
        let path = self.folder.join("unfinished").join(random_name(&*self.ids));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // Eviction is to pass over it until it has its name.
        let _held_by_us = file.try_lock();
        Ok((file, path))
    }

    fn body_path(&self, hash: BlobHash) -> PathBuf {
        let name = hash.to_string();
        self.folder.join("bodies").join(&name[..2]).join(&name)
    }

    fn is_as_hashed(&self, file: &File, layout: &Layout) -> io::Result<bool> {
        let mut buffer = vec![0; CHECK_BYTES];
        for placed in layout.pieces() {
            let (mut at, end) = (placed.offset, placed.offset + placed.piece.length);
            let mut hasher = blake3::Hasher::new();
            while at < end {
                let length = CHECK_BYTES.min(usize::try_from(end - at).unwrap_or(CHECK_BYTES));
                match file.read_exact_at(&mut buffer[..length], at) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                    other => other?,
                }
                hasher.update(&buffer[..length]);
                at += length as u64;
            }
            if BlobHash::from(hasher.finalize()) != placed.piece.hash {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn random_name(ids: &dyn IdSource) -> String {
    let mut bytes = [0; 16];
    ids.fill(&mut bytes);
    format!("{:032x}", u128::from_le_bytes(bytes))
}

fn mtime(metadata: &fs::Metadata) -> Timestamp {
    let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
    Timestamp(
        seconds.saturating_mul(1000).saturating_add(u64::try_from(metadata.mtime_nsec()).unwrap_or(0) / 1_000_000),
    )
}

fn system(time: Timestamp) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_millis(time.0)
}

/// Whether a path still leads to an open file.
fn is_named(path: &Path, file: &File) -> io::Result<bool> {
    let (named, open) = (missing_is_none(fs::symlink_metadata(path))?, file.metadata()?);
    Ok(named.is_some_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino())))
}

pub(crate) fn missing_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
