//! The server as a whole: usage, check, collection.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use federation::master::{CheckOptions, CollectOptions};
use http_body::{Body as HttpBody, Frame};
use s3s::{Body, StdError};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::error::AdminError;
use super::shape::{self, CheckLine};
use super::{Answer, Inner, convert, to_its_end};

/// Lines of progress that may wait for a slow reader; further ones are left out.
const CHECK_LINES_WAITING_MAX: usize = 16;

pub(super) async fn usage(api: &Inner) -> Result<Answer, AdminError> {
    let (buckets, usage) = tokio::try_join!(api.cluster.buckets(), api.cluster.usage())?;
    Ok(Answer::ok(&convert::usage(&usage, &buckets)))
}

pub(super) async fn collect(api: &Inner, request: shape::Collect) -> Result<Answer, AdminError> {
    let bucket = request.bucket.as_deref().map(str::parse).transpose().map_err(federation::Error::from)?;
    let options = CollectOptions { now: request.now, bucket, dry: request.dry };
    let cluster = api.cluster.clone();
    let report = to_its_end(async move { Ok(cluster.collect(options).await?) }).await?;
    Ok(Answer::ok(&shape::Collected::from(report)))
}

/// Answers at once, with a line per step; the check ends when its reader goes away.
pub(super) fn check(api: &Inner, request: shape::Check) -> Answer {
    let (lines, received) = mpsc::channel(CHECK_LINES_WAITING_MAX);
    let cluster = api.cluster.clone();
    let work = tokio::spawn(async move {
        let progress_lines = lines.clone();
        let progress = move |done, total| {
            // A full channel means that the reader is slow: it does not need every step.
            let _ = progress_lines.try_send(line(&CheckLine::Progress { done, total }));
        };
        let last = match cluster.check(CheckOptions { bodies: request.bodies }, progress).await {
            Ok(report) => CheckLine::Report(report.into()),
            Err(error) => CheckLine::Failure(AdminError::from(error).to_failure()),
        };
        // A reader that has gone does not want it.
        let _ = lines.send(line(&last)).await;
    });
    Answer::lines(Body::http_body_unsync(Lines { received, _work: AbortOnDropHandle::new(work) }))
}

fn line(line: &CheckLine) -> Bytes {
    let mut text = serde_json::to_vec(line).expect("shapes have string keys and no failing serialisers");
    text.push(b'\n');
    text.into()
}

/// A body that ends when its sender does.
struct Lines {
    received: mpsc::Receiver<Bytes>,
    _work: AbortOnDropHandle<()>,
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        self.received.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
