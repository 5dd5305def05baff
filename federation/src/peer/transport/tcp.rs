//! [`Transport`] over TCP, secured by [`super::tls`].

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::tls::{Handshakes, KeyRefused, Listener};
use super::{Admission, Connection, Direction, Transport, TransportError};
use crate::peer::bounds::{Place, Places, Quiet};
use crate::peer::who::Identity;
use crate::types::{ClusterId, PeerAddress};

/// How long a name and a TCP connection may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a handshake may take, on either side.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that are ready and that nobody has accepted yet.
const ACCEPTED_WAITING_MAX: usize = 16;

/// How long to wait after the kernel could not hand out a connection, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// When TCP asks whether a silent other end is still there, how often, and how many times. HTTP/2 pings are quicker;
/// these find ends that died before they spoke it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// How much strangers and peers may have open at once.
#[derive(Debug, Clone)]
pub struct TransportLimits {
    /// Handshakes under way.
    pub handshakes_max: usize,
    /// Handshakes under way from one network address, so that one host cannot take all.
    pub handshakes_per_host_max: usize,
    /// Connections that were made to us.
    pub connections_max: usize,
    /// Connections that one peer made to us: one for each direction, and as many again while it reconnects.
    pub connections_per_peer_max: usize,
}

impl Default for TransportLimits {
    fn default() -> Self {
        TransportLimits {
            handshakes_max: 64,
            handshakes_per_host_max: 16,
            connections_max: 1024,
            connections_per_peer_max: 8,
        }
    }
}

/// Connections over TCP and TLS.
pub struct TlsTransport {
    handshakes: Handshakes,
    accepted: Mutex<mpsc::Receiver<Connection>>,
    closed: CancellationToken,
}

impl TlsTransport {
    /// A transport that dials and cannot be dialled.
    #[must_use]
    pub fn dialling(identity: &Identity) -> Self {
        let (_, accepted) = mpsc::channel(1);
        let handshakes = Handshakes::new(identity);
        TlsTransport { handshakes, accepted: Mutex::new(accepted), closed: CancellationToken::new() }
    }

    /// A transport that can be dialled through `listener` by whom `admission` says. Starts a task on the current
    /// runtime, which ends with [`close`](Transport::close) or when the transport is dropped.
    #[must_use]
    pub fn listening(
        identity: &Identity,
        listener: TcpListener,
        admission: Admission,
        limits: &TransportLimits,
    ) -> Self {
        let handshakes = Handshakes::new(identity);
        let (sender, accepted) = mpsc::channel(ACCEPTED_WAITING_MAX);
        let closed = CancellationToken::new();
        let door = Arc::new(Door {
            listener: handshakes.listener(admission),
            handshakes: Places::new(limits.handshakes_max, limits.handshakes_per_host_max),
            connections: Places::new(limits.connections_max, limits.connections_per_peer_max),
            refusals: Quiet::default(),
            accepted: sender,
            closed: closed.clone(),
        });
        tokio::spawn(closed.clone().run_until_cancelled_owned(door.keep(listener)));
        TlsTransport { handshakes, accepted: Mutex::new(accepted), closed }
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").field("handshakes", &self.handshakes).finish_non_exhaustive()
    }
}

impl Drop for TlsTransport {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

#[async_trait]
impl Transport for TlsTransport {
    async fn dial(
        &self,
        address: &PeerAddress,
        expect: ClusterId,
        direction: Direction,
    ) -> Result<Connection, TransportError> {
        let late = |step, after| TransportError::TimedOut { address: address.clone(), step, after };
        let stream = timeout(CONNECT_TIMEOUT, connect(address))
            .await
            .map_err(|_| late("take the connection", CONNECT_TIMEOUT))?
            .map_err(|source| TransportError::Connect { address: address.clone(), source })?;
        let remote = remote(&stream, address);
        let secured = timeout(HANDSHAKE_TIMEOUT, self.handshakes.connect(stream, address, expect, direction))
            .await
            .map_err(|_| late("complete the handshake", HANDSHAKE_TIMEOUT))??;
        Ok(Connection { io: Box::new(secured), peer: expect, direction, remote })
    }

    async fn accept(&self) -> Option<Connection> {
        let mut accepted = self.accepted.lock().await;
        self.closed.run_until_cancelled(accepted.recv()).await.flatten()
    }

    fn close(&self) {
        self.closed.cancel();
    }
}

fn remote(stream: &TcpStream, dialled: &PeerAddress) -> String {
    stream.peer_addr().map_or_else(|_| dialled.to_string(), |address| address.to_string())
}

/// Tries every address that the name has; each gets a fair share of the time, for one of them may lead nowhere.
async fn connect(address: &PeerAddress) -> io::Result<TcpStream> {
    let found: Vec<SocketAddr> = lookup_host((address.host(), address.port())).await?.collect();
    let share = CONNECT_TIMEOUT / u32::try_from(found.len().max(1)).unwrap_or(u32::MAX);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in found {
        match timeout(share, TcpStream::connect(candidate)).await {
            Ok(Ok(stream)) => {
                prepare(&stream)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{candidate} did not answer")),
        }
    }
    Err(last)
}

/// Small messages leave at once; an end that vanished is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
    Ok(())
}

/// Where connections come in.
struct Door {
    listener: Listener,
    handshakes: Arc<Places<IpAddr>>,
    connections: Arc<Places<ClusterId>>,
    refusals: Quiet,
    accepted: mpsc::Sender<Connection>,
    closed: CancellationToken,
}

impl Door {
    async fn keep(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => self.clone().answer(stream, remote),
                Err(error) => {
                    self.refuse(None, "the kernel handed out no connection", &error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Shakes hands in a task of its own: the slow keep nobody waiting.
    fn answer(self: Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        let Some(place) = self.handshakes.take(remote.ip()) else {
            return self.refuse(Some(remote), "too many handshakes are under way", &"limit reached");
        };
        let closed = self.closed.clone();
        tokio::spawn(closed.run_until_cancelled_owned(async move {
            let shaken = timeout(HANDSHAKE_TIMEOUT, self.shake(stream, remote)).await;
            drop(place);
            match shaken {
                // An error here means that nobody will accept any more: the connection closes, as it should.
                Ok(Ok(connection)) => drop(self.accepted.send(connection).await),
                Ok(Err(error)) => match KeyRefused::of(&error) {
                    Some(refused) => self.refuse(Some(remote), "a cluster was refused", refused),
                    None => self.refuse(Some(remote), "a handshake failed", &error),
                },
                Err(late) => self.refuse(Some(remote), "a handshake took too long", &late),
            }
        }));
    }

    async fn shake(&self, stream: TcpStream, remote: SocketAddr) -> io::Result<Connection> {
        prepare(&stream)?;
        let arrival = self.listener.accept(stream).await?;
        let (peer, direction) = (arrival.peer, arrival.direction);
        let place = self
            .connections
            .take(peer)
            .ok_or_else(|| io::Error::other(format!("cluster {peer} has too many connections open")))?;
        let io = Held { io: arrival.welcome().await?, _place: place };
        Ok(Connection { io: Box::new(io), peer, direction, remote: remote.to_string() })
    }

    fn refuse(&self, remote: Option<SocketAddr>, what: &'static str, error: &dyn fmt::Display) {
        if let Some(suppressed) = self.refusals.pass() {
            let remote = remote.map(tracing::field::display);
            tracing::warn!(remote, what, %error, suppressed, "peer connection refused");
        }
    }
}

/// A stream that has a place among the connections.
struct Held<S> {
    io: S,
    _place: Place<ClusterId>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
