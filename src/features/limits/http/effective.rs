//! `GET /v1/keys/{id}/config/effective`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::base::duration::Seconds;
use crate::base::id::KeyId;
use crate::ctx::Ctx;
use crate::features::auth::OnKey;
use crate::features::auth::permission::KeysRead;
use crate::features::limits::status;
use crate::gate::Source;
use crate::gate::restrict::{Methods, Networks, Paths, Schedule};
use crate::web::problem::Problem;

use super::not_found;

/// What holds for a key, and where each value comes from.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = EffectiveConfig, example = json!({
    "limits": [{"name": "minute", "limit": 60, "window": "1m", "window_seconds": 60, "source": "key"}],
    "concurrency": {"value": 0, "source": "server"}, "ip_allow": {"value": ["192.0.2.0/24"], "source": "project"},
    "schedule": {"value": null, "source": "server"}, "method_allow": {"value": null, "source": "server"},
    "path_allow": {"value": null, "source": "server"}
}))]
pub(super) struct EffectiveConfig {
    /// Limits, shorter windows first.
    #[schema(max_items = 16)]
    limits: Vec<EffectiveLimit>,
    /// Simultaneous operations; 0 is off.
    concurrency: Sourced<u32>,
    /// From where; `null` is anywhere.
    ip_allow: Sourced<Option<Networks>>,
    /// When; `null` is always.
    schedule: Sourced<Option<Schedule>>,
    /// For which methods; `null` is any.
    method_allow: Sourced<Option<Methods>>,
    /// For which paths; `null` is any.
    path_allow: Sourced<Option<Paths>>,
}

/// A limit that holds.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct EffectiveLimit {
    /// Its name.
    name: String,
    /// How much it admits.
    limit: u32,
    /// Its window's length in the short form.
    #[schema(example = "1m")]
    window: String,
    /// The same in seconds.
    window_seconds: u64,
    /// Where it comes from.
    source: Source,
}

/// A value that holds.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Sourced<T> {
    /// The value.
    value: T,
    /// Where it comes from.
    source: Source,
}

impl<T> From<(T, Source)> for Sourced<T> {
    fn from((value, source): (T, Source)) -> Self {
        Self { value, source }
    }
}

/// What holds for a key
///
/// The server's values, replaced by its project's, replaced by its own, value by value and limit by limit.
#[utoipa::path(
    get, path = "/v1/keys/{id}/config/effective", operation_id = "getEffectiveConfig", tag = "limits",
    params(("id" = KeyId, Path, description = "Which key")),
    responses(
        (status = 200, description = "Every value, and where it comes from", body = EffectiveConfig),
        (status = 403, description = "The caller may not see keys here"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn effective(
    State(ctx): State<Ctx>,
    OnKey { project, key, .. }: OnKey<KeysRead>,
) -> Result<Json<EffectiveConfig>, Problem> {
    let effective = status::counted(&ctx, key, project).await?.ok_or_else(not_found)?.effective;
    let limits = effective.limits.into_iter().map(|(limit, source)| EffectiveLimit {
        name: limit.name.into(),
        limit: limit.limit,
        window: Seconds::new(limit.window_seconds).unwrap_or(Seconds::MAX).to_string(),
        window_seconds: limit.window_seconds,
        source,
    });
    Ok(Json(EffectiveConfig {
        limits: limits.collect(),
        concurrency: effective.concurrency.into(),
        ip_allow: effective.ip_allow.into(),
        schedule: effective.schedule.into(),
        method_allow: effective.method_allow.into(),
        path_allow: effective.path_allow.into(),
    }))
}
