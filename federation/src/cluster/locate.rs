//! Where the bodies of an object are.

use super::Cluster;
use crate::error::Result;
use crate::master::{Version, Which};
use crate::types::{BlobHash, BucketAt, ObjectPath};

/// Where one body of a version is.
#[derive(Clone, Debug)]
pub struct BodyPlace {
    /// The content.
    pub hash: BlobHash,
    /// Its length in bytes.
    pub length: u64,
    /// Whether a copy is here.
    pub here: bool,
    /// Other clusters that are known to have it, by their names here.
    pub holders: Vec<String>,
}

/// A version, and where its bodies are.
#[derive(Clone, Debug)]
pub struct Located {
    /// The version.
    pub version: Version,
    /// The cluster that numbers the bucket, if it is another.
    pub home: Option<String>,
    /// Its bodies, in order.
    pub bodies: Vec<BodyPlace>,
}

impl Cluster {
    /// Says where the newest version of an object is.
    pub async fn locate(&self, at: &BucketAt, path: &ObjectPath) -> Result<Located> {
        let version = self.head(at, path, Which::Newest).await?;
        let home = self.link_of(&at.bucket).await.map(|(_, home)| home);
        let mut bodies = Vec::new();
        for place in self.master.places(&version).await? {
            let mut holders = Vec::new();
            for member in place.holders {
                if let Ok(federation) = self.federation() {
                    holders.push(federation.name_of(member).await);
                }
            }
            // What is not here is read through the home, which knows who has it.
            if let (false, true, Some(home)) = (place.here, holders.is_empty(), &home) {
                holders.push(home.clone());
            }
            bodies.push(BodyPlace { hash: place.hash, length: place.length, here: place.here, holders });
        }
        Ok(Located { version, home, bodies })
    }
}
