//! A home and what members ask of it, however late or often.

use std::sync::Arc;

use super::*;
use crate::blobs::MemoryBackend;
use crate::blocking::Inline;
use crate::catalog::MemoryCatalog;
use crate::clock::ManualClock;
use crate::ids::SeededIds;
use crate::master::{Behalf, CollectOptions, Description, Found, Limits, Look, PutRequest, Seams};
use crate::types::{BlobHash, BucketAt, ETag, Rights, SnapshotRef};

const MEMBER: MemberId = MemberId([7; 16]);

fn actor() -> Actor {
    Actor("tester".to_owned())
}

fn path(name: &str) -> ObjectPath {
    ObjectPath::try_from(name.as_bytes()).expect("lawful")
}

/// A bucket that is shared with a member.
async fn shared_bucket() -> (Master, BucketName, BucketId) {
    let seams = Seams {
        catalog: Arc::new(MemoryCatalog::new()),
        backend: Arc::new(MemoryBackend::default()),
        blocking: Arc::new(Inline),
        clock: Arc::new(ManualClock::new(Timestamp(0))),
        ids: Arc::new(SeededIds::new(1)),
    };
    let limits = Limits { disk_reserve: 0, ..Limits::default() };
    let master = Master::simulated(seams, limits).await.expect("opens");
    let name: BucketName = "bucket".parse().expect("lawful");
    let id = master.create_bucket(&actor(), &name, "").await.expect("creates").id;
    master.share(&actor(), &name, MEMBER, Some(Rights::ReadWrite)).await.expect("shares");
    (master, name, id)
}

fn put_of(name: &str, hash: u8, length: u64) -> PeerChange {
    let record = ObjectRecord {
        body: Body::Whole(Piece::Shared { hash: BlobHash([hash; 32]), length }),
        size: length,
        etag: ETag { md5: [0; 16], parts: None },
        modified: Timestamp(0),
        checksum: None,
        headers: Vec::new(),
        metadata: Vec::new(),
        tags: Vec::new(),
    };
    PeerChange::Put { path: path(name), record: Box::new(record), precondition: Precondition::default() }
}

async fn publish(master: &Master, bucket: BucketId, counter: u64, settled: u64, change: PeerChange) -> Result<Number> {
    let answer = master.change_for(MEMBER, Origin { counter, settled, term: None }, &actor(), bucket, change).await?;
    Ok(answer.number())
}

#[tokio::test]
async fn a_question_that_was_held_up_makes_nothing_once_its_answer_was_forgotten() {
    let (master, _, bucket) = shared_bucket().await;
    let first = publish(&master, bucket, 1, 1, put_of("a", 1, 5)).await.expect("made");
    assert_eq!(publish(&master, bucket, 1, 1, put_of("a", 1, 5)).await.expect("answered again"), first);
    assert_eq!(master.outcome_for(MEMBER, bucket, 2).await.expect("answered"), None, "the member gave it up");
    publish(&master, bucket, 3, 3, put_of("b", 2, 5)).await.expect("made");

    for late in [1, 2] {
        let made = publish(&master, bucket, late, 1, put_of("a", 1, 5)).await;
        assert!(matches!(made, Err(Error::InvalidRequest { .. })), "{late} was made twice: {made:?}");
        assert!(master.outcome_for(MEMBER, bucket, late).await.is_err(), "nothing is known of {late} any more");
    }
}

#[tokio::test]
async fn a_content_has_one_length() {
    let (master, _, bucket) = shared_bucket().await;
    publish(&master, bucket, 1, 1, put_of("a", 1, 5)).await.expect("made");
    let lie = publish(&master, bucket, 2, 2, put_of("b", 1, 50)).await;
    assert!(matches!(lie, Err(Error::InvalidRequest { .. })), "{lie:?}");
}

#[tokio::test]
async fn a_member_without_the_right_leaves_no_row() {
    let (master, name, bucket) = shared_bucket().await;
    master.share(&actor(), &name, MEMBER, Some(Rights::ReadOnly)).await.expect("shares");
    assert_eq!(master.outcome_for(MEMBER, bucket, 9).await.expect("answered"), None);
    let rows = |view: &dyn crate::catalog::View| Ok(view.range(Table::Idempotency, KeyRange::prefix(&[]))?.count());
    assert_eq!(master.writer().read(rows).await.expect("reads"), 0);
}

