//! What this binary keeps in a data directory beside the core's own files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Where a server keeps its data unless it is told otherwise.
pub const DEFAULT_DATA: &str = "./elton-data";

/// A data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The directory `path`, or the default.
    #[must_use]
    pub fn new(path: Option<&Path>) -> Self {
        DataDir(path.unwrap_or(Path::new(DEFAULT_DATA)).to_owned())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The root keys.
    #[must_use]
    pub fn credentials(&self) -> PathBuf {
        self.0.join("credentials")
    }

    /// The id that S3 shows as the owner's.
    #[must_use]
    pub fn owner_id(&self) -> PathBuf {
        self.0.join("owner-id")
    }

    /// The key that other clusters know this one by.
    #[must_use]
    pub fn cluster_key(&self) -> PathBuf {
        self.0.join("cluster-key")
    }

    /// The certificate that clients of a self-signed server trust.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.0.join("tls").join("ca.pem")
    }

    /// The chain that a self-signed server shows.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.0.join("tls").join("cert.pem")
    }

    /// The key that it proves it with.
    #[must_use]
    pub fn certificate_key(&self) -> PathBuf {
        self.0.join("tls").join("key.pem")
    }
}

/// Whether others than the owner may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Mode 0600.
    Secret,
    /// Mode 0644.
    Public,
}

/// Writes a file so that it is there whole or not at all, and durably: a crash leaves no half of a secret.
pub fn write_durably(path: &Path, content: &[u8], secrecy: Secrecy) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    // One that a crash left behind may have another mode.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mode = match secrecy {
        Secrecy::Secret => 0o600,
        Secrecy::Public => 0o644,
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(folder)?.sync_all()
}

/// A file's text; `None` if there is no such file.
pub fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_are_written_whole_and_for_their_owner_only() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("new").join("secret");
        write_durably(&path, b"one", Secrecy::Secret).expect("written");
        write_durably(&path, b"two", Secrecy::Secret).expect("written over");
        assert_eq!(read_if_there(&path).expect("readable").as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().expect("has one")).expect("readable").count(), 1);
    }
}
