//! Method and path of a request as a call: one place knows them all.

use std::str::FromStr;

use federation::Error;
use federation::master::Actor;
use federation::types::{BucketName, ObjectPath, PinId, SnapshotRef, TagName};
use http::Method;
use serde::de::DeserializeOwned;

use super::error::AdminError;
use super::{Answer, Inner, buckets, maintenance, peers, shape, snapshots, status, trees};

/// A call with its parameters; bodies are parsed when it runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Call {
    Status,
    Local,
    Usage,
    Check,
    Collect,
    ListBuckets,
    CreateBucket,
    ShowBucket(BucketName),
    SetBucket(BucketName),
    Log { bucket: BucketName, before: Option<u64>, max: Option<usize> },
    ListSnapshots(BucketName),
    CreateSnapshot(BucketName),
    ShowSnapshot { bucket: BucketName, snapshot: SnapshotRef, count: bool },
    RemoveTag { bucket: BucketName, tag: TagName },
    Diff { bucket: BucketName, query: snapshots::DiffQuery },
    Restore(BucketName),
    Tree { state: trees::State, directory: Vec<u8> },
    Pages(trees::Numbered),
    Body { state: trees::Numbered, query: trees::BodyQuery },
    CreatePin(trees::State),
    RenewPin { bucket: BucketName, pin: PinId },
    RemovePin { bucket: BucketName, pin: PinId },
    Share(BucketName),
    CreateLink,
    RemoveLink(BucketName),
    ListPeers,
    Where { bucket: BucketName, path: ObjectPath },
    Invite,
    Join,
    RemovePeer(String),
    TrustPeer(String),
}

impl Call {
    /// The call that a request makes.
    pub(super) fn parse(method: &Method, path: &str, query: &str) -> Result<Self, AdminError> {
        let unknown = || AdminError::NoSuchCall { method: method.to_string(), path: path.to_owned() };
        let rest = path.strip_prefix(shape::PREFIX).and_then(|rest| rest.strip_prefix('/')).ok_or_else(unknown)?;
        let segments: Vec<String> = rest.split('/').map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let query = Query::parse(query);
        let bucket = |name: &str| name.parse::<BucketName>().map_err(|error| AdminError::from(Error::from(error)));
        Ok(match (method.as_str(), segments.as_slice()) {
            ("GET", ["status"]) => Call::Status,
            ("GET", ["local"]) => Call::Local,
            ("GET", ["du"]) => Call::Usage,
            ("POST", ["check"]) => Call::Check,
            ("POST", ["gc"]) => Call::Collect,
            ("GET", ["buckets"]) => Call::ListBuckets,
            ("POST", ["buckets"]) => Call::CreateBucket,
            ("GET", ["buckets", name]) => Call::ShowBucket(bucket(name)?),
            ("PATCH", ["buckets", name]) => Call::SetBucket(bucket(name)?),
            ("GET", ["buckets", name, "log"]) => {
                Call::Log { bucket: bucket(name)?, before: query.number("before")?, max: query.number("max")? }
            }
            ("GET", ["buckets", name, "snapshots"]) => Call::ListSnapshots(bucket(name)?),
            ("POST", ["buckets", name, "snapshots"]) => Call::CreateSnapshot(bucket(name)?),
            ("GET", ["buckets", name, "snapshots", snapshot]) => Call::ShowSnapshot {
                bucket: bucket(name)?,
                snapshot: snapshot.parse().map_err(Error::from)?,
                count: query.get("count") == Some("true"),
            },
            ("DELETE", ["buckets", name, "snapshots", tag]) => {
                Call::RemoveTag { bucket: bucket(name)?, tag: tag.parse().map_err(Error::from)? }
            }
            ("GET", ["buckets", name, "diff"]) => {
                Call::Diff { bucket: bucket(name)?, query: snapshots::DiffQuery::parse(&query)? }
            }
            ("POST", ["buckets", name, "restore"]) => Call::Restore(bucket(name)?),
            ("GET", ["buckets", name, "tree"]) => Call::Tree {
                state: trees::State::parse(bucket(name)?, &query)?,
                directory: trees::directory(query.bytes("prefix").unwrap_or_default())?,
            },
            ("POST", ["buckets", name, "pages"]) => Call::Pages(trees::Numbered::parse(bucket(name)?, &query)?),
            ("GET", ["buckets", name, "body"]) => Call::Body {
                state: trees::Numbered::parse(bucket(name)?, &query)?,
                query: trees::BodyQuery::parse(&query)?,
            },
            ("POST", ["buckets", name, "pins"]) => Call::CreatePin(trees::State::parse(bucket(name)?, &query)?),
            ("PUT", ["buckets", name, "pins", pin]) => Call::RenewPin { bucket: bucket(name)?, pin: parse_pin(pin)? },
            ("DELETE", ["buckets", name, "pins", pin]) => {
                Call::RemovePin { bucket: bucket(name)?, pin: parse_pin(pin)? }
            }
            ("POST", ["buckets", name, "shares"]) => Call::Share(bucket(name)?),
            ("POST", ["links"]) => Call::CreateLink,
            ("DELETE", ["links", name]) => Call::RemoveLink(bucket(name)?),
            ("GET", ["peers"]) => Call::ListPeers,
            ("GET", ["where"]) => {
                let path = ObjectPath::try_from(query.get("key").unwrap_or_default()).map_err(Error::from)?;
                Call::Where { bucket: bucket(query.get("bucket").unwrap_or_default())?, path }
            }
            ("POST", ["peers"]) => Call::Join,
            ("POST", ["peers", "invitations"]) => Call::Invite,
            ("DELETE", ["peers", name]) => Call::RemovePeer((*name).to_owned()),
            ("PATCH", ["peers", name]) => Call::TrustPeer((*name).to_owned()),
            _ => return Err(unknown()),
        })
    }

