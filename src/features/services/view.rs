//! How services are shown.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::id::ServiceOperationId;
use crate::ctx::Ctx;
use crate::infra::config::{ServiceConfig, ServiceName};
use crate::infra::db::DbError;

use super::rules::{Seen, Standing, State};
use super::store;

/// A watched service, as it stands.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Service)]
pub struct ServiceView {
    /// Its name in the configuration.
    #[schema(example = "worker")]
    pub name: String,
    /// `process`, `http` or `watch`.
    #[schema(example = "process")]
    pub kind: &'static str,
    /// How it stands; `unknown` where nobody watches it.
    pub state: State,
    /// Since when.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub since: Option<Timestamp>,
    /// Why, where there is something to say.
    #[schema(required = true, example = "check http-0: status 503")]
    pub reason: Option<String>,
    /// Whether a replica watches it at present.
    pub is_watched: bool,
    /// Failures in a row of the check that has most.
    #[schema(minimum = 0, example = 0)]
    pub failures: u32,
    /// All restarts, by hand and by policy.
    #[schema(minimum = 0, example = 2)]
    pub restarts: u64,
    /// The last of them.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub last_restart_at: Option<Timestamp>,
    /// The one that is under way.
    #[schema(required = true)]
    pub operation_id: Option<ServiceOperationId>,
    /// What the newest check has seen; written within five seconds, at once where it changes the state.
    #[schema(required = true)]
    pub last_check: Option<LastCheck>,
    /// Each check.
    pub checks: Vec<CheckView>,
}

/// The newest result of all checks.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ServiceLastCheck)]
pub struct LastCheck {
    /// Which check.
    #[schema(example = "http-0")]
    pub name: String,
    /// What it saw.
    #[serde(flatten)]
    pub seen: Seen,
}

/// One check, as it stands.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ServiceCheck)]
pub struct CheckView {
    /// Its name among the service's checks.
    #[schema(example = "http-0")]
    pub name: String,
    /// `http`, `tcp` or `command`.
    #[schema(example = "http")]
    pub kind: &'static str,
    /// Whether it holds the service for up; `null` before it is sure.
    #[schema(required = true)]
    pub is_up: Option<bool>,
    /// Failures in a row.
    #[schema(minimum = 0, example = 0)]
    pub failures: u32,
    /// What it saw last.
    #[schema(required = true)]
    pub last: Option<Seen>,
}

/// Every service of the configuration, in the order of their names.
///
/// # Errors
/// The storage.
pub async fn all(ctx: &Ctx) -> Result<Vec<ServiceView>, DbError> {
    let now = ctx.now();
    let rows = store::all(ctx.db.reader().await?.conn()).await?;
    let mut rows: BTreeMap<String, store::Row> = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
    let view = |service: &ServiceConfig| {
        let row = rows.remove(service.name.as_str());
        let is_watched = row.as_ref().is_some_and(|row| row.lease_until.is_some_and(|until| until > now));
        view(service, row.and_then(store::Row::standing), is_watched)
    };
    Ok(ctx.config.services.iter().map(view).collect())
}

/// One service; `None` where the configuration names none such.
///
/// # Errors
/// The storage.
pub async fn one(ctx: &Ctx, name: &ServiceName) -> Result<Option<ServiceView>, DbError> {
    if super::find(ctx, name).is_none() {
        return Ok(None);
    }
    Ok(all(ctx).await?.into_iter().find(|service| service.name == name.as_str()))
}

fn view(service: &ServiceConfig, standing: Option<Standing>, is_watched: bool) -> ServiceView {
    let since = standing.as_ref().map(|standing| standing.since);
    let standing = standing.unwrap_or_else(|| Standing::new(Timestamp::EPOCH));
    let checks: Vec<CheckView> = service
        .checks
        .iter()
        .map(|config| {
            let check = standing.checks.get(&config.name).cloned().unwrap_or_default();
            CheckView {
                name: config.name.clone(),
                kind: config.kind.word(),
                is_up: check.verdict,
                failures: check.failures,
                last: check.last,
            }
        })
        .collect();
    let last = checks.iter().filter_map(|check| Some((check, check.last.as_ref()?))).max_by_key(|(_, seen)| seen.at);
    ServiceView {
        last_check: last.map(|(check, seen)| LastCheck { name: check.name.clone(), seen: seen.clone() }),
        name: service.name.to_string(),
        kind: service.kind.word(),
        state: if is_watched { standing.state } else { State::Unknown },
        since,
        reason: if is_watched { standing.reason.clone() } else { None },
        is_watched,
        failures: standing.failures(),
        restarts: standing.restarts,
        last_restart_at: standing.last_restart_at,
        operation_id: standing.operation,
        checks,
    }
}
