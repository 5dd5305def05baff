//! Snapshots as an Elton server has them: [`fuse::Source`] over the admin API.

use std::fs::File;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes};
use federation::snapshot::{PageHash, Root, Stand, Totals};
use federation::types::{BlobHash, BucketName, Number};
use fuse::{NamedSnapshot, Piece, Source, SourceError, Tree};
use gateway::admin::shape;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use crate::client::{Answer, Client, ClientError, Path};
use crate::handover::{Question, ask::ask};

/// How long a body's open file is waited for, at most.
const HANDOVER_TIME_MAX: Duration = Duration::from_secs(2);

/// A bucket of a server.
pub(super) struct Server {
    client: Client,
    bucket: BucketName,
    /// How long one request may take: a connection that a dead machine left open would else never end.
    patience: Duration,
    /// Where it hands over open files; nowhere if it is on another host, or they are not wanted.
    handover: OnceCell<Option<PathBuf>>,
}

impl Server {
    /// A bucket of a server. With `handover`, one of this host is asked for open files.
    pub(super) fn new(client: Client, bucket: BucketName, patience: Duration, handover: bool) -> Server {
        let handover = if handover { OnceCell::new() } else { OnceCell::new_with(Some(None)) };
        Server { client, bucket, patience, handover }
    }

    pub(super) fn path(&self, rest: &[&str]) -> Path {
        Path::new(&[&["buckets", self.bucket.as_str()], rest].concat())
    }

    /// Sends a request. Returns the answer's bytes if all went well.
    pub(super) async fn ask(&self, method: Method, path: &Path, body: Vec<u8>) -> Result<Bytes, SourceError> {
        let exchange = tokio::time::timeout(self.patience, self.client.exchange(method, path, body)).await;
        let answer = exchange.map_err(|_elapsed| SourceError::Away("the server did not answer in time".to_owned()))?;
        let Answer { status, body, error } = answer.map_err(|error| of_client(&error))?;
        match error {
            None => Ok(body.into()),
            Some(error) => Err(of_status(status, error.to_string())),
        }
    }

    pub(super) async fn ask_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &Path,
        body: Vec<u8>,
    ) -> Result<T, SourceError> {
        let answer = self.ask(method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|error| unfit(&error.to_string()))
    }

    /// Where it hands over open files.
    async fn handover(&self) -> Result<Option<&PathBuf>, SourceError> {
        let find = || async {
            if !self.is_of_this_host().await {
                return Ok(None);
            }
            match self.ask_json::<shape::Local>(Method::GET, &Path::new(&["local"]), Vec::new()).await {
                Ok(local) => Ok(local.handover.map(PathBuf::from)),
                Err(SourceError::Away(why)) => Err(SourceError::Away(why)),
                // It hands nothing over to this user, or is older than that.
                Err(error) => {
                    tracing::debug!(%error, "the server of this host does not say where it hands open files over");
                    Ok(None)
                }
            }
        };
        self.handover.get_or_try_init(find).await.map(Option::as_ref)
    }

    /// Whether one of its addresses is this host's: then a socket can be bound to it.
    async fn is_of_this_host(&self) -> bool {
        let endpoint = self.client.endpoint();
        match tokio::net::lookup_host((endpoint.host(), endpoint.port())).await {
            Ok(mut addresses) => addresses.any(|address| UdpSocket::bind((address.ip(), 0)).is_ok()),
            Err(_) => false,
        }
    }

    /// Asks for a body's file.
    async fn handed_over(
        &self,
        number: Number,
        path: &[u8],
        piece: Piece,
        patience: Duration,
    ) -> Result<Option<File>, SourceError> {
        let Some(socket) = self.handover().await?.cloned() else { return Ok(None) };
        // It is asked for over HTTP, too, and that is where it is refused.
        let Ok(key) = String::from_utf8(path.to_vec()) else { return Ok(None) };
        let (bucket, hash) = (self.bucket.to_string(), piece.hash.to_string());
        let question = Question { bucket, number: number.0, key, hash };
        let asked = tokio::task::spawn_blocking(move || ask(&socket, &question, piece.length, patience)).await;
        match asked.map_err(std::io::Error::other).flatten() {
            Ok(file) => Ok(file),
            Err(error) => {
                tracing::debug!(%error, "the server of this host hands no open file over");
                Ok(None)
            }
        }
    }

    fn body_path(&self, number: Number, path: &[u8], piece: Piece) -> Result<Path, SourceError> {
        let path = std::str::from_utf8(path).map_err(|_| unfit("a key that is no UTF-8 cannot be asked for"))?;
        Ok(self.path(&["body"]).with("at", number).with("path", path).with("hash", piece.hash))
    }
}

