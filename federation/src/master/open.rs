//! Opening a data directory, and closing it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::collect::Leftovers;
use super::generation;
use super::handover::Checks;
use super::layer::fold_all;
use super::readers::Readers;
use super::{Limits, Master};
use crate::blobs::{Backend, BlobLimits, Blobs, Found, LocalBackend, LocalOptions};
use crate::blocking::{Blocking, Threads};
use crate::catalog::rows::{BlobRow, BucketRow, Record};
use crate::catalog::{Catalog, Durability, KeyRange, RedbCatalog, Table, View, Writer, keys, tables};
use crate::clock::{Clock, SystemClock};
use crate::disk::{Disk, LocalDisk, LockHeld, spare};
use crate::error::{Error, Result};
use crate::ids::{IdSource, SystemIds};
use crate::types::{BucketId, FileId, SegmentId};

/// The catalog's file in a data directory.
const CATALOG_FILE: &str = "catalog.redb";
/// The lock file in a data directory.
const LOCK_FILE: &str = "lock";
/// Memory for the catalog's pages unless told otherwise, in bytes.
const CATALOG_CACHE_BYTES: usize = 256 * 1024 * 1024;

/// How a data directory is opened.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// The directory.
    pub data: PathBuf,
    /// How sure a write is when it is answered.
    pub durability: Durability,
    /// Bytes of disk that writes must leave free.
    pub disk_reserve: u64,
    /// Memory for the catalog's pages, in bytes.
    pub catalog_cache_bytes: usize,
    /// How long numbers stay snapshots where a bucket has no rule of its own, in seconds.
    pub keep_seconds: u64,
}

impl MasterConfig {
    /// The defaults for a data directory.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        let limits = Limits::default();
        MasterConfig {
            data: data.to_owned(),
            durability: Durability::Strict,
            disk_reserve: limits.disk_reserve,
            catalog_cache_bytes: CATALOG_CACHE_BYTES,
            keep_seconds: limits.keep_default.as_secs(),
        }
    }
}

/// What differs between production and simulation.
#[derive(Clone)]
pub struct Seams {
    /// The catalog's engine.
    pub catalog: Arc<dyn Catalog>,
    /// Where bodies are kept.
    pub backend: Arc<dyn Backend>,
    /// Where calls that block run.
    pub blocking: Arc<dyn Blocking>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub ids: Arc<dyn IdSource>,
}

impl Seams {
    /// The catalog in one file and the bodies beside it, on a disk that nobody else uses.
    pub fn on_disk(
        disk: Arc<dyn Disk>,
        limits: &Limits,
        catalog_cache_bytes: usize,
        blocking: Arc<dyn Blocking>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        segment_bytes: u64,
    ) -> Result<Self> {
        let known = generation::read(&*disk)?;
        if !has_catalog(&*disk) && (known > 0 || has_bodies(&*disk)) {
            return Err(Error::CatalogOutdated);
        }
        let open_catalog = || {
            let catalog = RedbCatalog::open(Arc::clone(&disk), Path::new(CATALOG_FILE), catalog_cache_bytes)?;
            generation::advance(&*disk, &catalog, known)?;
            Ok::<_, Error>(catalog)
        };
        let catalog: Arc<dyn Catalog> = Arc::new(match open_catalog() {
            Err(_) if spare::release(&*disk).is_ok_and(|released| released) => open_catalog()?,
            opened => opened?,
        });
        let (first_segment, first_file) = used_ids(&*catalog.view()?)?;
        let options = LocalOptions {
            segment_bytes,
            reserve: limits.disk_reserve,
            first_segment,
            first_file,
            clock: Arc::clone(&clock),
            ..LocalOptions::default()
        };
        let backend = Arc::new(LocalBackend::open(disk, options)?);
        Ok(Seams { catalog, backend, blocking, clock, ids })
    }
}

/// Whether there is a catalog that holds anything.
fn has_catalog(disk: &dyn Disk) -> bool {
    disk.open(Path::new(CATALOG_FILE), false).and_then(|file| file.len()).is_ok_and(|length| length > 0)
}

