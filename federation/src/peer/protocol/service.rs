//! Questions as they come in over the links.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{Method, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, Limited, StreamBody};

use super::bill::{Bill, Cost};
use super::message::{Purpose, VERSION, purpose_of};
use super::refusal::Refusal;
use super::server::{PeerServer, Reply, json};
use super::wire::MESSAGE_BYTES_MAX;
use crate::peer::bounds::{Place, Places};
use crate::peer::link::{Request, Response, Service, full_body};
use crate::types::ClusterId;

/// How many bytes a stranger may say.
const STRANGER_BYTES_MAX: usize = 4096;
/// A longer question takes one of few places, so that nobody fills the memory with them.
const SHORT_BYTES_MAX: usize = 64 * 1024;
/// How many long questions are taken in at once.
const LONG_QUESTIONS_MAX: usize = 32;
/// How many of them are one cluster's.
const LONG_QUESTIONS_EACH_MAX: usize = 8;

/// Answers what comes in.
#[derive(Debug)]
pub struct PeerService {
    server: PeerServer,
    bill: Arc<Bill>,
    long: Arc<Places<ClusterId>>,
}

impl PeerService {
    /// A service that lets `server` answer.
    #[must_use]
    pub fn new(server: PeerServer, bill: Arc<Bill>) -> PeerService {
        PeerService { server, bill, long: Places::new(LONG_QUESTIONS_MAX, LONG_QUESTIONS_EACH_MAX) }
    }

    async fn answer(&self, peer: ClusterId, request: Request) -> Result<Response, Refusal> {
        let unlawful = |reason: String| Refusal::Unlawful { reason };
        let path = request.uri().path().to_owned();
        let path = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let Some((VERSION, path)) = path else {
            return Err(unlawful(format!(
                "this version of elton speaks protocol {VERSION} only; update the older side"
            )));
        };
        if request.method() != Method::POST {
            return Err(unlawful("questions are POSTed".to_owned()));
        }
        let purpose = purpose_of(path);
        let known = self.server.knows(peer).await?;
        let longest = if known { MESSAGE_BYTES_MAX } else { STRANGER_BYTES_MAX };
        let mut place = None;
        let question = self.read(peer, request, longest, &mut place).await?;
        let sent = question.len() as u64;
        let (reply, bucket) = self.server.answer(peer, path, question).await;
        let purpose = match reply {
            Reply::Body { relayed: true, .. } => Purpose::Relay,
            _ => purpose,
        };
        let cost = Cost { purpose, bucket };
        self.bill.count(peer.member(), cost, 0, sent);
        match reply {
            Reply::Json(answer) => {
                self.bill.count(peer.member(), cost, answer.len() as u64, 0);
                Ok(response(StatusCode::OK, answer))
            }
            Reply::Refused(refusal) => Err(refusal),
            Reply::Body { bytes: stream, length, .. } => {
                let (bill, member) = (Arc::clone(&self.bill), peer.member());
                let frames = stream.map(move |bytes| {
                    if let Ok(bytes) = &bytes {
                        bill.count(member, cost, bytes.len() as u64, 0);
                    }
                    bytes.map(Frame::data).map_err(Into::into)
                });
                let response = http::Response::builder()
                    .header(header::CONTENT_TYPE, "application/octet-stream")
                    .header(header::CONTENT_LENGTH, length)
                    .body(StreamBody::new(frames).boxed_unsync());
                response.map_err(|error| Refusal::Failed { reason: error.to_string() })
            }
        }
    }
}

impl PeerService {
    /// Takes a question in; a long one only while it has a place.
    async fn read(
        &self,
        peer: ClusterId,
        request: Request,
        longest: usize,
        place: &mut Option<Place<ClusterId>>,
    ) -> Result<Bytes, Refusal> {
        let mut frames = BodyStream::new(Limited::new(request.into_body(), longest));
        let mut bytes = BytesMut::new();
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|error| Refusal::Unlawful {
                reason: format!("the question broke off or is too long: {error}"),
            })?;
            bytes.extend(frame.into_data().ok());
            if bytes.len() > SHORT_BYTES_MAX && place.is_none() {
                *place = Some(self.long.take(peer).ok_or(Refusal::Conflict)?);
            }
        }
        Ok(bytes.freeze())
    }
}

#[async_trait]
impl Service for PeerService {
    async fn serve(&self, peer: ClusterId, request: Request) -> Response {
        match self.answer(peer, request).await {
            Ok(response) => response,
            Err(refusal) => response(StatusCode::CONFLICT, json(&refusal)),
        }
    }
}

fn response(status: StatusCode, body: Bytes) -> Response {
    let mut response = http::Response::new(full_body(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
