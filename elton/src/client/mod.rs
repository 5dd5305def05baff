//! Calls a server's admin API: finds it, signs, sends, and says in words what went wrong.

mod endpoint;
mod http;
mod keys;
mod sign;
mod trust;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::http::{Method, StatusCode};
use gateway::admin::shape::{self, Failure};
use gateway::server::X_AMZ_BUCKET_REGION;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::ClientArgs;
use crate::data_dir::DataDir;

pub use endpoint::Endpoint;
pub use http::Reply;
use http::{Exchanged, Sender};
use keys::Keys;
use sign::Signer;

/// How long a server may take to begin an ordinary answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// The region that is signed for until the server names another.
const REGION: &str = "us-east-1";

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The endpoint is no URL of a server.
    #[error("{given} is no endpoint: {reason}; an endpoint is a URL such as http://127.0.0.1:9000")]
    Endpoint {
        /// What was given.
        given: String,
        /// Why it is none.
        reason: String,
    },
    /// Nothing answers.
    #[error(
        "no server answers at {endpoint} ({source}): start one with `elton serve` or name it with --endpoint or \
         ELTON_ENDPOINT"
    )]
    NoServer {
        /// Where.
        endpoint: Endpoint,
        /// How that was seen.
        source: std::io::Error,
    },
    /// The server's certificate is not trusted.
    #[error(
        "the server at {endpoint} shows a certificate that is not trusted ({source}): name the one to trust with \
         --ca-cert, or the server's data directory with --data{}",
        if source.to_string().contains("not valid for name") {
            "; for another name or address the server has to be started with --tls-name"
        } else {
            ""
        }
    )]
    Untrusted {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate to trust cannot be read.
    #[error("{path} cannot be used as the certificate to trust: {reason}")]
    CaCertificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There are no keys.
    #[error(
        "no keys: set ELTON_ACCESS_KEY and ELTON_SECRET_KEY, or name the server's data directory with --data \
         ({credentials} is not there)"
    )]
    NoKeys {
        /// Where they were looked for last.
        credentials: PathBuf,
    },
    /// The keys that are there are no use.
    #[error("the keys from {origin} cannot be used: {reason}")]
    Keys {
        /// Where they come from.
        origin: String,
        /// Why.
        reason: String,
    },
    /// The server does not know the keys.
    #[error("the server at {endpoint} does not accept the keys from {origin}: {message}")]
    Denied {
        /// Where.
        endpoint: Endpoint,
        /// Where the keys come from.
        origin: String,
        /// What it said.
        message: String,
    },
    /// The server refused.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The connection broke.
    #[error(
        "the connection to {endpoint} broke ({reason}): the server's log may say why{}",
        if endpoint.is_https() { "" } else { "; if it serves TLS, the endpoint begins with https://" }
    )]
    Broken {
        /// Where.
        endpoint: Endpoint,
        /// How.
        reason: String,
    },
    /// The server took too long.
    #[error("the server at {endpoint} did not answer within {} seconds; its log may say why", .after.as_secs())]
    TooSlow {
        /// Where.
        endpoint: Endpoint,
        /// How long it was waited for.
        after: Duration,
    },
    /// What answers does not speak this API.
    #[error("what answers at {endpoint} is not an Elton server of this version ({reason}); look at --endpoint")]
    NotElton {
        /// Where.
        endpoint: Endpoint,
        /// How that was seen.
        reason: String,
    },
    /// The data directory could not be opened.
    #[error("{0}")]
    Offline(String),
}

impl ClientError {
    /// Whether the way the command was called is to blame.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, ClientError::Endpoint { .. })
    }
}

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// For a minute.
    Ordinary,
    /// For as long as it takes: the server works.
    Endless,
}

/// A server, and the keys to call it with.
pub struct Client {
    sender: Sender,
    keys: Keys,
    /// The region that the server was found to have.
    region: Mutex<String>,
}

/// All of an answer.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Vec<u8>,
    /// What is wrong, if it does not say that all went well.
    pub error: Option<ClientError>,
}

impl Client {
    /// Finds server and keys; nothing is sent yet.
    pub fn new(arguments: &ClientArgs) -> Result<Self, ClientError> {
        let endpoint = Endpoint::parse(arguments.endpoint.as_deref().unwrap_or(endpoint::DEFAULT))?;
        let data = DataDir::new(arguments.data.as_deref());
        let keys = keys::find(&data, |name| std::env::var(name).ok())?;
        let tls = if endpoint.is_https() { Some(trust::connector(arguments.ca_cert.as_deref(), &data)?) } else { None };
        Ok(Client { sender: Sender::new(endpoint, tls), keys, region: Mutex::new(REGION.to_owned()) })
    }

    /// Reads something.
    pub async fn get<T: DeserializeOwned>(&self, path: &Path, patience: Patience) -> Result<T, ClientError> {
        self.parse(self.send(Method::GET, path, Vec::new(), patience).await?).await
    }

