//! `elton snapshot`

use std::collections::BTreeMap;

use federation::types::{BucketAt, SnapshotRef};
use gateway::admin::shape::{
    CreateSnapshot, Diff, Difference, DifferenceKind, ObjectState, Restore, Restored, Snapshot, Snapshots, Tag,
};
use http::Method;

use super::short_time;
use crate::Failure;
use crate::cli::{SnapshotArgs, SnapshotCommand};
use crate::client::{Client, Path, Patience};
use crate::output::units::{ByteSize, count};
use crate::output::{Align, Listing, Output, Table, progress};

/// Runs a command of `elton snapshot`.
pub async fn run(arguments: &SnapshotArgs) -> Result<(), Failure> {
    let command = Command::new(&arguments.command)?;
    let client = Client::new(&arguments.client)?;
    let output = Output::new(arguments.client.json);
    match command {
        Command::Create { at, request } => {
            let path = Path::new(&["buckets", at.bucket.as_str(), "snapshots"]);
            let made: Snapshot = client.call(Method::POST, &path, &request, Patience::Ordinary).await?;
            output.show(&made, facts)?;
        }
        Command::List { bucket } => {
            let path = Path::new(&["buckets", bucket, "snapshots"]);
            let snapshots: Snapshots = client.get(&path, Patience::Ordinary).await?;
            output.show(&snapshots, list)?;
        }
        Command::Diff { bucket, from, to, prefix } => {
            let path = Path::new(&["buckets", bucket, "diff"]).with("from", from).with_some("to", to);
            let path = if prefix.is_empty() { path } else { path.with("prefix", prefix) };
            diff(&client, output, path).await?;
        }
        Command::Show { bucket, snapshot, count } => {
            let path = Path::new(&["buckets", bucket, "snapshots", &snapshot.to_string()]);
            let path = if count { path.with("count", true) } else { path };
            let _progress = progress::spinner("counting objects");
            let snapshot: Snapshot = client.get(&path, Patience::Endless).await?;
            drop(_progress);
            output.show(&snapshot, facts)?;
        }
        Command::Restore { bucket, request } => {
            let path = Path::new(&["buckets", bucket, "restore"]);
            let progress = progress::spinner("restoring");
            let restored: Restored = client.call(Method::POST, &path, &request, Patience::Endless).await?;
            drop(progress);
            output.show(&restored, |restored| restored_line(restored, &request))?;
        }
        Command::Remove { bucket, tag } => {
            client.delete(&Path::new(&["buckets", bucket, "snapshots", &tag])).await?;
            output.show(&serde_json::json!({ "bucket": bucket, "removed": tag }), |_| format!("removed {tag}\n"))?;
        }
    }
    Ok(())
}

