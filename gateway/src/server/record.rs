//! One request from its line to the last byte of its reply: its span, its line in the log, its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::Span;

use super::activity::InFlight;
use super::operation::OperationClass;
use crate::metrics::Metrics;

/// The target of request lines, so that a filter can name them: `--log info,elton::request=warn`.
pub const REQUEST_TARGET: &str = "elton::request";

/// Status of a request whose client went away before there was a reply, as nginx logs it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What is known of a request. When it is dropped, the request has ended, however it did.
pub struct RequestRecord {
    metrics: Arc<Metrics>,
    span: Span,
    class: OperationClass,
    started: Instant,
    status: u16,
    bytes_in: Arc<AtomicU64>,
    bytes_out: u64,
    failure: Option<String>,
    _in_flight: InFlight,
    _permit: Option<OwnedSemaphorePermit>,
}

impl RequestRecord {
    /// A request begins.
    #[must_use]
    pub fn begin(metrics: Arc<Metrics>, span: Span, class: OperationClass, in_flight: InFlight) -> Self {
        metrics.in_flight.inc();
        RequestRecord {
            metrics,
            span,
            class,
            started: Instant::now(),
            status: CLIENT_CLOSED_REQUEST,
            bytes_in: Arc::default(),
            bytes_out: 0,
            failure: None,
            _in_flight: in_flight,
            _permit: None,
        }
    }

    /// The request keeps one of the places that bound requests in flight.
    pub fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self._permit = Some(permit);
    }

    /// Counts the request's body.
    #[must_use]
    pub fn bytes_in(&self) -> Arc<AtomicU64> {
        self.bytes_in.clone()
    }

    /// The reply begins.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }

    /// Bytes of the reply's body were handed to the connection.
    pub fn sent(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// The reply broke off.
    pub fn broke(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.failure = Some(describe(error));
    }

    /// The client went away before the reply's end.
    pub fn cut_short(&mut self) {
        self.failure.get_or_insert_with(|| "the client went away before the end of the reply".to_owned());
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let bytes_in = self.bytes_in.load(Ordering::Relaxed);
        self.metrics.in_flight.dec();
        self.metrics.request_ended(self.class, self.status, elapsed, bytes_in, self.bytes_out);
        let _entered = self.span.enter();
        let ms = (elapsed.as_secs_f64() * 1_000_000.0).round() / 1000.0;
        let (status, bytes_out, failure) = (self.status, self.bytes_out, self.failure.as_deref());
        if status >= 500 || failure.is_some() {
            tracing::warn!(target: REQUEST_TARGET, status, bytes_in, bytes_out, ms, failure, "request");
        } else if self.class == OperationClass::Health {
            // Probes come every few seconds and say nothing new.
            tracing::debug!(target: REQUEST_TARGET, status, bytes_in, bytes_out, ms, "request");
        } else {
            tracing::info!(target: REQUEST_TARGET, status, bytes_in, bytes_out, ms, "request");
        }
    }
}

/// An error with what caused it, in one line.
#[must_use]
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
