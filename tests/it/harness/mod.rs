//! Starts the real server in this process, on a free port, on a fresh database of either engine, with a clock that the
//! test moves. Nothing is mocked, and nothing is skipped: where Postgres is missing, the tests fail and say what to install.

mod client;
mod listener;
pub mod otlp;
pub mod postgres;
pub mod program;
pub mod smtp;

use std::sync::Arc;
use std::time::Duration;

use keyward::base::clock::{ManualClock, Timestamp};
use keyward::base::rng::SystemRng;
use keyward::ctx::Ctx;
use keyward::features::projects;
use keyward::infra::config::{Config, Loaded};
use keyward::infra::db::{self, Db};
use keyward::infra::net::{Outbound, Resolve};
use keyward::server::{self, Listeners, Stop};
use keyward::worker::Workers;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use client::{Answer, Call, PASSWORD, Session};
pub use listener::Listener;

/// Which storage a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// Runs each test once on each engine, as `name::sqlite` and `name::postgres`.
#[macro_export]
macro_rules! both_engines {
    ($($(#[$meta:meta])* async fn $name:ident($engine:ident: Engine) $body:block)*) => {$(
        $(#[$meta])*
        async fn $name($engine: $crate::harness::Engine) $body

        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$name($crate::harness::Engine::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::$name($crate::harness::Engine::Postgres).await;
            }
        }
    )*};
}

/// A fresh database of an engine; gone when dropped.
pub struct Scratch {
    pub url: String,
    /// Holds the SQLite file.
    pub dir: Option<tempfile::TempDir>,
}

impl Scratch {
    /// With the schema already there on Postgres (copied from a template), empty on SQLite.
    pub async fn new(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let dir = tempfile::tempdir().unwrap();
                Self { url: format!("sqlite://{}", dir.path().join("keyward.db").display()), dir: Some(dir) }
            }
            Engine::Postgres => Self { url: postgres::shared().await.database().await, dir: None },
        }
    }
}

/// The running service.
pub struct App {
    pub url: String,
    pub metrics_url: String,
    pub clock: Arc<ManualClock>,
    pub ctx: Ctx,
    pub http: reqwest::Client,
    stop: Option<oneshot::Sender<Stop>>,
    running: Option<JoinHandle<()>>,
    _scratch: Scratch,
}

/// The settings of a test: free ports, and no limit by address unless the test sets one.
pub fn settings(url: &str, overrides: &[(&str, &str)]) -> Config {
    let mut environment = vec![
        ("DATABASE_URL".to_owned(), url.to_owned()),
        ("KEYWARD_PORT".to_owned(), "0".to_owned()),
        ("KEYWARD_METRICS_PORT".to_owned(), "0".to_owned()),
        ("KEYWARD_AUTH_RATE_PER_MINUTE".to_owned(), "0".to_owned()),
        ("KEYWARD_DRAIN_DELAY".to_owned(), "0".to_owned()),
        ("KEYWARD_DATABASE_MAX_CONNECTIONS".to_owned(), "6".to_owned()),
    ];
    // On Postgres its file would stand in the working directory.
    if url.starts_with("postgres") {
        environment.push(("KEYWARD_AUDIT_SIGNING_KEY".to_owned(), AUDIT_SEED.to_owned()));
    }
    environment.extend(overrides.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Config::parse(&Loaded::load(None, environment, []).unwrap()).unwrap()
}

/// The seed of the key that signs the audit trail of tests on Postgres.
pub const AUDIT_SEED: &str = "a2V5d2FyZCB0ZXN0cyBzaWduIHdpdGggdGhpcyBzZWU=";

/// Noon of a day long after this was written.
pub fn noon() -> Timestamp {
    Timestamp::parse("2031-05-06T12:00:00Z").unwrap()
}

impl App {
    /// On a fresh database, with the test's settings.
    pub async fn start(engine: Engine) -> Self {
        Self::start_with(engine, &[]).await
    }

    /// With some settings of the test's own, by the names of their environment variables.
    pub async fn start_with(engine: Engine, overrides: &[(&str, &str)]) -> Self {
        Self::start_on(Scratch::new(engine).await, overrides).await
    }

    /// On a database of the test's own.
    pub async fn start_on(scratch: Scratch, overrides: &[(&str, &str)]) -> Self {
        let config = settings(&scratch.url, overrides);
        let outbound = Outbound::new(config.outbound.allow.clone());
        Self::start_reaching(scratch, config, outbound).await
    }

    /// With names that are resolved by the test.
    pub async fn start_resolving(engine: Engine, overrides: &[(&str, &str)], names: Box<dyn Resolve>) -> Self {
        let scratch = Scratch::new(engine).await;
        let config = settings(&scratch.url, overrides);
        let outbound = Outbound::with_resolver(config.outbound.allow.clone(), names);
        Self::start_reaching(scratch, config, outbound).await
    }

    async fn start_reaching(scratch: Scratch, config: Config, outbound: Outbound) -> Self {
        let db = Db::open(&config.database).await.unwrap();
        db::migrate(&db).await.unwrap();
        let clock = Arc::new(ManualClock::at(noon()));
        let listeners = Listeners::open(&config.server).unwrap();
        let (public, metrics) = listeners.addresses().unwrap();
        let ctx = Ctx::with_outbound(db, clock.clone(), Arc::new(SystemRng), config, outbound).unwrap();
        projects::ensure_system(&ctx).await.unwrap();
        keyward::features::users::manage::ensure_admin(&ctx).await.unwrap();

        let workers = Workers::start(&ctx).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn({
            let ctx = ctx.clone();
            async move {
                let stop = async { stopped.await.unwrap_or(Stop::Now) };
                server::serve(&ctx, listeners, stop, std::future::pending()).await;
                workers.stop().await;
                ctx.db.close().await;
            }
        });
        Self {
            url: format!("http://{public}"),
            metrics_url: format!("http://{metrics}/metrics"),
            clock,
            ctx,
            // Redirects and retries would hide what the service said.
            http: reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap(),
            stop: Some(stop),
            running: Some(running),
            _scratch: scratch,
        }
    }

    /// Moves time.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Tells the service to stop, and gives what waits for its end.
    pub fn stop(&mut self, how: Stop) -> JoinHandle<()> {
        let _ = self.stop.take().unwrap().send(how);
        self.running.take().unwrap()
    }

    /// What the metrics listener says now.
    pub async fn metrics(&self) -> String {
        self.http.get(&self.metrics_url).send().await.unwrap().text().await.unwrap()
    }

    /// One number of a table, by a query without parameters in the words of both engines.
    pub async fn count(&self, sql: &'static str) -> i64 {
        match &self.ctx.db {
            Db::Postgres(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
            Db::Sqlite(db) => sqlx::query_scalar(sql).fetch_one(db.readers()).await.unwrap(),
        }
    }

    /// Changes the database behind the service's back, which is told only that something has changed.
    pub async fn tamper(&self, sql: &'static str) {
        match &self.ctx.db {
            Db::Postgres(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
            Db::Sqlite(db) => drop(sqlx::query(sql).execute(db.writer()).await.unwrap()),
        }
        self.ctx.gate.forget_all();
    }
}
