//! Deliveries of webhooks.

use std::time::Duration;

use crate::base::duration::Seconds;

use super::server::positive;
use super::source::{ConfigError, Loaded};

/// The most retries of a delivery.
const MAX_RETRIES: usize = 100;
/// The longest that an endpoint may take to answer.
const MAX_TIMEOUT: Duration = Duration::from_mins(1);

/// Settings of webhooks.
#[derive(Clone, Debug)]
pub struct WebhooksConfig {
    /// How long after each failed attempt the next one is made; after the last there is none.
    pub retries: Vec<Duration>,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// For how long every attempt must have failed before an endpoint is disabled; zero is never.
    pub disable_after: Duration,
    /// How long deliveries are kept.
    pub delivery_retention: Duration,
}

impl WebhooksConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let retries: Vec<Seconds> = loaded.list("webhook_retries", "durations such as 5s, 5m or 2h")?;
        if retries.len() > MAX_RETRIES {
            return Err(loaded.invalid("webhook_retries", format!("expected at most {MAX_RETRIES} durations")));
        }
        let timeout = positive(loaded, "webhook_timeout")?;
        if timeout > MAX_TIMEOUT {
            return Err(loaded.invalid("webhook_timeout", "expected at most 60s"));
        }
        Ok(Self {
            retries: retries.into_iter().map(Seconds::as_duration).collect(),
            timeout,
            disable_after: loaded.duration("webhook_disable_after")?,
            delivery_retention: positive(loaded, "webhook_delivery_retention")?,
        })
    }
}
