//! `POST /v1/projects/{project}/alerts`, `PATCH` and `DELETE …/{id}`.

use axum::extract::State;
use axum::http::StatusCode;

use crate::base::id::{AlertId, ProjectId};
use crate::ctx::Ctx;
use crate::features::alerts::{View, manage};
use crate::features::auth::InProject;
use crate::features::auth::permission::{AlertsCreate, AlertsDelete, AlertsUpdate};
use crate::features::idempotency::{self, Created, IdempotencyKey};
use crate::web::extract::{Json, Second};
use crate::web::problem::Problem;

use super::bodies::{NewAlert, PatchAlert};
use super::named;

/// Make an alert rule
///
/// From now on the metric is compared with the threshold every few seconds. When the comparison becomes true, the rule fires:
/// an `alert.fired` event, a row of the history, a mail to each address. When it isn't true any more, it is resolved, and
/// `alert.resolved` says so. Within the cooldown after it fired it doesn't fire again.
#[utoipa::path(
    post, path = "/v1/projects/{project}/alerts", operation_id = "createAlert", tag = "alerts",
    params(
        ("project" = ProjectId, Path, description = "Which project"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours make one rule", min_length = 1, max_length = 255),
    ),
    request_body(content = NewAlert, description = "What it shall be"),
    responses(
        (status = 201, description = "Made", body = View, headers(("Location" = String, description = "Where the rule is found"))),
        (status = 400, description = "The request breaks a rule; `errors` says which field and why: `key_not_found` for a key that isn't the project's, `mail_not_configured` and `address_not_allowed` for addresses"),
        (status = 403, description = "The caller may not make alert rules here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
        (status = 409, description = "`alert_exists`: the project has a rule of this name; or `too_many_alerts`: it has 200"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn create(
    State(ctx): State<Ctx>,
    InProject { caller, by, project, .. }: InProject<AlertsCreate>,
    IdempotencyKey(key): IdempotencyKey,
    Json(body): Json<NewAlert>,
) -> Result<Created, Problem> {
    let id = caller.id();
    let request = key.as_deref().map(|key| idempotency::Request {
        caller: &id,
        operation: "alert.create",
        key,
        fingerprint: idempotency::fingerprint(&(project, &body)),
    });
    Ok(manage::create(&ctx, &by, project, body.into(), request).await?)
}

/// Change an alert rule
///
/// With another metric, operator, threshold, window or key it looks for something else: what it fired is resolved, no cooldown
/// runs, and it is evaluated at the next round. The same where it is switched off or on. Everything else leaves how it stands.
#[utoipa::path(
    patch, path = "/v1/projects/{project}/alerts/{id}", operation_id = "updateAlert", tag = "alerts",
    params(("project" = ProjectId, Path, description = "Which project"), ("id" = AlertId, Path, description = "Which rule")),
    request_body(content = PatchAlert, description = "What shall be different"),
    responses(
        (status = 200, description = "The rule as it is now", body = View),
        (status = 400, description = "The request breaks a rule; `errors` says which field and why: `key_not_found` for a key that isn't the project's, `mail_not_configured` and `address_not_allowed` for addresses"),
        (status = 403, description = "The caller may not change alert rules here"),
        (status = 404, description = "`alert_not_found`: the project has no such rule, or there is no such project for this caller"),
        (status = 409, description = "`alert_exists`: the project has another rule of this name"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn patch(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<AlertsUpdate>,
    id: Result<Second<AlertId>, Problem>,
    Json(body): Json<PatchAlert>,
) -> Result<axum::Json<View>, Problem> {
    Ok(axum::Json(manage::change(&ctx, &by, project, named(id)?, body.into()).await?))
}

/// Remove an alert rule
///
/// What it fired is resolved. Its history stays.
#[utoipa::path(
    delete, path = "/v1/projects/{project}/alerts/{id}", operation_id = "deleteAlert", tag = "alerts",
    params(("project" = ProjectId, Path, description = "Which project"), ("id" = AlertId, Path, description = "Which rule")),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "The caller may not remove alert rules here"),
        (status = 404, description = "`alert_not_found`: the project has no such rule, or there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn delete(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<AlertsDelete>,
    id: Result<Second<AlertId>, Problem>,
) -> Result<StatusCode, Problem> {
    manage::delete(&ctx, &by, project, named(id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
