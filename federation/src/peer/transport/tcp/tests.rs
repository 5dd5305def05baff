use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::conformance::{self, Party};
use super::*;
use crate::ids::SystemIds;

async fn party(admission: Admission, limits: TransportLimits) -> Party {
    let identity = Identity::generate(&SystemIds);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string().parse().expect("HOST:PORT");
    let cluster = identity.cluster();
    let transport = TlsTransport::listening(&identity, listener, admission, &limits);
    Party { transport: Arc::new(transport), cluster, address }
}

fn everybody() -> Admission {
    Arc::new(|_| true)
}

#[tokio::test]
async fn conformance() {
    conformance::run(|admission| party(admission, TransportLimits::default())).await;
}

#[tokio::test]
async fn slow_handshakes_do_not_block_others() {
    let limits = TransportLimits { handshakes_per_host_max: 9, ..TransportLimits::default() };
    let there = party(everybody(), limits).await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(TcpStream::connect((there.address.host(), there.address.port())).await.expect("connected"));
    }
    let here = TlsTransport::dialling(&Identity::generate(&SystemIds));
    let dialled = timeout(Duration::from_secs(2), here.dial(&there.address, there.cluster, Direction::Forward)).await;
    dialled.expect("at once").expect("admitted");
    // Their time runs out, and they are hung up on.
    let mut word = [0];
    let read = timeout(HANDSHAKE_TIMEOUT * 2, slow[0].read(&mut word)).await.expect("hung up on");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn one_host_cannot_take_all_handshakes() {
    let limits = TransportLimits { handshakes_per_host_max: 2, ..TransportLimits::default() };
    let there = party(everybody(), limits).await;
    let connect = || TcpStream::connect((there.address.host(), there.address.port()));
    let _slow = (connect().await.expect("first"), connect().await.expect("second"));
    let mut third = connect().await.expect("third");
    let mut word = [0];
    let read = timeout(Duration::from_secs(2), third.read(&mut word)).await.expect("hung up on at once");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn a_peer_has_a_bounded_number_of_connections() {
    let limits = TransportLimits { connections_per_peer_max: 2, ..TransportLimits::default() };
    let there = party(everybody(), limits).await;
    let here = TlsTransport::dialling(&Identity::generate(&SystemIds));
    let dial = || here.dial(&there.address, there.cluster, Direction::Forward);
    let (first, _second) = (dial().await.expect("first"), dial().await.expect("second"));
    let taken = (there.transport.accept().await.expect("first"), there.transport.accept().await.expect("second"));
    let third = dial().await;
    assert!(matches!(third, Err(TransportError::Handshake { .. })), "{third:?}");
    drop((first, taken));
    dial().await.expect("there is room again");
}

#[tokio::test]
async fn what_speaks_no_tls_is_no_peer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address: PeerAddress = listener.local_addr().expect("bound").to_string().parse().expect("HOST:PORT");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
    });
    let here = TlsTransport::dialling(&Identity::generate(&SystemIds));
    let dialled = here.dial(&address, ClusterId([7; 32]), Direction::Forward).await;
    assert!(matches!(dialled, Err(TransportError::Handshake { .. })), "{dialled:?}");
}

#[tokio::test]
async fn a_listener_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address: PeerAddress = listener.local_addr().expect("bound").to_string().parse().expect("HOST:PORT");
    let here = TlsTransport::dialling(&Identity::generate(&SystemIds));
    let dialled = here.dial(&address, ClusterId([7; 32]), Direction::Forward).await;
    assert!(matches!(dialled, Err(TransportError::TimedOut { .. })), "{dialled:?}");
}
