//! The admin API at `/_elton/v1/` on the S3 port: JSON in, JSON out, signed like S3. `docs/admin-api.md` is its
//! manual; [`shape`] has what travels.
//!
//! It holds no rules of its own: it parses, asks the core, and says what came of it.

mod buckets;
mod call;
mod convert;
mod error;
mod maintenance;
mod peers;
mod snapshots;
mod status;
mod trees;

pub mod shape;

use std::sync::Arc;

use async_trait::async_trait;
use federation::clock::Clock;
use federation::cluster::Cluster;
use federation::master::Actor;
use federation::types::Timestamp;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri};
use s3s::route::S3Route;
use s3s::{Body, S3Request, S3Response, S3Result};
use serde::Serialize;

pub use error::AdminError;

use crate::metrics::Metrics;
use crate::s3::Caller;
use call::Call;

/// Bytes of a request's body that are read; every request of this API is far smaller.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// What the server says about itself.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// The program's version.
    pub version: String,
    /// The cluster's name.
    pub name: String,
    /// The region, if one is configured.
    pub region: Option<String>,
    /// The data directory.
    pub data: String,
    /// The socket on which it hands over open files to root and its own user of this host, if there is one.
    pub handover: Option<String>,
    /// When it began to serve.
    pub started: Timestamp,
}

/// The admin API. The S3 service hands requests to it after it has checked their signature.
#[derive(Clone)]
pub struct AdminApi(Arc<Inner>);

struct Inner {
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    facts: ServerFacts,
}

impl AdminApi {
    /// The API over `cluster`.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, metrics: Arc<Metrics>, clock: Arc<dyn Clock>, facts: ServerFacts) -> Self {
        AdminApi(Arc::new(Inner { cluster, metrics, clock, facts }))
    }

    /// Whether a request is one of this API.
    #[must_use]
    pub fn matches(path: &str) -> bool {
        // No bucket's name begins with an underscore, so no bucket is hidden by this.
        path == "/_elton" || path.starts_with("/_elton/")
    }

    async fn answer(&self, actor: Actor, request: S3Request<Body>) -> Result<Answer, AdminError> {
        check_signing(&request)?;
        let call = Call::parse(&request.method, request.uri.path(), request.uri.query().unwrap_or_default())?;
        let body = read(request.input).await?;
        call.run(&self.0, actor, &body).await
    }
}

/// A presigned URL is for handing on what one object's holder may do; nothing here is meant to be handed on. What a call
/// changes stands in its body, so that the signature has to cover it.
fn check_signing(request: &S3Request<Body>) -> Result<(), AdminError> {
    if request.headers.get(AUTHORIZATION).is_none() || is_presigned(&request.uri) {
        return Err(AdminError::Presigned);
    }
    let hash = request.headers.get("x-amz-content-sha256").map(HeaderValue::as_bytes).unwrap_or_default();
    let is_hash = hash.len() == 64 && hash.iter().all(u8::is_ascii_hexdigit);
    if is_hash || request.method == Method::GET { Ok(()) } else { Err(AdminError::UnsignedBody) }
}

fn is_presigned(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default().as_bytes();
    form_urlencoded::parse(query).any(|(name, _)| name.eq_ignore_ascii_case("X-Amz-Signature"))
}

async fn read(mut body: Body) -> Result<bytes::Bytes, AdminError> {
    let read = body.store_all_limited(REQUEST_BYTES_MAX).await;
    read.map_err(|error| AdminError::BadBody { reason: error.to_string() })
}

#[async_trait]
impl S3Route for AdminApi {
    fn is_match(&self, _: &Method, uri: &Uri, _: &HeaderMap, _: &mut Extensions) -> bool {
        AdminApi::matches(uri.path())
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let actor = Caller::of(&request)?.actor;
        Ok(match self.answer(actor, request).await {
            Ok(answer) => answer.into_response(),
            Err(error) => {
                let (status, _) = error.status_and_code();
                Answer::json(status, &error.to_failure()).into_response()
            }
        })
    }
}

/// What a call answers.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Body,
}

impl Answer {
    fn json(status: StatusCode, value: &impl Serialize) -> Self {
        let text = serde_json::to_vec(value).expect("shapes have string keys and no failing serialisers");
        Answer { status, content_type: "application/json", body: text.into() }
    }

    fn ok(value: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, value)
    }

    fn lines(body: Body) -> Self {
        Answer { status: StatusCode::OK, content_type: shape::LINES_CONTENT_TYPE, body }
    }

    fn bytes(body: Body) -> Self {
        Answer { status: StatusCode::OK, content_type: "application/octet-stream", body }
    }

    fn nothing() -> Self {
        Answer { status: StatusCode::NO_CONTENT, content_type: "application/json", body: Body::empty() }
    }

    fn into_response(self) -> S3Response<Body> {
        let mut response = S3Response::with_status(self.body, self.status);
        response.headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Runs work to its end even if the client goes away: half a collection helps nobody.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, AdminError>> + Send + 'static,
) -> Result<T, AdminError> {
    // A panic aborts the process, so the only other end of a task is that of the runtime.
    tokio::spawn(work).await.unwrap_or(Err(AdminError::Stopping))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, uri: &'static str, hash: &'static str, signed: bool) -> Result<(), AdminError> {
        let mut request = S3Request {
            input: Body::empty(),
            method,
            uri: Uri::from_static(uri),
            headers: HeaderMap::from_iter([("x-amz-content-sha256".parse().unwrap(), HeaderValue::from_static(hash))]),
            extensions: Extensions::new(),
            credentials: None,
            region: None,
            service: None,
            trailing_headers: None,
        };
        if signed {
            request.headers.insert(AUTHORIZATION, HeaderValue::from_static("AWS4-HMAC-SHA256"));
        }
        check_signing(&request)
    }

    #[test]
    fn what_changes_something_is_signed_with_its_body() {
        const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(check(Method::GET, "/_elton/v1/status", "UNSIGNED-PAYLOAD", true).is_ok());
        assert!(check(Method::POST, "/_elton/v1/gc", HASH, true).is_ok());
        for hash in ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", ""] {
            let refused = check(Method::POST, "/_elton/v1/gc", hash, true);
            assert!(matches!(refused, Err(AdminError::UnsignedBody)), "{hash}");
        }
        assert!(matches!(check(Method::GET, "/_elton/v1/status", HASH, false), Err(AdminError::Presigned)));
        let both = check(Method::GET, "/_elton/v1/status?X-Amz-Signature=0", HASH, true);
        assert!(matches!(both, Err(AdminError::Presigned)));
    }
}
