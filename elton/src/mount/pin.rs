//! The pin that keeps a snapshot for as long as it is mounted.

use std::sync::Arc;
use std::time::Duration;

use federation::types::Number;
use fuse::SourceError;
use gateway::admin::shape;
use http::Method;

use super::source::Server;

/// How long a pin lasts unless it is renewed: what a host that died may keep.
const LIFE: Duration = Duration::from_secs(600);
/// How often it is renewed. Two may fail.
const RENEWAL: Duration = Duration::from_secs(180);

/// How soon it is tried again to pin what is not pinned.
const RETRY: Duration = Duration::from_secs(5);

/// A pin, or the wish for one.
pub(super) struct Pin {
    server: Arc<Server>,
    number: Number,
    id: Option<String>,
}

impl Pin {
    /// Pins a snapshot. If that fails now, [`Pin::keep`] tries again.
    pub(super) async fn take(server: Arc<Server>, number: Number, mountpoint: &str) -> Pin {
        let mut pin = Pin { server, number, id: None };
        pin.create(mountpoint).await;
        pin
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Renews it for ever.
    pub(super) async fn keep(&mut self, mountpoint: &str) {
        loop {
            let Some(id) = &self.id else {
                tokio::time::sleep(RETRY).await;
                self.create(mountpoint).await;
                continue;
            };
            tokio::time::sleep(RENEWAL).await;
            let path = self.server.path(&["pins", id]);
            let body = shape::RenewPin { seconds: LIFE.as_secs() };
            let renewed: Result<shape::Pin, _> = self.server.ask_json(Method::PUT, &path, json(&body)).await;
            match renewed {
                Ok(_) => {}
                // It ended while we or the server were away. The number may still be there.
                Err(SourceError::Gone(_)) => {
                    self.id = None;
                    self.create(mountpoint).await;
                }
                Err(error) => tracing::warn!(%error, "the mount's pin could not be renewed; it is tried again"),
            }
        }
    }

    async fn create(&mut self, mountpoint: &str) {
        match create(&self.server, self.number, mountpoint).await {
            Ok(id) => self.id = Some(id),
            Err(error) => tracing::warn!(
                %error,
                "the server does not pin the snapshot, which lasts only as long as the bucket's rule or a tag keeps it; it is tried again"
            ),
        }
    }

    /// Lets go of it.
    pub(super) async fn release(self) {
        let Some(id) = &self.id else { return };
        let path = self.server.path(&["pins", id]);
        if let Err(error) = self.server.ask(Method::DELETE, &path, Vec::new()).await {
            tracing::info!(%error, "the mount's pin was not removed; it ends by itself");
        }
    }
}

async fn create(server: &Server, number: Number, mountpoint: &str) -> Result<String, SourceError> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let body = shape::CreatePin { holder: format!("mount {host}:{mountpoint}"), seconds: LIFE.as_secs() };
    let path = server.path(&["pins"]).with("at", number);
    let pin: shape::Pin = server.ask_json(Method::POST, &path, json(&body)).await?;
    Ok(pin.pin)
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("shapes have string keys and no failing serialisers")
}
