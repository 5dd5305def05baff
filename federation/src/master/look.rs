//! What a home tells the members of a bucket about its versions.

use serde::{Deserialize, Serialize};

use super::Master;
use super::body::load_parts;
use super::lens::{Lens, has_left};
use super::read;
use super::request::{Versioning, Which};
use crate::blobs::Blobs;
use crate::catalog::rows::{BucketRow, Record};
use crate::catalog::{KeyRange, Rows, Table, keys};
use crate::error::{Error, Result, VersionName};
use crate::types::{Body, BucketId, Number, ObjectPath, ObjectRecord, SnapshotRef, Timestamp};

/// A question about a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Look {
    /// The key.
    pub path: ObjectPath,
    /// As of which state; the newest without one.
    pub snapshot: Option<SnapshotRef>,
    /// Which version.
    pub which: Which,
    /// The number as of which the asker knows the newest version: if nothing has happened since, that is all the answer.
    pub known: Option<Number>,
}

/// What a key is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Looked {
    /// As of which number.
    pub at: Number,
    /// The newest number of the bucket.
    pub newest: Number,
    /// Whether S3 shows version ids in the bucket.
    pub versioned: bool,
    /// What was found.
    pub found: Found,
}

/// What was found of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// What the asker knows.
    Same,
    /// A version.
    Live {
        /// Its number.
        number: Number,
        /// Its ordinal.
        ordinal: u32,
        /// Whether S3 shows it as the `null` version.
        null: bool,
        /// Its content, with the tags that it has as of the state.
        record: Box<ObjectRecord>,
    },
    /// A delete marker.
    Marker {
        /// What S3 calls it.
        version: VersionName,
        /// When it was made.
        modified: Timestamp,
    },
    /// Nothing.
    Absent,
}

impl Master {
    /// Answers a member's question about a key of a bucket of this cluster.
    pub async fn look(&self, bucket: BucketId, look: Look) -> Result<Looked> {
        let name = self.name_of(bucket).await?;
        if let Which::Named(_) = look.which {
            super::layer::settle_key(self, &name, &look.path).await?;
        }
        let look = std::sync::Arc::new(look);
        for _ in 0..LOOKS_MAX {
            let (blobs, asked) = (self.blobs.clone(), std::sync::Arc::clone(&look));
            match self.writer.read(move |view| answer(view, &blobs, bucket, &asked)).await? {
                Some(looked) => return Ok(looked),
                None => super::layer::settle_key(self, &name, &look.path).await?,
            }
        }
        Err(Error::Conflict)
    }
}

/// How often a key is folded out of layers for one answer.
const LOOKS_MAX: usize = 16;

/// `None` while the version that is meant is still in an open layer: it has no place in the log yet by which others
/// could ask for its body.
fn answer(view: &dyn crate::catalog::View, blobs: &Blobs, bucket: BucketId, look: &Look) -> Result<Option<Looked>> {
    let row = BucketRow::load(view, &keys::bucket(bucket))?.filter(|row| !row.linked && !row.deleted);
    let row = row.ok_or(Error::NoSuchSharedBucket { bucket })?;
    let at = match &look.snapshot {
        None => Number::MAX,
        Some(snapshot) => super::lens::resolve(view, bucket, &row, snapshot)?,
    };
    let newest = row.last;
    let lens = Lens::new(view, bucket, row, at)?;
    let versioned = lens.versioning()? != Versioning::Off;
    let looked = |found| Looked { at: lens.number(), newest, versioned, found };
    if let (None, Which::Newest, Some(known)) = (&look.snapshot, look.which, look.known)
        && unchanged_since(&lens, &look.path, known)?
    {
        return Ok(Some(looked(Found::Same)));
    }
    let found = match read::version(&lens, &look.path, look.which) {
        Ok(version) if version.origin.is_none() => return Ok(None),
        Ok(version) => Found::Live {
            number: version.number,
            ordinal: version.ordinal,
            null: version.name == VersionName::Null,
            record: Box::new(shared_record(view, blobs, version.record)?),
        },
        Err(Error::DeleteMarker { version, modified, .. }) => Found::Marker { version, modified },
        Err(Error::NoSuchKey { .. } | Error::NoSuchVersion { .. }) => Found::Absent,
        Err(error) => return Err(error),
    };
    Ok(Some(looked(found)))
}

/// Whether a key and the tags of its newest version are what they were as of `known`.
fn unchanged_since(lens: &Lens<'_>, path: &ObjectPath, known: Number) -> Result<bool> {
    // What happened below the floor may have left no row behind.
    if known < lens.row.floor || known > lens.number() || lens.newest_layer().is_some_and(|number| number > known) {
        return Ok(false);
    }
    let next = known.next();
    if has_left(lens.rows, lens.id, path, next)? {
        return Ok(false);
    }
    let Some(live) = lens.look(path)?.live() else { return Ok(true) };
    let range = KeyRange::prefix(&keys::attributes_of(lens.id, path, live.summary.version));
    let newest = lens.rows.range(Table::Attributes, range)?.next().transpose()?;
    let changed = newest.and_then(|(key, _)| keys::descending(key.get(key.len().checked_sub(8)?..)?));
    Ok(changed.is_none_or(|number| number < next))
}

/// A record as other clusters know it: its bodies by their content, a part list as its parts.
pub(super) fn shared_record(
    rows: &(impl Rows + ?Sized),
    blobs: &Blobs,
    mut record: ObjectRecord,
) -> Result<ObjectRecord> {
    record.body = match &record.body {
        Body::Empty => Body::Empty,
        Body::Whole(piece) => Body::Whole(piece.shared()),
        body @ (Body::Parts(_) | Body::PartList { .. }) => {
            let mut parts = load_parts(rows, blobs, body)?;
            for part in &mut parts {
                part.piece = part.piece.map(|piece| piece.shared());
            }
            Body::Parts(parts)
        }
    };
    Ok(record)
}
