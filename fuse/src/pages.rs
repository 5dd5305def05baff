//! The pages of snapshot trees: in memory those read lately, on disk all that were fetched.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use federation::snapshot::{Missing, PAGE_BYTES_MAX, PageHash, Pages, TreeError};
use federation::types::{BlobHash, Number};

use crate::cache::{Cache, Claim};
use crate::error::{Error, Result};
use crate::flight::Flights;
use crate::metrics::{Metrics, add};
use crate::read::blocking;
use crate::source::{Source, SourceError};

/// Bytes of pages that are held in memory.
const MEMORY_BYTES_MAX: usize = 48 * 1024 * 1024;
/// The most pages that one request asks for.
const PAGES_PER_FETCH: usize = 64;
/// How often a call may ask for more pages: each time it gets at least one page further into a tree of lawful size.
const ROUNDS_MAX: usize = 4096;

/// Reads trees, and has brought what is missing of them.
pub(crate) struct TreeReader {
    memory: Memory,
    flights: Flights<PageHash>,
    source: Arc<dyn Source>,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
}

impl TreeReader {
    pub(crate) fn new(source: Arc<dyn Source>, cache: Arc<Cache>, metrics: Arc<Metrics>) -> TreeReader {
        TreeReader { memory: Memory::default(), flights: Flights::default(), source, cache, metrics }
    }

    /// What `read` says of a tree of the state `number`, after as many rounds of fetching as it takes.
    pub(crate) async fn read<T>(&self, number: Number, read: impl Fn(&dyn Pages) -> Result<T, TreeError>) -> Result<T> {
        for _ in 0..ROUNDS_MAX {
            match read(&self.memory) {
                Ok(answer) => return Ok(answer),
                Err(TreeError::Need(missing)) => self.bring(number, &missing).await?,
                Err(error) => return Err(Error::Tree(error)),
            }
        }
        Err(Error::Damaged { what: "a directory that has no end".to_owned() })
    }

    async fn bring(&self, number: Number, missing: &[Missing]) -> Result<()> {
        loop {
            // Made before looking, so that what lands in between is not waited for.
            let landing = self.flights.landing();
            let mut landing = std::pin::pin!(landing);
            landing.as_mut().enable();
            let wanted = missing.iter().filter(|missing| !self.memory.has(&missing.page));
            let flight = self.flights.begin(wanted.map(|missing| missing.page));
            if flight.keys().is_empty() {
                if missing.iter().all(|missing| self.memory.has(&missing.page)) {
                    return Ok(());
                }
                landing.await;
                continue;
            }
            // It may have landed between the look and the take-off.
            let flying: Vec<&Missing> = missing
                .iter()
                .filter(|missing| flight.keys().contains(&missing.page) && !self.memory.has(&missing.page))
                .collect();
            return self.fetch(number, &flying).await;
        }
    }

    async fn fetch(&self, number: Number, missing: &[&Missing]) -> Result<()> {
        let mut missing = self.read_from_disk(missing).await?;
        let claims = self.claim(&missing).await;
        if claims.iter().any(|claim| claim.as_ref().is_none_or(Claim::waited)) {
            // Another mount may have brought them meanwhile.
            missing = self.read_from_disk(&missing.iter().collect::<Vec<_>>()).await?;
        }
        // A request is of one directory.
        let mut rest = missing.as_slice();
        while let Some(first) = rest.first() {
            let together =
                rest.iter().take(PAGES_PER_FETCH).take_while(|page| page.directory == first.directory).count();
            let (now, later) = rest.split_at(together);
            self.bring_from_source(number, now).await?;
            rest = later;
        }
        Ok(())
    }

    /// Takes pages to be fetched by this process alone. All take them in the same order, so that nobody waits in a circle.
    async fn claim(&self, missing: &[Missing]) -> Vec<Option<Claim>> {
        let mut pages: Vec<PageHash> = missing.iter().map(|missing| missing.page).collect();
        pages.sort_unstable();
        let mut claims = Vec::with_capacity(pages.len());
        for page in pages {
            claims.push(self.cache.claim(BlobHash(page.0), 0..1).await);
        }
        claims
    }

