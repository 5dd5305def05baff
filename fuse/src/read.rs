//! Reading bodies: what is missing of a range is fetched, verified and kept, then the range is read from the disk.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use federation::blobs::{GROUP_BYTES, Outboard};
use federation::mutant::{self, Mutant};
use federation::types::{BlobHash, Number};
use futures_util::future::try_join;
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::spawn_blocking;

use crate::cache::{Cache, Partial, Standing};
use crate::error::{Error, Result};
use crate::flight::Flights;
use crate::layout::{Group, Layout, Placed};
use crate::metrics::{Metrics, add};
use crate::source::{Piece, Source};

/// The most groups that one request fetches: 1 MiB.
const GROUPS_PER_FETCH: u64 = 16;
/// The most fetches of one body at the same time.
const FETCHES_MAX: usize = 8;

/// Where a body is to be had: an object of a snapshot that has it.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) number: Number,
    pub(crate) path: Vec<u8>,
}

impl std::fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

/// A body that is open.
pub(crate) struct Body {
    layout: Layout,
    origin: Origin,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    stand: Mutex<Stand>,
    flights: Flights<u64>,
    trees: Vec<OnceCell<Outboard>>,
    fetches: Semaphore,
    settling: tokio::sync::Mutex<()>,
}

/// Where its bytes are.
#[derive(Clone)]
enum Stand {
    /// There are none.
    Empty,
    /// It is one group, which is not here.
    Small,
    /// All of it is here, and was verified.
    Whole(Arc<File>),
    /// Some of it is here.
    Partial(Arc<Partial>),
}

