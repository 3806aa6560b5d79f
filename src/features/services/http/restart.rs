//! `POST /v1/services/{name}/restart` and `GET /v1/services/operations/{id}`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::base::id::ServiceOperationId;
use crate::ctx::Ctx;
use crate::features::auth::Instance;
use crate::features::auth::permission::{ServicesRead, ServicesRestart};
use crate::features::services::{self, Operation, restart as use_case};
use crate::infra::config::ServiceName;
use crate::web::extract::{OptionalJson, Path};
use crate::web::problem::Problem;

use super::no_service;

/// Why a service is restarted.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "a new configuration"}))]
pub(super) struct RestartRequest {
    /// For people: it stands in the trail and with the restart, and goes nowhere else.
    #[serde(default)]
    #[schema(max_length = 500, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", example = "a new configuration")]
    reason: Option<String>,
}

/// The restart that was asked for.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RestartAnswer {
    /// Ask for it at `/v1/services/operations/{id}`.
    operation_id: ServiceOperationId,
}

/// Restart a service
///
/// Written down, and begun by the replica that watches the service, within a second. Where a restart is asked for or under way
/// already, the answer names that one: a service is restarted once at a time.
#[utoipa::path(
    post, path = "/v1/services/{name}/restart", operation_id = "restartService", tag = "services",
    params(("name" = String, Path, description = "Its name in the configuration", max_length = 63)),
    request_body(content = Option<RestartRequest>, description = "Why"),
    responses(
        (status = 202, description = "It is asked for", body = RestartAnswer),
        (status = 403, description = "The caller may not restart services"),
        (status = 404, description = "`service_not_found`: the configuration names no such service"),
        (status = 409, description = "`not_restartable`: the service is only watched"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn restart(
    State(ctx): State<Ctx>,
    Instance { by, .. }: Instance<ServicesRestart>,
    name: Result<Path<ServiceName>, Problem>,
    OptionalJson(body): OptionalJson<RestartRequest>,
) -> Result<(StatusCode, Json<RestartAnswer>), Problem> {
    let Path(name) = name.map_err(|_| no_service())?;
    let operation_id = use_case::request(&ctx, &by, &name, body.reason.as_deref()).await?;
    Ok((StatusCode::ACCEPTED, Json(RestartAnswer { operation_id })))
}

/// Get a restart
#[utoipa::path(
    get, path = "/v1/services/operations/{id}", operation_id = "getServiceOperation", tag = "services",
    params(("id" = ServiceOperationId, Path, description = "Which restart")),
    responses(
        (status = 200, description = "How far it is", body = Operation),
        (status = 403, description = "The caller may not see services"),
        (status = 404, description = "`operation_not_found`: there is no such restart of a service of the configuration"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn operation(
    State(ctx): State<Ctx>,
    _: Instance<ServicesRead>,
    id: Result<Path<ServiceOperationId>, Problem>,
) -> Result<Json<Operation>, Problem> {
    let missing = || Problem::not_found("operation_not_found", "There is no such restart.");
    let Path(id) = id.map_err(|_| missing())?;
    services::operation(&ctx, id).await?.map(Json).ok_or_else(missing)
}
