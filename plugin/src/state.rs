//! What has to survive the process: the volumes, and who uses them.
//!
//! A use is a (volume, mount ID) that dockerd has asked to mount, counted: `docker cp` into a running container mounts it a
//! second time under the container's own ID and unmounts that once, so neither a set nor a flag will do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use federation::mutant::{self, Mutant};
use serde::{Deserialize, Serialize};

use crate::name::{Source, VolumeName};
use crate::store::{Store, StoreError};

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What it shows.
    pub source: Source,
    /// The snapshot as it was asked for: a number, a tag or a time.
    pub asked: String,
    /// How often dockerd holds it, by mount ID.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub uses: BTreeMap<String, u64>,
}

impl Volume {
    /// How many uses it has.
    #[must_use]
    pub fn use_count(&self) -> u64 {
        self.uses.values().sum()
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The boot of the machine in which the uses were counted: none of them outlives it.
    pub boot: String,
    /// The volumes.
    pub volumes: BTreeMap<VolumeName, Volume>,
}

impl State {
    /// Whether anybody uses a source, under whatever volume.
    #[must_use]
    pub fn is_used(&self, source: &Source) -> bool {
        self.volumes.values().any(|volume| volume.source == *source && !volume.uses.is_empty())
    }

    /// One more use.
    pub fn take(&mut self, name: &VolumeName, id: &str) {
        if let Some(volume) = self.volumes.get_mut(name) {
            let count = volume.uses.entry(id.to_owned()).or_default();
            *count = if mutant::on(Mutant::CountUsesOnce) { 1 } else { *count + 1 };
        }
    }

    /// One use less. A use that is not known is none: it was forgotten, or never acknowledged.
    pub fn give(&mut self, name: &VolumeName, id: &str) {
        let Some(volume) = self.volumes.get_mut(name) else { return };
        let Some(count) = volume.uses.get_mut(id) else { return };
        *count -= 1;
        if *count == 0 {
            volume.uses.remove(id);
        }
    }

    /// Nobody uses a source any more.
    pub fn forget_uses(&mut self, source: &Source) {
        for volume in self.volumes.values_mut().filter(|volume| volume.source == *source) {
            volume.uses.clear();
        }
    }

    fn forget_all_uses(&mut self) {
        for volume in self.volumes.values_mut() {
            volume.uses.clear();
        }
    }
}

/// The state as it is on disk: readers never wait for a change that is being written.
pub struct States {
    store: Arc<dyn Store>,
    /// One change at a time.
    writing: tokio::sync::Mutex<()>,
    durable: Mutex<Arc<State>>,
}

impl States {
    /// Reads what is there. After the machine was restarted no container of before runs, so nothing is in use.
    pub async fn open(store: Arc<dyn Store>, boot: &str) -> Result<Self, StoreError> {
        let mut state = store.load().await?.unwrap_or_default();
        if state.boot != boot {
            boot.clone_into(&mut state.boot);
            state.forget_all_uses();
            store.save(&state).await?;
        }
        Ok(States { store, writing: tokio::sync::Mutex::new(()), durable: Mutex::new(Arc::new(state)) })
    }

    /// The state.
    #[must_use]
    pub fn now(&self) -> Arc<State> {
        // Whoever held the lock only exchanged a pointer: there is no half of that.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a change; it is on disk when this returns, or not made.
    pub async fn change(&self, change: impl FnOnce(&mut State)) -> Result<(), StoreError> {
        let _one_at_a_time = self.writing.lock().await;
        let before = self.now();
        let mut state = State::clone(&before);
        change(&mut state);
        if state == *before {
            return Ok(());
        }
        if !mutant::on(Mutant::ReplyBeforeState) {
            self.store.save(&state).await?;
        }
        *self.durable.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use federation::types::Number;

    use super::*;
    use crate::store::MemoryStore;

    fn state() -> (State, VolumeName, VolumeName) {
        let source =
            Source { bucket: "photos".parse().expect("lawful"), number: Number(42), prefix: Default::default() };
        let volume = Volume { source, asked: "42".to_owned(), uses: BTreeMap::new() };
        let (one, other): (VolumeName, VolumeName) =
            ("photos@42".parse().expect("lawful"), "other".parse().expect("lawful"));
        let volumes = BTreeMap::from([(one.clone(), volume.clone()), (other.clone(), volume)]);
        (State { boot: "a".to_owned(), volumes }, one, other)
    }

    #[test]
    fn uses_are_counted_by_volume_and_id() {
        let (mut state, one, other) = state();
        let source = state.volumes[&one].source.clone();
        state.take(&one, "A");
        state.take(&one, "A");
        state.give(&one, "A");
        assert!(state.is_used(&source), "docker cp into a running container");
        state.take(&other, "B");
        state.give(&one, "A");
        assert!(state.is_used(&source), "another volume of the same source");
        state.give(&one, "A");
        state.give(&one, "C");
        state.give(&other, "A");
        assert_eq!(state.volumes[&other].use_count(), 1, "what is not known is none");
        state.give(&other, "B");
        assert!(!state.is_used(&source));
    }

    #[tokio::test]
    async fn what_was_changed_is_stored_first() {
        let store = Arc::new(MemoryStore::default());
        let (given, one, _) = state();
        let states = States::open(store.clone(), "a").await.expect("empty");
        states.change(|state| state.volumes = given.volumes.clone()).await.expect("stored");
        states.change(|state| state.take(&one, "A")).await.expect("stored");
        let reopened = States::open(store.clone(), "a").await.expect("there");
        assert_eq!(reopened.now(), states.now());
        store.fail_saves(true);
        states.change(|state| state.take(&one, "B")).await.expect_err("not stored");
        assert_eq!(reopened.now(), states.now(), "what could not be stored did not happen");
        store.fail_saves(false);
        let rebooted = States::open(store, "b").await.expect("there").now();
        assert_eq!(rebooted.volumes.len(), 2);
        assert_eq!(rebooted.volumes[&one].use_count(), 0);
    }
}
