//! What a power failure left, opened and compared with what was acknowledged before it.

use std::collections::BTreeSet;

use federation::disk::{CrashPlan, SimulatedDisk};
use federation::error::Error;
use federation::master::{AfterUpload, CollectOptions, ListItem, ListQuery, Master, UploadItem, UploadsQuery, Which};
use federation::types::{BucketAt, BucketName, SMALL_BODY_MAX, UploadId};

use super::super::model::state::{Key, State};
use super::super::store::{at, content, findings, newest, path, put, read};
use super::workload::{BUCKETS, Workload, bucket_name};
use super::{open_inline, runtime};

type Random<'a> = &'a mut dyn FnMut() -> u64;
type Verdict<T = ()> = Result<T, String>;

fn told(doing: &str) -> impl Fn(Error) -> String + '_ {
    move |error| format!("{doing}: {error:?}")
}

fn below(random: Random<'_>, bound: u64) -> u64 {
    (random() >> 32) % bound
}

/// Compares what a crash after `ops` operations left. Sometimes the power goes again while it is being opened.
pub fn compare(workload: &Workload, mut disk: SimulatedDisk, ops: usize, random: Random<'_>) -> Verdict {
    if below(random, 5) == 0 {
        runtime().block_on(open_inline(&disk, ops as u64)).map_err(told("opening the first time"))?;
        let again = below(random, disk.ops() as u64 + 1) as usize;
        disk = disk.crash_at(again, random, CrashPlan::Random);
    }
    runtime().block_on(async {
        let master = open_inline(&disk, ops as u64).await.map_err(told("opening"))?;
        let lasts = acknowledged(workload, &master, ops).await?;
        for (b, last) in lasts.iter().enumerate() {
            states(workload, &master, b, *last, random).await?;
        }
        no_findings(&master).await?;
        goes_on(workload, &master, &lasts, random).await
    })
}

/// Everything acknowledged before the crash is there. Returns the newest number of each bucket.
async fn acknowledged(workload: &Workload, master: &Master, ops: usize) -> Verdict<[u64; BUCKETS]> {
    let mut lasts = [0; BUCKETS];
    for (b, last) in lasts.iter_mut().enumerate() {
        *last = master.bucket(&bucket_name(b)).await.map_err(told("the bucket"))?.number.0;
        if *last > workload.buckets[b].last {
            return Err(format!("{} is at {last}, further than it ever was", bucket_name(b)));
        }
    }
    for ack in workload.numbers.iter().filter(|ack| ack.ops <= ops) {
        let (b, number) = ack.what;
        if number > lasts[b] {
            return Err(format!("{}@{number} was acknowledged; the newest is {}", bucket_name(b), lasts[b]));
        }
    }
    for ack in workload.tags.iter().filter(|ack| ack.ops <= ops) {
        let (b, tag, number) = &ack.what;
        let tags = master.snapshots(&bucket_name(*b)).await.map_err(told("the tags"))?;
        if !tags.iter().any(|there| there.tag == *tag && there.number.0 == *number) {
            return Err(format!("tag {tag} of {} was acknowledged and is not there", bucket_name(*b)));
        }
    }
    for ack in workload.parts.iter().filter(|ack| ack.ops <= ops) {
        let part = &ack.what;
        if workload.ending.get(&part.upload).is_some_and(|ending| *ending <= ops) {
            continue;
        }
        let (bucket, key) = (bucket_name(part.bucket), path(&part.key));
        let (_, page) =
            master.list_parts(&bucket, &key, part.upload, 0, 100).await.map_err(told("an upload that was begun"))?;
        let size = content(part.content).bytes.len() as u64;
        if !page.items.iter().any(|there| there.number == part.number && there.size == size) {
            return Err(format!("part {} of {key} was acknowledged and is not there", part.number));
        }
    }
    Ok(lasts)
}

/// Every number from the floor on and every tagged one is whole: each by the key it was about, some by everything.
async fn states(workload: &Workload, master: &Master, b: usize, last: u64, random: Random<'_>) -> Verdict {
    let (name, bucket) = (bucket_name(b), &workload.buckets[b]);
    let floor = master.bucket(&name).await.map_err(told("the bucket"))?.floor.0;
    for number in floor..=last {
        let state = &bucket.states[&number];
        let keys: Vec<&Key> = state.keys.keys().collect();
        if !keys.is_empty() {
            let key = keys[(number % keys.len() as u64) as usize];
            key_is(master, &at(&name, number), state, key).await?;
        }
    }
    let tags = master.snapshots(&name).await.map_err(told("the tags"))?;
    let mut whole: BTreeSet<u64> = [last, floor, floor + below(random, last - floor + 1)].into();
    if !tags.is_empty() {
        whole.insert(tags[below(random, tags.len() as u64) as usize].number.0);
    }
    for number in whole {
        state_is(master, &at(&name, number), &bucket.states[&number]).await?;
    }
    state_is(master, &newest(&name), &bucket.states[&last]).await
}

/// A state's listing, and all bodies in it.
async fn state_is(master: &Master, at: &BucketAt, state: &State) -> Verdict {
    let query = ListQuery { max: 1000, ..ListQuery::default() };
    let page = master.list(at, query).await.map_err(told("a listing"))?;
    let there = page.items.into_iter().filter_map(|item| match item {
        ListItem::Object(path, summary) => {
            Some((path.as_bytes().to_vec(), summary.version.0, summary.size, summary.etag.to_string()))
        }
        ListItem::Prefix(_) => None,
    });
    let there: Vec<_> = there.collect();
    let wanted = state.objects().into_iter();
    let wanted: Vec<_> =
        wanted.map(|(key, version, object)| (key.clone(), version.number, object.size(), object.etag())).collect();
    if there != wanted {
        return Err(format!("{at} lists {there:?}; it was {wanted:?}"));
    }
    for key in state.keys.keys() {
        key_is(master, at, state, key).await?;
    }
    Ok(())
}

