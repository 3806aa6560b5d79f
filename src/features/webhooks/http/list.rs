//! `GET` and `POST /v1/projects/{project}/webhooks`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::auth::InProject;
use crate::features::auth::permission::{EventsRead, WebhooksCreate, WebhooksRead};
use crate::features::idempotency::{self, IdempotencyKey};
use crate::features::webhooks::WebhookView;
use crate::features::webhooks::manage::{self, NewWebhook};
use crate::web::extract::{Json, PageQuery, Query};
use crate::web::problem::Problem;

use super::bodies::WebhookWithSecret;

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WebhookQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}whk_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
}

/// A page of webhooks, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct WebhookPage {
    /// The webhooks.
    data: Vec<WebhookView>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// List a project's webhooks
#[utoipa::path(
    get, path = "/v1/projects/{project}/webhooks", operation_id = "listWebhooks", tag = "webhooks",
    params(("project" = ProjectId, Path, description = "Whose webhooks"), WebhookQuery),
    responses(
        (status = 200, description = "A page of webhooks, newest first", body = WebhookPage),
        (status = 403, description = "The caller may not see webhooks here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<WebhooksRead>,
    Query(query): Query<WebhookQuery>,
) -> Result<axum::Json<WebhookPage>, Problem> {
    let PageQuery { limit, after } = PageQuery::read(query.limit, query.cursor.as_deref())?;
    let page = manage::list(&ctx, project, after, limit).await?;
    Ok(axum::Json(WebhookPage { data: page.data, next_cursor: page.next_cursor }))
}

/// Create a webhook
///
/// It is sent what happens from now on, signed as [Standard Webhooks](https://www.standardwebhooks.com) says. The secret is
/// shown in this answer and never again.
#[utoipa::path(
    post, path = "/v1/projects/{project}/webhooks", operation_id = "createWebhook", tag = "webhooks",
    params(
        ("project" = ProjectId, Path, description = "Whose webhook"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours make one webhook", min_length = 1, max_length = 255),
    ),
    request_body(content = NewWebhook, description = "Where to, and what"),
    responses(
        (status = 201, description = "Created", body = WebhookWithSecret,
         headers(("Location" = String, description = "Where the webhook is found")),
         links(
            ("get" = (operation_id = "getWebhook", parameters(("project" = "$response.body#/project_id"), ("id" = "$response.body#/id")), description = "What was made")),
            ("delete" = (operation_id = "deleteWebhook", parameters(("project" = "$response.body#/project_id"), ("id" = "$response.body#/id")), description = "Remove it")),
            ("deliveries" = (operation_id = "listDeliveries", parameters(("project" = "$response.body#/project_id"), ("id" = "$response.body#/id")), description = "What it was sent")),
         )),
        (status = 400, description = "The request breaks a rule; `errors` says which field and why: `invalid_url`, `unknown_event_type`"),
        (status = 403, description = "The caller may not make webhooks here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
        (status = 409, description = "`too_many_webhooks`: a project has at most 200; `secrets_key_missing`: the operator has set no key to encrypt secrets with; or `idempotency_replay`"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn create(
    State(ctx): State<Ctx>,
    inside: InProject<WebhooksCreate>,
    IdempotencyKey(key): IdempotencyKey,
    Json(body): Json<NewWebhook>,
) -> Result<Response, Problem> {
    // What is sent can be read.
    inside.also::<EventsRead>(&ctx).await?;
    let InProject { caller, by, project, .. } = inside;
    let id = caller.id();
    let request = key.as_deref().map(|key| idempotency::Request {
        caller: &id,
        operation: "webhook.create",
        key,
        fingerprint: idempotency::fingerprint(&(project, &body)),
    });
    let shown = manage::create(&ctx, &by, project, body, request.as_ref()).await?;
    let location = format!("/v1/projects/{project}/webhooks/{}", shown.view.id);
    let body = WebhookWithSecret::from(shown);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(body)).into_response())
}
