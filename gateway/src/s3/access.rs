//! Who may do what: the one place where a request is authorised, whether s3s or a route of our own serves it.
//!
//! Every key is the owner's so far and may do everything but write to a snapshot. Policies have their place here.

use std::sync::Arc;

use federation::master::Actor;
use federation::types::{BucketAt, Consistency, SnapshotRef};
use http::{HeaderMap, Method, Uri};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{Credentials, S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result};

use super::error::invalid_argument;
use super::unsupported::{self, Shape};
use super::{query, target};
use crate::credentials::{CredentialStore, Signer};

/// The snapshot that a request to a bucket's plain name means.
const AT: &str = "x-elton-at";
/// How fresh a read has to be.
const CONSISTENCY: &str = "x-elton-consistency";

/// Who sent a request, once that is proved. It stands in the request's extensions.
#[derive(Clone, Debug)]
pub struct Caller {
    /// As the log names them.
    pub actor: Actor,
    /// The snapshot that the request means, by `x-elton-at`.
    pub at: Option<SnapshotRef>,
    /// How fresh a read has to be, by `x-elton-consistency`.
    pub consistency: Option<Consistency>,
}

impl Caller {
    /// The caller of a request that was authorised.
    pub fn of<T>(request: &S3Request<T>) -> S3Result<Caller> {
        // Nothing reaches an operation without having been through `authorize`.
        request.extensions.get::<Caller>().cloned().ok_or_else(|| S3Error::new(S3ErrorCode::AccessDenied))
    }

    /// The bucket, as of the snapshot that was named with it or by header.
    pub fn bucket_at(&self, name: &str) -> S3Result<BucketAt> {
        Ok(BucketAt { consistency: self.consistency, ..target::bucket_at(name, self.at.as_ref())? })
    }
}

/// A request to be authorised.
pub struct Asked<'a> {
    /// Whose signature it bears.
    pub credentials: Option<&'a Credentials>,
    /// Its method.
    pub method: &'a Method,
    /// Its target.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What it is about.
    pub shape: Shape,
    /// The bucket's name, as the request has it.
    pub bucket: Option<&'a str>,
}

/// Authorises requests.
#[derive(Clone)]
pub struct Access {
    /// The id of the one owner.
    pub owner_id: Arc<str>,
}

impl Access {
    /// Who is calling, if they may.
    pub fn authorize(&self, asked: &Asked<'_>) -> S3Result<Caller> {
        let caller = self.identify(asked)?;
        unsupported::check(asked.shape, asked.method, asked.uri, asked.headers)?;
        self.check_owner(asked)?;
        check_target(asked, caller.at.as_ref())?;
        Ok(caller)
    }

    /// Who is calling, and in what way.
    pub fn identify(&self, asked: &Asked<'_>) -> S3Result<Caller> {
        let credentials =
            asked.credentials.ok_or_else(|| denied("anonymous requests are refused: sign the request"))?;
        check_signed_names(asked)?;
        let Meant { at, consistency } = own_headers(asked)?;
        if asked.headers.contains_key("x-amz-security-token") || query::has(asked.uri, "X-Amz-Security-Token") {
            return Err(S3Error::with_message(S3ErrorCode::InvalidToken, "there are no session tokens here"));
        }
        Ok(Caller { actor: Actor(credentials.access_key.clone()), at, consistency })
    }

    fn check_owner(&self, asked: &Asked<'_>) -> S3Result<()> {
        let headers = query::presigned(asked.uri);
        let presigned = headers.filter(|(name, _)| is_owner_header(name.as_str())).map(|(_, value)| value);
        let sent =
            asked.headers.iter().filter(|(name, _)| is_owner_header(name.as_str())).map(|(_, value)| value.clone());
        match sent.chain(presigned).all(|value| value.as_bytes() == self.owner_id.as_bytes()) {
            true => Ok(()),
            false => Err(denied("the bucket's owner is another than the one expected")),
        }
    }
}

fn is_owner_header(name: &str) -> bool {
    matches!(name, "x-amz-expected-bucket-owner" | "x-amz-source-expected-bucket-owner")
}

fn denied(message: &'static str) -> S3Error {
    S3Error::with_message(S3ErrorCode::AccessDenied, message)
}

/// Refuses writes to snapshots, whichever way one is named.
fn check_target(asked: &Asked<'_>, at: Option<&SnapshotRef>) -> S3Result<()> {
    let Some(name) = asked.bucket else {
        return if at.is_some() { Err(invalid_argument("x-elton-at needs a bucket")) } else { Ok(()) };
    };
    let bucket = target::bucket_at(name, at)?;
    let reads = *asked.method == Method::GET || *asked.method == Method::HEAD;
    if reads || bucket.snapshot.is_none() {
        return Ok(());
    }
    if asked.shape == Shape::Bucket && *asked.method == Method::PUT && asked.uri.query().is_none_or(str::is_empty) {
        let message = "a name with `--at-` in it is that of a snapshot and cannot be created";
        return Err(S3Error::with_message(S3ErrorCode::InvalidBucketName, message));
    }
    let message = format!("{bucket} is a snapshot, and snapshots are read-only; write to {} itself", bucket.bucket);
    Err(S3Error::with_message(S3ErrorCode::AccessDenied, message))
}