async fn key_is(master: &Master, at: &BucketAt, state: &State, key: &[u8]) -> Verdict {
    let what = || format!("{} of {at}", key.escape_ascii());
    let found = master.get(at, &path(key), Which::Newest).await;
    match (found, state.live(key)) {
        (Err(Error::NoSuchKey { .. } | Error::DeleteMarker { .. }), None) => Ok(()),
        (Ok(opened), Some((version, object))) => {
            let number = opened.version.number.0;
            if number != version.number || opened.version.record.tags != version.tags() {
                return Err(format!("{} is version {number}; it was {version:?}", what()));
            }
            let bytes = read(opened).await.map_err(told(&what()))?;
            if bytes != object.bytes() {
                return Err(format!("the bytes of {} are not what was written", what()));
            }
            Ok(())
        }
        (found, wanted) => Err(format!("{}: {found:?}; it was {wanted:?}", what())),
    }
}

async fn no_findings(master: &Master) -> Verdict {
    let found = findings(master).await.map_err(told("check"))?;
    if found.is_empty() { Ok(()) } else { Err(format!("check finds {found:?}")) }
}

/// A further write gets a further number, what was under way is folded, and the collector leaves nothing over.
async fn goes_on(workload: &Workload, master: &Master, lasts: &[u64; BUCKETS], random: Random<'_>) -> Verdict {
    for (b, last) in lasts.iter().enumerate() {
        let written = put(master, &bucket_name(b), &path(b"new"), content(1)).await;
        let number = written.map_err(told("a further write"))?.number.0;
        if number != last + 1 {
            return Err(format!("{} was at {last}, a further write got {number}", bucket_name(b)));
        }
    }
    if below(random, 4) > 0 {
        return Ok(());
    }
    master.settle_all().await.map_err(told("folding"))?;
    no_findings(master).await?;
    // What the first pass marks and moves, the second gives back.
    for _ in 0..2 {
        let options = CollectOptions { now: true, bucket: None, dry: false };
        let report = master.collect(options).await.map_err(told("collecting"))?;
        if let Some(warning) = report.warning {
            return Err(warning);
        }
    }
    no_findings(master).await?;
    let mut large = BTreeSet::new();
    for (b, refused) in lasts.iter().copied().enumerate() {
        let name = bucket_name(b);
        state_is_kept(workload, master, b, refused, &mut large).await?;
        let tags = master.snapshots(&name).await.map_err(told("the tags"))?;
        let tagged = tags.iter().any(|tag| tag.number.0 == refused);
        match master.resolve(&at(&name, refused)).await {
            Err(Error::BelowFloor { .. }) if !tagged => {}
            Ok(_) if tagged => {}
            other => return Err(format!("{name}@{refused} below the floor: {other:?}")),
        }
        parts_in_progress(workload, master, &name, &mut large).await?;
    }
    let usage = master.usage().await.map_err(told("usage"))?;
    if usage.files != large.len() as u64 {
        return Err(format!("{} body files, and {} contents that need one", usage.files, large.len()));
    }
    Ok(())
}

/// After a collection the newest state and the tagged ones are whole; adds the large contents that they need.
async fn state_is_kept(
    workload: &Workload,
    master: &Master,
    b: usize,
    last: u64,
    large: &mut BTreeSet<usize>,
) -> Verdict {
    let (name, bucket) = (bucket_name(b), &workload.buckets[b]);
    let tags = master.snapshots(&name).await.map_err(told("the tags"))?;
    let tagged: BTreeSet<u64> = tags.into_iter().map(|tag| tag.number.0).collect();
    for number in &tagged {
        state_is(master, &at(&name, *number), &bucket.states[number]).await?;
    }
    let now = &bucket.states[&last];
    for key in now.keys.keys() {
        key_is(master, &newest(&name), now, key).await?;
    }
    let states = tagged.iter().map(|number| &bucket.states[number]).chain([now]);
    let objects = states.flat_map(|state| state.keys.values().flatten()).filter_map(|version| version.object.as_ref());
    large.extend(objects.flat_map(|object| object.contents.iter().copied().filter(|c| is_large(*c))));
    Ok(())
}

fn is_large(index: usize) -> bool {
    content(index).bytes.len() as u64 > SMALL_BODY_MAX
}

/// Adds the large contents that uploads in progress need.
async fn parts_in_progress(
    workload: &Workload,
    master: &Master,
    name: &BucketName,
    large: &mut BTreeSet<usize>,
) -> Verdict {
    let query = UploadsQuery { prefix: Vec::new(), delimiter: None, after: None::<AfterUpload>, max: 1000 };
    let page = master.list_uploads(name, query).await.map_err(told("the uploads"))?;
    let uploads = page.items.into_iter().filter_map(|item| match item {
        UploadItem::Upload(info) => Some((info.upload, info.path)),
        UploadItem::Prefix(_) => None,
    });
    for (upload, key) in uploads {
        let (_, parts) = master.list_parts(name, &key, upload, 0, 100).await.map_err(told("the parts"))?;
        for part in parts.items {
            let index = content_of(workload, upload, part.number).ok_or("a part that nobody uploaded")?;
            large.extend(Some(index).filter(|index| is_large(*index)));
        }
    }
    Ok(())
}

fn content_of(workload: &Workload, upload: UploadId, number: u16) -> Option<usize> {
    let mut parts = workload.parts.iter().map(|ack| &ack.what);
    parts.find(|part| part.upload == upload && part.number == number).map(|part| part.content)
}
