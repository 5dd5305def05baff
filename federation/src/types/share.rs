//! What clusters that share buckets say to each other about rights and freshness.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a cluster is called here: `[a-z0-9][a-z0-9-]{0,62}`. Names are local; two clusters may call themselves the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(Box<str>);

/// A string that is not a cluster's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cluster's name has 1 to 63 lower-case letters, digits and hyphens and begins with a letter or digit")]
pub struct InvalidClusterName;

impl ClusterName {
    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = InvalidClusterName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let lawful = (1..=63).contains(&name.len())
            && name.bytes().all(|byte| alphanumeric(&byte) || byte == b'-')
            && name.as_bytes().first().is_some_and(alphanumeric);
        if lawful { Ok(ClusterName(name.into())) } else { Err(InvalidClusterName) }
    }
}

impl TryFrom<String> for ClusterName {
    type Error = InvalidClusterName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a member may do with a shared bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rights {
    /// Read it.
    ReadOnly,
    /// Read and change it.
    ReadWrite,
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rights::ReadOnly => "ro",
            Rights::ReadWrite => "rw",
        })
    }
}

/// How fresh a read of the newest state of a linked bucket is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// The home is asked: reads see every write that was acknowledged before they began.
    #[default]
    Strong,
    /// What the home said at most this many seconds ago will do.
    Bounded(u32),
    /// The home is asked; where it cannot be reached, what it said last will do.
    Available,
}

impl Consistency {
    /// The longest bound.
    pub const BOUND_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
}

/// A string that names no consistency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a consistency is strong, bounded=SECONDS (1 to 2592000) or available")]
pub struct InvalidConsistency;

impl FromStr for Consistency {
    type Err = InvalidConsistency;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "strong" => Ok(Consistency::Strong),
            "available" => Ok(Consistency::Available),
            _ => {
                let seconds = text.strip_prefix("bounded=").ok_or(InvalidConsistency)?;
                let seconds: u32 = seconds.parse().map_err(|_| InvalidConsistency)?;
                let lawful = seconds > 0 && Duration::from_secs(seconds.into()) <= Self::BOUND_MAX;
                if lawful { Ok(Consistency::Bounded(seconds)) } else { Err(InvalidConsistency) }
            }
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Consistency::Strong => f.write_str("strong"),
            Consistency::Bounded(seconds) => write!(f, "bounded={seconds}"),
            Consistency::Available => f.write_str("available"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consistencies_round_trip_through_text() {
        for text in ["strong", "bounded=5", "available"] {
            assert_eq!(text.parse::<Consistency>().map(|consistency| consistency.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "bounded", "bounded=", "bounded=0", "bounded=-1", "bounded=99999999", "Strong"] {
            assert_eq!(text.parse::<Consistency>(), Err(InvalidConsistency), "{text}");
        }
    }

    #[test]
    fn names_of_clusters_are_plain() {
        assert!("university-2".parse::<ClusterName>().is_ok());
        for name in ["", "-a", "A", "a/b", "a.b", &"x".repeat(64)] {
            assert!(name.parse::<ClusterName>().is_err(), "{name}");
        }
    }
}
