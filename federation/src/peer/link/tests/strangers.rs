//! Clusters that connect and are no peers: those that were invited and join.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_invited_cluster_can_ask_to_join() {
    let network = MemoryNetwork::default();
    let (one, other) = (Site::new(&network, 1), Site::new(&network, 2));
    one.links.set_peers(peer(&other, Some(other.address.clone())));
    assert_eq!(one.ask_text(&other, "/who").await.expect("heard"), one.id.to_string());
    assert!(other.links.status().is_empty(), "a stranger is no peer");
    assert!(matches!(other.ask(&one, "/who").await, Err(LinkError::UnknownPeer(_))));
    // Once it is a peer its connection stays, and it can be asked.
    other.links.set_peers(peer(&one, None));
    other.until_connected(true).await;
    assert_eq!(other.ask_text(&one, "/who").await.expect("asked"), other.id.to_string());
    sleep(LinkLimits::default().stranger_lifetime * 2).await;
    assert_eq!(one.dials(), 1);
    assert!(one.link().connected);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_does_not_stay() {
    let network = MemoryNetwork::default();
    let (one, other) = (Site::new(&network, 1), Site::new(&network, 2));
    one.links.set_peers(peer(&other, Some(other.address.clone())));
    one.ask(&other, "/who").await.expect("heard");
    sleep(LinkLimits::default().stranger_lifetime - Duration::from_secs(1)).await;
    assert_eq!(one.dials(), 1);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(one.dials(), 2, "hung up on, and back");
}

#[tokio::test(start_paused = true)]
async fn few_strangers_are_heard_at_once() {
    let network = MemoryNetwork::default();
    let host = Site::new(&network, 1);
    let limit = LinkLimits::default().strangers_max;
    let mut strangers = Vec::new();
    for at in 0..limit {
        let stranger = Site::new(&network, 10 + u8::try_from(at).expect("few"));
        stranger.links.set_peers(peer(&host, Some(host.address.clone())));
        stranger.ask(&host, "/who").await.expect("heard");
        strangers.push(stranger);
    }
    let late = Site::new(&network, 9);
    late.links.set_peers(peer(&host, Some(host.address.clone())));
    assert!(late.ask(&host, "/who").await.is_err());
    // One leaves, and there is room.
    strangers.pop().expect("some").links.close().await;
    late.until_heard(&host).await;
}

impl Site {
    async fn until_heard(&self, other: &Site) {
        let began = Instant::now();
        while self.ask(other, "/who").await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "nobody listens");
            sleep(Duration::from_millis(500)).await;
        }
    }
}
