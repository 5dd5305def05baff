//! A state of a bucket: the newest, or as of a number, open layers included.
//!
//! A layer with number *n* that is not folded yet counts for every key that nothing has touched since *n*: whoever
//! changes a key folds it first, so a row that begins or ends at *n* or later says that the key has left the layer.

use std::iter::Peekable;
use std::ops::Bound;

use super::home;
use super::key;
use crate::catalog::rows::{
    AttributesRow, BucketRow, Change, ChangeRow, ConfigRow, ConfigTag, CurrentRow, HistoryRow, LayerRow, LayerSource,
    Record, StagedRow,
};
use crate::catalog::{CatalogError, KeyRange, RowIterator, Rows, Table, keys};
use crate::error::{Error, Result};
use crate::types::{
    Attributes, BucketAt, BucketId, ETag, Number, ObjectPath, ObjectRecord, SnapshotRef, Summary, Timestamp,
};

/// An open layer.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) number: Number,
    pub(super) row: LayerRow,
}

/// The open layers of a bucket, newest first.
pub(super) fn open_layers(rows: &(impl Rows + ?Sized), id: BucketId, row: &BucketRow) -> Result<Vec<Layer>> {
    if row.open_layers == 0 {
        return Ok(Vec::new());
    }
    let mut layers = Vec::new();
    for entry in rows.range(Table::Layers, KeyRange::prefix(&keys::bucket(id)).reversed())? {
        let (key, value) = entry?;
        let number = key.get(16..).and_then(|tail| tail.try_into().ok()).map(u64::from_be_bytes);
        let number = Number(number.ok_or_else(|| key::damaged_key(Table::Layers))?);
        layers.push(Layer { number, row: LayerRow::decode(&value)? });
    }
    Ok(layers)
}

/// A live version as a state shows it.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) summary: Summary,
    /// Its record, where that is not in the log yet because it comes from a layer.
    pub(super) layered: Option<Box<ObjectRecord>>,
}

impl Live {
    fn logged(summary: Summary) -> Self {
        Live { summary, layered: None }
    }
}

/// What a key is in a state.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    Live(Live),
    /// Its newest version is a delete marker.
    Marker(Summary),
    Absent,
}

impl Seen {
    pub(super) fn live(self) -> Option<Live> {
        match self {
            Seen::Live(live) => Some(live),
            Seen::Marker(_) | Seen::Absent => None,
        }
    }
}

/// A state of a bucket that rows are read through.
pub(super) struct Lens<'a> {
    pub(super) rows: &'a dyn Rows,
    pub(super) id: BucketId,
    pub(super) row: BucketRow,
    /// As of which number; `Number::MAX` for the newest.
    pub(super) at: Number,
    /// The open layers that count, newest first.
    layers: Vec<Layer>,
}

impl<'a> Lens<'a> {
    /// A state by its name.
    pub(super) fn open(rows: &'a dyn Rows, at: &BucketAt) -> Result<Self> {
        let (id, row) = home::numbered(rows, &at.bucket)?;
        let number = match &at.snapshot {
            None => Number::MAX,
            Some(snapshot) => resolve(rows, id, &row, snapshot)?,
        };
        Self::new(rows, id, row, number)
    }

    /// The state of a bucket as of `at`.
    pub(super) fn new(rows: &'a dyn Rows, id: BucketId, row: BucketRow, at: Number) -> Result<Self> {
        // The newest number is the newest state as long as this view sees no later one: `current` alone shows it.
        let at = if at >= row.last { Number::MAX } else { at };
        let mut layers = open_layers(rows, id, &row)?;
        layers.retain(|layer| layer.number <= at);
        Ok(Lens { rows, id, row, at, layers })
    }

    /// The number of the state.
    pub(super) fn number(&self) -> Number {
        self.at.min(self.row.last)
    }

