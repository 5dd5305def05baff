//! A cluster without good manners: `elton-stranger TOKEN` joins the cluster that made the invitation, asks what it is told
//! to and answers as it is told to. It speaks through the links of the real thing, so what it says arrives.
//!
//! One JSON object per line comes in on stdin, and one goes out for each:
//!
//! - `{"ask": PATH, "body": TEXT}` asks `/v1/PATH`. `"repeat": N` says the body N times; `"endless": true` never ends
//!   it; `"unread": true` leaves the answer's body lying, for as long as the process lives; `"times": N` asks so often at once.
//!   → `{"status": …, "bytes": …, "body": …}` (the first 64 KiB), or `{"error": …}`.
//! - `{"answer": MODE}` sets what the other cluster hears when it asks: `refuse`, `zeros` (as many as it likes), `dribble` (a byte a second), `short`,
//!   `nonsense`. → `{"asked": N}`, how often it has asked so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use federation::clock::SystemClock;
use federation::ids::SystemIds;
use federation::peer::{
    Body, Identity, Invitation, LinkLimits, LinkPeer, Links, Request, Response, Service, TlsTransport, full_body,
};
use federation::types::ClusterId;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How much of an answer is shown.
const SHOWN_BYTES: usize = 64 * 1024;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let token = std::env::args().nth(1).ok_or("usage: elton-stranger TOKEN")?;
    let invitation: Invitation = token.parse()?;
    let stranger = Stranger::start(&invitation);
    let secret: String = invitation.secret.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    let join = json!({"secret": secret, "name": "stranger", "address": null}).to_string();
    print(&stranger.ask("join", full_body(join), false).await);
    // The links live on the other threads.
    while let Some(line) = tokio::task::block_in_place(|| std::io::stdin().lines().next()) {
        print(&stranger.obey(&serde_json::from_str(&line?)?).await);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the answers are what the program is for")]
fn print(answer: &Value) {
    println!("{answer}");
}

struct Stranger {
    links: Arc<Links>,
    home: ClusterId,
    answers: Arc<Answers>,
    /// Answers that nobody reads.
    unread: Mutex<Vec<Response>>,
}

impl Stranger {
    fn start(invitation: &Invitation) -> Stranger {
        let answers = Arc::new(Answers::default());
        let transport = Arc::new(TlsTransport::dialling(&Identity::generate(&SystemIds)));
        let service = Arc::clone(&answers) as Arc<dyn Service>;
        let links = Links::start(transport, service, Arc::new(SystemClock), Arc::new(SystemIds), LinkLimits::default());
        let (cluster, address) = (invitation.cluster, Some(invitation.address.clone()));
        links.set_peers(vec![LinkPeer { cluster, address }]);
        Stranger { links, home: invitation.cluster, answers, unread: Mutex::default() }
    }

    async fn obey(&self, command: &Value) -> Value {
        if let Some(mode) = command["answer"].as_str() {
            *self.answers.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode.to_owned();
            return json!({"asked": self.answers.asked.load(Ordering::Relaxed)});
        }
        let path = command["ask"].as_str().unwrap_or_default();
        let times = command["times"].as_u64().unwrap_or(1);
        let unread = command["unread"].as_bool().unwrap_or(false);
        let all = (0..times).map(|_| self.ask(path, body_of(command), unread));
        let mut answers = futures_util::future::join_all(all).await;
        if times == 1 { answers.remove(0) } else { Value::Array(answers) }
    }

    async fn ask(&self, path: &str, body: Body, unread: bool) -> Value {
        let asked = tokio::time::timeout(PATIENCE, self.ask_to_end(path, body, unread)).await;
        asked.unwrap_or_else(|_| Err("no answer in time".into())).unwrap_or_else(|error| {
            let causes =
                std::iter::successors(error.source(), |cause| cause.source()).map(|cause| format!(": {cause}"));
            json!({"error": format!("{error}{}", causes.collect::<String>())})
        })
    }

    async fn ask_to_end(&self, path: &str, body: Body, unread: bool) -> Result<Value, Error> {
        let request: Request = http::Request::post(format!("/v1/{path}")).body(body)?;
        let response = self.links.call(self.home, request).await?;
        let status = response.status().as_u16();
        if unread {
            self.unread.lock().unwrap_or_else(PoisonError::into_inner).push(response);
            return Ok(json!({"status": status}));
        }
        let (mut count, mut shown) = (0, Vec::new());
        let mut frames = response.into_body().into_data_stream();
        while let Some(bytes) = frames.next().await {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => return Ok(json!({"status": status, "bytes": count, "error": error.to_string()})),
            };
            count += bytes.len();
            shown.extend_from_slice(&bytes[..bytes.len().min(SHOWN_BYTES - shown.len().min(SHOWN_BYTES))]);
        }
        Ok(json!({"status": status, "bytes": count, "body": String::from_utf8_lossy(&shown)}))
    }
}

/// What is said: once, often or for ever.
fn body_of(command: &Value) -> Body {
    let text = Bytes::from(command["body"].as_str().unwrap_or_default().to_owned());
    let again = stream::repeat(text.clone()).map(|bytes| Ok(Frame::data(bytes)));
    if command["endless"].as_bool() == Some(true) {
        return StreamBody::new(again).boxed_unsync();
    }
    match command["repeat"].as_u64() {
        Some(times) => StreamBody::new(again.take(usize::try_from(times).unwrap_or(usize::MAX))).boxed_unsync(),
        None => full_body(text),
    }
}

/// Answers what the other cluster asks.
#[derive(Default)]
struct Answers {
    mode: Mutex<String>,
    asked: AtomicU64,
}

#[async_trait]
impl Service for Answers {
    async fn serve(&self, _: ClusterId, _: Request) -> Response {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let zeros = || Bytes::from_static(&[0; 16 * 1024]);
        let body = match self.mode.lock().unwrap_or_else(PoisonError::into_inner).as_str() {
            "zeros" => StreamBody::new(stream::repeat_with(move || Ok(Frame::data(zeros())))).boxed_unsync(),
            // A byte a second, for ever.
            "dribble" => {
                let bytes = stream::unfold((), |()| async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Some((Ok(Frame::data(Bytes::from_static(&[0]))), ()))
                });
                StreamBody::new(bytes).boxed_unsync()
            }
            "short" => full_body(zeros().slice(..100)),
            "nonsense" => full_body("{]"),
            _ => {
                let mut response = Response::new(full_body(r#""no-such-shared-bucket""#));
                *response.status_mut() = http::StatusCode::CONFLICT;
                return response;
            }
        };
        Response::new(body)
    }
}
