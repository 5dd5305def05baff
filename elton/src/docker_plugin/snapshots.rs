//! Asks the server which number a snapshot is.

use async_trait::async_trait;
use federation::types::Number;
use gateway::admin::shape::{Snapshot, Tree};
use plugin::error::LookupError;
use plugin::name::Wanted;
use plugin::volumes::Snapshots;

use crate::cli::ClientArgs;
use crate::client::{Client, ClientError, Path, Patience};

/// Snapshots of the server that `elton` commands would ask, too.
pub struct ServerSnapshots {
    /// How it is found.
    pub client: ClientArgs,
}

impl ServerSnapshots {
    async fn ask(&self, wanted: &Wanted) -> Result<Number, ClientError> {
        // Keys are read each time: they may have been exchanged since.
        let client = Client::new(&self.client)?;
        let (bucket, snapshot) = (wanted.bucket.as_str(), wanted.snapshot.to_string());
        if wanted.prefix.is_whole() {
            let path = Path::new(&["buckets", bucket, "snapshots", &snapshot]);
            let snapshot: Snapshot = client.get(&path, Patience::Ordinary).await?;
            return Ok(Number(snapshot.number));
        }
        // Where there is no such directory, whoever types the command hears it now and not when a container starts.
        let path = Path::new(&["buckets", bucket, "tree"]).with("at", snapshot).with("prefix", wanted.prefix.as_str());
        let tree: Tree = client.get(&path, Patience::Ordinary).await?;
        Ok(Number(tree.number))
    }
}

#[async_trait]
impl Snapshots for ServerSnapshots {
    async fn number(&self, wanted: &Wanted) -> Result<Number, LookupError> {
        self.ask(wanted).await.map_err(|error| LookupError(error.to_string()))
    }
}
