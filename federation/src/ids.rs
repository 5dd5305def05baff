//! The `IdSource` seam: randomness comes in through the door.

use std::sync::Mutex;

use crate::types::{BucketId, LayerId, PinId, UploadId};

/// Where random bytes come from.
pub trait IdSource: Send + Sync + 'static {
    /// Fills `bytes` with unpredictable ones.
    fn fill(&self, bytes: &mut [u8]);
}

impl dyn IdSource {
    fn sixteen(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes
    }

    /// A new bucket id.
    #[must_use]
    pub fn bucket(&self) -> BucketId {
        BucketId(self.sixteen())
    }

    /// A new upload id.
    #[must_use]
    pub fn upload(&self) -> UploadId {
        UploadId(self.sixteen())
    }

    /// A new layer id.
    #[must_use]
    pub fn layer(&self) -> LayerId {
        LayerId(self.sixteen())
    }

    /// A new pin id.
    #[must_use]
    pub fn pin(&self) -> PinId {
        PinId(self.sixteen())
    }
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system has random bytes once it has booted");
    }
}

/// A generator that repeats itself for the same seed, for simulations (xorshift64*).
#[derive(Debug)]
pub struct SeededIds(Mutex<u64>);

impl SeededIds {
    /// A generator for `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        SeededIds(Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }
}

impl IdSource for SeededIds {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock().expect("no holder of this lock panics");
        for byte in bytes {
            *state ^= *state >> 12;
            *state ^= *state << 25;
            *state ^= *state >> 27;
            *byte = (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8;
        }
    }
}
