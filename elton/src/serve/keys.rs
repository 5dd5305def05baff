//! What a cluster is known by: its root keys and the owner's id, made on first start and kept.

use std::io;
use std::path::PathBuf;

use federation::ids::IdSource;
use gateway::credentials::{RootCredentials, SecretKey};

use crate::credentials_file::{self, InvalidCredentials};
use crate::data_dir::{DataDir, Secrecy, read_if_there, write_durably};

/// Letters that are not taken for one another.
const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const ACCESS_KEY_LETTERS: usize = 20;
/// 200 bits.
const SECRET_KEY_LETTERS: usize = 40;

/// Why a cluster's keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file could not be read or written.
    #[error("{path} cannot be read or written: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there and has no keys in it.
    #[error(
        "{path} has no usable keys: {source}; correct it, or move it away and new ones will be made, or set \
         ELTON_ROOT_ACCESS_KEY and ELTON_ROOT_SECRET_KEY"
    )]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Why.
        source: InvalidCredentials,
    },
    /// The file is there and is no owner id.
    #[error("{path} is damaged: it should hold 64 hexadecimal digits; restore it, or remove it to get a new owner id")]
    OwnerId {
        /// Which.
        path: PathBuf,
    },
}

/// Root keys, and whether they were just made.
#[derive(Debug)]
pub struct RootKeys {
    /// The keys.
    pub keys: RootCredentials,
    /// Whether this start made them.
    pub made: bool,
}

/// The keys that were given, else those that are kept, else new ones, in a file that names the `endpoint`.
pub fn root(
    data: &DataDir,
    given: Option<RootCredentials>,
    endpoint: &str,
    ids: &dyn IdSource,
) -> Result<RootKeys, KeysError> {
    if let Some(keys) = given {
        return Ok(RootKeys { keys, made: false });
    }
    let path = data.credentials();
    let io = |source| KeysError::Io { path: path.clone(), source };
    if let Some(text) = read_if_there(&path).map_err(io)? {
        let keys = credentials_file::parse(&text);
        let keys = keys.map_err(|source| KeysError::Invalid { path: path.clone(), source })?;
        return Ok(RootKeys { keys, made: false });
    }
    let secret = SecretKey::from(letters(ids, SECRET_KEY_LETTERS));
    let keys = RootCredentials::new(letters(ids, ACCESS_KEY_LETTERS), secret);
    let shown = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    let text = credentials_file::render(&keys, &shown, endpoint);
    write_durably(&path, text.as_bytes(), Secrecy::Secret).map_err(io)?;
    Ok(RootKeys { keys, made: true })
}

/// The owner's id as S3 shows it: 64 hexadecimal digits, the same for the life of the data directory.
pub fn owner_id(data: &DataDir, ids: &dyn IdSource) -> Result<String, KeysError> {
    let path = data.owner_id();
    let io = |source| KeysError::Io { path: path.clone(), source };
    if let Some(text) = read_if_there(&path).map_err(io)? {
        let id = text.trim();
        let lawful = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        return if lawful { Ok(id.to_owned()) } else { Err(KeysError::OwnerId { path }) };
    }
    let mut bytes = [0; 32];
    ids.fill(&mut bytes);
    let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write_durably(&path, format!("{id}\n").as_bytes(), Secrecy::Public).map_err(io)?;
    Ok(id)
}

fn letters(ids: &dyn IdSource, count: usize) -> String {
    let mut bytes = vec![0; count];
    ids.fill(&mut bytes);
    // 256 is a multiple of 32, so every letter is as likely as any other.
    bytes.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

#[cfg(test)]
mod tests {
    use federation::ids::SystemIds;

    use super::*;

    #[test]
    fn keys_are_made_once_and_kept() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let data = DataDir::new(Some(folder.path()));
        let first = root(&data, None, "http://127.0.0.1:9000", &SystemIds).expect("made");
        let second = root(&data, None, "http://127.0.0.1:9000", &SystemIds).expect("kept");
        assert!(first.made && !second.made);
        assert_eq!(first.keys.access_key(), second.keys.access_key());
        assert_eq!(first.keys.secret_key().expose(), second.keys.secret_key().expose());
        assert_eq!(first.keys.access_key().len(), 20);
    }

    #[test]
    fn a_damaged_file_is_named_and_never_replaced() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let data = DataDir::new(Some(folder.path()));
        std::fs::write(data.credentials(), "").expect("written");
        assert!(matches!(root(&data, None, "http://127.0.0.1:9000", &SystemIds), Err(KeysError::Invalid { .. })));
        assert_eq!(std::fs::read(data.credentials()).expect("there"), b"");
    }

    #[test]
    fn the_owner_id_stays() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let data = DataDir::new(Some(folder.path()));
        let id = owner_id(&data, &SystemIds).expect("made");
        assert_eq!(owner_id(&data, &SystemIds).expect("kept"), id);
    }
}
