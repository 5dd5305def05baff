//! The store from end to end: in, durable, out, and what remains when any of it goes wrong.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use super::*;
use crate::blocking::{Blocking, Inline, Job, Threads};
use crate::clock::ManualClock;
use crate::disk::{CrashPlan, Disk, LocalDisk, SimulatedDisk, seeded};
use crate::types::{BlobHash, SMALL_BODY_MAX, Timestamp};

const SMALL: usize = SMALL_BODY_MAX as usize;

/// Lengths around which something else happens.
const LENGTHS: [usize; 13] = [
    0,
    1,
    16 * 1024,
    16 * 1024 + 1,
    SMALL,
    SMALL + 1,
    2 * SMALL,
    TRANSFER_BUFFER_BYTES - 1,
    TRANSFER_BUFFER_BYTES,
    TRANSFER_BUFFER_BYTES + 1,
    2 * TRANSFER_BUFFER_BYTES,
    2 * 1024 * 1024 + 1,
    3 * 1024 * 1024 + 12_345,
];

fn body(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8 ^ (at >> 11) as u8).collect()
}

fn source(body: &Bytes, step: usize) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + use<> {
    let body = body.clone();
    let starts = (0..body.len()).step_by(step);
    stream::iter(starts.map(move |start| Ok(body.slice(start..body.len().min(start + step)))))
}

#[derive(Default)]
struct Seen(blake3::Hasher);

