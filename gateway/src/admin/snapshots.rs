//! Snapshots: list, create, show, remove, diff, restore.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use federation::Error;
use federation::master::{Actor, ListItem, ListQuery, LogEntry, Restored, TagInfo};
use federation::types::{ALIAS_SEPARATOR, BucketAt, BucketName, Number, ObjectPath, SnapshotRef, TagName};

use super::call::Query;
use super::error::AdminError;
use super::{Answer, Inner, shape, to_its_end};

/// Differences of a page.
const DIFF_PAGE_MAX: usize = 1000;
/// Objects of a page that is counted.
const COUNT_PAGE_OBJECTS: usize = 1000;

pub(super) async fn list(api: &Inner, bucket: &BucketName) -> Result<Answer, AdminError> {
    let (info, tags) = tokio::try_join!(api.cluster.bucket(bucket), api.cluster.snapshots(bucket))?;
    Ok(Answer::ok(&shape::Snapshots {
        bucket: bucket.to_string(),
        floor: info.floor.0,
        number: info.number.0,
        tags: tags.into_iter().map(Into::into).collect(),
    }))
}

pub(super) async fn create(
    api: &Inner,
    actor: Actor,
    bucket: BucketName,
    request: shape::CreateSnapshot,
) -> Result<Answer, AdminError> {
    let snapshot = request.snapshot.as_deref().map(str::parse).transpose().map_err(Error::from)?;
    let tag = request.tag.as_deref().map(str::parse::<TagName>).transpose().map_err(Error::from)?;
    let at = BucketAt { bucket, snapshot, consistency: None };
    let (number, _) = api.cluster.tag_snapshot(&actor, &at, tag, &request.message).await?;
    let snapshot = describe(api, at.bucket, number).await?;
    Ok(Answer::json(http::StatusCode::CREATED, &snapshot))
}

pub(super) async fn show(
    api: &Inner,
    bucket: BucketName,
    snapshot: SnapshotRef,
    count: bool,
) -> Result<Answer, AdminError> {
    let at = BucketAt::at(bucket, snapshot);
    let number = api.cluster.resolve(&at).await?;
    let mut snapshot = describe(api, at.bucket.clone(), number).await?;
    if count {
        let (objects, bytes) = count_objects(api, at.bucket, number).await?;
        (snapshot.objects, snapshot.bytes) = (Some(objects), Some(bytes));
    }
    Ok(Answer::ok(&snapshot))
}

async fn describe(api: &Inner, bucket: BucketName, number: Number) -> Result<shape::Snapshot, AdminError> {
    let tags = api.cluster.snapshots(&bucket).await?;
    let entry = entry(api, &bucket, number).await?;
    Ok(shape_of(&bucket, number, tags, entry))
}

fn shape_of(bucket: &BucketName, number: Number, tags: Vec<TagInfo>, entry: Option<LogEntry>) -> shape::Snapshot {
    let tags: Vec<shape::Tag> = tags.into_iter().filter(|tag| tag.number == number).map(Into::into).collect();
    shape::Snapshot {
        bucket: bucket.to_string(),
        number: number.0,
        alias: format!("{bucket}{ALIAS_SEPARATOR}{number}"),
        ends: tags.is_empty(),
        tags,
        time: entry.as_ref().map(|entry| entry.time.wall.to_string()),
        actor: entry.map(|entry| entry.actor),
        objects: None,
        bytes: None,
    }
}

/// The log's entry of a number; the empty bucket has none, and the log may begin later.
async fn entry(api: &Inner, bucket: &BucketName, number: Number) -> Result<Option<LogEntry>, AdminError> {
    let page = api.cluster.log(bucket, Some(number.next()), 1).await?;
    Ok(page.items.into_iter().find(|entry| entry.number == number))
}

async fn count_objects(api: &Inner, bucket: BucketName, number: Number) -> Result<(u64, u64), AdminError> {
    let at = BucketAt::at(bucket, SnapshotRef::Number(number));
    let (mut objects, mut bytes) = (0, 0);
    let mut query = ListQuery { max: COUNT_PAGE_OBJECTS, ..ListQuery::default() };
    loop {
        let page = api.cluster.list(&at, query.clone()).await?;
        for item in page.items {
            if let ListItem::Object(_, summary) = item {
                objects += 1;
                bytes += summary.size;
            }
        }
        match page.next {
            Some(after) => query.after = Some(after),
            None => return Ok((objects, bytes)),
        }
    }
}

pub(super) async fn remove(
    api: &Inner,
    actor: &Actor,
    bucket: &BucketName,
    tag: &TagName,
) -> Result<Answer, AdminError> {
    api.cluster.remove_tag(actor, bucket, tag).await?;
    Ok(Answer::nothing())
}

/// The parameters of a diff.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DiffQuery {
    from: SnapshotRef,
    to: Option<SnapshotRef>,
    prefix: Vec<u8>,
    after: Option<ObjectPath>,
    max: usize,
}

impl DiffQuery {
    pub(super) fn parse(query: &Query) -> Result<Self, AdminError> {
        let snapshot = |name: &'static str| {
            let parsed = query.get(name).map(str::parse::<SnapshotRef>).transpose();
            parsed.map_err(|error| AdminError::BadParameter { name, reason: error.to_string() })
        };
        let missing = || AdminError::BadParameter { name: "from", reason: "it is missing".to_owned() };
        Ok(DiffQuery {
            from: snapshot("from")?.ok_or_else(missing)?,
            to: snapshot("to")?,
            prefix: query.get("prefix").unwrap_or_default().as_bytes().to_vec(),
            after: query.get("after").map(parse_token).transpose()?,
            max: query.number("max")?.unwrap_or(DIFF_PAGE_MAX).clamp(1, DIFF_PAGE_MAX),
        })
    }
}

fn parse_token(token: &str) -> Result<ObjectPath, AdminError> {
    let bad =
        || AdminError::BadParameter { name: "after", reason: "it is not what the last page's `next` said".to_owned() };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    ObjectPath::try_from(bytes).map_err(|_| bad())
}

pub(super) async fn diff(api: &Inner, bucket: BucketName, query: DiffQuery) -> Result<Answer, AdminError> {
    let before = BucketAt::at(bucket.clone(), query.from);
    let after = BucketAt { bucket, snapshot: query.to, consistency: None };
    let page = api.cluster.diff(&before, &after, &query.prefix, query.after, query.max).await?;
    Ok(Answer::ok(&shape::Diff {
        differences: page.items.iter().map(Into::into).collect(),
        next: page.next.map(|path| URL_SAFE_NO_PAD.encode(path.as_bytes())),
    }))
}

pub(super) async fn restore(
    api: &Inner,
    actor: Actor,
    bucket: BucketName,
    request: shape::Restore,
) -> Result<Answer, AdminError> {
    let snapshot = request.snapshot.parse().map_err(Error::from)?;
    let at = BucketAt::at(bucket.clone(), snapshot);
    let cluster = api.cluster.clone();
    let restored = to_its_end(async move { Ok(cluster.restore(&actor, &at, request.prefix.as_bytes()).await?) });
    let Restored { number, changed } = restored.await?;
    Ok(Answer::ok(&shape::Restored { bucket: bucket.to_string(), number: number.0, changed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_diff_round_trip_and_others_are_refused() {
        let path = ObjectPath::try_from("a/b").expect("lawful");
        let token = URL_SAFE_NO_PAD.encode(path.as_bytes());
        assert_eq!(parse_token(&token).expect("ours"), path);
        assert!(parse_token("%").is_err());
        assert!(parse_token("").is_err());
    }
}
