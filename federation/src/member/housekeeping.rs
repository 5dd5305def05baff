//! What is kept of linked buckets and needed no more.

use super::{Linked, Member};
use crate::error::Result;
use crate::peer::Unneeded;
use crate::peer::message::Info;

impl Member {
    /// Lets go of bodies that were written here and that no version has any more, as far as their homes can be asked.
    /// Returns how many bytes went; the space is the collector's to give back.
    pub async fn drop_unneeded(&self) -> u64 {
        let mut gone = 0;
        for linked in self.all_linked() {
            match self.drop_unneeded_of(&linked).await {
                Ok(bytes) => gone += bytes,
                Err(error) => {
                    tracing::info!(
                        bucket = %linked.name,
                        error = &error as &dyn std::error::Error,
                        "not known which bodies are needed"
                    );
                }
            }
        }
        gone
    }

    async fn drop_unneeded_of(&self, linked: &Linked) -> Result<u64> {
        // A home that runs on an older copy of its data does not know what it needs.
        let before = self.newest_seen(linked.id);
        let newest = self.ask(linked, "about a bucket", &Info { bucket: linked.id }).await?.number;
        self.check_not_behind(linked, newest, before).await?;
        let (mut gone, mut after) = (0, None);
        loop {
            let bodies = self.master.own_bodies(linked.id, after).await?;
            let Some((last, _)) = bodies.last() else { return Ok(gone) };
            after = Some(*last);
            let question = Unneeded { bucket: linked.id, hashes: bodies.iter().map(|(hash, _)| *hash).collect() };
            let unneeded = self.ask(linked, "which bodies are needed", &question).await?;
            let bodies = bodies.into_iter().filter(|(hash, _)| unneeded.contains(hash)).collect();
            gone += self.master.drop_unneeded(linked.id, bodies).await?;
        }
    }
}