    /// Asks for something to be done.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &Path,
        body: &impl Serialize,
        patience: Patience,
    ) -> Result<T, ClientError> {
        self.parse(self.send(method, path, to_json(body), patience).await?).await
    }

    /// Asks for something to be removed.
    pub async fn delete(&self, path: &Path) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, Vec::new(), Patience::Ordinary).await.map(drop)
    }

    /// Asks for something that is answered line by line.
    pub async fn lines(&self, path: &Path, body: &impl Serialize) -> Result<Reply, ClientError> {
        self.send(Method::POST, path, to_json(body), Patience::Endless).await
    }

    /// Sends a request over a connection that stays. Returns all of the answer, whatever it says.
    pub async fn exchange(&self, method: Method, path: &Path, body: Vec<u8>) -> Result<Answer, ClientError> {
        let known = self.region.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut exchanged = self.exchange_for(&known, &method, path, body.clone()).await?;
        if let Some(region) = other_region(exchanged.status, exchanged.region.take(), &known) {
            exchanged = self.exchange_for(&region, &method, path, body).await?;
            *self.region.lock().unwrap_or_else(PoisonError::into_inner) = region;
        }
        let Exchanged { status, body, .. } = exchanged;
        let error = if status.is_success() { None } else { Some(self.refused(status, &body)) };
        Ok(Answer { status, body, error })
    }

    async fn exchange_for(
        &self,
        region: &str,
        method: &Method,
        path: &Path,
        body: Vec<u8>,
    ) -> Result<Exchanged, ClientError> {
        let signer = Signer { keys: &self.keys.credentials, region, time: jiff::Timestamp::now() };
        let request = signer.request(method, &self.sender.endpoint().authority(), path, body);
        self.sender.exchange(request).await
    }

    async fn send(&self, method: Method, path: &Path, body: Vec<u8>, patience: Patience) -> Result<Reply, ClientError> {
        let mut reply = self.send_for(REGION, &method, path, body.clone(), patience).await?;
        if let Some(region) = other_region(reply.status(), reply.header(&X_AMZ_BUCKET_REGION), REGION) {
            reply = self.send_for(&region, &method, path, body, patience).await?;
            *self.region.lock().unwrap_or_else(PoisonError::into_inner) = region;
        }
        if reply.status().is_success() { Ok(reply) } else { Err(self.refusal(reply).await) }
    }

    async fn send_for(
        &self,
        region: &str,
        method: &Method,
        path: &Path,
        body: Vec<u8>,
        patience: Patience,
    ) -> Result<Reply, ClientError> {
        let signer = Signer { keys: &self.keys.credentials, region, time: jiff::Timestamp::now() };
        let host = self.sender.endpoint().authority();
        let request = signer.request(method, &host, path, body);
        match patience {
            Patience::Endless => self.sender.send(request).await,
            Patience::Ordinary => {
                let sent = tokio::time::timeout(ANSWER_TIME_MAX, self.sender.send(request)).await;
                let too_slow = || ClientError::TooSlow { endpoint: self.endpoint(), after: ANSWER_TIME_MAX };
                sent.map_err(|_elapsed| too_slow())?
            }
        }
    }

    async fn parse<T: DeserializeOwned>(&self, reply: Reply) -> Result<T, ClientError> {
        let body = reply.whole().await?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::NotElton { endpoint: self.endpoint(), reason: error.to_string() })
    }

    async fn refusal(&self, reply: Reply) -> ClientError {
        let status = reply.status();
        match reply.whole().await {
            Ok(body) => self.refused(status, &body),
            Err(error) => error,
        }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        if let Ok(failure) = serde_json::from_slice::<Failure>(body) {
            return ClientError::Refused(failure);
        }
        // Before the admin API is reached, the S3 service refuses in its own words.
        let text = String::from_utf8_lossy(body);
        match (element(&text, "Code"), element(&text, "Message")) {
            (Some(code), message) => {
                let message = message.unwrap_or(code).to_owned();
                if status == StatusCode::FORBIDDEN {
                    let message = format!("{message} ({code})");
                    ClientError::Denied { endpoint: self.endpoint(), origin: self.keys.origin.clone(), message }
                } else {
                    ClientError::Refused(Failure { code: code.to_owned(), message })
                }
            }
            (None, _) => ClientError::NotElton { endpoint: self.endpoint(), reason: format!("it answered {status}") },
        }
    }

    /// The server.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.sender.endpoint().clone()
    }
}

/// A server with a region of its own names it when it refuses a request that was signed for another.
fn other_region(status: StatusCode, named: Option<String>, signed: &str) -> Option<String> {
    let refused = matches!(status, StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN);
    named.filter(|region| refused && region != signed)
}

fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("shapes have string keys and no failing serialisers")
}

/// The text of an element of an S3 error document.
fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

/// A path of the API with its parameters, not yet encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    path: String,
    query: Vec<(&'static str, String)>,
}

impl Path {
    /// The path of these segments below the API's prefix.
    #[must_use]
    pub fn new(segments: &[&str]) -> Self {
        let mut path = shape::PREFIX.to_owned();
        for segment in segments {
            path.push('/');
            path.push_str(segment);
        }
        Path { path, query: Vec::new() }
    }

    /// With a parameter.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// With a parameter, if there is a value.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_error_documents_are_understood() {
        let text = "<?xml?><Error><Code>SignatureDoesNotMatch</Code><Message>It does not.</Message></Error>";
        assert_eq!(element(text, "Code"), Some("SignatureDoesNotMatch"));
        assert_eq!(element(text, "Message"), Some("It does not."));
        assert_eq!(element(text, "Resource"), None);
    }
}
