//! Request ids: `x-amz-request-id` and `x-amz-id-2`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use federation::ids::IdSource;

/// The header that names a request.
pub const X_AMZ_REQUEST_ID: http::HeaderName = http::HeaderName::from_static("x-amz-request-id");
/// The header that names the process that answered it.
pub const X_AMZ_ID_2: http::HeaderName = http::HeaderName::from_static("x-amz-id-2");

/// One request's id: 16 hexadecimal digits. It stands in the reply, in errors and in every line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

/// Issues request ids and knows the id of the process.
#[derive(Debug)]
pub struct RequestIds {
    next: AtomicU64,
    host: Box<str>,
}

impl RequestIds {
    /// Ids that begin at a random place, so that those of two processes do not collide in practice.
    #[must_use]
    pub fn new(source: &dyn IdSource) -> Self {
        let mut seed = [0; 8];
        source.fill(&mut seed);
        let mut host = [0; 24];
        source.fill(&mut host);
        let host = base64::engine::general_purpose::STANDARD.encode(host).into();
        RequestIds { next: AtomicU64::new(u64::from_le_bytes(seed)), host }
    }

    /// An id that this process never issued before.
    pub fn issue(&self) -> RequestId {
        RequestId(scatter(self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// The process's own id.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// The finalizer of splitmix64: a bijection, so different numbers stay different and do not look alike.
fn scatter(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use federation::ids::SeededIds;

    use super::*;

    #[test]
    fn ids_are_unique_and_16_digits() {
        let ids = RequestIds::new(&SeededIds::new(1));
        let issued: HashSet<String> = (0..10_000).map(|_| ids.issue().to_string()).collect();
        assert_eq!(issued.len(), 10_000);
        assert!(issued.iter().all(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }
}
