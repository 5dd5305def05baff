//! The cache on disk: what was fetched and verified, shared by all mounts of a host and kept between them.
//!
//! ```text
//! DIR/bodies/ab/HASH      a whole body or page, named by what it hashes to (of a file of several parts: by their list's)
//! DIR/parts/HASH.data     a body of which some groups are here, sparse
//! DIR/parts/HASH.map      which groups those are
//! DIR/parts/HASH.trees    its hash trees
//! DIR/unfinished/         files on their way to their names
//! DIR/claims              locks: which process is about to fetch what
//! ```
//!
//! A whole body gets its name only when all of it was verified. It is not synced: the first reader after a boot
//! compares it with its hash again (its modification time says when that was done last), and one that a crash
//! damaged is fetched anew. A reader holds a shared lock on what it has open, so that eviction passes over it.

mod claims;
mod evict;
mod partial;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use federation::clock::Clock;
use federation::ids::IdSource;
use federation::types::{BlobHash, Timestamp};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::Notify;

use self::claims::Claims;
use crate::layout::Layout;
use crate::metrics::{Metrics, add};

pub(crate) use claims::Claim;
pub(crate) use partial::{Partial, Standing};

/// Bodies whose last check is older than this are checked again when they are opened.
const VERIFY_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many bytes are read at once when a body is checked.
const CHECK_BYTES: usize = 1024 * 1024;

/// Eviction looks after this share of the limit was added, so that it does not look at every file for each.
const EVICT_SHARE: u64 = 32;

/// How long those who keep files open have to let go of them when the disk is full.
const LET_GO_TIME: Duration = Duration::from_millis(50);

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
    claims: Claims,
    /// Tells those who keep files open that nobody reads.
    room_wanted: Notify,
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
            Claims::open(&folder)
        };
        let claims = make().map_err(|source| CacheError { path: folder.clone(), source })?;
        let (added, room_wanted) = (AtomicU64::new(0), Notify::new());
        let cache = Cache { folder, limit, added, claims, room_wanted, clock, ids, metrics };
        // A directory that cannot be written to is better known now than at the first read.
        let tried = cache.trial().and_then(|_| cache.evict());
        tried.map_err(|source| CacheError { path: cache.folder.clone(), source })?;
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
        let (_held, path) = self.unfinished()?;
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

    /// Takes groups of a body, or a page, to be fetched by this process alone, once no other one is about to fetch them. What
    /// the other one fetched is here then. None if the other one takes too long.
    pub(crate) async fn claim(&self, body: BlobHash, groups: Range<u64>) -> Option<Claim> {
        self.claims.groups(body, groups).await
    }

    /// The same for the hash tree of a piece of a body.
    pub(crate) async fn claim_tree(&self, body: BlobHash, piece: usize) -> Option<Claim> {
        self.claims.tree(body, piece).await
    }

    /// Keeps a whole body or page, which was verified. Returns it open.
    pub(crate) fn keep(&self, hash: BlobHash, bytes: &[u8]) -> io::Result<File> {
        self.with_room(|| {
            let (file, unfinished) = self.unfinished()?;
            let named = file.write_all_at(bytes, 0).and_then(|()| share(&file));
            let named = named.and_then(|()| self.name_whole(hash, &unfinished, bytes.len() as u64));
            if named.is_err() {
                missing_is_none(fs::remove_file(&unfinished))?;
            }
            named
        })
    }

    /// Does what needs room on the disk, which may have less than the limit. What can be fetched again goes for it: first
    /// what was used longest ago, then all that nobody has open.
    pub(crate) fn with_room<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut outcome = write();
        for all in [false, true] {
            match outcome {
                Err(error) if is_full(&error) => {
                    if all {
                        self.room_wanted.notify_waiters();
                        thread::sleep(LET_GO_TIME);
                    }
                    let evicted = evict::give_back(&self.folder, all)?;
                    add(&self.metrics.evicted, evicted);
                    outcome = write();
                }
                other => return other,
            }
        }
        outcome.inspect_err(|error| {
            tracing::error!(%error, folder = %self.folder.display(), "no room for the cache: make some, or move it with --cache");
        })
    }

    /// Returns when the disk is full, and files that nobody reads should not be kept open any longer.
    pub(crate) async fn wants_room(&self) {
        self.room_wanted.notified().await;
    }

    /// The partial body of a file: from before, or new.
    pub(crate) fn partial(&self, layout: &Layout) -> io::Result<Partial> {
        self.with_room(|| Partial::open(&self.folder.join("parts"), layout, || self.unfinished()))
    }

    /// Makes a partial body, all of which was verified, a whole one. Returns it open.
    pub(crate) fn promote(&self, partial: &Partial) -> io::Result<File> {
        // The partial is open, so nobody removes it until it has its name.
        let whole = if is_named(partial.path(), partial.file())? {
            share(partial.file())?;
            self.name_whole(partial.key(), partial.path(), partial.size())?
        } else {
            // Another process has made it a whole one. Who reads this goes on with the same file.
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
        self.added.store(0, Ordering::Relaxed);
        let evicted = evict::evict(&self.folder, self.limit - self.limit / EVICT_SHARE)?;
        add(&self.metrics.evicted, evicted);
        Ok(())
    }

    /// A new file without content, which eviction passes over for as long as it is open.
    fn unfinished(&self) -> io::Result<(File, PathBuf)> {
        loop {
            let path = self.folder.join("unfinished").join(random_name(&*self.ids));
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            match file.try_lock() {
                // Until it was locked, it may have been evicted.
                Ok(()) if is_named(&path, &file)? => return Ok((file, path)),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
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

/// Lets others have a file open for reading that is locked here, and still nobody remove it.
fn share(file: &File) -> io::Result<()> {
    Ok(flock(file, FlockOperation::NonBlockingLockShared)?)
}

/// Whether there is no room on the disk.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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
