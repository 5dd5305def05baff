//! ListObjects, ListObjectsV2, and what all listings share.

use federation::Error;
use federation::master::{After, ListItem, ListPage, ListQuery};
use federation::types::{BucketAt, Number, ObjectPath, SnapshotRef, Summary};
use s3s::dto::{
    ChecksumAlgorithm, ChecksumType, CommonPrefix, ETag, EncodingType, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, Object, ObjectStorageClass,
};
use s3s::{S3Error, S3Request, S3Response, S3Result};

use super::access::Caller;
use super::error::{from_core, invalid_argument};
use super::token::Token;
use super::{Edge, checksum, keys, numbered, time};

/// How many items a page has at most.
const PAGE_ITEMS_MAX: i32 = 1000;

/// ListObjectsV2. All pages of a chain are of the state that the first one listed.
pub async fn list_objects_v2(
    edge: &Edge,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    let input = request.input;
    let shape = Shape::of(input.prefix.as_deref(), input.delimiter.as_deref(), input.encoding_type.as_ref())?;
    let max_keys = page_size(input.max_keys, "max-keys")?;
    let token = input.continuation_token.as_deref().filter(|token| !token.is_empty());
    let token = token.map(|text| Token::decode(text, &at.bucket)).transpose()?;
    let start_after = input.start_after.as_deref().filter(|start| !start.is_empty());
    let after = start_after.map(|start| After::Key(keys::bytes(start).into_owned()));
    let page = chained_page(edge, &at, token, after, &shape, max_keys).await?;

    let (contents, common_prefixes) = shape.items(edge, &page.items, input.fetch_owner.unwrap_or(false));
    let number = page.number;
    let next = page.next.map(|after| Token { number: page.number, after }.encode(&at.bucket));
    let output = ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(shape.echo(input.prefix.as_deref()).unwrap_or_default()),
        delimiter: shape.echo(input.delimiter.as_deref()),
        start_after: shape.echo(input.start_after.as_deref()),
        max_keys: Some(max_keys),
        key_count: Some(i32::try_from(page.items.len()).unwrap_or(i32::MAX)),
        continuation_token: input.continuation_token,
        is_truncated: Some(next.is_some()),
        next_continuation_token: next,
        contents: Some(contents),
        common_prefixes: Some(common_prefixes),
        encoding_type: input.encoding_type,
        request_charged: None,
    };
    Ok(numbered(output, number))
}

/// ListObjects: each page is of the newest state.
pub async fn list_objects(
    edge: &Edge,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let at = Caller::of(&request)?.bucket_at(&request.input.bucket)?;
    let input = request.input;
    let shape = Shape::of(input.prefix.as_deref(), input.delimiter.as_deref(), input.encoding_type.as_ref())?;
    let max_keys = page_size(input.max_keys, "max-keys")?;
    let marker = input.marker.as_deref().filter(|marker| !marker.is_empty());
    let after = marker.map(|marker| match shape.marker(marker) {
        Marker::Key(key) => After::Key(key),
        Marker::Prefix(prefix) => After::Prefix(prefix),
    });
    let page = page(edge, &at, after, &shape, max_keys).await?;

    let (contents, common_prefixes) = shape.items(edge, &page.items, true);
    let next_marker = page.next.map(|(After::Key(place) | After::Prefix(place))| keys::listed(&place, shape.url));
    let output = ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(shape.echo(input.prefix.as_deref()).unwrap_or_default()),
        marker: Some(shape.echo(input.marker.as_deref()).unwrap_or_default()),
        delimiter: shape.echo(input.delimiter.as_deref()),
        max_keys: Some(max_keys),
        is_truncated: Some(next_marker.is_some()),
        // S3 gives one with a delimiter only; clients without another way on need it always.
        next_marker,
        contents: Some(contents),
        common_prefixes: Some(common_prefixes),
        encoding_type: input.encoding_type,
        request_charged: None,
    };
    Ok(numbered(output, page.number))
}

/// A page of a chain, of the chain's state.
async fn chained_page(
    edge: &Edge,
    at: &BucketAt,
    token: Option<Token>,
    start: Option<After>,
    shape: &Shape,
    max: i32,
) -> S3Result<ListPage<ListItem, After>> {
    let Some(token) = token else { return page(edge, at, start, shape, max).await };
    if at.snapshot.is_some() || max == 0 {
        return page(edge, at, Some(token.after), shape, max).await;
    }
    let chain = BucketAt::at(at.bucket.clone(), SnapshotRef::Number(token.number));
    match edge.cluster.list(&chain, shape.query(Some(token.after.clone()), max)).await {
        // The collector went by meanwhile. Pages of another state would leave out or repeat keys without a word.
        Err(Error::BelowFloor { floor, .. }) => Err(ended(token.number, &format!("the floor is {floor} now"))),
        Err(Error::NoSuchSnapshot { .. }) => Err(ended(token.number, "the bucket was made anew")),
        listed => listed.map_err(from_core),
    }
}

/// 400 for a chain whose state is no snapshot any more.
fn ended(number: Number, why: &str) -> S3Error {
    invalid_argument(format!(
        "the continuation token belongs to change {number}, which is gone: {why}. Start the listing again"
    ))
}

async fn page(
    edge: &Edge,
    at: &BucketAt,
    after: Option<After>,
    shape: &Shape,
    max: i32,
) -> S3Result<ListPage<ListItem, After>> {
    if max == 0 {
        let number = edge.cluster.resolve(at).await.map_err(from_core)?;
        return Ok(ListPage { items: Vec::new(), next: None, number });
    }
    edge.cluster.list(at, shape.query(after, max)).await.map_err(from_core)
}

