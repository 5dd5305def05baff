//! Every number of both worlds, compared through every way to read it.

use std::collections::BTreeSet;

use federation::error::VersionName;
use federation::master::{
    After, AfterUpload, AfterVersion, ConfigName, ListItem, ListQuery, LogChange, LogEntry, UploadItem, UploadsQuery,
    Version as Found, VersionItem, Versioning as RealVersioning, VersionsQuery, Which,
};
use federation::types::{BucketAt, Number, SMALL_BODY_MAX, Summary};

use super::super::store::{self, content, findings, newest, path, read};
use super::run::{BUCKETS, Run, Verdict, same};
use super::state::{Bucket, Key, Logged, Name, Object, State, Version, Versioning};
use super::words::{at_time, bucket_name, find, name_of, named, prefix, version_name, which};

/// No chain of pages is longer than this unless it does not end.
const PAGES_MAX: usize = 20_000;
const DELIMITERS: [Option<&[u8]>; 6] = [None, Some(b"/"), Some(b"-"), Some(b"a/"), Some(b"b"), Some(b"\0")];

/// How a listing is asked for: prefix, delimiter, page size. Numbers choose, so that a sequence sees many.
#[derive(Clone, Copy, Debug)]
struct Ask {
    prefix: &'static [u8],
    delimiter: Option<&'static [u8]>,
    max: usize,
}

impl Ask {
    fn all() -> Ask {
        Ask { prefix: b"", delimiter: None, max: 1000 }
    }

    fn chosen(by: u64) -> Ask {
        let by = by as usize;
        Ask { prefix: prefix(by), delimiter: DELIMITERS[by / 2 % DELIMITERS.len()], max: 1 + by % 3 }
    }

    /// What a key is rolled up to.
    fn common(&self, key: &[u8]) -> Option<Vec<u8>> {
        let delimiter = self.delimiter?;
        let rest = &key[self.prefix.len()..];
        let at = rest.windows(delimiter.len()).position(|window| window == delimiter)?;
        Some(key[..self.prefix.len() + at + delimiter.len()].to_vec())
    }

    /// The model's listing: the items, each prefix once.
    fn roll_up<T: Clone>(&self, items: impl Iterator<Item = (Key, T)>) -> Vec<Item<T>> {
        let mut listed: Vec<Item<T>> = Vec::new();
        for (key, item) in items.filter(|(key, _)| key.starts_with(self.prefix)) {
            match self.common(&key) {
                None => listed.push(Item::One(key, item)),
                Some(common) => {
                    if !matches!(listed.last(), Some(Item::Prefix(last)) if *last == common) {
                        listed.push(Item::Prefix(common));
                    }
                }
            }
        }
        listed
    }
}

#[derive(Clone, PartialEq, Eq)]
enum Item<T> {
    One(Key, T),
    Prefix(Vec<u8>),
}

impl<T: std::fmt::Debug> std::fmt::Debug for Item<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Item::One(key, item) => write!(f, "{} {item:?}", key.escape_ascii()),
            Item::Prefix(prefix) => write!(f, "{}*", prefix.escape_ascii()),
        }
    }
}

/// What a listing shows of a version; of a marker only number, name and time mean something.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    number: u64,
    null: bool,
    latest: bool,
    object: Option<(u64, String)>,
    modified: u64,
}

fn shown(summary: &Summary, latest: bool, marker: bool) -> Shown {
    Shown {
        number: summary.version.0,
        null: summary.null,
        latest,
        object: (!marker).then(|| (summary.size, summary.etag.to_string())),
        modified: summary.modified.0,
    }
}

fn wanted(bucket: &Bucket, version: &Version, latest: bool) -> Shown {
    Shown {
        number: version.number,
        null: version.null,
        latest,
        object: version.object.as_ref().map(|object| (object.size(), object.etag())),
        modified: version.object.as_ref().map_or(bucket.times[&version.number].0, |object| object.modified),
    }
}

impl Run {
    fn bucket(&self, b: usize) -> Option<&Bucket> {
        self.buckets[b].as_ref()
    }

