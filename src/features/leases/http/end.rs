//! `POST /v1/leases/{id}/renew` and `DELETE /v1/leases/{id}`.

use axum::extract::State;
use axum::http::StatusCode;

use crate::base::id::LeaseId;
use crate::ctx::Ctx;
use crate::features::auth::Anywhere;
use crate::features::auth::permission::KeysVerify;
use crate::features::leases;
use crate::web::extract::{Json, Path};
use crate::web::problem::Problem;

use super::{LeaseRequest, LeaseView, not_found, to_the_end};

/// Renew a lease
///
/// It ends `ttl_seconds` from now, unless it is renewed again. One that has ended can't be renewed: its place may be taken.
#[utoipa::path(
    post, path = "/v1/leases/{id}/renew", operation_id = "renewLease", tag = "limits",
    params(("id" = LeaseId, Path, description = "Which lease")),
    request_body(content = LeaseRequest, description = "For how long"),
    responses(
        (status = 200, description = "Renewed", body = LeaseView),
        (status = 403, description = "The caller may not verify keys anywhere"),
        (status = 404, description = "`lease_not_found`: there is no such lease for this caller, or it has ended"),
        (status = 409, description = "`key_not_active`: the key is revoked, disabled or expired, or its project suspended"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn renew(
    State(ctx): State<Ctx>,
    Anywhere { reach, .. }: Anywhere<KeysVerify>,
    id: Result<Path<LeaseId>, Problem>,
    Json(body): Json<LeaseRequest>,
) -> Result<axum::Json<LeaseView>, Problem> {
    let Path(id) = id.map_err(|_| not_found())?;
    let ttl = body.ttl()?;
    let renewed = to_the_end(async move { leases::renew(&ctx, &reach, id, ttl).await }).await?;
    Ok(axum::Json(renewed?.into()))
}

/// End a lease
#[utoipa::path(
    delete, path = "/v1/leases/{id}", operation_id = "releaseLease", tag = "limits",
    params(("id" = LeaseId, Path, description = "Which lease")),
    responses(
        (status = 204, description = "Its place is free"),
        (status = 403, description = "The caller may not verify keys anywhere"),
        (status = 404, description = "`lease_not_found`: there is no such lease for this caller, or it has ended"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn release(
    State(ctx): State<Ctx>,
    Anywhere { reach, .. }: Anywhere<KeysVerify>,
    id: Result<Path<LeaseId>, Problem>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|_| not_found())?;
    let released = to_the_end(async move { leases::release(&ctx, &reach, id).await }).await?;
    if released? { Ok(StatusCode::NO_CONTENT) } else { Err(not_found()) }
}
