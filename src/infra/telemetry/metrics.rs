//! Metrics in Prometheus' conventions: a `keyward_` prefix, base units, labels of bounded variety (route templates and
//! codes, never ids or names).

use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::infra::db::Db;

use super::alerts::AlertMetrics;
use super::http::{HttpMetrics, RouteMetrics, ShardedCounters};
use super::otlp::{self, Signal};
use super::services::ServiceMetrics;
use super::webhooks::WebhookMetrics;

/// Seconds: from a tenth of a millisecond, which a verification takes, to the request timeout.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Bytes: powers of four up to the largest random key.
const SIZE_BUCKETS: [f64; 9] = [16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 1_048_576.0, 16_777_216.0];

/// The route on which nearly all requests arrive.
pub const VERIFY_ROUTE: &str = "/v1/keys/verify";

/// How many codes verification may answer.
pub const CODES: usize = 12;

/// How the key cache stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheReading {
    /// Keys in it.
    pub entries: usize,
    /// Keys that were read from the database.
    pub loaded: u64,
    /// Keys that the database didn't know.
    pub absent: u64,
    /// Keys that were known not to exist without asking.
    pub spared: u64,
}

/// Every metric, registered.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests: how many, how long, by method, route template and status.
    pub http: HttpMetrics,
    /// Those of the hot route, found once.
    verify: RouteMetrics,
    /// Requests turned away because too many were being worked on.
    pub http_shed: IntCounter,
    /// Open connections.
    pub connections: IntGauge,
    /// Open connections of the metrics listener.
    pub metrics_connections: IntGauge,
    /// Connections turned away because too many were open.
    pub connections_refused: IntCounter,
    /// Verifications by the code they answered, in the order in which they were given.
    pub verifications: ShardedCounters<CODES>,
    /// Requests that found no room in the request log.
    pub request_log_dropped: IntCounter,
    /// Requests that should have been told of, and for which there was no room.
    pub notices_dropped: IntCounter,
    /// Events of what traffic has shown, by their type.
    pub security_events: IntCounterVec,
    /// Those of suspicion, by their reason.
    pub suspicions: IntCounterVec,
    /// Refused calls that aren't in the audit trail.
    pub audit_refusals_dropped: IntCounter,
    /// Lines of the log that found no room.
    log_dropped: IntCounter,
    /// Spans and log records that the collector took, by signal.
    exported: IntCounterVec,
    /// Those that never reached it.
    unexported: IntCounterVec,
    /// Keys in the cache.
    cached: IntGauge,
    /// Look-ups that the cache couldn't answer.
    lookups: IntCounterVec,
    /// Sizes of random keys given out.
    pub random_key_size: Histogram,
    /// E-mails by what became of them, also tries that failed.
    pub mails: IntCounterVec,
    /// E-mails that wait to be sent, as the storage says.
    pub mails_waiting: IntGauge,
    /// Webhooks.
    pub webhooks: WebhookMetrics,
    /// Watched services.
    pub services: ServiceMetrics,
    /// Password hashes that run or wait.
    pub password_hashes_waiting: IntGauge,
    /// Alert rules.
    pub alerts: AlertMetrics,
    database_connections: IntGaugeVec,
    database_connections_max: IntGauge,
}

fn mails() -> Result<IntCounterVec, prometheus::Error> {
    let help = "E-mails by what became of them; those that are tried again count each time";
    IntCounterVec::new(Opts::new("keyward_mails_total", help), &["outcome"])
}

fn mails_waiting() -> Result<IntGauge, prometheus::Error> {
    IntGauge::new("keyward_mails_waiting", "E-mails that wait to be sent, those of all replicas")
}