impl Body {
    /// Opens a body; nothing is fetched yet. The `turn` of whoever opens it is held for as long as files are waited for, also if
    /// nobody waits for this any more, and comes back.
    pub(crate) async fn open<T: Send + 'static>(
        layout: Layout,
        origin: Origin,
        cache: Arc<Cache>,
        metrics: Arc<Metrics>,
        turn: T,
    ) -> Result<(Body, T)> {
        let (kept_in, looked_for) = (cache.clone(), layout.clone());
        let (stand, turn) = blocking(move || Ok((kept(&kept_in, &looked_for)?, turn))).await?;
        let (stand, turn) = match stand {
            Some(stand) => (stand, turn),
            None => match handed_over(&layout, &origin).await {
                Some(file) => {
                    add(&metrics.handed_over, 1);
                    (Stand::Whole(Arc::new(file)), turn)
                }
                None => {
                    let (kept_in, looked_for) = (cache.clone(), layout.clone());
                    blocking(move || Ok((begun(&kept_in, &looked_for)?, turn))).await?
                }
            },
        };
        let trees = layout.pieces().iter().map(|_| OnceCell::new()).collect();
        let body = Body {
            stand: Mutex::new(stand),
            flights: Flights::default(),
            trees,
            fetches: Semaphore::new(FETCHES_MAX),
            settling: tokio::sync::Mutex::default(),
            layout,
            origin,
            cache,
            metrics,
        };
        Ok((body, turn))
    }

    /// What it is kept under.
    pub(crate) fn key(&self) -> BlobHash {
        self.layout.key()
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.layout.size()
    }

    /// Whether nothing of it is missing.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.stand(), Stand::Empty | Stand::Whole(_))
    }

    /// The file that has all of it, if that is here and verified.
    pub(crate) fn whole(&self) -> Option<Arc<File>> {
        match self.stand() {
            Stand::Whole(file) => Some(file),
            Stand::Empty | Stand::Small | Stand::Partial(_) => None,
        }
    }

    /// At most `length` bytes from `offset` on; fewer only at the end.
    pub(crate) async fn read(&self, offset: u64, length: u64) -> Result<Bytes> {
        let length = length.min(self.size().saturating_sub(offset));
        if length == 0 {
            return Ok(Bytes::new());
        }
        self.ensure(self.layout.groups_of(offset, length)).await?;
        let file = match self.stand() {
            Stand::Whole(file) => file,
            Stand::Partial(partial) => partial.file().clone(),
            Stand::Empty | Stand::Small => return Err(Error::Cache(io::ErrorKind::NotFound.into())),
        };
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        if reads_now(&file, &mut bytes, offset) {
            return Ok(bytes.into());
        }
        blocking(move || {
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes.into())
        })
        .await
    }

    /// Brings all of it.
    pub(crate) async fn fetch_all(self: &Arc<Self>) -> Result<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for groups in chunks(0..self.layout.groups()) {
            while tasks.len() >= FETCHES_MAX {
                joined(tasks.join_next().await)?;
            }
            let body = self.clone();
            tasks.spawn(async move { body.ensure(groups).await });
        }
        while !tasks.is_empty() {
            joined(tasks.join_next().await)?;
        }
        Ok(())
    }

    /// Begins to bring what will be read next.
    pub(crate) fn read_ahead(self: &Arc<Self>, from: u64, length: u64) {
        if length == 0 || !matches!(self.stand(), Stand::Partial(_)) {
            return;
        }
        for groups in chunks(self.layout.groups_of(from, length)) {
            let body = self.clone();
            tokio::spawn(async move {
                // Whoever reads it asks again, and is told.
                if let Err(error) = body.ensure(groups).await {
                    tracing::debug!(%error, "read-ahead failed");
                }
            });
        }
    }

    /// Makes groups be here and verified.
    async fn ensure(&self, groups: Range<u64>) -> Result<()> {
        let mut first = true;
        loop {
            // Made before looking, so that what lands in between is not waited for.
            let landing = self.flights.landing();
            let mut landing = std::pin::pin!(landing);
            landing.as_mut().enable();
            let missing: Vec<u64> = groups.clone().filter(|group| !self.is_verified(*group)).collect();
            if first {
                add(&self.metrics.misses, missing.len() as u64);
                add(&self.metrics.hits, (groups.end - groups.start) - missing.len() as u64);
                first = false;
            }
            if missing.is_empty() {
                return Ok(());
            }
            let flight = self.flights.begin(missing);
            if flight.keys().is_empty() {
                landing.await;
                continue;
            }
            for run in runs(flight.keys(), |group| self.is_verified(group)) {
                for groups in chunks(run) {
                    self.bring(groups).await?;
                }
            }
        }
    }

    fn is_verified(&self, group: u64) -> bool {
        match self.stand() {
            Stand::Empty | Stand::Whole(_) => true,
            Stand::Small => false,
            Stand::Partial(partial) => partial.standing(group) == Standing::Verified,
        }
    }

    /// Brings groups that nobody else in this process brings.
    async fn bring(&self, groups: Range<u64>) -> Result<()> {
        let _turn = self.fetches.acquire().await.map_err(io::Error::other)?;
        match self.stand() {
            Stand::Empty | Stand::Whole(_) => Ok(()),
            Stand::Small => self.bring_small().await,
            Stand::Partial(partial) => {
                let _claim = self.cache.claim(self.key(), groups.clone()).await;
                let (from, looked_for) = (partial.clone(), groups.clone());
                blocking(move || from.look_at_map(looked_for)).await?;
                let mut at = groups.start;
                while let Some(group) = self.layout.group(at).filter(|_| at < groups.end) {
                    // A request is of one piece.
                    let placed = self.layout.pieces()[group.piece];
                    let end = groups.end.min(placed.first_group + placed.groups());
                    self.bring_of_piece(&partial, group.piece, at..end).await?;
                    at = end;
                }
                self.settle(partial).await
            }
        }
    }

    async fn bring_small(&self) -> Result<()> {
        let Some(placed) = self.layout.pieces().first() else { return Ok(()) };
        let _claim = self.cache.claim(self.key(), 0..1).await;
        let (cache, layout) = (self.cache.clone(), self.layout.clone());
        if let Some(file) = blocking(move || cache.whole(&layout)).await? {
            self.set_stand(Stand::Whole(Arc::new(file)));
            return Ok(());
        }
        let bytes = self.fetch(placed.piece, 0, placed.piece.length).await?;
        if BlobHash::from(blake3::hash(&bytes)) != placed.piece.hash && !mutant::on(Mutant::MountServeUnverified) {
            return Err(self.damaged());
        }
        let (cache, key) = (self.cache.clone(), self.key());
        let file = blocking(move || cache.keep(key, &bytes)).await?;
        self.set_stand(Stand::Whole(Arc::new(file)));
        Ok(())
    }

    async fn bring_of_piece(&self, partial: &Arc<Partial>, piece: usize, groups: Range<u64>) -> Result<()> {
        let mut missing = Vec::new();
        for number in groups {
            let Some(group) = self.layout.group(number) else { continue };
            let here = match partial.standing(number) {
                Standing::Missing => false,
                Standing::Verified => true,
                Standing::Unverified => self.verify_here(partial, number, group).await?,
            };
            if !here {
                missing.push(number);
            }
        }
        for run in runs(&missing, |_| false) {
            let (Some(first), Some(last)) = (self.layout.group(run.start), self.layout.group(run.end - 1)) else {
                continue;
            };
            let placed = self.layout.pieces()[piece];
            if mutant::on(Mutant::MountMapBeforeData) {
                partial.note(run.clone());
            }
            let (begin, end) = (first.offset - placed.offset, last.offset + last.length - placed.offset);
            let fetch = self.fetch(placed.piece, begin, end - begin);
            let bytes = match placed.groups() {
                1 => fetch.await?,
                // Both at once: a far server answers each after a while.
                _ => try_join(fetch, self.hash_tree(partial, piece, &placed)).await?.0,
            };
            self.take(partial, run, first.offset, bytes).await?;
        }
        Ok(())
    }

    /// Takes in groups that follow one another and were fetched at once: those before the first that is wrong.
    async fn take(&self, partial: &Arc<Partial>, run: Range<u64>, offset: u64, mut bytes: Bytes) -> Result<()> {
        let (mut right, mut right_bytes) = (run.start..run.start, 0);
        for number in run.clone() {
            let Some(group) = self.layout.group(number) else { break };
            let end = right_bytes + usize::try_from(group.length).map_err(io::Error::other)?;
            let is_right = match bytes.get(right_bytes..end) {
                Some(bytes) => self.is_right(partial, group, bytes).await? || mutant::on(Mutant::MountServeUnverified),
                None => false,
            };
            if !is_right {
                break;
            }
            right.end = number + 1;
            right_bytes = end;
        }
        let all = right.end == run.end;
        bytes.truncate(right_bytes);
        let (cache, into) = (self.cache.clone(), partial.clone());
        // With one write: a file that was written in large pieces lies in memory in large pieces.
        blocking(move || {
            cache.with_room(|| into.write(offset, &bytes))?;
            into.note(right);
            cache.added(bytes.len() as u64);
            Ok(())
        })
        .await?;
        if all { Ok(()) } else { Err(self.damaged()) }
    }

    /// Whether a group that is here, but was not compared with its hash by this process, is right.
    async fn verify_here(&self, partial: &Arc<Partial>, number: u64, group: Group) -> Result<bool> {
        let from = partial.clone();
        let bytes = blocking(move || {
            let mut bytes = vec![0; usize::try_from(group.length).map_err(io::Error::other)?];
            from.file().read_exact_at(&mut bytes, group.offset)?;
            Ok(Bytes::from(bytes))
        });
        if self.is_right(partial, group, &bytes.await?).await? {
            partial.note_verified(number);
            return Ok(true);
        }
        tracing::warn!(key = %self.key(), "a part of a body in the cache is damaged; it is fetched again");
        add(&self.metrics.damaged, 1);
        partial.forget(number);
        Ok(false)
    }

    async fn is_right(&self, partial: &Arc<Partial>, group: Group, bytes: &[u8]) -> Result<bool> {
        let placed = self.layout.pieces()[group.piece];
        if bytes.len() as u64 != group.length {
            return Ok(false);
        }
        if placed.groups() == 1 {
            return Ok(BlobHash::from(blake3::hash(bytes)) == placed.piece.hash);
        }
        Ok(self.hash_tree(partial, group.piece, &placed).await?.verify_group(group.index, bytes))
    }

    /// The verified hash tree of a piece. Many fetches may need it at once; one brings it.
    async fn hash_tree(&self, partial: &Arc<Partial>, piece: usize, placed: &Placed) -> Result<&Outboard> {
        self.trees[piece].get_or_try_init(|| self.bring_hash_tree(partial, piece, placed)).await
    }

    async fn bring_hash_tree(&self, partial: &Arc<Partial>, piece: usize, placed: &Placed) -> Result<Outboard> {
        let _claim = self.cache.claim_tree(self.key(), piece).await;
        let (from, at) = (partial.clone(), *placed);
        if let Some(tree) = blocking(move || from.hash_tree(&at)).await? {
            return Ok(tree);
        }
        let origin = &self.origin;
        let bytes = origin.source.hash_tree(origin.number, &origin.path, placed.piece).await?;
        add(&self.metrics.hash_tree_bytes, bytes.len() as u64);
        let tree = Outboard::from_bytes(bytes)
            .filter(|tree| tree.verify_root(&placed.piece.hash, placed.piece.length))
            .ok_or_else(|| self.damaged())?;
        let (into, at, kept) = (partial.clone(), *placed, tree.clone());
        if let Err(error) = blocking(move || into.keep_hash_tree(&at, &kept)).await {
            tracing::debug!(%error, key = %self.key(), "a hash tree could not be kept; it will be fetched again");
        }
        Ok(tree)
    }

    /// Makes the body a whole one if all of it is here.
    async fn settle(&self, partial: Arc<Partial>) -> Result<()> {
        if !partial.is_whole() {
            return Ok(());
        }
        // Several may see that it is whole; one makes it so.
        let _turn = self.settling.lock().await;
        if !matches!(self.stand(), Stand::Partial(_)) {
            return Ok(());
        }
        let cache = self.cache.clone();
        match blocking(move || cache.promote(&partial)).await {
            Ok(file) => self.set_stand(Stand::Whole(Arc::new(file))),
            // It is all here, under whatever name.
            Err(error) => tracing::warn!(%error, key = %self.key(), "a body that is here could not be kept"),
        }
        Ok(())
    }

    async fn fetch(&self, piece: Piece, offset: u64, length: u64) -> Result<Bytes> {
        let origin = &self.origin;
        let bytes = origin.source.range(origin.number, &origin.path, piece, offset, length).await?;
        add(&self.metrics.body_bytes, bytes.len() as u64);
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(self.damaged()) }
    }

    fn damaged(&self) -> Error {
        add(&self.metrics.damaged, 1);
        Error::Damaged { what: format!("the body of \"{}\"", self.origin.path.escape_ascii()) }
    }

    fn stand(&self) -> Stand {
        self.stand.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_stand(&self, stand: Stand) {
        *self.stand.lock().unwrap_or_else(PoisonError::into_inner) = stand;
    }
}