async fn put_here(master: &Master, bucket: &BucketName, key: &str) -> Number {
    let source = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"hello"))]);
    let body = master.blobs().store(source, (), Some(5), 5).await.expect("stores").0;
    let request = PutRequest {
        body,
        md5: [0; 16],
        checksum: None,
        description: Description::default(),
        precondition: Precondition::default(),
    };
    master.put(&actor(), bucket, &path(key), request).await.expect("puts").number
}

fn look_at(key: &str, known: Option<Number>) -> Look {
    Look { path: path(key), snapshot: None, which: Which::Newest, known }
}

#[tokio::test]
async fn a_member_hears_of_a_delete_whose_rows_are_gone() {
    let (master, name, bucket) = shared_bucket().await;
    let known = put_here(&master, &name, "a").await;
    let delete = DeleteRequest { path: path("a"), version: None, precondition: Precondition::default() };
    master.delete(&actor(), &name, vec![delete]).await.expect("deletes");
    let options = CollectOptions { now: true, ..CollectOptions::default() };
    assert!(master.collect(options).await.expect("collects").versions > 0, "the test needs the row to go");
    let looked = master.look(bucket, look_at("a", Some(known))).await.expect("answers");
    assert!(matches!(looked.found, Found::Absent), "{:?}", looked.found);
}

#[tokio::test]
async fn what_a_layer_holds_is_answered_by_its_place_in_the_log() {
    let (master, name, bucket) = shared_bucket().await;
    put_here(&master, &name, "a").await;
    let state = put_here(&master, &name, "b").await;
    for key in ["a", "b"] {
        let delete = DeleteRequest { path: path(key), version: None, precondition: Precondition::default() };
        master.delete(&actor(), &name, vec![delete]).await.expect("deletes");
    }
    let source = BucketAt::at(name.clone(), SnapshotRef::Number(state));
    master.restore(&actor(), &source, b"").await.expect("restores");
    for key in ["b", "a"] {
        let looked = master.look(bucket, look_at(key, None)).await.expect("answers");
        let Found::Live { number, ordinal, .. } = looked.found else { panic!("{key} was restored") };
        let row = master
            .writer()
            .read(move |view| Ok(ChangeRow::load(view, &keys::change(bucket, number, ordinal))?))
            .await
            .expect("reads");
        assert_eq!(row.and_then(|row| row.path), Some(path(key)));
    }
}

#[tokio::test]
async fn a_grant_is_looked_at_in_the_transaction_that_makes_a_change() {
    let (master, name, bucket) = shared_bucket().await;
    let first = put_here(&master, &name, "a").await;
    put_here(&master, &name, "b").await;
    let (at, newest) = (BucketAt::at(name.clone(), SnapshotRef::Number(first)), BucketAt::newest(name.clone()));
    let tag = |text: &str| text.parse::<crate::types::TagName>().expect("lawful");
    let member = Behalf::Member(MEMBER, bucket);
    master.tag_snapshot_for(member, &actor(), &newest, Some(tag("kept")), "").await.expect("may write");
    let before = master.bucket(&name).await.expect("there").number;

    // Whoever let the question in had looked at the grant before it was changed.
    for rights in [Some(Rights::ReadOnly), None] {
        master.share(&actor(), &name, MEMBER, rights).await.expect("shares");
        let refused = [
            master.tag_snapshot_for(member, &actor(), &newest, Some(tag("late")), "").await.map(drop),
            master.remove_tag_for(member, &name, &tag("kept")).await,
            master.restore_for(member, &actor(), &at, b"").await.map(drop),
        ];
        for outcome in refused {
            let lawful = match rights {
                Some(_) => matches!(outcome, Err(Error::SharedReadOnly { .. })),
                None => matches!(outcome, Err(Error::NoSuchSharedBucket { .. })),
            };
            assert!(lawful, "{rights:?}: {outcome:?}");
        }
    }
    // A grant is for a bucket, and not for whatever has its name.
    master.share(&actor(), &name, MEMBER, Some(Rights::ReadWrite)).await.expect("shares");
    let other = Behalf::Member(MEMBER, BucketId([9; 16]));
    let refused = master.remove_tag_for(other, &name, &tag("kept")).await;
    assert!(matches!(refused, Err(Error::NoSuchSharedBucket { .. })), "{refused:?}");

    let tags: Vec<_> = master.snapshots(&name).await.expect("listed").into_iter().map(|tag| tag.tag).collect();
    assert_eq!(tags, [tag("kept")]);
    assert_eq!(master.bucket(&name).await.expect("there").number, before);
}