/// What `x-elton-*` headers say.
#[derive(Default)]
struct Meant {
    at: Option<SnapshotRef>,
    consistency: Option<Consistency>,
}

/// Reads `x-elton-*`. s3s refuses unsigned `x-amz-*` only; ours are refused here.
fn own_headers(asked: &Asked<'_>) -> S3Result<Meant> {
    let mut meant = Meant::default();
    let sent = asked.headers.iter().map(|(name, value)| (name.clone(), value.clone(), false));
    let presigned = query::presigned(asked.uri).map(|(name, value)| (name, value, true));
    for (name, value, signed) in sent.chain(presigned).filter(|(name, ..)| name.as_str().starts_with("x-elton-")) {
        let name = name.as_str();
        if !signed && !is_signed(asked, name) {
            let message = format!("{name} counts only when it is signed: add it to SignedHeaders");
            return Err(S3Error::with_message(S3ErrorCode::AccessDenied, message));
        }
        let value = value.to_str().unwrap_or_default();
        match name {
            AT if meant.at.is_none() => {
                meant.at = Some(value.parse().map_err(|error| invalid_argument(format!("{AT}: {error}")))?);
            }
            CONSISTENCY if meant.consistency.is_none() => {
                let parsed = value.parse().map_err(|error| invalid_argument(format!("{CONSISTENCY}: {error}")))?;
                meant.consistency = Some(parsed);
            }
            AT | CONSISTENCY => return Err(invalid_argument(format!("{name} is given twice"))),
            _ => return Err(invalid_argument(format!("there is no header {name}"))),
        }
    }
    Ok(meant)
}

/// Whether the signature covers a header.
fn is_signed(asked: &Asked<'_>, name: &str) -> bool {
    signed_names(asked).split(';').any(|signed| signed.eq_ignore_ascii_case(name))
}

/// The names that a signature covers. s3s has verified the signature; it takes a presigned one first.
fn signed_names(asked: &Asked<'_>) -> String {
    if query::has(asked.uri, "X-Amz-Signature") {
        return query::get(asked.uri, "X-Amz-SignedHeaders").unwrap_or_default().into_owned();
    }
    let authorization = asked.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let mut fields = authorization.into_iter().flat_map(|value| value.split([' ', ',']));
    fields.find_map(|field| field.trim().strip_prefix("SignedHeaders=")).unwrap_or_default().to_owned()
}

/// A signature that leaves the host out would count at any server that knows the key.
fn check_signed_names(asked: &Asked<'_>) -> S3Result<()> {
    let names = signed_names(asked).to_ascii_lowercase();
    if !names.split(';').any(|name| name == "host") {
        return Err(denied("the signature has to cover the header host: add it to SignedHeaders"));
    }
    if !names.split(';').is_sorted_by(|one, next| one < next) {
        return Err(denied("SignedHeaders has to name each header once, in alphabetical order"));
    }
    Ok(())
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let credentials = context.credentials().cloned();
        Signer::note_in(context.extensions_mut(), credentials.as_ref());
        let shape = match context.s3_path() {
            S3Path::Root => Shape::Root,
            S3Path::Bucket { .. } => Shape::Bucket,
            S3Path::Object { .. } => Shape::Object,
        };
        let caller = self.authorize(&Asked {
            credentials: context.credentials(),
            method: context.method(),
            uri: context.uri(),
            headers: context.headers(),
            shape,
            bucket: context.s3_path().get_bucket_name(),
        })?;
        context.extensions_mut().insert(caller);
        Ok(())
    }
}

