//! The S3 edge: S3 over HTTP, in terms of the core's [`Cluster`].
//!
//! s3s parses requests, checks signatures and writes answers; the modules here say what each operation means, one file
//! for each family. `access` decides who may, `unsupported` what is refused by name, `error` what errors are called,
//! `route` serves what s3s cannot say, and `rewrite` puts right what it reads otherwise than S3 does.
//!
//! The edge translates and holds no rules of versions, numbers or snapshots: those are the core's.

mod access;
mod acl;
mod allowed;
mod attributes;
mod buckets;
mod checksum;
mod condition;
mod configuration;
mod copy;
mod delete;
mod describe;
mod document;
mod error;
mod get;
mod keys;
mod list;
mod multipart;
mod odd_headers;
mod operations;
mod part;
mod put;
mod query;
mod range;
mod rewrite;
mod route;
mod stated;
mod tagging;
mod tags;
mod target;
mod time;
mod token;
mod unsupported;
mod uploads;
mod versioning;
mod versions;

use std::sync::Arc;

use federation::cluster::Cluster;
use federation::master::Version;
use federation::types::{BucketAt, Number};
use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto;
use s3s::region::{InvalidRegion, Region};
use s3s::route::S3Route;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::validation::NameValidation;
use s3s::{S3Error, S3ErrorCode, S3Response, S3Result};

use crate::credentials::CredentialStore;
use access::{Access, Keys};

pub use access::Caller;
pub use error::from_core;
pub(crate) use get::streamed;

/// The version that a write made or a read found.
const X_ELTON_VERSION: HeaderName = HeaderName::from_static("x-elton-version");
/// The header that says how many seconds old a read may be, where the bucket's home was away.
const X_ELTON_AGE: HeaderName = HeaderName::from_static("x-elton-age");

/// The region of buckets that were created without naming one.
const REGION_DEFAULT: &str = "us-east-1";

/// Bounds on what a client can make grow.
#[derive(Clone, Copy, Debug)]
pub struct S3Limits {
    /// The longest XML document of a request, in bytes. A CompleteMultipartUpload of 10,000 parts with the longest
    /// checksums takes 2.5 MB, a DeleteObjects of 1,000 keys of 1,024 bytes 1.1 MB, or 3.7 MB if its client escapes
    /// every letter as a number.
    pub xml_bytes_max: usize,
    /// The longest body of one PutObject or UploadPart, in bytes.
    pub body_bytes_max: u64,
    /// The longest signed chunk, in bytes: it is held in memory until its signature is checked. SDKs send 64 KiB (Go,
    /// minio) or 128 KiB (Java, .NET).
    pub signed_chunk_bytes_max: usize,
    /// All the fields of a form together, in bytes.
    pub form_bytes_max: usize,
    /// How long a presigned request may be valid, in seconds.
    pub presigned_seconds_max: u32,
}

impl Default for S3Limits {
    fn default() -> Self {
        S3Limits {
            xml_bytes_max: 4 * 1024 * 1024,
            body_bytes_max: 5 * 1024 * 1024 * 1024,
            signed_chunk_bytes_max: 1024 * 1024,
            form_bytes_max: 256 * 1024,
            presigned_seconds_max: 7 * 24 * 60 * 60,
        }
    }
}

/// The one owner of all buckets and objects.
#[derive(Clone, Debug)]
pub struct Owner {
    /// 64 hexadecimal digits, derived from the cluster.
    pub id: String,
    /// The cluster's name.
    pub display_name: String,
}

/// How the edge is set up.
pub struct S3EdgeConfig {
    /// The one region that signatures may name; any if none.
    pub region: Option<String>,
    /// Whose signatures count.
    pub credentials: Arc<dyn CredentialStore>,
    /// Who owns everything.
    pub owner: Owner,
    /// Bounds on what a client can make grow.
    pub limits: S3Limits,
    /// Whether clients come over TLS: for the URLs in answers.
    pub https: bool,
    /// Serves what is below `/_elton/v1/`, after the signature was checked. A [`Caller`] stands in the request's
    /// extensions; the route's own `is_match` and `check_access` are not asked.
    pub admin: Arc<dyn S3Route>,
}

/// The S3 edge.
#[derive(Clone)]
pub struct S3Edge(Arc<Edge>);

/// What every operation works with.
struct Edge {
    cluster: Arc<Cluster>,
    credentials: Arc<dyn CredentialStore>,
    admin: Arc<dyn S3Route>,
    owner: Owner,
    region: Option<Region>,
    limits: S3Limits,
    https: bool,
}

impl S3Edge {
    /// An edge to `cluster`. Fails if the configured region is no region's name.
    pub fn new(cluster: Arc<Cluster>, config: S3EdgeConfig) -> Result<S3Edge, InvalidRegion> {
        let S3EdgeConfig { region, credentials, owner, limits, https, admin } = config;
        let region = region.map(|region| Region::new(region.into())).transpose()?;
        Ok(S3Edge(Arc::new(Edge { cluster, credentials, admin, owner, region, limits, https })))
    }

