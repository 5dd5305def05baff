//! Other versions of a key of which bodies are here: most of a new version of a large file may be in one of them.

use std::sync::Arc;

use super::Master;
use super::body::{blob_row, load_parts, stored};
use super::elsewhere::Wanted;
use super::key;
use super::partial::{PartialCopy, partial_row};
use super::shared;
use crate::blobs::{Blobs, StoredBlob};
use crate::catalog::rows::{BucketRow, Change, ChangeRow, FactRow, FactState, Record, VersionRow};
use crate::catalog::{KeyRange, Rows, Table, View, keys};
use crate::error::Result;
use crate::types::{Body, Number, Piece, SMALL_BODY_MAX};

/// How many other versions are looked at, the newest first.
const VERSIONS_MAX: usize = 16;

/// A body of another version of the same key, of which at least parts are here.
#[derive(Clone, Debug)]
pub(crate) enum Older {
    /// All of it.
    Whole(StoredBlob),
    /// Parts.
    Parts(Arc<PartialCopy>),
}

/// What the catalog says of one.
enum Found {
    Whole(StoredBlob),
    Parts(Wanted, u64),
}

impl Found {
    fn bytes(&self) -> u64 {
        match self {
            Found::Whole(blob) => blob.length,
            Found::Parts(_, bytes) => *bytes,
        }
    }
}

impl Master {
    /// The body in the same place of another version of the key, the one of which most is here.
    pub(crate) async fn older(&self, wanted: &Wanted) -> Result<Option<Older>> {
        let (asked, blobs) = (wanted.clone(), self.blobs.clone());
        match self.writer.read(move |view| find(view, &blobs, &asked)).await? {
            None => Ok(None),
            Some(Found::Whole(blob)) => Ok(Some(Older::Whole(blob))),
            Some(Found::Parts(older, _)) => Ok(self.known_partial(&older).await?.map(Older::Parts)),
        }
    }
}

fn find(view: &dyn View, blobs: &Blobs, wanted: &Wanted) -> Result<Option<Found>> {
    let is_linked = BucketRow::load(view, &keys::bucket(wanted.bucket))?.is_some_and(|row| row.linked);
    let record = |number, ordinal| -> Result<Vec<Piece>> {
        let row = keys::change(wanted.bucket, number, ordinal);
        let body = if is_linked {
            VersionRow::load(view, &row)?.map(|row| row.record.body)
        } else {
            match ChangeRow::load(view, &row)? {
                Some(ChangeRow { change: Change::Put(record), .. }) => Some(record.body),
                _ => None,
            }
        };
        body.map_or(Ok(Vec::new()), |body| pieces(view, blobs, &body))
    };
    let own = record(wanted.number, wanted.ordinal)?;
    let Some(index) = own.iter().position(|piece| piece.hash() == wanted.hash) else { return Ok(None) };
    let mut best: Option<Found> = None;
    for (number, ordinal) in versions(view, wanted, is_linked)? {
        let Some(piece) = record(number, ordinal)?.get(index).copied() else { continue };
        if piece.hash() == wanted.hash || piece.length() <= SMALL_BODY_MAX {
            continue;
        }
        let found = held(view, wanted, &piece)?;
        if let Some(found) = found.filter(|found| best.as_ref().is_none_or(|best| best.bytes() < found.bytes())) {
            best = Some(found);
        }
    }
    Ok(best)
}

/// The other versions of the key that are known here, the newest first.
fn versions(view: &dyn View, wanted: &Wanted, is_linked: bool) -> Result<Vec<(Number, u32)>> {
    let mut versions = Vec::new();
    if is_linked {
        let range = KeyRange::prefix(&keys::object(wanted.bucket, &wanted.path));
        for row in view.range(Table::Facts, range)?.take(VERSIONS_MAX) {
            if let FactState::Live { number, ordinal, .. } = FactRow::decode(&row?.1)?.state {
                versions.push((number, ordinal));
            }
        }
    } else {
        let current = key::current(view, wanted.bucket, &wanted.path)?;
        versions.extend(current.map(|row| (row.summary.version, row.summary.ordinal)));
        for row in key::history(view, wanted.bucket, &wanted.path, Number::MAX)?.take(VERSIONS_MAX) {
            let (_, row) = row?;
            if !row.marker {
                versions.push((row.summary.version, row.summary.ordinal));
            }
        }
    }
    versions.retain(|version| *version != (wanted.number, wanted.ordinal));
    versions.dedup();
    Ok(versions)
}

fn pieces(view: &dyn View, blobs: &Blobs, body: &Body) -> Result<Vec<Piece>> {
    Ok(match body {
        Body::Whole(piece) => vec![*piece],
        Body::Empty => Vec::new(),
        body @ (Body::Parts(_) | Body::PartList { .. }) => {
            load_parts(view, blobs, body)?.into_iter().filter_map(|part| part.piece).collect()
        }
    })
}

/// What is here of a large body.
fn held(rows: &(impl Rows + ?Sized), wanted: &Wanted, piece: &Piece) -> Result<Option<Found>> {
    let hash = piece.hash();
    let is_here = match piece {
        Piece::Slot(_) => false,
        Piece::Blob { .. } => true,
        Piece::Shared { .. } => shared::here(rows, wanted.bucket, hash)?.is_some(),
    };
    if is_here {
        return Ok(blob_row(rows, hash)?.map(|row| Found::Whole(stored(hash, row))));
    }
    let parts = partial_row(rows, wanted.bucket, hash)?;
    Ok(parts.map(|row| Found::Parts(Wanted { hash, length: row.length, ..wanted.clone() }, row.bytes)))
}
