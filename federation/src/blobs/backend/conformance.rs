//! What every [`Backend`] must do; each implementation's tests run it. What survives a power cut is
//! tried with the implementations on a simulated disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{APPEND_BYTES_MAX, Backend, BackendError, BodyWriter, FileGuard, Found, SlotGuard, Urgency, WrittenFile};
use crate::blobs::digest::{Digest, GROUP_BYTES};
use crate::types::{BlobHash, FileId, SegmentId, Slot};

/// Tries the promises of [`Backend`] on an empty backend.
///
/// # Panics
///
/// Where a promise is broken.
pub fn run(backend: &dyn Backend) {
    small_bodies_come_back(backend);
    slots_name_their_bodies(backend);
    threads_append_side_by_side(backend);
    guards_keep_segments(backend);
    segments_are_removed_for_ever(backend);
    large_bodies_come_back(backend);
    given_up_bodies_leave_nothing(backend);
    removed_files_stay_readable_to_readers(backend);
    guards_mark_files(backend);
    sparse_bodies_become_bodies(backend);
    assert!(backend.free_space().expect("free space") > 0);
}

fn sparse_bodies_become_bodies(backend: &dyn Backend) {
    let body: Vec<u8> = (0..3 * GROUP_BYTES).map(|at| (at % 251) as u8).collect();
    let (begun, name) = (backend.create_sparse(body.len() as u64).expect("begun"), hash(&body));
    let (file, half) = (begun.file(), body.len() / 2);
    begun.write_at(&body[half..], half as u64).expect("written");
    begun.sync().expect("synced");
    let is_sparse = |found: &Found| matches!(found, Found::Sparse { file: found, length } if *found == file && *length == body.len() as u64);
    assert!(backend.list().expect("listed").iter().any(is_sparse));
    assert!(is_missing(&backend.reader(file, &name)), "it is no body yet");

    let again = backend.open_sparse(file, &name).expect("opened again");
    let mut bytes = vec![1; body.len()];
    again.read_at(&mut bytes, 0).expect("a hole reads as zeros");
    assert!(bytes[..half].iter().all(|byte| *byte == 0) && bytes[half..] == body[half..]);
    again.write_at(&body[..half], 0).expect("written");
    again.sync().expect("synced");
    let guard = backend.finish_sparse(file, &name).expect("whole");
    drop(backend.finish_sparse(file, &name).expect("whole already"));
    backend.sync_folder(guard.claimed()).expect("synced");
    backend.read_file(file, &name, 0, &mut bytes).expect("a body like any other");
    assert_eq!(bytes, body);
    backend.remove_sparse(file).expect("it is none any more");
    backend.open_sparse(file, &name).expect("whole bodies open, too");
    backend.remove_file(file, &name).expect("removed");
    assert!(is_missing(&backend.open_sparse(file, &name)));

    let given_up = backend.create_sparse(10).expect("begun");
    assert!(given_up.file() > file, "ids are never used twice");
    backend.remove_sparse(given_up.file()).expect("removed");
    backend.remove_sparse(given_up.file()).expect("fine if it is gone");
    assert!(is_missing(&backend.open_sparse(given_up.file(), &name)));
    assert!(is_missing(&backend.finish_sparse(given_up.file(), &name)));
}

fn hash(bytes: &[u8]) -> BlobHash {
    blake3::hash(bytes).into()
}

fn append(backend: &dyn Backend, bytes: &[u8]) -> SlotGuard {
    backend.append(bytes, hash(bytes), Urgency::Normal).expect("appended")
}

fn is_missing<T>(result: &Result<T, BackendError>) -> bool {
    matches!(result, Err(BackendError::Missing { .. }))
}

fn is_damaged<T>(result: &Result<T, BackendError>) -> bool {
    matches!(result, Err(BackendError::Damaged { .. }))
}

