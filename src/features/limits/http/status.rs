//! `GET` and `PUT /v1/keys/{id}/limits`, `POST /v1/keys/{id}/limits/reset`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::base::id::{KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::features::auth::OnKey;
use crate::features::auth::permission::{KeysRead, KeysUpdate};
use crate::features::keys::change::{self, Patch, Target};
use crate::features::keys::create::concurrency;
use crate::features::limits::status::{self, Counted};
use crate::gate::Limits;
use crate::web::extract::{Json as Body, Nothing, OptionalJson};
use crate::web::problem::Problem;
use crate::web::rate;

use super::not_found;

/// How a key's limits stand.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LimitsStatus, example = json!({
    "limits": [{"name": "minute", "limit": 60, "window_seconds": 60, "used": 12, "remaining": 48, "reset_seconds": 55}],
    "concurrency": {"limit": 5, "in_use": 1}
}))]
pub(super) struct LimitsStatus {
    /// Every window that holds for the key, shorter ones first.
    #[schema(max_items = 16)]
    limits: Vec<WindowStatus>,
    /// Simultaneous operations.
    concurrency: ConcurrencyStatus,
}

/// How one window stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct WindowStatus {
    /// Its name.
    name: String,
    /// How much it admits.
    limit: u32,
    /// Its length.
    window_seconds: u64,
    /// How much of it is used.
    used: u32,
    /// How much is left.
    remaining: u32,
    /// Seconds, rounded up, until the whole limit is free again, if the key isn't used meanwhile.
    reset_seconds: u64,
}

/// Simultaneous operations of a key.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ConcurrencyStatus {
    /// How many there may be; 0 is off.
    limit: u32,
    /// How many there are: requests being worked on, and leases.
    in_use: u32,
}

fn told(ctx: &Ctx, counted: &Counted) -> LimitsStatus {
    let standings = counted.standings(ctx);
    let limits = counted.rules.limits.iter().zip(standings.iter()).map(|(limit, window)| WindowStatus {
        name: limit.name.to_string(),
        limit: window.limit,
        window_seconds: window.window_seconds,
        used: window.used,
        remaining: window.remaining,
        reset_seconds: rate::seconds(window.reset_micros),
    });
    LimitsStatus {
        limits: limits.collect(),
        concurrency: ConcurrencyStatus {
            limit: counted.rules.concurrency,
            in_use: counted.state.in_use(ctx.moment().wall),
        },
    }
}

async fn answer(ctx: &Ctx, key: KeyId, project: ProjectId) -> Result<Json<LimitsStatus>, Problem> {
    let counted = status::counted(ctx, key, project).await?.ok_or_else(not_found)?;
    Ok(Json(told(ctx, &counted)))
}

/// How a key's limits stand
#[utoipa::path(
    get, path = "/v1/keys/{id}/limits", operation_id = "getLimits", tag = "limits",
    params(("id" = KeyId, Path, description = "Which key")),
    responses(
        (status = 200, description = "Every window and what is left of it", body = LimitsStatus),
        (status = 403, description = "The caller may not see keys here"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    OnKey { project, key, .. }: OnKey<KeysRead>,
) -> Result<Json<LimitsStatus>, Problem> {
    answer(&ctx, key, project).await
}

/// Other limits.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"limits": [{"name": "minute", "limit": 60, "window": "1m"}], "concurrency": 5}))]
pub(super) struct PutLimits {
    /// All of the key's own limits from now on; an empty list leaves them to its project.
    limits: Limits,
    /// Its own cap on simultaneous operations; 0 is off. Left out or `null`: stays as it is.
    #[serde(default, deserialize_with = "concurrency")]
    #[schema(minimum = 0, maximum = 1_000_000)]
    concurrency: Option<u32>,
}

/// Replace a key's limits
///
/// What a limit of the same name has counted stays counted; a new name begins with nothing used.
#[utoipa::path(
    put, path = "/v1/keys/{id}/limits", operation_id = "putLimits", tag = "limits",
    params(("id" = KeyId, Path, description = "Which key")),
    request_body(content = PutLimits, description = "The key's own limits"),
    responses(
        (status = 200, description = "How they stand", body = LimitsStatus),
        (status = 403, description = "The caller may not change keys here, or `own_key`: a key doesn't change itself"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
        (status = 409, description = "`key_revoked`: the key is revoked"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn put(
    State(ctx): State<Ctx>,
    OnKey { caller, by, project, key, .. }: OnKey<KeysUpdate>,
    Body(body): Body<PutLimits>,
) -> Result<Json<LimitsStatus>, Problem> {
    let limits = Some(body.limits).filter(|limits| !limits.is_empty());
    let patch = Patch { limits: Some(limits), concurrency: body.concurrency.map(Some), ..Patch::default() };
    change::patch(&ctx, Target { by: &by, project, key }, patch, Some(&caller)).await?;
    answer(&ctx, key, project).await
}

/// Set a key's limits back
///
/// Nothing is used of any window any more. Leases and requests under way stay.
#[utoipa::path(
    post, path = "/v1/keys/{id}/limits/reset", operation_id = "resetLimits", tag = "limits",
    params(("id" = KeyId, Path, description = "Which key")),
    responses(
        (status = 200, description = "How they stand", body = LimitsStatus),
        (status = 403, description = "The caller may not change keys here, or `own_key`: a key doesn't change itself"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn reset(
    State(ctx): State<Ctx>,
    OnKey { by, project, key, .. }: OnKey<KeysUpdate>,
    _: OptionalJson<Nothing>,
) -> Result<Json<LimitsStatus>, Problem> {
    status::reset(&ctx, Target { by: &by, project, key }).await?;
    answer(&ctx, key, project).await
}