    /// S3's versioning as of the state.
    pub(super) fn versioning(&self) -> Result<super::Versioning> {
        if self.at == Number::MAX {
            return Ok(self.row.versioning);
        }
        match config_at(self.rows, self.id, ConfigTag::Versioning, self.at)? {
            Some(ConfigRow::Versioning(versioning)) => Ok(versioning),
            _ => Ok(super::Versioning::Off),
        }
    }

    /// The number of the newest layer that lies over it.
    pub(super) fn newest_layer(&self) -> Option<Number> {
        self.layers.first().map(|layer| layer.number)
    }

    /// Whether layers lie over it.
    pub(super) fn is_layered(&self) -> bool {
        !self.layers.is_empty()
    }

    /// What a key is.
    pub(super) fn look(&self, path: &ObjectPath) -> Result<Seen> {
        for layer in &self.layers {
            if let Some(seen) = self.look_in_layer(layer, path)? {
                return Ok(seen);
            }
        }
        Ok(self.look_below(path)?)
    }

    /// What a key is, layers aside.
    fn look_below(&self, path: &ObjectPath) -> Result<Seen, CatalogError> {
        if let Some(row) = key::current(self.rows, self.id, path)?.filter(|row| row.since <= self.at) {
            return Ok(Seen::Live(Live::logged(row.summary)));
        }
        for row in key::history(self.rows, self.id, path, self.at)? {
            let (_, row) = row?;
            if !row.marker && row.end.is_some_and(|end| self.at < end) {
                return Ok(Seen::Live(Live::logged(row.summary)));
            }
            if row.marker && row.shown_at(self.at) {
                return Ok(Seen::Marker(row.summary));
            }
            // Older rows only matter where what S3 lists may be below what it hides.
            if row.shown_at(self.at) || self.row.versioning == super::Versioning::Off {
                break;
            }
        }
        Ok(Seen::Absent)
    }

    /// What a layer makes of a key; `None` if it has nothing to say of it or the key has left it.
    fn look_in_layer(&self, layer: &Layer, path: &ObjectPath) -> Result<Option<Seen>> {
        if has_left(self.rows, self.id, path, layer.number)? {
            return Ok(None);
        }
        match effect(self.rows, self.id, layer, path)? {
            Effect::None => Ok(None),
            Effect::Put(record) => {
                let summary = Summary {
                    version: layer.number,
                    ordinal: 0,
                    null: self.row.versioning != super::Versioning::Enabled,
                    size: record.size,
                    modified: record.modified,
                    etag: record.etag,
                    checksum: record.checksum.as_ref().map(|checksum| (checksum.algorithm, checksum.kind)),
                };
                Ok(Some(Seen::Live(Live { summary, layered: Some(record) })))
            }
            Effect::Delete if self.row.versioning == super::Versioning::Off => Ok(Some(Seen::Absent)),
            Effect::Delete => Ok(Some(Seen::Marker(Summary {
                version: layer.number,
                ordinal: 0,
                null: self.row.versioning != super::Versioning::Enabled,
                size: 0,
                modified: layer.row.time.wall,
                etag: ETag { md5: [0; 16], parts: None },
                checksum: None,
            }))),
        }
    }

    /// The record of a live version.
    pub(super) fn record(&self, live: &Live) -> Result<ObjectRecord> {
        match &live.layered {
            Some(record) => Ok((**record).clone()),
            None => record_of(self.rows, self.id, &live.summary),
        }
    }

    /// Tags, ACL, retention and hold of a version as of the state.
    pub(super) fn attributes(&self, path: &ObjectPath, version: Number) -> Result<Attributes> {
        attributes_at(self.rows, self.id, path, version, self.at)
    }

    /// The live objects whose path begins with `prefix`, in order.
    pub(super) fn scan(&self, prefix: &[u8]) -> Result<Scan<'_>> {
        Scan::open(self, prefix)
    }
}

