//! Metrics of watched services, as the replica that watches them has them. Their names come from the configuration, so that
//! the labels are of bounded variety.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Seconds: from a millisecond to a check's longest time.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

/// See the module.
#[derive(Clone, Debug)]
pub struct ServiceMetrics {
    up: IntGaugeVec,
    failed: IntGaugeVec,
    restarts: IntCounterVec,
    checks: HistogramVec,
}

impl ServiceMetrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            up: IntGaugeVec::new(
                Opts::new(
                    "keyward_service_up",
                    "Whether a service is up (1) or not; told by the replica that watches it",
                ),
                &["service"],
            )?,
            failed: IntGaugeVec::new(
                Opts::new("keyward_service_failed", "Whether a service was restarted too often and is left alone (1)"),
                &["service"],
            )?,
            restarts: IntCounterVec::new(
                Opts::new("keyward_service_restarts_total", "Restarts that were begun, by hand (manual) and by policy"),
                &["service", "cause"],
            )?,
            checks: HistogramVec::new(
                HistogramOpts::new("keyward_service_check_duration_seconds", "How long checks of services took")
                    .buckets(BUCKETS.to_vec()),
                &["service"],
            )?,
        })
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.up.clone()))?;
        registry.register(Box::new(self.failed.clone()))?;
        registry.register(Box::new(self.restarts.clone()))?;
        registry.register(Box::new(self.checks.clone()))
    }

    /// A service is in this state.
    pub fn stands(&self, service: &str, state: &str) {
        self.up.with_label_values(&[service]).set(i64::from(state == "up"));
        self.failed.with_label_values(&[service]).set(i64::from(state == "failed"));
    }

    /// Another replica tells of it from now on.
    pub fn forget(&self, service: &str) {
        // There may be none.
        drop(self.up.remove_label_values(&[service]));
        drop(self.failed.remove_label_values(&[service]));
    }

    /// A restart was begun.
    pub fn restarted(&self, service: &str, cause: &str) {
        self.restarts.with_label_values(&[service, cause]).inc();
    }

    /// A check took so long.
    pub fn checked(&self, service: &str, millis: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a check takes minutes at most")]
        self.checks.with_label_values(&[service]).observe(millis as f64 / 1000.0);
    }
}
