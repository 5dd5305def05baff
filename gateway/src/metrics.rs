//! Prometheus metrics: every name, its unit and what it counts.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use federation::cluster::{LinkLag, PeerInfo, Traffic};
use federation::master::{BucketInfo, Census, Counts, SingleCopies};
use federation::types::BucketName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::server::OperationClass;

/// Where the metrics are read.
pub const METRICS_PATH: &str = "/_elton/metrics";
/// The media type of what is read there.
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Requests by class of operation and status. The library appends `_total` to counters.
pub const REQUESTS: &str = "elton_requests";
/// Time from a request's line to the last byte of its reply, in seconds, by class.
pub const REQUEST_SECONDS: &str = "elton_request_seconds";
/// Bytes of request bodies.
pub const RECEIVED_BYTES: &str = "elton_received_bytes";
/// Bytes of reply bodies.
pub const SENT_BYTES: &str = "elton_sent_bytes";
/// Requests that are being answered.
pub const REQUESTS_IN_FLIGHT: &str = "elton_requests_in_flight";
/// Connections that are open.
pub const CONNECTIONS: &str = "elton_connections";
/// Connections that were refused because their peer had its share.
pub const CONNECTIONS_REFUSED: &str = "elton_connections_refused";
/// Quiet connections that were ended to make place for others.
pub const CONNECTIONS_EVICTED: &str = "elton_connections_evicted";
/// Requests that were refused because too many were in flight.
pub const REQUESTS_REFUSED: &str = "elton_requests_refused";
/// Buckets.
pub const BUCKETS: &str = "elton_buckets";
/// Live objects by bucket.
pub const BUCKET_OBJECTS: &str = "elton_bucket_objects";
/// Bytes of live objects by bucket.
pub const BUCKET_BYTES: &str = "elton_bucket_bytes";
/// The newest number by bucket.
pub const BUCKET_NUMBER: &str = "elton_bucket_number";
/// Bytes of the catalog's file.
pub const CATALOG_BYTES: &str = "elton_catalog_bytes";
/// Bytes that are free on the data directory's file system.
pub const DISK_FREE_BYTES: &str = "elton_disk_free_bytes";
/// Bytes of messages and bodies to and from other clusters, by peer, bucket, purpose and direction.
pub const PEER_BYTES: &str = "elton_peer_bytes";
/// Whether there is a connection to a peer: 1 or 0.
pub const PEER_CONNECTED: &str = "elton_peer_connected";
/// The round trip to a peer, in seconds.
pub const PEER_ROUND_TRIP_SECONDS: &str = "elton_peer_round_trip_seconds";
/// The newest number of a linked bucket that was heard of, by its name here.
pub const LINK_NUMBER: &str = "elton_link_number";
/// How long ago its home said so, in seconds; missing if not since the process began.
pub const LINK_HEARD_SECONDS: &str = "elton_link_heard_seconds";
/// Bytes of bodies that were fetched from other clusters.
pub const CACHE_BYTES: &str = "elton_cache_bytes";
/// How many of them are kept.
pub const CACHE_BYTES_MAX: &str = "elton_cache_bytes_max";
/// Rows of the catalog that keep what other clusters said of keys and versions.
pub const KNOWN_ROWS: &str = "elton_known_rows";
/// How many of them are kept, about.
pub const KNOWN_ROWS_MAX: &str = "elton_known_rows_max";
/// Bodies that members wrote and of which there is one copy at the most, by bucket and who has it: `elsewhere` (one other
/// cluster), `here` or `nowhere`.
pub const SINGLE_COPY_BODIES: &str = "elton_single_copy_bodies";
/// Their bytes.
pub const SINGLE_COPY_BYTES: &str = "elton_single_copy_bytes";
/// The build: its version as a label.
pub const BUILD: &str = "elton_build";

/// Buckets that get gauges of their own; labels must not grow without bound.
pub const BUCKETS_IN_METRICS_MAX: usize = 1000;

