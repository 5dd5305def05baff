//! Content between its last reference and its next one: the collector against those who claim it.

use std::cell::Cell;

use federation::disk::{CrashPlan, SimulatedDisk, seeded};
use federation::error::{Error, Result};
use federation::master::{
    CollectOptions, CompleteRequest, CopyRequest, DeleteRequest, Description, Master, NamedPart, PartBody, PartRequest,
    Precondition, StagedChange, UploadRequest, Version, Which,
};
use federation::types::{BucketName, ObjectPath};

use super::super::model::words::record;
use super::super::store::{self, actor, content, etag, findings, newest, path, read, staged};
use super::turns::{self, Turns};
use super::workload::{bucket_name, object};
use super::{open_in_turns, open_inline, runtime};

/// Contents that are files of their own.
const LARGE: usize = 6;
const OTHER_LARGE: usize = 8;
/// More turns than a pass of the collector takes.
const TURNS_MAX: usize = 2000;

/// The ways to refer to content that is there already.
#[derive(Clone, Copy, Debug)]
enum Claim {
    Put,
    Copy,
    Part,
    Commit,
}

fn key() -> ObjectPath {
    path(b"key")
}

async fn put(master: &Master, bucket: &BucketName, at: &ObjectPath, index: usize) -> Result<()> {
    store::put(master, bucket, at, content(index)).await.map(drop)
}

async fn delete(master: &Master, bucket: &BucketName, at: &ObjectPath) -> Result<()> {
    let request = DeleteRequest { path: at.clone(), version: None, precondition: Precondition::default() };
    master.delete(&actor(), bucket, vec![request]).await?.into_iter().try_for_each(|deleted| deleted.map(drop))
}

async fn copy(master: &Master, source: &Version, bucket: &BucketName, at: &ObjectPath) -> Result<()> {
    let request = CopyRequest { description: None, tags: None, checksum: None, precondition: Precondition::default() };
    master.copy(&actor(), source, bucket, at, request).await.map(drop)
}

async fn collect(master: &Master) -> Result<()> {
    master.collect(CollectOptions { now: true, ..CollectOptions::default() }).await.map(drop)
}

async fn upload(master: &Master, bucket: &BucketName, at: &ObjectPath, contents: &[usize]) -> Result<()> {
    let request = UploadRequest {
        path: at.clone(),
        description: Description::default(),
        checksum: None,
        checksum_declared: false,
    };
    let upload = master.begin_upload(&actor(), bucket, request).await?.upload;
    let mut parts = Vec::new();
    for (number, index) in (1..).zip(contents) {
        let body = PartBody::Staged(staged(master.blobs(), content(*index)).await);
        let request = PartRequest { body, md5: content(*index).md5, checksum: None };
        master.put_part(bucket, at, upload, number, request).await?;
        parts.push(NamedPart { number, etag: Some(etag(&[*index], false)), checksum: None });
    }
    let request = CompleteRequest { parts, checksum: None, size: None, precondition: Precondition::default() };
    master.complete_upload(&actor(), bucket, at, upload, request).await.map(drop)
}

impl Claim {
    const ALL: [Claim; 4] = [Claim::Put, Claim::Copy, Claim::Part, Claim::Commit];

    /// Whether the content was there to be claimed; where its bytes come along, it always is.
    async fn make(self, master: &Master, source: &Version, bucket: &BucketName) -> Result<bool> {
        match self {
            Claim::Put => put(master, bucket, &key(), LARGE).await?,
            Claim::Part => upload(master, bucket, &key(), &[LARGE]).await?,
            Claim::Copy => match copy(master, source, bucket, &key()).await {
                // The collector was faster.
                Err(Error::Conflict) => return Ok(false),
                copied => copied?,
            },
            Claim::Commit => {
                let mut commit = master.begin_commit(bucket).await?;
                let body = staged(master.blobs(), content(LARGE)).await;
                let record = record(&object(vec![LARGE], false, 0), content(LARGE).md5);
                commit.stage(vec![StagedChange { path: key(), content: Some((record, Some(body))) }]).await?;
                commit.publish(&actor(), "").await?;
            }
        }
        Ok(true)
    }
}

