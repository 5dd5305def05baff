//! Conditional requests: entity tags as clients state them, and what RFC 9110 makes of them.

use federation::master::EtagMatch;
use federation::types::{ETag, Timestamp};
use http::{HeaderMap, HeaderName};
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::error::{invalid_argument, with_headers};
use super::time;

/// How entity tags are compared: those of stored objects are all strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// A weak tag matches nothing: `If-Match`.
    Strong,
    /// A weak tag matches what it names: `If-None-Match`.
    Weak,
}

/// The conditions of a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    if_match: Option<EtagMatch>,
    if_none_match: Option<EtagMatch>,
    modified_since: Option<Timestamp>,
    unmodified_since: Option<Timestamp>,
}

/// What the conditions of a read say of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer as if there were none.
    Proceed,
    /// 304: the client has it.
    NotModified,
    /// 412, because of this header.
    Failed(&'static str),
}

impl Conditions {
    /// The conditions of a GET or HEAD.
    pub fn read(
        headers: &HeaderMap,
        modified_since: Option<&dto::Timestamp>,
        unmodified_since: Option<&dto::Timestamp>,
    ) -> S3Result<Conditions> {
        Ok(Conditions {
            if_match: etag_match(headers, "if-match", Comparison::Strong)?,
            if_none_match: etag_match(headers, "if-none-match", Comparison::Weak)?,
            modified_since: modified_since.map(time::from_s3),
            unmodified_since: unmodified_since.map(time::from_s3),
        })
    }

    /// The conditions on the source of a copy.
    pub fn copy_source(
        headers: &HeaderMap,
        modified_since: Option<&dto::Timestamp>,
        unmodified_since: Option<&dto::Timestamp>,
    ) -> S3Result<Conditions> {
        Ok(Conditions {
            if_match: etag_match(headers, "x-amz-copy-source-if-match", Comparison::Strong)?,
            if_none_match: etag_match(headers, "x-amz-copy-source-if-none-match", Comparison::Weak)?,
            modified_since: modified_since.map(time::from_s3),
            unmodified_since: unmodified_since.map(time::from_s3),
        })
    }

    /// Evaluates them in RFC 9110's order (13.2.2): a tag outweighs the time of its kind.
    pub fn judge(&self, etag: &ETag, modified: Timestamp) -> Verdict {
        let seconds = time::seconds(modified);
        match (&self.if_match, self.unmodified_since) {
            (Some(tags), _) if !matches(tags, etag) => return Verdict::Failed("If-Match"),
            (None, Some(since)) if seconds > time::seconds(since) => return Verdict::Failed("If-Unmodified-Since"),
            _ => {}
        }
        match (&self.if_none_match, self.modified_since) {
            (Some(tags), _) if matches(tags, etag) => Verdict::NotModified,
            (None, Some(since)) if seconds <= time::seconds(since) => Verdict::NotModified,
            _ => Verdict::Proceed,
        }
    }

    /// Evaluates the conditions on a copy's source, where nothing is ever "not modified".
    pub fn check_source(&self, etag: &ETag, modified: Timestamp) -> S3Result<()> {
        match self.judge(etag, modified) {
            Verdict::Proceed => Ok(()),
            Verdict::NotModified | Verdict::Failed(_) => Err(failed("x-amz-copy-source-if-*")),
        }
    }
}

/// 412, naming the condition.
pub fn failed(condition: &str) -> S3Error {
    S3Error::with_message(
        S3ErrorCode::PreconditionFailed,
        format!("At least one of the pre-conditions you specified did not hold: {condition}"),
    )
}

/// 304 with the headers that a 200 would have had to keep a cache fresh.
pub fn not_modified(headers: impl IntoIterator<Item = (HeaderName, String)>) -> S3Error {
    with_headers(S3Error::new(S3ErrorCode::NotModified), headers)
}

/// Whether `If-Range` lets a range be answered: it names this very object, by its tag or its time.
pub fn range_allowed(headers: &HeaderMap, etag: &ETag, modified: Timestamp) -> bool {
    let Some(value) = headers.get(http::header::IF_RANGE) else { return true };
    let Ok(text) = value.to_str() else { return false };
    match httpdate::parse_http_date(text) {
        Ok(date) => date.duration_since(std::time::UNIX_EPOCH).is_ok_and(|d| d.as_secs() == time::seconds(modified)),
        Err(_) => parse_tags(text, Comparison::Strong).is_ok_and(|tags| matches(&tags, etag)),
    }
}

/// The entity tags that a header lists.
pub fn etag_match(headers: &HeaderMap, name: &str, comparison: Comparison) -> S3Result<Option<EtagMatch>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let invalid = || invalid_argument(format!("invalid header: {name}"));
    let text = value.to_str().map_err(|_| invalid())?;
    parse_tags(text, comparison).map(Some).map_err(|Malformed| invalid())
}

