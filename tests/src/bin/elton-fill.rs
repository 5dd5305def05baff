//! Fills a bucket with empty objects through the core's commit: `elton-fill DIR BUCKET COUNT [KEYS-PER-FOLDER]`.
//!
//! A million keys by S3 would measure S3. No server may have the directory open. Keys are `000/0000000` and so on,
//! a thousand to a folder unless told otherwise.

use std::path::Path;

use federation::error::Error as CoreError;
use federation::master::{Actor, Master, MasterConfig, StagedChange};
use federation::types::{Body, BucketName, ETag, ObjectPath, ObjectRecord, Timestamp};
use md5::{Digest as _, Md5};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (data, bucket, count, per_folder) = match arguments.as_slice() {
        [data, bucket, count] => (data, bucket, count, 1000),
        [data, bucket, count, per_folder] => (data, bucket, count, per_folder.parse()?),
        _ => return Err("usage: elton-fill DIR BUCKET COUNT [KEYS-PER-FOLDER]".into()),
    };
    let master = Master::open(MasterConfig::new(Path::new(data))).await?;
    fill(&master, &bucket.parse()?, count.parse()?, per_folder).await?;
    master.close().await;
    Ok(())
}

async fn fill(master: &Master, bucket: &BucketName, count: u64, per_folder: u64) -> Result<(), Error> {
    let actor = Actor("elton-fill".into());
    match master.create_bucket(&actor, bucket, "").await {
        Ok(_) | Err(CoreError::BucketExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let record = ObjectRecord {
        body: Body::Empty,
        size: 0,
        etag: ETag { md5: Md5::digest([]).into(), parts: None },
        modified: Timestamp(0),
        checksum: None,
        headers: Vec::new(),
        metadata: Vec::new(),
        tags: Vec::new(),
    };
    let mut commit = master.begin_commit(bucket).await?;
    let step = u64::try_from(master.limits().commit_stage_keys_max)?;
    for first in (0..count).step_by(usize::try_from(step)?) {
        let mut changes = Vec::new();
        for number in first..count.min(first + step) {
            let path = ObjectPath::try_from(format!("{:03}/{number:07}", number / per_folder).as_bytes())?;
            changes.push(StagedChange { path, content: Some((record.clone(), None)) });
        }
        commit.stage(changes).await?;
    }
    commit.publish(&actor, "filled").await?;
    // The layer is folded before the directory is handed on: what is measured is an ordinary bucket.
    master.settle(bucket).await?;
    Ok(())
}
