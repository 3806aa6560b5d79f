//! People, sessions and limits by address.

use std::time::Duration;

use crate::base::secret::Secret;

use super::source::{ConfigError, Loaded};

/// Who may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Everybody.
    Open,
    /// Nobody: administrators make people.
    Closed,
}

/// The administrator made at start.
#[derive(Clone, Debug)]
pub struct AdminAccount {
    /// Checked by the same rule as everybody's.
    pub username: String,
    /// Checked by the same rule as everybody's.
    pub password: Secret,
}

/// Settings of authentication.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// Who may register.
    pub registration: Registration,
    /// The administrator made at start if absent.
    pub admin: Option<AdminAccount>,
    /// How long a log-in lasts.
    pub session_ttl: Duration,
    /// Log-ins at once for one person.
    pub sessions_per_user: i64,
    /// Register and login calls a minute for one address; 0 is off.
    pub auth_rate_per_minute: u32,
    /// All calls a minute for one address; 0 is off.
    pub ip_rate_per_minute: u32,
    /// Password hashes computed at once; 0 is one a core.
    pub hash_parallelism: usize,
}

impl AuthConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let registration = match loaded.text("registration") {
            "open" => Registration::Open,
            "closed" => Registration::Closed,
            _ => return Err(loaded.invalid("registration", "expected open or closed")),
        };
        let admin = match (loaded.text("admin_username"), loaded.text("admin_password")) {
            ("", "") => None,
            ("", _) => {
                return Err(ConfigError::Together("admin_password is set, but admin_username isn't"));
            }
            (_, "") => {
                return Err(ConfigError::Together("admin_username is set, but admin_password isn't"));
            }
            (username, password) => {
                Some(AdminAccount { username: username.to_owned(), password: Secret::new(password.to_owned()) })
            }
        };
        let session_ttl = loaded.duration("session_ttl")?;
        if session_ttl.is_zero() {
            return Err(loaded.invalid("session_ttl", "expected at least 1s"));
        }
        Ok(Self {
            registration,
            admin,
            session_ttl,
            sessions_per_user: i64::try_from(loaded.number("sessions_per_user", 1..=10_000)?).unwrap_or(10_000),
            auth_rate_per_minute: rate(loaded, "auth_rate_per_minute")?,
            ip_rate_per_minute: rate(loaded, "ip_rate_per_minute")?,
            hash_parallelism: usize::try_from(loaded.number("password_hash_parallelism", 0..=256)?).unwrap_or(256),
        })
    }
}

fn rate(loaded: &Loaded, key: &'static str) -> Result<u32, ConfigError> {
    loaded.number(key, 0..=1_000_000).map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}
