//! Running connections: those on which we ask, and those on which we answer.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use ::http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use tokio::time::{Instant, sleep, timeout};

use super::Response;
use super::body::{Answering, Arriving, Body, empty_body};
use super::http::{self, Tasks};
use super::peer::Peer;
use crate::peer::transport::Connection;

/// The request that the links answer themselves.
const PING: &str = "/ping";

impl Peer {
    /// Makes a connection known on which we ask, until it ends.
    pub(super) async fn ask(self: &Arc<Self>, connection: Connection) {
        let remote = connection.remote.clone();
        let tasks = Tasks::new(self.life.over.child_token(), self.context.limits.take_timeout);
        // Whatever way this function ends, so do the connection's tasks.
        let _end = tasks.ended.clone().drop_guard();
        let (sender, running) = match http::ask(tasks, self.meter(connection)).await {
            Ok(asking) => asking,
            Err(error) => return self.note_error(&error),
        };
        let _listed = self.list(sender.clone(), &remote);
        tokio::select! {
            biased;
            ended = running => if let Err(error) = ended {
                self.note_error(&error);
            },
            () = self.measure(sender) => {}
            () = self.life.closing.cancelled() => {}
        }
    }

    /// Measures the round trip, again and again.
    async fn measure(&self, mut sender: SendRequest<Body>) {
        let interval = self.context.limits.ping_interval;
        loop {
            let began = Instant::now();
            let mut ping = Request::new(empty_body());
            *ping.uri_mut() = http::uri(&::http::Uri::from_static(PING));
            // Whether the connection is dead is for HTTP/2's own pings to say, which need no stream.
            if let Ok(Ok(_)) = timeout(interval, sender.send_request(ping)).await {
                self.note_round_trip(began.elapsed());
            }
            sleep(interval).await;
        }
    }

    /// Answers what is asked on a connection, until it ends.
    pub(super) async fn answer(self: &Arc<Self>, connection: Connection) {
        let tasks = Tasks::new(self.life.over.child_token(), self.context.limits.take_timeout);
        let _end = tasks.ended.clone().drop_guard();
        let service = service_fn(move |request| {
            let peer = self.clone();
            async move { Ok::<_, Infallible>(peer.respond(request).await) }
        });
        let mut running = pin!(http::answer(tasks, self.meter(connection), self.context.limits.calls_max, service));
        let ended = tokio::select! {
            biased;
            ended = running.as_mut() => ended,
            () = self.until_time() => {
                running.as_mut().graceful_shutdown();
                running.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(cluster = %self.cluster, %error, "a connection of a peer ended");
        }
    }

    /// Waits until connections have to end: the links are closed, or a stranger's time is over.
    async fn until_time(&self) {
        let outstayed = async {
            sleep(self.context.limits.stranger_lifetime).await;
            if self.is_known() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = self.life.closing.cancelled() => {}
            () = outstayed => {}
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response {
        if request.uri().path() == PING {
            let is_get = request.method() == Method::GET;
            let mut answer = Response::new(empty_body());
            *answer.status_mut() = if is_get { StatusCode::OK } else { StatusCode::METHOD_NOT_ALLOWED };
            return answer;
        }
        let request = request.map(|body| Arriving::boxed(body, &self.context.limits, ()));
        self.context.service.serve(self.cluster, request).await.map(Answering::boxed)
    }
}
