//! Requests that s3s does not serve: the admin API, ListObjectVersions, and those that have to be put right first.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{Extensions, HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;
use s3s::route::S3Route;
use s3s::service::S3Service;
use s3s::{Body, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::{Access, Asked};
use super::error::{invalid_argument, not_implemented};
use super::rewrite::Rewrite;
use super::unsupported::Shape;
use super::{Edge, query, versions};
use crate::credentials::Signer;

/// Where the admin API lives.
const ADMIN: &str = "/_elton/v1";

/// The routes.
pub struct Routes {
    /// What operations work with.
    pub edge: Arc<Edge>,
    /// Authorises requests as it does s3s's.
    pub access: Access,
    /// Serves what was put right.
    pub inner: S3Service,
}

/// Which route a request takes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    Admin,
    Versions(String),
    Form,
    Rewritten(Rewrite),
}

impl Route {
    fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Route> {
        let path = uri.path();
        if path.strip_prefix(ADMIN).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Some(Route::Admin);
        }
        if *method == Method::POST && is_form(headers) {
            return Some(Route::Form);
        }
        if *method == Method::GET
            && query::has(uri, "versions")
            && let Some(Target { bucket: Some(bucket), shape: Shape::Bucket }) = Target::of(path)
        {
            return Some(Route::Versions(bucket));
        }
        Rewrite::needed(method, uri, headers).map(Route::Rewritten)
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("multipart/form-data")
}

/// What a path names, read as s3s reads it.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    shape: Shape,
    bucket: Option<String>,
}

impl Target {
    fn of(path: &str) -> Option<Target> {
        let decoded = percent_decode_str(path).decode_utf8().ok()?;
        let path = decoded.strip_prefix('/')?;
        if path.is_empty() {
            return Some(Target { shape: Shape::Root, bucket: None });
        }
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let shape = if key.is_empty() { Shape::Bucket } else { Shape::Object };
        Some(Target { shape, bucket: Some(bucket.to_owned()) })
    }
}

#[async_trait::async_trait]
impl S3Route for Routes {
    fn is_match(&self, method: &Method, uri: &Uri, headers: &HeaderMap, extensions: &mut Extensions) -> bool {
        let route = Route::of(method, uri, headers);
        route.map(|route| extensions.insert(route)).is_some()
    }

    async fn check_access(&self, request: &mut S3Request<Body>) -> S3Result<()> {
        Signer::note_in(&request.extensions, request.credentials.as_ref());
        let route = route_of(request)?;
        if route == Route::Form {
            return Err(not_implemented("PostObject"));
        }
        let target = Target::of(request.uri.path()).ok_or_else(|| S3Error::new(S3ErrorCode::InvalidURI))?;
        let asked = Asked {
            credentials: request.credentials.as_ref(),
            method: &request.method,
            uri: &request.uri,
            headers: &request.headers,
            shape: target.shape,
            bucket: target.bucket.as_deref(),
        };
        let caller = match route {
            Route::Admin => self.access.identify(&asked)?,
            Route::Versions(_) | Route::Rewritten(_) | Route::Form => self.access.authorize(&asked)?,
        };
        if route == Route::Admin && caller.at.is_some() {
            return Err(invalid_argument("x-elton-at needs a bucket"));
        }
        request.extensions.insert(caller);
        Ok(())
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        match route_of(&request)? {
            Route::Admin => self.edge.admin.call(request).await,
            Route::Versions(bucket) => versions::list_object_versions(&self.edge, &request, &bucket).await,
            Route::Form => Err(not_implemented("PostObject")),
            Route::Rewritten(rewrite) => rewrite.serve(request, &self.inner, self.edge.limits.xml_bytes_max).await,
        }
    }
}

fn route_of(request: &S3Request<Body>) -> S3Result<Route> {
    // `is_match` left it there.
    request.extensions.get::<Route>().cloned().ok_or_else(|| S3Error::new(S3ErrorCode::InternalError))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: &str, uri: &str) -> Option<Route> {
        Route::of(&method.parse().unwrap(), &uri.parse().unwrap(), &HeaderMap::new())
    }

    #[test]
    fn what_s3s_serves_is_left_to_it() {
        for (method, uri) in [("GET", "/b"), ("GET", "/b/k?versions"), ("PUT", "/b/k"), ("HEAD", "/b/k"), ("GET", "/")]
        {
            assert_eq!(route(method, uri), None, "{uri}");
        }
        assert_eq!(route("GET", "/b?versions&prefix=x"), Some(Route::Versions("b".to_owned())));
        assert_eq!(route("GET", "/b--at-3/?versions="), Some(Route::Versions("b--at-3".to_owned())));
        assert_eq!(route("GET", "/_elton/v1/status"), Some(Route::Admin));
        assert_eq!(route("GET", "/_elton/v10"), None);
        let form = HeaderMap::from_iter([(CONTENT_TYPE, "Multipart/Form-Data; boundary=x".parse().unwrap())]);
        assert_eq!(Route::of(&Method::POST, &"/b".parse().unwrap(), &form), Some(Route::Form));
    }

    #[test]
    fn paths_are_read_as_s3s_reads_them() {
        let target = |path| Target::of(path).map(|target| (target.shape, target.bucket.unwrap_or_default()));
        assert_eq!(target("/"), Some((Shape::Root, String::new())));
        assert_eq!(target("/b/"), Some((Shape::Bucket, "b".to_owned())));
        assert_eq!(target("/b%2Fk"), Some((Shape::Object, "b".to_owned())));
        assert_eq!(target("/b//"), Some((Shape::Object, "b".to_owned())));
        assert_eq!(target("/%ff"), None);
    }
}
