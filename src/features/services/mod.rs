//! Services that the operator declares: Keyward watches them, tells when one is down, and restarts it, by hand or by policy.
//! `docs/services.md` says what is promised.
//!
//! `rules` decides, without I/O; `watch` is the reconciler, which holds a lease of each service in the database, so that of many
//! replicas one acts, and carries out what was decided; `checks` asks whether a service is up; `kinds` has a file for each
//! kind of service. Whatever is run or called comes from the configuration: a request names a service, and nothing else.

pub mod checks;
pub mod http;
pub mod kinds;
pub mod output;
pub mod restart;
pub mod rules;
pub mod store;
pub mod view;
pub mod watch;
mod write;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::{ServiceHistoryId, ServiceOperationId};
use crate::base::page::{Cursor, Limit, Page};
use crate::ctx::Ctx;
use crate::infra::config::{ServiceConfig, ServiceName};
use crate::infra::db::DbError;

use rules::Cause;

/// How long restarts and history are kept.
const KEPT: Duration = Duration::from_hours(90 * 24);
/// How long a restart that was asked for may wait for somebody to begin it.
const UNBEGUN: Duration = Duration::from_hours(1);

/// How far a restart is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ServiceOperationState)]
pub enum OperationState {
    /// Asked for; whoever watches the service begins it within a second.
    Requested,
    /// Under way.
    Running,
    /// The process was started anew, or the hook answered 200 to 299. Whether the service came up is its own state.
    Succeeded,
    /// It came to nothing; `error` says why.
    Failed,
}

impl OperationState {
    fn from_word(word: &str) -> Self {
        match word {
            "requested" => Self::Requested,
            "running" => Self::Running,
            "succeeded" => Self::Succeeded,
            _ => Self::Failed,
        }
    }
}

/// A restart of a service.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ServiceOperation)]
pub struct Operation {
    /// Its id.
    pub id: ServiceOperationId,
    /// Of which service.
    #[schema(example = "worker")]
    pub service: String,
    /// Who wanted it.
    pub cause: Cause,
    /// How far it is.
    pub state: OperationState,
    /// What was said about it.
    #[schema(required = true, example = "a new configuration")]
    pub reason: Option<String>,
    /// The id of the person or key, or `system`.
    #[schema(example = "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    pub requested_by: String,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub requested_at: Timestamp,
    /// When it was begun.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub ended_at: Option<Timestamp>,
    /// Why it came to nothing.
    #[schema(required = true, example = "status 503")]
    pub error: Option<String>,
}

/// A change of a service's state.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ServiceHappening)]
pub struct Happening {
    /// Its id.
    pub id: ServiceHistoryId,
    /// When.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub at: Timestamp,
    /// The state from then on.
    #[schema(example = "down")]
    pub state: String,
    /// Why.
    #[schema(required = true, example = "check http-0: status 503")]
    pub reason: Option<String>,
    /// The restart that it belongs to.
    #[schema(required = true)]
    pub operation_id: Option<ServiceOperationId>,
}

/// A service of the configuration.
#[must_use]
pub fn find<'a>(ctx: &'a Ctx, name: &ServiceName) -> Option<&'a ServiceConfig> {
    ctx.config.services.iter().find(|service| service.name == *name)
}

/// A restart of a service that the configuration names.
///
/// # Errors
/// The storage.
pub async fn operation(ctx: &Ctx, id: ServiceOperationId) -> Result<Option<Operation>, DbError> {
    let found = store::operation(ctx.db.reader().await?.conn(), id).await?;
    Ok(found.filter(|operation| operation.service.parse().is_ok_and(|name| find(ctx, &name).is_some())))
}

/// A page of a service's changes of state, newest first.
///
/// # Errors
/// The storage.
pub async fn history(
    ctx: &Ctx,
    service: &ServiceName,
    after: Option<Cursor<ServiceHistoryId>>,
    limit: Limit,
) -> Result<Page<Happening>, DbError> {
    let after = after.unwrap_or(Cursor { at: Timestamp::FAR, id: ServiceHistoryId::from_bits(u128::MAX) });
    let rows = store::history(ctx.db.reader().await?.conn(), service.as_str(), &after, limit).await?;
    Ok(Page::cut(rows, limit, |happening| Cursor { at: happening.at, id: happening.id }))
}

/// Ends restarts that nobody began, and removes what is older than ninety days.
///
/// # Errors
/// The storage.
pub async fn prune(ctx: &Ctx) -> Result<(), DbError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    store::prune(&mut tx, now.saturating_sub(UNBEGUN), now.saturating_sub(KEPT), now).await?;
    tx.commit().await
}
