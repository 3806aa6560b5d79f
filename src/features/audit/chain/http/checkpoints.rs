//! `GET /v1/audit/checkpoints`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::ctx::Ctx;
use crate::features::audit::chain::{self, CheckpointView};
use crate::features::auth::Instance;
use crate::features::auth::permission::AuditVerify;
use crate::web::extract::{PageQuery, Query};
use crate::web::problem::Problem;

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CheckpointQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}chk_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
}

/// A page of checkpoints, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct CheckpointPage {
    /// The checkpoints.
    data: Vec<CheckpointView>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// List checkpoints of the audit trail
///
/// Signed statements about places in the chain: one a thousand entries, and one an hour in which something happened. Stored
/// elsewhere, they show that the trail was rolled back or rewritten, even by whoever holds the signing key.
#[utoipa::path(
    get, path = "/v1/audit/checkpoints", operation_id = "listAuditCheckpoints", tag = "audit",
    params(CheckpointQuery),
    responses(
        (status = 200, description = "A page of checkpoints, newest first", body = CheckpointPage),
        (status = 403, description = "The caller may not verify the trail"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn checkpoints(
    State(ctx): State<Ctx>,
    _: Instance<AuditVerify>,
    Query(query): Query<CheckpointQuery>,
) -> Result<Json<CheckpointPage>, Problem> {
    let PageQuery { limit, after } = PageQuery::read(query.limit, query.cursor.as_deref())?;
    let page = chain::checkpoints(&ctx, after, limit).await?;
    Ok(Json(CheckpointPage { data: page.data, next_cursor: page.next_cursor }))
}
