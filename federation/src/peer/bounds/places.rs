//! Places that are bounded over all and for each of those who take them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// The places, and who has how many.
#[derive(Debug)]
pub(in crate::peer) struct Places<K> {
    all_max: usize,
    each_max: usize,
    // Invariant: no entry is 0, so the map is no longer than there are places.
    taken: Mutex<HashMap<K, usize>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(in crate::peer) struct Place<K: Hash + Eq> {
    places: Arc<Places<K>>,
    of: K,
}

impl<K: Hash + Eq + Copy> Places<K> {
    pub(in crate::peer) fn new(all_max: usize, each_max: usize) -> Arc<Self> {
        Arc::new(Places { all_max, each_max, taken: Mutex::default() })
    }

    /// A place for `of`; `None` if it has its share, or all are taken.
    pub(in crate::peer) fn take(self: &Arc<Self>, of: K) -> Option<Place<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.all_max || taken.get(&of).is_some_and(|&n| n >= self.each_max) {
            return None;
        }
        *taken.entry(of).or_default() += 1;
        Some(Place { places: self.clone(), of })
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_over_all_and_for_each() {
        let places = Places::new(3, 2);
        let (first, _second) = (places.take('a').expect("free"), places.take('a').expect("free"));
        assert!(places.take('a').is_none(), "a has its share");
        let _third = places.take('b').expect("free");
        assert!(places.take('c').is_none(), "all are taken");
        drop(first);
        assert!(places.take('c').is_some(), "one came back");
    }
}
