//! The mounts of a simulated host: its own, and those that containers have bound.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use plugin::mounts::{MountError, Mounter, Probe, Seen};
use plugin::name::Source;

/// A mounted file system; its number is never used again.
pub type Device = u64;

#[derive(Default)]
pub struct Mounts {
    next: Device,
    /// What is mounted where on the host.
    pub host: BTreeMap<PathBuf, Device>,
    /// The file systems whose process lives, and what they show.
    pub alive: BTreeMap<Device, Source>,
    /// What containers have, by container.
    pub bound: BTreeMap<String, Device>,
    /// Whether the next mount fails.
    pub refuses: bool,
    /// What must never happen, and did.
    pub broken: Option<String>,
}

/// The kernel, and `elton mount`.
#[derive(Clone, Default)]
pub struct Kernel(Arc<Mutex<Mounts>>);

impl Kernel {
    pub fn now(&self) -> MutexGuard<'_, Mounts> {
        self.0.lock().expect("nobody panics with it")
    }
}

#[async_trait]
impl Mounter for Kernel {
    async fn mount(&self, source: &Source, at: &Path) -> Result<(), MountError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut mounts = self.now();
        if std::mem::take(&mut mounts.refuses) {
            return Err(MountError::Refused {
                source_name: source.to_string(),
                reason: "no server answers".to_owned(),
            });
        }
        let device = mounts.next;
        mounts.next += 1;
        mounts.alive.insert(device, source.clone());
        if mounts.host.insert(at.to_owned(), device).is_some() {
            mounts.broken = Some(format!("{} is mounted on top of another mount", at.display()));
        }
        Ok(())
    }

    async fn detach(&self, at: &Path) -> Result<(), MountError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.now().host.remove(at);
        Ok(())
    }

    async fn probe(&self, at: &Path) -> Probe {
        let mounts = self.now();
        match mounts.host.get(at) {
            None => Probe::Nothing,
            Some(device) if mounts.alive.contains_key(device) => Probe::Alive,
            Some(_) => Probe::Ended,
        }
    }

    async fn survey(&self) -> io::Result<Vec<Seen>> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mounts = self.now();
        let held = |device| mounts.bound.values().any(|bound| bound == device);
        Ok(mounts.host.iter().map(|(at, device)| Seen { at: at.clone(), held: held(device) }).collect())
    }
}
