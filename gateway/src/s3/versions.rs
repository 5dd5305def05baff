//! ListObjectVersions, written here: s3s puts all delete markers before all versions, and clients go by their order.

use std::io::Write;

use federation::master::{AfterVersion, VersionItem, VersionsQuery};
use federation::types::Summary;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use s3s::dto::{EncodingType, TimestampFormat};
use s3s::xml::{SerResult, Serializer};
use s3s::{Body, S3Error, S3Request, S3Response, S3Result};

use super::access::Caller;
use super::error::{from_core, invalid_argument};
use super::list::{Marker, Shape, items_max, page_size};
use super::{Edge, Owner, checksum, keys, query, target, time};

const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// The parameters of a ListObjectVersions.
struct Asked {
    prefix: Option<String>,
    delimiter: Option<String>,
    key_marker: Option<String>,
    version_marker: Option<String>,
    encoding: Option<String>,
    max_keys: i32,
}

/// ListObjectVersions of the bucket with this name.
pub async fn list_object_versions(edge: &Edge, request: &S3Request<Body>, bucket: &str) -> S3Result<S3Response<Body>> {
    let at = Caller::of(request)?.bucket_at(bucket)?;
    let asked = Asked::read(request)?;
    let encoding = asked.encoding.clone().map(EncodingType::from);
    let shape = Shape::of(asked.prefix.as_deref(), asked.delimiter.as_deref(), encoding.as_ref())?;
    let after = asked.after(&shape)?;
    let (items, next) = if asked.max_keys == 0 {
        edge.require_bucket(&at).await?;
        (Vec::new(), None)
    } else {
        let query = VersionsQuery {
            prefix: shape.prefix.clone(),
            delimiter: shape.delimiter.clone(),
            after,
            max: items_max(asked.max_keys),
        };
        let page = edge.cluster.list_versions(&at, query).await.map_err(from_core)?;
        (page.items, page.next)
    };

    let page = Page { bucket, asked: &asked, shape: &shape, items: &items, next: next.as_ref(), owner: &edge.owner };
    let xml = page.write().map_err(|error| S3Error::internal_error(std::io::Error::other(error.to_string())))?;
    let mut response = S3Response::new(Body::from(xml));
    response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    Ok(response)
}

impl Asked {
    fn read(request: &S3Request<Body>) -> S3Result<Asked> {
        let text = |name| query::get(&request.uri, name).map(std::borrow::Cow::into_owned);
        let max_keys = text("max-keys").filter(|max| !max.is_empty()).map(|max| max.parse::<i32>()).transpose();
        Ok(Asked {
            prefix: text("prefix"),
            delimiter: text("delimiter"),
            key_marker: text("key-marker"),
            version_marker: text("version-id-marker"),
            encoding: text("encoding-type"),
            max_keys: page_size(max_keys.map_err(|_| invalid_argument("max-keys is no integer"))?, "max-keys")?,
        })
    }

    fn after(&self, shape: &Shape) -> S3Result<Option<AfterVersion>> {
        let key = self.key_marker.as_deref().filter(|key| !key.is_empty());
        let version = self.version_marker.as_deref().filter(|version| !version.is_empty());
        match (key, version) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(invalid_argument("A version-id marker cannot be specified without a key marker.")),
            (Some(key), None) => Ok(Some(match shape.marker(key) {
                Marker::Key(key) => AfterVersion::Key(key),
                Marker::Prefix(prefix) => AfterVersion::Prefix(prefix),
            })),
            (Some(key), Some(version)) => {
                let name = target::version_name(version)?;
                Ok(Some(AfterVersion::Version(keys::bytes(key).into_owned(), name)))
            }
        }
    }
}

/// A page to be written.
struct Page<'a> {
    bucket: &'a str,
    asked: &'a Asked,
    shape: &'a Shape,
    items: &'a [VersionItem],
    next: Option<&'a AfterVersion>,
    owner: &'a Owner,
}

