//! Names that people give: buckets, tags, and the snapshots they make up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Number, Timestamp};

/// What separates a bucket's name from a snapshot's in an alias: `photos--at-42`.
pub const ALIAS_SEPARATOR: &str = "--at-";

/// A bucket's name by S3's rules for general purpose buckets, without `--at-` in it.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketName(Box<str>);

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not a bucket's name.
    #[error(
        "a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens, begins and ends with a letter \
         or digit, is no IP address and has neither `..` nor `--at-` in it"
    )]
    Bucket,
    /// Not a tag's name.
    #[error("a tag is [a-z][a-z0-9-]{{0,30}} without `--`")]
    Tag,
    /// Not a snapshot.
    #[error("a snapshot is a number, a tag ([a-z][a-z0-9-]{{0,30}}) or a UTC time such as 2026-11-20T10:00Z")]
    Snapshot,
}

impl BucketName {
    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BucketName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let bytes = name.as_bytes();
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let lawful = (3..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| alphanumeric(byte) || matches!(byte, b'.' | b'-'))
            && bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && !name.contains("..")
            && !name.contains(ALIAS_SEPARATOR)
            && name.parse::<std::net::Ipv4Addr>().is_err();
        if lawful { Ok(BucketName(name.into())) } else { Err(InvalidName::Bucket) }
    }
}

impl TryFrom<String> for BucketName {
    type Error = InvalidName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<BucketName> for String {
    fn from(name: BucketName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A tag: a name for a number, never moved, only removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TagName(Box<str>);

impl TagName {
    /// The tag's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TagName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let bytes = name.as_bytes();
        let lawful = (1..=31).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
            && !name.contains("--");
        if lawful { Ok(TagName(name.into())) } else { Err(InvalidName::Tag) }
    }
}

impl TryFrom<String> for TagName {
    type Error = InvalidName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<TagName> for String {
    fn from(name: TagName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which state of a bucket is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotRef {
    /// The state after this change.
    Number(Number),
    /// The number that a tag names.
    Tag(TagName),
    /// The last change not later than this time.
    Time(Timestamp),
}

impl FromStr for SnapshotRef {
    type Err = InvalidName;

    /// Accepts both spellings of a time: `2026-11-20T10:00Z` and, for aliases, `20261120t100000z`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            if text.len() > 1 && text.starts_with('0') {
                return Err(InvalidName::Snapshot);
            }
            return text.parse().map(SnapshotRef::Number).map_err(|_| InvalidName::Snapshot);
        }
        if let Ok(tag) = text.parse() {
            return Ok(SnapshotRef::Tag(tag));
        }
        parse_time(text).map(SnapshotRef::Time).ok_or(InvalidName::Snapshot)
    }
}

/// Reads a UTC time: with or without separators, seconds and fraction optional, `z` or `Z` required.
/// A time without a fraction means the end of its second, without seconds the end of its minute's first second.
fn parse_time(text: &str) -> Option<Timestamp> {
    let upper = text.to_ascii_uppercase();
    let body = upper.strip_suffix('Z')?;
    let (date, time) = body.split_once('T')?;
    let date: String = date.chars().filter(|c| *c != '-').collect();
    let (clock, fraction) = time.split_once('.').map_or((time, None), |(clock, fraction)| (clock, Some(fraction)));
    let clock: String = clock.chars().filter(|c| *c != ':').collect();
    let digits = |s: &str| s.bytes().all(|byte| byte.is_ascii_digit());
    if date.len() != 8 || !matches!(clock.len(), 4 | 6) || !digits(&date) || !digits(&clock) {
        return None;
    }
    let field = |s: &str| s.parse::<i8>().ok();
    let seconds = if clock.len() == 6 { field(&clock[4..6])? } else { 0 };
    let moment = jiff::civil::date(date[..4].parse().ok()?, 1, 1)
        .with()
        .month(field(&date[4..6])?)
        .day(field(&date[6..8])?)
        .build()
        .ok()?
        .at(0, 0, 0, 0)
        .with()
        .hour(field(&clock[..2])?)
        .minute(field(&clock[2..4])?)
        .second(seconds)
        .build()
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()?
        .timestamp();
    let millis = match fraction {
        Some(fraction) if !fraction.is_empty() && fraction.len() <= 9 && digits(fraction) => {
            format!("{fraction:0<3}")[..3].parse::<u64>().ok()?
        }
        Some(_) => return None,
        // The whole second is meant: a change at 10:00:00.400 is not later than "10:00:00".
        None => 999,
    };
    Some(Timestamp(u64::try_from(moment.as_millisecond()).ok()? + millis))
}

impl fmt::Display for SnapshotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotRef::Number(number) => number.fmt(f),
            SnapshotRef::Tag(tag) => tag.fmt(f),
            SnapshotRef::Time(time) => time.fmt(f),
        }
    }
}

