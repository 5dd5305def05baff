//! What a power cut, a full disk and a failing one leave of a [`LocalBackend`].

use std::collections::BTreeSet;

use super::*;
use crate::blobs::backend::{WrittenFile, conformance};
use crate::clock::ManualClock;
use crate::disk::{CrashPlan, LocalDisk, SimulatedDisk, seeded};
use crate::types::Timestamp;

fn options() -> LocalOptions {
    LocalOptions {
        segment_bytes: 4096,
        reserve: 0,
        clock: Arc::new(ManualClock::new(Timestamp(0))),
        ..LocalOptions::default()
    }
}

fn open(disk: &SimulatedDisk) -> LocalBackend {
    LocalBackend::open(Arc::new(disk.clone()), options()).expect("opened")
}

fn append(backend: &LocalBackend, bytes: &[u8]) -> SlotGuard {
    backend.append(bytes, blake3::hash(bytes).into(), Urgency::Normal).expect("appended")
}

fn write(backend: &LocalBackend, bytes: &[u8]) -> WrittenFile {
    let mut writer = backend.create(Urgency::Normal).expect("created");
    writer.write(bytes).expect("written");
    writer.finish().expect("finished")
}

#[test]
fn conforms_on_a_real_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Arc::new(LocalDisk::open(folder.path()).expect("opened"));
    conformance::run(&LocalBackend::open(Arc::clone(&disk) as Arc<dyn Disk>, options()).expect("opened"));
    conformance::run(
        &LocalBackend::open(disk, LocalOptions { reserve: 0, ..LocalOptions::default() }).expect("reopened"),
    );
}

#[test]
fn conforms_on_a_simulated_disk() {
    conformance::run(&open(&SimulatedDisk::new()));
}

#[test]
fn ids_go_on_where_an_earlier_life_ended() {
    let disk = SimulatedDisk::new();
    let first = open(&disk);
    let slot = append(&first, b"kept").claimed();
    let file = write(&first, b"kept").guard.claimed();
    first.sync_segments().expect("synced");

    let second = open(&disk);
    assert_eq!(second.read_slot(&slot).expect("read"), &b"kept"[..]);
    assert_eq!(second.sealed_segments().len(), 1, "a segment of an earlier life gets no more bodies");
    assert!(append(&second, b"more").claimed().segment > slot.segment);
    assert!(write(&second, b"more").guard.claimed() > file);

    let floors = LocalOptions { first_segment: SegmentId(70), first_file: FileId(9000), ..options() };
    let third = LocalBackend::open(Arc::new(disk), floors).expect("opened");
    assert_eq!(append(&third, b"more").claimed().segment, SegmentId(70));
    assert_eq!(write(&third, b"more").guard.claimed(), FileId(9000));
}

#[test]
fn a_sealed_segment_is_synced_too() {
    let disk = SimulatedDisk::new();
    let backend = open(&disk);
    let slots: Vec<_> = (0..20_u8).map(|at| append(&backend, &[at; 1000]).claimed()).collect();
    assert!(slots.iter().map(|slot| slot.segment).collect::<BTreeSet<_>>().len() > 3);
    backend.sync_segments().expect("synced");
    let after = open(&disk.crash(&mut seeded(0), CrashPlan::Synced));
    for (slot, at) in slots.iter().zip(0_u8..) {
        assert_eq!(after.read_slot(slot).expect("durable"), &[at; 1000][..]);
    }
}

/// Crashes after every operation of a run: what was promised is there, and what is there is whole or `Damaged`.
#[test]
fn promises_hold_at_every_operation() {
    let disk = SimulatedDisk::new();
    let backend = open(&disk);
    let mut slots = Vec::new();
    let mut files = Vec::new();
    let mut promised = Vec::new();
    for round in 0..6_u8 {
        slots.push(append(&backend, &vec![round; 700]).claimed());
        slots.push(append(&backend, &vec![round; 900]).claimed());
        backend.sync_segments().expect("synced");
        let WrittenFile { guard, digest } = write(&backend, &vec![round; 70_000]);
        backend.sync_folder(guard.file()).expect("synced");
        files.push((guard.claimed(), digest.hash, round));
        promised.push((disk.ops(), slots.len(), files.len()));
    }
    for ops in 0..=disk.ops() {
        for (seed, plan) in [(0, CrashPlan::Synced), (1, CrashPlan::Random), (2, CrashPlan::Random)] {
            let left = disk.crash_at(ops, &mut seeded(seed + 10 * ops as u64), plan);
            let after = open(&left);
            let (slots_promised, files_promised) =
                promised.iter().rev().find(|(at, ..)| *at <= ops).map_or((0, 0), |(_, slots, files)| (*slots, *files));
            for (index, slot) in slots.iter().enumerate() {
                match after.read_slot(slot) {
                    Ok(bytes) => assert_eq!(blake3::hash(&bytes).as_bytes(), &slot.hash.0),
                    Err(error) => assert!(index >= slots_promised, "promised, but {error} after {ops} operations"),
                }
            }
            for (index, (file, hash, round)) in files.iter().enumerate() {
                let mut bytes = vec![0; 70_000];
                match after.read_file(*file, hash, 0, &mut bytes) {
                    // A body was whole before it got its name, so what has the name is whole.
                    Ok(()) => assert_eq!(bytes, vec![*round; 70_000]),
                    Err(error) => assert!(index >= files_promised, "promised, but {error} after {ops} operations"),
                }
            }
            // Ids of the life before that anybody may have seen are not given out again.
            let next = append(&after, b"next").claimed();
            assert!(slots[..slots_promised].iter().all(|slot| slot.segment < next.segment));
        }
    }
}