#[async_trait]
impl Source for Server {
    async fn tree(&self, snapshot: Option<&str>) -> Result<Tree, SourceError> {
        let path = self.path(&["tree"]).with_some("at", snapshot);
        let tree: shape::Tree = self.ask_json(Method::GET, &path, Vec::new()).await?;
        let bucket = tree.bucket.parse().map_err(|_| unfit("a bucket's id is not one"))?;
        let stand = match &tree.root {
            shape::Root::Page(hash) => {
                let hash: BlobHash = hash.parse().map_err(|_| unfit("a page's hash is not one"))?;
                Stand::Page(PageHash(hash.0))
            }
            shape::Root::Inline(rows) => {
                Stand::Inline(STANDARD.decode(rows).map_err(|_| unfit("a root's rows are no base64"))?)
            }
        };
        let totals = Totals { objects: tree.objects, bytes: tree.bytes };
        Ok(Tree { bucket, number: Number(tree.number), root: Root { stand, totals } })
    }

    async fn snapshots(&self) -> Result<Vec<NamedSnapshot>, SourceError> {
        let snapshots: shape::Snapshots = self.ask_json(Method::GET, &self.path(&["snapshots"]), Vec::new()).await?;
        let named = |tag: shape::Tag| NamedSnapshot { name: tag.tag, number: Number(tag.number) };
        let mut named: Vec<NamedSnapshot> = snapshots.tags.into_iter().map(named).collect();
        // The newest is a snapshot, too; the others are found by their numbers.
        let newest = snapshots.number;
        named.push(NamedSnapshot { name: newest.to_string(), number: Number(newest) });
        Ok(named)
    }

    async fn pages(&self, number: Number, directory: &[u8], pages: &[PageHash]) -> Result<Vec<Bytes>, SourceError> {
        let directory = directory.iter().fold(String::new(), |mut encoded, byte| {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => encoded.push(char::from(*byte)),
                byte => encoded.push_str(&format!("%{byte:02X}")),
            }
            encoded
        });
        let request = shape::Pages { directory, pages: pages.iter().map(ToString::to_string).collect() };
        let body = serde_json::to_vec(&request).expect("shapes have string keys and no failing serialisers");
        let mut answer = self.ask(Method::POST, &self.path(&["pages"]).with("at", number), body).await?;
        let mut parsed = Vec::with_capacity(pages.len());
        while !answer.is_empty() {
            let length = answer.try_get_u32().ok().and_then(|length| usize::try_from(length).ok());
            let length =
                length.filter(|length| *length <= answer.len()).ok_or_else(|| unfit("its pages are cut off"))?;
            parsed.push(answer.split_to(length));
        }
        Ok(parsed)
    }

    async fn descriptor(&self, number: Number, path: &[u8], piece: Piece) -> Result<Option<File>, SourceError> {
        // A first check takes as long as reading the body does, and the server ends it whoever waits. Meanwhile the body is
        // to be had over HTTP: whoever opens it may wait for that no longer than a small part of the deadline.
        let patience = (self.patience / 4).min(HANDOVER_TIME_MAX);
        let asked = tokio::time::timeout(patience, self.handed_over(number, path, piece, patience)).await;
        asked.unwrap_or(Ok(None))
    }

    async fn hash_tree(&self, number: Number, path: &[u8], piece: Piece) -> Result<Bytes, SourceError> {
        let path = self.body_path(number, path, piece)?.with("part", "tree");
        self.ask(Method::GET, &path, Vec::new()).await
    }

    async fn range(
        &self,
        number: Number,
        path: &[u8],
        piece: Piece,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, SourceError> {
        let path = self.body_path(number, path, piece)?.with("offset", offset).with("length", length);
        self.ask(Method::GET, &path, Vec::new()).await
    }
}

fn of_client(error: &ClientError) -> SourceError {
    let text = error.to_string();
    match error {
        ClientError::NoServer { .. } | ClientError::Broken { .. } | ClientError::TooSlow { .. } => {
            SourceError::Away(text)
        }
        ClientError::Denied { .. } => SourceError::Denied(text),
        ClientError::Endpoint { .. }
        | ClientError::Untrusted { .. }
        | ClientError::CaCertificate { .. }
        | ClientError::NoKeys { .. }
        | ClientError::Keys { .. }
        | ClientError::Refused(_)
        | ClientError::NotElton { .. }
        | ClientError::Offline(_) => SourceError::Unfit(text),
    }
}

fn of_status(status: StatusCode, text: String) -> SourceError {
    match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => SourceError::Denied(text),
        StatusCode::NOT_FOUND | StatusCode::GONE => SourceError::Gone(text),
        status if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => SourceError::Away(text),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => SourceError::Away(text),
        _ => SourceError::Unfit(text),
    }
}

fn unfit(text: &str) -> SourceError {
    SourceError::Unfit(text.to_owned())
}
