//! What Prometheus learns of alert rules: which fire, so that Alertmanager can do the rest, and how the rules are kept up with.
//!
//! `keyward_alert_firing` is the one metric whose labels hold ids and names: a series a rule that fires, a thousand at most,
//! gone when it is resolved. `keyward_alerts_firing` counts all of them.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

/// The most rules that are shown each with a series of its own: those that have fired for the longest.
pub const FIRING_SHOWN: usize = 1_000;

/// Seconds: from a few rules on SQLite to ten thousand.
const BUCKETS: [f64; 9] = [0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];

/// A rule that fires.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Series {
    /// The project's id.
    pub project: String,
    /// The rule's id.
    pub alert: String,
    /// What it is called: a tenant's words, 100 characters at most.
    pub name: String,
    /// What it looks at.
    pub metric: String,
}

impl Series {
    fn labels(&self) -> [&str; 4] {
        [&self.project, &self.alert, &self.name, &self.metric]
    }
}

/// See the module.
#[derive(Debug)]
pub struct AlertMetrics {
    firing: IntGaugeVec,
    shown: Mutex<HashSet<Series>>,
    firing_in_all: IntGauge,
    rules: IntGauge,
    fired: IntCounter,
    resolved: IntCounter,
    evaluation: Histogram,
}

impl AlertMetrics {
    /// Registers all of them.
    ///
    /// # Errors
    /// Two metrics of one name: a defect.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            firing: IntGaugeVec::new(
                Opts::new("keyward_alert_firing", "Alert rules that fire, 1 each; at most 1000 are shown"),
                &["project", "alert", "name", "metric"],
            )?,
            shown: Mutex::default(),
            firing_in_all: IntGauge::new("keyward_alerts_firing", "How many alert rules fire")?,
            rules: IntGauge::new("keyward_alert_rules", "Alert rules that are evaluated")?,
            fired: IntCounter::new("keyward_alerts_fired_total", "Alerts that this process has fired")?,
            resolved: IntCounter::new("keyward_alerts_resolved_total", "Alerts that this process has resolved")?,
            evaluation: Histogram::with_opts(
                HistogramOpts::new(
                    "keyward_alert_evaluation_duration_seconds",
                    "How long a round took that evaluates the alert rules which are due",
                )
                .buckets(BUCKETS.to_vec()),
            )?,
        };
        registry.register(Box::new(metrics.firing.clone()))?;
        registry.register(Box::new(metrics.firing_in_all.clone()))?;
        registry.register(Box::new(metrics.rules.clone()))?;
        registry.register(Box::new(metrics.fired.clone()))?;
        registry.register(Box::new(metrics.resolved.clone()))?;
        registry.register(Box::new(metrics.evaluation.clone()))?;
        Ok(metrics)
    }

    /// A round is done.
    pub fn evaluated(&self, took: Duration) {
        self.evaluation.observe(took.as_secs_f64());
    }

    /// So many alerts were told of.
    pub fn told(&self, fired: u64, resolved: u64) {
        self.fired.inc_by(fired);
        self.resolved.inc_by(resolved);
    }

    /// These fire, of so many in all, and so many rules are evaluated. Series of others go; those that stay are never away.
    pub fn show(&self, firing: HashSet<Series>, all: i64, rules: i64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in shown.difference(&firing) {
            // It is there: it was shown.
            drop(self.firing.remove_label_values(&gone.labels()));
        }
        for series in &firing {
            self.firing.with_label_values(&series.labels()).set(1);
        }
        *shown = firing;
        self.firing_in_all.set(all);
        self.rules.set(rules);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_series_go() {
        let registry = Registry::new();
        let metrics = AlertMetrics::new(&registry).unwrap();
        let series = |name: &str| Series {
            project: "p".to_owned(),
            alert: "a".to_owned(),
            name: name.to_owned(),
            metric: "denied".to_owned(),
        };
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        metrics.show(HashSet::from([series("a\"b\\c\n} 1"), series("other")]), 2, 3);
        assert!(text().contains(r#"name="a\"b\\c\n} 1""#), "{}", text());
        metrics.show(HashSet::from([series("other")]), 1, 3);
        assert_eq!(text().matches("keyward_alert_firing{").count(), 1);
        assert!(text().contains("keyward_alerts_firing 1\n") && text().contains("keyward_alert_rules 3\n"));
    }
}
