//! Changes whose answer was lost: made once or never, and found out.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::line::{Pair, actor, bucket};
use crate::catalog::{KeyRange, Table};
use crate::error::Error;
use crate::types::{BucketAt, Number, SnapshotRef, TagName};

fn tag(name: &str) -> TagName {
    name.parse().expect("lawful")
}

impl Pair {
    async fn newest(&self) -> Number {
        self.home.bucket(&bucket()).await.expect("there").number
    }

    async fn tags(&self) -> Vec<(TagName, Number)> {
        let tags = self.home.snapshots(&bucket()).await.expect("listed");
        tags.into_iter().map(|tag| (tag.tag, tag.number)).collect()
    }

    /// Changes whose outcome the member does not know.
    async fn open(&self) -> usize {
        let rows = |view: &dyn crate::catalog::View| Ok(view.range(Table::Publishes, KeyRange::prefix(&[]))?.count());
        self.master.writer().read(rows).await.expect("reads")
    }

    async fn resolved(&self) {
        for _ in 0..100 {
            if self.open().await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("a change was never resolved");
    }

    /// No answer comes for longer than anybody waits.
    fn answer_nothing(&self) {
        self.line.lost.store(usize::MAX, Ordering::SeqCst);
        let clock = self.clock.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            clock.advance(Duration::from_secs(11));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_whose_answer_is_lost_is_made_once_and_its_number_is_heard() {
    let pair = Pair::new().await;
    let before = pair.put("a", b"before".to_vec()).await;
    let after = pair.put("a", b"after".to_vec()).await;
    pair.line.lost.store(2, Ordering::SeqCst);
    let source = SnapshotRef::Number(before);
    let restored = pair.member.restore(&pair.linked, &actor(), source, b"").await.expect("restored");
    assert_eq!((restored.number, restored.changed), (after.next(), true));
    assert_eq!(pair.newest().await, restored.number, "it was made twice");
    assert_eq!(pair.open().await, 0);

    // Of the state as it is nothing differs: that is an answer, too, and no number.
    pair.line.lost.store(1, Ordering::SeqCst);
    let newest = SnapshotRef::Number(restored.number);
    let again = pair.member.restore(&pair.linked, &actor(), newest, b"").await.expect("answered");
    assert_eq!((again.number, again.changed), (restored.number, false));

    let log = pair.home.log(&bucket(), None, 10).await.expect("log").items;
    assert_eq!(log[0].actor, "member/tester");
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_nobody_heard_of_is_resolved_and_not_made_again_over_later_writes() {
    for restarts in [false, true] {
        let mut pair = Pair::new().await;
        let before = pair.put("a", b"before".to_vec()).await;
        pair.put("a", b"after".to_vec()).await;
        pair.answer_nothing();
        let source = SnapshotRef::Number(before);
        let lost = pair.member.restore(&pair.linked, &actor(), source, b"").await;
        assert!(matches!(lost, Err(Error::ClusterAway { .. })), "{lost:?}");
        assert_eq!(pair.open().await, 1, "the client was told that it is not known");
        let written = pair.put("a", b"written since".to_vec()).await;
        if restarts {
            pair.reopen().await;
        }
        pair.line.lost.store(0, Ordering::SeqCst);
        pair.resolved().await;
        assert_eq!(pair.newest().await, written, "what was written since was overwritten");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_was_not_sent_was_not_made() {
    let pair = Pair::new().await;
    let before = pair.put("a", b"before".to_vec()).await;
    let after = pair.put("a", b"after".to_vec()).await;
    pair.line.cut.store(true, Ordering::SeqCst);
    let lost = pair.member.restore(&pair.linked, &actor(), SnapshotRef::Number(before), b"").await;
    assert!(matches!(lost, Err(Error::ClusterAway { .. })), "{lost:?}");
    assert_eq!((pair.newest().await, pair.open().await), (after, 0));
}

#[tokio::test(start_paused = true)]
async fn tags_whose_answer_is_lost_are_what_was_said_first() {
    let pair = Pair::new().await;
    let first = pair.put("a", b"first".to_vec()).await;
    let newest = BucketAt::newest(bucket());
    pair.line.lost.store(1, Ordering::SeqCst);
    let tester = actor();
    let asking = pair.member.tag_snapshot(&pair.linked, &tester, &newest, Some(tag("kept")), "why");
    // The home goes on while the answer is lost.
    let (tagged, second) = tokio::join!(asking, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        pair.put("a", b"second".to_vec()).await
    });
    let (number, tagged) = tagged.expect("tagged");
    assert_eq!((number, tagged.map(|tag| tag.message)), (first, Some("why".to_owned())));
    assert_eq!(pair.tags().await, [(tag("kept"), first)]);
    // Once more, as a command of its own: it is there.
    let again = pair.member.tag_snapshot(&pair.linked, &actor(), &newest, Some(tag("kept")), "why").await;
    assert!(matches!(again, Err(Error::TagExists { number, .. }) if number == first), "{again:?}");

    pair.line.lost.store(1, Ordering::SeqCst);
    pair.member.remove_tag(&pair.linked, &actor(), &tag("kept")).await.expect("removed, and not missed");
    assert_eq!(pair.tags().await, []);
    let again = pair.member.remove_tag(&pair.linked, &actor(), &tag("kept")).await;
    assert!(matches!(again, Err(Error::NoSuchTag { .. })), "{again:?}");
    assert_eq!((pair.newest().await, pair.open().await), (second, 0));
    // Without a tag it is a question.
    let (number, none) = pair.member.tag_snapshot(&pair.linked, &actor(), &newest, None, "").await.expect("answered");
    assert!(number == second && none.is_none());
    assert!(
        !pair.line.questions.lock().expect("no panic").iter().any(|path| ["tag", "untag", "restore"].contains(path))
    );
}
