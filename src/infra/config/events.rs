//! Events: for how long they are kept, and how many may listen.

use std::time::Duration;

use super::source::{ConfigError, Loaded};

/// Settings of events.
#[derive(Clone, Debug)]
pub struct EventsConfig {
    /// How long an event is kept.
    pub retention: Duration,
    /// Open streams of events in one process.
    pub max_streams: usize,
}

impl EventsConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let retention = loaded.duration("event_retention")?;
        if retention < Duration::from_hours(1) {
            return Err(loaded.invalid("event_retention", "expected at least 1h"));
        }
        let max_streams = loaded.number("max_event_streams", 0..=100_000)?;
        Ok(Self { retention, max_streams: usize::try_from(max_streams).unwrap_or(usize::MAX) })
    }
}