    /// What a listing of objects shows, page after page.
    async fn list(&self, at: &BucketAt, ask: Ask) -> Verdict<Result<(Vec<Item<Shown>>, u64), String>> {
        let (mut items, mut after) = (Vec::new(), None::<After>);
        for _ in 0..PAGES_MAX {
            let query = ListQuery {
                prefix: ask.prefix.to_vec(),
                delimiter: ask.delimiter.map(<[u8]>::to_vec),
                after,
                max: ask.max,
            };
            let page = match self.master().list(at, query).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(name_of(&error))),
            };
            if page.items.len() > ask.max {
                return Err(format!("a page of {} items, {} were asked for", page.items.len(), ask.max));
            }
            items.extend(page.items.into_iter().map(|item| match item {
                ListItem::Object(path, summary) => Item::One(path.as_bytes().to_vec(), shown(&summary, true, false)),
                ListItem::Prefix(prefix) => Item::Prefix(prefix),
            }));
            match page.next {
                None => return Ok(Ok((items, page.number.0))),
                next => after = next,
            }
        }
        Err(format!("the listing {ask:?} does not end"))
    }

    async fn list_versions(&self, at: &BucketAt, ask: Ask) -> Verdict<Result<Vec<Item<Shown>>, String>> {
        let (mut items, mut after) = (Vec::new(), None::<AfterVersion>);
        for _ in 0..PAGES_MAX {
            let query = VersionsQuery {
                prefix: ask.prefix.to_vec(),
                delimiter: ask.delimiter.map(<[u8]>::to_vec),
                after,
                max: ask.max,
            };
            let page = match self.master().list_versions(at, query).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(name_of(&error))),
            };
            if page.items.len() > ask.max {
                return Err(format!("a page of {} versions, {} were asked for", page.items.len(), ask.max));
            }
            items.extend(page.items.into_iter().map(|item| match item {
                VersionItem::Version { path, summary, latest, marker } => {
                    Item::One(path.as_bytes().to_vec(), shown(&summary, latest, marker))
                }
                VersionItem::Prefix(prefix) => Item::Prefix(prefix),
            }));
            match page.next {
                None => return Ok(Ok(items)),
                next => after = next,
            }
        }
        Err(format!("the listing of versions {ask:?} does not end"))
    }

    async fn compare_listing(&self, at: &BucketAt, bucket: &Bucket, state: &State, number: u64, ask: Ask) -> Verdict {
        let objects = state.objects().into_iter();
        let model = ask.roll_up(objects.map(|(key, version, _)| (key.clone(), wanted(bucket, version, true))));
        same!(self.list(at, ask).await?, Ok((model, number)), "the listing {ask:?} of {at}");
        Ok(())
    }

    async fn compare_versions(&self, at: &BucketAt, bucket: &Bucket, state: &State, ask: Ask) -> Verdict {
        let versions = state.keys.iter().flat_map(|(key, versions)| {
            let newest_first = versions.iter().rev().enumerate();
            newest_first.map(|(place, version)| (key.clone(), wanted(bucket, version, place == 0)))
        });
        let model = ask.roll_up(versions);
        same!(self.list_versions(at, ask).await?, Ok(model), "the versions {ask:?} of {at}");
        Ok(())
    }

    /// A version through `head`, `get` and `tags`.
    async fn compare_version(
        &self,
        at: &BucketAt,
        number: u64,
        key: &[u8],
        state: &State,
        name: Option<Name>,
    ) -> Verdict {
        let what = || format!("{} {name:?} of {at}", key.escape_ascii());
        let (key_path, which) = (path(key), which(name));
        let opened = self.master().get(at, &key_path, which).await;
        let version = match find(state, key, name) {
            Ok(version) => version,
            Err(error) => {
                same!(
                    opened.map(|opened| opened.version.number).map_err(|e| name_of(&e)),
                    Err(error.to_owned()),
                    "{}",
                    what()
                );
                let head = named(self.master().head(at, &key_path, which).await);
                same!(head.map(|version| version.number), Err(error.to_owned()), "the head of {}", what());
                return Ok(());
            }
        };
        let object = version.object.as_ref().ok_or("the model found a marker")?;
        let opened = opened.map_err(|error| format!("{}: the core says {error:?}", what()))?;
        same!(described(&opened.version), wanted_description(&version, object, number), "{}", what());
        let bytes = read(opened).await.map_err(|error| format!("the body of {}: {error:?}", what()))?;
        if bytes != object.bytes() {
            return Err(format!("{}: {} bytes are not the {} of the model", what(), bytes.len(), object.size()));
        }
        let (found, tags) = self.master().tags(at, &key_path, which).await.map_err(|e| format!("{}: {e:?}", what()))?;
        same!((found.number.0, tags), (version.number, version.tags()), "the tags of {}", what());
        Ok(())
    }

    /// Whether a state is refused in both worlds, and if not, its number. `None`: it may or may not be.
    pub(super) async fn resolve<'a>(
        &self,
        at: &BucketAt,
        bucket: &'a Bucket,
        number: u64,
    ) -> Verdict<Option<&'a State>> {
        let real = named(self.master().resolve(at).await).map(|number| number.0);
        match bucket.at(number) {
            (Ok(_), true) if real == Err("BelowFloor".to_owned()) => Ok(None),
            (Ok(state), _) => {
                same!(real, Ok(number), "resolve {at}");
                Ok(Some(state))
            }
            (Err(error), _) => {
                same!(real, Err(error.to_owned()), "resolve {at}");
                let ask = Ask::chosen(number);
                same!(self.list(at, ask).await?.map(|_| ()), Err(error.to_owned()), "the listing of {at}");
                let key = path(&self.world.keys[0]);
                let read = named(self.master().get(at, &key, Which::Newest).await).map(|opened| opened.version.number);
                same!(read, Err(error.to_owned()), "a read of {at}");
                Ok(None)
            }
        }
    }

    /// What may be asked while layers are open: nothing here folds any.
    pub fn compare_state(&self, b: usize, number: Option<u64>) -> Verdict {
        self.wait(async {
            let at = number.map_or_else(|| newest(&bucket_name(b)), |number| store::at(&bucket_name(b), number));
            let Some(bucket) = self.bucket(b) else {
                same!(named(self.master().resolve(&at).await), Err("NoSuchBucket".to_owned()), "resolve {at}");
                return Ok(());
            };
            let number = number.unwrap_or(bucket.last);
            let Some(state) = self.resolve(&at, bucket, number).await? else { return Ok(()) };
            self.compare_listing(&at, bucket, state, number, Ask::all()).await?;
            self.compare_listing(&at, bucket, state, number, Ask::chosen(number + b as u64)).await?;
            for key in self.world.keys.iter().collect::<BTreeSet<_>>() {
                self.compare_version(&at, number, key, state, None).await?;
            }
            let versioning = match state.versioning {
                Versioning::Off => RealVersioning::Off,
                Versioning::Enabled => RealVersioning::Enabled,
                Versioning::Suspended => RealVersioning::Suspended,
            };
            same!(named(self.master().bucket_versioning(&at).await), Ok(versioning), "versioning of {at}");
            same!(named(self.master().bucket_tagging(&at).await), Ok(state.tags.clone()), "tags of {at}");
            Ok(())
        })
    }

    /// Versions by listing and by name, which folds what they need.
    fn compare_past(&self, b: usize, number: Option<u64>) -> Verdict {
        self.wait(async {
            let Some(bucket) = self.bucket(b) else { return Ok(()) };
            let at = number.map_or_else(|| newest(&bucket_name(b)), |number| store::at(&bucket_name(b), number));
            let number = number.unwrap_or(bucket.last);
            let Some(state) = self.resolve(&at, bucket, number).await? else { return Ok(()) };
            for max in 1..=3 {
                self.compare_versions(&at, bucket, state, Ask { max, ..Ask::all() }).await?;
            }
            self.compare_versions(&at, bucket, state, Ask::chosen(number)).await?;
            self.compare_tree(&at, state, number).await?;
            for key in self.world.keys.iter().collect::<BTreeSet<_>>() {
                let shown = state.keys.get(key).into_iter().flatten().map(Version::name);
                let names = shown.chain([Name::Null, Name::Number(number), Name::Number(bucket.last + 1)]);
                for name in names.collect::<BTreeSet<_>>() {
                    self.compare_version(&at, number, key, state, Some(name)).await?;
                }
            }
            Ok(())
        })
    }

    fn compare_diff(&self, b: usize, from: u64, to: u64) -> Verdict {
        let Some(bucket) = self.bucket(b) else { return Ok(()) };
        let (Ok(before), Ok(after)) = (bucket.at(from).0, bucket.at(to).0) else { return Ok(()) };
        if bucket.at(from).1 || bucket.at(to).1 {
            return Ok(());
        }
        let ask = Ask::chosen(from + 3 * to);
        let seen = |state: &State, key: &Key| state.live(key).map(|(version, _)| (version.number, version.tags()));
        let keys: BTreeSet<&Key> = before.keys.keys().chain(after.keys.keys()).collect();
        let keys = keys.into_iter().filter(|key| key.starts_with(ask.prefix));
        let differing = keys.filter(|key| seen(before, key) != seen(after, key));
        let model = differing.map(|key| {
            let (was, is) = (seen(before, key), seen(after, key));
            let tags = match (&was, &is) {
                (Some((was, before)), Some((is, after))) if was == is => Some((before.clone(), after.clone())),
                _ => None,
            };
            (key.clone(), was.map(|(number, _)| number), is.map(|(number, _)| number), tags)
        });
        let model: Vec<_> = model.collect();
        let real = self.wait(async {
            let (mut items, mut next) = (Vec::new(), None);
            let (a, b) = (store::at(&bucket_name(b), from), store::at(&bucket_name(b), to));
            for _ in 0..PAGES_MAX {
                let page = self.master().diff(&a, &b, ask.prefix, next, ask.max).await;
                let page = page.map_err(|error| format!("diff {a} {b}: {error:?}"))?;
                items.extend(page.items.into_iter().map(|item| {
                    let number = |summary: Option<Summary>| summary.map(|summary| summary.version.0);
                    let tags = item.tags.map(|(was, is)| (was.into_iter().collect(), is.into_iter().collect()));
                    (item.path.as_bytes().to_vec(), number(item.before), number(item.after), tags)
                }));
                match page.next {
                    None => return Ok(items),
                    more => next = more,
                }
            }
            Err(format!("diff {a} {b} does not end"))
        })?;
        same!(real, model, "diff {from} {to} with {ask:?}, list_rows_max {}", self.world.list_rows_max);
        Ok(())
    }

    fn compare_log(&self, b: usize) -> Verdict {
        let Some(bucket) = self.bucket(b) else { return Ok(()) };
        let range = bucket.floor.max(bucket.first + 1)..=bucket.last;
        let entries = bucket.log.range(range).rev();
        let model: Vec<_> = entries.map(|(number, what)| (*number, bucket.times[number], what.clone())).collect();
        for max in [1, 2, 100] {
            let real = self.wait(async {
                let (mut items, mut before) = (Vec::new(), None);
                for _ in 0..PAGES_MAX {
                    let page = self.master().log(&bucket_name(b), before, max).await;
                    let page = page.map_err(|error| format!("the log: {error:?}"))?;
                    items.extend(page.items);
                    match page.next {
                        None => return Ok(items),
                        more => before = more,
                    }
                }
                Err("the log does not end".to_owned())
            })?;
            let real: Vec<_> = real.into_iter().map(entry).collect();
            same!(&real, &model, "the log of {} in pages of {max}", bucket_name(b));
        }
        Ok(())
    }

    fn compare_bucket(&self, b: usize) -> Verdict {
        let info = self.wait(self.master().bucket(&bucket_name(b)));
        let Some(bucket) = self.bucket(b) else {
            same!(named(info).map(|info| info.number), Err("NoSuchBucket".to_owned()), "the bucket");
            return Ok(());
        };
        let info = info.map_err(|error| format!("the bucket: {error:?}"))?;
        let real = (info.number.0, info.floor.0, info.keep_seconds);
        same!(real, (bucket.last, bucket.floor, bucket.keep), "newest number, floor, rule of {}", bucket_name(b));
        let tags = self.wait(self.master().snapshots(&bucket_name(b)));
        let tags: Vec<_> = tags.map_err(|error| format!("the tags: {error:?}"))?;
        let tags: Vec<_> = tags.into_iter().map(|tag| (tag.tag.as_str().to_owned(), tag.number.0)).collect();
        same!(tags, bucket.tags.clone().into_iter().collect::<Vec<_>>(), "the tags of {}", bucket_name(b));
        let times = bucket.times.values().flat_map(|(_, sequence)| [sequence - 1, *sequence, sequence + 1]);
        for time in times.chain([bucket.created - 1]) {
            let real = named(self.wait(self.master().resolve(&at_time(b, time)))).map(|number| number.0);
            same!(real, bucket.at_time(time).map_err(ToOwned::to_owned), "the number at {time}");
        }
        Ok(())
    }

    fn compare_uploads(&self, b: usize) -> Verdict {
        if self.bucket(b).is_none() {
            return Ok(());
        }
        let mut model: Vec<_> = self.uploads.iter().filter(|(_, upload)| upload.bucket == b).collect();
        model.sort_by_key(|(id, upload)| (upload.key.clone(), *id));
        let real = self.wait(async {
            let (mut items, mut after) = (Vec::new(), None::<AfterUpload>);
            for _ in 0..PAGES_MAX {
                let query = UploadsQuery { prefix: Vec::new(), delimiter: None, after, max: 1 };
                let page = self.master().list_uploads(&bucket_name(b), query).await;
                let page = page.map_err(|error| format!("the uploads: {error:?}"))?;
                items.extend(page.items.into_iter().filter_map(|item| match item {
                    UploadItem::Upload(info) => Some((info.upload, info.path.as_bytes().to_vec(), info.begun.0)),
                    UploadItem::Prefix(_) => None,
                }));
                match page.next {
                    None => return Ok(items),
                    more => after = more,
                }
            }
            Err("the uploads do not end".to_owned())
        })?;
        let wanted: Vec<_> = model.iter().map(|(id, upload)| (*id, upload.key.clone(), upload.begun)).collect();
        same!(real, wanted, "the uploads of {}", bucket_name(b));
        for (id, upload) in model {
            let (mut parts, mut after) = (Vec::new(), 0);
            loop {
                let (bucket, key) = (bucket_name(b), path(&upload.key));
                let page = self.wait(self.master().list_parts(&bucket, &key, *id, after, 2));
                let (_, page) = page.map_err(|error| format!("the parts: {error:?}"))?;
                parts.extend(page.items.into_iter().map(|part| (part.number, part.size)));
                match page.next {
                    None => break,
                    Some(next) => after = next,
                }
            }
            let wanted: Vec<_> = upload.parts.iter().map(|(n, c)| (*n, content(*c).bytes.len() as u64)).collect();
            same!(parts, wanted, "the parts of {:?}", upload.key.escape_ascii().to_string());
        }
        Ok(())
    }

    /// Every number of every bucket, first as it is, then with everything folded.
    pub fn compare_all(&mut self) -> Verdict {
        for b in 0..BUCKETS {
            let numbers: Vec<u64> = self
                .bucket(b)
                .map_or(Vec::new(), |bucket| (bucket.first.saturating_sub(1)..=bucket.last + 1).collect());
            self.compare_state(b, None)?;
            for number in &numbers {
                self.compare_state(b, Some(*number))?;
            }
            for pair in numbers.windows(2) {
                self.compare_diff(b, pair[0], pair[1])?;
            }
            if let [first, .., last] = numbers[..] {
                self.compare_diff(b, first.max(1), last - 1)?;
                self.compare_diff(b, last - 1, (first + last) / 2)?;
            }
            self.compare_past(b, None)?;
            for number in &numbers {
                self.compare_past(b, Some(*number))?;
            }
            self.compare_log(b)?;
            self.compare_bucket(b)?;
            self.compare_uploads(b)?;
        }
        self.no_findings()
    }

    fn no_findings(&self) -> Verdict {
        let found = self.wait(findings(self.master())).map_err(|error| format!("check: {error:?}"))?;
        same!(found, Vec::<String>::new(), "check");
        Ok(())
    }

    /// All of it, and once more with everything collected that may be: nothing but what lives has space.
    pub fn compare_at_the_end(&mut self) -> Verdict {
        let ends = |when: &'static str| move |what: String| format!("{when}: {what}");
        self.compare_all().map_err(ends("at the end"))?;
        self.quiesce().map_err(ends("settling at the end"))?;
        self.compare_all().map_err(ends("settled at the end"))?;
        self.compare_usage(false).map_err(ends("settled at the end"))?;
        self.collect(true, None, false).map_err(ends("collecting at the end"))?;
        self.compare_all().map_err(ends("collected at the end"))?;
        for b in 0..BUCKETS {
            let tags: Vec<_> = self.buckets[b].iter_mut().flat_map(|bucket| std::mem::take(&mut bucket.tags)).collect();
            for (tag, _) in tags {
                let tag = tag.parse().map_err(|error| format!("{error}"))?;
                same!(named(self.wait(self.master().remove_tag(&bucket_name(b), &tag))), Ok(()), "untag");
            }
        }
        // What the first pass marked or moved, the second gives back.
        self.collect(true, None, false).map_err(ends("collecting without tags"))?;
        self.collect(true, None, false).map_err(ends("collecting once more"))?;
        self.compare_all().map_err(ends("collected without tags"))?;
        self.compare_usage(true).map_err(ends("collected without tags"))?;
        self.restart(true)?;
        self.compare_all().map_err(ends("restarted at the end"))?;
        self.compare_usage(true).map_err(ends("restarted at the end"))
    }

    /// Objects and bytes; where everything was collected, also that nothing else has space.
    fn compare_usage(&self, collected: bool) -> Verdict {
        let usage = self.wait(self.master().usage()).map_err(|error| format!("usage: {error:?}"))?;
        let states: Vec<&State> = self.buckets.iter().flatten().map(Bucket::now).collect();
        let objects = states.iter().flat_map(|state| state.objects());
        let model = objects.fold((0, 0), |(count, bytes), (_, _, object)| (count + 1, bytes + object.size()));
        same!((usage.objects, usage.object_bytes), model, "objects and bytes");
        if !collected {
            return Ok(());
        }
        let versions = states.iter().flat_map(|state| state.keys.values().flatten());
        let objects = versions.filter_map(|version| version.object.as_ref());
        let lists: u64 = objects.clone().filter(|object| object.contents.len() > 100).count() as u64;
        let contents = objects.flat_map(|object| object.contents.iter().copied());
        let parts = self.uploads.iter().flat_map(|(_, upload)| upload.parts.values().copied());
        let (mut files, mut small, mut slots) = (BTreeSet::new(), 0, 0);
        for index in contents.chain(parts) {
            let length = content(index).bytes.len() as u64;
            if length > SMALL_BODY_MAX {
                files.insert(index);
            } else if length > 0 {
                small += length;
                slots += 1;
            }
        }
        let file_bytes: u64 = files.iter().map(|index| content(*index).bytes.len() as u64).sum();
        same!((usage.files, usage.file_bytes), (files.len() as u64, file_bytes), "files and their bytes");
        if lists == 0 {
            same!(usage.segment_live_bytes, small, "live bytes in segments");
        }
        // A segment is copied when less than four fifths of it live.
        let live = usage.segment_live_bytes + 40 * (slots + lists);
        if usage.segment_bytes * 4 > live * 5 + 4 {
            return Err(format!("segments have {} bytes, of which {live} live", usage.segment_bytes));
        }
        Ok(())
    }
}

