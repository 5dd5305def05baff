//! The places that bound requests in flight: over all, and for each peer.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::HttpLimits;

/// The places of all requests, and the memory that their bodies may take.
#[derive(Debug)]
pub struct Places {
    requests: Arc<Semaphore>,
    requests_max: usize,
    // In KiB.
    buffers: Arc<Semaphore>,
}

/// A place that a request has, until it is dropped.
#[derive(Debug)]
pub struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_peer: OwnedSemaphorePermit,
}

impl Places {
    /// As many as `limits` allow.
    #[must_use]
    pub fn new(limits: &HttpLimits) -> Arc<Self> {
        let buffers = usize::try_from(limits.buffered_bytes_max / 1024).unwrap_or(Semaphore::MAX_PERMITS);
        Arc::new(Places {
            requests: Arc::new(Semaphore::new(limits.requests_in_flight_max)),
            requests_max: limits.requests_in_flight_max,
            buffers: Arc::new(Semaphore::new(buffers.min(Semaphore::MAX_PERMITS))),
        })
    }

    /// A place for a request of the peer that `of_peer` bounds; `None` if there is none at the moment.
    #[must_use]
    pub fn take(&self, of_peer: &Arc<Semaphore>) -> Option<Place> {
        let of_peer = of_peer.clone().try_acquire_owned().ok()?;
        let of_all = self.requests.clone().try_acquire_owned().ok()?;
        Some(Place { _of_all: of_all, _of_peer: of_peer })
    }

    /// Memory for `bytes` of a body, until what is returned is dropped; `None` if there is none at the moment.
    #[must_use]
    pub fn buffer(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kibibytes = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        self.buffers.clone().try_acquire_many_owned(kibibytes).ok()
    }

    /// Whether over half of the places are taken.
    #[must_use]
    pub fn are_scarce(&self) -> bool {
        self.requests.available_permits() < self.requests_max.div_ceil(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_over_all_and_by_peer() {
        let limits = HttpLimits { requests_in_flight_max: 3, ..HttpLimits::default() };
        let places = Places::new(&limits);
        let (one, other) = (Arc::new(Semaphore::new(2)), Arc::new(Semaphore::new(2)));
        let first = places.take(&one).expect("free");
        assert!(!places.are_scarce());
        let _second = places.take(&one).expect("free");
        assert!(places.are_scarce());
        assert!(places.take(&one).is_none(), "the peer has its share");
        let _third = places.take(&other).expect("another peer has its own");
        assert!(places.take(&other).is_none(), "all are taken");
        assert_eq!(other.available_permits(), 1, "what was not given is given back");
        drop(first);
        assert!(places.take(&one).is_some());
    }

    #[test]
    fn buffers_are_bounded_together() {
        let places = Places::new(&HttpLimits { buffered_bytes_max: 10 * 1024, ..HttpLimits::default() });
        let held = places.buffer(9 * 1024 + 1).expect("free");
        assert!(places.buffer(1).is_none() && places.buffer(0).is_some());
        drop(held);
        assert!(places.buffer(10 * 1024).is_some());
    }
}
