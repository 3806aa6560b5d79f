//! What a request or a worker may use: storage, time, randomness, settings, and what is shared in memory.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::base::clock::{Clock, Timestamp};
use crate::base::rng::Rng;
use crate::infra::address_limit::AddressLimit;
use crate::infra::config::Config;
use crate::infra::db::Db;
use crate::infra::passwords::Passwords;
use crate::infra::sink::UsageSink;
use crate::infra::telemetry::metrics::Metrics;

/// The capabilities, cheap to clone.
#[derive(Clone)]
pub struct Ctx(Arc<Capabilities>);

/// See [`Ctx`].
pub struct Capabilities {
    /// The storage.
    pub db: Db,
    /// The only clock.
    pub clock: Arc<dyn Clock>,
    /// The only source of randomness.
    pub rng: Arc<dyn Rng>,
    /// The settings.
    pub config: Config,
    /// Hashing of passwords.
    pub passwords: Passwords,
    /// Counters for Prometheus.
    pub metrics: Metrics,
    /// Uses of keys that aren't written yet.
    pub usage: UsageSink,
    /// Limits by client address.
    pub limits: AddressLimits,
    started: Duration,
    draining: AtomicBool,
}

/// One limit a purpose, so that one can't use up the other.
#[derive(Debug)]
pub struct AddressLimits {
    /// `POST /register`.
    pub register: AddressLimit,
    /// `POST /login`.
    pub login: AddressLimit,
    /// `PUT /v1/users/me/password`.
    pub password: AddressLimit,
    /// Everything but health.
    pub all: AddressLimit,
}

impl Ctx {
    /// Puts the capabilities together.
    ///
    /// # Errors
    /// Two metrics of one name: a defect.
    pub fn new(db: Db, clock: Arc<dyn Clock>, rng: Arc<dyn Rng>, config: Config) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::new()?;
        let limit = |per_minute| AddressLimit::new(per_minute, Arc::clone(&clock));
        Ok(Self(Arc::new(Capabilities {
            passwords: Passwords::new(
                config.auth.hash_parallelism,
                Arc::clone(&rng),
                metrics.password_hashes_waiting.clone(),
            ),
            limits: AddressLimits {
                register: limit(config.auth.auth_rate_per_minute),
                login: limit(config.auth.auth_rate_per_minute),
                password: limit(config.auth.auth_rate_per_minute),
                all: limit(config.auth.ip_rate_per_minute),
            },
            usage: UsageSink::default(),
            started: clock.monotonic(),
            draining: AtomicBool::new(false),
            metrics,
            db,
            clock,
            rng,
            config,
        })))
    }
}

impl Capabilities {
    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How long the process has been up.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.started)
    }

    /// Says from now on that the process is about to end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process is about to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl Deref for Ctx {
    type Target = Capabilities;

    fn deref(&self) -> &Capabilities {
        &self.0
    }
}

impl std::fmt::Debug for Ctx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx").field("engine", &self.db.engine()).finish_non_exhaustive()
    }
}