/// The record of a version that is in the log.
pub(super) fn record_of(rows: &(impl Rows + ?Sized), bucket: BucketId, summary: &Summary) -> Result<ObjectRecord> {
    let key = keys::change(bucket, summary.version, summary.ordinal);
    match ChangeRow::load(rows, &key)? {
        Some(ChangeRow { change: Change::Put(record), .. }) => Ok(record),
        _ => Err(Error::Damaged {
            what: format!("the record of version {}", summary.version),
            source: "the log has no such version".into(),
        }),
    }
}

/// A configuration of a bucket as of `at`.
pub(super) fn config_at(
    rows: &(impl Rows + ?Sized),
    bucket: BucketId,
    tag: ConfigTag,
    at: Number,
) -> Result<Option<ConfigRow>> {
    let range =
        KeyRange::prefix(&keys::config_of(bucket, tag)).starting(Bound::Included(keys::config(bucket, tag, at)));
    let row = rows.range(Table::Config, range)?.next().transpose()?;
    Ok(row.map(|(_, value)| ConfigRow::decode(&value)).transpose()?)
}

/// Tags, ACL, retention and hold of a version as of `at`.
pub(super) fn attributes_at(
    rows: &(impl Rows + ?Sized),
    bucket: BucketId,
    path: &ObjectPath,
    version: Number,
    at: Number,
) -> Result<Attributes> {
    let range = KeyRange::prefix(&keys::attributes_of(bucket, path, version))
        .starting(Bound::Included(keys::attributes(bucket, path, version, at)));
    match rows.range(Table::Attributes, range)?.next().transpose()? {
        Some((_, value)) => Ok(AttributesRow::decode(&value)?.attributes),
        None => Ok(Attributes::default()),
    }
}

/// Whether a key was changed at or after `number`.
pub(super) fn has_left(
    rows: &(impl Rows + ?Sized),
    bucket: BucketId,
    path: &ObjectPath,
    number: Number,
) -> Result<bool, CatalogError> {
    if key::current(rows, bucket, path)?.is_some_and(|row| row.since >= number) {
        return Ok(true);
    }
    let newest = key::history(rows, bucket, path, Number::MAX)?.next().transpose()?;
    Ok(newest.is_some_and(|(since, row)| since >= number || row.end.is_some_and(|end| end >= number)))
}

/// What a layer does to a key that has not left it.
pub(super) enum Effect {
    /// Nothing: the key is not the layer's, or is what the layer would make it.
    None,
    /// It has this content.
    Put(Box<ObjectRecord>),
    /// It is deleted.
    Delete,
}

/// What a layer does to a key that has not left it.
pub(super) fn effect(rows: &dyn Rows, bucket: BucketId, layer: &Layer, path: &ObjectPath) -> Result<Effect> {
    match &layer.row.source {
        LayerSource::Staged { layer: staged, .. } => Ok(match StagedRow::load(rows, &keys::staged(*staged, path))? {
            None => Effect::None,
            Some(StagedRow::Put(record)) => Effect::Put(Box::new(record)),
            Some(StagedRow::Delete) => match key::current(rows, bucket, path)? {
                Some(_) => Effect::Delete,
                None => Effect::None,
            },
        }),
        LayerSource::Snapshot { bucket: source, number, prefix } => {
            if !path.as_bytes().starts_with(prefix) {
                return Ok(Effect::None);
            }
            let Some(row) = BucketRow::load(rows, &keys::bucket(*source))? else { return Ok(Effect::None) };
            // Layers are folded one after the other, so none lies between a source and its layer.
            let source = Lens { rows, id: *source, row, at: *number, layers: Vec::new() };
            let now = key::current(rows, bucket, path)?;
            let Some(then) = source.look_below(path)?.live() else {
                return Ok(if now.is_some() { Effect::Delete } else { Effect::None });
            };
            let version = then.summary.version;
            let attributes = source.attributes(path, version)?;
            let same = source.id == bucket
                && now.is_some_and(|now| now.summary.version == version)
                // As of the layer: tags that are set later are the newer word, and the layer's effect stays what it is.
                && attributes_at(rows, bucket, path, version, layer.number)? == attributes;
            if same {
                return Ok(Effect::None);
            }
            let mut record = source.record(&then)?;
            record.modified = layer.row.time.wall;
            record.tags = attributes.tags.unwrap_or(record.tags);
            Ok(Effect::Put(Box::new(record)))
        }
    }
}

