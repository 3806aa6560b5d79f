//! `GET`, `PATCH` and `DELETE /v1/projects/{project}/webhooks/{id}`, and `POST …/rotate-secret`.

use axum::extract::State;
use axum::http::StatusCode;

use crate::base::id::{ProjectId, WebhookId};
use crate::ctx::Ctx;
use crate::features::auth::InProject;
use crate::features::auth::permission::{EventsRead, WebhooksDelete, WebhooksRead, WebhooksUpdate};
use crate::features::idempotency::{self, IdempotencyKey};
use crate::features::webhooks::{WebhookView, manage, rules};
use crate::web::extract::{Json, OptionalJson, Second};
use crate::web::problem::Problem;

use super::bodies::{PatchWebhook, RotateWebhookSecret, WebhookWithSecret};
use super::named;

/// Get a webhook
#[utoipa::path(
    get, path = "/v1/projects/{project}/webhooks/{id}", operation_id = "getWebhook", tag = "webhooks",
    params(("project" = ProjectId, Path, description = "Whose webhook"), ("id" = WebhookId, Path, description = "Which webhook")),
    responses(
        (status = 200, description = "The webhook, without its secret", body = WebhookView),
        (status = 403, description = "The caller may not see webhooks here"),
        (status = 404, description = "`webhook_not_found`: there is no such webhook, or no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<WebhooksRead>,
    id: Result<Second<WebhookId>, Problem>,
) -> Result<axum::Json<WebhookView>, Problem> {
    Ok(axum::Json(manage::get(&ctx, project, named(id)?).await?))
}

/// Change a webhook
///
/// What is on its way goes to the new URL. Switched on again, it is sent what was paused; what happened meanwhile is sent by
/// a replay.
#[utoipa::path(
    patch, path = "/v1/projects/{project}/webhooks/{id}", operation_id = "updateWebhook", tag = "webhooks",
    params(("project" = ProjectId, Path, description = "Whose webhook"), ("id" = WebhookId, Path, description = "Which webhook")),
    request_body(content = PatchWebhook, description = "What shall be different"),
    responses(
        (status = 200, description = "The webhook as it is now", body = WebhookView),
        (status = 400, description = "The request breaks a rule; `errors` says which field and why"),
        (status = 403, description = "The caller may not change webhooks here"),
        (status = 404, description = "`webhook_not_found`: there is no such webhook, or no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn patch(
    State(ctx): State<Ctx>,
    inside: InProject<WebhooksUpdate>,
    id: Result<Second<WebhookId>, Problem>,
    Json(body): Json<PatchWebhook>,
) -> Result<axum::Json<WebhookView>, Problem> {
    // What is sent can be read, wherever it is sent to.
    inside.also::<EventsRead>(&ctx).await?;
    let InProject { by, project, .. } = inside;
    Ok(axum::Json(manage::change(&ctx, &by, project, named(id)?, body.into()).await?))
}

/// Delete a webhook
///
/// What is on its way isn't sent any more, and its deliveries can't be looked at any more.
#[utoipa::path(
    delete, path = "/v1/projects/{project}/webhooks/{id}", operation_id = "deleteWebhook", tag = "webhooks",
    params(("project" = ProjectId, Path, description = "Whose webhook"), ("id" = WebhookId, Path, description = "Which webhook")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 403, description = "The caller may not delete webhooks here"),
        (status = 404, description = "`webhook_not_found`: there is no such webhook, or no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn delete(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<WebhooksDelete>,
    id: Result<Second<WebhookId>, Problem>,
) -> Result<StatusCode, Problem> {
    manage::delete(&ctx, &by, project, named(id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a webhook a new secret
///
/// Until the overlap ends deliveries carry two signatures, by the new secret and by the former one. The new one is shown in
/// this answer and never again.
#[utoipa::path(
    post, path = "/v1/projects/{project}/webhooks/{id}/rotate-secret", operation_id = "rotateWebhookSecret", tag = "webhooks",
    params(
        ("project" = ProjectId, Path, description = "Whose webhook"),
        ("id" = WebhookId, Path, description = "Which webhook"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours rotate once", min_length = 1, max_length = 255),
    ),
    request_body(content = Option<RotateWebhookSecret>, description = "How; it may be left out"),
    responses(
        (status = 200, description = "The webhook with its new secret", body = WebhookWithSecret),
        (status = 403, description = "The caller may not change webhooks here"),
        (status = 404, description = "`webhook_not_found`: there is no such webhook, or no such project for this caller"),
        (status = 409, description = "`secrets_key_missing`: the operator has set no key to encrypt secrets with; `secret_unreadable`: the former secret can't be read (rotate with `overlap: 0`); or `idempotency_replay`"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn rotate(
    State(ctx): State<Ctx>,
    InProject { caller, by, project, .. }: InProject<WebhooksUpdate>,
    id: Result<Second<WebhookId>, Problem>,
    IdempotencyKey(key): IdempotencyKey,
    OptionalJson(body): OptionalJson<RotateWebhookSecret>,
) -> Result<axum::Json<WebhookWithSecret>, Problem> {
    let id = named(id)?;
    let overlap = rules::overlap(body.overlap)?;
    let caller = caller.id();
    let request = key.as_deref().map(|key| idempotency::Request {
        caller: &caller,
        operation: "webhook.rotate_secret",
        key,
        fingerprint: idempotency::fingerprint(&(id, &body)),
    });
    let shown = manage::rotate(&ctx, &by, (project, id), overlap, request.as_ref()).await?;
    Ok(axum::Json(shown.into()))
}