impl Metrics {
    /// Registers everything. `codes` are what verification may answer.
    ///
    /// # Errors
    /// Two metrics of one name: a defect.
    pub fn new(codes: [&'static str; CODES]) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let http = HttpMetrics::new(&LATENCY_BUCKETS)?;
        let metrics = Self {
            verify: http.route("POST", VERIFY_ROUTE),
            http,
            http_shed: IntCounter::new(
                "keyward_http_requests_shed_total",
                "HTTP requests answered 503 because too many were being worked on",
            )?,
            connections: IntGauge::new("keyward_http_connections", "Open connections")?,
            metrics_connections: IntGauge::new(
                "keyward_metrics_connections",
                "Open connections of the metrics listener",
            )?,
            connections_refused: IntCounter::new(
                "keyward_http_connections_refused_total",
                "Connections closed at once because too many were open",
            )?,
            verifications: ShardedCounters::new(
                "keyward_key_verifications_total",
                "Decisions about keys by their code: verifications, and calls of Keyward's own routes",
                "code",
                codes,
            )?,
            request_log_dropped: IntCounter::new(
                "keyward_request_log_dropped_total",
                "Requests that the request log should have kept and had no room for",
            )?,
            notices_dropped: IntCounter::new(
                "keyward_notices_dropped_total",
                "Refusals and the like that no event will count, because there were too many different ones at once",
            )?,
            security_events: IntCounterVec::new(
                Opts::new("keyward_security_events_total", "Events raised of what traffic has shown, by type"),
                &["type"],
            )?,
            suspicions: IntCounterVec::new(
                Opts::new("keyward_suspicions_total", "Events of type auth.suspicious, by reason"),
                &["reason"],
            )?,
            audit_refusals_dropped: IntCounter::new(
                "keyward_audit_refusals_dropped_total",
                "Refused calls that aren't in the audit trail, because there were too many different ones or the storage failed",
            )?,
            log_dropped: IntCounter::new(
                "keyward_log_dropped_total",
                "Lines of the log that were dropped because its output was too slow or failed",
            )?,
            exported: IntCounterVec::new(
                Opts::new("keyward_telemetry_exported_total", "Spans and log records that the collector took"),
                &["signal"],
            )?,
            unexported: IntCounterVec::new(
                Opts::new(
                    "keyward_telemetry_dropped_total",
                    "Spans and log records that were dropped because the collector was too slow, away, or refused them",
                ),
                &["signal"],
            )?,
            cached: IntGauge::new("keyward_key_cache_entries", "Keys in the cache")?,
            lookups: IntCounterVec::new(
                Opts::new(
                    "keyward_key_cache_lookups_total",
                    "Keys that the cache couldn't answer: loaded or absent in the database, or spared because they can't exist",
                ),
                &["result"],
            )?,
            random_key_size: Histogram::with_opts(
                HistogramOpts::new("keyward_random_key_size_bytes", "Sizes of the random keys given out")
                    .buckets(SIZE_BUCKETS.to_vec()),
            )?,
            mails: mails()?,
            mails_waiting: mails_waiting()?,
            webhooks: WebhookMetrics::new()?,
            services: ServiceMetrics::new()?,
            password_hashes_waiting: IntGauge::new(
                "keyward_password_hashes_waiting",
                "Password hashes that are being computed or wait for it",
            )?,
            alerts: AlertMetrics::new(&registry)?,
            database_connections: IntGaugeVec::new(
                Opts::new("keyward_database_connections", "Pooled database connections by state"),
                &["state"],
            )?,
            database_connections_max: IntGauge::new(
                "keyward_database_connections_max",
                "The most database connections that the pool opens",
            )?,
            registry,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let build =
            IntGaugeVec::new(Opts::new("keyward_build_info", "The version that is running; always 1"), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        self.services.register(&self.registry)?;
        self.registry.register(Box::new(self.mails.clone()))?;
        self.registry.register(Box::new(self.mails_waiting.clone()))?;
        let all: [Box<dyn prometheus::core::Collector>; 22] = [
            Box::new(build),
            Box::new(self.http.clone()),
            Box::new(self.request_log_dropped.clone()),
            Box::new(self.notices_dropped.clone()),
            Box::new(self.security_events.clone()),
            Box::new(self.suspicions.clone()),
            Box::new(self.audit_refusals_dropped.clone()),
            Box::new(self.log_dropped.clone()),
            Box::new(self.exported.clone()),
            Box::new(self.unexported.clone()),
            Box::new(self.cached.clone()),
            Box::new(self.lookups.clone()),
            Box::new(self.http_shed.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.metrics_connections.clone()),
            Box::new(self.connections_refused.clone()),
            Box::new(self.verifications.clone()),
            Box::new(self.random_key_size.clone()),
            Box::new(self.password_hashes_waiting.clone()),
            Box::new(self.database_connections.clone()),
            Box::new(self.database_connections_max.clone()),
            Box::new(prometheus::process_collector::ProcessCollector::for_self()),
        ];
        self.webhooks.register(&self.registry)?;
        all.into_iter().try_for_each(|collector| self.registry.register(collector))
    }

    /// Counts a request that has begun and now ends, by method and route template.
    pub fn ended(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        if method == "POST" && route == VERIFY_ROUTE {
            self.verify.end(status, took);
        } else {
            self.http.route(method, route).end(status, took);
        }
    }

    /// Everything in the text format, with the pool read just now.
    ///
    /// # Errors
    /// The encoder refused: a defect.
    pub fn render(&self, db: &Db, max_connections: u32, cache: CacheReading) -> Result<Vec<u8>, prometheus::Error> {
        self.log_dropped.reset();
        self.log_dropped.inc_by(super::logs::dropped());
        for signal in Signal::ALL {
            let counts = otlp::counts(signal);
            for (counter, count) in [(&self.exported, counts.exported), (&self.unexported, counts.dropped)] {
                let counter = counter.with_label_values(&[signal.word()]);
                counter.reset();
                counter.inc_by(count);
            }
        }
        self.cached.set(i64::try_from(cache.entries).unwrap_or(i64::MAX));
        for (result, count) in [("loaded", cache.loaded), ("absent", cache.absent), ("spared", cache.spared)] {
            let counter = self.lookups.with_label_values(&[result]);
            counter.reset();
            counter.inc_by(count);
        }
        let (open, idle) = db.pool_size();
        let idle = i64::try_from(idle).unwrap_or(i64::MAX);
        self.database_connections.with_label_values(&["idle"]).set(idle);
        self.database_connections.with_label_values(&["used"]).set((i64::from(open) - idle).max(0));
        self.database_connections_max.set(i64::from(max_connections));
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
