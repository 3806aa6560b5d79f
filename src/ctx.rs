//! What a request or a worker may use: storage, time, randomness, settings, and what is shared in memory.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::base::clock::{Clock, Timestamp};
use crate::base::rng::Rng;
use crate::gate::{self, Bounds, Gate, Limit, Moment, Sample, ServerDefaults};
use crate::infra::address_limit::AddressLimit;
use crate::infra::audit_key::Keyring;
use crate::infra::bodies::Bodies;
use crate::infra::config::{Config, MAX_BODY_BYTES};
use crate::infra::db::Db;
use crate::infra::net::Outbound;
use crate::infra::origins::Origins;
use crate::infra::passwords::Passwords;
use crate::infra::refusals::Refusals;
use crate::infra::sensitive::SensitiveFields;
use crate::infra::telemetry::access::AccessLog;
use crate::infra::telemetry::level::LogLevel;
use crate::infra::telemetry::metrics::Metrics;
use crate::infra::vault::Vault;
use crate::infra::wakers::Wakers;

/// Test sends of webhooks at once: a request waits for each, and others need room.
const TRIALS: usize = 32;

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
    /// What decides about keys in memory.
    pub gate: Gate,
    /// Names this process among those that share a storage.
    pub origin: String,
    /// Which pages may call from a browser.
    pub origins: Origins,
    /// What is sensitive in others' documents.
    pub sensitive: SensitiveFields,
    /// Limits by client address.
    pub limits: AddressLimits,
    /// Memory for large bodies.
    pub bodies: Bodies,
    /// Reports of requests are counted a few at a time: in between is time to write.
    pub reporting: tokio::sync::Mutex<()>,
    /// Alert rules are evaluated one time after the other.
    pub evaluating: tokio::sync::Mutex<()>,
    /// Test sends of webhooks at once.
    pub trials: tokio::sync::Semaphore,
    /// Requests to URLs that people gave.
    pub outbound: Outbound,
    /// Refusals that wait to be written to the audit trail.
    pub refusals: Refusals,
    /// What this process logs.
    pub log_level: LogLevel,
    /// Who is told of events.
    pub wakers: Wakers,
    started: Duration,
    /// The wall clock's microseconds at the monotonic clock's zero.
    steady_origin: u64,
    draining: AtomicBool,
    access_log: OnceLock<AccessLog>,
    keyring: OnceLock<Keyring>,
    vault: OnceLock<Vault>,
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
        let outbound = Outbound::new(config.outbound.allow.clone());
        Self::with_outbound(db, clock, rng, config, outbound)
    }

    /// The same with another way out: one whose names are resolved by a test.
    ///
    /// # Errors
    /// Two metrics of one name: a defect.
    pub fn with_outbound(
        db: Db,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        config: Config,
        outbound: Outbound,
    ) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::new(gate::CODES.map(gate::Code::word))?;
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
            bodies: Bodies::new(config.server.max_body_bytes_in_flight, MAX_BODY_BYTES),
            reporting: tokio::sync::Mutex::default(),
            trials: tokio::sync::Semaphore::new(TRIALS),
            evaluating: tokio::sync::Mutex::default(),
            outbound,
            refusals: Refusals::default(),
            log_level: LogLevel::new(config.log.filter.clone()),
            wakers: Wakers::new(config.events.max_streams),
            gate: new_gate(&config),
            sensitive: SensitiveFields::default(),
            origins: Origins::new(config.server.cors_origins.clone()),
            origin: ulid::Ulid::from_parts(clock.now().as_millis(), random(&*rng)).to_string(),
            started: clock.monotonic(),
            steady_origin: u64::try_from(clock.now().as_micros())
                .unwrap_or(0)
                .saturating_sub(micros(clock.monotonic())),
            draining: AtomicBool::new(false),
            access_log: OnceLock::new(),
            keyring: OnceLock::new(),
            vault: OnceLock::new(),
            metrics,
            db,
            clock,
            rng,
            config,
        })))
    }
}

fn new_gate(config: &Config) -> Gate {
    let keys = &config.keys;
    let limit = (keys.default_limit > 0).then(|| Limit {
        name: "default".into(),
        limit: keys.default_limit,
        window_seconds: keys.default_window_seconds,
    });
    let bounds = Bounds { entries: keys.cache_entries, bytes: keys.cache_bytes };
    Gate::new(
        bounds,
        ServerDefaults { limit, concurrency: keys.default_concurrency, sample: Sample::of(config.requests.sample) },
    )
}

fn random(rng: &dyn Rng) -> u128 {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// When something came, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The wall clock.
    pub wall: Timestamp,
    /// The clock that never runs backwards.
    pub monotonic: Duration,
}

impl Capabilities {
    /// Something comes now.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        Arrival { wall: self.now(), monotonic: self.clock.monotonic() }
    }

    /// The moment of an arrival.
    #[must_use]
    pub fn moment_at(&self, arrival: Arrival) -> Moment {
        Moment { wall: arrival.wall.as_micros(), steady: self.steady_origin.saturating_add(micros(arrival.monotonic)) }
    }

    /// This moment, some time after an arrival: half as dear as reading both clocks again.
    #[must_use]
    pub fn moment_after(&self, arrival: Arrival) -> Moment {
        let monotonic = self.clock.monotonic();
        let since = i64::try_from(monotonic.saturating_sub(arrival.monotonic).as_micros()).unwrap_or(i64::MAX);
        Moment {
            wall: arrival.wall.as_micros().saturating_add(since),
            steady: self.steady_origin.saturating_add(micros(monotonic)),
        }
    }

    /// Microseconds since 1970 that never run backwards while the process lives, whatever becomes of the wall clock.
    #[must_use]
    pub fn steady(&self) -> u64 {
        self.steady_origin.saturating_add(micros(self.clock.monotonic()))
    }

    /// This moment, on both clocks.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment { wall: self.now().as_micros(), steady: self.steady() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Where requests are logged; nowhere, until somebody says.
    #[must_use]
    pub fn access_log(&self) -> &AccessLog {
        const OFF: &AccessLog = &AccessLog::off();
        self.access_log.get().unwrap_or(OFF)
    }

    /// Says where requests are logged; the first word counts.
    pub fn set_access_log(&self, log: AccessLog) {
        // A second one would be the same process's.
        drop(self.access_log.set(log));
    }

    /// The keys of the audit trail; none, until they are read.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        static NONE: Keyring = Keyring::empty();
        self.keyring.get().unwrap_or(&NONE)
    }

    /// Gives the keys of the audit trail; the first word counts.
    pub fn set_keyring(&self, keyring: Keyring) {
        drop(self.keyring.set(keyring));
    }

    /// What secrets are encrypted with: read, or made beside the SQLite file, when it is first asked for.
    #[must_use]
    pub fn vault(&self) -> &Vault {
        self.vault.get_or_init(|| Vault::open(&self.config.secrets, &self.config.database, &*self.rng, true))
    }

    /// How long the process has been up.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.started)
    }

    /// Says from now on that the process is about to end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.wakers.end();
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
