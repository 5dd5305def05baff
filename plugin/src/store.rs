//! Keeps the state.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::state::State;

/// The format that is written.
const FORMAT: u32 = 1;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk said no.
    #[error("the plugin's state {path} could not be {doing}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// What is there is no state.
    #[error(
        "the plugin's state {path} cannot be understood ({reason}): put it back from a copy, or move it away; the volumes \
         then have to be created again"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Something younger wrote it.
    #[error(
        "the plugin's state {path} has format {found}, and this version knows {FORMAT}: start the version that wrote it"
    )]
    Younger {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// Keeps one state: what `save` returned `Ok` for is what `load` gives, after a power failure too; a `save` that failed, or
/// that never returned, left the state before it or its own, whole.
#[async_trait]
pub trait Store: Send + Sync {
    /// What was saved last; `None` before that.
    async fn load(&self) -> Result<Option<State>, StoreError>;
    /// Keeps this instead.
    async fn save(&self, state: &State) -> Result<(), StoreError>;
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    #[serde(flatten)]
    state: &'a State,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn to_text(state: &State) -> Vec<u8> {
    let written = Written { format: FORMAT, state };
    serde_json::to_vec_pretty(&written).expect("its keys are strings and none of its serialisers fails")
}

fn from_text(text: &[u8], path: &Path) -> Result<State, StoreError> {
    let damaged = |error: serde_json::Error| StoreError::Damaged { path: path.to_owned(), reason: error.to_string() };
    let Format { format } = serde_json::from_slice(text).map_err(damaged)?;
    if format > FORMAT {
        return Err(StoreError::Younger { path: path.to_owned(), found: format });
    }
    serde_json::from_slice(text).map_err(damaged)
}

/// A JSON file, exchanged as a whole. Nothing secret is in it, but names may be.
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// In this file; its folder is there.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        FileStore { path }
    }
}

#[async_trait]
impl Store for FileStore {
    async fn load(&self) -> Result<Option<State>, StoreError> {
        match tokio::fs::read(&self.path).await {
            Ok(text) => from_text(&text, &self.path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { path: self.path.clone(), doing: "read", source }),
        }
    }

    async fn save(&self, state: &State) -> Result<(), StoreError> {
        let (path, text) = (self.path.clone(), to_text(state));
        let written = tokio::task::spawn_blocking(move || exchange(&path, &text)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|source| StoreError::Io { path: self.path.clone(), doing: "written", source })
    }
}

fn exchange(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let unfinished = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(folder)?.sync_all()
}

/// A state in memory, for tests: what a crash of the process leaves behind.
#[derive(Default)]
pub struct MemoryStore {
    text: Mutex<Option<Vec<u8>>>,
    failing: AtomicBool,
}

impl MemoryStore {
    /// Whether saves fail from now on.
    pub fn fail_saves(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn load(&self) -> Result<Option<State>, StoreError> {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        text.map(|text| from_text(&text, Path::new("in memory"))).transpose()
    }

    async fn save(&self, state: &State) -> Result<(), StoreError> {
        if self.failing.load(Ordering::SeqCst) {
            let source = io::Error::from(io::ErrorKind::StorageFull);
            return Err(StoreError::Io { path: "in memory".into(), doing: "written", source });
        }
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = Some(to_text(state));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every implementation keeps what the trait promises, as far as a living process can see it.
    async fn conforms(store: &dyn Store) {
        assert_eq!(store.load().await.expect("readable"), None);
        for boot in ["a", "b"] {
            let state = State { boot: boot.to_owned(), ..State::default() };
            store.save(&state).await.expect("saved");
            assert_eq!(store.load().await.expect("readable"), Some(state));
        }
    }

    #[tokio::test]
    async fn stores_keep_what_was_saved_last() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        conforms(&FileStore::new(folder.path().join("volumes.json"))).await;
        conforms(&MemoryStore::default()).await;
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
    }

    #[tokio::test]
    async fn what_is_no_state_is_said_to_be_none() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("volumes.json");
        let store = FileStore::new(path.clone());
        for (text, part) in [
            ("", "cannot be understood"),
            ("{\"format\": 1, \"boot\": \"a\", \"volumes\": {\"a/b\": 1}}", "cannot be understood"),
            ("{\"format\": 2}", "has format 2"),
        ] {
            fs::write(&path, text).expect("written");
            let said = store.load().await.expect_err("refused").to_string();
            assert!(said.contains(part) && said.contains("volumes.json"), "{said}");
        }
    }

    /// What version 0.1 wrote: files of this shape are read for ever.
    #[test]
    fn format_1_is_read() {
        let text = br#"{"format": 1, "boot": "6e0d", "volumes": {
            "photos@42": {"source": {"bucket": "photos", "number": 42, "prefix": ""}, "asked": "42", "uses": {"ab": 2}},
            "holidays": {"source": {"bucket": "photos", "number": 7, "prefix": "a/"}, "asked": "before-upgrade"}}}"#;
        let state = from_text(text, Path::new("x")).expect("readable");
        let uses: Vec<u64> = state.volumes.values().map(crate::state::Volume::use_count).collect();
        assert_eq!(uses, [0, 2]);
        assert_eq!(from_text(&to_text(&state), Path::new("x")).expect("readable"), state);
    }
}
