//! The volumes: what each call of dockerd does.

use std::collections::{BTreeMap, btree_map};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use federation::mutant::{self, Mutant};
use federation::types::Number;
use tokio::time::Instant;

use crate::error::{LookupError, VolumeError};
use crate::mounts::{Mounter, Probe};
use crate::name::{Source, VolumeName, Wanted};
use crate::state::{States, Volume};
use crate::store::Store;

/// Finds out which number a snapshot is.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// The number that `wanted` means now. An error if there is none, if its number was collected, if it has no such
    /// directory, or if nobody can be asked; its text goes to whoever typed the command.
    async fn number(&self, wanted: &Wanted) -> Result<Number, LookupError>;
}

/// What volumes are made with.
pub struct VolumesConfig {
    /// The folder that mounts go below; nothing else is in it.
    pub root: PathBuf,
    /// Which boot of the machine this is.
    pub boot: String,
    /// After how long without any container that has it, a use that dockerd never gave back is forgotten. Longer than
    /// dockerd takes from the answer to `Mount` until the container has its mounts.
    pub forget_after: Duration,
}

/// How the mount of a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is mounted, and nobody minds.
    None,
    /// It answers.
    Alive,
    /// Its process is gone, and containers that had it have an error instead.
    Ended,
    /// It does not answer.
    Silent,
}

/// What is said of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its name.
    pub name: VolumeName,
    /// What it is.
    pub volume: Volume,
    /// Where it is mounted, if it is.
    pub mountpoint: Option<PathBuf>,
    /// How its mount is.
    pub health: Health,
}

/// Where a source is mounted, and what was seen there last.
#[derive(Default)]
pub(crate) struct Place {
    /// Held by whoever mounts, detaches or decides to.
    pub(crate) lock: tokio::sync::Mutex<()>,
    facts: Mutex<Facts>,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Facts {
    /// When dockerd last had something done here.
    pub(crate) touched: Option<Instant>,
    /// Since when no container was seen to have it.
    pub(crate) unheld_since: Option<Instant>,
    /// What was there last.
    pub(crate) probe: Option<Probe>,
}

impl Place {
    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        // Facts are overwritten whole: there is no half of them.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        let mut facts = self.facts();
        facts.touched = Some(Instant::now());
        facts.unheld_since = None;
    }
}

/// All volumes of a host.
pub struct Volumes {
    pub(crate) config: VolumesConfig,
    pub(crate) states: States,
    pub(crate) mounter: Arc<dyn Mounter>,
    snapshots: Arc<dyn Snapshots>,
    places: Mutex<BTreeMap<PathBuf, Arc<Place>>>,
}

impl Volumes {
    /// Takes up where an earlier process ended: mounts that ended with it are detached, those that nobody uses, too.
    pub async fn open(
        config: VolumesConfig,
        store: Arc<dyn Store>,
        mounter: Arc<dyn Mounter>,
        snapshots: Arc<dyn Snapshots>,
    ) -> Result<Arc<Self>, VolumeError> {
        let states = States::open(store, &config.boot).await?;
        let volumes = Arc::new(Volumes { config, states, mounter, snapshots, places: Mutex::default() });
        volumes.take_up().await;
        Ok(volumes)
    }

