//! Alert rules.

use std::time::Duration;

use super::source::{ConfigError, Loaded};

/// Settings of alert rules.
#[derive(Clone, Debug)]
pub struct AlertsConfig {
    /// How often each rule is evaluated: a second to an hour.
    pub interval: Duration,
    /// How long the history is kept.
    pub retention: Duration,
}

impl AlertsConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let interval = loaded.duration("alert_interval")?;
        if !(Duration::from_secs(1)..=Duration::from_hours(1)).contains(&interval) {
            return Err(loaded.invalid("alert_interval", "expected 1s to 1h"));
        }
        let retention = loaded.duration("alert_history_retention")?;
        if retention < Duration::from_hours(1) {
            return Err(loaded.invalid("alert_history_retention", "expected at least 1h"));
        }
        Ok(Self { interval, retention })
    }
}
