//! Buckets: made, changed, listed and deleted.

use super::home::{Author, Home, bucket};
use super::lens::{Lens, config_at, open_layers};
use super::request::{Actor, BucketChange, BucketInfo, Versioning};
use super::write::author;
use super::{Limit, Limits, Master, layer};
use crate::catalog::rows::{BucketRow, Change, ConfigRow, ConfigTag, NameRow, PinRow, Record};
use crate::catalog::{KeyRange, Rows, Table, keys};
use crate::error::{Error, Result};
use crate::types::{BucketAt, BucketId, BucketName, ChangeTime, Number, Pair, Term, Timestamp};

pub(super) fn info(id: BucketId, row: BucketRow) -> BucketInfo {
    BucketInfo {
        id,
        name: row.name,
        created: row.created,
        location: row.location,
        versioning: row.versioning,
        term: row.term,
        number: row.last,
        changed: row.last_time.wall,
        floor: row.floor,
        keep_seconds: row.keep_seconds,
        objects: row.objects,
        bytes: row.bytes,
    }
}

impl Master {
    /// Begins the next term of a bucket of this cluster: from now on changes are made only for members that know it.
    ///
    /// This is what a cluster does that takes a bucket over, before it issues a number: whoever was its home before is not
    /// believed by members that have heard of the new term, and members that have not are refused here until they have.
    /// Numbers count on. No edge calls it: it is not safe to have two homes of a bucket just because the term is raised at
    /// one of them.
    pub async fn begin_term(&self, bucket: &BucketName) -> Result<Term> {
        let name = bucket.clone();
        self.writer
            .transact(move |txn| {
                let mut home = Home::open(txn, &name)?;
                home.row.term = Term(home.row.term.0.checked_add(1).ok_or(Error::Conflict)?);
                home.save();
                Ok(home.row.term)
            })
            .await
    }

    /// Makes a bucket. A name that was used before counts on where it ended.
    pub async fn create_bucket(&self, actor: &Actor, name: &BucketName, location: &str) -> Result<BucketInfo> {
        self.admit()?;
        let (id, wall, maximum) = (self.ids.bucket(), self.clock.wall(), self.limits.buckets_max);
        let (name, location, actor) = (name.clone(), location.to_owned(), actor.0.clone());
        tracing::info!(bucket = %name, actor, "bucket created");
        self.writer
            .transact(move |txn| {
                let key = keys::name(&name);
                let mut names = NameRow::load(txn, &key)?.unwrap_or_default();
                if names.bucket.is_some() {
                    return Err(Error::BucketExists { bucket: name });
                }
                let mut count = 0;
                for row in txn.range(Table::Buckets, KeyRange::prefix(&[]))? {
                    count += usize::from(!BucketRow::decode(&row?.1)?.deleted);
                }
                Limits::check(Limit::Buckets, count + 1, maximum)?;
                let (term, first) = names.past.map_or((Term::FIRST, Number::ZERO), |(_, term, last)| (term, last));
                let time = ChangeTime { wall, sequence: wall };
                let row = BucketRow {
                    name: name.clone(),
                    created: wall,
                    location,
                    versioning: Versioning::Off,
                    term,
                    first,
                    last: first,
                    last_time: time,
                    floor: first,
                    floor_time: time,
                    collected: (first, u32::MAX),
                    keep_seconds: None,
                    objects: 0,
                    bytes: 0,
                    versions: 0,
                    uploads: 0,
                    released: false,
                    open_layers: 0,
                    deleted: false,
                    linked: false,
                };
                names.bucket = Some(id);
                txn.put(key, &names);
                txn.put(keys::bucket(id), &row);
                Ok(info(id, row))
            })
            .await
    }

    /// Deletes an empty bucket. Its numbers end; the collector takes away what they showed.
    pub async fn delete_bucket(&self, actor: &Actor, name: &BucketName) -> Result<()> {
        tracing::info!(bucket = %name, actor = actor.0, "bucket to be deleted");
        let name = name.clone();
        self.writer
            .transact(move |txn| {
                let mut home = Home::open(txn, &name)?;
                if let Some(holds) = holds(&home)? {
                    return Err(Error::BucketNotEmpty { bucket: name, holds });
                }
                home.row.deleted = true;
                let names = NameRow { bucket: None, past: Some((home.id, home.row.term, home.row.last)) };
                home.txn.put(keys::name(&name), &names);
                home.save();
                Ok(())
            })
            .await
    }

    /// All buckets, by name.
    pub async fn buckets(&self) -> Result<Vec<BucketInfo>> {
        self.writer
            .read(|view| {
                let mut infos = Vec::new();
                for name in view.range(Table::Names, KeyRange::prefix(&[]))? {
                    if let Some(id) = NameRow::decode(&name?.1)?.bucket
                        && let Some(row) = BucketRow::load(view, &keys::bucket(id))?
                    {
                        infos.push(info(id, row));
                    }
                }
                Ok(infos)
            })
            .await
    }

