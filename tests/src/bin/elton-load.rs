//! Measures an S3 server: `elton-load OPERATION ENDPOINT BUCKET [OPTION=NUMBER]…` prints one line of JSON.
//!
//! - `put`, `get`: `connections` (32) at once for `seconds` (5), bodies of `size` (4096) bytes; `get` reads the `count`
//!   (1000) objects that `fill` wrote. Every body is another, so that no server can keep two as one.
//! - `fill`: writes `count` objects for `get`.
//! - `list`: reads all pages of the bucket once.
//! - `transfers`: `count` (256) bodies of `size` (64 MiB) at once, up and down again.
//! - `md5`: how fast one core hashes; needs no server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Method;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};
use tests::s3_client::{Connection, Error, Target, read, repeated};

const MIB: usize = 1 << 20;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [operation, rest @ ..] = arguments.as_slice() else { return Err("usage: elton-load OPERATION …".into()) };
    let mut options = Options::default();
    let mut place = Vec::new();
    for argument in rest {
        match argument.split_once('=') {
            Some((name, value)) => options.set(name, value.parse()?)?,
            None => place.push(argument.as_str()),
        }
    }
    // One thread: the server needs the others.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = match (operation.as_str(), place.as_slice()) {
        ("md5", []) => md5_speed(),
        (operation, [endpoint, bucket]) => {
            let load = Load { target: Target::from_environment(endpoint)?, bucket: (*bucket).to_owned(), options };
            runtime.block_on(load.run(operation))?
        }
        _ => return Err("usage: elton-load OPERATION ENDPOINT BUCKET [OPTION=NUMBER]…".into()),
    };
    show(&result);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the line is what the program is for")]
fn show(result: &Value) {
    println!("{result}");
}

#[derive(Clone, Copy, Default)]
struct Options {
    size: Option<usize>,
    count: Option<u64>,
    connections: Option<u64>,
    seconds: Option<u64>,
}

