//! Reads of objects.

use std::sync::Arc;

use bytes::Bytes;

use super::body::{BodyReader, Source, load_parts};
use super::cache::ReadLately;
use super::elsewhere::{Fetch, Found, Place};
use super::key::{self, name_of};
use super::lens::{Lens, Live, Seen};
use super::readers::{Held, ReadGuard};
use super::request::{Opened, PartInfo, Version, Versioning, Which};
use super::{Master, layer};
use crate::blobs::Blobs;
use crate::catalog::{Catalog, View};
use crate::error::{Error, Result};
use crate::types::{Body, BucketAt, Number, ObjectPath, Pair, Part, Piece, Summary, Timestamp};

/// How often a read looks again when what it found was moved meanwhile.
const LOOKS_MAX: usize = 4;

/// A read that was announced and has not found its version yet.
pub(crate) struct Opening {
    guard: ReadGuard,
    blobs: Blobs,
    catalog: Arc<dyn Catalog>,
    fetch: Option<Arc<dyn Fetch>>,
    lately: Arc<ReadLately>,
    now: Timestamp,
}

impl Opening {
    /// A version with its body as the view has it. A small one is read at once.
    pub(crate) fn open(self, view: &dyn View, version: Version) -> Result<Opened> {
        let Opening { guard, blobs, catalog, fetch, lately, now } = self;
        let parts = load_parts(view, &blobs, &version.record.body)?;
        let (pieces, held) = sources(view, &blobs, &version, &parts)?;
        for piece in pieces_of(&version.record.body, &parts).filter(Piece::is_shared) {
            lately.note(version.bucket, piece.hash(), now);
        }
        let guard = if held.is_empty() {
            None
        } else {
            guard.hold(held);
            Some(guard)
        };
        let length = version.record.size;
        if pieces.iter().try_fold(0u64, |sum, (piece, _)| sum.checked_add(*piece)) != Some(length) {
            return Err(Error::Damaged {
                what: format!("version {} of {}", version.number, version.path),
                source: "its pieces do not add up to its size".into(),
            });
        }
        Ok(Opened { version, body: BodyReader { blobs, catalog, fetch, length, pieces, guard } })
    }
}

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
        let (at, path) = (at.clone(), path.clone());
        self.open_with(move |view, opening| opening.open(view, version(&Lens::open(view, &at)?, &path, which)?)).await
    }

    /// The body of a version that was looked up before, here or in another cluster.
    pub async fn open_version(&self, version: Version) -> Result<Opened> {
        self.open_with(move |view, opening| opening.open(view, version.clone())).await
    }

    /// Looks a version up and opens it, all in one job.
    pub(crate) async fn open_with<T: Send + 'static>(
        &self,
        look_up: impl Fn(&dyn View, Opening) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        for look in 1.. {
            let (look_up, opening) = (look_up.clone(), self.opening());
            match self.writer.read(move |view| look_up(view, opening)).await {
                // Compaction moved a slot between the look-up and the read.
                Err(Error::Damaged { .. }) if look < LOOKS_MAX => {}
                opened => return opened,
            }
        }
        Err(Error::Conflict)
    }

    fn opening(&self) -> Opening {
        Opening {
            guard: self.readers.announce(),
            blobs: self.blobs.clone(),
            catalog: Arc::clone(self.writer.catalog()),
            fetch: self.fetch(),
            lately: Arc::clone(&self.read_lately),
            now: self.clock.wall(),
        }
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
        age: None,
        bucket: lens.id,
        ordinal: live.summary.ordinal,
        origin: live.layered.is_none().then_some((lens.id, live.summary)),
        record,
    })
}

/// The pieces of a body in order.
fn pieces_of<'a>(body: &'a Body, parts: &'a [Part]) -> impl Iterator<Item = Piece> + 'a {
    let whole = match body {
        Body::Whole(piece) => Some(*piece),
        Body::Empty | Body::Parts(_) | Body::PartList { .. } => None,
    };
    whole.into_iter().chain(parts.iter().filter_map(|part| part.piece))
}

type Sources = (Vec<(u64, Source)>, Vec<Held>);

/// Where a body's pieces are, and what of it the collector has to leave alone. A body of one small piece is read.
fn sources(rows: &dyn View, blobs: &Blobs, version: &Version, parts: &[Part]) -> Result<Sources> {
    let place = Place::of(version);
    let find = |piece: Piece| match piece {
        Piece::Shared { hash, length } => place.find(rows, hash, length),
        piece @ (Piece::Slot(_) | Piece::Blob { .. }) => Ok(Found::Here(piece)),
    };
    if let Body::Whole(piece) = version.record.body {
        return match find(piece)? {
            Found::Here(Piece::Slot(slot)) => {
                let bytes: Bytes = blobs.read_slot(&slot)?;
                Ok((vec![(bytes.len() as u64, Source::Memory(bytes))], Vec::new()))
            }
            found => {
                let mut held = Vec::new();
                let source = source(piece.length(), found, &mut held);
                Ok((vec![source], held))
            }
        };
    }
    let mut held = Vec::new();
    let pieces = parts.iter().filter_map(|part| part.piece);
    let sources = pieces.map(|piece| Ok(source(piece.length(), find(piece)?, &mut held))).collect::<Result<_>>()?;
    Ok((sources, held))
}

/// Where a piece is read from, and what the collector has to leave alone for it.
fn source(length: u64, found: Found, held: &mut Vec<Held>) -> (u64, Source) {
    match found {
        Found::Here(Piece::Slot(slot)) => {
            held.push(Held::Segment(slot.segment));
            (length, Source::Slot(slot))
        }
        Found::Here(Piece::Blob { hash, .. } | Piece::Shared { hash, .. }) => {
            held.push(Held::Blob(hash));
            (length, Source::Blob(hash))
        }
        Found::Elsewhere(wanted) => (length, Source::Elsewhere(wanted)),
    }
}
