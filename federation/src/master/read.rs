//! Reads of objects.

use bytes::Bytes;

use super::body::{BodyReader, Source, load_parts};
use super::key::{self, name_of};
use super::lens::{Lens, Live, Seen};
use super::readers::Held;
use super::request::{Opened, PartInfo, Version, Versioning, Which};
use super::{Master, layer};
use crate::blobs::Blobs;
use crate::error::{Error, Result};
use crate::types::{Body, BucketAt, Number, ObjectPath, Pair, Part, Piece, Summary};

/// How often a read looks again when what it found was moved meanwhile.
const LOOKS_MAX: usize = 4;

impl Master {
    /// The number that a snapshot names; the newest without one.
    pub async fn resolve(&self, at: &BucketAt) -> Result<Number> {
        let at = at.clone();
        self.writer.read(move |view| Ok(Lens::open(view, &at)?.number())).await
    }

    /// A version without its body.
    pub async fn head(&self, at: &BucketAt, path: &ObjectPath, which: Which) -> Result<Version> {
        self.settle_named(at, path, which).await?;
        let (at, path) = (at.clone(), path.clone());
        self.writer.read(move |view| version(&Lens::open(view, &at)?, &path, which)).await
    }

    /// A version and its body. A small one comes with the look-up.
    pub async fn get(&self, at: &BucketAt, path: &ObjectPath, which: Which) -> Result<Opened> {
        self.settle_named(at, path, which).await?;
        for look in 1.. {
            match self.try_get(at, path, which).await {
                // Compaction moved a slot between the look-up and the read.
                Err(Error::Damaged { .. }) if look < LOOKS_MAX => {}
                opened => return opened,
            }
        }
        Err(Error::Conflict)
    }

    async fn try_get(&self, at: &BucketAt, path: &ObjectPath, which: Which) -> Result<Opened> {
        let guard = self.readers.announce();
        let (at, path, blobs) = (at.clone(), path.clone(), self.blobs.clone());
        let catalog = std::sync::Arc::clone(self.writer.catalog());
        self.writer
            .read(move |view| {
                let version = version(&Lens::open(view, &at)?, &path, which)?;
                let parts = load_parts(view, &blobs, &version.record.body)?;
                let (pieces, held) = sources(&blobs, &version.record.body, &parts)?;
                let guard = if held.is_empty() {
                    None
                } else {
                    guard.hold(held);
                    Some(guard)
                };
                let length = version.record.size;
                if pieces.iter().try_fold(0u64, |sum, (piece, _)| sum.checked_add(*piece)) != Some(length) {
                    return Err(Error::Damaged {
                        what: format!("version {} of {path}", version.number),
                        source: "its pieces do not add up to its size".into(),
                    });
                }
                Ok(Opened { version, body: BodyReader { blobs, catalog, length, pieces, guard } })
            })
            .await
    }

    /// The parts of a version; none unless it was uploaded in parts.
    pub async fn parts(&self, version: &Version) -> Result<Vec<PartInfo>> {
        let (body, blobs) = (version.record.body.clone(), self.blobs.clone());
        let parts = self.writer.read(move |view| load_parts(view, &blobs, &body)).await?;
        let mut offset = 0;
        let infos = parts.into_iter().zip(1..).map(|(part, number)| {
            let length = part.length();
            let info = PartInfo { number, offset, length, checksum: part.checksum };
            offset += length;
            info
        });
        Ok(infos.collect())
    }

    /// The tags of a version.
    pub async fn tags(&self, at: &BucketAt, path: &ObjectPath, which: Which) -> Result<(Version, Vec<Pair>)> {
        self.settle_named(at, path, which).await?;
        let (at, path) = (at.clone(), path.clone());
        self.writer
            .read(move |view| {
                let lens = Lens::open(view, &at)?;
                let version = version(&lens, &path, which)?;
                let tags = version.record.tags.clone();
                Ok((version, tags))
            })
            .await
    }

    /// Folds a key out of open layers before one of its versions is asked for by name.
    async fn settle_named(&self, at: &BucketAt, path: &ObjectPath, which: Which) -> Result<()> {
        match which {
            Which::Newest => Ok(()),
            Which::Named(_) => layer::settle_key(self, &at.bucket, path).await,
        }
    }
}

/// The live version of a key that is meant, as a state shows it.
pub(super) fn find_live(lens: &Lens<'_>, path: &ObjectPath, which: Which) -> Result<Live> {
    let marker = |summary: &Summary, named| Error::DeleteMarker {
        path: path.clone(),
        version: name_of(summary),
        modified: summary.modified,
        named,
    };
    match which {
        Which::Newest => match lens.look(path)? {
            Seen::Live(live) => Ok(live),
            Seen::Marker(summary) => Err(marker(&summary, false)),
            Seen::Absent => Err(Error::NoSuchKey { path: path.clone() }),
        },
        Which::Named(name) => {
            let place = key::find(lens.rows, lens.id, path, name, lens.at)?
                .ok_or_else(|| Error::NoSuchVersion { path: path.clone(), version: name.to_string() })?;
            if place.is_marker() {
                return Err(marker(place.summary(), true));
            }
            Ok(Live { summary: *place.summary(), layered: None })
        }
    }
}

/// A version as a state shows it.
pub(super) fn version(lens: &Lens<'_>, path: &ObjectPath, which: Which) -> Result<Version> {
    let live = find_live(lens, path, which)?;
    let mut record = lens.record(&live)?;
    if let Some(tags) = lens.attributes(path, live.summary.version)?.tags {
        record.tags = tags;
    }
    Ok(Version {
        path: path.clone(),
        number: live.summary.version,
        name: name_of(&live.summary),
        versioned: lens.versioning()? != Versioning::Off,
        tag_count: record.tags.len(),
        at: lens.number(),
        origin: live.layered.is_none().then_some((lens.id, live.summary)),
        record,
    })
}

type Sources = (Vec<(u64, Source)>, Vec<Held>);

/// Where a body's pieces are, and what of it the collector has to leave alone. A body of one small piece is read.
fn sources(blobs: &Blobs, body: &Body, parts: &[Part]) -> Result<Sources> {
    let whole = match body {
        Body::Whole(piece) => Some(*piece),
        _ => None,
    };
    if let Some(Piece::Slot(slot)) = whole {
        let bytes: Bytes = blobs.read_slot(&slot)?;
        return Ok((vec![(bytes.len() as u64, Source::Memory(bytes))], Vec::new()));
    }
    let pieces = whole.into_iter().chain(parts.iter().filter_map(|part| part.piece));
    Ok(pieces
        .map(|piece| match piece {
            Piece::Slot(slot) => ((piece.length(), Source::Slot(slot)), Held::Segment(slot.segment)),
            Piece::Blob { hash, length } => ((length, Source::Blob(hash)), Held::Blob(hash)),
        })
        .unzip())
}
