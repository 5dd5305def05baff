//! Connections that break, peers that vanish.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_cut_is_healed_with_growing_waits() {
    let (network, one, other) = two();
    one.ask(&other, "/who").await.expect("up");
    network.cut(one.id, other.id);
    one.until_connected(false).await;
    let dials = one.dials();
    sleep(Duration::from_secs(120)).await;
    let tries = one.dials() - dials;
    assert!((6..=14).contains(&tries), "{tries} attempts in two minutes");
    let link = one.link();
    assert!(link.last_error.as_ref().is_some_and(|error| error.contains("cannot connect")), "{link:?}");
    let error = one.ask(&other, "/who").await.expect_err("still cut");
    assert!(matches!(&error, LinkError::Unreachable { cause, .. } if cause.contains("unreachable")), "{error:?}");
    network.heal(one.id, other.id);
    let healed = one.until_connected(true).await;
    assert!(healed <= Duration::from_secs(31), "{healed:?}");
    one.ask(&other, "/who").await.expect("up again");
    other.ask(&one, "/who").await.expect("the other way, too");
}

#[tokio::test(start_paused = true)]
async fn a_call_dials_at_once_and_those_who_wait_share_the_attempt() {
    let (network, one, other) = two();
    network.cut(one.id, other.id);
    sleep(Duration::from_secs(120)).await;
    network.heal(one.id, other.id);
    let (dials, began) = (one.dials(), Instant::now());
    let calls = (0..10).map(|_| one.ask(&other, "/who"));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    assert_eq!(one.dials() - dials, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_down_is_not_hammered_by_those_who_ask() {
    let (network, one, other) = two();
    network.cut(one.id, other.id);
    sleep(Duration::from_secs(120)).await;
    let dials = one.dials();
    for _ in 0..1000 {
        assert!(matches!(one.ask(&other, "/who").await, Err(LinkError::Unreachable { .. })));
    }
    assert!(one.dials() - dials <= 2, "{} attempts", one.dials() - dials);
}

#[tokio::test(start_paused = true)]
async fn a_removed_peer_is_cut_off_at_once() {
    let (_network, one, other) = two();
    one.ask(&other, "/who").await.expect("up");
    other.until_connected(true).await;
    let began = Instant::now();
    let remove = async {
        sleep(Duration::from_secs(1)).await;
        one.links.set_peers(Vec::new());
    };
    let (mine, theirs, ()) = tokio::join!(one.ask(&other, "/never"), other.ask(&one, "/never"), remove);
    assert!(matches!(mine, Err(LinkError::UnknownPeer(_))), "{mine:?}");
    assert!(matches!(theirs, Err(LinkError::Broken { .. })), "{theirs:?}");
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert!(matches!(one.ask(&other, "/who").await, Err(LinkError::UnknownPeer(_))));
    other.until_connected(false).await;
    // It may come back.
    one.links.set_peers(peer(&other, Some(other.address.clone())));
    one.ask(&other, "/who").await.expect("a peer again");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanished_is_noticed() {
    let (network, one, other) = two();
    one.ask(&other, "/who").await.expect("up");
    network.silence(one.id, other.id);
    let began = Instant::now();
    let deadline = Duration::from_secs(3);
    let called = one.links.call_within(other.id, request("/who", empty_body()), deadline).await;
    assert!(matches!(called, Err(LinkError::TimedOut(_))), "{called:?}");
    assert_eq!(began.elapsed().as_secs(), 3);
    one.until_connected(false).await;
    assert!(began.elapsed() <= Duration::from_secs(25), "{:?}", began.elapsed());
    network.heal(one.id, other.id);
    one.until_connected(true).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_has_a_deadline() {
    let (_network, one, other) = two();
    let began = Instant::now();
    let called = one.ask(&other, "/never").await;
    assert!(matches!(called, Err(LinkError::TimedOut(_))), "{called:?}");
    assert_eq!(began.elapsed().as_secs(), 30);
    one.ask(&other, "/who").await.expect("the connection is as good as before");
    assert_eq!(one.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_surely_not_sent_is_sent_once_more() {
    let (network, one, other) = two();
    one.ask(&other, "/who").await.expect("up");
    // The connection is broken, and nobody has had the time to notice.
    network.cut(one.id, other.id);
    network.heal(one.id, other.id);
    one.ask(&other, "/who").await.expect("sent over a new connection");
    assert_eq!((one.dials(), other.answers.asked()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_carried_out_is_not_sent_again() {
    let (network, one, other) = two();
    let cut = async {
        while other.answers.asked() == 0 {
            sleep(Duration::from_millis(100)).await;
        }
        network.cut(one.id, other.id);
        network.heal(one.id, other.id);
    };
    let (called, ()) = tokio::join!(one.ask(&other, "/never"), cut);
    assert!(matches!(called, Err(LinkError::Broken { .. })), "{called:?}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(other.answers.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_a_place_and_not_for_ever() {
    let (_network, one, other) = two();
    let places = LinkLimits::default().calls_max;
    let held = (0..places).map(|_| one.ask(&other, "/never"));
    let late = async {
        sleep(Duration::from_secs(1)).await;
        one.links.call_within(other.id, request("/who", empty_body()), Duration::from_secs(2)).await
    };
    let (held, late) = tokio::join!(futures_util::future::join_all(held), late);
    assert!(matches!(late, Err(LinkError::TimedOut(_))), "{late:?}");
    assert!(held.iter().all(|call| matches!(call, Err(LinkError::TimedOut(_)))));
    one.ask(&other, "/who").await.expect("the places came back");
}
