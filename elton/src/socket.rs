//! Unix sockets in directories of this program's own.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

/// How long it waits where a connection cannot be taken: too many files may be open, which passes.
const ACCEPT_WAIT: Duration = Duration::from_secs(1);

/// Makes the socket `name` in `folder`. One that a killed process left is replaced.
pub fn bind(folder: &Path, name: &str) -> io::Result<UnixListener> {
    let folder = File::open(folder)?;
    let path = address(&folder, name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(&path)
}

/// The next who asks.
pub async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "a question on a socket could not be taken");
                tokio::time::sleep(ACCEPT_WAIT).await;
            }
        }
    }
}

/// Connects to a socket.
pub fn connect(path: &Path) -> io::Result<StdStream> {
    let unfit = || io::Error::new(io::ErrorKind::InvalidInput, format!("{} names no socket", path.display()));
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(unfit)?;
    let folder = File::open(path.parent().ok_or_else(unfit)?)?;
    StdStream::connect(address(&folder, name))
}

/// Whether who asks is root or the user that this process runs as.
pub fn is_own_or_root(stream: &UnixStream) -> io::Result<bool> {
    let asker = stream.peer_cred()?.uid();
    Ok(asker == 0 || asker == rustix::process::geteuid().as_raw())
}

/// Addresses of sockets have 107 bytes at most; this one is short wherever the directory is.
fn address(folder: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).into()
}