    /// Makes a volume. Making it again as it is, is no error.
    pub async fn create(&self, name: &str, options: &BTreeMap<String, String>) -> Result<(), VolumeError> {
        let name: VolumeName = name.parse()?;
        let wanted = Wanted::new(&name, options)?;
        let asked = wanted.snapshot.to_string();
        if let Some(known) = self.states.now().volumes.get(&name)
            && known.asked == asked
            && (&known.source.bucket, &known.source.prefix) == (&wanted.bucket, &wanted.prefix)
        {
            return Ok(());
        }
        let number = self.snapshots.number(&wanted).await?;
        let source = Source { bucket: wanted.bucket, number, prefix: wanted.prefix };
        let mut other = None;
        let create = |volumes: &mut BTreeMap<VolumeName, Volume>| match volumes.entry(name.clone()) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Volume { source: source.clone(), asked, uses: BTreeMap::new() });
            }
            btree_map::Entry::Occupied(known) if known.get().source == source => {}
            btree_map::Entry::Occupied(known) => other = Some(known.get().source.clone()),
        };
        self.states.change(|state| create(&mut state.volumes)).await?;
        match other {
            Some(source_name) => Err(VolumeError::Exists { name, source_name }),
            None => {
                tracing::info!(volume = %name, source = %source, "created");
                Ok(())
            }
        }
    }

    /// A volume, from memory.
    pub fn get(&self, name: &str) -> Result<VolumeInfo, VolumeError> {
        let (name, volume) = self.known(name)?;
        Ok(self.info(name, volume))
    }

    /// All volumes, from memory.
    #[must_use]
    pub fn list(&self) -> Vec<VolumeInfo> {
        let state = self.states.now();
        state.volumes.iter().map(|(name, volume)| self.info(name.clone(), volume.clone())).collect()
    }

    /// Where a volume is mounted, from memory.
    pub fn path(&self, name: &str) -> Result<PathBuf, VolumeError> {
        let info = self.get(name)?;
        info.mountpoint.ok_or(VolumeError::NotMounted { name: info.name })
    }

    /// One more use of a volume: when this returns, the volume is mounted there and the use is on disk.
    pub async fn mount(&self, name: &str, id: &str) -> Result<PathBuf, VolumeError> {
        let (name, Volume { source, .. }) = self.known(name)?;
        let at = self.at(&source);
        let place = self.place(&at);
        let _one_at_a_time = place.lock.lock().await;
        place.touch();
        self.have_mounted(&source, &at, &place).await?;
        let mut removed_meanwhile = false;
        let counted = self.states.change(|state| {
            removed_meanwhile = state.volumes.get(&name).is_none_or(|volume| volume.source != source);
            if !removed_meanwhile {
                state.take(&name, id);
            }
        });
        let counted = counted.await;
        place.touch();
        if counted.is_err() || removed_meanwhile {
            self.release(&source, &at, &place).await;
        }
        counted?;
        if removed_meanwhile { Err(VolumeError::NoSuchVolume) } else { Ok(at) }
    }

    /// One use less. What is not known was forgotten, and is given back all the same.
    pub async fn unmount(&self, name: &str, id: &str) -> Result<(), VolumeError> {
        let Ok((name, Volume { source, .. })) = self.known(name) else { return Ok(()) };
        let at = self.at(&source);
        let place = self.place(&at);
        let _one_at_a_time = place.lock.lock().await;
        place.touch();
        self.states.change(|state| state.give(&name, id)).await?;
        self.release(&source, &at, &place).await;
        Ok(())
    }

    /// Forgets a volume; its bucket is not touched. dockerd does not ask for this while containers have it.
    pub async fn remove(&self, name: &str) -> Result<(), VolumeError> {
        let Ok((name, Volume { source, .. })) = self.known(name) else { return Ok(()) };
        let at = self.at(&source);
        let place = self.place(&at);
        let _one_at_a_time = place.lock.lock().await;
        place.touch();
        self.states.change(|state| drop(state.volumes.remove(&name))).await?;
        tracing::info!(volume = %name, "removed");
        self.release(&source, &at, &place).await;
        Ok(())
    }

    fn known(&self, name: &str) -> Result<(VolumeName, Volume), VolumeError> {
        // A name that no volume can have is the name of none: dockerd asks for all kinds of things.
        let name: VolumeName = name.parse().map_err(|_invalid| VolumeError::NoSuchVolume)?;
        let volume = self.states.now().volumes.get(&name).cloned().ok_or(VolumeError::NoSuchVolume)?;
        Ok((name, volume))
    }

    fn info(&self, name: VolumeName, volume: Volume) -> VolumeInfo {
        let at = self.at(&volume.source);
        let probe = self.places().get(&at).and_then(|place| place.facts().probe);
        let health = match probe {
            Some(Probe::Alive) => Health::Alive,
            Some(Probe::Silent) => Health::Silent,
            _ if volume.uses.is_empty() => Health::None,
            Some(Probe::Ended | Probe::Nothing) | None => Health::Ended,
        };
        let mountpoint = (health == Health::Alive).then_some(at);
        VolumeInfo { name, volume, mountpoint, health }
    }

    pub(crate) fn at(&self, source: &Source) -> PathBuf {
        self.config.root.join(source.folder())
    }

    pub(crate) fn place(&self, at: &Path) -> Arc<Place> {
        self.places().entry(at.to_owned()).or_default().clone()
    }

    pub(crate) fn places(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mount that answers; one that ended is replaced.
    async fn have_mounted(&self, source: &Source, at: &Path, place: &Place) -> Result<(), VolumeError> {
        let found = self.mounter.probe(at).await;
        if found != Probe::Alive {
            if found != Probe::Nothing {
                tracing::warn!(%source, ?found, "the mount is no use any more and is made anew; containers that had it have to be restarted");
                self.mounter.detach(at).await?;
            }
            place.facts().probe = Some(Probe::Nothing);
            self.mounter.mount(source, at).await?;
            tracing::info!(%source, at = %at.display(), "mounted");
        }
        place.facts().probe = Some(Probe::Alive);
        Ok(())
    }

    /// Detaches a source that nobody uses: neither dockerd, as far as it says so, nor any mount beside ours, which would
    /// be that of a container that dockerd does not count any more. What is kept now, `reconcile` looks at again.
    async fn release(&self, source: &Source, at: &Path, place: &Place) {
        if self.states.now().is_used(source) {
            return;
        }
        match self.mounter.survey().await {
            Ok(seen) if seen.iter().any(|seen| seen.at == *at && seen.held) && !mutant::on(Mutant::DetachHeld) => {
                tracing::debug!(%source, "nobody uses it by dockerd's count, but a container has it: kept");
            }
            Ok(_) => self.detach(at, place).await,
            Err(error) => {
                tracing::warn!(%source, %error, "it cannot be seen who has it; it is kept, and looked at again")
            }
        }
    }

    pub(crate) async fn detach(&self, at: &Path, place: &Place) {
        match self.mounter.detach(at).await {
            Ok(()) => {
                place.facts().probe = Some(Probe::Nothing);
                tracing::info!(at = %at.display(), "unmounted");
            }
            Err(error) => tracing::warn!(%error, "could not be unmounted; it is tried again"),
        }
    }
}
