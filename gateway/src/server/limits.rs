//! The bounds on everything that a client can make grow. Each has a name and a unit.

use std::time::Duration;

/// Limits of the HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at a time. A further one takes the place of the one that was quiet the longest.
    pub connections_max: usize,
    /// Connections at a time from one peer, so that none can take all places.
    pub connections_per_peer_max: usize,
    /// Requests at a time, over all connections; more are answered `503 SlowDown`.
    pub requests_in_flight_max: usize,
    /// Requests at a time from one peer; more are answered `503 SlowDown`.
    pub requests_in_flight_per_peer_max: usize,
    /// Bytes of request bodies that are held in memory at a time; requests beyond are answered `503 SlowDown`.
    pub buffered_bytes_max: u64,
    /// Bytes of a request's line and headers.
    pub header_bytes_max: usize,
    /// Headers of a request.
    pub headers_max: usize,
    /// How long after a connection was opened its first request has to be there.
    pub first_request_timeout: Duration,
    /// How long after their first byte a request's headers have to be there. HTTP/1 only.
    pub header_read_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// How long a client may pause within a body that it sends.
    pub body_read_stall_timeout: Duration,
    /// How long a client may refuse to take bytes of a reply.
    pub write_stall_timeout: Duration,
    /// Bytes that have to move in a second that is spent waiting for the client, while over half of the places for
    /// requests are taken; 0 for none.
    pub bytes_per_second_min: u64,
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
        let (connections_max, requests_in_flight_max) = (4096, 2048);
        HttpLimits {
            connections_max,
            connections_per_peer_max: HttpLimits::connections_per_peer(connections_max),
            requests_in_flight_max,
            requests_in_flight_per_peer_max: HttpLimits::requests_per_peer(requests_in_flight_max),
            buffered_bytes_max: 256 * 1024 * 1024,
            header_bytes_max: 64 * 1024,
            headers_max: 100,
            first_request_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(90),
            body_read_stall_timeout: Duration::from_secs(60),
            write_stall_timeout: Duration::from_secs(60),
            bytes_per_second_min: 1024,
            tls_handshake_timeout: Duration::from_secs(10),
            h2_streams_max: 32,
            unread_body_max: 1024 * 1024,
        }
    }
}

impl HttpLimits {
    /// The smallest `header_bytes_max` that hyper can work with.
    pub const HEADER_BYTES_FLOOR: usize = 8 * 1024;
    /// The smallest `buffered_bytes_max`: any one request has to fit.
    pub const BUFFERED_BYTES_FLOOR: u64 = 16 * 1024 * 1024;

    /// The share of one peer, unless it is configured.
    #[must_use]
    pub fn connections_per_peer(connections_max: usize) -> usize {
        (connections_max / 4).max(1)
    }

    /// The share of one peer, unless it is configured.
    #[must_use]
    pub fn requests_per_peer(requests_in_flight_max: usize) -> usize {
        (requests_in_flight_max / 2).max(1)
    }
}
