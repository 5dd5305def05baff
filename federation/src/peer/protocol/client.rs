//! Questions to other clusters over the links, and what they cost.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::{BodyStream, Limited};

use super::bill::{Bill, Cost};
use super::message::{BODY_PATH, VERSION};
use super::refusal::Refusal;
use super::wire::{MESSAGE_BYTES_MAX, RECEIVING, Wire, WireError};
use crate::error::Error;
use crate::master::ByteStream;
use crate::peer::link::{LinkError, Links, Response, full_body};
use crate::peer::who::Membership;
use crate::types::{ClusterId, MemberId};

/// Asks other clusters over the links.
#[derive(Debug)]
pub struct PeerClient {
    links: Arc<Links>,
    membership: Arc<Membership>,
    bill: Arc<Bill>,
}

impl PeerClient {
    /// A client over links.
    #[must_use]
    pub fn new(links: Arc<Links>, membership: Arc<Membership>, bill: Arc<Bill>) -> PeerClient {
        PeerClient { links, membership, bill }
    }

    async fn cluster(&self, member: MemberId) -> Result<ClusterId, WireError> {
        let clusters = self.membership.clusters().await;
        let known = clusters.map_err(|error| WireError::NotSent { why: error.to_string() })?;
        let known = known.into_iter().find(|known| known.cluster.member() == member);
        known.map(|known| known.cluster).ok_or_else(|| WireError::NotSent { why: "it is no peer any more".to_owned() })
    }

    async fn send(&self, member: MemberId, path: &str, cost: Cost, question: Bytes) -> Result<Response, WireError> {
        let cluster = self.cluster(member).await?;
        self.bill.count(member, cost, question.len() as u64, 0);
        let response = call(&self.links, cluster, path, question).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(member, cost, response).await) }
    }

    async fn refused(&self, member: MemberId, cost: Cost, response: Response) -> WireError {
        let status = response.status();
        match self.collect(member, cost, response).await {
            Ok(bytes) => match serde_json::from_slice::<Refusal>(&bytes) {
                Ok(refusal) => WireError::Refused(refusal),
                Err(_) => WireError::Nonsense { why: format!("it answered with status {status}") },
            },
            Err(error) => error,
        }
    }

    async fn collect(&self, member: MemberId, cost: Cost, response: Response) -> Result<Bytes, WireError> {
        let bytes = read_whole(response).await?;
        self.bill.count(member, cost, 0, bytes.len() as u64);
        Ok(bytes)
    }
}

#[async_trait]
impl Wire for PeerClient {
    async fn ask(&self, member: MemberId, path: &'static str, cost: Cost, question: Bytes) -> Result<Bytes, WireError> {
        let response = self.send(member, path, cost, question).await?;
        self.collect(member, cost, response).await
    }

    async fn body(&self, member: MemberId, cost: Cost, question: Bytes) -> Result<ByteStream, WireError> {
        let response = self.send(member, BODY_PATH, cost, question).await?;
        let bill = Arc::clone(&self.bill);
        let frames = BodyStream::new(response.into_body());
        Ok(Box::pin(frames.filter_map(move |frame| {
            let bytes = match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(Error::Storage { doing: RECEIVING, source: error })),
            };
            if let Some(Ok(bytes)) = &bytes {
                bill.count(member, cost, 0, bytes.len() as u64);
            }
            std::future::ready(bytes)
        })))
    }
}

/// Asks one cluster over a link.
pub(crate) async fn call(
    links: &Links,
    cluster: ClusterId,
    path: &str,
    question: Bytes,
) -> Result<Response, WireError> {
    let request = http::Request::post(format!("/{VERSION}/{path}"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(full_body(question))
        .map_err(|error| WireError::NotSent { why: error.to_string() })?;
    links.call(cluster, request).await.map_err(|error| match error {
        LinkError::Unreachable { cause, .. } => WireError::NotSent { why: cause },
        // It was a peer until now: something may have been sent.
        error @ (LinkError::UnknownPeer(_) | LinkError::TimedOut(_)) => WireError::Unknown { why: error.to_string() },
        LinkError::Broken { source, .. } => WireError::Unknown { why: format!("the connection broke ({source})") },
    })
}

/// The bytes of an answer in JSON.
pub(crate) async fn read_whole(response: Response) -> Result<Bytes, WireError> {
    let body = Limited::new(response.into_body(), MESSAGE_BYTES_MAX);
    let mut frames = BodyStream::new(body);
    let mut bytes = BytesMut::new();
    while let Some(frame) = frames.next().await {
        match frame {
            Ok(frame) => bytes.extend(frame.into_data().ok()),
            Err(error) => return Err(WireError::Unknown { why: format!("its answer broke off ({error})") }),
        }
    }
    Ok(bytes.freeze())
}
