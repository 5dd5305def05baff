//! Requests over connections. Commands make few, each over one of its own; mounts make many, over connections that stay.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gateway::server::X_AMZ_BUCKET_REGION;
use http::{HeaderName, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{ClientError, Endpoint};

/// How long a connection may take to be made.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer that are kept.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Connections that are kept for the next requests.
const IDLE_MAX: usize = 16;

/// Sends requests to one server.
pub struct Sender {
    endpoint: Endpoint,
    tls: Option<TlsConnector>,
    idle: Mutex<Vec<Exchange>>,
}

/// A connection that requests can be sent over.
type Exchange = http1::SendRequest<Full<Bytes>>;

/// All of an answer, as it came.
pub struct Exchanged {
    /// Its status.
    pub status: StatusCode,
    /// The region that the server says it has.
    pub region: Option<String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Sender {
    /// Sends to `endpoint`.
    #[must_use]
    pub fn new(endpoint: Endpoint, tls: Option<TlsConnector>) -> Self {
        Sender { endpoint, tls, idle: Mutex::default() }
    }

    /// Where to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a request over a connection of its own and returns when the answer begins.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Reply, ClientError> {
        let mut exchange = self.open().await?;
        self.begin(&mut exchange, request).await
    }

    /// Sends a request over a connection that stays, and returns all of the answer.
    pub async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Exchanged, ClientError> {
        while let Some(mut exchange) = self.take_idle() {
            // The server may have closed it meanwhile, which shows when it is used: then the next one is as good.
            if exchange.ready().await.is_ok()
                && let Ok(reply) = self.begin(&mut exchange, request.clone()).await
            {
                return self.finish(exchange, reply).await;
            }
        }
        let mut exchange = self.open().await?;
        let reply = self.begin(&mut exchange, request).await?;
        self.finish(exchange, reply).await
    }

    fn take_idle(&self) -> Option<Exchange> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn finish(&self, exchange: Exchange, reply: Reply) -> Result<Exchanged, ClientError> {
        let (status, region) = (reply.status(), reply.header(&X_AMZ_BUCKET_REGION));
        let body = reply.whole().await?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(exchange);
        }
        Ok(Exchanged { status, region, body })
    }

    async fn open(&self) -> Result<Exchange, ClientError> {
        let stream = self.connect().await.map_err(|source| self.no_server(source))?;
        match &self.tls {
            None => self.handshake(stream).await,
            Some(tls) => {
                let untrusted = |source| ClientError::Untrusted { endpoint: self.endpoint.clone(), source };
                let name = ServerName::try_from(self.endpoint.host().to_owned());
                let name = name.map_err(|error| untrusted(io::Error::other(error)))?;
                let stream = tls.connect(name, stream).await.map_err(untrusted)?;
                self.handshake(stream).await
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let connecting = TcpStream::connect((self.endpoint.host(), self.endpoint.port()));
        let stream = tokio::time::timeout(CONNECT_TIME_MAX, connecting)
            .await
            .map_err(|_elapsed| io::Error::new(io::ErrorKind::TimedOut, "no connection within 10 seconds"))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn no_server(&self, source: io::Error) -> ClientError {
        ClientError::NoServer { endpoint: self.endpoint.clone(), source }
    }

    async fn handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Exchange, ClientError> {
        let (exchange, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&self.endpoint, &error))?;
        // What goes wrong with the connection is seen by the request, too.
        tokio::spawn(async move { connection.await.ok() });
        Ok(exchange)
    }

    async fn begin(&self, exchange: &mut Exchange, request: Request<Full<Bytes>>) -> Result<Reply, ClientError> {
        let response = exchange.send_request(request).await.map_err(|error| broken(&self.endpoint, &error))?;
        Ok(Reply { endpoint: self.endpoint.clone(), response, line: Vec::new() })
    }
}

fn broken(endpoint: &Endpoint, error: &hyper::Error) -> ClientError {
    ClientError::Broken { endpoint: endpoint.clone(), reason: gateway::server::describe(error) }
}

/// An answer that has begun.
#[derive(Debug)]
pub struct Reply {
    endpoint: Endpoint,
    response: http::Response<Incoming>,
    line: Vec<u8>,
}

impl Reply {
    /// The answer's status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<String> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }

    /// All of the answer.
    pub async fn whole(mut self) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(bytes) = self.next().await? {
            body.extend_from_slice(&bytes);
            if body.len() > ANSWER_BYTES_MAX {
                let reason = "its answer is longer than any of an Elton server".to_owned();
                return Err(ClientError::NotElton { endpoint: self.endpoint, reason });
            }
        }
        Ok(body)
    }

    /// The next line of an answer that comes line by line, without its end; none at the end.
    pub async fn next_line(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let rest = self.line.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.line, rest);
                line.pop();
                return Ok(Some(line));
            }
            match self.next().await? {
                Some(bytes) => self.line.extend_from_slice(&bytes),
                None if self.line.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.line))),
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.response.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&self.endpoint, &error)),
                // What is no data are trailers, which this API does not have.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}
