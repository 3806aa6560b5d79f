//! The command line: a thin layer over the same use-cases as the HTTP service.
//!
//! Results go to standard output, everything else to standard error. Exit status: 0 done, 1 refused or not found, 2 usage.

mod alerts;
mod args;
mod audit;
mod config;
mod doctor;
mod keys;
mod lifecycle;
mod limits;
mod moving;
mod output;
mod projects;
mod proof;
mod ratelimit;
mod scopes;
mod serve;
mod services;
mod trail;
mod usage;
mod users;
mod webhooks;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use crate::base::clock::SystemClock;
use crate::base::rng::SystemRng;
use crate::ctx::Ctx;
use crate::embed::open_storage;
use crate::features::audit::chain;
use crate::infra::config::{Config, ConfigError, DatabaseUrl, Loaded};
use crate::infra::db::{self, Db, MigrationState, StartError};
use crate::infra::telemetry::logs::{self, Output};

use args::{Command, Format, Invocation};

/// Why a command didn't do what it was told.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The call or the configuration is wrong: exit status 2.
    Usage(String),
    /// It was refused, or there is nothing such: exit status 1.
    Refused(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

macro_rules! refused {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Refused(error.to_string())
            }
        }
    )*};
}

refused!(
    StartError,
    crate::infra::db::DbError,
    prometheus::Error,
    crate::server::ListenError,
    crate::features::users::register::RegisterError,
    crate::features::users::admin::AdminError,
    crate::features::projects::ProjectError,
    crate::features::keys::create::CreateError,
    crate::features::keys::change::ChangeError,
    crate::features::keys::moving::import::ImportError,
    crate::features::scopes::ScopesError,
    crate::features::alerts::AlertError,
    crate::features::audit::read::ReadError,
    crate::features::webhooks::WebhookError,
    crate::features::services::restart::RestartError,
    std::io::Error
);

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Invocation::parse() {
        Ok(invocation) => run(invocation),
        // Help and version are printed, and done; everything else is usage.
        Err(error) => error.exit(),
    };
    logs::close();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (text, status) = match failure {
                Failure::Usage(text) => (text, 2),
                Failure::Refused(text) => (text, 1),
            };
            output::complain(&format!("keyward: {text}"));
            ExitCode::from(status)
        }
    }
}

fn run(invocation: Invocation) -> Result<(), Failure> {
    let Invocation { command, format, file, flags } = invocation;
    if let Command::Completions { shell } = command {
        return output::completions(shell);
    }
    if let Command::Audit(args::Audit::Verify(args)) = &command
        && let Some(path) = &args.file
    {
        return proof::verify_file(args, path, format);
    }
    let file = file.or_else(|| std::env::var_os("KEYWARD_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    let loaded = Loaded::load(file.as_deref(), environment()?, flags)?;
    let config = Config::parse(&loaded)?;
    let output = if matches!(command, Command::Serve) { Output::Stdout } else { Output::Stderr };
    logs::init(&config.log, config.otlp.as_ref(), output)?;
    for setting in loaded.without_effect() {
        tracing::warn!(setting = setting.key, "this setting has no effect in this version yet");
    }

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Serve => serve::serve(config).await,
            Command::Migrate => migrate(&config, format).await,
            Command::Doctor => doctor::doctor(&config, format).await,
            Command::Config => config::show(&loaded, format),
            Command::Openapi => config::openapi(config).await,
            Command::Users(_)
            | Command::Projects(_)
            | Command::Keys(_)
            | Command::Ratelimit(_)
            | Command::Usage(_)
            | Command::Scopes(_)
            | Command::Alerts(_)
            | Command::Audit(_)
            | Command::Webhooks(_)
            | Command::Services(_)
                if command.only_looks() && is_missing(&config) =>
            {
                Err(no_database())
            }
            Command::Users(command) => users::run(&ready(config).await?, command, format).await,
            Command::Projects(command) => projects::run(&ready(config).await?, command, format).await,
            Command::Keys(command) => keys::run(&ready(config).await?, command, format).await,
            Command::Ratelimit(command) => ratelimit::run(&ready(config).await?, command, format).await,
            Command::Usage(command) => usage::run(&ready(config).await?, command, format).await,
            Command::Scopes(command) => scopes::run(&ready(config).await?, command, format).await,
            Command::Alerts(command) => alerts::run(&ready(config).await?, command, format).await,
            Command::Audit(command) => audit::run(&ready(config).await?, command, format).await,
            Command::Webhooks(command) => webhooks::run(&ready(config).await?, command, format).await,
            Command::Services(command) => services::run(&ready(config).await?, command, format).await,
            Command::Completions { .. } => Ok(()),
        }
    })
}

/// The environment's variables; ours must be text.
fn environment() -> Result<Vec<(String, String)>, Failure> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) if name.starts_with("KEYWARD_") || name == "DATABASE_URL" || name == "REDIS_URL" => {
                Err(Failure::Usage(format!("{name} isn't valid UTF-8")))
            }
            // Of no interest to us.
            Err(_) => Ok((name, String::new())),
        })
        .collect()
}

async fn migrate(config: &Config, format: Format) -> Result<(), Failure> {
    let db = Db::open(&config.database).await?;
    let applied = match db::migration_state(&db).await? {
        MigrationState::Behind(count) => count,
        MigrationState::Current(_) | MigrationState::Ahead(_) => 0,
    };
    db::migrate(&db).await?;
    let state = db::migration_state(&db).await?;
    db.close().await;
    match (format, state) {
        (Format::Json, MigrationState::Current(version)) => {
            output::json(&serde_json::json!({ "applied": applied, "version": version }))
        }
        (Format::Json, _) => output::json(&serde_json::json!({ "applied": applied })),
        (Format::Table, _) if applied > 0 => {
            output::say(&format!("applied {applied} migration(s)"));
            Ok(())
        }
        (Format::Table, _) => {
            output::say("the schema is up to date");
            Ok(())
        }
    }
}

/// Whether the configured SQLite file isn't there.
fn is_missing(config: &Config) -> bool {
    matches!(&config.database.url, DatabaseUrl::Sqlite(path) if !path.exists())
}

/// Looking for something in a database that isn't there would make an empty one, in the wrong directory perhaps.
fn no_database() -> Failure {
    Failure::Refused(
        "there is no database at database_url (see `keyward config`); the first start of the service makes it"
            .to_owned(),
    )
}

/// Seals what the command has written to the audit trail, where the key is at hand: no service may be running that does.
/// Whoever reads the command's output isn't told of it.
async fn finish(ctx: &Ctx) {
    let seal = async {
        chain::open(ctx, false).await;
        chain::seal::seal_now(ctx).await;
    };
    seal.with_subscriber(NoSubscriber::default()).await;
    ctx.db.close().await;
}

/// What a command works with.
async fn ready(config: Config) -> Result<Ctx, Failure> {
    // Looked at first: migrating takes the one lock there is, for which a busy service would have to wait.
    let mut db = Db::open(&config.database).await?;
    if !matches!(db::migration_state(&db).await?, MigrationState::Current(_)) {
        db.close().await;
        db = open_storage(&config).await?;
    }
    let ctx = Ctx::new(db, Arc::new(SystemClock::new()), Arc::new(SystemRng), config)?;
    crate::features::projects::ensure_system(&ctx).await?;
    crate::features::sensitive::memory::read_in(&ctx).await?;
    Ok(ctx)
}
