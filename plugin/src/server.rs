//! Answers dockerd on a Unix socket.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request as HttpRequest, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::error::VolumeError;
use crate::protocol::{Answer, CONTENT_TYPE, Call, Request};
use crate::volumes::Volumes;

/// Bytes that a request may have: names and options are small.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long calls may take to end after a signal to stop: as long as a mount may take.
const STOP_TIME_MAX: Duration = Duration::from_secs(65);
/// How long accepting rests after it failed, as where descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("a plugin answers at {path} already: stop it, or choose another --socket")]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// It could not be made.
    #[error("the socket {path} could not be made: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The socket that dockerd finds the plugin by.
pub struct Socket {
    listener: std::os::unix::net::UnixListener,
    /// What goes when the plugin does; nothing where the service manager made the socket.
    own: Option<PathBuf>,
}

impl Socket {
    /// One that the service manager listens on and handed over.
    #[must_use]
    pub fn handed_over(listener: std::os::unix::net::UnixListener) -> Self {
        Socket { listener, own: None }
    }

    /// Makes one for root alone. One that nobody answers any more is replaced, so that there is never a moment without.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        if UnixStream::connect(path).is_ok() {
            return Err(SocketError::Taken { path: path.to_owned() });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed)?;
        // dockerd takes what ends in `.sock` for plugins.
        let unfinished = path.with_extension("new");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(&unfinished).map_err(failed)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        fs::rename(&unfinished, path).map_err(failed)?;
        Ok(Socket { listener, own: Some(path.to_owned()) })
    }
}

/// Serves until `stop` is ready, and then until the calls have ended that had begun.
pub async fn serve(socket: Socket, volumes: Arc<Volumes>, stop: impl Future<Output = ()>) -> io::Result<()> {
    socket.listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(socket.listener)?;
    let (stopping, stopped) = tokio::sync::watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, volumes.clone(), stopped.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    if let Some(path) = socket.own {
        // A dead socket would cost dockerd 15 s for each name that it looks up.
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "the socket could not be removed");
        }
    }
    drop(listener);
    let _ = stopping.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIME_MAX, all).await.is_err() {
        tracing::warn!("calls that took too long were cut off");
    }
    Ok(())
}

async fn connection(
    stream: tokio::net::UnixStream,
    volumes: Arc<Volumes>,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    let service = service_fn(move |request| answer(request, volumes.clone()));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

async fn answer(request: HttpRequest<Incoming>, volumes: Arc<Volumes>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, answer) = match understand(request).await {
        Ok((call, request)) => {
            // In a task of its own: what was begun is ended and counted even if dockerd is killed meanwhile.
            let carried_out = tokio::spawn(async move { carry_out(call, &request, &volumes).await }).await;
            let answer = carried_out.unwrap_or_else(|_| Answer::failed("the plugin is stopping; try again"));
            (StatusCode::OK, answer)
        }
        Err((status, reason)) => (status, Answer::failed(&reason)),
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.to_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(CONTENT_TYPE));
    Ok(response)
}

async fn understand(request: HttpRequest<Incoming>) -> Result<(Call, Request), (StatusCode, String)> {
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    let bad = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, format!("{path}: {error}"));
    // Before anything is answered: who is still sending would find the connection closed, and no answer.
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await.map_err(|error| bad(&error))?;
    let call = Call::at(&path).ok_or_else(|| (StatusCode::NOT_FOUND, format!("there is no call {path}")))?;
    if method != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, format!("{path} is called by POST")));
    }
    let request = Request::parse(&body.to_bytes()).map_err(|error| bad(&error))?;
    Ok((call, request))
}

async fn carry_out(call: Call, request: &Request, volumes: &Volumes) -> Answer {
    tracing::debug!(?call, volume = request.name, id = request.id, "dockerd asks");
    let answer = try_to(call, request, volumes).await;
    answer.unwrap_or_else(|error| {
        if !matches!(error, VolumeError::NoSuchVolume) {
            tracing::warn!(?call, volume = request.name, id = request.id, %error, "refused");
        }
        Answer::failed(&error.to_string())
    })
}

async fn try_to(call: Call, request: &Request, volumes: &Volumes) -> Result<Answer, VolumeError> {
    let name = request.name.as_str();
    Ok(match call {
        Call::Activate => Answer::activate(),
        Call::Capabilities => Answer::capabilities(),
        Call::Get => Answer::volume(&volumes.get(name)?),
        Call::List => Answer::volumes(&volumes.list()),
        Call::Path => Answer::mountpoint(&volumes.path(name)?),
        Call::Mount => Answer::mountpoint(&volumes.mount(name, &request.id).await?),
        Call::Create => {
            let none = std::collections::BTreeMap::new();
            volumes.create(name, request.opts.as_ref().unwrap_or(&none)).await?;
            Answer::done()
        }
        Call::Unmount => {
            volumes.unmount(name, &request.id).await?;
            Answer::done()
        }
        Call::Remove => {
            volumes.remove(name).await?;
            Answer::done()
        }
    })
}