/// Content whose last reference goes in one bucket while another claims it, so many turns after the collector began. Says
/// whether the claim began before the collector ended.
async fn claim_while_collected(claim: Claim, turns_before: usize) -> Result<bool> {
    let disk = SimulatedDisk::new();
    let master = open_in_turns(&disk, Turns::even(), 1).await?;
    let (from, to) = (bucket_name(0), bucket_name(1));
    for bucket in [&from, &to] {
        master.create_bucket(&actor(), bucket, "").await?;
    }
    put(&master, &from, &key(), LARGE).await?;
    let source = master.head(&newest(&from), &key(), Which::Newest).await?;
    delete(&master, &from, &key()).await?;

    let (ended, in_time) = (Cell::new(false), Cell::new(false));
    let collecting = async {
        let outcome = collect(&master).await;
        ended.set(true);
        outcome
    };
    let claiming = async {
        turns::wait(turns_before).await;
        in_time.set(!ended.get());
        claim.make(&master, &source, &to).await
    };
    let (collected, claimed) = tokio::join!(collecting, claiming);
    collected?;
    if claimed? {
        shows(&master, &to).await?;
        // And after the power was cut.
        let left = disk.crash(&mut seeded(1), CrashPlan::Synced);
        shows(&open_inline(&left, 2).await?, &to).await?;
    }
    Ok(in_time.get())
}

/// The claimed content is whole, and so is everything else.
async fn shows(master: &Master, bucket: &BucketName) -> Result<()> {
    let bytes = read(master.get(&newest(bucket), &key(), Which::Newest).await?).await?;
    assert!(bytes == content(LARGE).bytes, "the claimed content has other bytes");
    assert_eq!(findings(master).await?, Vec::<String>::new());
    Ok(())
}

#[test]
fn content_that_is_claimed_in_time_stays() {
    for claim in Claim::ALL {
        let outlasts = |turns: &usize| {
            let in_time = runtime().block_on(claim_while_collected(claim, *turns));
            in_time.unwrap_or_else(|error| panic!("{claim:?}, {turns} turns after the collector began: {error:?}"))
        };
        let turns = (0..TURNS_MAX).find(|turns| !outlasts(turns)).expect("the collector comes to its end");
        assert!(turns > 20, "the collector takes some turns, during which content is claimed");
    }
}

/// A copy that finds one of its two bodies gone has claimed the other by then, in a batch with writes that succeed.
async fn refuse_a_copy() -> Result<()> {
    let master = open_inline(&SimulatedDisk::new(), 1).await?;
    let bucket = bucket_name(0);
    master.create_bucket(&actor(), &bucket, "").await?;
    put(&master, &bucket, &path(b"kept"), LARGE).await?;
    upload(&master, &bucket, &key(), &[LARGE, OTHER_LARGE]).await?;
    let source = master.head(&newest(&bucket), &key(), Which::Newest).await?;
    delete(&master, &bucket, &key()).await?;
    collect(&master).await?;
    let before = master.bucket(&bucket).await?.number.0;

    let (first, copied, last) = (path(b"first"), path(b"copied"), path(b"last"));
    let outcomes = tokio::join!(
        put(&master, &bucket, &first, LARGE),
        copy(&master, &source, &bucket, &copied),
        put(&master, &bucket, &last, 1)
    );
    assert!(matches!(outcomes, (Ok(()), Err(Error::Conflict), Ok(()))), "{outcomes:?}");
    assert_eq!(master.bucket(&bucket).await?.number.0, before + 2, "only what succeeded has a number");
    assert_eq!(findings(&master).await?, Vec::<String>::new());
    for (written, index) in [(&first, LARGE), (&last, 1)] {
        let bytes = read(master.get(&newest(&bucket), written, Which::Newest).await?).await?;
        assert!(bytes == content(index).bytes, "{written} has other bytes");
    }
    let there = master.get(&newest(&bucket), &copied, Which::Newest).await;
    assert!(matches!(there, Err(Error::NoSuchKey { .. })), "{there:?}");
    Ok(())
}

#[test]
fn a_write_that_fails_claims_nothing() {
    runtime().block_on(refuse_a_copy()).expect("nothing else fails");
}

/// What a reader has open stays until it is done, through every pass of the collector; then it goes.
async fn collect_under_a_reader() -> Result<()> {
    let master = open_inline(&SimulatedDisk::new(), 1).await?;
    let bucket = bucket_name(0);
    master.create_bucket(&actor(), &bucket, "").await?;
    let contents = [LARGE, 4, OTHER_LARGE];
    upload(&master, &bucket, &key(), &contents).await?;
    let opened = master.get(&newest(&bucket), &key(), Which::Newest).await?;
    delete(&master, &bucket, &key()).await?;
    collect(&master).await?;
    collect(&master).await?;
    let wanted: Vec<&[u8]> = contents.iter().map(|index| &*content(*index).bytes).collect();
    assert!(read(opened).await? == wanted.concat(), "the reader saw other bytes");
    // Now nobody holds it.
    collect(&master).await?;
    let usage = master.usage().await?;
    assert_eq!((usage.files, findings(&master).await?), (0, Vec::new()));
    Ok(())
}

#[test]
fn what_a_reader_has_open_stays() {
    runtime().block_on(collect_under_a_reader()).expect("nothing fails");
}
