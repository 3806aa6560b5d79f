//! `GET /v1/services` and `GET /v1/services/{name}`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::base::invalid::Invalid;
use crate::base::page::Limit;
use crate::ctx::Ctx;
use crate::features::auth::Instance;
use crate::features::auth::permission::ServicesRead;
use crate::features::services::view::{self, ServiceView};
use crate::infra::config::ServiceName;
use crate::web::extract::{Path, Query};
use crate::web::problem::Problem;

use super::no_service;

/// A page of services, in the order of their names.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ServicePage {
    /// The services.
    data: Vec<ServiceView>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ServiceQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[a-z0-9][a-z0-9_-]{0,62}$")]
    cursor: Option<String>,
}

/// List watched services
///
/// Those of the configuration, in the order of their names, each as whoever watches it has written last.
#[utoipa::path(
    get, path = "/v1/services", operation_id = "listServices", tag = "services",
    params(ServiceQuery),
    responses(
        (status = 200, description = "A page of services", body = ServicePage),
        (status = 403, description = "The caller may not see services"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    _: Instance<ServicesRead>,
    Query(query): Query<ServiceQuery>,
) -> Result<Json<ServicePage>, Problem> {
    let wrong_limit = || Invalid::field("limit", "invalid_value", "must be 1 to 200");
    let limit = query.limit.map_or(Some(Limit::default()), Limit::new).ok_or_else(wrong_limit)?;
    // A name of any configuration will do, and so does the one that none may have.
    if query.cursor.as_deref().is_some_and(|text| text != "operations" && text.parse::<ServiceName>().is_err()) {
        return Err(Invalid::field("cursor", "invalid_cursor", "isn't a cursor of this list").into());
    }
    let mut data = view::all(&ctx).await?;
    if let Some(after) = query.cursor {
        data.retain(|service| service.name > after);
    }
    let has_more = data.len() > limit.get();
    data.truncate(limit.get());
    let next_cursor = data.last().filter(|_| has_more).map(|service| service.name.clone());
    Ok(Json(ServicePage { data, next_cursor }))
}

/// Get a watched service
#[utoipa::path(
    get, path = "/v1/services/{name}", operation_id = "getService", tag = "services",
    params(("name" = String, Path, description = "Its name in the configuration", max_length = 63)),
    responses(
        (status = 200, description = "The service", body = ServiceView),
        (status = 403, description = "The caller may not see services"),
        (status = 404, description = "`service_not_found`: the configuration names no such service"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    _: Instance<ServicesRead>,
    name: Result<Path<ServiceName>, Problem>,
) -> Result<Json<ServiceView>, Problem> {
    let Path(name) = name.map_err(|_| no_service())?;
    view::one(&ctx, &name).await?.map(Json).ok_or_else(no_service)
}