#[derive(Debug)]
struct Malformed;

/// Reads `*`, or a list of tags with their quotes; one tag without quotes is taken too, as S3 does.
fn parse_tags(text: &str, comparison: Comparison) -> Result<EtagMatch, Malformed> {
    let text = text.trim();
    if text == "*" {
        return Ok(EtagMatch::Any);
    }
    if !text.contains('"') {
        let lawful = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        return if lawful { Ok(EtagMatch::OneOf(vec![text.to_owned()])) } else { Err(Malformed) };
    }
    let mut tags = Vec::new();
    let mut rest = text;
    loop {
        let (weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
        let (tag, after) = quoted.strip_prefix('"').and_then(|tag| tag.split_once('"')).ok_or(Malformed)?;
        if !weak || comparison == Comparison::Weak {
            tags.push(tag.to_owned());
        }
        match after.trim_start() {
            "" => return Ok(EtagMatch::OneOf(tags)),
            after => rest = after.strip_prefix(',').ok_or(Malformed)?.trim_start(),
        }
    }
}

fn matches(tags: &EtagMatch, etag: &ETag) -> bool {
    match tags {
        EtagMatch::Any => true,
        EtagMatch::OneOf(tags) => {
            let etag = etag.to_string();
            tags.contains(&etag)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: ETag = ETag { md5: [0xab; 16], parts: None };
    const OWN: &str = "\"abababababababababababababababab\"";

    fn one_of(tags: &[&str]) -> EtagMatch {
        EtagMatch::OneOf(tags.iter().map(|tag| (*tag).to_owned()).collect())
    }

    #[test]
    fn lists_of_tags() {
        assert_eq!(parse_tags("*", Comparison::Strong).unwrap(), EtagMatch::Any);
        assert_eq!(parse_tags("abc-2", Comparison::Strong).unwrap(), one_of(&["abc-2"]));
        assert_eq!(parse_tags("\"a\" , W/\"b\",\"c,d\"", Comparison::Weak).unwrap(), one_of(&["a", "b", "c,d"]));
        assert_eq!(parse_tags("\"a\", W/\"b\"", Comparison::Strong).unwrap(), one_of(&["a"]));
        for bad in ["", "\"a", "\"a\" \"b\"", "\"a\",", "a b"] {
            assert!(parse_tags(bad, Comparison::Weak).is_err(), "{bad}");
        }
    }

    fn judge(pairs: &[(&'static str, &str)], modified_since: Option<u64>, unmodified_since: Option<u64>) -> Verdict {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let at = |seconds: Option<u64>| seconds.map(|seconds| time::to_s3(Timestamp(seconds * 1000)));
        let conditions =
            Conditions::read(&headers, at(modified_since).as_ref(), at(unmodified_since).as_ref()).unwrap();
        conditions.judge(&ETAG, Timestamp(100_500))
    }

    #[test]
    fn the_order_of_rfc_9110() {
        assert_eq!(judge(&[], None, None), Verdict::Proceed);
        assert_eq!(judge(&[("if-match", "\"x\"")], None, None), Verdict::Failed("If-Match"));
        // A tag that matches makes the time of its kind irrelevant.
        assert_eq!(judge(&[("if-match", OWN)], None, Some(50)), Verdict::Proceed);
        assert_eq!(judge(&[], None, Some(99)), Verdict::Failed("If-Unmodified-Since"));
        assert_eq!(judge(&[], None, Some(100)), Verdict::Proceed);
        assert_eq!(judge(&[("if-none-match", OWN)], None, None), Verdict::NotModified);
        assert_eq!(judge(&[("if-none-match", "\"x\"")], Some(200), None), Verdict::Proceed);
        assert_eq!(judge(&[], Some(100), None), Verdict::NotModified);
        assert_eq!(judge(&[], Some(99), None), Verdict::Proceed);
        assert_eq!(judge(&[("if-match", OWN), ("if-none-match", OWN)], None, None), Verdict::NotModified);
    }

    #[test]
    fn a_range_of_another_object_is_not_answered() {
        let allowed = |value: &str| {
            let headers = HeaderMap::from_iter([(http::header::IF_RANGE, value.parse().unwrap())]);
            range_allowed(&headers, &ETAG, Timestamp(100_500))
        };
        assert!(range_allowed(&HeaderMap::new(), &ETAG, Timestamp(0)));
        assert!(allowed(OWN));
        assert!(!allowed("\"x\""));
        assert!(allowed("Thu, 01 Jan 1970 00:01:40 GMT"));
        assert!(!allowed("Thu, 01 Jan 1970 00:01:41 GMT"));
    }
}
