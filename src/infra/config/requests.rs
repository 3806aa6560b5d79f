//! The request log.

use std::time::Duration;

use super::server::positive;
use super::source::{ConfigError, Loaded};

/// Settings of the request log.
#[derive(Clone, Debug)]
pub struct RequestsConfig {
    /// Which part of admitted requests is kept where the project doesn't say: 0 to 1.
    pub sample: f64,
    /// How long a row is kept.
    pub retention: Duration,
}

impl RequestsConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        const EXPECTED: &str = "a number from 0 to 1";
        let sample: f64 = loaded.parse("request_log_sample", EXPECTED)?;
        if !(0.0..=1.0).contains(&sample) {
            return Err(loaded.invalid("request_log_sample", format!("expected {EXPECTED}")));
        }
        Ok(Self { sample, retention: positive(loaded, "request_log_retention")? })
    }
}
