//! What every request passes: its id, its record, health and metrics, then the S3 service.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use federation::cluster::Cluster;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use s3s::service::S3Service;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tracing::{Instrument as _, Span, field};

use super::activity::Activity;
use super::body::{BodyBounds, ReplyBody, RequestBody};
use super::chunked::ChunkWatch;
use super::error_page::{self, Facts};
use super::held::held_bytes;
use super::limits::HttpLimits;
use super::operation::{OperationClass, Target};
use super::pace::Pace;
use super::places::Places;
use super::record::{REQUEST_TARGET, RequestRecord};
use super::refusal::Refusal;
use crate::health::{Health, LIVE_PATH, READY_PATH};
use crate::metrics::{METRICS_CONTENT_TYPE, METRICS_PATH, Metrics};
use crate::request_id::{RequestId, RequestIds, X_AMZ_ID_2, X_AMZ_REQUEST_ID};
use crate::s3::S3Limits;

/// Names the region to clients that signed for another one, as S3 does.
pub const X_AMZ_BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");

/// How long the gauges that are read from the catalog are good for.
const STORAGE_GAUGES_AGE_MAX: Duration = Duration::from_secs(10);

/// The peer of the connection that a request came over; in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// The connection that a request came over.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its other end.
    pub peer: SocketAddr,
    /// What it does.
    pub activity: Arc<Activity>,
    /// The places for requests that its peer has.
    pub requests: Arc<Semaphore>,
}

/// What a [`Front`] is made of.
pub struct FrontConfig {
    /// The core, for health and gauges.
    pub cluster: Arc<Cluster>,
    /// Answers everything that is not health or metrics.
    pub s3: S3Service,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Issues request ids.
    pub ids: RequestIds,
    /// The region, if one is configured.
    pub region: Option<String>,
    /// Lets others than this machine read the metrics.
    pub metrics_token: Option<String>,
    /// Bounds.
    pub limits: HttpLimits,
    /// The bounds of the S3 service.
    pub s3_limits: S3Limits,
}

/// Answers requests.
pub struct Front {
    cluster: Arc<Cluster>,
    s3: S3Service,
    metrics: Arc<Metrics>,
    ids: RequestIds,
    host_id: HeaderValue,
    region: Option<HeaderValue>,
    metrics_token: Option<[u8; 32]>,
    health: Health,
    limits: HttpLimits,
    s3_limits: S3Limits,
    places: Arc<Places>,
    gauges_read: Mutex<Option<Instant>>,
}

impl Front {
    /// Puts a front together.
    #[must_use]
    pub fn new(config: FrontConfig) -> Arc<Self> {
        let printable = |text: &str| HeaderValue::from_str(text).ok();
        Arc::new(Front {
            host_id: printable(config.ids.host()).expect("base64 is printable"),
            region: config.region.as_deref().and_then(printable),
            metrics_token: config.metrics_token.map(|token| Sha256::digest(token).into()),
            health: Health::default(),
            places: Places::new(&config.limits),
            gauges_read: Mutex::new(None),
            cluster: config.cluster,
            s3: config.s3,
            metrics: config.metrics,
            ids: config.ids,
            limits: config.limits,
            s3_limits: config.s3_limits,
        })
    }

