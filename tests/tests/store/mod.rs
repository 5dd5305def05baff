//! What both suites store: few bodies, so that contents repeat, and the calls that store and read them.

use std::sync::LazyLock;

use bytes::Bytes;
use federation::blobs::{Blobs, StagedBody};
use federation::error::Result;
use federation::master::{Actor, Description, Master, Opened, Precondition, PutRequest, Written};
use federation::types::{BucketAt, BucketName, Number, ObjectPath, SnapshotRef};
use futures_util::{TryStreamExt, stream};
use md5::{Digest as _, Md5};

/// A body that is stored.
#[derive(Debug)]
pub struct Content {
    /// Its bytes.
    pub bytes: Bytes,
    /// Their MD5.
    pub md5: [u8; 16],
}

/// The lengths of the contents: nothing, small ones, the last that shares a segment, and files.
const LENGTHS: [usize; 10] = [0, 5, 5, 300, 3000, 65_536, 65_537, 65_537, 204_800, 204_800];

/// How many contents there are.
pub const CONTENTS: usize = LENGTHS.len();

/// A content by its index.
pub fn content(index: usize) -> &'static Content {
    static ALL: LazyLock<Vec<Content>> = LazyLock::new(|| {
        let all = LENGTHS.iter().enumerate();
        all.map(|(index, length)| {
            let bytes: Bytes = (0..*length).map(|at| (at % 251 + at / 4096 + index * 7) as u8).collect();
            let md5 = Md5::digest(&bytes).into();
            Content { bytes, md5 }
        })
        .collect()
    });
    &ALL[index % CONTENTS]
}

/// The entity tag of an object whose parts are these contents, or of one that was put whole.
pub fn etag(contents: &[usize], multipart: bool) -> String {
    if !multipart {
        return hex(&content(contents[0]).md5);
    }
    let mut md5 = Md5::new();
    for index in contents {
        md5.update(content(*index).md5);
    }
    format!("{}-{}", hex(&md5.finalize()), contents.len())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who makes every change.
pub fn actor() -> Actor {
    Actor("tester".to_owned())
}

/// Takes a body in; it is not durable yet.
pub async fn staged(blobs: &Blobs, content: &Content) -> StagedBody {
    let source = stream::iter([Ok::<_, std::io::Error>(content.bytes.clone())]);
    let length = content.bytes.len() as u64;
    blobs.store(source, (), Some(length), length).await.expect("memory and simulated disks take bodies in").0
}

/// Puts a content, without a condition and with nothing said about it.
pub async fn put(master: &Master, bucket: &BucketName, path: &ObjectPath, content: &Content) -> Result<Written> {
    let body = staged(master.blobs(), content).await;
    let (description, precondition) = (Description::default(), Precondition::default());
    let request = PutRequest { body, md5: content.md5, checksum: None, description, precondition };
    master.put(&actor(), bucket, path, request).await
}

/// All bytes of a version.
pub async fn read(opened: Opened) -> Result<Vec<u8>> {
    let length = opened.body.length();
    let chunks: Vec<Bytes> = opened.body.read(0..length).try_collect().await?;
    Ok(chunks.concat())
}

/// A bucket's newest state.
pub fn newest(bucket: &BucketName) -> BucketAt {
    BucketAt::newest(bucket.clone())
}

/// A bucket as of a number.
pub fn at(bucket: &BucketName, number: u64) -> BucketAt {
    BucketAt::at(bucket.clone(), SnapshotRef::Number(Number(number)))
}

/// A path, which the caller knows to be lawful.
pub fn path(bytes: &[u8]) -> ObjectPath {
    ObjectPath::try_from(bytes).expect("the suites only make lawful paths")
}

/// What a full check finds.
pub async fn findings(master: &Master) -> Result<Vec<String>> {
    let options = federation::master::CheckOptions { bodies: true };
    Ok(master.check(options, |_, _| {}).await?.findings)
}

/// A number from the environment, or the default.
pub fn parameter(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => default,
    }
}

/// The seed of a run: that of `ELTON_TEST_SEED`, else a new one.
pub fn seed() -> u64 {
    use federation::ids::IdSource as _;
    let mut fresh = [0; 4];
    federation::ids::SystemIds.fill(&mut fresh);
    parameter("ELTON_TEST_SEED", u32::from_be_bytes(fresh).into())
}