/// The paths that a layer may have something to say of, after `after`, in order.
pub(super) fn layer_paths<'a>(
    rows: &'a dyn Rows,
    bucket: BucketId,
    layer: &Layer,
    prefix: &[u8],
    after: Option<&[u8]>,
) -> Result<PathStream<'a>, CatalogError> {
    match &layer.row.source {
        LayerSource::Staged { layer: staged, .. } => {
            PathStream::open(rows, &[(Table::Staged, BucketId(staged.0))], prefix, after)
        }
        LayerSource::Snapshot { bucket: source, prefix: below, .. } => {
            let prefix = if below.starts_with(prefix) { below } else { prefix };
            if !prefix.starts_with(below) {
                return Ok(PathStream::empty());
            }
            let tables = [(Table::Current, bucket), (Table::Current, *source), (Table::History, *source)];
            PathStream::open(rows, &tables, prefix, after)
        }
    }
}

/// Paths of several tables, each path once, in order.
pub(super) struct PathStream<'a> {
    heads: Vec<Peekable<RowIterator<'a>>>,
}

impl<'a> PathStream<'a> {
    fn empty() -> Self {
        PathStream { heads: Vec::new() }
    }

    fn open(
        rows: &'a dyn Rows,
        tables: &[(Table, BucketId)],
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Result<Self, CatalogError> {
        let mut heads = Vec::with_capacity(tables.len());
        for (table, bucket) in tables {
            let range = start_after(KeyRange::prefix(&keys::objects_with(*bucket, prefix)), *bucket, after);
            heads.push(rows.range(*table, range)?.peekable());
        }
        Ok(PathStream { heads })
    }

    /// The next path.
    pub(super) fn next(&mut self) -> Result<Option<ObjectPath>, CatalogError> {
        let mut least: Option<ObjectPath> = None;
        for head in &mut self.heads {
            if let Some(path) = peek_path(head)?
                && least.as_ref().is_none_or(|least| path < *least)
            {
                least = Some(path);
            }
        }
        if let Some(least) = &least {
            for head in &mut self.heads {
                while peek_path(head)?.is_some_and(|path| path == *least) {
                    head.next();
                }
            }
        }
        Ok(least)
    }
}

/// The path of the next row, without taking it.
fn peek_path(head: &mut Peekable<RowIterator<'_>>) -> Result<Option<ObjectPath>, CatalogError> {
    if let Some(error) = head.next_if(Result::is_err) {
        return error.map(|_| None);
    }
    match head.peek() {
        Some(Ok((key, _))) => match keys::split_object(key) {
            Some((path, _)) => Ok(Some(path)),
            None => Err(key::damaged_key(Table::Current)),
        },
        _ => Ok(None),
    }
}

/// A range of a bucket's paths from the first one after `after` on.
fn start_after(range: KeyRange, bucket: BucketId, after: Option<&[u8]>) -> KeyRange {
    let Some(after) = after else { return range };
    let from = keys::after_path(bucket, after);
    match &range.from {
        Bound::Included(begin) if *begin > from => range,
        _ => range.starting(Bound::Included(from)),
    }
}

/// A walk over the live objects of a state, in order of their paths.
pub(super) struct Scan<'a> {
    lens: &'a Lens<'a>,
    prefix: Vec<u8>,
    current: Peekable<RowIterator<'a>>,
    /// Absent where the state is the newest, which `current` alone shows.
    history: Option<Peekable<RowIterator<'a>>>,
    layers: Vec<PathStream<'a>>,
    layer_heads: Vec<Option<ObjectPath>>,
    /// How many rows were looked at.
    pub(super) examined: usize,
    /// The last path that was looked at.
    pub(super) last: Option<ObjectPath>,
}

