//! A WAN between clusters in one process: every chunk takes a while, differently each time, and lines can be cut.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use federation::peer::{Connection, Direction, MemoryTransport, Transport, TransportError};
use federation::types::{ClusterId, PeerAddress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, duplex, split};

/// How much is on its way at once.
const LINE_BYTES: usize = 256 * 1024;
const CHUNK_BYTES: usize = 32 * 1024;

/// Where delays come from.
pub type Random = Arc<Mutex<Box<dyn FnMut() -> u64 + Send>>>;

/// A transport whose lines are long.
#[derive(Debug)]
pub struct LongLines {
    inner: MemoryTransport,
    random: RandomHandle,
    delay_max: Duration,
    power: Power,
}

/// Whether a cluster still runs: what one without power has to say nobody hears.
#[derive(Clone, Debug)]
pub struct Power(Arc<AtomicBool>);

impl Power {
    /// It runs.
    pub fn on() -> Self {
        Power(Arc::new(AtomicBool::new(true)))
    }

    /// It runs no more.
    pub fn off(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

struct RandomHandle(Random);

impl std::fmt::Debug for RandomHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

impl LongLines {
    /// Puts up to `delay_max` before each chunk of what `inner` carries.
    pub fn new(inner: MemoryTransport, random: Random, delay_max: Duration, power: Power) -> Self {
        LongLines { inner, random: RandomHandle(random), delay_max, power }
    }

    fn lengthen(&self, connection: Connection) -> Connection {
        let Connection { io, peer, direction, remote } = connection;
        let (near, far) = duplex(LINE_BYTES);
        let (from_wire, to_wire) = split(io);
        let (from_near, to_near) = split(far);
        let line = || (Arc::clone(&self.random.0), self.delay_max, self.power.clone());
        tokio::spawn(carry(from_wire, to_near, line()));
        tokio::spawn(carry(from_near, to_wire, line()));
        Connection { io: Box::new(near), peer, direction, remote }
    }
}

async fn carry<A, B>(mut from: ReadHalf<A>, mut to: WriteHalf<B>, (random, delay_max, power): (Random, Duration, Power))
where
    ReadHalf<A>: tokio::io::AsyncRead + Unpin,
    WriteHalf<B>: tokio::io::AsyncWrite + Unpin,
{
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let part = (random.lock().expect("nobody panics with it"))() % 1000;
        tokio::time::sleep(delay_max * u32::try_from(part).unwrap_or(0) / 1000).await;
        if !power.is_on() || to.write_all(&chunk[..length]).await.is_err() {
            break;
        }
    }
    // The other side may have gone before.
    let _ = to.shutdown().await;
}

#[async_trait]
impl Transport for LongLines {
    async fn dial(
        &self,
        address: &PeerAddress,
        expect: ClusterId,
        direction: Direction,
    ) -> Result<Connection, TransportError> {
        if !self.power.is_on() {
            let source = std::io::ErrorKind::ConnectionRefused.into();
            return Err(TransportError::Connect { address: address.clone(), source });
        }
        self.inner.dial(address, expect, direction).await.map(|connection| self.lengthen(connection))
    }

    async fn accept(&self) -> Option<Connection> {
        self.inner.accept().await.map(|connection| self.lengthen(connection))
    }

    fn close(&self) {
        self.inner.close();
    }
}