/// Reads `max-keys` and its like: 1,000 unless told, and never more.
pub fn page_size(asked: Option<i32>, name: &str) -> S3Result<i32> {
    match asked {
        Some(asked) if asked < 0 => Err(invalid_argument(format!("{name} must not be negative"))),
        asked => Ok(asked.unwrap_or(PAGE_ITEMS_MAX).min(PAGE_ITEMS_MAX)),
    }
}

/// How a page of items is asked of the core.
pub fn items_max(max: i32) -> usize {
    usize::try_from(max).unwrap_or(0)
}

/// What a listing is confined to and how it is written.
pub struct Shape {
    /// Only keys that begin with this.
    pub prefix: Vec<u8>,
    /// What rolls keys up.
    pub delimiter: Option<Vec<u8>>,
    /// Whether keys are percent-encoded.
    pub url: bool,
}

/// What the marker of a listing names.
pub enum Marker {
    /// A key.
    Key(Vec<u8>),
    /// A common prefix: the page before ended with it.
    Prefix(Vec<u8>),
}

impl Shape {
    /// Reads the parameters that all listings share.
    pub fn of(prefix: Option<&str>, delimiter: Option<&str>, encoding: Option<&EncodingType>) -> S3Result<Shape> {
        let url = match encoding.map(EncodingType::as_str) {
            None | Some("") => false,
            Some(EncodingType::URL) => true,
            Some(_) => return Err(invalid_argument("Invalid Encoding Method specified in Request")),
        };
        let delimiter = delimiter.filter(|text| !text.is_empty()).map(|text| keys::bytes(text).into_owned());
        Ok(Shape { prefix: keys::bytes(prefix.unwrap_or_default()).into_owned(), delimiter, url })
    }

    /// Tells whether a marker is a common prefix of this listing, after which all that it stands for is skipped.
    pub fn marker(&self, text: &str) -> Marker {
        let marker = keys::bytes(text).into_owned();
        let is_prefix = self.delimiter.as_deref().zip(marker.strip_prefix(self.prefix.as_slice())).is_some_and(
            |(delimiter, rest)| {
                let first = rest.windows(delimiter.len()).position(|window| window == delimiter);
                first.is_some_and(|first| first + delimiter.len() == rest.len())
            },
        );
        if is_prefix { Marker::Prefix(marker) } else { Marker::Key(marker) }
    }

    /// A parameter as the answer repeats it.
    pub fn echo(&self, text: Option<&str>) -> Option<String> {
        text.map(|text| keys::echoed(text, self.url))
    }

    /// A common prefix as the answer has it.
    pub fn common_prefix(&self, prefix: &[u8]) -> CommonPrefix {
        CommonPrefix { prefix: Some(keys::listed(prefix, self.url)) }
    }

    fn query(&self, after: Option<After>, max: i32) -> ListQuery {
        ListQuery { prefix: self.prefix.clone(), delimiter: self.delimiter.clone(), after, max: items_max(max) }
    }

    fn items(&self, edge: &Edge, items: &[ListItem], with_owner: bool) -> (Vec<Object>, Vec<CommonPrefix>) {
        let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                ListItem::Object(path, summary) => objects.push(self.object(edge, path, summary, with_owner)),
                ListItem::Prefix(prefix) => prefixes.push(self.common_prefix(prefix)),
            }
        }
        (objects, prefixes)
    }

    fn object(&self, edge: &Edge, path: &ObjectPath, summary: &Summary, with_owner: bool) -> Object {
        Object {
            key: Some(keys::listed(path.as_bytes(), self.url)),
            e_tag: Some(ETag::Strong(summary.etag.to_string())),
            last_modified: Some(time::to_s3(summary.modified)),
            size: Some(i64::try_from(summary.size).unwrap_or(i64::MAX)),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            owner: with_owner.then(|| edge.owner()),
            checksum_algorithm: summary
                .checksum
                .map(|(algorithm, _)| vec![ChecksumAlgorithm::from_static(checksum::name(algorithm))]),
            checksum_type: summary.checksum.map(|(_, kind)| ChecksumType::from_static(checksum::kind_name(kind))),
            restore_status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_at_most_a_thousand_items() {
        let size = |asked| page_size(asked, "max-keys").ok();
        assert_eq!(size(None), Some(1000));
        assert_eq!(size(Some(0)), Some(0));
        assert_eq!(size(Some(5000)), Some(1000));
        assert_eq!(size(Some(-1)), None);
    }

    #[test]
    fn a_marker_that_is_a_common_prefix_skips_it() {
        let shape = Shape::of(Some("a/"), Some("/"), None).unwrap();
        let is_prefix = |marker| matches!(shape.marker(marker), Marker::Prefix(_));
        assert!(is_prefix("a/b/"));
        assert!(!is_prefix("a/b"));
        assert!(!is_prefix("a/b/c/"));
        assert!(!is_prefix("a/"));
        assert!(!is_prefix("x/"));
        let plain = Shape::of(None, Some(""), None).unwrap();
        assert!(plain.delimiter.is_none());
        assert!(matches!(plain.marker("a/"), Marker::Key(_)));
        assert!(Shape::of(None, None, Some(&EncodingType::from_static("gzip"))).is_err());
    }
}
