//! The server's side.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use federation::cluster::Cluster;
use federation::types::{BlobHash, BucketName, Number, ObjectPath};
use gateway::server::describe;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Answer, LINE_BYTES_MAX, Question, SOCKET};
use crate::data_dir::DataDir;
use crate::socket;

/// How long a question may take to arrive, and an answer to leave.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(10);
/// How many are answered at the same time.
const ASKERS_MAX: usize = 64;

/// Makes the socket; one that an earlier life left is replaced, since the data directory is this process' own.
pub fn bind(data: &DataDir) -> io::Result<UnixListener> {
    socket::bind(data.path(), SOCKET)
}

/// Answers for as long as it is polled.
pub async fn run(listener: UnixListener, cluster: Arc<Cluster>) -> std::convert::Infallible {
    let askers = Arc::new(Semaphore::new(ASKERS_MAX));
    loop {
        let turn = askers.clone().acquire_owned().await;
        let stream = socket::accept(&listener).await;
        let cluster = cluster.clone();
        // A first check takes as long as reading the body. It is done to its end: who asks again finds it done.
        tokio::spawn(async move {
            let _turn = turn;
            if let Err(error) = exchange(stream, &cluster).await {
                tracing::debug!(%error, "a question for an open file was not answered");
            }
        });
    }
}

async fn exchange(stream: UnixStream, cluster: &Cluster) -> io::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new(stream).take(LINE_BYTES_MAX);
    let read = tokio::time::timeout(EXCHANGE_TIME_MAX, reader.read_line(&mut line)).await;
    read.map_err(|_elapsed| io::ErrorKind::TimedOut)??;
    let stream = reader.into_inner().into_inner();
    let found = if socket::is_own_or_root(&stream)? {
        find(&line, cluster).await
    } else {
        Err("only root and the server's own user are given open files".to_owned())
    };
    let (answer, file) = match found {
        Ok(Some(file)) => (Answer::Here, Some(file)),
        Ok(None) => (Answer::NotAFile, None),
        Err(reason) => (Answer::Refused(reason), None),
    };
    let sent = tokio::time::timeout(EXCHANGE_TIME_MAX, send(&stream, &answer, file.as_ref())).await;
    sent.map_err(|_elapsed| io::ErrorKind::TimedOut)?
}

async fn find(line: &str, cluster: &Cluster) -> Result<Option<OwnedFd>, String> {
    let question: Question = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let bucket: BucketName = question.bucket.parse().map_err(|error| format!("{error}"))?;
    let key = ObjectPath::try_from(question.key.as_str()).map_err(|error| error.to_string())?;
    let hash: BlobHash = question.hash.parse().map_err(|error| format!("{error}"))?;
    let file = cluster.piece_descriptor(&bucket, Number(question.number), &key, hash).await;
    file.map_err(|error| describe(&error))
}

async fn send(stream: &UnixStream, answer: &Answer, file: Option<&OwnedFd>) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let files = file.map(|file| [file.as_fd()]);
            if let Some(files) = &files
                && !ancillary.push(SendAncillaryMessage::ScmRights(files))
            {
                return Err(io::Error::other("there is no room for a descriptor"));
            }
            Ok(sendmsg(stream, &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)?)
        })
        .await?;
    // The descriptor went with the first bytes.
    while sent < line.len() {
        stream.writable().await?;
        match stream.try_write(&line[sent..]) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