/// A bucket, or a bucket as of a snapshot: `photos`, `photos@42`, and as S3 clients spell it `photos--at-42`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketAt {
    /// The bucket.
    pub bucket: BucketName,
    /// The state that is meant; the newest when absent.
    pub snapshot: Option<SnapshotRef>,
    /// How fresh the newest has to be where another cluster numbers the bucket; none for the bucket's own rule.
    pub consistency: Option<super::Consistency>,
}

impl BucketAt {
    /// The newest state.
    #[must_use]
    pub fn newest(bucket: BucketName) -> Self {
        BucketAt { bucket, snapshot: None, consistency: None }
    }

    /// The state that a snapshot names.
    #[must_use]
    pub fn at(bucket: BucketName, snapshot: SnapshotRef) -> Self {
        BucketAt { bucket, snapshot: Some(snapshot), consistency: None }
    }

    /// Reads the S3 spelling, `photos` or `photos--at-SNAPSHOT`.
    pub fn from_alias(alias: &str) -> Result<Self, InvalidName> {
        Self::split(alias, ALIAS_SEPARATOR)
    }

    fn split(text: &str, separator: &str) -> Result<Self, InvalidName> {
        // A snapshot has no `--`, a bucket's name may end in `--at`.
        let (bucket, snapshot) = match text.rsplit_once(separator) {
            Some((bucket, snapshot)) => (bucket, Some(snapshot.parse()?)),
            None => (text, None),
        };
        Ok(BucketAt { bucket: bucket.parse()?, snapshot, consistency: None })
    }
}

impl FromStr for BucketAt {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::split(text, "@")
    }
}

impl fmt::Display for BucketAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "{}@{snapshot}", self.bucket),
            None => self.bucket.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_s3() {
        for good in ["abc", "a.b-c", "my-bucket-1", "1.2.3.x"] {
            assert!(good.parse::<BucketName>().is_ok(), "{good}");
        }
        for bad in ["ab", "Abc", "-abc", "abc-", "a..b", "1.2.3.4", "photos--at-3", &"a".repeat(64)] {
            assert!(bad.parse::<BucketName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn snapshots_have_three_spellings() {
        let at = |text: &str| BucketAt::from_alias(text).map(|at| at.snapshot);
        assert_eq!(at("photos--at-42"), Ok(Some(SnapshotRef::Number(Number(42)))));
        assert_eq!(at("photos"), Ok(None));
        assert!(matches!(at("photos--at-before-upgrade"), Ok(Some(SnapshotRef::Tag(_)))));
        assert_eq!(at("photos--at-20261120t100000z"), at("photos--at-2026-11-20t10:00z"));
        assert_eq!(at("photos--at-"), Err(InvalidName::Snapshot));
        assert_eq!(at("xyz--at--at-1"), Ok(Some(SnapshotRef::Number(Number(1)))));
        assert_eq!(at("photos--at-042"), Err(InvalidName::Snapshot), "a number has one spelling");
        assert_eq!("photos@20261340t100000z".parse::<BucketAt>(), Err(InvalidName::Snapshot));
    }
}
