//! Single flight: what several readers miss is fetched once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// What is being fetched.
pub struct Flights<K>(Arc<Flying<K>>);

struct Flying<K> {
    keys: Mutex<HashSet<K>>,
    landed: Notify,
}

impl<K> Default for Flights<K> {
    fn default() -> Self {
        Flights(Arc::new(Flying { keys: Mutex::new(HashSet::new()), landed: Notify::new() }))
    }
}

/// What one reader fetches. It lands, for better or worse, when this is dropped.
pub struct Flight<K: Hash + Eq> {
    flying: Arc<Flying<K>>,
    keys: Vec<K>,
}

impl<K: Hash + Eq + Copy> Flights<K> {
    /// Takes on those of `keys` that nobody fetches.
    pub fn begin(&self, keys: impl IntoIterator<Item = K>) -> Flight<K> {
        let mut flying = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = keys.into_iter().filter(|key| flying.insert(*key)).collect();
        Flight { flying: self.0.clone(), keys }
    }

    /// Takes on a key, as soon as nobody else has it.
    pub async fn turn(&self, key: K) -> Flight<K> {
        loop {
            let landing = self.landing();
            tokio::pin!(landing);
            // From now on nothing lands unnoticed.
            landing.as_mut().enable();
            let flight = self.begin([key]);
            if !flight.keys().is_empty() {
                return flight;
            }
            landing.await;
        }
    }

    /// What ends when something lands. It has to be made before looking at what is missing.
    pub fn landing(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.landed.notified()
    }
}

impl<K: Hash + Eq> Flight<K> {
    /// What was taken on.
    pub fn keys(&self) -> &[K] {
        &self.keys
    }
}

impl<K: Hash + Eq> Drop for Flight<K> {
    fn drop(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let mut flying = self.flying.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            flying.remove(key);
        }
        drop(flying);
        self.flying.landed.notify_waiters();
    }
}