#[test]
fn what_an_earlier_life_left_unfinished_is_found_and_removed() {
    let disk = SimulatedDisk::new();
    let mut writer = open(&disk).create(Urgency::Normal).expect("created");
    writer.write(&[1; 1000]).expect("written");
    let file = writer.file();
    std::mem::forget(writer);
    disk.create(Path::new("bodies/00000000/notes")).expect("created");
    disk.create(Path::new("segments/notes")).expect("created");

    let after = open(&disk.crash(&mut seeded(0), CrashPlan::Everything));
    let mut found = after.list().expect("listed");
    found.sort_by_key(|found| format!("{found:?}"));
    let foreign = |path: &str| Found::Foreign { path: path.to_owned() };
    let unfinished = Found::Unfinished { file, length: 1000 };
    assert_eq!(found, [foreign("bodies/00000000/notes"), foreign("segments/notes"), unfinished.clone()]);
    after.remove_unfinished(file).expect("removed");
    assert!(!after.list().expect("listed").contains(&unfinished));
}

#[test]
fn a_failed_sync_latches_for_its_segment() {
    let disk = SimulatedDisk::new();
    let backend = open(&disk);
    let durable = append(&backend, b"durable");
    backend.sync_segments().expect("synced");
    let lost = append(&backend, b"lost");
    disk.fail_syncs(true);
    assert!(matches!(backend.sync_segments(), Err(BackendError::Io { .. })));
    disk.fail_syncs(false);

    assert!(backend.has_failed(lost.slot().segment));
    backend.sync_segments().expect("nothing is left to sync");
    let next = append(&backend, b"next");
    assert_ne!(next.slot().segment, lost.slot().segment);
    backend.sync_segments().expect("synced");
    assert!(!backend.has_failed(next.slot().segment));

    let after = open(&disk.crash(&mut seeded(0), CrashPlan::Synced));
    assert!(after.read_slot(&durable.slot()).is_ok());
    assert!(after.read_slot(&next.slot()).is_ok());
    assert!(after.read_slot(&lost.slot()).is_err());
}

#[test]
fn the_reserve_is_for_what_gives_space_back() {
    let disk = SimulatedDisk::new();
    disk.set_free_space(10_000);
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let options = LocalOptions { reserve: 5_000, clock, ..options() };
    let backend = LocalBackend::open(Arc::new(disk.clone()), options).expect("opened");
    let hash = |bytes: &[u8]| blake3::hash(bytes).into();
    let mut writer = backend.create(Urgency::Normal).expect("created");
    writer.write(&[0; 4_000]).expect("written");
    assert!(matches!(writer.write(&[0; 4_000]), Err(BackendError::NoSpace)));
    let body = [0; 2_000];
    assert!(matches!(backend.append(&body, hash(&body), Urgency::Normal), Err(BackendError::NoSpace)));
    backend.append(&body, hash(&body), Urgency::Reserve).expect("appended").claimed();
    drop(writer);
    // The clock stands still, but nobody is refused by an old answer.
    backend.append(&body, hash(&body), Urgency::Normal).expect("appended").claimed();
}

#[test]
fn a_full_disk_is_no_space() {
    let disk = SimulatedDisk::new();
    let backend = open(&disk);
    disk.set_free_space(1_000);
    let body = [0; 2_000];
    let result = backend.append(&body, blake3::hash(&body).into(), Urgency::Reserve);
    assert!(matches!(result, Err(BackendError::NoSpace)));
    assert!(backend.segments_unclaimed().is_empty(), "a body that was refused holds nothing");
    disk.set_free_space(10_000);
    append(&backend, b"goes on").claimed();
    backend.sync_segments().expect("synced");
}

#[test]
fn damage_is_named() {
    let disk = SimulatedDisk::new();
    let backend = open(&disk);
    let slot = append(&backend, b"sound").claimed();
    disk.damage(&Path::new(segment::FOLDER).join("00000000.seg"), u64::from(slot.offset) + 42).expect("damaged");
    let error = backend.read_slot(&slot).expect_err("damaged");
    assert_eq!(error.to_string(), format!("body {} in segment 00000000 at 0 is damaged", slot.hash));
}

#[test]
fn empty_folders_of_earlier_files_go() {
    let disk = SimulatedDisk::new();
    let backend = open(&disk);
    let WrittenFile { guard, digest } = write(&backend, b"first");
    let file = guard.claimed();
    let later = LocalOptions { first_file: FileId(1 << 12), ..options() };
    let backend = LocalBackend::open(Arc::new(disk.clone()), later).expect("opened");
    backend.remove_file(file, &digest.hash).expect("removed");
    assert_eq!(disk.list(Path::new("bodies")).expect("listed"), Vec::<String>::new());
}