#[tokio::test]
async fn a_change_is_made_in_the_term_that_its_asker_knows_or_not_at_all() {
    let (master, name, bucket) = shared_bucket().await;
    let first = Some(Term::FIRST);
    let ask = async |counter, term| {
        let origin = Origin { counter, settled: 1, term };
        master.change_for(MEMBER, origin, &actor(), bucket, put_of(&format!("k{counter}"), 1, 5)).await
    };
    let made = ask(1, first).await.expect("made");
    let second = master.begin_term(&name).await.expect("begun");
    assert_eq!(second, Term(2));
    for (counter, term) in [(2, first), (3, Some(Term(3)))] {
        let refused = ask(counter, term).await;
        assert!(matches!(refused, Err(Error::WrongTerm { current }) if current == second), "{refused:?}");
    }
    // What was answered before is answered again: it was made.
    assert_eq!(ask(1, first).await.expect("answered again"), made);
    // Under the same counter, once the asker knows: the refused question made nothing. Numbers count on.
    let next = ask(2, Some(second)).await.expect("made").number();
    assert_eq!(next, made.number().next());
    // A member of an older version says nothing of terms.
    assert_eq!(ask(4, None).await.expect("made").number(), next.next());
}

#[tokio::test]
async fn a_restore_is_made_once_however_often_it_is_asked_for() {
    let (master, name, bucket) = shared_bucket().await;
    let state = put_here(&master, &name, "a").await;
    put_here(&master, &name, "b").await;
    let restore = || PeerChange::Restore { snapshot: SnapshotRef::Number(state), prefix: Vec::new() };
    let made = publish(&master, bucket, 1, 1, restore()).await.expect("made");
    let written = put_here(&master, &name, "c").await;
    assert!(written > made);
    // The same question: the same answer, whatever is there by now.
    assert_eq!(publish(&master, bucket, 1, 1, restore()).await.expect("answered again"), made);
    assert_eq!(master.bucket(&name).await.expect("there").number, written);
    let answer = master.outcome_for(MEMBER, bucket, 1).await.expect("answered");
    assert_eq!(answer, Some(PeerAnswer::Restore(Restored { number: made, changed: true })));

    // One that was given up before it came makes nothing.
    assert_eq!(master.outcome_for(MEMBER, bucket, 2).await.expect("answered"), None);
    let late = publish(&master, bucket, 2, 1, restore()).await;
    assert!(matches!(late, Err(Error::InvalidRequest { .. })), "{late:?}");
    // Nor does one of a member that may not write, or in another term.
    master.share(&actor(), &name, MEMBER, Some(Rights::ReadOnly)).await.expect("shares");
    let refused = publish(&master, bucket, 3, 1, restore()).await;
    assert!(matches!(refused, Err(Error::SharedReadOnly { .. })), "{refused:?}");
    master.share(&actor(), &name, MEMBER, Some(Rights::ReadWrite)).await.expect("shares");
    let origin = Origin { counter: 4, settled: 1, term: Some(Term(2)) };
    let refused = master.change_for(MEMBER, origin, &actor(), bucket, restore()).await;
    assert!(matches!(refused, Err(Error::WrongTerm { .. })), "{refused:?}");
    assert_eq!(master.bucket(&name).await.expect("there").number, written);
    // A layer that is still open is folded first; then what differs again is brought back again.
    let next = publish(&master, bucket, 5, 1, restore()).await.expect("made");
    let unchanged = publish(&master, bucket, 6, 1, restore()).await.expect("answered");
    assert_eq!((next, unchanged), (written.next(), written.next()));
}

/// New kinds of answers stand behind the older ones: what is on disk keeps its meaning.
#[test]
fn answers_are_kept_under_the_kinds_they_always_had() {
    let bucket = BucketId([9; 16]);
    let kinds = [
        (PeerAnswer::Delete(Vec::new(), Number(42)), vec![1, 1, 0, 42]),
        (PeerAnswer::Attributes(Number(42), None), vec![1, 2, 42, 0]),
        (PeerAnswer::Configure(Number(42)), vec![1, 3, 42]),
        (PeerAnswer::Untag(Number(42)), vec![1, 5, 42]),
        (PeerAnswer::Restore(Restored { number: Number(42), changed: true }), vec![1, 6, 42, 1]),
    ];
    for (answer, bytes) in kinds {
        let row = IdempotencyRow { bucket, answer: Some(answer) };
        assert!(row.encode().ends_with(&bytes), "{row:?}: {:?}", row.encode());
        assert_eq!(IdempotencyRow::decode(&row.encode()).expect("decodes"), row);
    }
}
