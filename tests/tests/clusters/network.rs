//! [`Transport`] over turmoil's TCP: lines take a while, differently each time, and can be cut, held and broken.
//!
//! Nothing is proved here, TLS is not simulated: each side says which cluster it is, and the simulation vouches for it.
//! The rest of the handshake is as over TLS: the dialler says whom it expects, the listener whether it is that cluster and
//! admits the dialler.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use federation::peer::{Admission, Connection, Direction, Transport, TransportError};
use federation::types::{ClusterId, PeerAddress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use turmoil::net::{TcpListener, TcpStream};

/// How long a connection may take, and then the handshake.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that nobody has accepted yet.
const ACCEPTED_WAITING_MAX: usize = 16;

/// What the listener says of the dialler.
const WELCOME: u8 = b'+';
const REFUSED: u8 = b'-';
const NOT_ME: u8 = b'?';

/// What the dialler says: who asks, who it is, and whom it expects.
struct Hello {
    direction: Direction,
    own: ClusterId,
    expect: ClusterId,
}

impl Hello {
    const BYTES: usize = 65;

    fn to_bytes(&self) -> Vec<u8> {
        let direction = match self.direction {
            Direction::Forward => b'f',
            Direction::Reverse => b'r',
        };
        [&[direction][..], &self.own.0, &self.expect.0].concat()
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> io::Result<Hello> {
        let direction = match bytes[0] {
            b'f' => Direction::Forward,
            b'r' => Direction::Reverse,
            other => return Err(io::Error::other(format!("no direction is called {other}"))),
        };
        let id = |from: usize| ClusterId(bytes[from..from + 32].try_into().expect("32 bytes"));
        Ok(Hello { direction, own: id(1), expect: id(33) })
    }
}

/// A cluster's end of the simulated network.
#[derive(Debug)]
pub struct Lines {
    own: ClusterId,
    accepted: Mutex<mpsc::Receiver<Connection>>,
    closed: CancellationToken,
}

impl Lines {
    /// Takes connections of this host at `port` from whom `admission` says.
    pub fn listening(own: ClusterId, listener: TcpListener, admission: Admission) -> Lines {
        let (sender, accepted) = mpsc::channel(ACCEPTED_WAITING_MAX);
        let closed = CancellationToken::new();
        tokio::spawn(closed.clone().run_until_cancelled_owned(keep(own, listener, admission, sender)));
        Lines { own, accepted: Mutex::new(accepted), closed }
    }
}

/// Listens at a port of this host.
pub async fn listener(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

async fn keep(own: ClusterId, listener: TcpListener, admission: Admission, accepted: mpsc::Sender<Connection>) {
    while let Ok((stream, remote)) = listener.accept().await {
        let (admission, accepted) = (admission.clone(), accepted.clone());
        tokio::spawn(async move {
            // Who does not come to terms is hung up on.
            if let Ok(Ok(Some(connection))) = timeout(PATIENCE, answer(own, stream, remote, admission)).await {
                drop(accepted.send(connection).await);
            }
        });
    }
}

async fn answer(
    own: ClusterId,
    mut stream: TcpStream,
    remote: SocketAddr,
    admission: Admission,
) -> io::Result<Option<Connection>> {
    let mut said = [0; Hello::BYTES];
    stream.read_exact(&mut said).await?;
    let hello = Hello::from_bytes(&said)?;
    let verdict = match () {
        () if hello.expect != own => NOT_ME,
        () if !admission(hello.own) => REFUSED,
        () => WELCOME,
    };
    stream.write_all(&[&[verdict][..], &own.0].concat()).await?;
    let Hello { direction, own: peer, .. } = hello;
    let connection = Connection { io: Box::new(stream), peer, direction, remote: remote.to_string() };
    Ok((verdict == WELCOME).then_some(connection))
}

/// The listener's verdict and who it is.
async fn shake(stream: &mut TcpStream, hello: &Hello) -> io::Result<(u8, ClusterId)> {
    stream.write_all(&hello.to_bytes()).await?;
    let mut said = [0; 33];
    stream.read_exact(&mut said).await?;
    Ok((said[0], ClusterId(said[1..].try_into().expect("32 bytes"))))
}

#[async_trait]
impl Transport for Lines {
    async fn dial(
        &self,
        address: &PeerAddress,
        expect: ClusterId,
        direction: Direction,
    ) -> Result<Connection, TransportError> {
        let late = |step| TransportError::TimedOut { address: address.clone(), step, after: PATIENCE };
        let mut stream = timeout(PATIENCE, TcpStream::connect((address.host(), address.port())))
            .await
            .map_err(|_| late("take the connection"))?
            .map_err(|source| TransportError::Connect { address: address.clone(), source })?;
        let hello = Hello { direction, own: self.own, expect };
        let (verdict, found) = timeout(PATIENCE, shake(&mut stream, &hello))
            .await
            .map_err(|_| late("complete the handshake"))?
            .map_err(|source| TransportError::Handshake { address: address.clone(), source })?;
        match verdict {
            WELCOME => Ok(Connection { io: Box::new(stream), peer: expect, direction, remote: address.to_string() }),
            REFUSED => Err(TransportError::Refused { address: address.clone(), own: self.own }),
            _ => Err(TransportError::WrongKey { address: address.clone(), expected: expect, found }),
        }
    }

    async fn accept(&self) -> Option<Connection> {
        let mut accepted = self.accepted.lock().await;
        self.closed.run_until_cancelled(accepted.recv()).await.flatten()
    }

    fn close(&self) {
        self.closed.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, Ordering};

    use federation::peer::conformance::{Party, run};

    use super::*;

    #[test]
    fn lines_keep_what_every_transport_promises() {
        let mut sim = turmoil::Builder::new().simulation_duration(Duration::from_secs(600)).rng_seed(1).build();
        // All parties are on one host: the suite is one task, and a task runs on one.
        sim.client("cluster.example", async {
            let last_port = AtomicU16::new(9000);
            run(async |admission: Admission| {
                let port = last_port.fetch_add(1, Ordering::Relaxed) + 1;
                let cluster = ClusterId([u8::try_from(port % 256).expect("a byte"); 32]);
                let transport = Lines::listening(cluster, listener(port).await.expect("a free port"), admission);
                let address = format!("cluster.example:{port}").parse().expect("a lawful address");
                Party { transport: Arc::new(transport), cluster, address }
            })
            .await;
            Ok(())
        });
        sim.run().expect("the suite ends");
    }
}