    /// A bucket.
    pub async fn bucket(&self, name: &BucketName) -> Result<BucketInfo> {
        let name = name.clone();
        self.writer.read(move |view| bucket(view, &name).map(|(id, row)| info(id, row))).await
    }

    /// Changes a bucket's configuration. Returns the number of the change.
    pub async fn change_bucket(&self, actor: &Actor, name: &BucketName, change: BucketChange) -> Result<Number> {
        self.admit()?;
        let who = author(actor);
        loop {
            let (bucket_name, who, change, wall) = (name.clone(), who.clone(), change.clone(), self.clock.wall());
            let number = self
                .writer
                .transact(move |txn| {
                    let mut home = Home::open(txn, &bucket_name)?;
                    // What versioning is decides what folding makes of a key.
                    if !open_layers(home.txn, home.id, &home.row)?.is_empty() {
                        return Ok(None);
                    }
                    let number = home.configure(&who, &change, wall)?;
                    home.save();
                    Ok(Some(number))
                })
                .await?;
            match number {
                Some(number) => return Ok(number),
                None => layer::settle(self, name).await?,
            }
        }
    }

    /// The bucket's tags in a state of it.
    pub async fn bucket_tagging(&self, at: &BucketAt) -> Result<Option<Vec<Pair>>> {
        match self.config(at, ConfigTag::Tagging).await? {
            Some(ConfigRow::Tagging(tags)) => Ok(Some(tags)),
            _ => Ok(None),
        }
    }

    /// S3's versioning of the bucket in a state of it.
    pub async fn bucket_versioning(&self, at: &BucketAt) -> Result<Versioning> {
        match self.config(at, ConfigTag::Versioning).await? {
            Some(ConfigRow::Versioning(versioning)) => Ok(versioning),
            _ => Ok(Versioning::Off),
        }
    }

    async fn config(&self, at: &BucketAt, tag: ConfigTag) -> Result<Option<ConfigRow>> {
        let at = at.clone();
        self.writer
            .read(move |view| {
                let lens = Lens::open(view, &at)?;
                config_at(view, lens.id, tag, lens.at)
            })
            .await
    }
}

impl Home<'_, '_> {
    pub(super) fn configure(&mut self, who: &Author, change: &BucketChange, wall: Timestamp) -> Result<Number> {
        let (tag, row) = match change {
            BucketChange::Versioning(Versioning::Off) => {
                return Err(Error::InvalidRequest {
                    reason: "versioning can be enabled and suspended, never switched off".to_owned(),
                });
            }
            BucketChange::Versioning(versioning) => {
                self.row.versioning = *versioning;
                (ConfigTag::Versioning, ConfigRow::Versioning(*versioning))
            }
            BucketChange::Tagging(tags) => {
                (ConfigTag::Tagging, tags.clone().map_or(ConfigRow::Absent, ConfigRow::Tagging))
            }
            BucketChange::Keep(seconds) => {
                self.row.keep_seconds = *seconds;
                (ConfigTag::Keep, seconds.map_or(ConfigRow::Absent, ConfigRow::Keep))
            }
        };
        let stamp = self.issue(wall);
        let before = self.txn.range(Table::Config, KeyRange::prefix(&keys::config_of(self.id, tag)))?.next();
        let previous = before.transpose()?.and_then(|(key, _)| keys::descending(key.get(17..)?));
        self.txn.put(keys::config(self.id, tag, stamp.number), &row);
        self.log(stamp, who, None, Change::Config(tag, row), previous, Vec::new());
        Ok(stamp.number)
    }
}

/// What keeps a bucket from being deleted, in words.
fn holds(home: &Home<'_, '_>) -> Result<Option<String>> {
    let (txn, id, row) = (&*home.txn, home.id, &home.row);
    let first = |table| -> Result<Option<Vec<u8>>> {
        Ok(txn.range(table, KeyRange::prefix(&keys::bucket(id)))?.next().transpose()?.map(|(key, _)| key))
    };
    if row.open_layers > 0 {
        return Ok(Some("a commit or restore of it is still being folded; try again".to_owned()));
    }
    if row.objects > 0 {
        return Ok(Some(format!("{} objects", row.objects)));
    }
    if row.versions > 0 {
        return Ok(Some(format!("{} versions and delete markers", row.versions)));
    }
    if let Some(key) = first(Table::Uploads)? {
        let path = keys::split_object(&key).map(|(path, _)| path.to_string()).unwrap_or_default();
        return Ok(Some(format!("an upload of {path} in progress")));
    }
    let tags: Vec<_> = super::snapshot::tags(txn, id)?.into_iter().map(|tag| tag.tag.to_string()).collect();
    if !tags.is_empty() {
        return Ok(Some(format!("tags {}", tags.join(", "))));
    }
    if let Some(key) = first(Table::Pins)? {
        let holder = PinRow::load(txn, &key)?.map(|pin| pin.holder).unwrap_or_default();
        return Ok(Some(format!("a pin held by {holder}")));
    }
    Ok(None)
}
