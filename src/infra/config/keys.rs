//! API keys and random keys.

use std::time::Duration;

use crate::base::duration::Seconds;
use crate::base::key_shape::{PREFIX_RULE, is_prefix};

use super::server::positive;
use super::source::{ConfigError, Loaded};

/// The most that `/key/{length}` can be told to give: 16 MiB.
pub const MAX_RANDOM_BYTES: u64 = 16 * 1024 * 1024;

/// Settings of keys.
#[derive(Clone, Debug)]
pub struct KeysConfig {
    /// Keys that a person may make in 24 hours; 0 is off.
    pub per_user_per_day: u32,
    /// Keys that aren't revoked and that one person answers for in one project; 0 is off.
    pub per_user: u32,
    /// Keys of one project that aren't revoked; 0 is off.
    pub per_project: u32,
    /// Keys of one project, revoked ones too; 0 is off.
    pub max_per_project: u32,
    /// How long a new key lasts that says nothing of it; zero is for ever.
    pub default_expiry: Duration,
    /// The longest that a key may last; zero is off.
    pub max_expiry: Duration,
    /// How long before its end a key's end is told, longest first.
    pub expiry_warnings: Vec<Duration>,
    /// Prefix of new keys where the project has none of its own.
    pub prefix: String,
    /// Longest answer of `/key/{length}`, in bytes.
    pub max_random_bytes: u64,
    /// A key's limit where neither it nor its project sets any; 0 is off.
    pub default_limit: u32,
    /// The window of that limit, in seconds.
    pub default_window_seconds: u64,
    /// Simultaneous operations of a key where neither it nor its project says; 0 is off.
    pub default_concurrency: u32,
    /// Keys held in memory for verification.
    pub cache_entries: u64,
    /// Bytes that they may take together.
    pub cache_bytes: u64,
}

impl KeysConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let prefix = loaded.text("key_prefix").to_owned();
        if !is_prefix(&prefix) {
            return Err(loaded.invalid("key_prefix", PREFIX_RULE));
        }
        let count = |key| loaded.number(key, 0..=1_000_000_000).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Ok(Self {
            per_user_per_day: u32::try_from(loaded.number("keys_per_user_per_day", 0..=1_000_000)?).unwrap_or(u32::MAX),
            per_user: count("keys_per_user")?,
            per_project: count("keys_per_project")?,
            max_per_project: count("max_keys_per_project")?,
            default_expiry: loaded.duration("default_key_expiry")?,
            max_expiry: loaded.duration("max_key_expiry")?,
            expiry_warnings: warnings(loaded)?,
            prefix,
            max_random_bytes: loaded.number("max_key_size", 1..=MAX_RANDOM_BYTES)?,
            default_limit: u32::try_from(loaded.number("default_rate_limit", 0..=1_000_000_000)?).unwrap_or(u32::MAX),
            default_window_seconds: positive(loaded, "rate_limit_window")?.as_secs(),
            default_concurrency: u32::try_from(loaded.number("default_concurrency", 0..=1_000_000)?)
                .unwrap_or(u32::MAX),
            cache_entries: loaded.number("key_cache_entries", 1..=1_000_000_000)?,
            cache_bytes: loaded.number("key_cache_bytes", 1..=1 << 40)?,
        })
    }
}

/// The most warnings of one key.
const MAX_WARNINGS: usize = 10;
/// The earliest of them.
const EARLIEST: Duration = Duration::from_hours(24 * 3650);

fn warnings(loaded: &Loaded) -> Result<Vec<Duration>, ConfigError> {
    const KEY: &str = "key_expiry_warnings";
    let spans: Vec<Seconds> = loaded.list(KEY, "durations such as 30d")?;
    let mut spans: Vec<Duration> = spans.into_iter().map(Seconds::as_duration).collect();
    if matches!(spans.as_slice(), [none] if none.is_zero()) {
        return Ok(Vec::new());
    }
    if spans.len() > MAX_WARNINGS || spans.iter().any(|span| span.is_zero() || *span > EARLIEST) {
        return Err(loaded.invalid(KEY, "expected at most 10 durations of 1s to 3650d, or 0 for none"));
    }
    spans.sort_unstable_by(|a, b| b.cmp(a));
    spans.dedup();
    Ok(spans)
}