impl Observer for Seen {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

fn options() -> LocalOptions {
    LocalOptions { reserve: 0, clock: Arc::new(ManualClock::new(Timestamp(0))), ..LocalOptions::default() }
}

fn on_disk(disk: &SimulatedDisk) -> Arc<dyn Backend> {
    Arc::new(LocalBackend::open(Arc::new(disk.clone()), options()).expect("opened"))
}

fn inline(backend: Arc<dyn Backend>) -> Blobs {
    Blobs::new(backend, Arc::new(Inline), BlobLimits::default())
}

async fn store(blobs: &Blobs, body: &Bytes) -> StagedBody {
    blobs.store(source(body, 50_000), (), None, u64::MAX).await.expect("stored").0
}

async fn persisted(blobs: &Blobs, body: &Bytes) -> StagedBody {
    let mut staged = store(blobs, body).await;
    blobs.persist(&mut staged).await.expect("persisted");
    staged
}

async fn read(blobs: &Blobs, stored: &Stored) -> Result<Bytes, BackendError> {
    match stored {
        Stored::Empty => Ok(Bytes::new()),
        Stored::Slot(slot) => blobs.read_small(*slot).await,
        Stored::Blob(blob) => collect(blobs, blob, 0..blob.length).await,
    }
}

async fn collect(blobs: &Blobs, blob: &StoredBlob, range: std::ops::Range<u64>) -> Result<Bytes, BackendError> {
    let chunks: Vec<Bytes> = blobs.stream(blob.clone(), range).try_collect().await?;
    Ok(chunks.concat().into())
}

fn blob(staged: &StagedBody) -> StoredBlob {
    match staged.stored() {
        Some(Stored::Blob(blob)) => blob,
        other => panic!("not a large body: {other:?}"),
    }
}

/// What is stored, without the lengths of segments.
fn files(backend: &dyn Backend) -> Vec<Found> {
    let found = backend.list().expect("listed");
    found.into_iter().filter(|found| !matches!(found, Found::Segment { .. })).collect()
}

async fn every_length_comes_back(blobs: &Blobs) {
    for length in LENGTHS {
        for (step, hint) in [(7_001, None), (1 << 20, Some(length as u64)), (65_537, Some(3))] {
            let body = body(length);
            let length_max = hint.unwrap_or(0).max(length as u64);
            let stored = blobs.store(source(&body, step), Seen::default(), hint, length_max).await;
            let (mut staged, seen) = stored.expect("stored");
            assert_eq!(seen.0.finalize(), blake3::hash(&body));
            assert_eq!(staged.hash(), BlobHash::from(blake3::hash(&body)));
            assert_eq!(staged.length(), length as u64);
            assert_eq!(staged.bytes().is_some(), (1..=SMALL).contains(&length));
            blobs.persist(&mut staged).await.expect("persisted");
            blobs.persist(&mut staged).await.expect("fine if it is already");
            let stored = staged.stored().expect("persisted");
            staged.claimed();
            assert_eq!(read(blobs, &stored).await.expect("read"), body, "{length} bytes");
            assert_eq!(stored.piece().map_or(0, |piece| piece.length()), length as u64);
        }
    }
}

#[tokio::test]
async fn every_length_comes_back_inline() {
    every_length_comes_back(&inline(Arc::new(MemoryBackend::default()))).await;
    every_length_comes_back(&inline(on_disk(&SimulatedDisk::new()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_length_comes_back_from_threads() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Arc::new(LocalDisk::open(folder.path()).expect("opened"));
    let backend = Arc::new(LocalBackend::open(disk, options()).expect("opened"));
    every_length_comes_back(&Blobs::new(backend, Arc::new(Threads), BlobLimits::default())).await;
}

#[tokio::test]
async fn ranges_are_what_they_name() {
    let blobs = inline(Arc::new(MemoryBackend::default()));
    let body = body(1_500_000);
    let staged = persisted(&blobs, &body).await;
    let blob = blob(&staged);
    let group = GROUP_BYTES as u64;
    for range in [
        0..0,
        0..1,
        5..5,
        group - 1..group + 1,
        group..2 * group,
        3 * group..9 * group + 1,
        1_499_999..1_500_000,
        0..1_500_000,
    ] {
        let expected = body.slice(range.start as usize..range.end as usize);
        assert_eq!(collect(&blobs, &blob, range.clone()).await.expect("read"), expected, "{range:?}");
        assert_eq!(blobs.read_range(&blob, range.clone()).expect("read"), expected, "{range:?}");
    }
    assert_eq!(collect(&blobs, &blob, 1_499_998..u64::MAX).await.expect("read"), body.slice(1_499_998..));
    assert!(collect(&blobs, &blob, 2_000_000..u64::MAX).await.expect("read").is_empty());
    for chunk in blobs.stream(blob, 0..1_500_000).try_collect::<Vec<_>>().await.expect("read") {
        assert!(chunk.len() <= 256 * 1024);
    }
}

#[tokio::test]
async fn a_damaged_group_never_leaves() {
    let memory = Arc::new(MemoryBackend::default());
    let blobs = inline(Arc::clone(&memory) as Arc<dyn Backend>);
    let body = body(3_000_000);
    let staged = persisted(&blobs, &body).await;
    let blob = blob(&staged);
    memory.damage_file(blob.file, 1_000_000);
    let mut stream = std::pin::pin!(blobs.stream(blob.clone(), 0..blob.length));
    let mut sound = 0;
    let error = loop {
        match stream.next().await.expect("the damage comes before the end") {
            Ok(bytes) => {
                assert_eq!(bytes, body.slice(sound..sound + bytes.len()));
                sound += bytes.len();
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BackendError::Damaged { what: Item::File(file) } if file == blob.file));
    assert!(sound <= 1_000_000);
    assert!(collect(&blobs, &blob, 2_000_000..2_000_001).await.is_ok(), "sound groups can be read");
}

#[tokio::test]
async fn a_damaged_outboard_or_slot_is_found() {
    let memory = Arc::new(MemoryBackend::default());
    let blobs = inline(Arc::clone(&memory) as Arc<dyn Backend>);
    let staged = persisted(&blobs, &body(3_000_000)).await;
    let mut damaged = blob(&staged);
    let StoredOutboard::Slot(slot) = damaged.outboard else { panic!("46 groups are more than stand inline") };
    memory.damage_slot(&slot);
    let what = Item::Slot(slot);
    assert!(
        matches!(collect(&blobs, &damaged, 0..1).await, Err(BackendError::Damaged { what: found }) if found == what)
    );
    damaged.outboard = StoredOutboard::Inline(vec![0; 46 * 32]);
    assert!(matches!(collect(&blobs, &damaged, 0..1).await, Err(BackendError::Damaged { .. })));
    damaged.outboard = StoredOutboard::None;
    assert!(matches!(collect(&blobs, &damaged, 0..1).await, Err(BackendError::Damaged { .. })));
}

#[tokio::test]
async fn what_was_persisted_survives_a_power_cut() {
    let disk = SimulatedDisk::new();
    let blobs = inline(on_disk(&disk));
    let mut stored = Vec::new();
    for length in LENGTHS {
        let staged = persisted(&blobs, &body(length)).await;
        stored.push((length, staged.stored().expect("persisted")));
        staged.claimed();
    }
    let after = inline(on_disk(&disk.crash(&mut seeded(3), CrashPlan::Synced)));
    for (length, stored) in stored {
        assert_eq!(read(&after, &stored).await.expect("durable"), body(length));
    }
}

#[tokio::test]
async fn a_body_that_is_dropped_leaves_nothing() {
    let disk = SimulatedDisk::new();
    let backend = on_disk(&disk);
    let blobs = inline(Arc::clone(&backend));
    for length in [1000, 1_000_000, 3_000_000] {
        drop(store(&blobs, &body(length)).await);
        assert_eq!(files(&*backend), []);
    }
    assert_eq!(backend.list().expect("listed"), [], "a small body is not appended before it is persisted");
    for length in [1000, 1_000_000, 3_000_000] {
        drop(persisted(&blobs, &body(length)).await);
        assert_eq!(files(&*backend), []);
        assert!(blobs.segments_unclaimed().is_empty());
    }
    for end in [StagedBody::claimed, StagedBody::leave] {
        let before = files(&*backend).len();
        let staged = persisted(&blobs, &body(1_000_000)).await;
        assert!(files(&*backend).iter().any(|found| matches!(found, Found::File { unclaimed: true, .. })));
        end(staged);
        assert_eq!(files(&*backend).len(), before + 1);
        assert!(files(&*backend).iter().all(|found| matches!(found, Found::File { unclaimed: false, .. })));
    }
}

#[tokio::test]
async fn a_persisted_small_body_guards_its_segment() {
    let blobs = inline(Arc::new(MemoryBackend::default()));
    let small = persisted(&blobs, &body(1000)).await;
    let Some(Stored::Slot(slot)) = small.stored() else { panic!("a small body") };
    let large = persisted(&blobs, &body(3_000_000)).await;
    blobs.backend().seal_active();
    assert!(blobs.is_unclaimed(slot.segment));
    small.claimed();
    assert!(blobs.is_unclaimed(slot.segment), "the large body's hash tree is in there as well");
    large.claimed();
    assert!(!blobs.is_unclaimed(slot.segment));
    assert_eq!(blobs.backend().sealed_segments().len(), 1);
}

#[tokio::test]
async fn a_source_that_fails_or_is_too_long_leaves_nothing() {
    let backend = on_disk(&SimulatedDisk::new());
    let blobs = inline(Arc::clone(&backend));
    for length in [0, 1000, 100_000, 2_000_000] {
        let broken = source(&body(length), 30_000).chain(stream::iter([Err("the client went away".into())]));
        let result = blobs.store(broken, (), None, u64::MAX).await;
        assert!(matches!(result, Err(StoreError::Source { source }) if source.to_string() == "the client went away"));
    }
    for length in [1000, 100_000, 2_000_000] {
        let result = blobs.store(source(&body(length), 30_000), (), None, length as u64 - 1).await;
        assert!(matches!(result, Err(StoreError::TooLong { .. })));
        let result = blobs.store(source(&body(length), 30_000), (), Some(length as u64), length as u64 - 1).await;
        assert!(matches!(result, Err(StoreError::TooLong { .. })));
    }
    assert_eq!(backend.list().expect("listed"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_given_up_leaves_nothing() {
    let disk = SimulatedDisk::new();
    let blobs = Blobs::new(on_disk(&disk), Arc::new(Threads), BlobLimits::default());
    for length in [1000, 100_000, 300_000, 2_000_000] {
        let stalled = source(&body(length), 30_000).chain(stream::pending());
        let given_up = blobs.store(stalled, (), None, u64::MAX);
        let wait = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(wait, given_up).await.is_err());
    }
    let left = || disk.list(Path::new("bodies/00000000")).expect("listed");
    for _ in 0..100 {
        if left().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("something remains: {:?}", left());
}

/// Counts the jobs, which run inline.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Blocking for Counting {
    fn run_job(&self, job: Job) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Inline.run_job(job)
    }
}

#[tokio::test]
async fn a_small_body_costs_one_job() {
    let counting = Arc::new(Counting::default());
    let blobs = Blobs::new(
        Arc::new(MemoryBackend::default()),
        Arc::clone(&counting) as Arc<dyn Blocking>,
        BlobLimits::default(),
    );
    persisted(&blobs, &body(4096)).await.claimed();
    assert_eq!(counting.0.load(Ordering::SeqCst), 1);
    let mut many = Vec::new();
    for length in 1..100 {
        many.push(store(&blobs, &body(length)).await);
    }
    blobs.persist_many(&mut many).await.expect("persisted");
    assert!(many.iter().all(|staged| staged.stored().is_some()));
    assert_eq!(counting.0.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_failed_sync_reaches_everybody_and_latches() {
    let disk = SimulatedDisk::new();
    let blobs = inline(on_disk(&disk));
    let early = blobs.backend().append(b"early", blake3::hash(b"early").into(), Urgency::Normal).expect("appended");
    let mut staged = store(&blobs, &body(1000)).await;
    disk.fail_syncs(true);
    assert!(blobs.persist(&mut staged).await.is_err());
    assert!(staged.stored().is_none());
    disk.fail_syncs(false);
    let segments = [early.slot().segment];
    assert!(blobs.syncer().segments(&segments).await.is_err(), "it was in the segment that failed");
    blobs.persist(&mut staged).await.expect("appended again, elsewhere");
    blobs.syncer().segments(&[]).await.expect("nothing of ours has failed");

    let mut large = store(&blobs, &body(1_000_000)).await;
    disk.fail_syncs(true);
    assert!(blobs.persist(&mut large).await.is_err());
    disk.fail_syncs(false);
    assert!(blobs.persist(&mut large).await.is_err(), "its file is gone");
    drop(large);
    assert_eq!(files(&**blobs.backend()), []);
}

#[tokio::test]
async fn a_sync_that_fails_half_way_is_not_forgotten() {
    let disk = SimulatedDisk::new();
    let blobs = inline(on_disk(&disk));
    disk.fail_syncs(true);
    // Long enough for one sync before the last. The disk is well again when the body would be made durable.
    let result = blobs.store(source(&body(20 << 20), 1 << 20), (), None, u64::MAX).await;
    disk.fail_syncs(false);
    assert!(matches!(result, Err(StoreError::Backend(_))), "what it was for is never durable");
    assert_eq!(files(&**blobs.backend()), []);
}

#[tokio::test]
async fn a_full_disk_leaves_nothing() {
    let disk = SimulatedDisk::new();
    let blobs = inline(on_disk(&disk));
    disk.set_free_space(500_000);
    let result = blobs.store(source(&body(2_000_000), 50_000), (), None, u64::MAX).await;
    assert!(matches!(result, Err(StoreError::Backend(BackendError::NoSpace))));
    assert_eq!(files(&**blobs.backend()), []);
    assert_eq!(disk.list(Path::new("bodies/00000000")).expect("listed"), Vec::<String>::new());
}

/// A backend that counts its syncs, and on which each takes a while.
#[derive(Debug)]
struct SlowDisk {
    disk: SimulatedDisk,
    syncs: AtomicUsize,
}

mod slow {
    use std::io;

    use super::*;
    use crate::disk::DiskFile;

    #[derive(Debug)]
    struct SlowFile(Arc<dyn DiskFile>, Arc<SlowDisk>);

    impl Disk for Arc<SlowDisk> {
        fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
            Ok(Arc::new(SlowFile(self.disk.create(path)?, Arc::clone(self))))
        }
        fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
            self.disk.open(path, writable)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.disk.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.disk.remove(path)
        }
        fn create_dir(&self, path: &Path) -> io::Result<()> {
            self.disk.create_dir(path)
        }
        fn remove_dir(&self, path: &Path) -> io::Result<()> {
            self.disk.remove_dir(path)
        }
        fn list(&self, path: &Path) -> io::Result<Vec<String>> {
            self.disk.list(path)
        }
        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            self.disk.sync_dir(path)
        }
        fn free_space(&self) -> io::Result<u64> {
            self.disk.free_space()
        }
    }

    impl DiskFile for SlowFile {
        fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_at(bytes, offset)
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.0.write_at(bytes, offset)
        }
        fn set_len(&self, length: u64) -> io::Result<()> {
            self.0.set_len(length)
        }
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn sync_data(&self) -> io::Result<()> {
            self.1.syncs.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(5));
            self.0.sync_data()
        }
        fn descriptor(&self) -> io::Result<Option<std::os::fd::OwnedFd>> {
            self.0.descriptor()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_share_syncs_and_each_body_is_durable() {
    let slow = Arc::new(SlowDisk { disk: SimulatedDisk::new(), syncs: AtomicUsize::new(0) });
    let backend = Arc::new(LocalBackend::open(Arc::new(Arc::clone(&slow)), options()).expect("opened"));
    let blobs = Blobs::new(backend, Arc::new(Threads), BlobLimits::default());
    let writers: Vec<_> = (1..=64)
        .map(|length| {
            let (blobs, disk) = (blobs.clone(), slow.disk.clone());
            tokio::spawn(async move {
                for round in 0..3 {
                    let body = body(length * 10 + round);
                    let staged = persisted(&blobs, &body).await;
                    let left = disk.crash_at(disk.ops(), &mut seeded(0), CrashPlan::Synced);
                    let Some(Stored::Slot(slot)) = staged.stored() else { panic!("a small body") };
                    assert_eq!(inline(on_disk(&left)).read_slot(&slot).expect("durable"), body);
                    staged.claimed();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    let syncs = slow.syncs.load(Ordering::SeqCst);
    assert!(syncs < 64, "{syncs} syncs for 192 bodies");
}

#[tokio::test]
async fn waiters_that_go_away_hold_nothing_up() {
    let blobs = Blobs::new(on_disk(&SimulatedDisk::new()), Arc::new(Threads), BlobLimits::default());
    for length in 1..50 {
        let mut staged = store(&blobs, &body(length)).await;
        // Polled once, so it has queued or leads, and dropped.
        let _ = futures_util::FutureExt::now_or_never(blobs.persist(&mut staged));
    }
    persisted(&blobs, &body(100)).await.claimed();
    assert!(blobs.segments_unclaimed().is_empty(), "who went away gave up the slot");
}

#[tokio::test]
async fn appended_bytes_are_durable_and_in_order() {
    let disk = SimulatedDisk::new();
    let blobs = inline(on_disk(&disk));
    let bodies = vec![body(10), body(100_000), body(30)];
    let guards = blobs.append_many(bodies.clone(), Urgency::Reserve).await.expect("appended");
    let slots: Vec<_> = guards.into_iter().map(SlotGuard::claimed).collect();
    assert_eq!(slots.iter().collect::<BTreeSet<_>>().len(), 3);
    let after = inline(on_disk(&disk.crash(&mut seeded(0), CrashPlan::Synced)));
    for (slot, body) in slots.iter().zip(bodies) {
        assert_eq!(after.read_slot(slot).expect("durable"), body);
    }
}

#[test]
fn a_store_outlives_its_runtime() {
    let blobs = Blobs::new(on_disk(&SimulatedDisk::new()), Arc::new(Threads), BlobLimits::default());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let staged = runtime().block_on(async { persisted(&blobs, &body(1_000_000)).await });
    drop(staged);
    assert_eq!(files(&**blobs.backend()), [], "removed without a runtime");
    runtime().block_on(async { persisted(&blobs, &body(1000)).await }).claimed();
}