fn small_bodies_come_back(backend: &dyn Backend) {
    let long = vec![7; APPEND_BYTES_MAX];
    for body in [&b""[..], b"a", b"hello, world", &[0; 65_536], &long] {
        let slot = append(backend, body).claimed();
        assert_eq!(slot.length as usize, body.len());
        assert_eq!(slot.hash, hash(body));
        assert_eq!(backend.read_slot(&slot).expect("before the sync"), body);
        backend.sync_segments().expect("synced");
        assert_eq!(backend.read_slot(&slot).expect("after the sync"), body);
        assert!(!backend.has_failed(slot.segment));
    }
    let longer = vec![7; APPEND_BYTES_MAX + 1];
    assert!(backend.append(&longer, hash(&longer), Urgency::Normal).is_err());
    backend.append(b"urgent", hash(b"urgent"), Urgency::Reserve).expect("appended").claimed();
}

fn slots_name_their_bodies(backend: &dyn Backend) {
    let a = append(backend, b"one body").claimed();
    let b = append(backend, b"another!").claimed();
    assert_ne!((a.segment, a.offset), (b.segment, b.offset));
    assert!(is_damaged(&backend.read_slot(&Slot { hash: b.hash, ..a })));
    assert!(is_damaged(&backend.read_slot(&Slot { length: 7, ..a })));
    assert!(is_damaged(&backend.read_slot(&Slot { length: u32::MAX, ..a })));
    assert!(is_damaged(&backend.read_slot(&Slot { offset: u32::MAX, ..a })));
    assert!(is_missing(&backend.read_slot(&Slot { segment: SegmentId(u32::MAX), ..a })));
}

