//! What several readers miss of a body is brought once.

use std::ops::Range;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt};
use tokio::task::JoinHandle;

use super::super::Fetcher;
use super::line::Pair;
use crate::error::{Error, Result};
use crate::master::{Fetch, Wanted};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const LENGTH: u64 = 40 * MIB + 5000;

fn content() -> Vec<u8> {
    let mut bytes = vec![0; LENGTH as usize];
    blake3::Hasher::new().update(b"ranges").finalize_xof().fill(&mut bytes);
    bytes
}

fn slice(content: &[u8], range: &Range<u64>) -> Vec<u8> {
    content[range.start as usize..range.end as usize].to_vec()
}

fn read(fetcher: &Fetcher, wanted: &Wanted, range: Range<u64>) -> JoinHandle<Result<Vec<u8>>> {
    let bytes = fetcher.read(wanted.clone(), range);
    tokio::spawn(async move {
        let read = |mut all: Vec<u8>, bytes: bytes::Bytes| async move {
            all.extend_from_slice(&bytes);
            Ok(all)
        };
        bytes.try_fold(Vec::new(), read).await
    })
}

/// Lets everything happen that does not wait for the line.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

async fn ended(fetcher: &Fetcher) {
    for _ in 0..1000 {
        if fetcher.downloads.is_empty() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("a download that nobody reads goes on");
}

#[tokio::test(start_paused = true)]
async fn overlapping_cold_ranges_cross_once() {
    let (pair, content) = (Pair::new().await, content());
    let wanted = pair.wanted("k", content.clone()).await;
    let fetcher = pair.fetcher();
    pair.line.flowing.send_replace(false);
    // The same, overlapping ones, within one another, one at the end.
    let mut ranges: Vec<_> = (0..16).map(|index| index % 4 * 300 * KIB + 7..index % 4 * 300 * KIB + MIB).collect();
    ranges.extend([100 * KIB..130 * KIB, 0..3 * MIB, LENGTH - 70 * KIB..LENGTH]);
    let readers: Vec<_> = ranges.iter().map(|range| read(&fetcher, &wanted, range.clone())).collect();
    settle().await;
    pair.line.flowing.send_replace(true);
    for (reader, range) in readers.into_iter().zip(&ranges) {
        assert!(reader.await.expect("no panic").expect("read") == slice(&content, range), "{range:?}");
    }
    let end = LENGTH - (LENGTH - 70 * KIB) / (64 * KIB) * 64 * KIB;
    assert_eq!(pair.line.asked(), (3 * MIB + end, 1), "{:?}", pair.line.asked.lock());
    ended(&fetcher).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_range_is_brought_in_parts_and_others_join_in() {
    let (pair, content) = (Pair::new().await, content());
    let wanted = pair.wanted("k", content.clone()).await;
    let fetcher = pair.fetcher();
    pair.line.flowing.send_replace(false);
    let ranges = [1..LENGTH - 1, 35 * MIB..36 * MIB, 0..LENGTH, 31 * MIB..33 * MIB];
    let readers: Vec<_> = ranges.iter().map(|range| read(&fetcher, &wanted, range.clone())).collect();
    settle().await;
    pair.line.flowing.send_replace(true);
    for (reader, range) in readers.into_iter().zip(&ranges) {
        assert!(reader.await.expect("no panic").expect("read") == slice(&content, range), "{range:?}");
    }
    assert_eq!(pair.line.asked(), (LENGTH, 1), "{:?}", pair.line.asked.lock());
    ended(&fetcher).await;
    settle().await;
    assert!(pair.master.has_copy(wanted.bucket, wanted.hash).await.expect("reads"), "all of it is here");
}

#[tokio::test(start_paused = true)]
async fn who_waits_goes_on_when_who_began_goes_away() {
    let (pair, content) = (Pair::new().await, content());
    let wanted = pair.wanted("k", content.clone()).await;
    let fetcher = pair.fetcher();
    pair.line.flowing.send_replace(false);
    let first = read(&fetcher, &wanted, 0..4 * MIB);
    settle().await;
    let second = read(&fetcher, &wanted, MIB..2 * MIB);
    settle().await;
    first.abort();
    assert!(first.await.expect_err("aborted").is_cancelled());
    pair.line.flowing.send_replace(true);
    assert!(second.await.expect("no panic").expect("read") == slice(&content, &(MIB..2 * MIB)));
    assert_eq!(pair.line.asked().0, 4 * MIB, "{:?}", pair.line.asked.lock());
    ended(&fetcher).await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_any_more_is_given_up_and_can_be_read_again() {
    let (pair, content) = (Pair::new().await, content());
    let wanted = pair.wanted("k", content.clone()).await;
    let fetcher = pair.fetcher();
    let mut bytes = fetcher.read(wanted.clone(), 1..LENGTH);
    bytes.next().await.expect("bytes").expect("read");
    pair.line.flowing.send_replace(false);
    drop(bytes);
    settle().await;
    pair.line.flowing.send_replace(true);
    ended(&fetcher).await;
    let range = 2 * MIB..30 * MIB;
    assert!(read(&fetcher, &wanted, range.clone()).await.expect("no panic").expect("read") == slice(&content, &range));
    ended(&fetcher).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_goes_on_when_another_one_is_refused() {
    let (pair, content) = (Pair::new().await, content());
    let wanted = pair.wanted("k", content.clone()).await;
    let fetcher = pair.fetcher();
    pair.line.refused.store(1, Ordering::SeqCst);
    let readers: Vec<_> = (0..8).map(|_| read(&fetcher, &wanted, 0..MIB)).collect();
    let (mut failed, mut done) = (0, 0);
    for reader in readers {
        match reader.await.expect("no panic") {
            Ok(bytes) => {
                assert!(bytes == slice(&content, &(0..MIB)));
                done += 1;
            }
            Err(error) => {
                assert!(matches!(error, Error::Storage { .. } | Error::NoSuchVersion { .. }), "{error}");
                failed += 1;
            }
        }
    }
    assert_eq!((failed, done), (1, 7), "the one who was refused hears of it");
    assert_eq!(pair.line.asked(), (MIB, 1), "{:?}", pair.line.asked.lock());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_hears_in_the_end_that_nobody_gives_it() {
    let (pair, content) = (Pair::new().await, content());
    let wanted = pair.wanted("k", content).await;
    let fetcher = pair.fetcher();
    pair.line.refused.store(1000, Ordering::SeqCst);
    let readers: Vec<_> = (0..8).map(|_| read(&fetcher, &wanted, 0..MIB)).collect();
    for reader in readers {
        reader.await.expect("no panic").expect_err("refused");
    }
    let asked = 1000 - pair.line.refused.load(Ordering::SeqCst);
    assert_eq!(asked, 2, "one asks, then another one");
    ended(&fetcher).await;
}
