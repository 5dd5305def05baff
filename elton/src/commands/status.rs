//! `elton status`

mod others;

use std::time::Duration;

use gateway::admin::shape::Status;
use serde::Serialize;

use super::short_time;
use crate::Failure;
use crate::cli::StatusArgs;
use crate::client::{Client, Path, Patience};
use crate::mount::MountStatus;
use crate::output::units::{ByteSize, TimeSpan, count};
use crate::output::{Align, Output, Table};

/// Says how the server is.
pub async fn run(arguments: &StatusArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.client)?;
    let mounts = crate::mount::list(arguments.state.state.as_deref())?;
    let status: Result<Status, _> = client.get(&Path::new(&["status"]), Patience::Ordinary).await;
    let status = match status {
        Ok(status) => status,
        // A host may have mounts whose server is away.
        Err(error) if !mounts.is_empty() => {
            let known = Mounts { error: Some(error.to_string()), mounts };
            Output::new(arguments.client.json).show(&known, |known| mounts_table(&known.mounts))?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    let all = StatusAndMounts { status, mounts };
    Output::new(arguments.client.json)
        .show(&all, |all| format!("{}{}", human(&all.status), mounts_table(&all.mounts)))?;
    Ok(())
}

/// What a host knows without its server.
#[derive(Serialize)]
struct Mounts {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    mounts: Vec<MountStatus>,
}

#[derive(Serialize)]
struct StatusAndMounts {
    #[serde(flatten)]
    status: Status,
    /// The mounts of this host.
    mounts: Vec<MountStatus>,
}

fn mounts_table(mounts: &[MountStatus]) -> String {
    if mounts.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("MOUNT", Align::Left),
        ("AT", Align::Left),
        ("MODE", Align::Left),
        ("HITS", Align::Right),
        ("MISSES", Align::Right),
        ("FETCHED", Align::Right),
        ("HANDED OVER", Align::Right),
        ("PROCESS", Align::Left),
    ]);
    for MountStatus { record, answers, counters, .. } in mounts {
        let counters = counters.clone().unwrap_or_default();
        let process = if *answers { record.pid.to_string() } else { format!("{} does not answer", record.pid) };
        table.row([
            record.name(),
            record.mountpoint.display().to_string(),
            record.mode.clone(),
            count(counters.hits),
            count(counters.misses),
            ByteSize(counters.body_bytes).to_string(),
            count(counters.handed_over),
            process,
        ]);
    }
    format!("\n{}", table.render())
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
        ("catalog", ByteSize(status.catalog_bytes).to_string()),
        ("requests in flight", count(status.requests_in_flight)),
    ]);
    match &status.peers {
        Some(peers) => format!("{facts}{}", others::human(status, peers)),
        None => facts,
    }
}