/// Whether there are bodies, or folders for them.
fn has_bodies(disk: &dyn Disk) -> bool {
    let any = |folder| disk.list(Path::new(folder)).is_ok_and(|names| !names.is_empty());
    any("segments") || any("bodies")
}

/// The ids below which nothing may be given out again.
fn used_ids(view: &dyn View) -> Result<(SegmentId, FileId)> {
    let bytes = view.get(Table::Meta, tables::META_SWEPT)?;
    Ok(bytes.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or((SegmentId(0), FileId(0))))
}

impl Master {
    /// Opens a data directory, which no other process may have open, and makes it where there is none.
    pub async fn open(config: MasterConfig) -> Result<Arc<Master>> {
        let limits = Limits {
            disk_reserve: config.disk_reserve,
            keep_default: Duration::from_secs(config.keep_seconds),
            ..Limits::default()
        };
        let blocking: Arc<dyn Blocking> = Arc::new(Threads);
        let opening = config.clone();
        let for_seams = (limits.clone(), Arc::clone(&blocking));
        let (lock, seams) = blocking
            .run(move || {
                let (limits, blocking) = for_seams;
                let opened = |error: io::Error| data_directory(&opening.data, error);
                let disk = LocalDisk::open(&opening.data).map_err(opened)?;
                let lock = disk.lock_exclusive(Path::new(LOCK_FILE)).map_err(opened)?;
                let clock: Arc<dyn Clock> = Arc::new(SystemClock);
                let ids: Arc<dyn IdSource> = Arc::new(SystemIds);
                let disk: Arc<dyn Disk> = Arc::new(disk);
                let segment_bytes = crate::blobs::SEGMENT_BYTES;
                let cache = opening.catalog_cache_bytes;
                let seams = Seams::on_disk(disk, &limits, cache, blocking, clock, ids, segment_bytes)?;
                // Nobody reads yet: the one moment at which pages can be given back.
                match seams.catalog.compact() {
                    Ok(true) => tracing::info!("catalog compacted"),
                    Ok(false) => {}
                    // It serves as it is.
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "catalog not compacted");
                    }
                }
                Ok::<_, Error>((lock, seams))
            })
            .await?;
        Self::assemble(seams, config.durability, limits, Some(Arc::new(lock))).await.map(Arc::new)
    }

    /// A Master over given seams.
    pub async fn simulated(seams: Seams, limits: Limits) -> Result<Master> {
        Self::assemble(seams, Durability::Strict, limits, None).await
    }

    async fn assemble(
        seams: Seams,
        durability: Durability,
        limits: Limits,
        lock: Option<Arc<crate::disk::DirLock>>,
    ) -> Result<Master> {
        let Seams { catalog, backend, blocking, clock, ids } = seams;
        let clock_at_open = clock.boottime();
        let (_, first_file) = backend.next_ids();
        let master = Master {
            writer: Writer::new(catalog, Arc::clone(&blocking), durability),
            blobs: Blobs::new(backend, blocking, BlobLimits::default()),
            clock,
            ids,
            limits: Arc::new(limits),
            readers: Readers::default(),
            commits: Arc::default(),
            collecting: Arc::default(),
            leftovers: Arc::default(),
            fetch: Arc::default(),
            read_lately: Arc::default(),
            trees: Arc::default(),
            partials: Arc::default(),
            checks: Arc::new(Checks::new(first_file, clock_at_open)),
            opened: clock_at_open,
            _lock: lock,
        };
        let leftovers = master.find_leftovers().await?;
        *master.leftovers.lock().expect("no holder of this lock panics") = leftovers;
        if let Err(error) = master.remember_ids().await {
            if !master.release_spare().await? {
                return Err(error);
            }
            master.remember_ids().await?;
        }
        master.keep_spare().await;
        master.sweep_staged().await?;
        for id in master.layered().await? {
            master.fold_in_background(id);
        }
        Ok(master)
    }

    /// Waits for what is under way, makes it durable and lets go of the catalog. Every later call fails.
    pub async fn close(&self) {
        // Transactions are served in turn: when this one has committed, so has everything before it.
        if let Err(error) = self.writer.barrier().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "last commit failed");
        }
        let catalog = Arc::clone(self.writer.catalog());
        self.writer.blocking().run(move || catalog.close()).await;
    }

    /// Makes durable which ids were used, so that none is given out again once its file is removed.
    pub(super) async fn remember_ids(&self) -> Result<()> {
        let ids = self.blobs.backend().next_ids();
        let value = postcard::to_stdvec(&ids).expect("ids are plain data, which postcard can always write");
        self.writer
            .transact_strictly(move |txn| {
                txn.put_raw(Table::Meta, tables::META_SWEPT.to_vec(), value);
                Ok(())
            })
            .await
    }

    /// Lets go of the space that is kept aside, if the disk is full. Says whether there was any.
    pub(super) async fn release_spare(&self) -> Result<bool> {
        let backend = Arc::clone(self.blobs.backend());
        Ok(self.blobs.blocking().run(move || backend.release_spare()).await?)
    }

    /// Keeps space aside where there is room.
    pub(super) async fn keep_spare(&self) {
        let backend = Arc::clone(self.blobs.backend());
        // Serving goes on without; the collector tries again after each pass.
        if let Err(error) = self.blobs.blocking().run(move || backend.keep_spare()).await {
            tracing::warn!(%error, "no space kept aside for a full disk");
        }
    }

    async fn layered(&self) -> Result<Vec<BucketId>> {
        self.writer
            .read(|view| {
                let mut ids = Vec::new();
                for row in view.range(Table::Buckets, KeyRange::prefix(&[]))? {
                    let (key, value) = row?;
                    if BucketRow::decode(&value)?.open_layers > 0
                        && let Ok(id) = key.as_slice().try_into()
                    {
                        ids.push(BucketId(id));
                    }
                }
                Ok(ids)
            })
            .await
    }

    /// Looks for what an earlier life of the process left behind. Unfinished bodies go at once. Whole ones that the
    /// catalog does not know, because their transaction never committed, are only noted: should the catalog be
    /// an old copy of itself, there is time to notice before the collector takes them.
    async fn find_leftovers(&self) -> Result<Leftovers> {
        let backend = self.blobs.backend().clone();
        self.writer
            .read(move |view| {
                let (segment_known, _) = used_ids(view)?;
                let partial = super::partial::files(view)?;
                let mut leftovers = Leftovers::default();
                for found in backend.list()? {
                    match found {
                        Found::Unfinished { file, .. } => {
                            if let Err(error) = backend.remove_unfinished(file) {
                                tracing::warn!(%error, "unfinished body not removed");
                            }
                        }
                        // Nothing of it was kept.
                        Found::Sparse { file, .. } if !partial.contains(&file) => {
                            if let Err(error) = backend.remove_sparse(file) {
                                tracing::warn!(%error, "part of a body not removed");
                            }
                        }
                        Found::File { file, hash, length, unclaimed: false } if !partial.contains(&file) => {
                            let row = BlobRow::load(view, &keys::blob(hash))?;
                            if row.is_none_or(|row| row.file != file) {
                                leftovers.files.push((file, hash, length));
                            }
                        }
                        // Written since ids were last noted: by the last life, which may have known more.
                        Found::Segment { segment, .. } if segment >= segment_known => {
                            leftovers.segments.insert(segment);
                        }
                        Found::Sparse { .. } | Found::File { .. } | Found::Segment { .. } | Found::Foreign { .. } => {}
                    }
                }
                if !leftovers.files.is_empty() {
                    let bytes: u64 = leftovers.files.iter().map(|(_, _, length)| length).sum();
                    let files = leftovers.files.len();
                    tracing::warn!(files, bytes, "bodies that the catalog does not know; collected after a day");
                }
                Ok(leftovers)
            })
            .await
    }

    /// Folds every open layer of every bucket.
    pub async fn settle_all(&self) -> Result<()> {
        for id in self.layered().await? {
            fold_all(self, id).await?;
        }
        Ok(())
    }
}

/// What it means that a data directory cannot be opened.
fn data_directory(data: &Path, error: io::Error) -> Error {
    let held = error.get_ref().and_then(|inner| inner.downcast_ref::<LockHeld>()).copied();
    match held {
        Some(LockHeld { pid }) => Error::DataInUse { data: data.to_owned(), pid },
        None => Error::DataUnusable { data: data.to_owned(), source: error },
    }
}