    /// The edge as a service for `hyper` or `tower`.
    #[must_use]
    pub fn into_service(self) -> S3Service {
        let access = Access { owner_id: self.0.owner.id.as_str().into() };
        let config = Arc::new(self.0.s3s_config());
        // What a route of ours has authorised and put right goes to this one, which no request reaches otherwise.
        let mut inner = S3ServiceBuilder::new(self.clone());
        inner.set_config(Arc::new(StaticConfigProvider::new(config.clone())));
        inner.set_validation(Names);
        let inner = inner.build();

        let mut service = S3ServiceBuilder::new(self.clone());
        service.set_config(Arc::new(StaticConfigProvider::new(config)));
        service.set_validation(Names);
        service.set_auth(Keys(self.0.credentials.clone()));
        service.set_access(access.clone());
        service.set_route(route::Routes { edge: self.0, access, inner });
        service.build()
    }
}

impl Edge {
    fn s3s_config(&self) -> S3Config {
        let mut config = S3Config::default();
        config.xml_max_body_size = self.limits.xml_bytes_max;
        config.put_object_max_size = Some(self.limits.body_bytes_max);
        // A route reads a document within `xml_bytes_max`, and hands an object on.
        config.custom_route_max_body_size = Some(self.limits.body_bytes_max);
        config.aws_chunked_stream_max_chunk_size = self.limits.signed_chunk_bytes_max;
        config.post_object_max_file_size = 1;
        config.form_max_field_size = self.limits.form_bytes_max;
        config.form_max_fields_size = self.limits.form_bytes_max;
        config.form_max_parts = 100;
        config.expected_region = self.region.clone();
        config.sig_v4_allowed_services = vec!["s3".to_owned()];
        config.enable_sig_v2 = false;
        config.presigned_url_max_expires_secs = self.limits.presigned_seconds_max;
        // A declared `x-id` would outrank what the request is by its method and query, which is what is authorised.
        config.operation_id_routing = false;
        config.unsigned_amz_header_allowlist = Vec::new();
        config
    }

    fn owner(&self) -> dto::Owner {
        dto::Owner { id: Some(self.owner.id.clone()), display_name: Some(self.owner.display_name.clone()) }
    }

    /// The region of a bucket: the configured one, or by the `LocationConstraint` it was created with.
    fn bucket_region(&self, location: &str) -> String {
        match (&self.region, location) {
            (Some(region), _) => region.as_str().to_owned(),
            (None, "") => REGION_DEFAULT.to_owned(),
            // The oldest constraint is no region's name.
            (None, "EU") => "eu-west-1".to_owned(),
            (None, location) => location.to_owned(),
        }
    }

    /// What GetBucketLocation answers: the oldest region has no constraint.
    fn location_constraint(&self, location: String) -> Option<String> {
        let location = self.region.as_ref().map_or(location, |region| region.as_str().to_owned());
        Some(location).filter(|location| !location.is_empty() && (self.region.is_none() || location != REGION_DEFAULT))
    }

    /// Refuses a `LocationConstraint` that is not of the configured region.
    fn check_location(&self, location: &str) -> S3Result<()> {
        let Some(region) = self.region.as_ref().map(Region::as_str) else { return Ok(()) };
        let is_here = location.is_empty() || location == region || (location == "EU" && region == "eu-west-1");
        if is_here {
            return Ok(());
        }
        let message = format!("the location constraint {location} is not of this endpoint, whose region is {region}");
        Err(S3Error::with_message(S3ErrorCode::IllegalLocationConstraintException, message))
    }

    /// Fails if there is no such bucket or snapshot.
    async fn require_bucket(&self, at: &BucketAt) -> S3Result<()> {
        self.cluster.require(at).await.map_err(from_core)
    }
}

/// An answer that carries `x-elton-version`.
fn numbered<T>(output: T, number: Number) -> S3Response<T> {
    S3Response::with_headers(output, HeaderMap::from_iter([(X_ELTON_VERSION, HeaderValue::from(number.0))]))
}

/// An answer to a read, which says how old it may be where another cluster could not be asked.
fn read_of<T>(output: T, version: &Version) -> S3Response<T> {
    let mut response = numbered(output, version.number);
    if let Some(age) = version.age {
        response.headers.insert(X_ELTON_AGE, HeaderValue::from(age.as_secs()));
    }
    response
}

/// The names of buckets and of their snapshots, which may be longer than 63 characters.
struct Names;

impl NameValidation for Names {
    fn validate_bucket_name(&self, name: &str) -> bool {
        BucketAt::from_alias(name).is_ok()
    }
}
