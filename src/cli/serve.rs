//! `keyward serve`.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::base::clock::SystemClock;
use crate::base::rng::SystemRng;
use crate::ctx::Ctx;
use crate::embed::open_storage;
use crate::features::{projects, users};
use crate::infra::config::{Config, LogFormat};
use crate::infra::telemetry::{logs, otlp};
use crate::server::{self, Listeners, Stop};
use crate::worker::Workers;

use super::{Failure, output};

/// How long the storage may take to close.
const CLOSE: Duration = Duration::from_secs(3);

/// SIGXFSZ, the same number on Linux and macOS.
const FILE_SIZE_SIGNAL: i32 = 25;

/// Runs the service until it is told to stop.
pub(super) async fn serve(config: Config) -> Result<(), Failure> {
    // A panic is a defect: its place goes to the log, its message doesn't, since it may quote a value.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked");
    }));
    // SIGXFSZ would end the process where a limit on file sizes is reached; handled, the write fails, and is answered 503.
    let _file_size = signal(SignalKind::from_raw(FILE_SIZE_SIGNAL))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => Stop::Drain,
            _ = interrupt.recv() => Stop::Now,
        }
    };
    let listeners = Listeners::open(&config.server)?;
    let (public, metrics) = listeners.addresses()?;
    let mut stop = std::pin::pin!(stop);

    let start = async {
        let db = open_storage(&config).await?;
        let format = config.log.format;
        let ctx = Ctx::new(db, Arc::new(SystemClock::new()), Arc::new(SystemRng), config)?;
        ctx.set_access_log(logs::access());
        if let Some(otlp) = otlp::active() {
            otlp.identify(&ctx.origin);
        }
        projects::ensure_system(&ctx).await?;
        users::manage::ensure_admin(&ctx).await?;
        let workers = Workers::start(&ctx).await?;
        Ok::<_, Failure>((ctx, format, workers))
    };
    let (ctx, format, workers) = tokio::select! {
        started = start => started?,
        // Told to stop while still waiting for the database.
        _ = &mut stop => return Ok(()),
    };
    greet(&ctx, format, public, metrics);

    let hurry = async {
        // A second signal, whichever: the first has been taken.
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    server::serve(&ctx, listeners, stop, hurry).await;
    workers.stop().await;
    // A server that hangs must not keep the process.
    if tokio::time::timeout(CLOSE, ctx.db.close()).await.is_err() {
        tracing::warn!("the storage didn't close in time");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Says where the service is, and how to make the first call.
fn greet(ctx: &Ctx, format: LogFormat, public: std::net::SocketAddr, metrics: std::net::SocketAddr) {
    let host = if public.ip().is_unspecified() { "127.0.0.1".to_owned() } else { public.ip().to_string() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let url = format!("http://{host}:{}", public.port());
    let first =
        format!("curl --json '{{\"username\":\"ada\",\"password\":\"choose your own password\"}}' {url}/register");
    let version = env!("CARGO_PKG_VERSION");
    let engine = ctx.db.engine();
    if format == LogFormat::Pretty {
        output::say(&format!(
            "Keyward {version} on {url} ({engine}); metrics on http://{metrics}/metrics\n\
             First call:  {first}\n\
             Then:        {url}/docs shows every call, README.md the first five"
        ));
    } else {
        tracing::info!(version, url, %metrics, engine, first_call = first, docs = format!("{url}/docs"), "serving");
    }
}
