//! Metrics of webhooks.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

/// Seconds: an endpoint nearby to the longest that one may take.
const BUCKETS: [f64; 10] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// See the module.
#[derive(Clone, Debug)]
pub struct WebhookMetrics {
    attempts: IntCounterVec,
    deliveries: IntCounterVec,
    duration: Histogram,
    /// Deliveries whose attempt is due, of all processes.
    pub due: IntGauge,
    /// Webhooks that the service has switched off.
    pub disabled: IntGauge,
}

impl WebhookMetrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            attempts: IntCounterVec::new(
                Opts::new("keyward_webhook_attempts_total", "Attempts to deliver an event, by how they came out"),
                &["outcome"],
            )?,
            deliveries: IntCounterVec::new(
                Opts::new("keyward_webhook_deliveries_total", "Deliveries that came to an end: delivered or dead"),
                &["outcome"],
            )?,
            duration: Histogram::with_opts(
                HistogramOpts::new("keyward_webhook_attempt_duration_seconds", "How long endpoints took")
                    .buckets(BUCKETS.to_vec()),
            )?,
            due: IntGauge::new(
                "keyward_webhook_deliveries_due",
                "Deliveries whose attempt is due, of all processes, up to 100000",
            )?,
            disabled: IntGauge::new(
                "keyward_webhooks_disabled",
                "Webhooks that were switched off because they are gone or have failed for days",
            )?,
        };
        for outcome in ["delivered", "failed"] {
            metrics.attempts.with_label_values(&[outcome]);
        }
        for outcome in ["delivered", "dead"] {
            metrics.deliveries.with_label_values(&[outcome]);
        }
        Ok(metrics)
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.attempts.clone()))?;
        registry.register(Box::new(self.deliveries.clone()))?;
        registry.register(Box::new(self.duration.clone()))?;
        registry.register(Box::new(self.due.clone()))?;
        registry.register(Box::new(self.disabled.clone()))
    }

    /// An attempt ended so, `delivered` or `failed`.
    pub fn attempted(&self, outcome: &str, took: Duration) {
        self.attempts.with_label_values(&[outcome]).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A delivery ended so, `delivered` or `dead`.
    pub fn ended(&self, outcome: &str) {
        self.deliveries.with_label_values(&[outcome]).inc();
    }
}