/// After how many rows of one path in `history` the walk seeks to the next one.
const ROWS_BEFORE_SEEK: usize = 8;

impl<'a> Scan<'a> {
    fn open(lens: &'a Lens<'a>, prefix: &[u8]) -> Result<Self> {
        let mut scan = Scan {
            lens,
            prefix: prefix.to_vec(),
            current: empty(),
            history: None,
            layers: Vec::new(),
            layer_heads: Vec::new(),
            examined: 0,
            last: None,
        };
        scan.seek_from(None, None)?;
        Ok(scan)
    }

    /// Goes on after a path, which need not be lawful.
    pub(super) fn seek_after(&mut self, path: &[u8]) -> Result<()> {
        self.seek_from(Some(path), None)
    }

    /// Goes on after everything that begins with `prefix`.
    pub(super) fn seek_past(&mut self, prefix: &[u8]) -> Result<()> {
        self.seek_from(None, Some(prefix))
    }

    fn seek_from(&mut self, after: Option<&[u8]>, past: Option<&[u8]>) -> Result<()> {
        let lens = self.lens;
        let range = KeyRange::prefix(&keys::objects_with(lens.id, &self.prefix));
        let range = match past {
            None => start_after(range, lens.id, after),
            Some(past) => match keys::successor(&keys::objects_with(lens.id, past)) {
                Some(from) => match &range.from {
                    Bound::Included(begin) if *begin > from => range,
                    _ => range.starting(Bound::Included(from)),
                },
                None => range.clone().starting(range.to.clone()),
            },
        };
        self.current = lens.rows.range(Table::Current, range.clone())?.peekable();
        self.history = match lens.at {
            Number::MAX => None,
            _ => Some(lens.rows.range(Table::History, range)?.peekable()),
        };
        // A walk past a prefix begins after its last conceivable path.
        let after_layers = match past {
            Some(past) => Some([past, &[0xff; 8]].concat()),
            None => after.map(<[u8]>::to_vec),
        };
        self.layers.clear();
        self.layer_heads.clear();
        for layer in &lens.layers {
            let mut paths = layer_paths(lens.rows, lens.id, layer, &self.prefix, after_layers.as_deref())?;
            let mut head = paths.next()?;
            while let (Some(path), Some(past)) = (&head, past)
                && path.as_bytes().starts_with(past)
            {
                head = paths.next()?;
            }
            self.layer_heads.push(head);
            self.layers.push(paths);
        }
        Ok(())
    }

    /// The next live object. `None` at the end, or once `rows_max` rows were looked at: `examined` tells which.
    pub(super) fn next(&mut self, rows_max: usize) -> Result<Option<(ObjectPath, Live)>> {
        while self.examined < rows_max {
            let current = peek_path(&mut self.current)?;
            let history = match &mut self.history {
                Some(history) => peek_path(history)?,
                None => None,
            };
            let layered = self.layer_heads.iter().flatten().min().cloned();
            let Some(path) = [&current, &history, &layered].into_iter().flatten().min().cloned() else {
                return Ok(None);
            };
            let below = self.take(&path, current.as_ref() == Some(&path), history.as_ref() == Some(&path))?;
            let live = if self.lens.is_layered() { self.lens.look(&path)?.live() } else { below };
            self.examined += 1;
            self.last = Some(path.clone());
            if let Some(live) = live {
                return Ok(Some((path, live)));
            }
        }
        Ok(None)
    }

