//! One body of a version: what a reader of snapshot trees asks for by path and content.

use bytes::Bytes;

use super::Master;
use super::body::{blob_row, load_parts, stored};
use super::elsewhere::{Found, Place, Wanted, nobody_brings};
use super::request::Version;
use crate::catalog::View;
use crate::error::{Error, Result};
use crate::types::{BlobHash, Body, Piece};

impl Version {
    /// One of its bodies that is written in another cluster, as a version of its own.
    pub(crate) fn of_body(&self, hash: BlobHash, length: u64) -> Version {
        Place::of(self).version_of(Piece::Shared { hash, length })
    }
}

impl Master {
    /// One body of a version that was looked up before, as a version of its own: one of its pieces, or the list of its
    /// parts. `None` if it has no body of that content.
    pub async fn version_of_piece(&self, version: &Version, hash: BlobHash) -> Result<Option<Version>> {
        let (body, blobs, place) = (version.record.body.clone(), self.blobs.clone(), Place::of(version));
        let piece = self.writer.read(move |view| piece_of(view, &blobs, &body, hash)).await?;
        Ok(piece.map(|piece| place.version_of(piece)))
    }

    /// The hash tree of a version whose body is one piece. `relayed` says that it is brought for another cluster.
    pub(crate) async fn tree_of_body(&self, version: Version, relayed: bool) -> Result<Bytes> {
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
            Err(wanted) => match self.fetch() {
                Some(fetch) => fetch.tree(Wanted { relayed, ..*wanted }).await,
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