    /// Whether the server is ready; told to stop here.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> &HttpLimits {
        &self.limits
    }

    /// How fast a client has to be.
    #[must_use]
    pub fn pace(&self) -> Pace {
        Pace::new(self.places.clone(), self.limits.bytes_per_second_min)
    }

    /// Answers one request of the connection `origin`.
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        origin: Origin,
    ) -> Result<Response<ReplyBody>, Infallible> {
        let id = self.ids.issue();
        let id_text = id.to_string();
        let uri = request.uri().clone();
        let target = Target::of(uri.path());
        let own = OwnPath::of(request.method(), uri.path());
        let class = match own {
            Some(_) => OperationClass::Health,
            None => OperationClass::of(request.method(), target, uri.query().unwrap_or_default()),
        };
        let span = span(&id_text, request.method(), target, class, &uri, origin.peer);
        let mut record = RequestRecord::begin(self.metrics.clone(), span.clone(), class, origin.activity.begin());
        record.claims(claimed_access_key(request.headers(), uri.query().unwrap_or_default()));
        let facts = Facts { resource: uri.path(), request_id: &id_text, host_id: self.ids.host() };
        let head = *request.method() == Method::HEAD;
        let mut response = match own {
            Some(own) => self.answer_own(own, request.headers(), origin.peer).await,
            None => self.answer_s3(request, &origin, id, &mut record, facts).instrument(span).await,
        };
        if head {
            response = without_body(response);
        }
        self.sign(&mut response, &id_text);
        record.answered(response.status());
        Ok(response.map(|body| ReplyBody::new(body, record)))
    }

    fn prepare(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        id: RequestId,
        record: &RequestRecord,
    ) -> Request<s3s::Body> {
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(id);
        parts.extensions.insert(Peer(peer));
        parts.extensions.insert(record.signer());
        let body = if body.is_end_stream() && ChunkWatch::for_request(&parts.headers).is_none() {
            s3s::Body::empty()
        } else {
            let bounds = BodyBounds {
                stall_timeout: self.limits.body_read_stall_timeout,
                pace: self.pace(),
                unread_body_max: self.limits.unread_body_max,
            };
            s3s::Body::http_body_unsync(RequestBody::new(body, &parts.headers, bounds, record.bytes_in()))
        };
        Request::from_parts(parts, body)
    }

    async fn answer_s3(
        &self,
        request: Request<Incoming>,
        origin: &Origin,
        id: RequestId,
        record: &mut RequestRecord,
        facts: Facts<'_>,
    ) -> Response<s3s::Body> {
        let Some(place) = self.places.take(&origin.requests) else { return self.slow_down(facts) };
        record.hold(place);
        let request = self.prepare(request, origin.peer, id, record);
        if let Some(refusal) = Refusal::of(&request) {
            return refusal.page(facts);
        }
        let (parts, body) = request.into_parts();
        let held = match body.size_hint().exact() {
            Some(0) => 0,
            length => held_bytes(&parts, length, &self.s3_limits),
        };
        // What is held of the body is free again once the request is answered; its reply is another matter.
        let Some(_buffer) = self.places.buffer(held) else { return self.slow_down(facts) };
        let request = Request::from_parts(parts, body);
        match self.s3.call(request).await {
            Ok(response) => error_page::complete(response, facts),
            Err(error) => {
                tracing::error!(error = %error, "the S3 service failed");
                let message = "We encountered an internal error; the server's log says which.";
                error_page::page(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message, facts)
            }
        }
    }

    fn slow_down(&self, facts: Facts<'_>) -> Response<s3s::Body> {
        self.metrics.refused.inc();
        let message = "Too many requests are being answered at the moment; repeat this one later.";
        error_page::page(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", message, facts)
    }

    /// The headers that every reply carries. `Date` is hyper's.
    fn sign(&self, response: &mut Response<s3s::Body>, id: &str) {
        let failed = response.status().is_client_error() || response.status().is_redirection();
        let headers = response.headers_mut();
        headers.insert(X_AMZ_REQUEST_ID, HeaderValue::from_str(id).expect("hexadecimal digits are printable"));
        headers.insert(X_AMZ_ID_2, self.host_id.clone());
        headers.insert(SERVER, HeaderValue::from_static("Elton"));
        if let (true, Some(region)) = (failed, &self.region) {
            headers.entry(X_AMZ_BUCKET_REGION).or_insert_with(|| region.clone());
        }
    }

    async fn answer_own(&self, path: OwnPath, headers: &HeaderMap, peer: SocketAddr) -> Response<s3s::Body> {
        match path {
            OwnPath::Live => plain(StatusCode::OK, "live\n"),
            OwnPath::Ready => match self.health.ready(&self.cluster).await {
                Ok(()) => plain(StatusCode::OK, "ready\n"),
                Err(reason) => {
                    tracing::warn!(%reason, error = std::error::Error::source(&reason), "not ready");
                    plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
                }
            },
            OwnPath::Metrics if !self.may_read_metrics(headers, peer) => plain(
                StatusCode::FORBIDDEN,
                "Metrics are open to this machine only; from elsewhere or through a proxy send `Authorization: Bearer \
                 TOKEN` with the token that `metrics_token` in the configuration file or ELTON_METRICS_TOKEN sets.\n",
            ),
            OwnPath::Metrics => {
                self.refresh_gauges().await;
                let mut response = plain(StatusCode::OK, self.metrics.render());
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(METRICS_CONTENT_TYPE));
                response
            }
        }
    }

    fn may_read_metrics(&self, headers: &HeaderMap, peer: SocketAddr) -> bool {
        if peer.ip().to_canonical().is_loopback() && !is_forwarded(headers) {
            return true;
        }
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        match (self.metrics_token, bearer) {
            // Hashes are compared: how long that takes says nothing about the token.
            (Some(token), Some(bearer)) => token == <[u8; 32]>::from(Sha256::digest(bearer)),
            (Some(_), None) | (None, Some(_) | None) => false,
        }
    }

    /// Reads the gauges of the catalog unless that was done a moment ago.
    async fn refresh_gauges(&self) {
        let mut read = self.gauges_read.lock().await;
        if read.is_some_and(|at| at.elapsed() < STORAGE_GAUGES_AGE_MAX) {
            return;
        }
        match tokio::try_join!(self.cluster.buckets(), self.cluster.counts()) {
            Ok((mut buckets, counts)) => {
                // What a linked bucket holds is known at its home.
                buckets.retain(|bucket| !self.cluster.is_linked(&bucket.name));
                self.metrics.set_storage(&buckets, &counts);
                *read = Some(Instant::now());
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "gauges could not be read"),
        }
        if let Err(error) = self.refresh_peers().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "gauges of peers could not be read");
        }
    }
}