/// What is known of a body without asking anybody; nothing of one whose groups come one by one.
fn kept(cache: &Cache, layout: &Layout) -> io::Result<Option<Stand>> {
    if layout.size() == 0 {
        return Ok(Some(Stand::Empty));
    }
    Ok(match cache.whole(layout)? {
        Some(file) => Some(Stand::Whole(Arc::new(file))),
        None => (layout.groups() == 1).then_some(Stand::Small),
    })
}

/// A body whose groups come one by one; or the whole one, if another process has made it that since it was looked for.
fn begun(cache: &Cache, layout: &Layout) -> io::Result<Stand> {
    let partial = cache.partial(layout)?;
    match if partial.is_empty() { cache.whole(layout)? } else { None } {
        Some(file) => {
            partial.withdraw()?;
            Ok(Stand::Whole(Arc::new(file)))
        }
        None => Ok(Stand::Partial(Arc::new(partial))),
    }
}

/// The body as an open file of the server's, if it is one piece and the server hands it over.
async fn handed_over(layout: &Layout, origin: &Origin) -> Option<File> {
    let [placed] = layout.pieces() else { return None };
    match origin.source.descriptor(origin.number, &origin.path, placed.piece).await {
        Ok(file) => file,
        // Whoever reads it hears what is wrong.
        Err(error) => {
            tracing::debug!(%error, "the server was not asked for an open file");
            None
        }
    }
}

