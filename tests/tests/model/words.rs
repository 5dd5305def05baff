//! What the model says, in the core's words, and the core's answers in the model's.

use federation::error::{Error, VersionName};
use federation::master::{Description, Which};
use federation::types::{Body, BucketAt, BucketName, ETag, Number, ObjectRecord, SnapshotRef, TagName, Timestamp};

use super::op::Pick;
use super::state::{self, Name, Object, Outcome, Tags, Top};

/// The name of an error's variant.
pub fn name_of(error: &Error) -> String {
    let text = format!("{error:?}");
    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    match error {
        // What the model never says is shown whole.
        Error::Storage { .. } | Error::Damaged { .. } | Error::Conflict => text,
        _ => text[..end].to_owned(),
    }
}

/// An outcome with errors as names, for comparing.
pub fn named<T>(outcome: Result<T, Error>) -> Result<T, String> {
    outcome.map_err(|error| name_of(&error))
}

pub fn expected<T>(outcome: Outcome<T>) -> Result<T, String> {
    outcome.map_err(ToOwned::to_owned)
}

pub fn bucket_name(b: usize) -> BucketName {
    ["alpha", "beta"][b].parse().expect("a lawful name")
}

pub fn tag_name(tag: u8) -> TagName {
    ["one", "two", "three"][usize::from(tag) % 3].parse().expect("a lawful name")
}

pub fn tags(index: u8) -> Tags {
    (0..index).map(|index| (format!("t{index}"), "v".to_owned())).collect()
}

const PREFIXES: [&[u8]; 9] = [b"", b"", b"a", b"a/", b"b", b"-", b"/", b"a\0", b"\xff"];

pub fn prefix(index: usize) -> &'static [u8] {
    PREFIXES[index % PREFIXES.len()]
}

pub fn version_name(name: Name) -> VersionName {
    match name {
        Name::Null => VersionName::Null,
        Name::Number(number) => VersionName::Number(Number(number)),
    }
}

pub fn which(name: Option<Name>) -> Which {
    name.map_or(Which::Newest, |name| Which::Named(version_name(name)))
}

pub fn pick_of(versions: &[state::Version], pick: Pick) -> Option<Name> {
    match pick {
        Pick::Newest => None,
        Pick::Null => Some(Name::Null),
        Pick::Shown(_) if versions.is_empty() => Some(Name::Number(1)),
        Pick::Shown(index) => Some(versions[usize::from(index) % versions.len()].name()),
        Pick::Number(number) => Some(Name::Number(number.into())),
    }
}

/// A version that can be read, or why there is none.
pub fn find(state: &state::State, key: &[u8], name: Option<Name>) -> Outcome<state::Version> {
    match name {
        None => match state.top(key) {
            Top::Live(version, _) => Ok(version.clone()),
            Top::Marker(_) => Err("DeleteMarker"),
            Top::Absent => Err("NoSuchKey"),
        },
        Some(name) => match state.named(key, name) {
            None => Err("NoSuchVersion"),
            Some(version) if version.object.is_none() => Err("DeleteMarker"),
            Some(version) => Ok(version.clone()),
        },
    }
}

pub fn describe(object: &Object) -> Description {
    Description { headers: Vec::new(), metadata: object.metadata.clone(), tags: object.tags.clone() }
}

pub fn record(object: &Object, md5: [u8; 16]) -> ObjectRecord {
    ObjectRecord {
        body: Body::Empty,
        size: 0,
        etag: ETag { md5, parts: None },
        modified: Timestamp(0),
        checksum: None,
        headers: Vec::new(),
        metadata: object.metadata.clone(),
        tags: object.tags.clone(),
    }
}

/// A snapshot by time.
pub fn at_time(b: usize, time: u64) -> BucketAt {
    BucketAt::at(bucket_name(b), SnapshotRef::Time(Timestamp(time)))
}
