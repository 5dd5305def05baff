//! A small S3 client that costs less than the servers it measures: one connection, no retries, unsigned payloads.

use std::fmt::Write as _;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;

/// What can go wrong.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What is said instead of a hash of the body.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Where a server is and how to sign for it.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`
    pub address: String,
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: String,
    /// The region to sign for.
    pub region: String,
}

impl Target {
    /// Reads an `http://host:port` endpoint and the keys of `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
    /// `AWS_DEFAULT_REGION`.
    pub fn from_environment(endpoint: &str) -> Result<Self, Error> {
        let uri: Uri = endpoint.parse()?;
        let address = uri.authority().ok_or("the endpoint has no host")?.to_string();
        let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
        Ok(Target {
            address,
            access_key: variable("AWS_ACCESS_KEY_ID")?,
            secret_key: variable("AWS_SECRET_ACCESS_KEY")?,
            region: variable("AWS_DEFAULT_REGION").unwrap_or_else(|_| "us-east-1".into()),
        })
    }
}

/// What a request carries.
pub type RequestBody = BoxBody<Bytes, io::Error>;

/// A body of one piece.
#[must_use]
pub fn whole(data: Bytes) -> RequestBody {
    Full::new(data).map_err(|never| match never {}).boxed()
}

/// A body of `first` and then `rest` as often as is needed for `length` bytes; nothing is kept in memory twice.
#[must_use]
pub fn repeated(first: Bytes, rest: Bytes, length: usize) -> RequestBody {
    let pieces = stream::unfold((Some(first), length), move |(first, left)| {
        let rest = rest.clone();
        async move {
            let piece = first.unwrap_or(rest);
            let piece = piece.slice(..piece.len().min(left));
            let left = left - piece.len();
            (!piece.is_empty()).then(|| (Ok::<_, io::Error>(Frame::data(piece)), (None, left)))
        }
    });
    StreamBody::new(pieces).boxed()
}

/// One kept-alive connection.
#[derive(Debug)]
pub struct Connection {
    target: Target,
    sender: SendRequest<RequestBody>,
    /// The day that `key` signs for.
    day: String,
    key: [u8; 32],
}

impl Connection {
    /// Connects.
    pub async fn open(target: &Target) -> Result<Self, Error> {
        let stream = TcpStream::connect(&target.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { target: target.clone(), sender, day: String::new(), key: [0; 32] })
    }

    /// Sends a request and returns the reply with its body unread. `path` and `query` are encoded already, the query's
    /// parameters in order.
    #[expect(clippy::disallowed_methods, reason = "signatures are for servers of the real world")]
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        query: &str,
        length: usize,
        body: RequestBody,
    ) -> Result<http::Response<Incoming>, Error> {
        let stamp = stamp(SystemTime::now());
        let authorization = self.authorization(&method, path, query, &stamp);
        let uri = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", &self.target.address)
            .header("x-amz-date", &stamp)
            .header("x-amz-content-sha256", UNSIGNED)
            .header("authorization", authorization)
            .header("content-length", length)
            .body(body)?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request, reads its reply and returns how many bytes that had; any status but 2xx is an error.
    pub async fn run(&mut self, method: Method, path: &str, query: &str, body: Bytes) -> Result<usize, Error> {
        let reply = self.send(method, path, query, body.len(), whole(body)).await?;
        read(reply, |_| ()).await
    }

    fn authorization(&mut self, method: &Method, path: &str, query: &str, stamp: &str) -> String {
        let Target { address, access_key, region, .. } = &self.target;
        let day = &stamp[..8];
        if self.day != day {
            let mut key = hmac(format!("AWS4{}", self.target.secret_key).as_bytes(), day);
            for step in [region.as_str(), "s3", "aws4_request"] {
                key = hmac(&key, step);
            }
            (self.day, self.key) = (day.to_owned(), key);
        }
        let names = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{address}\nx-amz-content-sha256:{UNSIGNED}\nx-amz-date:{stamp}\n\n{names}\n{UNSIGNED}"
        );
        let scope = format!("{day}/{region}/s3/aws4_request");
        let digest = hex(&Sha256::digest(canonical.as_bytes()));
        let signature = hex(&hmac(&self.key, &format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}")));
        format!("AWS4-HMAC-SHA256 Credential={access_key}/{scope},SignedHeaders={names},Signature={signature}")
    }
}

/// Reads a reply to its end, showing each piece, and returns its length; any status but 2xx is an error.
pub async fn read(reply: http::Response<Incoming>, mut show: impl FnMut(&Bytes)) -> Result<usize, Error> {
    let status = reply.status();
    let mut body = reply.into_body();
    let (mut length, mut message) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            length += data.len();
            if !status.is_success() {
                message.extend_from_slice(&data);
            }
            show(&data);
        }
    }
    if status.is_success() { Ok(length) } else { Err(failure(status, &message)) }
}

fn failure(status: StatusCode, message: &[u8]) -> Error {
    format!("{status}: {}", String::from_utf8_lossy(message)).into()
}

/// HMAC-SHA-256 (RFC 2104).
fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    let mut block = [0_u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let keyed = |pad: u8| Sha256::new_with_prefix(block.map(|byte| byte ^ pad));
    let inner = keyed(0x36).chain_update(text).finalize();
    keyed(0x5c).chain_update(inner).finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A time as SigV4 writes it: `20261120T100000Z`.
fn stamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The Gregorian date of a day since 1970, by eras of 400 years that begin on 1 March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn hmac_follows_rfc_4231() {
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&hmac(b"Jefe", "what do ya want for nothing?")), expected);
    }

    #[test]
    fn stamps_are_utc() {
        let at = |seconds| stamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(951_782_399), "20000228T235959Z");
        assert_eq!(at(951_782_400), "20000229T000000Z");
        assert_eq!(at(1_795_168_800), "20261120T100000Z");
    }
}
