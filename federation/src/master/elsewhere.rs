//! Bodies that are not here: who brings them, and what is asked for.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::body::{ByteStream, load_parts};
use super::request::Version;
use super::{Master, shared};
use crate::catalog::{Rows, View};
use crate::error::{Error, Result, VersionName};
use crate::types::{
    BlobHash, Body, BucketId, ETag, MemberId, Number, ObjectPath, ObjectRecord, Part, Piece, Timestamp,
};

/// A body that is not here, as another cluster can be asked for it: by the version it belongs to, never by its hash
/// alone.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub path: ObjectPath,
    /// The version.
    pub number: Number,
    /// Its ordinal.
    pub ordinal: u32,
    /// The content.
    pub hash: BlobHash,
    /// Its length in bytes.
    pub length: u64,
    /// Who is known to have it.
    pub holders: Vec<MemberId>,
    /// Whether it is another cluster that waits for it: it is passed on.
    pub relayed: bool,
}

/// What takes time.
pub type Later<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Brings bodies from other clusters. Whatever it hands out was compared with its hash.
pub trait Fetch: Send + Sync + fmt::Debug + 'static {
    /// The bytes of a range, as they arrive.
    fn read(&self, wanted: Wanted, range: Range<u64>) -> ByteStream;

    /// The hash tree of a large body, proved by its hash.
    fn tree(&self, wanted: Wanted) -> Later<Bytes>;

    /// Makes a copy here; at once if there is one.
    fn bring(&self, wanted: Wanted) -> Later<()>;
}

/// Where a body of a version is.
#[derive(Clone, Debug)]
pub struct PiecePlace {
    /// The content.
    pub hash: BlobHash,
    /// Its length in bytes.
    pub length: u64,
    /// Whether a copy is here.
    pub here: bool,
    /// Other clusters that are known to have it.
    pub holders: Vec<MemberId>,
}

/// How a version's shared bodies are asked for.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) bucket: BucketId,
    pub(super) path: ObjectPath,
    pub(super) number: Number,
    pub(super) ordinal: u32,
}

impl Place {
    pub(super) fn of(version: &Version) -> Place {
        Place { bucket: version.bucket, path: version.path.clone(), number: version.number, ordinal: version.ordinal }
    }

    /// A version of nothing but one body.
    pub(super) fn version_of(self, piece: Piece) -> Version {
        let Place { bucket, path, number, ordinal } = self;
        let record = ObjectRecord {
            size: piece.length(),
            body: Body::Whole(piece),
            etag: ETag { md5: [0; 16], parts: None },
            modified: Timestamp(0),
            checksum: None,
            headers: Vec::new(),
            metadata: Vec::new(),
            tags: Vec::new(),
        };
        let name = VersionName::Number(number);
        let (at, tag_count, versioned) = (number, 0, true);
        Version { path, number, name, versioned, bucket, ordinal, record, tag_count, at, age: None, origin: None }
    }

    /// A piece where it is: here, or still to be fetched.
    pub(super) fn find(&self, rows: &(impl Rows + ?Sized), hash: BlobHash, length: u64) -> Result<Found> {
        if let Some(piece) = shared::here(rows, self.bucket, hash)? {
            if piece.length() != length {
                let source = format!("it has {} bytes, and its version says {length}", piece.length()).into();
                return Err(Error::Damaged { what: format!("body {hash}"), source });
            }
            return Ok(Found::Here(piece));
        }
        let holders = shared::body_row(rows, self.bucket, hash)?.map(|row| row.holders).unwrap_or_default();
        let Place { bucket, path, number, ordinal } = self.clone();
        let relayed = false;
        Ok(Found::Elsewhere(Box::new(Wanted { bucket, path, number, ordinal, hash, length, holders, relayed })))
    }
}

/// Where a shared body is.
pub(super) enum Found {
    /// Here, under this name.
    Here(Piece),
    /// In another cluster.
    Elsewhere(Box<Wanted>),
}

impl Master {
    /// Sets who brings bodies from other clusters, for as long as the caller holds it. Without anybody they cannot be
    /// read.
    pub fn fetch_with(&self, fetch: &Arc<dyn Fetch>) {
        // Set once, at start.
        if self.fetch.set(Arc::downgrade(fetch)).is_err() {
            tracing::error!("bodies of other clusters are brought by two parties; the first one stays");
        }
    }

    /// Who brings bodies from other clusters.
    pub(super) fn fetch(&self) -> Option<Arc<dyn Fetch>> {
        self.fetch.get().and_then(Weak::upgrade)
    }

    /// Where the bodies of a version are, in order.
    pub(crate) async fn places(&self, version: &Version) -> Result<Vec<PiecePlace>> {
        let (place, body, blobs) = (Place::of(version), version.record.body.clone(), self.blobs.clone());
        self.writer
            .read(move |view| {
                let parts = load_parts(view, &blobs, &body)?;
                let whole = match &body {
                    Body::Whole(piece) => Some(*piece),
                    Body::Empty | Body::Parts(_) | Body::PartList { .. } => None,
                };
                let mut places = Vec::new();
                for piece in whole.into_iter().chain(parts.into_iter().filter_map(|part| part.piece)) {
                    let (hash, length) = (piece.hash(), piece.length());
                    let row = shared::body_row(view, place.bucket, hash)?;
                    let here = !piece.is_shared() || row.as_ref().is_some_and(|row| row.copy.is_some());
                    let holders = row.map(|row| row.holders).unwrap_or_default();
                    places.push(PiecePlace { hash, length, here, holders });
                }
                Ok(places)
            })
            .await
    }

    /// The body of a version in pieces that are all here: those that are not are brought first.
    pub(super) async fn localize(&self, version: &Version) -> Result<Body> {
        for _ in 0..LOCALIZE_TRIES_MAX {
            let (place, body) = (Place::of(version), version.record.body.clone());
            let (body, missing) = self.writer.read(move |view| localized(view, &place, body)).await?;
            if missing.is_empty() {
                return Ok(body);
            }
            let fetch = self.fetch().ok_or_else(|| nobody_brings(&missing[0]))?;
            for wanted in missing {
                fetch.bring(wanted).await?;
            }
        }
        // What was brought was evicted again before it could be used.
        Err(Error::Conflict)
    }
}

/// How often bodies are brought for one request.
const LOCALIZE_TRIES_MAX: usize = 4;

/// Nobody was told to fetch bodies.
pub(super) fn nobody_brings(wanted: &Wanted) -> Error {
    Error::Damaged {
        what: format!("body {}", wanted.hash),
        source: "it is in another cluster, and this process has no link to any".into(),
    }
}

fn localized(view: &dyn View, place: &Place, mut body: Body) -> Result<(Body, Vec<Wanted>)> {
    let mut missing = Vec::new();
    let mut replace = |piece: &mut Piece| -> Result<()> {
        if let Piece::Shared { hash, length } = *piece {
            match place.find(view, hash, length)? {
                Found::Here(here) => *piece = here,
                Found::Elsewhere(wanted) => missing.push(*wanted),
            }
        }
        Ok(())
    };
    match &mut body {
        Body::Empty | Body::PartList { .. } => {}
        Body::Whole(piece) => replace(piece)?,
        Body::Parts(parts) => {
            for Part { piece, .. } in parts {
                if let Some(piece) = piece {
                    replace(piece)?;
                }
            }
        }
    }
    Ok((body, missing))
}