    /// Takes the rows of a path and says which of them is live, layers aside.
    fn take(&mut self, path: &ObjectPath, in_current: bool, in_history: bool) -> Result<Option<Live>> {
        let mut live = None;
        if in_current && let Some(row) = self.current.next() {
            let row = CurrentRow::decode(&row?.1)?;
            live = Some(row).filter(|row| row.since <= self.lens.at).map(|row| Live::logged(row.summary));
        }
        if in_history {
            self.take_history(path, &mut live)?;
        }
        for (head, paths) in self.layer_heads.iter_mut().zip(&mut self.layers) {
            if head.as_ref() == Some(path) {
                *head = paths.next()?;
            }
        }
        Ok(live)
    }

    fn take_history(&mut self, path: &ObjectPath, live: &mut Option<Live>) -> Result<()> {
        let Some(history) = &mut self.history else { return Ok(()) };
        let mut taken = 0;
        while peek_path(history)?.is_some_and(|next| next == *path) {
            if taken == ROWS_BEFORE_SEEK {
                let from = keys::after_path(self.lens.id, path.as_bytes());
                let range = KeyRange::prefix(&keys::objects_with(self.lens.id, &self.prefix));
                *history = self.lens.rows.range(Table::History, range.starting(Bound::Included(from)))?.peekable();
                if live.is_none() {
                    *live = self.lens.look_below(path)?.live();
                }
                break;
            }
            let Some(row) = history.next() else { break };
            let (key, value) = row?;
            taken += 1;
            self.examined += 1;
            let row = HistoryRow::decode(&value)?;
            let since = key::since_of(&key)?;
            let holds = since <= self.lens.at && row.end.is_some_and(|end| self.lens.at < end);
            if live.is_none() && !row.marker && holds {
                *live = Some(Live::logged(row.summary));
            }
        }
        Ok(())
    }
}

fn empty<'a>() -> Peekable<RowIterator<'a>> {
    let rows: RowIterator<'a> = Box::new(std::iter::empty());
    rows.peekable()
}

/// The number that a snapshot names, if it is one.
pub(super) fn resolve(
    rows: &(impl Rows + ?Sized),
    id: BucketId,
    row: &BucketRow,
    snapshot: &SnapshotRef,
) -> Result<Number> {
    let missing =
        || Error::NoSuchSnapshot { bucket: row.name.clone(), snapshot: snapshot.to_string(), newest: row.last };
    let collected = || Error::BelowFloor { bucket: row.name.clone(), snapshot: snapshot.to_string(), floor: row.floor };
    match snapshot {
        SnapshotRef::Number(number) if *number > row.last || *number < row.first => Err(missing()),
        SnapshotRef::Number(number) if *number >= row.floor => Ok(*number),
        SnapshotRef::Number(number) => {
            if super::snapshot::retained(rows, id)?.contains(number) {
                Ok(*number)
            } else {
                Err(collected())
            }
        }
        SnapshotRef::Tag(tag) => {
            let tag = crate::catalog::rows::TagRow::load(rows, &keys::tag(id, tag))?;
            tag.map(|tag| tag.number).ok_or_else(missing)
        }
        SnapshotRef::Time(time) if *time < row.created => Err(missing()),
        SnapshotRef::Time(time) if *time < row.floor_time.sequence => Err(collected()),
        SnapshotRef::Time(time) => number_at(rows, id, row, *time),
    }
}

/// The last number from the floor on that was issued not later than `time`.
pub(super) fn number_at(rows: &(impl Rows + ?Sized), id: BucketId, row: &BucketRow, time: Timestamp) -> Result<Number> {
    let (mut low, mut high) = (row.floor.0, row.last.0);
    // Invariant: `low` was issued not later than `time`, everything above `high` was.
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match issued(rows, id, Number(middle))? {
            Some(sequence) if sequence <= time => low = middle,
            _ => high = middle - 1,
        }
    }
    Ok(Number(low))
}

fn issued(rows: &(impl Rows + ?Sized), id: BucketId, number: Number) -> Result<Option<Timestamp>> {
    Ok(ChangeRow::load(rows, &keys::change(id, number, 0))?.map(|row| row.time.sequence))
}
