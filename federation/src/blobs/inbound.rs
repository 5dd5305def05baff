//! A large body on its way in: per buffer, what the observer computes and what the file needs are two jobs at once.
//!
//! The observer's MD5 takes longer than BLAKE3 and the write together; one after the other they would bound one upload
//! by the sum. For the same reason a sync that is due runs beside the buffers that follow it.

use std::sync::Arc;

use futures_util::future::join;
use tokio::sync::oneshot;

use super::backend::{BackendError, BodyWriter, SyncJob, Urgency};
use super::body::{StagedBody, Unfinished};
use super::store::{Observer, Shared};
use super::syncer::{detach, ending};

/// What is there of a body.
pub(super) struct Inbound<O> {
    shared: Arc<Shared>,
    file: Option<Unfinished>,
    observer: O,
    /// The sync that runs, at most one: behind a slow disk the body waits, so that little of it is not durable.
    syncing: Option<oneshot::Receiver<Result<(), BackendError>>>,
}

impl<O: Observer + 'static> Inbound<O> {
    pub(super) fn new(shared: Arc<Shared>, observer: O) -> Self {
        Inbound { shared, file: None, observer, syncing: None }
    }

    /// Takes a buffer in, and gives it back empty.
    pub(super) async fn take(self, buffer: Vec<u8>) -> Result<(Self, Vec<u8>), BackendError> {
        let (mut inbound, mut buffer, due) = self.process(buffer, |writer| writer.sync_due()).await?;
        if let Some(sync) = due {
            inbound.synced().await?;
            inbound.start(sync);
        }
        buffer.clear();
        Ok((inbound, buffer))
    }

    /// Takes the last bytes in.
    pub(super) async fn end(self, buffer: Vec<u8>) -> Result<(StagedBody, O), BackendError> {
        let (mut inbound, _, digest) = self.process(buffer, |writer| writer.digest()).await?;
        // A failed sync shows once only: the one that ends the body would not see it again.
        inbound.synced().await?;
        let file = inbound.file.expect("written to just now");
        Ok((StagedBody::writing(file, digest.hash, digest.length), inbound.observer))
    }

    async fn process<T: Send + 'static>(
        mut self,
        buffer: Vec<u8>,
        then: impl FnOnce(&mut dyn BodyWriter) -> T + Send + 'static,
    ) -> Result<(Self, Vec<u8>, T), BackendError> {
        let bytes = Arc::new(buffer);
        let (shared, file, mut observer) = (Arc::clone(&self.shared), self.file.take(), self.observer);
        let (seen, blocking) = (Arc::clone(&bytes), &self.shared.blocking);
        let observed = blocking.run(move || {
            observer.update(&seen);
            observer
        });
        let content = Arc::clone(&bytes);
        let written = blocking.run(move || {
            let mut file = match file {
                Some(file) => file,
                None => Unfinished::new(shared.backend.create(Urgency::Normal)?, &shared.blocking),
            };
            file.writer().write(&content)?;
            let result = then(file.writer());
            Ok::<_, BackendError>((file, result))
        });
        let (observer, written) = join(observed, written).await;
        let (file, result) = written?;
        let buffer = Arc::into_inner(bytes).expect("both jobs have ended, and with them their shares");
        Ok((Inbound { shared: self.shared, file: Some(file), observer, syncing: self.syncing }, buffer, result))
    }

    fn start(&mut self, sync: SyncJob) {
        let (done, result) = oneshot::channel();
        // The body may be given up before: then nobody wants the result.
        detach(self.shared.blocking.run_job(Box::new(move || drop(done.send(sync())))));
        self.syncing = Some(result);
    }

    async fn synced(&mut self) -> Result<(), BackendError> {
        match self.syncing.take() {
            Some(result) => result.await.unwrap_or_else(|_gone| Err(ending())),
            None => Ok(()),
        }
    }
}
