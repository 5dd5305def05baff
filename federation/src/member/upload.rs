//! Uploads in parts to linked buckets. The parts stay here; the home hears of them when they have become an object.

use super::publish::Ours;
use super::{Linked, Member};
use crate::error::{Error, Result};
use crate::master::{Actor, CompleteRequest, PeerChange, Written};
use crate::types::{ObjectPath, UploadId};

impl Member {
    /// Makes an object of an upload's parts.
    pub async fn complete_upload(
        &self,
        linked: &Linked,
        actor: &Actor,
        path: &ObjectPath,
        upload: UploadId,
        request: CompleteRequest,
    ) -> Result<Written> {
        let (member, linked, actor, path) = (self.clone(), linked.clone(), actor.clone(), path.clone());
        self.master
            .detached(async move {
                // Completions of an upload take turns: the second one finds what the first one made of it.
                let _turn = member.completions.take(upload).await;
                let counter = member.counters.next(&member.master, linked.id).await?;
                let prepared = member.master.prepare_completion(&linked.name, &path, upload, &request, counter).await;
                let record = match prepared {
                    Ok((record, _)) => record,
                    Err(error) => {
                        member.resolve_later(counter);
                        // A client that did not hear the answer asks again.
                        return match error {
                            Error::NoSuchUpload { .. } => member.master.completed(&linked.name, &path, upload).await,
                            error => Err(error),
                        };
                    }
                };
                let change = PeerChange::Put {
                    path: path.clone(),
                    record: Box::new(record),
                    precondition: request.precondition.clone(),
                };
                // The upload ends in the transaction that notes what became of it.
                member.put_answer(member.publish(&linked, &actor, change, Ours { counter }).await?)
            })
            .await
    }
}