    /// Makes the call.
    pub(super) async fn run(self, api: &Inner, actor: Actor, body: &[u8]) -> Result<Answer, AdminError> {
        match self {
            Call::Status => status::status(api).await,
            Call::Local => Ok(Answer::ok(&shape::Local { handover: api.facts.handover.clone() })),
            Call::Usage => maintenance::usage(api).await,
            Call::Check => Ok(maintenance::check(api, parse_body(body)?)),
            Call::Collect => maintenance::collect(api, parse_body(body)?).await,
            Call::ListBuckets => buckets::list(api).await,
            Call::CreateBucket => buckets::create(api, actor, parse_body(body)?).await,
            Call::ShowBucket(bucket) => buckets::show(api, &bucket).await,
            Call::SetBucket(bucket) => buckets::set(api, actor, bucket, parse_body(body)?).await,
            Call::Log { bucket, before, max } => buckets::log(api, &bucket, before, max).await,
            Call::ListSnapshots(bucket) => snapshots::list(api, &bucket).await,
            Call::CreateSnapshot(bucket) => snapshots::create(api, actor, bucket, parse_body(body)?).await,
            Call::ShowSnapshot { bucket, snapshot, count } => snapshots::show(api, bucket, snapshot, count).await,
            Call::RemoveTag { bucket, tag } => snapshots::remove(api, &actor, &bucket, &tag).await,
            Call::Diff { bucket, query } => snapshots::diff(api, bucket, query).await,
            Call::Restore(bucket) => snapshots::restore(api, actor, bucket, parse_body(body)?).await,
            Call::Tree { state, directory } => trees::tree(api, state, &directory).await,
            Call::Pages(state) => trees::pages(api, state, parse_body(body)?).await,
            Call::Body { state, query } => trees::body(api, state, query).await,
            Call::CreatePin(state) => trees::pin(api, state, parse_body(body)?).await,
            Call::RenewPin { bucket, pin } => trees::renew_pin(api, &bucket, pin, parse_body(body)?).await,
            Call::RemovePin { bucket, pin } => trees::unpin(api, &bucket, pin).await,
            Call::Share(bucket) => peers::share(api, actor, &bucket, parse_body(body)?).await,
            Call::CreateLink => peers::create_link(api, actor, parse_body(body)?).await,
            Call::RemoveLink(bucket) => peers::remove_link(api, actor, &bucket).await,
            Call::ListPeers => peers::list(api).await,
            Call::Where { bucket, path } => peers::locate(api, bucket, &path).await,
            Call::Invite => peers::invite(api).await,
            Call::Join => peers::join(api, parse_body(body)?).await,
            Call::RemovePeer(name) => peers::remove(api, actor, &name).await,
            Call::TrustPeer(name) => peers::trust(api, actor, &name, parse_body(body)?).await,
        }
    }
}

