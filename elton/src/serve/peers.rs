//! What this cluster is to others: its key, its peer port, and where it says it is.

use std::net::SocketAddr;
use std::path::PathBuf;

use federation::cluster::{FederationConfig, is_reachable, over_tls};
use federation::ids::IdSource;
use federation::master::Relaying;
use federation::peer::{Identity, InvalidIdentity};
use federation::types::{ClusterName, PeerAddress};
use tokio::net::TcpListener;

use super::ServeConfig;
use crate::data_dir::{DataDir, Secrecy, read_if_there, write_durably};

/// Why this cluster cannot be one among others.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The key's file cannot be read or written.
    #[error("{path} cannot be read or written: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is there and is no key.
    #[error(
        "{path} holds no usable key ({source}): put the right file back. Without it other clusters do not know this one; \
         with a new one (move the file away) each of them has to say `elton peer trust`"
    )]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        source: InvalidIdentity,
    },
    /// The peer port cannot be had.
    #[error(
        "cannot answer other clusters at {address} ({source}); choose another address with --peer-listen, or `off`"
    )]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Reads or makes the key, and takes the peer port.
pub async fn configure(config: &ServeConfig, ids: &dyn IdSource) -> Result<FederationConfig, PeerError> {
    let identity = identity(&config.data, ids)?;
    let listener = listen(config).await?;
    let advertise = config.peer_advertise.clone().or_else(|| own_address(config, listener.as_ref()));
    Ok(FederationConfig {
        cluster: identity.cluster(),
        name: name_of(&config.name),
        transport: over_tls(identity, listener),
        advertise,
        cache_bytes_max: config.cache_size,
        known_rows_max: config.known_rows,
        relaying: if config.relay { Relaying::On } else { Relaying::Off },
    })
}

/// The cluster's key, made on first start and kept.
fn identity(data: &DataDir, ids: &dyn IdSource) -> Result<Identity, PeerError> {
    let path = data.cluster_key();
    let io = |source| PeerError::Io { path: path.clone(), source };
    if let Some(text) = read_if_there(&path).map_err(io)? {
        return Identity::from_pkcs8(&text).map_err(|source| PeerError::Key { path: path.clone(), source });
    }
    let identity = Identity::generate(ids);
    write_durably(&path, identity.to_pkcs8().as_bytes(), Secrecy::Secret).map_err(io)?;
    Ok(identity)
}

async fn listen(config: &ServeConfig) -> Result<Option<TcpListener>, PeerError> {
    let Some(address) = config.peer_listen else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) if config.peer_listen_given => Err(PeerError::Bind { address, source }),
        Err(error) => {
            tracing::warn!(%address, %error, "no other cluster can reach this one; --peer-listen names another address");
            Ok(None)
        }
    }
}

/// The address that was listened on, if it means the same to others.
fn own_address(config: &ServeConfig, listener: Option<&TcpListener>) -> Option<PeerAddress> {
    let bound = listener?.local_addr().ok()?;
    let address: PeerAddress = bound.to_string().parse().ok()?;
    (config.peer_listen_given && is_reachable(&address)).then_some(address)
}

/// The cluster's name in the letters that names of clusters have.
fn name_of(name: &str) -> ClusterName {
    let letters = name.chars().map(|letter| match letter.to_ascii_lowercase() {
        letter if letter.is_ascii_alphanumeric() => letter,
        _ => '-',
    });
    let plain: String = letters.collect();
    plain.trim_matches('-').parse().unwrap_or_else(|_| "elton".parse().expect("a name of letters"))
}

#[cfg(test)]
mod tests {
    use federation::ids::SystemIds;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let data = DataDir::new(Some(folder.path()));
        let first = identity(&data, &SystemIds).expect("made").cluster();
        assert_eq!(identity(&data, &SystemIds).expect("kept").cluster(), first);
        std::fs::write(data.cluster_key(), "no key").expect("written");
        assert!(matches!(identity(&data, &SystemIds), Err(PeerError::Key { .. })));
    }

    #[test]
    fn names_are_made_plain() {
        assert_eq!(name_of("My Cluster!").as_str(), "my-cluster");
        assert_eq!(name_of("--").as_str(), "elton");
    }
}
