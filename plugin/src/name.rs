//! What volumes are called, and which part of which state a name and its options mean.
//!
//! dockerd checks nothing about the names of a plugin's volumes: whatever somebody typed arrives here. Either the name says
//! it all (`photos@42`, `photos@before-upgrade`, `photos@2026-11-20T10:00Z`) or the options do (`bucket`, `version`,
//! `prefix`) and the name is only a name. A bucket that another cluster numbers goes by the name it is linked under.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use federation::types::{BucketAt, BucketName, InvalidName, Number, SnapshotRef};
use serde::{Deserialize, Serialize};

/// Bytes that a volume's name may have: as many as a file's name, for that is what operators look for in logs and paths.
const NAME_BYTES_MAX: usize = 255;
/// Bytes that a prefix may have: as many as an S3 key.
const PREFIX_BYTES_MAX: usize = 1024;

/// A volume's name.
///
/// Invariant: 1 to 255 bytes without control characters and `/`, and neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(Box<str>);

/// Why a volume cannot be called or made so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVolume {
    /// No name at all.
    #[error("a volume needs a name")]
    Nameless,
    /// The name is too long.
    #[error("the name of a volume has at most {NAME_BYTES_MAX} bytes")]
    Long,
    /// The name has a slash.
    #[error(
        "{name:?} cannot be the name of a volume: it has a `/`. A bucket of another cluster is named as it is linked \
         here: after `elton bucket link CLUSTER/photos`, photos@42"
    )]
    Slash {
        /// The name.
        name: String,
    },
    /// The name has other characters that names do not have.
    #[error("{name:?} cannot be the name of a volume: no control characters, and neither `.` nor `..`")]
    Characters {
        /// The name.
        name: String,
    },
    /// The name says a snapshot, but not a lawful one.
    #[error(
        "{name:?} names no snapshot of a bucket: {source}; a volume is called BUCKET@NUMBER, BUCKET@TAG or BUCKET@TIME"
    )]
    Snapshot {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: InvalidName,
    },
    /// Neither name nor options say which state is meant.
    #[error(
        "{name} names no snapshot, and volumes that can be written are not in this version: say BUCKET@NUMBER, BUCKET@TAG \
         or BUCKET@TIME (`elton bucket log BUCKET` lists numbers), or `docker volume create -d elton -o bucket=BUCKET -o \
         version=NUMBER {name}`"
    )]
    Writable {
        /// The name.
        name: VolumeName,
    },
    /// The name says what the options say again.
    #[error(
        "{name} says by its name which snapshot it is, so it has no options: leave them out, or choose a name without `@`"
    )]
    SaidTwice {
        /// The name.
        name: VolumeName,
    },
    /// Half of bucket and version.
    #[error("the option {missing} is missing: -o bucket=BUCKET -o version=NUMBER, TAG or TIME belong together")]
    Missing {
        /// Which half.
        missing: &'static str,
    },
    /// An option's value cannot be read.
    #[error("-o {option}={value:?} cannot be used: {reason}")]
    Value {
        /// Which option.
        option: &'static str,
        /// What it was.
        value: String,
        /// Why not.
        reason: String,
    },
    /// No such option.
    #[error("there is no option {option:?}: volumes are read-only and have bucket, version and prefix{hint}")]
    Option {
        /// Which.
        option: String,
        /// What may have been meant.
        hint: &'static str,
    },
}

impl VolumeName {
    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = InvalidVolume;

    fn from_str(name: &str) -> Result<Self, InvalidVolume> {
        if name.is_empty() {
            return Err(InvalidVolume::Nameless);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(InvalidVolume::Long);
        }
        if name.contains('/') {
            return Err(InvalidVolume::Slash { name: name.to_owned() });
        }
        if name.chars().any(char::is_control) || matches!(name, "." | "..") {
            return Err(InvalidVolume::Characters { name: name.to_owned() });
        }
        Ok(VolumeName(name.into()))
    }
}

impl TryFrom<String> for VolumeName {
    type Error = InvalidVolume;

