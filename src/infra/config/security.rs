//! What is worth telling of traffic: from when on a quota is nearly used up, and what looks like an attack.

use std::time::Duration;

use super::source::{ConfigError, Loaded};

/// Settings of what traffic shows.
#[derive(Clone, Debug)]
pub struct SecurityConfig {
    /// The part of a quota, in percent, that is told when it is crossed; 0 is off.
    pub quota_warning_percent: u32,
    /// Wrong keys and passwords from one address within the window that are told; 0 is off.
    pub guesses: u64,
    /// Within which time.
    pub guess_window: Duration,
    /// Addresses that a key may be used from within the window; 0 is off.
    pub addresses: usize,
    /// Within which time.
    pub address_window: Duration,
    /// Whether the use of a revoked key, or of a secret that a newer has replaced, is told.
    pub revoked: bool,
    /// Failures of a key within 15 minutes that are looked at; 0 is off.
    pub failures: u64,
    /// How many times its habit they must be.
    pub failure_factor: u64,
}

impl SecurityConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let window = |key| {
            let span = loaded.duration(key)?;
            let is_in = (Duration::from_secs(10)..=Duration::from_hours(24)).contains(&span);
            if is_in { Ok(span) } else { Err(loaded.invalid(key, "expected 10s to 1d")) }
        };
        let revoked = match loaded.text("suspicion_revoked") {
            "on" => true,
            "off" | "0" => false,
            _ => return Err(loaded.invalid("suspicion_revoked", "expected on or off")),
        };
        Ok(Self {
            quota_warning_percent: u32::try_from(loaded.number("quota_warning_percent", 0..=100)?).unwrap_or(100),
            guesses: loaded.number("suspicion_guesses", 0..=1_000_000)?,
            guess_window: window("suspicion_guess_window")?,
            addresses: usize::try_from(loaded.number("suspicion_addresses", 0..=100)?).unwrap_or(0),
            address_window: window("suspicion_address_window")?,
            revoked,
            failures: loaded.number("suspicion_failures", 0..=1_000_000_000)?,
            failure_factor: loaded.number("suspicion_failure_factor", 1..=1_000)?,
        })
    }
}