fn threads_append_side_by_side(backend: &dyn Backend) {
    let slots = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u32)
            .map(|thread| {
                scope.spawn(move || {
                    let body = |round: u32| (thread * 1000 + round).to_le_bytes().repeat(100);
                    let one = |round| {
                        let guard = append(backend, &body(round));
                        backend.sync_segments().expect("synced");
                        (guard.claimed(), body(round))
                    };
                    (0..25).map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    let places: BTreeSet<_> = slots.iter().map(|(slot, _)| (slot.segment, slot.offset)).collect();
    assert_eq!(places.len(), 100);
    for (slot, body) in slots {
        assert_eq!(backend.read_slot(&slot).expect("read"), body);
    }
}

fn is_sealed(backend: &dyn Backend, segment: SegmentId) -> bool {
    backend.sealed_segments().iter().any(|sealed| sealed.segment == segment)
}

fn guards_keep_segments(backend: &dyn Backend) {
    let first = append(backend, b"first");
    let second = append(backend, b"second");
    let segment = second.slot().segment;
    assert!(backend.is_unclaimed(segment));
    assert!(backend.segments_unclaimed().contains(&segment));
    assert!(!is_sealed(backend, segment), "it is the active one");

    backend.seal_active();
    assert!(!is_sealed(backend, segment), "two slots are guarded");
    assert!(backend.remove_segment(segment).is_err());
    assert_ne!(append(backend, b"third").claimed().segment, segment);
    first.claimed();
    let slot = second.slot();
    drop(second);
    assert!(!backend.is_unclaimed(segment));
    assert!(is_sealed(backend, segment));
    assert_eq!(backend.read_slot(&slot).expect("a slot that was given up stays until it is collected"), &b"second"[..]);
}

fn segments_are_removed_for_ever(backend: &dyn Backend) {
    let slot = append(backend, b"gone").claimed();
    assert!(backend.remove_segment(slot.segment).is_err(), "the active segment stays");
    backend.seal_active();
    let listed = |backend: &dyn Backend| {
        let found = backend.list().expect("listed");
        found.iter().any(|found| matches!(found, Found::Segment { segment, .. } if *segment == slot.segment))
    };
    assert!(listed(backend));
    backend.remove_segment(slot.segment).expect("removed");
    backend.remove_segment(slot.segment).expect("fine if it is gone");
    assert!(!listed(backend));
    assert!(!is_sealed(backend, slot.segment));
    assert!(is_missing(&backend.read_slot(&slot)));
    let next = append(backend, b"next").claimed();
    assert!(next.segment > slot.segment, "its id is not used again");
    assert!(backend.next_ids().0 > next.segment);
}

fn write(backend: &dyn Backend, body: &[u8]) -> WrittenFile {
    let mut writer = backend.create(Urgency::Normal).expect("created");
    body.chunks(100_000).for_each(|bytes| writer.write(bytes).expect("written"));
    let file = writer.file();
    assert_eq!(writer.digest(), Digest::of(body));
    let written = writer.finish().expect("finished");
    assert_eq!(written.guard.file(), file);
    assert_eq!(written.digest, Digest::of(body));
    backend.sync_folder(file).expect("synced");
    written
}

fn found(backend: &dyn Backend, id: FileId) -> Option<Found> {
    let found = backend.list().expect("listed");
    found
        .into_iter()
        .find(|found| matches!(found, Found::File { file, .. } | Found::Unfinished { file, .. } if *file == id))
}

fn large_bodies_come_back(backend: &dyn Backend) {
    let body: Vec<u8> = (0..GROUP_BYTES * 5 + 77).map(|at| (at % 253) as u8).collect();
    let WrittenFile { guard, digest } = write(backend, &body);
    let file = guard.claimed();
    let mut bytes = vec![0; body.len()];
    backend.read_file(file, &digest.hash, 0, &mut bytes).expect("read");
    assert_eq!(bytes, body);
    backend.read_file(file, &digest.hash, 1000, &mut bytes[..10]).expect("read");
    assert_eq!(bytes[..10], body[1000..1010]);
    let end = body.len() as u64;
    assert!(is_damaged(&backend.read_file(file, &digest.hash, end - 5, &mut bytes[..10])));
    assert!(is_missing(&backend.read_file(file, &hash(b"other"), 0, &mut bytes[..10])));
    assert!(is_missing(&backend.read_file(FileId(u64::MAX), &digest.hash, 0, &mut bytes[..10])));
    if let Some(descriptor) = backend.open(file, &digest.hash).expect("opened") {
        let content = std::fs::File::from(descriptor);
        assert_eq!(content.metadata().expect("open").len(), end);
    }

    let second = write(backend, &body);
    assert_ne!(second.guard.file(), file, "the backend keeps no count of contents");
    assert!(backend.next_ids().1 > second.guard.file());
    backend.remove_file(file, &digest.hash).expect("removed");
    backend.remove_file(file, &digest.hash).expect("fine if it is gone");
    assert!(is_missing(&backend.reader(file, &digest.hash)));
    assert!(is_missing(&backend.open(file, &digest.hash)));
    backend.read_file(second.guard.file(), &digest.hash, 0, &mut bytes).expect("the other file stays");
}

fn given_up_bodies_leave_nothing(backend: &dyn Backend) {
    let mut writer: Box<dyn BodyWriter> = backend.create(Urgency::Reserve).expect("created");
    let file = writer.file();
    writer.write(&[1; 100_000]).expect("written");
    assert_eq!(found(backend, file), None, "nobody may take a body for a leftover that is being written");
    drop(writer);
    assert_eq!(found(backend, file), None);
    backend.remove_unfinished(file).expect("fine if it is gone");
    assert!(backend.create(Urgency::Normal).expect("created").file() > file);
}

fn removed_files_stay_readable_to_readers(backend: &dyn Backend) {
    let WrittenFile { guard, digest } = write(backend, b"kept");
    let file = guard.claimed();
    let reader = backend.reader(file, &digest.hash).expect("opened");
    backend.remove_file(file, &digest.hash).expect("removed");
    let mut bytes = [0; 4];
    Arc::clone(&reader).read_at(&mut bytes, 0).expect("read");
    assert_eq!(&bytes, b"kept");
}

fn guards_mark_files(backend: &dyn Backend) {
    let is_unclaimed = |id| match found(backend, id) {
        Some(Found::File { unclaimed, length: 4, .. }) => unclaimed,
        other => panic!("the file is not listed as it is: {other:?}"),
    };
    for end in [(|guard| _ = FileGuard::claimed(guard)) as fn(FileGuard), drop] {
        let WrittenFile { guard, digest } = write(backend, b"mine");
        let file = guard.file();
        assert!(is_unclaimed(file));
        end(guard);
        assert!(!is_unclaimed(file), "the guard's end does not remove the file");
        backend.remove_file(file, &digest.hash).expect("removed");
        assert_eq!(found(backend, file), None);
    }
}
