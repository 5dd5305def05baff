//! The mount's side.

use std::fs::File;
use std::io::{self, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{Answer, LINE_BYTES_MAX, Question};
use crate::socket;

/// The body's file of `length` bytes, if the server hands it over. It waits while the server checks the body, but not
/// longer than `patience`.
pub fn ask(at: &Path, question: &Question, length: u64, patience: Duration) -> io::Result<Option<File>> {
    let mut stream = socket::connect(at)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let (answer, file) = receive(&stream)?;
    match (answer, file) {
        (Answer::Here, Some(file)) => {
            let file = File::from(file);
            let is_readable_only = rustix::fs::fcntl_getfl(&file)? & OFlags::RWMODE == OFlags::RDONLY;
            let metadata = file.metadata()?;
            if metadata.is_file() && metadata.len() == length && is_readable_only {
                return Ok(Some(file));
            }
            Err(io::Error::other("what it handed over is not the body's file"))
        }
        (Answer::Here, None) => Err(io::Error::other("it handed nothing over")),
        (Answer::NotAFile, _) => Ok(None),
        (Answer::Refused(reason), _) => Err(io::Error::other(reason)),
    }
}

fn receive(stream: &UnixStream) -> io::Result<(Answer, Option<OwnedFd>)> {
    let (mut line, mut file) = (Vec::new(), None);
    loop {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                file = files.last().or(file);
            }
        }
        line.extend_from_slice(&bytes[..received]);
        if line.last() == Some(&b'\n') {
            return Ok((serde_json::from_slice(&line)?, file));
        }
        if received == 0 || line.len() as u64 > LINE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server's answer has no end"));
        }
    }
}
