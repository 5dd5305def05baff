//! What travels about snapshot trees and pins.

use serde::{Deserialize, Serialize};

/// A directory of a snapshot: `GET /_elton/v1/buckets/BUCKET/tree`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The bucket's id.
    pub bucket: String,
    /// The snapshot's number.
    pub number: u64,
    /// Where the directory's rows stand.
    pub root: Root,
    /// Objects below it.
    pub objects: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

/// Where the rows of a directory stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// In the page of this hash, or below it.
    Page(String),
    /// Here, in base64.
    Inline(String),
}

/// Which pages of a directory are wanted: `POST /_elton/v1/buckets/BUCKET/pages`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pages {
    /// The directory's path, percent-encoded: empty, or with a `/` at the end.
    #[serde(default)]
    pub directory: String,
    /// The hashes of the pages.
    pub pages: Vec<String>,
}

/// A new pin: `POST /_elton/v1/buckets/BUCKET/pins`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePin {
    /// Who holds it, in words.
    #[serde(default)]
    pub holder: String,
    /// How long it lasts unless it is renewed.
    pub seconds: u64,
}

/// A pin that is renewed: `PUT /_elton/v1/buckets/BUCKET/pins/PIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewPin {
    /// How long it lasts from now on.
    pub seconds: u64,
}

/// A pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its id.
    pub pin: String,
    /// The number that it keeps.
    pub number: u64,
    /// When it ends.
    pub expires: String,
}
