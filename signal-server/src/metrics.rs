//! What the relay counts, in the Prometheus text format.
//!
//! One struct per area; the help text of a metric is the doc comment of its field, so that the two
//! cannot differ. The registry is a value: two relays in one process count apart.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::store::sharing::{Changes, Job, Leadership};
use crate::store::snapshot::Snapshot;
use crate::store::{Batch, CommitError, Key, KeyKind, Store, StoreError};

/// Declares an area: its struct, and how it registers, with the doc comments as help texts.
macro_rules! area {
    ($(#[$meta:meta])* $area:ident in $prefix:literal {
        $(#[doc = $help:literal] $field:ident: $metric:ty = $new:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub(crate) struct $area {
            $(#[doc = $help] pub(crate) $field: $metric,)*
        }

        impl $area {
            fn register(registry: &mut Registry) -> $area {
                let registry = registry.sub_registry_with_prefix($prefix);
                let area = $area { $($field: $new,)* };
                $(registry.register(
                    stringify!($field),
                    $help.trim().trim_end_matches('.'),
                    area.$field.clone(),
                );)*
                area
            }
        }
    };
}

area! {
    /// The edge of the relay: what every request passes.
    HttpMetrics in "http" {
        /// Answered requests by surface and status.
        requests: Family<RequestLabels, Counter> = Family::default(),
        /// Requests that are being answered, without those that wait for a signal.
        in_flight: Gauge = Gauge::default(),
        /// Requests whose bodies are on their way.
        arriving: Gauge = Gauge::default(),
        /// Requests that wait for a signal: long-polls and event streams.
        long_polls: Gauge = Gauge::default(),
        /// Open connections of both listeners.
        connections: Gauge = Gauge::default(),
        /// Requests refused because too many were in flight, or too much of their bodies on its way.
        shed: Counter = Counter::default(),
    }
}

area! {
    /// Signals, as far as they came through HTTP.
    SignalMetrics in "signals" {
        /// Signals that were stored.
        accepted: Counter = Counter::default(),
        /// Signals that were acknowledged again without a change.
        duplicate: Counter = Counter::default(),
        /// Signals that were refused, by error code.
        refused: Family<CodeLabels, Counter> = Family::default(),
    }
}

area! {
    /// The store below the mailboxes.
    StoreMetrics in "store" {
        /// Seconds from the submission of a commit until it was durable.
        commit_seconds: Histogram = Histogram::new(COMMIT_SECONDS),
        /// Commits that failed, without those that lost a race and are tried again.
        commit_failures: Counter = Counter::default(),
    }
}

area! {
    /// The gateway in front of Nova's metadata service.
    MetadataMetrics in "metadata" {
        /// Requests that were passed on to Nova, by status.
        forwarded: Family<StatusLabels, Counter> = Family::default(),
        /// Requests whose headers are nobody's, by reason.
        refused: Family<CodeLabels, Counter> = Family::default(),
        /// Frames that were answered, by what was said.
        frames: Family<CodeLabels, Counter> = Family::default(),
        /// Messages of instances that were taken in.
        messages: Counter = Counter::default(),
        /// Whether a metadata server of Nova's is up.
        server_up: Family<ServerLabels, Gauge> = Family::default(),
    }
}

area! {
    /// Signals that go to Heat itself.
    ForwardMetrics in "forwards" {
        /// Signals that were taken to be forwarded to Heat.
        accepted: Counter = Counter::default(),
        /// Signals that need no more forwarding, by how it ended: delivered, refused or expired.
        ended: Family<EndLabels, Counter> = Family::default(),
        /// Signals that wait to be forwarded.
        pending: Gauge = Gauge::default(),
        /// Attempts to forward that will be repeated.
        failed_attempts: Counter = Counter::default(),
        /// Seconds from the acknowledgement of a signal until Heat has taken it.
        delivery_seconds: Histogram = Histogram::new(DELIVERY_SECONDS),
    }
}

/// The upper bounds of the delivery histogram: from one call to a long outage.
const DELIVERY_SECONDS: [f64; 9] = [0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3_600.0, 43_200.0];

/// The upper bounds of the commit histogram: from a commit in memory to a disk that is about to fail.
const COMMIT_SECONDS: [f64; 12] =
    [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) surface: Surface,
    pub(crate) status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CodeLabels {
    pub(crate) code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StatusLabels {
    pub(crate) status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ServerLabels {
    pub(crate) server: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndLabels {
    pub(crate) end: &'static str,
}

/// One HTTP dialect of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Surface {
    Swift,
    Native,
    /// Heat's own signal paths.
    Heat,
    Admin,
    /// What comes through Neutron's metadata path for the relay itself.
    Metadata,
    /// Paths that belong to no surface.
    Other,
}

impl Surface {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Surface::Swift => "swift",
            Surface::Native => "native",
            Surface::Heat => "heat",
            Surface::Admin => "admin",
            Surface::Metadata => "metadata",
            Surface::Other => "other",
        }
    }
}

impl EncodeLabelValue for Surface {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// All metrics of one relay.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) http: HttpMetrics,
    pub(crate) signals: SignalMetrics,
    pub(crate) store: StoreMetrics,
    pub(crate) metadata: MetadataMetrics,
    pub(crate) forwards: ForwardMetrics,
    registry: Registry,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("heliograph");
        let http = HttpMetrics::register(&mut registry);
        let signals = SignalMetrics::register(&mut registry);
        let store = StoreMetrics::register(&mut registry);
        let metadata = MetadataMetrics::register(&mut registry);
        let forwards = ForwardMetrics::register(&mut registry);
        Metrics { http, signals, store, metadata, forwards, registry }
    }

    /// The text that a Prometheus server reads.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// A store whose commits are measured.
#[derive(Debug)]
pub(crate) struct MeteredStore {
    inner: Arc<dyn Store>,
    metrics: StoreMetrics,
}

impl MeteredStore {
    pub(crate) fn new(inner: Arc<dyn Store>, metrics: StoreMetrics) -> MeteredStore {
        MeteredStore { inner, metrics }
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.inner.get_many(keys).await
    }

    fn recall(&self, key: &Key) -> Option<Bytes> {
        self.inner.recall(key)
    }

    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        self.inner.scan(prefix, after, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let started = Instant::now();
        let result = self.inner.commit(batch).await;
        match &result {
            Ok(()) => self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64()),
            Err(CommitError::Conflict { .. }) => {}
            Err(_) => {
                self.metrics.commit_failures.inc();
            }
        }
        result
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.inner.ready().await
    }

    fn changes(&self, kind: KeyKind) -> Changes {
        self.inner.changes(kind)
    }

    fn lead(&self, job: Job) -> Leadership {
        self.inner.lead(job)
    }

    fn snapshot(&self) -> Result<Option<Box<dyn Snapshot>>, StoreError> {
        self.inner.snapshot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_names_help_and_values() {
        let metrics = Metrics::new();
        let labels = RequestLabels { surface: Surface::Swift, status: 201 };
        metrics.http.requests.get_or_create(&labels).inc();
        metrics.signals.accepted.inc();
        let page = metrics.encode().expect("text");
        for line in [
            "# HELP heliograph_http_requests Answered requests by surface and status.",
            "heliograph_http_requests_total{surface=\"swift\",status=\"201\"} 1",
            "heliograph_signals_accepted_total 1",
            "heliograph_http_long_polls 0",
            "heliograph_store_commit_seconds_count 0",
        ] {
            assert!(page.lines().any(|present| present == line), "{line}\n{page}");
        }
    }
}