/// Upper bounds of the histogram's buckets, in seconds.
const SECONDS_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    class: &'static str,
    status: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BucketLabel {
    bucket: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabel {
    peer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HeldLabels {
    bucket: String,
    held: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerBytesLabels {
    peer: String,
    bucket: String,
    purpose: &'static str,
    direction: &'static str,
}

/// The metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<ClassLabel, Histogram, fn() -> Histogram>,
    received: Counter,
    sent: Counter,
    /// Requests that are being answered.
    pub in_flight: Gauge,
    /// Connections that are open.
    pub connections: Gauge,
    /// Connections that were refused because their peer had its share.
    pub connections_refused: Counter,
    /// Quiet connections that were ended to make place for others.
    pub connections_evicted: Counter,
    /// Requests that were refused because too many were in flight.
    pub refused: Counter,
    storage: StorageGauges,
    peers: PeerGauges,
}

#[derive(Debug, Default)]
struct PeerGauges {
    bytes: Family<PeerBytesLabels, Counter>,
    connected: Family<PeerLabel, Gauge>,
    round_trip: Family<PeerLabel, Gauge<f64, AtomicU64>>,
    link_number: Family<BucketLabel, Gauge>,
    link_heard: Family<BucketLabel, Gauge<f64, AtomicU64>>,
    cache_bytes: Gauge,
    cache_bytes_max: Gauge,
    known_rows: Gauge,
    known_rows_max: Gauge,
    single_bodies: Family<HeldLabels, Gauge>,
    single_bytes: Family<HeldLabels, Gauge>,
}

#[derive(Debug, Default)]
struct StorageGauges {
    buckets: Gauge,
    objects: Family<BucketLabel, Gauge>,
    bytes: Family<BucketLabel, Gauge>,
    number: Family<BucketLabel, Gauge>,
    catalog_bytes: Gauge,
    disk_free_bytes: Gauge,
}

impl Metrics {
    /// Metrics that stand at zero.
    #[must_use]
    pub fn new(version: &str) -> Self {
        let mut metrics = Metrics {
            registry: Registry::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS_BUCKETS)),
            received: Counter::default(),
            sent: Counter::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            connections_evicted: Counter::default(),
            refused: Counter::default(),
            storage: StorageGauges::default(),
            peers: PeerGauges::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(REQUESTS, "Requests by class and status", metrics.requests.clone());
        registry.register(REQUEST_SECONDS, "From the request's line to its reply's last byte", metrics.seconds.clone());
        registry.register(RECEIVED_BYTES, "Bytes of request bodies", metrics.received.clone());
        registry.register(SENT_BYTES, "Bytes of reply bodies", metrics.sent.clone());
        registry.register(REQUESTS_IN_FLIGHT, "Requests being answered", metrics.in_flight.clone());
        registry.register(CONNECTIONS, "Open connections", metrics.connections.clone());
        let (refused, evicted) = (metrics.connections_refused.clone(), metrics.connections_evicted.clone());
        registry.register(CONNECTIONS_REFUSED, "Connections refused to a peer that has its share", refused);
        registry.register(CONNECTIONS_EVICTED, "Quiet connections ended to make place for others", evicted);
        registry.register(REQUESTS_REFUSED, "Requests refused with SlowDown", metrics.refused.clone());
        registry.register(BUILD, "The build", Info::new([("version", version.to_owned())]));
        metrics.storage.register(registry);
        metrics.peers.register(registry);
        metrics
    }

    /// A request has ended.
    pub fn request_ended(&self, class: OperationClass, status: u16, elapsed: Duration, bytes_in: u64, bytes_out: u64) {
        let class = class.name();
        self.requests.get_or_create(&RequestLabels { class, status: status.into() }).inc();
        self.seconds.get_or_create(&ClassLabel { class }).observe(elapsed.as_secs_f64());
        self.received.inc_by(bytes_in);
        self.sent.inc_by(bytes_out);
    }

    /// Sets the gauges that are read from the catalog.
    pub fn set_storage(&self, buckets: &[BucketInfo], counts: &Counts) {
        let storage = &self.storage;
        storage.buckets.set(clamp(buckets.len() as u64));
        for family in [&storage.objects, &storage.bytes, &storage.number] {
            family.clear();
        }
        for bucket in buckets.iter().take(BUCKETS_IN_METRICS_MAX) {
            let label = BucketLabel { bucket: bucket.name.to_string() };
            storage.objects.get_or_create(&label).set(clamp(bucket.objects));
            storage.bytes.get_or_create(&label).set(clamp(bucket.bytes));
            storage.number.get_or_create(&label).set(clamp(bucket.number.0));
        }
        storage.catalog_bytes.set(clamp(counts.catalog_bytes));
        storage.disk_free_bytes.set(clamp(counts.disk_free_bytes));
    }

    /// Sets what is known of other clusters.
    pub fn set_peers(&self, peers: &[PeerInfo], traffic: &[Traffic]) {
        self.peers.connected.clear();
        self.peers.round_trip.clear();
        for PeerInfo { known, link } in peers {
            let label = PeerLabel { peer: known.name.to_string() };
            let connected = link.as_ref().is_some_and(|link| link.connected);
            self.peers.connected.get_or_create(&label).set(connected.into());
            if let Some(time) = link.as_ref().and_then(|link| link.round_trip) {
                self.peers.round_trip.get_or_create(&label).set(time.as_secs_f64());
            }
        }
        // What was counted never gets less: the counters are made anew with what they stand at.
        self.peers.bytes.clear();
        for Traffic { cluster, bucket, purpose, crossed } in traffic {
            for (direction, bytes) in [("sent", crossed.sent), ("received", crossed.received)] {
                let bucket = bucket.as_ref().map(ToString::to_string).unwrap_or_default();
                let labels = PeerBytesLabels { peer: cluster.clone(), bucket, purpose: purpose.name(), direction };
                self.peers.bytes.get_or_create(&labels).inc_by(bytes);
            }
        }
    }

    /// Sets what is known of linked buckets and of bodies that several clusters know of.
    pub fn set_links(
        &self,
        links: &[LinkLag],
        census: &Census,
        single: &[(BucketName, SingleCopies)],
        (bytes_max, rows_max): (u64, u64),
    ) {
        let gauges = &self.peers;
        gauges.link_number.clear();
        gauges.link_heard.clear();
        for LinkLag { lag, .. } in links.iter().take(BUCKETS_IN_METRICS_MAX) {
            let label = BucketLabel { bucket: lag.linked.name.to_string() };
            gauges.link_number.get_or_create(&label).set(clamp(lag.known.0));
            if let Some(heard) = lag.heard {
                gauges.link_heard.get_or_create(&label).set(heard.as_secs_f64());
            }
        }
        gauges.cache_bytes.set(clamp(census.cache.bytes));
        gauges.cache_bytes_max.set(clamp(bytes_max));
        gauges.known_rows.set(clamp(census.known_rows));
        gauges.known_rows_max.set(clamp(rows_max));
        gauges.single_bodies.clear();
        gauges.single_bytes.clear();
        for (name, SingleCopies { elsewhere, here, nowhere }) in single.iter().take(BUCKETS_IN_METRICS_MAX) {
            for (held, amount) in [("elsewhere", elsewhere), ("here", here), ("nowhere", nowhere)] {
                let labels = HeldLabels { bucket: name.to_string(), held };
                gauges.single_bodies.get_or_create(&labels).set(clamp(amount.bodies));
                gauges.single_bytes.get_or_create(&labels).set(clamp(amount.bytes));
            }
        }
    }

    /// All of them as text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string does not fail");
        text
    }
}

