//! One at a time, for each of many.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

type Turn = tokio::sync::Mutex<()>;

/// Whose turn it is, for each key that somebody has or waits for.
#[derive(Debug)]
pub(super) struct Turns<K>(Arc<Mutex<HashMap<K, Weak<Turn>>>>);

impl<K> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Turns(Arc::clone(&self.0))
    }
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Turns(Arc::default())
    }
}

impl<K: Hash + Eq> Turns<K> {
    /// Waits until nobody else has the turn of this key; it is given back when the guard is dropped.
    pub(super) async fn take(&self, key: K) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(&key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(key, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_is_had_by_one_and_keys_do_not_wait_for_each_other() {
        let turns = Turns::default();
        let first = turns.take(1).await;
        drop(turns.take(2).await);
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.take(1).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.expect("the turn comes");
        drop(turns.take(3).await);
        assert_eq!(turns.0.lock().expect("lock").len(), 1, "turns that nobody has are forgotten");
    }
}
