//! How a service of each kind is restarted. A further kind is a further variant of
//! [`ServiceKind`](crate::infra::config::ServiceKind), and a file here.

pub mod http;
pub mod process;

use crate::base::id::ServiceOperationId;
use crate::ctx::Ctx;
use crate::infra::config::{ServiceConfig, ServiceKind};

use super::rules::{Cause, Recorded};
use process::Process;

/// What is there to be restarted: a process of ours, where there is one, or one that somebody before us has left.
#[derive(Default)]
pub struct Handle {
    /// Ours.
    pub process: Option<Process>,
    /// Somebody's before us.
    pub left: Option<Recorded>,
}

/// Restarts a service. What comes back is the process that runs from now on, for a kind that has one.
///
/// # Errors
/// Why it came to nothing, for people.
pub async fn restart(
    ctx: &Ctx,
    service: &ServiceConfig,
    handle: Handle,
    operation: ServiceOperationId,
    cause: Cause,
) -> Result<Option<Process>, String> {
    match &service.kind {
        ServiceKind::Process(_) => start(ctx, service, handle).await,
        ServiceKind::Http(hook) => http::call(ctx, &service.name, hook, operation, cause).await.map(|()| None),
        ServiceKind::Watch => Err("a service of the kind watch can't be restarted".to_owned()),
    }
}

/// Starts what Keyward has to start: a process, after the one before it has ended.
///
/// # Errors
/// Why it came to nothing, for people.
pub async fn start(ctx: &Ctx, service: &ServiceConfig, handle: Handle) -> Result<Option<Process>, String> {
    let ServiceKind::Process(config) = &service.kind else { return Ok(None) };
    if let Some(process) = handle.process {
        process.stop(ctx, config.stop_grace).await;
    }
    if let Some(left) = &handle.left {
        process::end_left(ctx, &service.name, left, config.stop_grace).await;
    }
    Process::start(ctx, &service.name, config).map(Some)
}