impl PeerGauges {
    fn register(&self, registry: &mut Registry) {
        registry.register(PEER_BYTES, "Bytes of messages and bodies between clusters", self.bytes.clone());
        registry.register(PEER_CONNECTED, "Whether there is a connection", self.connected.clone());
        registry.register(PEER_ROUND_TRIP_SECONDS, "The round trip", self.round_trip.clone());
        registry.register(LINK_NUMBER, "The newest number that was heard of", self.link_number.clone());
        registry.register(LINK_HEARD_SECONDS, "Since the home said so", self.link_heard.clone());
        registry.register(CACHE_BYTES, "Bytes fetched from other clusters", self.cache_bytes.clone());
        registry.register(CACHE_BYTES_MAX, "How many of them are kept", self.cache_bytes_max.clone());
        registry.register(KNOWN_ROWS, "Rows of what other clusters said", self.known_rows.clone());
        registry.register(KNOWN_ROWS_MAX, "How many of them are kept", self.known_rows_max.clone());
        registry.register(SINGLE_COPY_BODIES, "Bodies with one copy at the most", self.single_bodies.clone());
        registry.register(SINGLE_COPY_BYTES, "Their bytes", self.single_bytes.clone());
    }
}

impl StorageGauges {
    fn register(&self, registry: &mut Registry) {
        registry.register(BUCKETS, "Buckets", self.buckets.clone());
        registry.register(BUCKET_OBJECTS, "Live objects", self.objects.clone());
        registry.register(BUCKET_BYTES, "Bytes of live objects", self.bytes.clone());
        registry.register(BUCKET_NUMBER, "The newest number", self.number.clone());
        registry.register(CATALOG_BYTES, "Bytes of the catalog's file", self.catalog_bytes.clone());
        registry.register(DISK_FREE_BYTES, "Bytes free on the file system", self.disk_free_bytes.clone());
    }
}

/// Gauges are signed; nothing that is measured here comes near the limit.
fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_class_and_status() {
        let metrics = Metrics::new("1.2.3");
        metrics.request_ended(OperationClass::Read, 200, Duration::from_millis(3), 0, 4096);
        metrics.request_ended(OperationClass::Read, 404, Duration::from_millis(1), 0, 100);
        let text = metrics.render();
        for line in [
            "elton_requests_total{class=\"read\",status=\"200\"} 1",
            "elton_sent_bytes_total 4196",
            "elton_request_seconds_count{class=\"read\"} 2",
            "elton_build_info{version=\"1.2.3\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