impl Front {
    async fn refresh_peers(&self) -> Result<(), federation::Error> {
        let Ok(federation) = self.cluster.federation() else { return Ok(()) };
        let traffic = federation.traffic(&self.cluster.buckets().await?).await?;
        self.metrics.set_peers(&federation.peers().await?, &traffic);
        let census = self.cluster.census().await?;
        let single = self.cluster.single_copies(&census).await?;
        self.metrics.set_links(&federation.lags(false).await, &census, &single, federation.cache_limits());
        Ok(())
    }
}

/// Whether a proxy says that it passes a request on for another machine.
fn is_forwarded(headers: &HeaderMap) -> bool {
    ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name))
}

/// Paths that the front answers itself, without a signature.
#[derive(Clone, Copy)]
enum OwnPath {
    Live,
    Ready,
    Metrics,
}

impl OwnPath {
    fn of(method: &Method, path: &str) -> Option<Self> {
        if *method != Method::GET && *method != Method::HEAD {
            return None;
        }
        match path {
            LIVE_PATH => Some(OwnPath::Live),
            READY_PATH => Some(OwnPath::Ready),
            METRICS_PATH => Some(OwnPath::Metrics),
            _ => None,
        }
    }
}

/// The reply to a HEAD: what GET would be told, without the bytes. hyper leaves them out by itself over HTTP/1 only.
fn without_body(response: Response<s3s::Body>) -> Response<s3s::Body> {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    let mut response = response.map(|_| s3s::Body::empty());
    if let Some(length) = length {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    response
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response<s3s::Body> {
    let mut response = Response::new(s3s::Body::from(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The one span of a request. Names are logged as they were sent, percent-encoded, so they cannot break a line.
fn span(id: &str, method: &Method, target: Target<'_>, class: OperationClass, uri: &Uri, peer: SocketAddr) -> Span {
    let (bucket, key) = (target.bucket(), target.key());
    if class == OperationClass::Health {
        return tracing::debug_span!(target: REQUEST_TARGET, "request", request_id = id, %method, path = uri.path());
    }
    tracing::info_span!(
        target: REQUEST_TARGET, "request",
        request_id = id, %method, bucket, key, class = class.name(), %peer,
        access_key = field::Empty, claimed_key = field::Empty,
    )
}

/// The access key that the request says it is signed with; the S3 service checks it.
fn claimed_access_key<'a>(headers: &'a HeaderMap, query: &'a str) -> Option<&'a str> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let in_header = header.and_then(|value| value.split_once("Credential=")).map(|(_, scope)| scope);
    let in_query = || query.split('&').find_map(|pair| pair.strip_prefix("X-Amz-Credential="));
    let scope = in_header.or_else(in_query)?;
    let end = scope.find(['/', '%', ',', '&']).unwrap_or(scope.len());
    scope.get(..end.min(ACCESS_KEY_LOGGED_MAX))
}

/// Bytes of a claimed access key that are logged.
const ACCESS_KEY_LOGGED_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_on_this_machine_speaks_for_others() {
        let headers =
            |name: &'static str| HeaderMap::from_iter([(HeaderName::from_static(name), "x".parse().expect("a value"))]);
        assert!(is_forwarded(&headers("x-forwarded-for")) && is_forwarded(&headers("forwarded")));
        assert!(!is_forwarded(&headers("host")));
    }

    #[test]
    fn the_claimed_access_key_is_found_in_header_and_query() {
        let mut headers = HeaderMap::new();
        assert_eq!(claimed_access_key(&headers, "X-Amz-Credential=KEY%2F20261120%2Fx&y=1"), Some("KEY"));
        let value = "AWS4-HMAC-SHA256 Credential=ROOT/20261120/us-east-1/s3/aws4_request, SignedHeaders=host";
        headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
        assert_eq!(claimed_access_key(&headers, ""), Some("ROOT"));
        assert_eq!(claimed_access_key(&HeaderMap::new(), "list-type=2"), None);
    }
}
