//! Who brings what: the mounts of a host, which are processes of their own, fetch a cold body once between them.
//!
//! Each thing that can be fetched has a byte of one file, `DIR/claims`, which stays empty. Whoever is about to fetch it locks
//! that byte (open file description locks, fcntl(2)); the kernel gives the locks of a process back when it dies. Bytes
//! are numbered by hashes cut short: two things with the same number wait for each other now and then, and nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use federation::mutant::{self, Mutant};
use federation::types::BlobHash;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use tokio::time::{Instant, sleep};

/// How many bytes of the file a body has: 2^30 groups (64 TiB) and as many trees.
const BODY_BITS: u32 = 31;
/// Where the trees of a body's pieces begin.
const TREES: u64 = 1 << 30;
/// How long another process is waited for: it may have been stopped. A reader waits for longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// The locks of one process.
pub(super) struct Claims(Arc<File>);

/// Something that no other process fetches, until this is dropped.
pub(crate) struct Claim {
    file: Arc<File>,
    bytes: Range<u64>,
    waited: bool,
}

impl Claims {
    pub(super) fn open(folder: &Path) -> io::Result<Claims> {
        let path = folder.join("claims");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Ok(Claims(Arc::new(file)))
    }

    /// Takes groups of a body as soon as no other process has one of them. None if that takes too long, or if the file system
    /// has no such locks: then it may be fetched twice.
    pub(super) async fn groups(&self, body: BlobHash, groups: Range<u64>) -> Option<Claim> {
        let base = base(body);
        self.take(base + groups.start..base + groups.end).await
    }

    /// The same for the hash tree of a piece.
    pub(super) async fn tree(&self, body: BlobHash, piece: usize) -> Option<Claim> {
        let at = base(body) + TREES + piece as u64;
        self.take(at..at + 1).await
    }

    async fn take(&self, bytes: Range<u64>) -> Option<Claim> {
        if mutant::on(Mutant::MountSkipClaim) {
            return None;
        }
        let until = Instant::now() + PATIENCE;
        let (mut pause, mut waited) = (Duration::from_millis(1), false);
        loop {
            match set(&self.0, libc::F_WRLCK, &bytes) {
                Ok(()) => return Some(Claim { file: self.0.clone(), bytes, waited }),
                Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() < until => {}
                Err(error) => {
                    tracing::debug!(%error, "not waiting any longer for what another mount fetches");
                    return None;
                }
            }
            sleep(pause).await;
            (pause, waited) = ((pause * 2).min(PAUSE_MAX), true);
        }
    }
}

impl Claim {
    /// Whether another process had it before, which may have fetched it.
    pub(crate) fn waited(&self) -> bool {
        self.waited
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(error) = set(&self.file, libc::F_UNLCK, &self.bytes) {
            tracing::warn!(%error, "other mounts may wait for what was fetched here");
        }
    }
}

fn base(body: BlobHash) -> u64 {
    let [a, b, c, d, ..] = body.0;
    u64::from(u32::from_le_bytes([a, b, c, d]) >> 1) << BODY_BITS
}

fn set(file: &File, kind: libc::c_int, bytes: &Range<u64>) -> nix::Result<()> {
    let offset = |at: u64| libc::off_t::try_from(at).map_err(|_| Errno::EOVERFLOW);
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset(bytes.start)?,
        l_len: offset(bytes.end - bytes.start)?,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: BlobHash = BlobHash([0xff; 32]);

    #[tokio::test(start_paused = true)]
    async fn what_one_has_another_waits_for() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Claims::open(folder.path()).unwrap(), Claims::open(folder.path()).unwrap());
        let first = one.groups(BODY, 3..7).await.unwrap();
        assert!(!first.waited());
        assert!(!other.groups(BODY, 7..9).await.unwrap().waited(), "what nobody has is free");
        assert!(!other.tree(BODY, 3).await.unwrap().waited(), "a tree is not a group");
        let release = async {
            sleep(Duration::from_secs(2)).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(other.groups(BODY, 0..4), release);
        assert!(second.unwrap().waited());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_come_back_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Claims::open(folder.path()).unwrap(), Claims::open(folder.path()).unwrap());
        let _stopped = one.groups(BODY, 0..1).await.unwrap();
        let began = Instant::now();
        assert!(other.groups(BODY, 0..1).await.is_none());
        assert!(began.elapsed() >= PATIENCE && began.elapsed() < PATIENCE + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn the_last_group_and_tree_are_numbers_that_the_kernel_takes() {
        let folder = tempfile::tempdir().unwrap();
        let claims = Claims::open(folder.path()).unwrap();
        assert!(claims.groups(BODY, TREES - 1..TREES).await.is_some());
        assert!(claims.tree(BODY, 9_999).await.is_some());
    }
}