impl Page<'_> {
    fn write(&self) -> Result<Vec<u8>, s3s::xml::SerError> {
        let mut bytes = Vec::with_capacity(256 + 512 * self.items.len());
        let mut xml = Serializer::new(&mut bytes);
        xml.decl()?;
        xml.element_with_ns("ListVersionsResult", NAMESPACE, |xml| {
            self.write_parameters(xml)?;
            for item in self.items {
                self.write_item(xml, item)?;
            }
            // Common prefixes follow the versions, as S3 has them.
            for item in self.items {
                if let VersionItem::Prefix(prefix) = item {
                    xml.element("CommonPrefixes", |xml| xml.content("Prefix", &keys::listed(prefix, self.shape.url)))?;
                }
            }
            Ok(())
        })?;
        Ok(bytes)
    }

    fn write_parameters<W: Write>(&self, xml: &mut Serializer<W>) -> SerResult {
        let echo = |text: &Option<String>| self.shape.echo(text.as_deref());
        xml.content("Name", self.bucket)?;
        xml.content("Prefix", &echo(&self.asked.prefix).unwrap_or_default())?;
        xml.content("KeyMarker", &echo(&self.asked.key_marker).unwrap_or_default())?;
        xml.content("VersionIdMarker", self.asked.version_marker.as_deref().unwrap_or_default())?;
        match self.next {
            Some(AfterVersion::Key(place) | AfterVersion::Prefix(place)) => {
                xml.content("NextKeyMarker", &keys::listed(place, self.shape.url))?;
            }
            Some(AfterVersion::Version(key, version)) => {
                xml.content("NextKeyMarker", &keys::listed(key, self.shape.url))?;
                xml.content("NextVersionIdMarker", &version.to_string())?;
            }
            None => {}
        }
        xml.content("MaxKeys", &self.asked.max_keys)?;
        if let Some(delimiter) = echo(&self.asked.delimiter) {
            xml.content("Delimiter", &delimiter)?;
        }
        if let Some(encoding) = &self.asked.encoding {
            xml.content("EncodingType", encoding)?;
        }
        xml.content("IsTruncated", &self.next.is_some())
    }

    fn write_item<W: Write>(&self, xml: &mut Serializer<W>, item: &VersionItem) -> SerResult {
        let VersionItem::Version { path, summary, latest, marker } = item else { return Ok(()) };
        xml.element(if *marker { "DeleteMarker" } else { "Version" }, |xml| {
            if !marker {
                write_content(xml, summary)?;
            }
            xml.content("Key", &keys::listed(path.as_bytes(), self.shape.url))?;
            let version = if summary.null { "null".to_owned() } else { summary.version.to_string() };
            xml.content("VersionId", &version)?;
            xml.content("IsLatest", latest)?;
            xml.timestamp("LastModified", &time::to_s3(summary.modified), TimestampFormat::DateTime)?;
            xml.element("Owner", |xml| {
                xml.content("DisplayName", &self.owner.display_name)?;
                xml.content("ID", &self.owner.id)
            })
        })
    }
}

fn write_content<W: Write>(xml: &mut Serializer<W>, summary: &Summary) -> SerResult {
    xml.content("ETag", &format!("\"{}\"", summary.etag))?;
    if let Some((algorithm, kind)) = summary.checksum {
        xml.content("ChecksumAlgorithm", checksum::name(algorithm))?;
        xml.content("ChecksumType", checksum::kind_name(kind))?;
    }
    xml.content("Size", &i64::try_from(summary.size).unwrap_or(i64::MAX))?;
    xml.content("StorageClass", "STANDARD")
}

#[cfg(test)]
mod tests {
    use super::*;
    use federation::error::VersionName;
    use federation::types::{ETag, Number, ObjectPath, Timestamp};

    fn item(number: u64, latest: bool, marker: bool) -> VersionItem {
        let summary = Summary {
            version: Number(number),
            ordinal: 0,
            null: number == 1,
            size: 5,
            modified: Timestamp(1_000),
            etag: ETag { md5: [0; 16], parts: None },
            checksum: None,
        };
        VersionItem::Version { path: ObjectPath::try_from("a b").unwrap(), summary, latest, marker }
    }

    #[test]
    fn delete_markers_stand_where_they_belong() {
        let asked = Asked {
            prefix: None,
            delimiter: Some("/".to_owned()),
            key_marker: None,
            version_marker: None,
            encoding: Some("url".to_owned()),
            max_keys: 4,
        };
        let shape = Shape::of(None, Some("/"), Some(&EncodingType::from_static("url"))).unwrap();
        let items =
            [item(3, true, false), item(2, false, true), VersionItem::Prefix(b"p/".to_vec()), item(1, false, false)];
        let next = AfterVersion::Version(b"a b".to_vec(), VersionName::Null);
        let owner = Owner { id: "id".to_owned(), display_name: "name".to_owned() };
        let page =
            Page { bucket: "photos", asked: &asked, shape: &shape, items: &items, next: Some(&next), owner: &owner };
        let xml = String::from_utf8(page.write().unwrap()).unwrap();
        let places: Vec<usize> = [
            "<NextKeyMarker>a%20b</NextKeyMarker><NextVersionIdMarker>null<",
            "<IsTruncated>true<",
            "<Version><ETag>",
            "<VersionId>3</VersionId><IsLatest>true<",
            "<DeleteMarker><Key>a%20b</Key><VersionId>2<",
            "<VersionId>null<",
            "<CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>",
        ]
        .iter()
        .map(|part| xml.find(part).unwrap_or_else(|| panic!("{part} in {xml}")))
        .collect();
        assert!(places.is_sorted(), "{places:?} in {xml}");
    }
}