/// A command whose snapshots are known to be there where they are needed.
enum Command<'a> {
    Create { at: &'a BucketAt, request: CreateSnapshot },
    List { bucket: &'a str },
    Diff { bucket: &'a str, from: &'a SnapshotRef, to: Option<&'a SnapshotRef>, prefix: &'a str },
    Show { bucket: &'a str, snapshot: &'a SnapshotRef, count: bool },
    Restore { bucket: &'a str, request: Restore },
    Remove { bucket: &'a str, tag: String },
}

impl<'a> Command<'a> {
    fn new(command: &'a SnapshotCommand) -> Result<Self, Failure> {
        Ok(match command {
            SnapshotCommand::Create { bucket, tag, message } => Command::Create {
                at: bucket,
                request: CreateSnapshot {
                    snapshot: bucket.snapshot.as_ref().map(ToString::to_string),
                    tag: tag.as_ref().map(ToString::to_string),
                    message: message.clone(),
                },
            },
            SnapshotCommand::Ls { bucket } => Command::List { bucket: bucket.as_str() },
            SnapshotCommand::Diff { from, to, .. } if from.bucket != to.bucket => {
                let text = format!("{from} and {to} are of different buckets; a diff is of two states of one");
                return Err(Failure::Usage(text));
            }
            SnapshotCommand::Diff { from, to, prefix } => {
                Command::Diff { bucket: from.bucket.as_str(), from: named(from)?, to: to.snapshot.as_ref(), prefix }
            }
            SnapshotCommand::Show { snapshot, count } => {
                Command::Show { bucket: snapshot.bucket.as_str(), snapshot: named(snapshot)?, count: *count }
            }
            SnapshotCommand::Restore { snapshot, prefix } => Command::Restore {
                bucket: snapshot.bucket.as_str(),
                request: Restore { snapshot: named(snapshot)?.to_string(), prefix: prefix.clone() },
            },
            SnapshotCommand::Rm { tag } => match named(tag)? {
                SnapshotRef::Tag(name) => Command::Remove { bucket: tag.bucket.as_str(), tag: name.to_string() },
                SnapshotRef::Number(_) | SnapshotRef::Time(_) => {
                    let text = "only tags can be removed; `elton gc` ends numbers by the bucket's rule";
                    return Err(Failure::Usage(text.to_owned()));
                }
            },
        })
    }
}

fn named(at: &BucketAt) -> Result<&SnapshotRef, Failure> {
    at.snapshot.as_ref().ok_or_else(|| {
        let bucket = &at.bucket;
        Failure::Usage(format!("{bucket} names no snapshot: say {bucket}@NUMBER, {bucket}@TAG or {bucket}@TIME"))
    })
}

fn facts(snapshot: &Snapshot) -> String {
    let mut facts = vec![("snapshot", format!("{}@{}", snapshot.bucket, snapshot.number))];
    for tag in &snapshot.tags {
        let message = if tag.message.is_empty() { String::new() } else { format!(": {}", tag.message) };
        facts.push(("tag", format!("{}{message}", tag.tag)));
    }
    if let Some(time) = &snapshot.time {
        let actor = snapshot.actor.as_deref().unwrap_or("unknown");
        facts.push(("issued", format!("{} for {actor}", short_time(time))));
    }
    if let (Some(objects), Some(bytes)) = (snapshot.objects, snapshot.bytes) {
        facts.push(("objects", format!("{} ({})", count(objects), ByteSize(bytes))));
    }
    facts.push(("S3 bucket", snapshot.alias.clone()));
    let lasts = match snapshot.ends {
        true => "until it falls below the bucket's floor; a tag keeps it",
        false => "as long as it has a tag",
    };
    facts.push(("lasts", lasts.to_owned()));
    Table::facts(facts)
}

fn list(snapshots: &Snapshots) -> String {
    let mut table = Table::new(&[
        ("TAG", Align::Left),
        ("NUMBER", Align::Right),
        ("CREATED", Align::Left),
        ("BY", Align::Left),
        ("MESSAGE", Align::Left),
    ]);
    for Tag { tag, number, created, actor, message } in &snapshots.tags {
        table.row([tag.clone(), number.to_string(), short_time(created), actor.clone(), message.clone()]);
    }
    let Snapshots { bucket, floor, number, .. } = snapshots;
    let numbers = format!("every number of {bucket} from {floor} to {number} is a snapshot, too\n");
    if table.is_empty() { numbers } else { format!("{}{numbers}", table.render()) }
}

fn restored_line(restored: &Restored, request: &Restore) -> String {
    let Restored { bucket, number, changed } = restored;
    let what = match request.prefix.as_str() {
        "" => bucket.clone(),
        prefix => format!("{bucket} below {prefix}"),
    };
    match changed {
        true => format!("{what} is as it was at {}; that is its change {number}\n", request.snapshot),
        false => format!("nothing changed: {what} is as it was at {} already\n", request.snapshot),
    }
}

async fn diff(client: &Client, output: Output, path: Path) -> Result<(), Failure> {
    let mut listing = Listing::begin(output);
    let mut after: Option<String> = None;
    loop {
        let page: Diff = client.get(&path.clone().with_some("after", after), Patience::Endless).await?;
        for difference in &page.differences {
            listing.item(difference, difference_line)?;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    listing.end()?;
    Ok(())
}

fn difference_line(difference: &Difference) -> String {
    let size = |state: &ObjectState| ByteSize(state.size);
    let key = &difference.key;
    if difference.kind == DifferenceKind::Tags {
        let tags = |state: &Option<ObjectState>| tags_line(state.as_ref().and_then(|state| state.tags.as_ref()));
        return format!("t {key} ({} -> {})\n", tags(&difference.before), tags(&difference.after));
    }
    match (&difference.before, &difference.after) {
        (None, Some(after)) => format!("+ {key} ({})\n", size(after)),
        (Some(before), None) => format!("- {key} ({})\n", size(before)),
        (Some(before), Some(after)) if before.size == after.size => format!("~ {key} ({})\n", size(after)),
        (Some(before), Some(after)) => format!("~ {key} ({} -> {})\n", size(before), size(after)),
        (None, None) => format!("  {key}\n"),
    }
}

fn tags_line(tags: Option<&BTreeMap<String, String>>) -> String {
    let pairs: Vec<_> = tags.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "no tags".to_owned() } else { pairs.join(" ") }
}

#[cfg(test)]
mod tests {
    use gateway::admin::shape::Key;

    use super::*;

    fn at(text: &str) -> BucketAt {
        text.parse().expect("lawful")
    }

    #[test]
    fn what_needs_a_snapshot_or_a_tag_says_so() {
        let show = SnapshotCommand::Show { snapshot: at("photos"), count: false };
        assert!(matches!(Command::new(&show), Err(Failure::Usage(text)) if text.contains("photos@NUMBER")));
        let remove = SnapshotCommand::Rm { tag: at("photos@42") };
        assert!(Command::new(&remove).is_err());
        let diff = SnapshotCommand::Diff { from: at("photos@1"), to: at("films"), prefix: String::new() };
        assert!(Command::new(&diff).is_err());
    }

    #[test]
    fn differences_are_one_line_each() {
        use DifferenceKind::{Added, Tags, Written};
        let state = |size| ObjectState { version: 1, size, etag: "e".into(), modified: "t".into(), tags: None };
        let line = |kind, before, after| difference_line(&Difference { key: Key::new(b"k"), kind, before, after });
        assert_eq!(line(Added, None, Some(state(1))), "+ k (1 B)\n");
        assert_eq!(line(DifferenceKind::Removed, Some(state(1)), None), "- k (1 B)\n");
        assert_eq!(line(Written, Some(state(1)), Some(state(2048))), "~ k (1 B -> 2.0 KiB)\n");
        let tagged = |pairs: &[(&str, &str)]| {
            let tags = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            Some(ObjectState { tags: Some(tags), ..state(1) })
        };
        assert_eq!(line(Tags, tagged(&[]), tagged(&[("a", "1"), ("b", "2")])), "t k (no tags -> a=1 b=2)\n");
    }
}
