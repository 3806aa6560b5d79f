//! What is counted of requests, and for how long it is kept.

use std::time::Duration;

use super::source::{ConfigError, Loaded};

/// Settings of usage.
#[derive(Clone, Debug)]
pub struct UsageConfig {
    /// Whether requests are counted at all.
    pub is_on: bool,
    /// How long minutes are kept.
    pub keep_minutes: Duration,
    /// How long hours are kept.
    pub keep_hours: Duration,
    /// How long days are kept; zero is for ever.
    pub keep_days: Duration,
}

impl UsageConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let is_on = match loaded.text("usage") {
            "on" => true,
            "off" => false,
            _ => return Err(loaded.invalid("usage", "expected on or off")),
        };
        let at_least = |key, least: Duration, what| {
            let span = loaded.duration(key)?;
            if span < least { Err(loaded.invalid(key, what)) } else { Ok(span) }
        };
        let keep_days = loaded.duration("usage_keep_days")?;
        if !keep_days.is_zero() && keep_days < Duration::from_hours(48) {
            return Err(loaded.invalid("usage_keep_days", "expected at least 2d, or 0 for ever"));
        }
        Ok(Self {
            is_on,
            keep_minutes: at_least("usage_keep_minutes", Duration::from_hours(2), "expected at least 2h")?,
            keep_hours: at_least("usage_keep_hours", Duration::from_hours(48), "expected at least 2d")?,
            keep_days,
        })
    }
}
