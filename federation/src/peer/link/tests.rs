//! Links on a network in memory, where time runs as fast as it can, and over TLS on this machine.

use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::clock::ManualClock;
use crate::ids::SeededIds;
use crate::peer::MemoryNetwork;
use crate::peer::transport::{Admission, Connection, Direction, TransportError};

mod bodies;
mod strangers;
mod tls;
mod trouble;

/// Answers what the tests ask.
#[derive(Debug)]
struct Answers {
    asked: AtomicUsize,
    all_here: Barrier,
}

impl Answers {
    fn new() -> Arc<Self> {
        Arc::new(Answers { asked: AtomicUsize::new(0), all_here: Barrier::new(100) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Service for Answers {
    async fn serve(&self, peer: ClusterId, request: Request) -> Response {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match request.uri().path() {
            "/who" => Response::new(full_body(peer.to_string())),
            "/echo" => Response::new(request.into_body()),
            "/late" => {
                sleep(Duration::from_secs(4)).await;
                Response::new(empty_body())
            }
            "/never" => std::future::pending().await,
            "/together" => {
                self.all_here.wait().await;
                Response::new(empty_body())
            }
            _ => bodies::serve(request).await,
        }
    }
}

/// A transport that counts how often it dials.
#[derive(Debug)]
struct Counted<T> {
    transport: T,
    forward: AtomicUsize,
}

#[async_trait]
impl<T: Transport> Transport for Counted<T> {
    async fn dial(
        &self,
        address: &PeerAddress,
        expect: ClusterId,
        direction: Direction,
    ) -> Result<Connection, TransportError> {
        self.forward.fetch_add(usize::from(direction == Direction::Forward), Ordering::SeqCst);
        self.transport.dial(address, expect, direction).await
    }

    async fn accept(&self) -> Option<Connection> {
        self.transport.accept().await
    }

    fn close(&self) {
        self.transport.close();
    }
}

struct Site {
    id: ClusterId,
    address: PeerAddress,
    links: Arc<Links>,
    answers: Arc<Answers>,
    transport: Arc<Counted<crate::peer::MemoryTransport>>,
}

fn address(host: u8) -> PeerAddress {
    format!("host-{host}.example:9001").parse().expect("an address")
}

impl Site {
    fn new(network: &MemoryNetwork, host: u8) -> Site {
        Self::admitting(network, host, Arc::new(|_| true))
    }

    fn admitting(network: &MemoryNetwork, host: u8, admission: Admission) -> Site {
        let id = ClusterId([host; 32]);
        let transport = network.host(address(host), id, admission);
        let transport = Arc::new(Counted { transport, forward: AtomicUsize::new(0) });
        let answers = Answers::new();
        let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
        let ids = Arc::new(SeededIds::new(host.into()));
        let links = Links::start(transport.clone(), answers.clone(), clock, ids, LinkLimits::default());
        Site { id, address: address(host), links, answers, transport }
    }

    fn dials(&self) -> usize {
        self.transport.forward.load(Ordering::SeqCst)
    }

    async fn ask(&self, other: &Site, path: &'static str) -> Result<Response, LinkError> {
        self.links.call(other.id, request(path, empty_body())).await
    }

    /// Asks, and takes the whole answer as text.
    async fn ask_text(&self, other: &Site, path: &'static str) -> Result<String, LinkError> {
        Ok(text(self.ask(other, path).await?).await)
    }

    fn link(&self) -> LinkStatus {
        self.links.status().pop().expect("one peer")
    }

    /// Waits until the one peer's link is up or down.
    async fn until_connected(&self, connected: bool) -> Duration {
        let began = Instant::now();
        while self.link().connected != connected {
            assert!(began.elapsed() < Duration::from_secs(120), "connected is still {}", !connected);
            sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    }
}

fn request(path: &'static str, body: Body) -> Request {
    ::http::Request::builder().uri(path).body(body).expect("a request")
}

async fn text(response: Response) -> String {
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = response.into_body().collect().await.expect("the whole body").to_bytes();
    String::from_utf8(bytes.into()).expect("text")
}

fn peer(site: &Site, address: Option<PeerAddress>) -> Vec<LinkPeer> {
    vec![LinkPeer { cluster: site.id, address }]
}

/// Two peers of which the first dials the second.
fn two() -> (MemoryNetwork, Site, Site) {
    let network = MemoryNetwork::default();
    let (one, other) = (Site::new(&network, 1), Site::new(&network, 2));
    other.links.set_peers(peer(&one, None));
    one.links.set_peers(peer(&other, Some(other.address.clone())));
    (network, one, other)
}

#[tokio::test(start_paused = true)]
async fn one_reachable_side_is_enough() {
    let (network, one, other) = two();
    network.block(other.id, one.id);
    assert_eq!(one.ask_text(&other, "/who").await.expect("asked"), one.id.to_string());
    other.until_connected(true).await;
    assert_eq!(other.ask_text(&one, "/who").await.expect("asked"), other.id.to_string());
    assert_eq!(other.dials(), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_share_one_connection() {
    let (_network, one, other) = two();
    let calls = (0..100).map(|_| one.ask(&other, "/together"));
    let answers = timeout(Duration::from_secs(20), futures_util::future::join_all(calls)).await;
    assert!(answers.expect("all are under way at once").iter().all(Result::is_ok));
    assert_eq!((one.dials(), other.answers.asked()), (1, 100));
}

#[tokio::test(start_paused = true)]
async fn who_is_no_peer_and_who_cannot_be_reached_is_said_at_once() {
    let network = MemoryNetwork::default();
    let (one, other) = (Site::new(&network, 1), Site::new(&network, 2));
    let began = Instant::now();
    assert!(matches!(one.ask(&other, "/who").await, Err(LinkError::UnknownPeer(id)) if id == other.id));
    one.links.set_peers(peer(&other, None));
    let error = one.ask(&other, "/who").await.expect_err("no address");
    assert!(matches!(&error, LinkError::Unreachable { since: Timestamp(1_000), .. }), "{error:?}");
    assert!(error.to_string().contains("no address"), "{error}");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn status_has_round_trip_and_bytes() {
    let (_network, one, other) = two();
    let body = vec![7; 100_000];
    let echoed = one.links.call(other.id, request("/echo", full_body(body.clone()))).await.expect("asked");
    assert_eq!(echoed.into_body().collect().await.expect("whole").to_bytes(), body);
    let link = one.link();
    assert!(link.connected && link.last_error.is_none(), "{link:?}");
    assert!((100_000..110_000).contains(&link.bytes_sent), "{link:?}");
    assert!((100_000..110_000).contains(&link.bytes_received), "{link:?}");
    sleep(Duration::from_secs(1)).await;
    assert!(one.link().round_trip.is_some());
    assert_eq!(other.answers.asked(), 1, "pings are not the service's business");
    // Nobody asks, and the link is measured and kept up.
    sleep(Duration::from_secs(300)).await;
    assert!(one.link().connected && one.link().bytes_sent > link.bytes_sent);
}

#[tokio::test(start_paused = true)]
async fn a_new_address_is_followed() {
    let (network, one, other) = two();
    one.ask(&other, "/who").await.expect("asked");
    let moved = network.host(address(9), other.id, Arc::new(|_| true));
    one.links.set_peers(peer(&other, Some(address(9))));
    let arrived = moved.accept().await.expect("dialled");
    assert_eq!(arrived.peer, one.id);
    // Saying the same again changes nothing.
    let dials = one.dials();
    one.links.set_peers(peer(&other, Some(address(9))));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(one.dials(), dials);
}

#[tokio::test(start_paused = true)]
async fn closing_lets_answers_finish() {
    let (_network, one, other) = two();
    let closed = async {
        sleep(Duration::from_secs(1)).await;
        other.links.close().await;
    };
    let (answer, ()) = tokio::join!(one.ask(&other, "/late"), closed);
    answer.expect("the answer was under way");
    assert!(matches!(other.ask(&one, "/who").await, Err(LinkError::Unreachable { .. })));
    let (answer, ()) = tokio::join!(one.ask(&other, "/who"), one.links.close());
    assert!(answer.is_err(), "the other side is gone");
}

#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_for_ever() {
    let (_network, one, other) = two();
    let began = Instant::now();
    let closed = async {
        sleep(Duration::from_secs(1)).await;
        other.links.close().await;
        began.elapsed()
    };
    let (answer, took) = tokio::join!(one.ask(&other, "/never"), closed);
    assert!(matches!(answer, Err(LinkError::Broken { .. })), "{answer:?}");
    assert!(took <= Duration::from_secs(7), "{took:?}");
}
