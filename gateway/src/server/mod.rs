//! The HTTP server: accepts connections, bounds them, and stops without cutting requests off.

mod activity;
mod body;
mod chunked;
mod connections;
mod error_page;
mod front;
mod head;
mod held;
mod limits;
mod operation;
mod pace;
mod places;
mod record;
mod refusal;
mod stall;
mod streams;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

pub use body::{BodyBounds, BodyStalled, ReplyBody, RequestBody};
pub use front::{Front, FrontConfig, Origin, Peer, X_AMZ_BUCKET_REGION};
pub use limits::HttpLimits;
pub use operation::{OperationClass, Target};
pub use record::{REQUEST_TARGET, describe};

use activity::Activity;
use connections::{Connections, Full, Ticket};
use head::HeadWatch;
use stall::WriteStall;
use streams::StreamExecutor;

/// The longest pause between attempts to accept while the process has no descriptors left.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// The first pause; each further one doubles.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
/// How long a connection that was told to go may take to say goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(5);
/// How often a connection looks for a place while all others are busy.
const ADMIT_PAUSE: Duration = Duration::from_millis(20);

type Builder = auto::Builder<StreamExecutor>;

/// Connections on one address.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    front: Arc<Front>,
    builder: Arc<Builder>,
}

impl Server {
    /// Binds `address`. Nothing is accepted before [`Server::run`].
    pub async fn bind(address: SocketAddr, tls: Option<TlsAcceptor>, front: Arc<Front>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let builder = Arc::new(builder(front.limits()));
        Ok(Server { listener, tls, front, builder })
    }

    /// The address that was bound; its port is a real one even where 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` resolves; then finishes what is in flight, for at most `grace`.
    ///
    /// Returns how many connections were cut off because they took longer.
    pub async fn run(self, stop: impl Future<Output = ()>, grace: Duration) -> usize {
        let Server { listener, tls, front, builder } = self;
        let places = Connections::new(front.limits());
        let connections = TaskTracker::new();
        let (stopping, told_to_stop) = watch::channel(false);
        let accept = async {
            loop {
                let (stream, peer) = accept(&listener).await;
                let Some(ticket) = admit(&places, peer).await else {
                    front.metrics().connections_refused.inc();
                    tracing::debug!(%peer, "refused a connection: its peer has its share of them, and all are busy");
                    continue;
                };
                let connection = Connection {
                    front: front.clone(),
                    builder: builder.clone(),
                    peer,
                    told_to_stop: told_to_stop.clone(),
                    ticket,
                };
                connections.spawn(connection.serve(stream, tls.clone()));
            }
        };
        tokio::select! {
            () = accept => {}
            () = stop => {}
        }
        front.health().stop();
        drop(listener);
        stopping.send_replace(true);
        connections.close();
        match tokio::time::timeout(grace, connections.wait()).await {
            Ok(()) => 0,
            Err(_elapsed) => connections.len(),
        }
    }
}

fn builder(limits: &HttpLimits) -> Builder {
    let mut builder = Builder::new(StreamExecutor::new(limits.write_stall_timeout));
    let mut http1 = builder.http1();
    http1
        .timer(TokioTimer::new())
        // It counts the pause between two requests, too: `HeadWatch` is what watches headers.
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(limits.header_bytes_max.max(HttpLimits::HEADER_BYTES_FLOOR));
    // hyper keeps up to 100 headers without allocating; any other number costs an allocation per request.
    if limits.headers_max != HttpLimits::default().headers_max {
        http1.max_headers(limits.headers_max);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.idle_timeout / 3)
        .keep_alive_timeout(limits.idle_timeout / 3);
    builder
}

/// The next connection. Errors of `accept` are those of single connections, or pass.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted");
            }
            // No descriptors or no memory: connections that end make room, so waiting helps and ending does not.
            Err(error) => {
                tracing::warn!(%error, pause_ms = pause.as_millis(), "connections cannot be accepted at the moment");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
}

/// A place for a connection, as soon as there is one; `None` if its peer has more than its share.
async fn admit(places: &Arc<Connections>, peer: SocketAddr) -> Option<Ticket> {
    loop {
        match places.admit(peer) {
            Ok(ticket) => return Some(ticket),
            Err(Full::Peer) => return None,
            // More wait in the kernel's queue.
            Err(Full::All) => tokio::time::sleep(ADMIT_PAUSE).await,
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// A connection that was accepted.
struct Connection {
    front: Arc<Front>,
    builder: Arc<Builder>,
    peer: SocketAddr,
    told_to_stop: watch::Receiver<bool>,
    ticket: Ticket,
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let (front, peer, evicted) = (self.front.clone(), self.peer, self.ticket.evicted.clone());
        front.metrics().connections.inc();
        tokio::select! {
            () = self.shake_hands(stream, tls) => {}
            () = evicted.notified() => {
                front.metrics().connections_evicted.inc();
                tracing::debug!(%peer, "ended a quiet connection to make place for another");
            }
        }
        front.metrics().connections.dec();
    }

    async fn shake_hands(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let front = self.front.clone();
        // Headers and body leave in two writes; Nagle would hold the second back for a delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let stream = WriteStall::new(stream, front.limits().write_stall_timeout, front.pace());
        match tls {
            None => self.drive(stream).await,
            Some(tls) => {
                let handshake = tokio::time::timeout(front.limits().tls_handshake_timeout, tls.accept(stream));
                match handshake.await {
                    Ok(Ok(stream)) => self.drive(stream).await,
                    Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "a TLS handshake failed"),
                    Err(_elapsed) => tracing::debug!(peer = %self.peer, "a TLS handshake took too long"),
                }
            }
        }
    }

    async fn drive(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        // The ticket is kept until the connection has ended.
        let Connection { front, builder, peer, mut told_to_stop, ticket } = self;
        let activity = ticket.activity.clone();
        let (idle_timeout, limits) = (front.limits().idle_timeout, front.limits());
        let stream = HeadWatch::new(stream, activity.clone(), limits.first_request_timeout, limits.header_read_timeout);
        let service = {
            let origin = Origin { peer, activity: activity.clone(), requests: ticket.requests.clone() };
            hyper::service::service_fn(move |request| front.clone().answer(request, origin.clone()))
        };
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            result = connection.as_mut() => Some(result),
            // An error means that the server itself is gone.
            _ = told_to_stop.wait_for(|stop| *stop) => None,
            () = activity.idle(idle_timeout) => None,
        };
        let result = match ended {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                finish(connection, &activity).await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%peer, error = &*error, "a connection broke");
        }
    }
}

/// Drives a connection that was told to end: for as long as it has requests, and a moment to say goodbye.
async fn finish<C, E>(connection: C, activity: &Activity) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    tokio::select! {
        result = connection => result,
        () = activity.idle(GOODBYE_MAX) => Ok(()),
    }
}
