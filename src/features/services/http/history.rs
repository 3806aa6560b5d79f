//! `GET /v1/services/{name}/history`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::ctx::Ctx;
use crate::features::auth::Instance;
use crate::features::auth::permission::ServicesRead;
use crate::features::services::{self, Happening};
use crate::infra::config::ServiceName;
use crate::web::extract::{PageQuery, Path, Query};
use crate::web::problem::Problem;

use super::no_service;

/// A page of changes, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct HappeningPage {
    /// The changes.
    data: Vec<Happening>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}svh_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
}

/// A service's history
///
/// Every change of its state in the last ninety days, newest first.
#[utoipa::path(
    get, path = "/v1/services/{name}/history", operation_id = "getServiceHistory", tag = "services",
    params(("name" = String, Path, description = "Its name in the configuration", max_length = 63), HistoryQuery),
    responses(
        (status = 200, description = "A page of changes, newest first", body = HappeningPage),
        (status = 403, description = "The caller may not see services"),
        (status = 404, description = "`service_not_found`: the configuration names no such service"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn history(
    State(ctx): State<Ctx>,
    _: Instance<ServicesRead>,
    name: Result<Path<ServiceName>, Problem>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<HappeningPage>, Problem> {
    let Path(name) = name.map_err(|_| no_service())?;
    services::find(&ctx, &name).ok_or_else(no_service)?;
    let PageQuery { limit, after } = PageQuery::read(query.limit, query.cursor.as_deref())?;
    let page = services::history(&ctx, &name, after, limit).await?;
    Ok(Json(HappeningPage { data: page.data, next_cursor: page.next_cursor }))
}
