//! What dockerd forgot to say, the kernel knows.
//!
//! dockerd loses `Unmount`s: when a container stops while the plugin is away, and, with live-restore, when dockerd was
//! restarted and then had the same volume mounted once more. By its calls alone such a use would last for ever. So now and
//! then the mounts of all processes are read: a source that is mounted nowhere but at its own place is in no container.
//! Only after that was so for a while are its uses forgotten, for between the answer to `Mount` and the container's own
//! mount there is a time in which dockerd counts on us and the kernel knows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use federation::mutant::{self, Mutant};
use tokio::time::{Instant, MissedTickBehavior};

use crate::mounts::{Probe, Seen};
use crate::name::Source;
use crate::volumes::Volumes;

impl Volumes {
    /// Looks after the mounts until it is dropped.
    pub async fn look_after(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.reconcile().await;
        }
    }

    /// At the start: what ended is of no use to anybody, not even as a sign.
    pub(crate) async fn take_up(&self) {
        for Seen { at, .. } in self.seen().await.into_values() {
            if self.mounter.probe(&at).await == Probe::Ended {
                tracing::warn!(at = %at.display(), "a mount has ended; containers that had it have to be restarted");
                self.detach(&at, &self.place(&at)).await;
            }
        }
        self.reconcile().await;
    }

    /// Compares what dockerd has said with what the kernel says, once.
    pub async fn reconcile(&self) {
        let began = Instant::now();
        let seen = self.seen().await;
        let sources = self.sources();
        let used = sources.iter().filter(|(_, source)| self.states.now().is_used(source)).map(|(at, _)| at);
        let places: BTreeSet<&PathBuf> = seen.keys().chain(used).collect();
        for at in &places {
            self.reconcile_place(at, sources.get(*at), seen.get(*at), began).await;
        }
        // Nobody can get hold of a place while the map is locked, and whoever has one already counts.
        self.places().retain(|at, place| places.contains(at) || Arc::strong_count(place) > 1);
    }

    async fn seen(&self) -> BTreeMap<PathBuf, Seen> {
        match self.mounter.survey().await {
            Ok(seen) => seen.into_iter().map(|seen| (seen.at.clone(), seen)).collect(),
            Err(error) => {
                tracing::warn!(%error, "the mounts of this host cannot be read");
                BTreeMap::new()
            }
        }
    }

    fn sources(&self) -> BTreeMap<PathBuf, Source> {
        let state = self.states.now();
        state.volumes.values().map(|volume| (self.at(&volume.source), volume.source.clone())).collect()
    }

    /// `began` is when `seen` was seen: if anything was done here since, it says nothing.
    async fn reconcile_place(&self, at: &Path, source: Option<&Source>, seen: Option<&Seen>, began: Instant) {
        let place = self.place(at);
        let Ok(_one_at_a_time) = place.lock.try_lock() else { return };
        if place.facts().touched.is_some_and(|touched| touched >= began) {
            return;
        }
        let probe = if seen.is_some() { self.mounter.probe(at).await } else { Probe::Nothing };
        let before = place.facts().probe.replace(probe);
        let source = source.filter(|source| self.states.now().is_used(source));
        let held = seen.is_some_and(|seen| seen.held) && !mutant::on(Mutant::DetachHeld);
        let Some(source) = source else {
            if seen.is_some() && !held {
                self.detach(at, &place).await;
            }
            return;
        };
        if before != Some(probe) {
            report(source, at, probe);
        }
        if held {
            place.facts().unheld_since = None;
            return;
        }
        let since = *place.facts().unheld_since.get_or_insert(began);
        if began.duration_since(since) < self.config.forget_after || mutant::on(Mutant::TrustUses) {
            return;
        }
        tracing::warn!(%source, "no container has it, and dockerd has not given it back: its uses are forgotten");
        match self.states.change(|state| state.forget_uses(source)).await {
            Ok(()) => self.detach(at, &place).await,
            Err(error) => tracing::warn!(%error, "its uses could not be forgotten; it is tried again"),
        }
    }
}

fn report(source: &Source, at: &Path, probe: Probe) {
    let at = at.display();
    match probe {
        Probe::Alive => tracing::debug!(%source, %at, "its mount answers"),
        Probe::Silent => tracing::error!(%source, %at, "its mount does not answer; containers that read it wait"),
        Probe::Ended | Probe::Nothing => {
            tracing::error!(%source, %at, "its mount has ended; restart the containers that have it: that mounts it anew");
        }
    }
}
