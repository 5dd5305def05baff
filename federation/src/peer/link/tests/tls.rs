//! Links as they run in production: TLS over TCP, real time.

use tokio::net::TcpListener;

use super::*;
use crate::clock::SystemClock;
use crate::ids::SystemIds;
use crate::peer::transport::{TlsTransport, TransportLimits};
use crate::peer::who::Identity;

struct Real {
    id: ClusterId,
    address: PeerAddress,
    links: Arc<Links>,
    answers: Arc<Answers>,
}

async fn real() -> Real {
    let identity = Identity::generate(&SystemIds);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string().parse().expect("HOST:PORT");
    let limits = TransportLimits::default();
    let transport = Arc::new(TlsTransport::listening(&identity, listener, Arc::new(|_| true), &limits));
    let answers = Answers::new();
    let links =
        Links::start(transport, answers.clone(), Arc::new(SystemClock), Arc::new(SystemIds), LinkLimits::default());
    Real { id: identity.cluster(), address, links, answers }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_talk_both_ways() {
    let (one, other) = (real().await, real().await);
    other.links.set_peers(vec![LinkPeer { cluster: one.id, address: None }]);
    one.links.set_peers(vec![LinkPeer { cluster: other.id, address: Some(other.address.clone()) }]);
    let (body, _) = bodies::long();
    let echoed = one.links.call(other.id, request("/echo", body)).await.expect("asked");
    assert_eq!(echoed.into_body().collect().await.expect("whole").to_bytes().len(), bodies::LONG);
    let calls = (0..100).map(|_| one.links.call(other.id, request("/together", empty_body())));
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    let back = async {
        loop {
            match other.links.call(one.id, request("/who", empty_body())).await {
                Ok(answer) => return text(answer).await,
                Err(LinkError::Unreachable { .. }) => sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let who = timeout(Duration::from_secs(10), back).await.expect("the reverse connection comes up");
    assert_eq!(who, other.id.to_string());
    assert_eq!((other.answers.asked(), one.answers.asked()), (101, 1));
    one.links.close().await;
    other.links.close().await;
}

#[tokio::test]
async fn another_cluster_at_the_address_is_said_with_both_fingerprints() {
    let (one, other) = (real().await, real().await);
    let expected = ClusterId([7; 32]);
    one.links.set_peers(vec![LinkPeer { cluster: expected, address: Some(other.address.clone()) }]);
    let error = one.links.call(expected, request("/who", empty_body())).await.expect_err("somebody else").to_string();
    assert!(error.contains(&expected.to_string()) && error.contains(&other.id.to_string()), "{error}");
    assert_eq!(other.answers.asked(), 0);
}
