use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::conformance::{self, Party};
use super::*;

fn address(host: u8) -> PeerAddress {
    format!("host-{host}.example:9001").parse().expect("an address")
}

#[tokio::test(start_paused = true)]
async fn conformance() {
    let network = MemoryNetwork::default();
    let next = AtomicU8::new(1);
    conformance::run(async |admission| {
        let host = next.fetch_add(1, Ordering::SeqCst);
        let cluster = ClusterId([100 + host; 32]);
        let transport = Arc::new(network.host(address(host), cluster, admission));
        Party { transport, cluster, address: address(host) }
    })
    .await;
}

struct Two {
    network: MemoryNetwork,
    here: MemoryTransport,
    there: MemoryTransport,
}

fn two() -> Two {
    let network = MemoryNetwork::default();
    let [here, there] = [1, 2].map(|host| network.host(address(host), ClusterId([host; 32]), Arc::new(|_| true)));
    Two { network, here, there }
}

impl Two {
    async fn dial(&self) -> Result<(Connection, Connection), TransportError> {
        let dialled = self.here.dial(&address(2), self.there.own, Direction::Forward).await?;
        Ok((dialled, self.there.accept().await.expect("open")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_breaks_what_is_there_for_ever() {
    let two = two();
    let (mut dialled, mut taken) = two.dial().await.expect("up");
    let cut = async { two.network.cut(two.here.own, two.there.own) };
    let (read, ()) = tokio::join!(taken.io.read_u8(), cut);
    assert!(read.is_err());
    assert!(matches!(two.dial().await, Err(TransportError::Connect { .. })));
    two.network.heal(two.here.own, two.there.own);
    assert!(dialled.io.write_all(b"x").await.is_err());
    two.dial().await.expect("up again");
}

#[tokio::test(start_paused = true)]
async fn a_silent_line_holds_bytes_back() {
    let two = two();
    let (mut dialled, mut taken) = two.dial().await.expect("up");
    two.network.silence(two.here.own, two.there.own);
    dialled.io.write_all(b"x").await.expect("taken by the kernel");
    assert!(timeout(Duration::from_secs(60), taken.io.read_u8()).await.is_err());
    assert!(matches!(two.dial().await, Err(TransportError::TimedOut { .. })));
    let heal = async { two.network.heal(two.here.own, two.there.own) };
    let (read, ()) = tokio::join!(taken.io.read_u8(), heal);
    assert_eq!(read.expect("it arrives"), b'x');
}

#[tokio::test(start_paused = true)]
async fn a_block_has_one_direction() {
    let two = two();
    two.network.block(two.here.own, two.there.own);
    assert!(matches!(two.dial().await, Err(TransportError::Connect { .. })));
    two.there.dial(&address(1), two.here.own, Direction::Reverse).await.expect("the other way");
    two.network.unblock(two.here.own, two.there.own);
    two.dial().await.expect("up again");
}
