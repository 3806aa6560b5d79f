//! Connecting to Postgres.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, PgPool};

use crate::base::secret::Secret;
use crate::infra::config::DatabaseConfig;

use super::{STATEMENT_TIMEOUT, StartError};

/// A connection that was idle for longer is asked for a sign of life before it is lent, so that a restart of the server
/// costs nobody a request. One that was used a moment ago isn't: the check costs a quarter of the look-ups a second.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

pub(super) async fn open(url: &Secret, config: &DatabaseConfig) -> Result<PgPool, StartError> {
    let server_timeout = STATEMENT_TIMEOUT.saturating_sub(Duration::from_secs(1)).as_millis().to_string();
    let options = url
        .expose()
        .parse::<PgConnectOptions>()
        .map_err(|_| StartError::Refused("DATABASE_URL isn't a valid Postgres URL".to_owned()))?
        .application_name("keyward")
        .options([
            ("statement_timeout", server_timeout.as_str()),
            ("idle_in_transaction_session_timeout", server_timeout.as_str()),
        ])
        // Statements and their timing are the business of the server's own log.
        .disable_statement_logging();
    wait(&options, config.start_timeout).await?;
    Ok(PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                Ok(meta.idle_for < TRUSTED_IDLE
                    || matches!(tokio::time::timeout(Duration::from_secs(1), connection.ping()).await, Ok(Ok(()))))
            })
        })
        .connect_lazy_with(options))
}

/// Tries until the server answers, with a growing pause; gives up at once on what waiting doesn't mend.
async fn wait(options: &PgConnectOptions, patience: Duration) -> Result<(), StartError> {
    let attempts = async {
        let mut pause = Duration::from_millis(100);
        loop {
            let cause = match options.connect().await {
                Ok(connection) => {
                    // Best effort: the server forgets a connection whose socket closes.
                    drop(connection.close().await);
                    return Ok(());
                }
                Err(error) => error,
            };
            let starting = match &cause {
                sqlx::Error::Io(_) => true,
                // 57P03: the server is starting up or shutting down; 53300: too many connections.
                sqlx::Error::Database(error) => {
                    matches!(error.code().as_deref(), Some("57P03" | "53300"))
                }
                _ => false,
            };
            if !starting {
                return Err(StartError::Refused(cause.to_string()));
            }
            if pause == Duration::from_millis(100) {
                tracing::warn!(cause = %cause, "waiting for Postgres");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    };
    match tokio::time::timeout(patience, attempts).await {
        Ok(result) => result,
        Err(_) => Err(StartError::NoAnswer {
            waited_seconds: patience.as_secs(),
            cause: "the address doesn't accept connections, or the server is still starting".to_owned(),
        }),
    }
}
