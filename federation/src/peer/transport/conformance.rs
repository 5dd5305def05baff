//! What every [`Transport`] must do; each implementation's tests run it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Admission, Connection, Direction, Transport, TransportError};
use crate::types::{ClusterId, PeerAddress};

/// A cluster on the network under test.
#[derive(Debug)]
pub struct Party {
    /// Its transport.
    pub transport: Arc<dyn Transport>,
    /// Who it is.
    pub cluster: ClusterId,
    /// Where it is.
    pub address: PeerAddress,
}

impl Party {
    async fn dial(&self, there: &Party, direction: Direction) -> Result<Connection, TransportError> {
        self.transport.dial(&there.address, there.cluster, direction).await
    }

    async fn accept(&self) -> Connection {
        self.transport.accept().await.expect("the transport is open")
    }
}

/// Tries the promises of [`Transport`]. `join` puts a new cluster, which admits whom it says, on the network.
///
/// # Panics
///
/// Where a promise is broken.
pub async fn run<F: Future<Output = Party>>(join: impl Fn(Admission) -> F) {
    let everybody: Admission = Arc::new(|_| true);
    let (here, there) = (join(everybody.clone()).await, join(everybody).await);
    both_ends_know_each_other(&here, &there).await;
    bytes_arrive_in_order_both_ways(&here, &there).await;
    a_dropped_end_ends_the_other(&here, &there).await;
    many_dial_at_once(&here, &there).await;
    another_key_is_refused(&here, &there).await;
    who_is_not_admitted_is_refused(&here, &join).await;
    a_closed_transport_takes_nobody(&here, &there).await;
}

async fn both_ends_know_each_other(here: &Party, there: &Party) {
    for direction in [Direction::Forward, Direction::Reverse] {
        let (dialled, taken) = tokio::join!(here.dial(there, direction), there.accept());
        let dialled = dialled.expect("admitted");
        assert_eq!((dialled.peer, dialled.direction), (there.cluster, direction));
        assert_eq!((taken.peer, taken.direction), (here.cluster, direction));
        assert!(!dialled.remote.is_empty() && !taken.remote.is_empty());
    }
}

async fn bytes_arrive_in_order_both_ways(here: &Party, there: &Party) {
    let (dialled, mut taken) = tokio::join!(here.dial(there, Direction::Forward), there.accept());
    let mut dialled = dialled.expect("admitted");
    let sent: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let echo = async {
        let mut received = vec![0; sent.len()];
        taken.io.read_exact(&mut received).await.expect("received");
        taken.io.write_all(&received).await.expect("sent back");
        taken.io.flush().await.expect("sent back");
    };
    let talk = async {
        dialled.io.write_all(&sent).await.expect("sent");
        dialled.io.flush().await.expect("sent");
        let mut received = vec![0; sent.len()];
        dialled.io.read_exact(&mut received).await.expect("received");
        assert!(received == sent, "the bytes changed on the way");
    };
    tokio::join!(echo, talk);
}

async fn a_dropped_end_ends_the_other(here: &Party, there: &Party) {
    let (dialled, mut taken) = tokio::join!(here.dial(there, Direction::Forward), there.accept());
    drop(dialled);
    let read = taken.io.read(&mut [0]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

async fn many_dial_at_once(here: &Party, there: &Party) {
    let dials = (0..6).map(|_| here.dial(there, Direction::Forward));
    let accepts = (0..6).map(|_| there.accept());
    let (dialled, taken) = tokio::join!(futures_util::future::join_all(dials), futures_util::future::join_all(accepts));
    assert!(dialled.iter().all(Result::is_ok), "{dialled:?}");
    assert!(taken.iter().all(|connection| connection.peer == here.cluster));
}

async fn another_key_is_refused(here: &Party, there: &Party) {
    let expected = ClusterId([7; 32]);
    let error = here.transport.dial(&there.address, expected, Direction::Forward).await.expect_err("another key");
    assert!(matches!(error, TransportError::WrongKey { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&expected.to_string()), "{message}");
    assert!(message.contains(&there.cluster.to_string()), "{message}");
}

async fn who_is_not_admitted_is_refused<F: Future<Output = Party>>(here: &Party, join: &impl Fn(Admission) -> F) {
    let is_open = Arc::new(AtomicBool::new(false));
    let (asked, peer) = (is_open.clone(), here.cluster);
    let choosy = join(Arc::new(move |cluster| cluster == peer && asked.load(Ordering::SeqCst))).await;
    let error = here.dial(&choosy, Direction::Forward).await.expect_err("not admitted");
    assert!(matches!(error, TransportError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains(&here.cluster.to_string()), "{error}");
    // Admission is asked anew each time; nothing of the refused attempt arrives.
    is_open.store(true, Ordering::SeqCst);
    let (dialled, taken) = tokio::join!(here.dial(&choosy, Direction::Reverse), choosy.accept());
    dialled.expect("admitted by now");
    assert_eq!(taken.direction, Direction::Reverse);
}

async fn a_closed_transport_takes_nobody(here: &Party, there: &Party) {
    let waiting = there.transport.accept();
    let close = async { there.transport.close() };
    let (accepted, ()) = tokio::join!(waiting, close);
    assert!(accepted.is_none());
    assert!(there.transport.accept().await.is_none());
    let error = here.dial(there, Direction::Forward).await.expect_err("closed");
    // A kernel may take a connection for a listener that is about to go, and break it then.
    assert!(matches!(error, TransportError::Connect { .. } | TransportError::Handshake { .. }), "{error:?}");
}
