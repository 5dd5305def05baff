//! What `elton status` says of other clusters.

use std::time::Duration;

use gateway::admin::shape::{BucketMember, Cache, LinkLag, Peers, SingleCopies, Status, Today};

use super::super::{peer, short_time};
use crate::output::units::{ByteSize, TimeSpan, count};
use crate::output::{Align, Table};

/// All of it, for people.
pub(super) fn human(status: &Status, peers: &Peers) -> String {
    let sections = [
        cache(&status.cache, status.counted_all),
        peer::links_up(&peers.peers),
        lag(&status.lag),
        members(&status.members),
        single_copies(&status.single_copies),
        status.today.as_ref().map(today).unwrap_or_default(),
    ];
    let said = sections.into_iter().filter(|section| !section.is_empty());
    said.collect::<Vec<_>>().join("\n")
}

fn cache(cache: &Cache, counted_all: bool) -> String {
    let of = |used: String, limit: Option<String>| match limit {
        Some(limit) => format!("{used} of {limit}"),
        None => used,
    };
    let at_least = if counted_all { "" } else { "at least " };
    let bytes = of(ByteSize(cache.bytes).to_string(), cache.bytes_max.map(|bytes| ByteSize(bytes).to_string()));
    let rows = of(count(cache.known_rows), cache.known_rows_max.map(count));
    Table::facts([
        ("fetched copies", format!("{at_least}{}, {bytes}", count(cache.copies))),
        ("known of links", format!("{at_least}{rows} rows")),
        ("read by others here", format!("{at_least}{} ({})", count(cache.own), ByteSize(cache.own_bytes))),
    ])
}

fn lag(links: &[LinkLag]) -> String {
    let mut table = Table::new(&[
        ("LINKED BUCKET", Align::Left),
        ("NUMBERED BY", Align::Left),
        ("KNOWN HERE", Align::Right),
        ("HEARD", Align::Left),
        ("NEWEST THERE", Align::Right),
        ("BEHIND", Align::Right),
    ]);
    for link in links {
        let heard = link.heard_seconds.map(|seconds| format!("{} ago", TimeSpan(Duration::from_secs(seconds))));
        let (newest, behind) = match link.newest {
            Some(newest) => (count(newest), count(newest.saturating_sub(link.known))),
            None => ("no answer".to_owned(), "not known".to_owned()),
        };
        table.row([
            link.bucket.clone(),
            link.home.clone(),
            count(link.known),
            heard.unwrap_or_else(|| "before the start".to_owned()),
            newest,
            behind,
        ]);
    }
    if table.is_empty() { String::new() } else { table.render() }
}

fn members(members: &[BucketMember]) -> String {
    let mut table = Table::new(&[("SHARED BUCKET", Align::Left), ("WITH", Align::Left), ("RIGHTS", Align::Left)]);
    for member in members {
        table.row([member.bucket.clone(), member.cluster.clone(), member.rights.clone()]);
    }
    if table.is_empty() { String::new() } else { table.render() }
}

fn single_copies(buckets: &[SingleCopies]) -> String {
    let mut table = Table::new(&[
        ("BODIES WITH ONE COPY", Align::Left),
        ("AT ONE MEMBER", Align::Right),
        ("HERE", Align::Right),
        ("NOWHERE", Align::Right),
    ]);
    let amount = |bodies, bytes| format!("{} ({})", count(bodies), ByteSize(bytes));
    for copies in buckets {
        table.row([
            copies.bucket.clone(),
            amount(copies.elsewhere, copies.elsewhere_bytes),
            amount(copies.here, copies.here_bytes),
            amount(copies.nowhere, copies.nowhere_bytes),
        ]);
    }
    if table.is_empty() { String::new() } else { table.render() }
}

fn today(today: &Today) -> String {
    let mut table =
        Table::new(&[("TODAY", Align::Left), ("FOR", Align::Left), ("SENT", Align::Right), ("RECEIVED", Align::Right)]);
    for item in &today.traffic {
        let (sent, received) = (ByteSize(item.sent).to_string(), ByteSize(item.received).to_string());
        table.row([item.cluster.clone(), item.purpose.clone(), sent, received]);
    }
    if table.is_empty() { String::new() } else { format!("{}since {}\n", table.render(), short_time(&today.since)) }
}
