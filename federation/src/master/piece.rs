//! One body of a version: what a reader of snapshot trees asks for by path and content.

use bytes::Bytes;

use super::body::{BodyReader, blob_row, load_parts, stored};
use super::elsewhere::{Found, Place, nobody_brings};
use super::request::Version;
use super::{Master, tree};
use crate::catalog::View;
use crate::error::{Error, Result};
use crate::types::{BlobHash, Body, BucketName, Piece};

impl Master {
    /// A body of a version that was looked up before: one of its pieces, or the list of its parts.
    pub async fn open_piece(&self, bucket: &BucketName, version: &Version, hash: BlobHash) -> Result<BodyReader> {
        let piece = self.piece_version(bucket, version, hash).await?;
        Ok(self.open_version(piece).await?.body)
    }

    /// The hash tree of such a body: none for one of at most 64 KiB.
    pub async fn piece_tree(&self, bucket: &BucketName, version: &Version, hash: BlobHash) -> Result<Bytes> {
        let piece = self.piece_version(bucket, version, hash).await?;
        self.tree_of_body(piece).await
    }

    /// One body of a version, as a version of its own.
    async fn piece_version(&self, bucket: &BucketName, version: &Version, hash: BlobHash) -> Result<Version> {
        let (body, blobs) = (version.record.body.clone(), self.blobs.clone());
        let piece = self.writer.read(move |view| piece_of(view, &blobs, &body, hash)).await?;
        let missing = || {
            let what = format!("body {hash} in {}", version.path);
            tree::absent(bucket, version.at, what)
        };
        Ok(Place::of(version).version_of(piece.ok_or_else(missing)?))
    }

    /// The hash tree of a version whose body is one piece.
    pub(super) async fn tree_of_body(&self, version: Version) -> Result<Bytes> {
        let blobs = self.blobs.clone();
        let place = Place::of(&version);
        let Body::Whole(piece) = version.record.body else { return Ok(Bytes::new()) };
        let found = self
            .writer
            .read(move |view| {
                let here = match piece {
                    Piece::Shared { hash, length } => match place.find(view, hash, length)? {
                        Found::Here(here) => here,
                        Found::Elsewhere(wanted) => return Ok(Err(wanted)),
                    },
                    here => here,
                };
                let Piece::Blob { hash, .. } = here else { return Ok(Ok(Bytes::new())) };
                let gone =
                    || Error::Damaged { what: format!("body {hash}"), source: "the catalog has no row of it".into() };
                let row = blob_row(view, hash)?.ok_or_else(gone)?;
                Ok(Ok(blobs.outboard(&stored(hash, row))?))
            })
            .await?;
        match found {
            Ok(tree) => Ok(tree),
            Err(wanted) => match self.fetch.get() {
                Some(fetch) => fetch.tree(*wanted).await,
                None => Err(nobody_brings(&wanted)),
            },
        }
    }
}

/// The piece of a body that has this content, or its list of parts if that has.
pub(super) fn piece_of(
    view: &dyn View,
    blobs: &crate::blobs::Blobs,
    body: &Body,
    hash: BlobHash,
) -> Result<Option<Piece>> {
    let whole = match body {
        Body::Whole(piece) | Body::PartList { list: piece, .. } => Some(*piece),
        Body::Empty | Body::Parts(_) => None,
    };
    if let Some(piece) = whole.filter(|piece| piece.hash() == hash) {
        return Ok(Some(piece));
    }
    let mut pieces = load_parts(view, blobs, body)?.into_iter().filter_map(|part| part.piece);
    Ok(pieces.find(|piece| piece.hash() == hash))
}
