//! `elton bucket`

use std::time::Duration;

use federation::types::{BucketName, Consistency};
use gateway::admin::shape::{
    Bucket, BucketDetails, Buckets, Change, CreateBucket, CreateLink, Link, Log, LogEntry, SetBucket, SetShare,
    VersioningState,
};
use http::Method;

use super::short_time;
use crate::Failure;
use crate::cli::{BucketArgs, BucketCommand, Keep, VersioningChange};
use crate::client::{Client, Path, Patience};
use crate::output::units::{ByteSize, TimeSpan, count};
use crate::output::{Align, Listing, Output, Table};

/// Entries of the log that are asked for at a time.
const LOG_PAGE: u64 = 500;

/// Runs a command of `elton bucket`.
pub async fn run(arguments: &BucketArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.client)?;
    let output = Output::new(arguments.client.json);
    match &arguments.command {
        BucketCommand::Create { bucket, location } => {
            let request = CreateBucket { name: bucket.to_string(), location: location.clone() };
            let path = Path::new(&["buckets"]);
            let created: Bucket = client.call(Method::POST, &path, &request, Patience::Ordinary).await?;
            output.show(&created, |bucket| format!("created {}\n", bucket.name))?;
        }
        BucketCommand::Ls => {
            let Buckets { buckets } = client.get(&Path::new(&["buckets"]), Patience::Ordinary).await?;
            output.show(&buckets, |buckets| list(buckets))?;
        }
        BucketCommand::Info { bucket } => {
            let bucket: BucketDetails = client.get(&of(bucket), Patience::Ordinary).await?;
            output.show(&bucket, facts)?;
        }
        BucketCommand::Set { bucket, keep, versioning, consistency } => {
            let request = change(*keep, *versioning, *consistency)?;
            let changed: BucketDetails = client.call(Method::PATCH, &of(bucket), &request, Patience::Ordinary).await?;
            output.show(&changed, facts)?;
        }
        BucketCommand::Share { bucket, with, ro, rw, withdraw } => {
            let request = SetShare { cluster: with.clone(), rights: rights(*ro, *rw, *withdraw)? };
            let path = Path::new(&["buckets", bucket.as_str(), "shares"]);
            let shared: BucketDetails = client.call(Method::POST, &path, &request, Patience::Ordinary).await?;
            output.show(&shared, facts)?;
        }
        BucketCommand::Link { remote, name } => {
            let name = name.as_ref().unwrap_or(&remote.bucket);
            let request = CreateLink {
                cluster: remote.cluster.to_string(),
                remote: remote.bucket.to_string(),
                bucket: name.to_string(),
            };
            let path = Path::new(&["links"]);
            let linked: BucketDetails = client.call(Method::POST, &path, &request, Patience::Ordinary).await?;
            output.show(&linked, facts)?;
        }
        BucketCommand::Unlink { bucket } => {
            client.delete(&Path::new(&["links", bucket.as_str()])).await?;
            output.show(&Unlinked { bucket: bucket.to_string() }, |gone| format!("unlinked {}\n", gone.bucket))?;
        }
        BucketCommand::Log { bucket, before, max, all } => {
            let max = if *all { u64::MAX } else { *max };
            log(&client, output, bucket, *before, max).await?;
        }
    }
    Ok(())
}

fn of(bucket: &BucketName) -> Path {
    Path::new(&["buckets", bucket.as_str()])
}

/// A link that is no more.
#[derive(serde::Serialize)]
struct Unlinked {
    bucket: String,
}

fn rights(ro: bool, rw: bool, withdraw: bool) -> Result<Option<String>, Failure> {
    match (ro, rw, withdraw) {
        (true, _, _) => Ok(Some("ro".to_owned())),
        (_, true, _) => Ok(Some("rw".to_owned())),
        (_, _, true) => Ok(None),
        (false, false, false) => Err(Failure::Usage("say what it may do: --ro, --rw or --withdraw".to_owned())),
    }
}

fn change(
    keep: Option<Keep>,
    versioning: Option<VersioningChange>,
    consistency: Option<Consistency>,
) -> Result<SetBucket, Failure> {
    if keep.is_none() && versioning.is_none() && consistency.is_none() {
        return Err(Failure::Usage("nothing to change: name --keep, --versioning or --consistency".to_owned()));
    }
    let keep_seconds = keep.map(|keep| match keep {
        Keep::Default => None,
        Keep::Seconds(seconds) => Some(seconds),
    });
    let versioning = versioning.map(|versioning| match versioning {
        VersioningChange::Enabled => VersioningState::Enabled,
        VersioningChange::Suspended => VersioningState::Suspended,
    });
    Ok(SetBucket { keep_seconds, versioning, consistency: consistency.map(|consistency| consistency.to_string()) })
}

