//! Layers: a commit or restore of any size is published by one row and folded into the tables afterwards.
//!
//! A bucket has at most one open layer: publishing another, and what depends on the whole bucket, waits until the
//! open one is folded. A single key is folded on demand, before it is written or asked for by version.

use futures_util::future::try_join_all;

use super::body::{Adopted, Owner, adopt};
use super::home::{Author, Home, Stamp, bucket};
use super::lens::{Effect, Layer, effect, has_left, layer_paths, open_layers};
use super::request::{Actor, Restored};
use super::write::author;
use super::{Limit, Limits, Master};
use crate::blobs::{SlotGuard, StagedBody, Stored, Urgency};
use crate::catalog::rows::{Change, LayerRow, LayerSource, StagedRow};
use crate::catalog::{Rows, Table, Transaction, keys};
use crate::error::{Error, Result};
use crate::types::{Body, BucketId, BucketName, LayerId, Number, ObjectPath, ObjectRecord, Part};

/// Whether an open layer still has something to do to a key.
pub(super) fn covers(home: &Home<'_, '_>, path: &ObjectPath) -> Result<bool> {
    let rows: &dyn Rows = &*home.txn;
    for layer in open_layers(rows, home.id, &home.row)? {
        let done = has_left(rows, home.id, path, layer.number)?;
        if !done && !matches!(effect(rows, home.id, &layer, path)?, Effect::None) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Folds one key out of whatever layer covers it.
pub(super) async fn settle_key(master: &Master, name: &BucketName, path: &ObjectPath) -> Result<()> {
    settle_keys(master, name, vec![path.clone()]).await
}

/// Folds keys out of whatever layers cover them.
pub(super) async fn settle_keys(master: &Master, name: &BucketName, paths: Vec<ObjectPath>) -> Result<()> {
    let bucket_name = name.clone();
    let (id, layers) = master
        .writer
        .read(move |view| {
            let (id, row) = bucket(view, &bucket_name)?;
            Ok((id, open_layers(view, id, &row)?))
        })
        .await?;
    for layer in layers.into_iter().rev() {
        fold_paths(master, id, layer, paths.clone(), Progress::Aside).await?;
    }
    Ok(())
}

/// Folds all layers of a bucket.
pub(super) async fn settle(master: &Master, name: &BucketName) -> Result<()> {
    let bucket_name = name.clone();
    let id = master.writer.read(move |view| Ok(bucket(view, &bucket_name)?.0)).await?;
    fold_all(master, id).await
}

/// Folds all layers of a bucket, oldest first, in transactions of at most `fold_rows_max` keys.
pub(super) async fn fold_all(master: &Master, id: BucketId) -> Result<()> {
    loop {
        let limit = master.limits.fold_rows_max;
        let page = master
            .writer
            .read(move |view| {
                let Some(row) =
                    <crate::catalog::rows::BucketRow as crate::catalog::rows::Record>::load(view, &keys::bucket(id))?
                else {
                    return Ok(None);
                };
                let Some(layer) = open_layers(view, id, &row)?.pop() else { return Ok(None) };
                let folded = layer.row.folded.clone();
                let after = folded.as_ref().map(|path| path.as_bytes());
                let mut stream = layer_paths(view, id, &layer, &[], after)?;
                let mut paths = Vec::new();
                while paths.len() < limit
                    && let Some(path) = stream.next()?
                {
                    paths.push(path);
                }
                Ok(Some((layer, paths)))
            })
            .await?;
        let Some((layer, paths)) = page else { return Ok(()) };
        let progress = if paths.len() < limit {
            Progress::Done
        } else {
            paths.last().cloned().map_or(Progress::Done, Progress::Through)
        };
        fold_paths(master, id, layer, paths, progress).await?;
    }
}

/// What is to be published.
pub(super) enum Publication {
    /// This, under the next number.
    Layer(LayerSource),
    /// Nothing: the bucket is what it would become.
    Nothing,
}

/// How far a fold has come when its transaction is through.
#[derive(Clone, Debug)]
enum Progress {
    /// It was about a key out of turn.
    Aside,
    /// All paths up to and with this one are folded.
    Through(ObjectPath),
    /// All are.
    Done,
}

/// A key with what its layer makes of it, bodies copied where the layer's source keeps its own.
struct Folding {
    path: ObjectPath,
    /// None to delete it.
    record: Option<ObjectRecord>,
    listed: Vec<Part>,
    /// Whether its pieces are the version's to claim. Those of a damaged body are not: it stays whose it was, and
    /// whoever reads the new version is told of the damage.
    claims: bool,
}

/// Folds keys of a layer. It runs to its end even if the caller stops waiting: the copies it made are guarded until
/// the transaction that claims them has run.
async fn fold_paths(
    master: &Master,
    id: BucketId,
    layer: Layer,
    paths: Vec<ObjectPath>,
    progress: Progress,
) -> Result<()> {
    let folder = master.clone();
    master.detached(async move { fold_to_end(&folder, id, layer, paths, progress).await }).await
}

async fn fold_to_end(
    master: &Master,
    id: BucketId,
    layer: Layer,
    mut paths: Vec<ObjectPath>,
    progress: Progress,
) -> Result<()> {
    let staged = matches!(layer.row.source, LayerSource::Staged { .. });
    loop {
        let (reading, looked_at, limit) = (layer.clone(), paths.clone(), master.limits.fold_pieces_max);
        let batch = master.writer.read(move |view| next_batch(view, id, &reading, &looked_at, limit)).await?;
        let rest = paths.split_off(batch.paths);
        let progress = match (rest.is_empty(), &progress, paths.last()) {
            (false, Progress::Through(_) | Progress::Done, Some(last)) => Progress::Through(last.clone()),
            _ => progress.clone(),
        };
        let prepared = batch.effects.into_iter().map(|(path, record)| prepare(master, path, record, staged));
        let prepared: Vec<(Folding, Vec<SlotGuard>)> = try_join_all(prepared).await?;
        let (foldings, guards): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
        let number = layer.number;
        master.writer.transact(move |txn| fold(txn, id, number, foldings, &paths, &progress)).await?;
        drop(guards);
        if rest.is_empty() {
            return Ok(());
        }
        paths = rest;
    }
}

/// What a transaction folds.
struct Batch {
    /// How many of the paths it is about.
    paths: usize,
    /// What the layer makes of them, where it does anything.
    effects: Vec<(ObjectPath, Option<ObjectRecord>)>,
}

/// The first of `paths`, up to the one with which the pieces to be claimed reach the limit.
fn next_batch(rows: &dyn Rows, id: BucketId, layer: &Layer, paths: &[ObjectPath], pieces_max: usize) -> Result<Batch> {
    let mut batch = Batch { paths: 0, effects: Vec::new() };
    let mut pieces = 0;
    for path in paths {
        if pieces >= pieces_max {
            break;
        }
        batch.paths += 1;
        if has_left(rows, id, path, layer.number)? {
            continue;
        }
        match effect(rows, id, layer, path)? {
            Effect::None => {}
            Effect::Delete => batch.effects.push((path.clone(), None)),
            Effect::Put(record) => {
                pieces += super::body::piece_count(&record.body);
                batch.effects.push((path.clone(), Some(*record)));
            }
        }
    }
    Ok(batch)
}

async fn prepare(
    master: &Master,
    path: ObjectPath,
    record: Option<ObjectRecord>,
    staged: bool,
) -> Result<(Folding, Vec<SlotGuard>)> {
    let mut folding = Folding { path, record, listed: Vec::new(), claims: true };
    let Some(record) = folding.record.as_mut().filter(|_| !staged) else { return Ok((folding, Vec::new())) };
    match master.copy_body(&record.body, Urgency::Reserve).await {
        Ok((body, listed, guards)) => {
            record.body = body;
            folding.listed = listed;
            Ok((folding, guards))
        }
        // One damaged body must not hold up the layer, its bucket and the collector.
        Err(error @ Error::Damaged { .. }) => {
            let path = &folding.path;
            tracing::error!(%path, error = &error as &dyn std::error::Error, "restored with a damaged body");
            folding.claims = false;
            Ok((folding, Vec::new()))
        }
        Err(error) => Err(error),
    }
}

fn fold(
    txn: &mut Transaction<'_>,
    id: BucketId,
    number: Number,
    foldings: Vec<Folding>,
    looked_at: &[ObjectPath],
    progress: &Progress,
) -> Result<()> {
    let key = keys::layer(id, number);
    let Some(mut layer) = <LayerRow as crate::catalog::rows::Record>::load(txn, &key)? else { return Ok(()) };
    let Some(mut home) = Home::open_id(txn, id)? else { return Ok(()) };
    let who = Author { actor: layer.actor.clone(), origin: None };
    let staged = match &layer.source {
        LayerSource::Staged { layer, .. } => Some(*layer),
        LayerSource::Snapshot { .. } => None,
    };
    for folding in foldings {
        if has_left(home.txn, id, &folding.path, number)? {
            continue;
        }
        let stamp = Stamp { number, ordinal: layer.next_ordinal, time: layer.time };
        layer.next_ordinal += 1;
        match folding.record {
            Some(record) => {
                let owner = Owner::Version(id, stamp.number, stamp.ordinal);
                match staged {
                    Some(_) => home.take_over_slots(&record.body, owner),
                    None if folding.claims => home.claim_body(&record.body, &folding.listed, owner)?,
                    None => home.claim_large(&record.body)?,
                }
                home.put_version(&folding.path, stamp, &who, record)?;
            }
            None => {
                home.delete_key(&folding.path, |_| stamp, &who)?;
            }
        }
        if let Some(staged) = staged {
            home.txn.remove(Table::Staged, keys::staged(staged, &folding.path));
        }
    }
    if let Some(staged) = staged {
        // What had no effect, such as deleting what was not there, is done with too.
        for path in looked_at {
            unstage(home.txn, id, staged, path)?;
        }
    }
    match progress {
        Progress::Aside => home.txn.put(key, &layer),
        Progress::Through(path) => {
            layer.folded = Some(path.clone());
            home.txn.put(key, &layer);
        }
        Progress::Done => {
            if let Some(staged) = staged {
                home.txn.remove(Table::Meta, keys::commit_begun(staged));
            }
            home.row.open_layers = home.row.open_layers.saturating_sub(1);
            // What only the layer's source kept may go.
            home.row.released = true;
            home.txn.remove(Table::Layers, key);
        }
    }
    home.save();
    Ok(())
}

impl Home<'_, '_> {
    /// Makes slots that were claimed before the property of a version of the same bucket.
    pub(super) fn take_over_slots(&mut self, body: &Body, owner: Owner) {
        for piece in super::body::pieces(body) {
            super::body::take_over(self.txn, &piece, owner);
        }
    }

    /// Publishes a layer under the next number, if that is what is to be published. No layer is open.
    pub(super) fn publish(
        &mut self,
        publication: Publication,
        who: &Author,
        wall: crate::types::Timestamp,
    ) -> Restored {
        let source = match publication {
            Publication::Layer(source) => source,
            Publication::Nothing => return Restored { number: self.row.last, changed: false },
        };
        let stamp = self.issue(wall);
        self.log(stamp, who, None, Change::Layer(source.clone()), None, Vec::new());
        let row = LayerRow { source, time: stamp.time, actor: who.actor.clone(), next_ordinal: 1, folded: None };
        self.txn.put(keys::layer(self.id, stamp.number), &row);
        self.row.open_layers += 1;
        Restored { number: stamp.number, changed: true }
    }
}

impl Master {
    /// Publishes what `source` makes of the bucket, once no layer is open over it any more.
    pub(super) async fn publish(
        &self,
        name: &BucketName,
        only: Option<BucketId>,
        who: Author,
        source: impl Fn(&Home<'_, '_>) -> Result<Publication> + Clone + Send + 'static,
    ) -> Result<Restored> {
        self.admit()?;
        loop {
            let (bucket_name, who, source, wall) = (name.clone(), who.clone(), source.clone(), self.clock.wall());
            let published = self
                .writer
                .transact(move |txn| {
                    let mut home = Home::open(txn, &bucket_name)?;
                    if only.is_some_and(|only| only != home.id) {
                        return Err(Error::NoSuchBucket { bucket: bucket_name });
                    }
                    if home.row.open_layers > 0 {
                        return Ok(None);
                    }
                    let publication = source(&home)?;
                    let restored = home.publish(publication, &who, wall);
                    let id = home.id;
                    if restored.changed {
                        home.save();
                    }
                    Ok(Some((id, restored)))
                })
                .await?;
            match published {
                Some((id, restored)) => {
                    if restored.changed {
                        self.fold_in_background(id);
                    }
                    return Ok(restored);
                }
                None => settle(self, name).await?,
            }
        }
    }

    /// Folds a bucket's layers while serving goes on.
    pub(super) fn fold_in_background(&self, id: BucketId) {
        let master = self.clone();
        tokio::spawn(async move {
            if let Err(error) = fold_all(&master, id).await {
                // The layer stays open and reads go through it; the next start, write or collection goes on.
                tracing::warn!(bucket = %id, error = &error as &dyn std::error::Error, "layer not folded yet");
            }
        });
    }

    /// Waits until every layer of a bucket is folded.
    pub async fn settle(&self, bucket: &BucketName) -> Result<()> {
        settle(self, bucket).await
    }

    /// Begins a commit of many keys under one number.
    pub async fn begin_commit(&self, bucket_name: &BucketName) -> Result<Commit> {
        let name = bucket_name.clone();
        let id = self.writer.read(move |view| Ok(bucket(view, &name)?.0)).await?;
        let layer = self.ids.layer();
        self.commits.lock().expect("no holder of this lock panics").insert(layer);
        Ok(Commit { master: self.clone(), bucket: bucket_name.clone(), id, layer, keys: 0 })
    }
}

/// A change of one key in a commit.
#[derive(Debug)]
pub struct StagedChange {
    /// The key.
    pub path: ObjectPath,
    /// Its content, or none to delete it.
    pub content: Option<(ObjectRecord, Option<StagedBody>)>,
}

/// A commit that is being put together. Nobody sees anything of it before it is published; dropped, it never was.
#[derive(Debug)]
pub struct Commit {
    master: Master,
    bucket: BucketName,
    id: BucketId,
    layer: LayerId,
    keys: u64,
}

impl Commit {
    /// Adds changes; a later one of a key replaces an earlier one. A record has the body that comes with it, or none.
    pub async fn stage(&mut self, changes: Vec<StagedChange>) -> Result<()> {
        Limits::check(Limit::CommitStageKeys, changes.len(), self.master.limits.commit_stage_keys_max)?;
        self.master.admit()?;
        let bodiless = |change: &StagedChange| matches!(&change.content, Some((record, None)) if record.body != Body::Empty || record.size != 0);
        if let Some(change) = changes.iter().find(|change| bodiless(change)) {
            return Err(Error::InvalidRequest { reason: format!("{}: its body was not staged with it", change.path) });
        }
        self.keys += changes.len() as u64;
        let (master, id, layer) = (self.master.clone(), self.id, self.layer);
        // Bodies are guarded until the transaction that claims them has run, whoever waits for it.
        self.master.detached(async move { stage_to_end(&master, id, layer, changes).await }).await
    }

    /// Publishes everything that was staged as one change. Returns its number.
    pub async fn publish(self, actor: &Actor, message: &str) -> Result<Number> {
        let (who, master, message) = (author(actor), self.master.clone(), message.to_owned());
        master
            .detached(async move {
                let (layer, keys) = (self.layer, self.keys);
                let source = move |_: &Home<'_, '_>| {
                    Ok(Publication::Layer(LayerSource::Staged { layer, message: message.clone(), keys }))
                };
                // The commit is under way until it is published.
                Ok(self.master.publish(&self.bucket, Some(self.id), who, source).await?.number)
            })
            .await
    }
}

async fn stage_to_end(master: &Master, id: BucketId, layer: LayerId, changes: Vec<StagedChange>) -> Result<()> {
    let mut rows = Vec::with_capacity(changes.len());
    let mut bodies = Vec::new();
    for change in changes {
        let (row, stored) = match change.content {
            None => (StagedRow::Delete, None),
            Some((mut record, body)) => {
                record.modified = master.clock.wall();
                let stored = match body {
                    None => None,
                    Some(mut body) => {
                        master.blobs.persist(&mut body).await?;
                        let stored = body.stored().unwrap_or(Stored::Empty);
                        let damaged = master.find_damaged(&stored).await?;
                        record.body = stored.piece().map_or(Body::Empty, Body::Whole);
                        record.size = body.length();
                        bodies.push(body);
                        Some((stored, damaged))
                    }
                };
                (StagedRow::Put(record), stored)
            }
        };
        rows.push((change.path, row, stored));
    }
    let taken = master
        .writer
        .transact(move |txn| {
            let mut taken = Vec::new();
            txn.put_raw(Table::Meta, keys::commit_begun(layer), id.0.to_vec());
            for (path, row, stored) in rows {
                unstage(txn, id, layer, &path)?;
                if let Some((stored, damaged)) = &stored {
                    taken.push(match stored {
                        Stored::Blob(blob) => adopt(txn, blob, *damaged)?,
                        Stored::Empty | Stored::Slot(_) => Adopted::Taken,
                    });
                }
                if let StagedRow::Put(record) = &row {
                    for piece in super::body::pieces(&record.body) {
                        super::body::claim(txn, id, &piece, Owner::Staged(layer))?;
                    }
                }
                txn.put(keys::staged(layer, &path), &row);
            }
            Ok(taken)
        })
        .await;
    let taken = match taken {
        Ok(taken) => taken,
        Err(error) => {
            if matches!(error, Error::Storage { .. }) {
                // The commit may have taken place: the collector asks the catalog.
                bodies.into_iter().for_each(StagedBody::leave);
            }
            return Err(error);
        }
    };
    for (body, taken) in bodies.into_iter().zip(taken) {
        if taken == Adopted::Taken {
            body.claimed();
        }
    }
    Ok(())
}

impl Drop for Commit {
    fn drop(&mut self) {
        // What was staged and not published is swept at the next start or collection.
        self.master.commits.lock().expect("no holder of this lock panics").remove(&self.layer);
    }
}

/// Takes back what was staged of a key.
pub(super) fn unstage(txn: &mut Transaction<'_>, id: BucketId, layer: LayerId, path: &ObjectPath) -> Result<()> {
    let key = keys::staged(layer, path);
    if let Some(StagedRow::Put(record)) = <StagedRow as crate::catalog::rows::Record>::load(txn, &key)? {
        for piece in super::body::pieces(&record.body) {
            super::body::release(txn, id, &piece)?;
        }
    }
    txn.remove(Table::Staged, key);
    Ok(())
}
