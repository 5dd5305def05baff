//! Snapshot trees: directories, their pages, the bodies of what is in them, and pins on what is read.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use federation::Error;
use federation::master::{PinInfo, Tree};
use federation::snapshot::{PageHash, Stand};
use federation::types::{BlobHash, BucketAt, BucketName, Number, ObjectPath, PinId, SnapshotRef};

use super::call::{Query, decode_bytes};
use super::error::AdminError;
use super::{Answer, Inner, shape};
use crate::s3::streamed;

/// The state that a request names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State(BucketAt);

impl State {
    /// A state by any of its names; the newest without one.
    pub(super) fn parse(bucket: BucketName, query: &Query) -> Result<Self, AdminError> {
        let snapshot = query.get("at").map(str::parse::<SnapshotRef>).transpose();
        let snapshot = snapshot.map_err(|error| bad_parameter("at", error.to_string()))?;
        Ok(State(BucketAt { bucket, snapshot, consistency: None }))
    }
}

/// A state by its number: what is asked for in several requests has to be of one state.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    bucket: BucketName,
    number: Number,
}

impl Numbered {
    pub(super) fn parse(bucket: BucketName, query: &Query) -> Result<Self, AdminError> {
        let number = query.number("at")?.ok_or_else(|| bad_parameter("at", "it is missing".to_owned()))?;
        Ok(Numbered { bucket, number: Number(number) })
    }
}

/// Which body of an object is wanted, and what of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BodyQuery {
    path: ObjectPath,
    hash: BlobHash,
    part: BodyPart,
}

#[derive(Debug, PartialEq, Eq)]
enum BodyPart {
    Tree,
    Range { offset: u64, length: u64 },
}

impl BodyQuery {
    pub(super) fn parse(query: &Query) -> Result<Self, AdminError> {
        let path = ObjectPath::try_from(query.bytes("path").unwrap_or_default()).map_err(Error::from)?;
        let hash = query.get("hash").unwrap_or_default().parse::<BlobHash>();
        let hash = hash.map_err(|error| bad_parameter("hash", error.to_string()))?;
        let part = match query.get("part") {
            Some("tree") => BodyPart::Tree,
            Some(_) => return Err(bad_parameter("part", "it can be `tree`".to_owned())),
            None => {
                let missing = |name| bad_parameter(name, "it is missing".to_owned());
                let offset = query.number("offset")?.ok_or_else(|| missing("offset"))?;
                let length = query.number("length")?.ok_or_else(|| missing("length"))?;
                BodyPart::Range { offset, length }
            }
        };
        Ok(BodyQuery { path, hash, part })
    }
}

/// The path of a directory as a request names it.
pub(super) fn directory(path: Vec<u8>) -> Result<Vec<u8>, AdminError> {
    if path.is_empty() || path.ends_with(b"/") {
        return Ok(path);
    }
    Err(AdminError::BadBody { reason: "the path of a directory is empty or ends with a /".to_owned() })
}

pub(super) async fn tree(api: &Inner, state: State, directory: &[u8]) -> Result<Answer, AdminError> {
    let Tree { bucket, number, root } = api.cluster.tree(&state.0, directory).await?;
    Ok(Answer::ok(&shape::Tree {
        bucket: bucket.to_string(),
        number: number.0,
        root: match root.stand {
            Stand::Page(page) => shape::Root::Page(page.to_string()),
            Stand::Inline(rows) => shape::Root::Inline(STANDARD.encode(rows)),
        },
        objects: root.totals.objects,
        bytes: root.totals.bytes,
    }))
}

pub(super) async fn pages(api: &Inner, state: Numbered, request: shape::Pages) -> Result<Answer, AdminError> {
    let directory = directory(decode_bytes(&request.directory))?;
    // A page and a body are both named by 32 bytes of BLAKE3.
    let hash = |text: &String| text.parse::<BlobHash>().map(|hash| PageHash(hash.0));
    let pages = request.pages.iter().map(hash).collect::<Result<Vec<_>, _>>();
    let pages = pages.map_err(|error| AdminError::BadBody { reason: format!("pages: {error}") })?;
    let pages = api.cluster.tree_pages(&state.bucket, state.number, &directory, pages).await?;
    let mut bytes = BytesMut::new();
    for page in pages {
        bytes.put_u32(u32::try_from(page.len()).expect("pages have at most 256 KiB"));
        bytes.put(page);
    }
    Ok(Answer::bytes(bytes.freeze().into()))
}

pub(super) async fn body(api: &Inner, state: Numbered, query: BodyQuery) -> Result<Answer, AdminError> {
    let (bucket, number) = (&state.bucket, state.number);
    match query.part {
        BodyPart::Tree => {
            let tree: Bytes = api.cluster.piece_tree(bucket, number, &query.path, query.hash).await?;
            Ok(Answer::bytes(tree.into()))
        }
        BodyPart::Range { offset, length } => {
            let reader = api.cluster.piece(bucket, number, &query.path, query.hash).await?;
            let end = offset.checked_add(length).filter(|end| *end <= reader.length());
            let too_far = || bad_parameter("length", format!("the body ends at {}", reader.length()));
            let range = offset..end.ok_or_else(too_far)?;
            Ok(Answer::bytes(streamed(reader, range).await?.into()))
        }
    }
}

pub(super) async fn pin(api: &Inner, state: State, request: shape::CreatePin) -> Result<Answer, AdminError> {
    let pin = api.cluster.pin(&state.0, &request.holder, Duration::from_secs(request.seconds)).await?;
    Ok(Answer::json(http::StatusCode::CREATED, &shape::Pin::from(pin)))
}

pub(super) async fn renew_pin(
    api: &Inner,
    bucket: &BucketName,
    pin: PinId,
    request: shape::RenewPin,
) -> Result<Answer, AdminError> {
    let pin = api.cluster.renew_pin(bucket, pin, Duration::from_secs(request.seconds)).await?;
    Ok(Answer::ok(&shape::Pin::from(pin)))
}

pub(super) async fn unpin(api: &Inner, bucket: &BucketName, pin: PinId) -> Result<Answer, AdminError> {
    api.cluster.unpin(bucket, pin).await?;
    Ok(Answer::nothing())
}

impl From<PinInfo> for shape::Pin {
    fn from(pin: PinInfo) -> Self {
        shape::Pin { pin: pin.pin.to_string(), number: pin.number.0, expires: pin.expires.to_string() }
    }
}

fn bad_parameter(name: &'static str, reason: String) -> AdminError {
    AdminError::BadParameter { name, reason }
}