/// What stands together among ascending numbers, those left out that are `done`.
fn runs(numbers: &[u64], done: impl Fn(u64) -> bool) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for number in numbers.iter().copied().filter(|number| !done(*number)) {
        match runs.last_mut() {
            Some(run) if run.end == number => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

/// A range of groups, cut into what one request fetches.
fn chunks(groups: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = groups.end;
    groups.step_by(GROUPS_PER_FETCH as usize).map(move |from| from..end.min(from + GROUPS_PER_FETCH))
}

fn joined(outcome: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match outcome {
        Some(outcome) => outcome.map_err(io::Error::other)?,
        None => Ok(()),
    }
}

/// Reads all of a range that is in memory; false if some of it is not.
fn reads_now(file: &File, bytes: &mut [u8], offset: u64) -> bool {
    let length = bytes.len();
    let read = preadv2(file, &mut [io::IoSliceMut::new(bytes)], offset, ReadWriteFlags::NOWAIT);
    read.is_ok_and(|read| read == length)
}

/// Runs file operations where they hold nobody up.
pub(crate) async fn blocking<T: Send + 'static>(job: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    Ok(spawn_blocking(job).await.map_err(io::Error::other)??)
}

const _: () = assert!(GROUPS_PER_FETCH as usize * GROUP_BYTES == 1024 * 1024);