fn parse_pin(text: &str) -> Result<PinId, AdminError> {
    text.parse().map_err(|error| AdminError::BadBody { reason: format!("no pin is called that: {error}") })
}

/// A call without a body means one without fields.
fn parse_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, AdminError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| AdminError::BadBody { reason: error.to_string() })
}

/// The parameters after the question mark.
pub(super) struct Query(Vec<(String, Value)>);

/// A value, percent-decoded: as it is, and as text.
struct Value {
    bytes: Vec<u8>,
    text: String,
}

impl Query {
    fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let value = |value| Value { bytes: decode_bytes(value), text: decode(value) };
        Query(pairs.map(|(name, text)| (decode(name), value(text))).collect())
    }

    /// The parameter's value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.text.as_str())
    }

    /// The parameter's value where it need not be text.
    pub(super) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.bytes.clone())
    }

    /// The parameter's value as a number.
    pub(super) fn number<N: FromStr<Err: std::fmt::Display>>(
        &self,
        name: &'static str,
    ) -> Result<Option<N>, AdminError> {
        let parse = |value: &str| {
            value.parse().map_err(|error: N::Err| AdminError::BadParameter { name, reason: error.to_string() })
        };
        self.get(name).map(parse).transpose()
    }
}

/// Percent-decodes; what is no UTF-8 afterwards cannot be a name of this API and stays recognisably wrong.
fn decode(text: &str) -> String {
    String::from_utf8_lossy(&decode_bytes(text)).into_owned()
}

/// Percent-decodes.
pub(super) fn decode_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| tail.first_chunk::<2>()).flatten().and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        match escaped {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, path: &str, query: &str) -> Result<Call, AdminError> {
        Call::parse(&method, path, query)
    }

    #[test]
    fn paths_are_calls() {
        assert_eq!(parse(Method::GET, "/_elton/v1/status", "").expect("known"), Call::Status);
        let photos: BucketName = "photos".parse().expect("lawful");
        assert_eq!(
            parse(Method::GET, "/_elton/v1/buckets/photos/log", "before=9&max=2").expect("known"),
            Call::Log { bucket: photos.clone(), before: Some(9), max: Some(2) },
        );
        let snapshot = "2026-11-20T10:00Z".parse().expect("lawful");
        assert_eq!(
            parse(Method::GET, "/_elton/v1/buckets/photos/snapshots/2026-11-20T10%3A00Z", "").expect("known"),
            Call::ShowSnapshot { bucket: photos, snapshot, count: false },
        );
    }

    #[test]
    fn unknown_calls_and_parameters_are_refused() {
        assert!(matches!(parse(Method::GET, "/_elton/v2/status", ""), Err(AdminError::NoSuchCall { .. })));
        assert!(matches!(parse(Method::PUT, "/_elton/v1/status", ""), Err(AdminError::NoSuchCall { .. })));
        let bad = parse(Method::GET, "/_elton/v1/buckets/photos/log", "before=x");
        assert!(matches!(bad, Err(AdminError::BadParameter { name: "before", .. })));
    }

    #[test]
    fn percent_signs_that_escape_nothing_stay() {
        assert_eq!(decode("a%2Fb%zz%"), "a/b%zz%");
    }
}