type Description = (u64, VersionName, u64, String, u64, Vec<(String, String)>, usize, u64);

fn described(version: &Found) -> Description {
    let record = &version.record;
    (
        version.number.0,
        version.name,
        record.size,
        record.etag.to_string(),
        record.modified.0,
        record.metadata.clone(),
        version.tag_count,
        version.at.0,
    )
}

fn wanted_description(version: &Version, object: &Object, at: u64) -> Description {
    (
        version.number,
        version_name(version.name()),
        object.size(),
        object.etag(),
        object.modified,
        object.metadata.clone(),
        version.tags().len(),
        at,
    )
}

/// An entry of the log in the model's words.
fn entry(entry: LogEntry) -> (u64, (u64, u64), Logged) {
    let key = |path: federation::types::ObjectPath| path.as_bytes().to_vec();
    let what = match entry.what {
        LogChange::Put { path, size, etag } => Logged::Put(key(path), size, etag.to_string()),
        LogChange::Delete { path, marker } => Logged::Delete(key(path), marker),
        LogChange::RemoveVersion { path, version } => Logged::Remove(
            key(path),
            match version {
                VersionName::Null => Name::Null,
                VersionName::Number(Number(number)) => Name::Number(number),
            },
        ),
        LogChange::Attributes { path, version, attributes } => {
            Logged::Tags(key(path), version.0, attributes.tags.unwrap_or_default())
        }
        LogChange::Config { name } => Logged::Config(match name {
            ConfigName::Versioning => "Versioning",
            ConfigName::Tagging => "Tagging",
            ConfigName::Keep => "Keep",
        }),
        LogChange::Commit { message, keys } => Logged::Commit(message, keys.unwrap_or(0)),
        LogChange::Restore { source, prefix } => Logged::Restore(source.0, prefix),
        LogChange::Purge { .. } => Logged::Config("Purge"),
    };
    (entry.number.0, (entry.time.wall.0, entry.time.sequence.0), what)
}