    /// Takes what is on disk. Returns the rest.
    async fn read_from_disk(&self, missing: &[&Missing]) -> Result<Vec<Missing>> {
        let missing: Vec<Missing> = missing.iter().map(|missing| (*missing).clone()).collect();
        let cache = self.cache.clone();
        let looked = blocking(move || {
            let mut looked = Vec::with_capacity(missing.len());
            for missing in missing {
                let page = cache.page(BlobHash(missing.page.0), PAGE_BYTES_MAX)?;
                looked.push((page.filter(|bytes| PageHash::of(bytes) == missing.page), missing));
            }
            Ok(looked)
        });
        let mut absent = Vec::new();
        for (page, missing) in looked.await? {
            match page {
                Some(bytes) => self.memory.put(missing.page, bytes.into()),
                None => absent.push(missing),
            }
        }
        Ok(absent)
    }

    async fn bring_from_source(&self, number: Number, missing: &[Missing]) -> Result<()> {
        let Some(first) = missing.first() else { return Ok(()) };
        let hashes: Vec<PageHash> = missing.iter().map(|missing| missing.page).collect();
        let pages = self.source.pages(number, &first.directory, &hashes).await?;
        if pages.len() != hashes.len() {
            return Err(SourceError::Unfit("it sent another number of pages than it was asked for".to_owned()).into());
        }
        for (hash, bytes) in hashes.iter().zip(&pages) {
            add(&self.metrics.pages, 1);
            add(&self.metrics.page_bytes, bytes.len() as u64);
            if bytes.len() > PAGE_BYTES_MAX || PageHash::of(bytes) != *hash {
                add(&self.metrics.damaged, 1);
                return Err(Error::Damaged { what: format!("page {hash} of the snapshot") });
            }
        }
        let (cache, kept) = (self.cache.clone(), hashes.iter().copied().zip(pages.clone()).collect::<Vec<_>>());
        let kept =
            blocking(move || kept.iter().try_for_each(|(hash, bytes)| cache.keep(BlobHash(hash.0), bytes).map(drop)));
        if let Err(error) = kept.await {
            tracing::warn!(%error, "pages could not be kept in the cache; they will be fetched again");
        }
        for (hash, bytes) in hashes.into_iter().zip(pages) {
            // A copy: pages that came together would stay together for as long as one of them does.
            self.memory.put(hash, Bytes::copy_from_slice(&bytes));
        }
        Ok(())
    }
}

/// Pages in memory: those that were read lately.
#[derive(Default)]
struct Memory {
    pages: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    pages: HashMap<PageHash, (Bytes, u64)>,
    bytes: usize,
    /// Counts uses, to tell which were longest ago.
    turn: u64,
}

impl Memory {
    fn has(&self, page: &PageHash) -> bool {
        self.held().pages.contains_key(page)
    }

    fn put(&self, page: PageHash, bytes: Bytes) {
        let mut held = self.held();
        held.turn += 1;
        let (turn, size) = (held.turn, bytes.len());
        if held.pages.insert(page, (bytes, turn)).is_none() {
            held.bytes += size;
        }
        if held.bytes > MEMORY_BYTES_MAX {
            held.shrink();
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Lets go of the half that was used longest ago: seldom, so that it costs little each time.
    fn shrink(&mut self) {
        let mut turns: Vec<u64> = self.pages.values().map(|(_, turn)| *turn).collect();
        let middle = turns.len() / 2;
        let (_, &mut median, _) = turns.select_nth_unstable(middle);
        self.pages.retain(|_, (_, turn)| *turn >= median);
        self.bytes = self.pages.values().map(|(bytes, _)| bytes.len()).sum();
    }
}

impl Pages for Memory {
    fn get(&self, page: &PageHash) -> federation::Result<Option<Bytes>> {
        let mut held = self.held();
        held.turn += 1;
        let turn = held.turn;
        Ok(held.pages.get_mut(page).map(|(bytes, used)| {
            *used = turn;
            bytes.clone()
        }))
    }
}
