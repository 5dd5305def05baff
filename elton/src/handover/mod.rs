//! Bodies from a server to the mounts of its host as open files, over a Unix socket in its data directory.
//!
//! A mount then reads the server's file, and keeps no copy. Only root and the server's own user are answered: they could
//! open the data directory themselves. A question is a line of JSON that names bucket, state, key and content; the answer is
//! a line, which has a read-only descriptor with it if the body is one file there. Anything else is read over HTTP.

pub mod ask;
pub mod serve;

use serde::{Deserialize, Serialize};

/// The socket's name in the data directory.
pub const SOCKET: &str = "handover.socket";

/// The longest line: keys have 1,024 bytes at most, each up to six in JSON.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// Which body is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The bucket's name.
    pub bucket: String,
    /// The state's number.
    pub number: u64,
    /// The key.
    pub key: String,
    /// What the body hashes to.
    pub hash: String,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// The descriptor is with this line.
    Here,
    /// The body is not a file of its own here.
    NotAFile,
    /// There is none for this asker, or the body cannot be read.
    Refused(String),
}
