//! One request from its line to the last byte of its reply: its span, its line in the log, its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use tokio::time::Instant;
use tracing::Span;

use super::activity::InFlight;
use super::operation::OperationClass;
use super::places::Place;
use crate::credentials::Signer;
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
    failure: Option<Failure>,
    signer: Signer,
    claimed_key: Option<String>,
    in_flight: Option<InFlight>,
    place: Option<Place>,
}

/// Why a reply did not end as it should.
enum Failure {
    /// The server could not go on.
    Broke(String),
    /// The client did not want more.
    CutShort,
}

impl Failure {
    fn text(&self) -> &str {
        match self {
            Failure::Broke(text) => text,
            Failure::CutShort => "the client went away, or took nothing for too long, before the end of the reply",
        }
    }
}

impl RequestRecord {
    /// A request begins.
    #[must_use]
    pub fn begin(metrics: Arc<Metrics>, span: Span, class: OperationClass, in_flight: InFlight) -> Self {
        metrics.in_flight.inc();
        RequestRecord {
            metrics,
            signer: Signer::new(span.clone()),
            span,
            class,
            started: Instant::now(),
            status: CLIENT_CLOSED_REQUEST,
            bytes_in: Arc::default(),
            bytes_out: 0,
            failure: None,
            claimed_key: None,
            in_flight: Some(in_flight),
            place: None,
        }
    }

    /// The request keeps one of the places that bound requests in flight.
    pub fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Nothing of the server's waits for the client any more: the place is free, and the connection counts as quiet.
    pub fn release(&mut self) {
        self.place = None;
        self.in_flight = None;
    }

    /// The key that the request says it is signed with; logged as a claim if nobody proves it.
    pub fn claims(&mut self, access_key: Option<&str>) {
        self.claimed_key = access_key.map(str::to_owned);
    }

    /// Where the key that the request is signed with is noted once that is proved.
    #[must_use]
    pub fn signer(&self) -> Signer {
        self.signer.clone()
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
        self.failure = Some(Failure::Broke(describe(error)));
    }

    /// The client went away before the reply's end.
    pub fn cut_short(&mut self) {
        self.failure.get_or_insert(Failure::CutShort);
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let bytes_in = self.bytes_in.load(Ordering::Relaxed);
        self.metrics.in_flight.dec();
        self.metrics.request_ended(self.class, self.status, elapsed, bytes_in, self.bytes_out);
        if self.signer.access_key().is_none() {
            self.span.record("claimed_key", self.claimed_key.as_deref());
        }
        let _entered = self.span.enter();
        let ms = (elapsed.as_secs_f64() * 1_000_000.0).round() / 1000.0;
        let (status, bytes_out) = (self.status, self.bytes_out);
        let failure = self.failure.as_ref().map(Failure::text);
        if is_ours(status) || matches!(self.failure, Some(Failure::Broke(_))) {
            tracing::warn!(target: REQUEST_TARGET, status, bytes_in, bytes_out, ms, failure, "request");
        } else if self.class == OperationClass::Health {
            // Probes come every few seconds and say nothing new.
            tracing::debug!(target: REQUEST_TARGET, status, bytes_in, bytes_out, ms, "request");
        } else {
            tracing::info!(target: REQUEST_TARGET, status, bytes_in, bytes_out, ms, "request");
        }
    }
}

/// Whether a status says that the server failed. What is not implemented is the client's to know, and so is HTTP 505.
fn is_ours(status: u16) -> bool {
    status >= 500 && status != 501 && status != 505
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
