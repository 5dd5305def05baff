//! `elton status`

use std::time::Duration;

use gateway::admin::shape::Status;

use super::short_time;
use crate::Failure;
use crate::cli::StatusArgs;
use crate::client::{Client, Path, Patience};
use crate::output::units::{ByteSize, TimeSpan, count};
use crate::output::{Output, Table};

/// Says how the server is.
pub async fn run(arguments: &StatusArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.client)?;
    let status: Status = client.get(&Path::new(&["status"]), Patience::Ordinary).await?;
    Output::new(arguments.client.json).show(&status, human)?;
    Ok(())
}

fn human(status: &Status) -> String {
    let uptime = TimeSpan(Duration::from_secs(status.uptime_seconds));
    let facts = Table::facts([
        ("cluster", status.name.clone()),
        ("version", status.version.clone()),
        ("region", status.region.clone().unwrap_or_else(|| "any".to_owned())),
        ("data", status.data.clone()),
        ("up", format!("{uptime}, since {}", short_time(&status.started))),
        ("buckets", count(status.buckets)),
        ("objects", format!("{} ({})", count(status.objects), ByteSize(status.bytes))),
        ("disk free", ByteSize(status.disk_free_bytes).to_string()),
        ("requests in flight", count(status.requests_in_flight)),
        ("fetched copies", format!("{} ({})", count(status.cache.copies), ByteSize(status.cache.bytes))),
        ("read by others here", format!("{} ({})", count(status.cache.own), ByteSize(status.cache.own_bytes))),
    ]);
    match &status.peers {
        Some(peers) => format!("{facts}\n{}", super::peer::list(peers)),
        None => facts,
    }
}