/// Gives s3s the secrets that signatures are checked with.
pub struct Keys(pub Arc<dyn CredentialStore>);

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        self.0.secret(access_key).ok_or_else(|| S3Error::new(S3ErrorCode::InvalidAccessKeyId))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorize(method: &str, uri: &str, headers: &[(&'static str, &str)]) -> Result<Caller, String> {
        let (method, uri): (Method, Uri) = (method.parse().unwrap(), uri.parse().unwrap());
        let mut headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        if !headers.contains_key("authorization") {
            headers.insert("authorization", "AWS4-HMAC-SHA256 Credential=k, SignedHeaders=host".parse().unwrap());
        }
        let credentials = Credentials { access_key: "key".to_owned(), secret_key: "secret".into() };
        let bucket = uri.path().split('/').nth(1).filter(|name| !name.is_empty());
        let shape = match (bucket, uri.path().split('/').nth(2)) {
            (None, _) => Shape::Root,
            (Some(_), None) => Shape::Bucket,
            (Some(_), Some(_)) => Shape::Object,
        };
        let asked =
            Asked { credentials: Some(&credentials), method: &method, uri: &uri, headers: &headers, shape, bucket };
        let access = Access { owner_id: "owner".into() };
        access.authorize(&asked).map_err(|error| error.code().as_str().to_owned())
    }

    const SIGNED: (&str, &str) = (
        "authorization",
        "AWS4-HMAC-SHA256 Credential=k/d/r/s3/aws4_request, SignedHeaders=host;x-elton-at, Signature=0",
    );

    #[test]
    fn snapshots_are_read_only() {
        assert!(authorize("GET", "/photos--at-3/key", &[]).is_ok());
        assert!(authorize("PUT", "/photos/key", &[]).is_ok());
        for method in ["PUT", "POST", "DELETE"] {
            assert_eq!(authorize(method, "/photos--at-3/key", &[]).unwrap_err(), "AccessDenied");
        }
        assert_eq!(authorize("PUT", "/photos/key", &[SIGNED, ("x-elton-at", "3")]).unwrap_err(), "AccessDenied");
        assert_eq!(authorize("PUT", "/photos--at-3", &[]).unwrap_err(), "InvalidBucketName");
        assert_eq!(authorize("PUT", "/photos--at-3?tagging", &[]).unwrap_err(), "AccessDenied");
    }

    #[test]
    fn our_headers_count_only_when_signed() {
        assert_eq!(authorize("GET", "/photos/key", &[("x-elton-at", "3")]).unwrap_err(), "AccessDenied");
        let caller = authorize("GET", "/photos/key", &[SIGNED, ("x-elton-at", "3")]).unwrap();
        assert_eq!(caller.at, Some(SnapshotRef::Number(federation::types::Number(3))));
        // A presigned request is signed by its query, whatever else it carries.
        let presigned = "/photos/key?X-Amz-Signature=0&X-Amz-SignedHeaders=host";
        assert_eq!(authorize("GET", presigned, &[SIGNED, ("x-elton-at", "3")]).unwrap_err(), "AccessDenied");
        let presigned = "/photos/key?X-Amz-Signature=0&X-Amz-SignedHeaders=host%3Bx-elton-at";
        assert!(authorize("GET", presigned, &[("x-elton-at", "3")]).is_ok());
        let hoisted = "/photos/key?X-Amz-Signature=0&X-Amz-SignedHeaders=host&x-elton-at=3";
        assert!(authorize("GET", hoisted, &[]).is_ok());
    }

    #[test]
    fn a_signature_covers_the_host() {
        let signed = |names: &str| {
            let header = format!("AWS4-HMAC-SHA256 Credential=k, SignedHeaders={names}, Signature=0");
            authorize("GET", "/photos/key", &[("authorization", &header)]).is_ok()
        };
        assert!(signed("host;range;x-amz-date"));
        assert!(signed("Host;x-amz-date"));
        for names in ["", "range", "x-amz-date;host", "host;host", "host;x-amz-host;host"] {
            assert!(!signed(names), "{names}");
        }
        let presigned = |names: &str| {
            let uri = format!("/photos/key?X-Amz-Signature=0&X-Amz-SignedHeaders={names}");
            authorize("GET", &uri, &[("range", "bytes=0-0")]).is_ok()
        };
        assert!(presigned("host%3Brange"));
        assert!(!presigned("range"));
    }

    #[test]
    fn consistency_is_one_of_three() {
        let with = |value: &str| {
            authorize("GET", "/photos/key", &[])
                .and_then(|_| authorize("GET", &format!("/photos/key?x-elton-consistency={value}"), &[]))
        };
        for good in ["strong", "available", "bounded%3D5"] {
            assert!(with(good).is_ok(), "{good}");
        }
        for bad in ["weak", "bounded", "bounded%3D", "bounded%3Dx"] {
            assert_eq!(with(bad).unwrap_err(), "InvalidArgument", "{bad}");
        }
    }

    #[test]
    fn another_owner_is_denied() {
        assert!(authorize("GET", "/photos", &[("x-amz-expected-bucket-owner", "owner")]).is_ok());
        assert_eq!(authorize("GET", "/photos", &[("x-amz-expected-bucket-owner", "x")]).unwrap_err(), "AccessDenied");
        assert_eq!(authorize("GET", "/photos?X-Amz-Expected-Bucket-Owner=x", &[]).unwrap_err(), "AccessDenied");
    }
}