    fn try_from(name: String) -> Result<Self, InvalidVolume> {
        name.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The directory of a bucket that a volume shows: empty for all of it, else ending in `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(Box<str>);

impl Prefix {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the whole bucket.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<String> for Prefix {
    type Error = InvalidVolume;

    /// `a` and `a/` are the same directory.
    fn try_from(given: String) -> Result<Self, InvalidVolume> {
        if given.is_empty() {
            return Ok(Prefix::default());
        }
        if given.len() >= PREFIX_BYTES_MAX || given.contains('\0') {
            let reason = format!("it is a directory of the bucket, below {PREFIX_BYTES_MAX} bytes and without NUL");
            return Err(InvalidVolume::Value { option: "prefix", value: given, reason });
        }
        let given = if given.ends_with('/') { given } else { given + "/" };
        Ok(Prefix(given.into()))
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0.into()
    }
}

/// What somebody asked for: a part of a state that may still go by a tag or a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The bucket.
    pub bucket: BucketName,
    /// The state.
    pub snapshot: SnapshotRef,
    /// The part.
    pub prefix: Prefix,
}

impl Wanted {
    /// What a name and its options mean.
    pub fn new(name: &VolumeName, options: &BTreeMap<String, String>) -> Result<Self, InvalidVolume> {
        if let Some(option) = options.keys().find(|option| !matches!(option.as_str(), "bucket" | "version" | "prefix"))
        {
            return Err(InvalidVolume::Option { option: option.clone(), hint: hint(option) });
        }
        if name.as_str().contains('@') {
            if !options.is_empty() {
                return Err(InvalidVolume::SaidTwice { name: name.clone() });
            }
            return Self::by_name(name);
        }
        let prefix = options.get("prefix").cloned().unwrap_or_default().try_into()?;
        match (options.get("bucket"), options.get("version")) {
            (Some(bucket), Some(version)) => {
                Ok(Wanted { bucket: value("bucket", bucket)?, snapshot: value("version", version)?, prefix })
            }
            (Some(_), None) => Err(InvalidVolume::Missing { missing: "version" }),
            (None, Some(_)) => Err(InvalidVolume::Missing { missing: "bucket" }),
            (None, None) => Err(InvalidVolume::Writable { name: name.clone() }),
        }
    }

    fn by_name(name: &VolumeName) -> Result<Self, InvalidVolume> {
        let wrong = |source| InvalidVolume::Snapshot { name: name.to_string(), source };
        let at: BucketAt = name.as_str().parse().map_err(wrong)?;
        let snapshot = at.snapshot.ok_or(InvalidName::Snapshot).map_err(wrong)?;
        Ok(Wanted { bucket: at.bucket, snapshot, prefix: Prefix::default() })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.bucket, self.snapshot)
    }
}

fn value<T: FromStr<Err = InvalidName>>(option: &'static str, text: &str) -> Result<T, InvalidVolume> {
    text.parse().map_err(|error: InvalidName| InvalidVolume::Value {
        option,
        value: text.to_owned(),
        reason: error.to_string(),
    })
}

/// What to do instead, for options that people of other plugins, and of versions to come, will try.
fn hint(option: &str) -> &'static str {
    let lower = option.to_ascii_lowercase();
    if ["key", "secret", "password", "token", "credential"].iter().any(|word| lower.contains(word)) {
        return ". Keys never belong into options, where `docker volume inspect` shows them: the plugin has its own \
                (ELTON_ACCESS_KEY and ELTON_SECRET_KEY in its environment)";
    }
    match lower.as_str() {
        "from" | "mode" | "commit" | "shared" => "; volumes that can be written are not in this version",
        "snapshot" | "tag" | "number" | "at" => "; a snapshot is named by version=",
        _ => "",
    }
}

/// A part of one numbered state: what is mounted, once for all who use it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// The bucket, by its name here.
    pub bucket: BucketName,
    /// The state.
    pub number: Number,
    /// The part.
    pub prefix: Prefix,
}

impl Source {
    /// The name of the folder that it is mounted on: readable for operators, and one for each source.
    #[must_use]
    pub fn folder(&self) -> String {
        let state = format!("{}@{}", self.bucket, self.number);
        if self.prefix.is_whole() {
            return state;
        }
        let hash = blake3::hash(self.prefix.as_str().as_bytes()).to_hex();
        format!("{state}+{}", &hash[..16])
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.bucket, self.number)?;
        if self.prefix.is_whole() { Ok(()) } else { write!(f, "/{}", self.prefix.as_str()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, options: &[(&str, &str)]) -> Result<String, InvalidVolume> {
        let options = options.iter().map(|(option, value)| ((*option).to_owned(), (*value).to_owned())).collect();
        Wanted::new(&name.parse()?, &options).map(|wanted| format!("{wanted}/{}", wanted.prefix.as_str()))
    }

    #[test]
    fn a_name_says_it_all() {
        assert_eq!(wanted("photos@42", &[]).as_deref(), Ok("photos@42/"));
        assert_eq!(wanted("photos@before-upgrade", &[]).as_deref(), Ok("photos@before-upgrade/"));
        assert_eq!(wanted("photos@2026-11-20T10:00Z", &[]), wanted("photos@20261120t100000z", &[]));
        assert!(wanted("photos@2026-11-20T10:00Z", &[]).is_ok());
    }

    #[test]
    fn or_options_do() {
        let options = [("bucket", "photos"), ("version", "before-upgrade")];
        assert_eq!(wanted("holidays", &options).as_deref(), Ok("photos@before-upgrade/"));
        for prefix in ["a/b", "a/b/"] {
            let options = [("bucket", "photos"), ("version", "42"), ("prefix", prefix)];
            assert_eq!(wanted("Ünlawful: elsewhere #1", &options).as_deref(), Ok("photos@42/a/b/"));
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for (name, part) in [
            ("", "needs a name"),
            (".", "neither `.`"),
            ("..", "neither `.`"),
            ("../../etc", "elton bucket link"),
            ("a/../b", "elton bucket link"),
            ("oslo/photos@42", "elton bucket link"),
            ("photos\0@42", "control"),
            ("photos\n@42", "control"),
            ("photos", "not in this version"),
            ("0123456789abcdef", "not in this version"),
            ("photos@", "a snapshot is a number"),
            ("photos@042", "a snapshot is a number"),
            ("photos@4--2", "a snapshot is a number"),
            ("Photos@42", "a bucket's name"),
            ("@42", "a bucket's name"),
            ("a@b@42", "a bucket's name"),
            (&"x".repeat(256), "255 bytes"),
        ] {
            let said = wanted(name, &[]).expect_err(name).to_string();
            assert!(said.contains(part), "{name:?}: {said}");
        }
        assert!(wanted(&format!("{}@{}", "b".repeat(63), u64::MAX), &[]).is_ok());
    }

    #[test]
    fn options_that_are_none_are_refused() {
        let both = [("bucket", "photos"), ("version", "42")];
        for (name, options, part) in [
            ("v", vec![("bucket", "photos")], "option version is missing"),
            ("v", vec![("version", "42")], "option bucket is missing"),
            ("v", vec![("prefix", "a/")], "not in this version"),
            ("v", vec![both[0], ("version", "latest!")], "version=\"latest!\""),
            ("v", vec![both[0], ("version", "")], "version=\"\""),
            ("v", vec![("bucket", "photos@42"), both[1]], "bucket=\"photos@42\""),
            ("v", vec![both[0], both[1], ("prefix", "a\0")], "without NUL"),
            ("v", vec![both[0], both[1], ("Bucket", "x")], "no option \"Bucket\""),
            ("v", vec![both[0], both[1], ("secret-key", "x")], "Keys never belong"),
            ("v", vec![("from", "photos@42")], "not in this version"),
            ("v", vec![both[0], ("tag", "x")], "version="),
            ("photos@42", both.to_vec(), "by its name"),
            ("photos@42", vec![("prefix", "a/")], "by its name"),
        ] {
            let said = wanted(name, &options).expect_err("refused").to_string();
            assert!(said.contains(part), "{name} {options:?}: {said}");
        }
        let said = wanted("v", &[both[0], both[1], ("secret-key", "hunter2")]).expect_err("refused").to_string();
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn each_source_has_a_folder_of_its_own() {
        let source = |bucket: &str, number, prefix: &str| Source {
            bucket: bucket.parse().expect("lawful"),
            number: Number(number),
            prefix: prefix.to_owned().try_into().expect("lawful"),
        };
        let folders = [
            source("photos", 42, "").folder(),
            source("photos", 42, "a/").folder(),
            source("photos", 42, "a/../").folder(),
            source("photos", 4, "").folder(),
        ];
        assert_eq!(folders[0], "photos@42");
        for (index, folder) in folders.iter().enumerate() {
            assert!(!folder.contains('/') && !folders[..index].contains(folder), "{folder}");
        }
        assert_eq!(source("photos", 42, "a").to_string(), "photos@42/a/");
    }
}
