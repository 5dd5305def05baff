//! The bounds on everything that a client can make grow. Each has a name and a unit.

use std::time::Duration;

/// Limits of the HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at a time; more wait in the kernel's queue.
    pub connections_max: usize,
    /// Requests at a time, over all connections; more are answered `503 SlowDown`.
    pub requests_in_flight_max: usize,
    /// Bytes of a request's line and headers.
    pub header_bytes_max: usize,
    /// Headers of a request.
    pub headers_max: usize,
    /// How long a client may take to send a request's headers.
    pub header_read_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// How long a client may pause within a body that it sends.
    pub body_read_stall_timeout: Duration,
    /// How long a client may refuse to take bytes of a reply.
    pub write_stall_timeout: Duration,
    /// How long a TLS handshake may take.
    pub tls_handshake_timeout: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub h2_streams_max: u32,
    /// Bytes of a refused request's body that are read and thrown away, so that the client sees the refusal
    /// rather than a broken connection.
    pub unread_body_max: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            connections_max: 4096,
            requests_in_flight_max: 2048,
            header_bytes_max: 64 * 1024,
            headers_max: 100,
            header_read_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(90),
            body_read_stall_timeout: Duration::from_secs(60),
            write_stall_timeout: Duration::from_secs(60),
            tls_handshake_timeout: Duration::from_secs(10),
            h2_streams_max: 128,
            unread_body_max: 1024 * 1024,
        }
    }
}

impl HttpLimits {
    /// The smallest `header_bytes_max` that hyper can work with.
    pub const HEADER_BYTES_FLOOR: usize = 8 * 1024;
}