impl Options {
    fn set(&mut self, name: &str, value: u64) -> Result<(), Error> {
        match name {
            "size" => self.size = Some(usize::try_from(value)?),
            "count" => self.count = Some(value),
            "connections" => self.connections = Some(value),
            "seconds" => self.seconds = Some(value),
            _ => return Err(format!("no option {name}").into()),
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Load {
    target: Target,
    bucket: String,
    options: Options,
}

impl Load {
    async fn run(&self, operation: &str) -> Result<Value, Error> {
        let size = self.options.size.unwrap_or(4096);
        match operation {
            "put" => self.timed(operation, |load, n| format!("/{}/put-{n:09}", load.bucket), Some(size)).await,
            "get" => {
                let count = self.options.count.unwrap_or(1000);
                // A stride that is prime to most counts: neighbours in time are none on the disk.
                let path = move |load: &Load, n: u64| format!("/{}/get-{:09}", load.bucket, n * 7919 % count);
                self.timed(operation, path, None).await
            }
            "fill" => self.fill(size).await,
            "list" => self.list().await,
            "transfers" => self.transfers().await,
            _ => Err(format!("no operation {operation}").into()),
        }
    }

    /// `connections` clients that send one request after the other until the time is over. `size`: of the bodies that
    /// are put; without one they are read.
    async fn timed(
        &self,
        operation: &str,
        path: impl Fn(&Load, u64) -> String + Clone + Send + 'static,
        size: Option<usize>,
    ) -> Result<Value, Error> {
        let connections = self.options.connections.unwrap_or(32);
        let length = Duration::from_secs(self.options.seconds.unwrap_or(5));
        let next = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let clients = (0..connections).map(|_| {
            let (load, path, next) = (self.clone(), path.clone(), next.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(&load.target).await?;
                let mut bodies = size.map(Bodies::new);
                let (mut times, mut bytes) = (Vec::new(), 0);
                while began.elapsed() < length {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let body = bodies.as_mut().map_or_else(Bytes::new, |bodies| bodies.next(number));
                    let method = if size.is_some() { Method::PUT } else { Method::GET };
                    let sent = Instant::now();
                    bytes += body.len();
                    bytes += connection.run(method, &path(&load, number), "", body).await?;
                    times.push(sent.elapsed());
                }
                Ok::<_, Error>((times, bytes))
            })
        });
        let (mut times, mut bytes) = (Vec::new(), 0);
        for client in clients.collect::<Vec<_>>() {
            let (own_times, own_bytes) = client.await??;
            times.extend(own_times);
            bytes += own_bytes;
        }
        let seconds = began.elapsed().as_secs_f64();
        times.sort_unstable();
        let percentile = |share: usize| times.get(times.len() * share / 100).map(|time| time.as_secs_f64() * 1e3);
        Ok(json!({
            "operation": operation,
            "size": size.unwrap_or(bytes / times.len().max(1)),
            "connections": connections,
            "requests": times.len(),
            "per_second": rounded(times.len() as f64 / seconds),
            "mib_per_second": rounded(bytes as f64 / MIB as f64 / seconds),
            "p50_ms": percentile(50).map(rounded),
            "p99_ms": percentile(99).map(rounded),
        }))
    }

    async fn fill(&self, size: usize) -> Result<Value, Error> {
        let count = self.options.count.unwrap_or(1000);
        let next = Arc::new(AtomicU64::new(0));
        let clients = (0..self.options.connections.unwrap_or(32)).map(|_| {
            let (load, next) = (self.clone(), next.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(&load.target).await?;
                let mut bodies = Bodies::new(size);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok::<_, Error>(());
                    }
                    let path = format!("/{}/get-{number:09}", load.bucket);
                    connection.run(Method::PUT, &path, "", bodies.next(number)).await?;
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await??;
        }
        Ok(json!({ "operation": "fill", "size": size, "count": count }))
    }

    /// Follows the continuation tokens to the end.
    async fn list(&self) -> Result<Value, Error> {
        let mut connection = Connection::open(&self.target).await?;
        let (mut keys, mut pages) = (0, 0_u64);
        let mut token = String::new();
        let began = Instant::now();
        loop {
            let after =
                if token.is_empty() { String::new() } else { format!("continuation-token={}&", encode(&token)) };
            let path = format!("/{}", self.bucket);
            let query = format!("{after}list-type=2");
            let reply = connection.send(Method::GET, &path, &query, 0, tests::s3_client::whole(Bytes::new())).await?;
            let mut page = Vec::new();
            read(reply, |piece| page.extend_from_slice(piece)).await?;
            let page = String::from_utf8(page)?;
            keys += page.matches("<Key>").count();
            pages += 1;
            match between(&page, "<NextContinuationToken>", "</NextContinuationToken>") {
                Some(next) => token = next.to_owned(),
                None => break,
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        Ok(json!({
            "operation": "list", "keys": keys, "pages": pages, "seconds": rounded(seconds),
            "keys_per_second": rounded(keys as f64 / seconds),
        }))
    }

    async fn transfers(&self) -> Result<Value, Error> {
        let (count, size) = (self.options.count.unwrap_or(256), self.options.size.unwrap_or(64 * MIB));
        let rest = Bodies::new(MIB).next(u64::MAX);
        let up = self.all_at_once(count, |load, number| {
            let first = Bodies::new(MIB.min(size)).next(number);
            let body = repeated(first, rest.clone(), size);
            async move {
                let mut connection = Connection::open(&load.target).await?;
                let path = format!("/{}/transfer-{number}", load.bucket);
                read(connection.send(Method::PUT, &path, "", size, body).await?, |_| ()).await
            }
        });
        let up = up.await?;
        let down = self.all_at_once(count, |load, number| async move {
            let mut connection = Connection::open(&load.target).await?;
            let path = format!("/{}/transfer-{number}", load.bucket);
            let length = connection.run(Method::GET, &path, "", Bytes::new()).await?;
            if length == size { Ok(size) } else { Err("a body came back shorter".into()) }
        });
        let down = down.await?;
        let speed = |seconds: f64| rounded(count as f64 * size as f64 / MIB as f64 / seconds);
        Ok(json!({
            "operation": "transfers", "count": count, "size": size,
            "put_mib_per_second": speed(up), "get_mib_per_second": speed(down),
        }))
    }

    /// How many seconds `count` tasks took together.
    async fn all_at_once<F>(&self, count: u64, task: impl Fn(Load, u64) -> F) -> Result<f64, Error>
    where
        F: Future<Output = Result<usize, Error>> + Send + 'static,
    {
        let began = Instant::now();
        let tasks: Vec<_> = (0..count).map(|number| tokio::spawn(task(self.clone(), number))).collect();
        for task in tasks {
            task.await??;
        }
        Ok(began.elapsed().as_secs_f64())
    }
}

/// Bodies of one size, each another, made by writing a number into the same bytes.
struct Bodies {
    template: BytesMut,
    process: u32,
}

impl Bodies {
    fn new(size: usize) -> Self {
        // xorshift: no run of zeros that a file system could leave out.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut template = BytesMut::with_capacity(size + 8);
        while template.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            template.extend_from_slice(&state.to_le_bytes());
        }
        template.truncate(size);
        Bodies { template, process: std::process::id() }
    }

    fn next(&mut self, number: u64) -> Bytes {
        let mut unique = [0; 12];
        unique[..8].copy_from_slice(&number.to_le_bytes());
        unique[8..].copy_from_slice(&self.process.to_le_bytes());
        let length = unique.len().min(self.template.len());
        self.template[..length].copy_from_slice(&unique[..length]);
        Bytes::copy_from_slice(&self.template)
    }
}

fn md5_speed() -> Value {
    let data = Bodies::new(64 * MIB).next(0);
    let began = Instant::now();
    let rounds = 8;
    for _ in 0..rounds {
        std::hint::black_box(Md5::digest(&data));
    }
    let speed = (rounds * data.len()) as f64 / MIB as f64 / began.elapsed().as_secs_f64();
    json!({ "operation": "md5", "mib_per_second": rounded(speed) })
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// AWS's UriEncode.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded + &char::from(byte).to_string(),
        _ => format!("{encoded}%{byte:02X}"),
    })
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let rest = &text[text.find(start)? + start.len()..];
    Some(&rest[..rest.find(end)?])
}
