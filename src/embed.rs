//! Keyward inside another program: its layers around somebody else's axum application.
//!
//! `examples/embed.rs` is a whole program. The application needs no HTTP route of Keyward's; keys are made with the
//! command line, or by a Keyward service on the same storage, whose changes are obeyed within a second.

use std::sync::Arc;

use crate::base::clock::SystemClock;
use crate::base::rng::SystemRng;
use crate::ctx::Ctx;
use crate::features::auth::layers::{Authenticate, Concurrency, RateLimits};
use crate::features::projects;
use crate::infra::config::Config;
use crate::infra::db::{self, Db, DbError, MigrationState, StartError};
use crate::worker::Workers;

pub use crate::features::auth::layers::ApiKey;

/// An open Keyward: its storage, what it has in memory, and the work in the background.
#[derive(Debug)]
pub struct Keyward {
    ctx: Ctx,
    workers: Workers,
}

/// Keyward can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The storage can't be opened, or its schema doesn't fit.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] DbError),
    /// Two metrics of one name: a defect.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Opens the storage and brings its schema up to date, or says that it isn't.
///
/// # Errors
/// A sentence for the operator.
pub async fn open_storage(config: &Config) -> Result<Db, StartError> {
    let db = Db::open(&config.database).await?;
    if config.database.migrate_on_start {
        db::migrate(&db).await?;
    } else {
        match db::migration_state(&db).await? {
            MigrationState::Current(_) => {}
            MigrationState::Behind(_) => return Err(StartError::Older),
            MigrationState::Ahead(version) => return Err(StartError::Newer(version)),
        }
    }
    Ok(db)
}

impl Keyward {
    /// Opens it. Needs to run within tokio.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let db = open_storage(&config).await?;
        let ctx = Ctx::new(db, Arc::new(SystemClock::new()), Arc::new(SystemRng), config)?;
        projects::ensure_system(&ctx).await?;
        let workers = Workers::start(&ctx).await?;
        Ok(Self { ctx, workers })
    }

    /// Answers `401` to requests without a good key; puts an [`ApiKey`] into the extensions of the others. A client's
    /// address is known where the application is served with `into_make_service_with_connect_info::<SocketAddr>()`; without
    /// it, a key with an allow list of addresses is refused.
    #[must_use]
    pub fn authenticate(&self) -> Authenticate {
        Authenticate::required(self.ctx.clone())
    }

    /// Answers `429` where a key has too many requests at once. Inside of [`authenticate`](Self::authenticate).
    #[must_use]
    pub fn concurrency(&self) -> Concurrency {
        Concurrency::new(self.ctx.clone())
    }

    /// Spends from a key's windows, or answers `429`. Inside of [`concurrency`](Self::concurrency).
    #[must_use]
    pub fn rate_limits(&self) -> RateLimits {
        RateLimits::new(self.ctx.clone())
    }

    /// Its capabilities, for the use-cases in [`features`](crate::features).
    #[must_use]
    pub fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    /// Writes what is only in memory, and closes the storage. To be called when no request is worked on any more; without
    /// it, up to a second's use is forgotten.
    pub async fn close(self) {
        self.workers.stop().await;
        self.ctx.db.close().await;
    }
}