fn list(buckets: &[Bucket]) -> String {
    let mut table = Table::new(&[
        ("BUCKET", Align::Left),
        ("OBJECTS", Align::Right),
        ("SIZE", Align::Right),
        ("NUMBER", Align::Right),
        ("FLOOR", Align::Right),
        ("VERSIONING", Align::Left),
        ("CREATED", Align::Left),
    ]);
    for bucket in buckets {
        let [objects, bytes, number, floor] = match &bucket.home {
            None => [
                count(bucket.objects),
                ByteSize(bucket.bytes).to_string(),
                bucket.number.to_string(),
                bucket.floor.to_string(),
            ],
            Some(home) => ["".to_owned(), format!("at {home}"), "".to_owned(), "".to_owned()],
        };
        table.row([
            bucket.name.clone(),
            objects,
            bytes,
            number,
            floor,
            versioning(bucket.versioning).to_owned(),
            short_time(&bucket.created),
        ]);
    }
    if table.is_empty() { "no buckets yet; `elton bucket create NAME` makes one\n".to_owned() } else { table.render() }
}

fn versioning(state: VersioningState) -> &'static str {
    match state {
        VersioningState::Off => "off",
        VersioningState::Enabled => "enabled",
        VersioningState::Suspended => "suspended",
    }
}

fn facts(details: &BucketDetails) -> String {
    let ties = details.link.iter().map(|link| {
        let Link { home, remote, consistency, .. } = link;
        ("linked", format!("to {home}/{remote}, which numbers it; reads are {consistency}"))
    });
    let shares = details.shares.iter().map(|share| ("shared", format!("with {}, {}", share.cluster, share.rights)));
    let ties: Vec<_> = ties.chain(shares).collect();
    let own = match details.bucket.home {
        None => own_facts(&details.bucket),
        Some(_) => Table::facts([("bucket", details.bucket.name.clone()), ("id", details.bucket.id.clone())]),
    };
    if ties.is_empty() { own } else { format!("{own}{}", Table::facts(ties)) }
}

fn own_facts(bucket: &Bucket) -> String {
    let keep = match bucket.keep_seconds {
        None => "the server's default".to_owned(),
        Some(0) => "nothing".to_owned(),
        Some(seconds) => TimeSpan(Duration::from_secs(seconds)).to_string(),
    };
    let location = if bucket.location.is_empty() { "none".to_owned() } else { bucket.location.clone() };
    Table::facts([
        ("bucket", bucket.name.clone()),
        ("id", bucket.id.clone()),
        ("created", short_time(&bucket.created)),
        ("location", location),
        ("objects", format!("{} ({})", count(bucket.objects), ByteSize(bucket.bytes))),
        ("versioning", versioning(bucket.versioning).to_owned()),
        ("newest number", format!("{}, {}", bucket.number, short_time(&bucket.changed))),
        ("floor", format!("{}; every number from it on is a snapshot", bucket.floor)),
        ("keep", keep),
        ("term", bucket.term.to_string()),
    ])
}

async fn log(
    client: &Client,
    output: Output,
    bucket: &BucketName,
    mut before: Option<u64>,
    max: u64,
) -> Result<(), Failure> {
    let mut listing = Listing::begin(output);
    let mut left = max;
    while left > 0 {
        let path = Path::new(&["buckets", bucket.as_str(), "log"]).with("max", left.min(LOG_PAGE));
        let page: Log = client.get(&path.with_some("before", before), Patience::Ordinary).await?;
        for entry in &page.entries {
            listing.item(entry, entry_line)?;
        }
        left = left.saturating_sub(page.entries.len() as u64);
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    listing.end()?;
    Ok(())
}

fn entry_line(entry: &LogEntry) -> String {
    format!("{:>8}  {}  {}  {}\n", entry.number, short_time(&entry.time), entry.actor, what(&entry.change))
}

fn what(change: &Change) -> String {
    match change {
        Change::Put { key, size, .. } => format!("put {key} ({})", ByteSize(*size)),
        Change::Delete { key, marker: true } => format!("delete {key} (marker)"),
        Change::Delete { key, marker: false } => format!("delete {key}"),
        Change::RemoveVersion { key, version } => format!("remove version {version} of {key}"),
        Change::Attributes { key, version, changed } => {
            format!("set {} of {key}, version {version}", changed.join(", "))
        }
        Change::Config { name } => format!("set {name} of the bucket"),
        Change::Commit { message, keys: Some(keys) } => format!("commit of {} keys: {message}", count(*keys)),
        Change::Commit { message, keys: None } => format!("commit: {message}"),
        Change::Restore { source, prefix } => match prefix.to_string().as_str() {
            "" => format!("restore all as of {source}"),
            prefix => format!("restore {prefix}… as of {source}"),
        },
        Change::Purge { key, version } => format!("purge version {version} of {key}"),
    }
}

#[cfg(test)]
mod tests {
    use gateway::admin::shape::Key;

    use super::*;

    #[test]
    fn a_change_has_to_name_something() {
        assert!(change(None, None, None).is_err());
        let request = change(Some(Keep::Default), None, None).expect("lawful");
        assert_eq!(request.keep_seconds, Some(None));
    }

    #[test]
    fn log_lines_say_what_was_done() {
        let change = Change::Put { key: Key::new(b"a/b"), size: 2048, etag: "e".into() };
        let time = "2026-11-20T10:00:00.000Z".to_owned();
        let entry = LogEntry { number: 42, time, actor: "root".into(), change };
        assert_eq!(entry_line(&entry), "      42  2026-11-20T10:00:00Z  root  put a/b (2.0 KiB)\n");
        let restore = Change::Restore { source: 7, prefix: Key::new(b"") };
        assert_eq!(what(&restore), "restore all as of 7");
    }
}
