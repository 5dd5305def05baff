//! The socket on which a mount answers for itself, to its user and to root.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};

use super::{MountError, MountRecord, StateDir};
use crate::socket;

/// How long an answer is waited for.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// What is known of a mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountStatus {
    /// As it was noted.
    #[serde(flatten)]
    pub record: MountRecord,
    /// Whether it answers.
    pub answers: bool,
    /// What it counted, if it answers.
    pub counters: Option<fuse::Counters>,
    /// How many inode numbers are in use, if it answers.
    pub inodes: Option<u64>,
}

/// Makes the socket of a mount.
pub(super) fn bind(state: &StateDir, record: &MountRecord) -> Result<UnixListener, MountError> {
    let failed = |source| MountError::State { path: state.path().to_owned(), source };
    socket::bind(state.path(), &StateDir::socket_name(&record.mountpoint)).map_err(failed)
}

/// Answers on the socket of a mount for as long as it is polled. The mount does not depend on it.
pub(super) async fn serve(listener: UnixListener, record: MountRecord, fs: Arc<fuse::Fs>) -> std::convert::Infallible {
    loop {
        let stream = socket::accept(&listener).await;
        let (record, fs) = (record.clone(), fs.clone());
        tokio::spawn(async move {
            let counters = Some(fs.metrics().counters());
            let inodes = Some(fs.inodes_in_use() as u64);
            let status = MountStatus { record, answers: true, counters, inodes };
            if let Err(error) = tokio::time::timeout(ANSWER_TIME_MAX, answer(stream, &status)).await {
                tracing::debug!(%error, "a question on the control socket was not answered");
            }
        });
    }
}

async fn answer(mut stream: UnixStream, status: &MountStatus) -> std::io::Result<()> {
    if !socket::is_own_or_root(&stream)? {
        return Ok(());
    }
    stream.write_all(serde_json::to_string(status)?.as_bytes()).await?;
    stream.write_all(b"\n").await
}

/// What a mount says of itself, or what was noted of one that does not answer.
pub(super) fn ask(state: &StateDir, record: MountRecord) -> MountStatus {
    match try_ask(state, &record) {
        Ok(status) => status,
        Err(error) => {
            tracing::debug!(%error, "a mount does not answer");
            MountStatus { record, answers: false, counters: None, inodes: None }
        }
    }
}

fn try_ask(state: &StateDir, record: &MountRecord) -> std::io::Result<MountStatus> {
    let mut stream = socket::connect(&state.path().join(StateDir::socket_name(&record.mountpoint)))?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    stream.flush()?;
    let mut line = String::new();
    BufReader::new(stream.take(1024 * 1024)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
