//! `elton peer`

use gateway::admin::shape::{Invited, JoinPeer, NamedPeer, Peer, PeerTraffic, Peers, TrustPeer};
use http::Method;

use super::short_time;
use crate::Failure;
use crate::cli::{PeerArgs, PeerCommand};
use crate::client::{Client, Path, Patience};
use crate::output::units::ByteSize;
use crate::output::{Align, Output, Table};

/// Runs a command of `elton peer`.
pub async fn run(arguments: &PeerArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.client)?;
    let output = Output::new(arguments.client.json);
    match &arguments.command {
        PeerCommand::Invite => {
            let path = Path::new(&["peers", "invitations"]);
            let invited: Invited = client.call(Method::POST, &path, &(), Patience::Ordinary).await?;
            output.show(&invited, |invited| {
                format!(
                    "Run this in the other cluster, once and within {} minutes:\n\n  elton peer join TOKEN\n\n{}\n",
                    invited.seconds / 60,
                    invited.token
                )
            })?;
        }
        PeerCommand::Join { token } => {
            let request = JoinPeer { token: token.trim().to_owned() };
            let joined: NamedPeer =
                client.call(Method::POST, &Path::new(&["peers"]), &request, Patience::Ordinary).await?;
            output.show(&joined, |joined| format!("joined {}, whose key is {}\n", joined.name, joined.fingerprint))?;
        }
        PeerCommand::Ls => {
            let peers: Peers = client.get(&Path::new(&["peers"]), Patience::Ordinary).await?;
            output.show(&peers, list)?;
        }
        PeerCommand::Rm { name } => {
            let removed: NamedPeer =
                client.call(Method::DELETE, &Path::new(&["peers", name]), &(), Patience::Ordinary).await?;
            output.show(&removed, |removed| {
                format!("forgot {} and what was shared with it; what it has read it may still have\n", removed.name)
            })?;
        }
        PeerCommand::Trust { name, fingerprint } => {
            let request = TrustPeer { fingerprint: fingerprint.clone() };
            let path = Path::new(&["peers", name]);
            let trusted: NamedPeer = client.call(Method::PATCH, &path, &request, Patience::Ordinary).await?;
            output.show(&trusted, |trusted| {
                format!("{} is the cluster whose key is {}\n", trusted.name, trusted.fingerprint)
            })?;
        }
    }
    Ok(())
}

/// What is known of other clusters, for people.
pub fn list(peers: &Peers) -> String {
    let own = Table::facts([
        ("this cluster", peers.own.name.clone()),
        ("fingerprint", peers.own.fingerprint.clone()),
        ("reached at", peers.own.address.clone().unwrap_or_else(|| "nowhere; it dials".to_owned())),
    ]);
    format!("{own}\n{}{}{}", links_up(&peers.peers), linked(peers), crossed(&peers.traffic))
}

pub(super) fn links_up(peers: &[Peer]) -> String {
    let mut table = Table::new(&[
        ("CLUSTER", Align::Left),
        ("LINK", Align::Left),
        ("ROUND TRIP", Align::Right),
        ("SENT", Align::Right),
        ("RECEIVED", Align::Right),
        ("ADDRESS", Align::Left),
        ("FINGERPRINT", Align::Left),
    ]);
    // Below the table: they are longer than its columns.
    let mut reasons = String::new();
    for peer in peers {
        let since = peer.since.as_deref().map(short_time).unwrap_or_default();
        if let (false, Some(error)) = (peer.connected, &peer.last_error) {
            reasons += &format!("{}: {error}\n", peer.name);
        }
        table.row([
            peer.name.clone(),
            format!("{} since {since}", if peer.connected { "up" } else { "down" }),
            peer.round_trip_us.map(milliseconds).unwrap_or_default(),
            ByteSize(peer.bytes_sent).to_string(),
            ByteSize(peer.bytes_received).to_string(),
            peer.address.clone().unwrap_or_else(|| "dials us".to_owned()),
            peer.fingerprint.chars().take(16).collect(),
        ]);
    }
    if table.is_empty() {
        return "no other clusters are known; `elton peer invite` on one side and `elton peer join` on the other change \
                that\n"
            .to_owned();
    }
    table.render() + &reasons
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{} ms", microseconds / 1000, microseconds % 1000 / 100)
}

fn linked(peers: &Peers) -> String {
    let mut table = Table::new(&[
        ("BUCKET", Align::Left),
        ("NUMBERED BY", Align::Left),
        ("THERE", Align::Left),
        ("CONSISTENCY", Align::Left),
    ]);
    for link in &peers.links {
        table.row([link.bucket.clone(), link.home.clone(), link.remote.clone(), link.consistency.clone()]);
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.render()) }
}

fn crossed(traffic: &[PeerTraffic]) -> String {
    let mut table = Table::new(&[
        ("CLUSTER", Align::Left),
        ("BUCKET", Align::Left),
        ("FOR", Align::Left),
        ("SENT", Align::Right),
        ("RECEIVED", Align::Right),
    ]);
    for item in traffic {
        let (sent, received) = (ByteSize(item.sent).to_string(), ByteSize(item.received).to_string());
        let bucket = item.bucket.clone().unwrap_or_default();
        table.row([item.cluster.clone(), bucket, item.purpose.clone(), sent, received]);
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.render()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_milliseconds() {
        assert_eq!(milliseconds(100_250), "100.2 ms");
        assert_eq!(milliseconds(90), "0.0 ms");
    }
}
