//! `GET /v1/projects/{project}/webhooks/{id}/deliveries`, `GET /v1/deliveries/{id}` and `POST …/retry`.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::base::id::{DeliveryId, ProjectId, WebhookId};
use crate::ctx::Ctx;
use crate::features::auth::permission::{WebhooksRead, WebhooksUpdate};
use crate::features::auth::{Anywhere, InProject};
use crate::features::webhooks::again;
use crate::features::webhooks::deliveries::{self, DeliveryDetail, DeliveryView, State as Standing};
use crate::web::extract::{PageQuery, Path, Query, Second};
use crate::web::problem::Problem;

use super::{first, named, no_delivery};

/// Which deliveries, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveryQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}dlv_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
    /// That stand so.
    state: Option<Standing>,
}

/// A page of deliveries, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct DeliveryPage {
    /// The deliveries.
    data: Vec<DeliveryView>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// List a webhook's deliveries
#[utoipa::path(
    get, path = "/v1/projects/{project}/webhooks/{id}/deliveries", operation_id = "listDeliveries", tag = "webhooks",
    params(
        ("project" = ProjectId, Path, description = "Whose webhook"), ("id" = WebhookId, Path, description = "Which webhook"),
        DeliveryQuery,
    ),
    responses(
        (status = 200, description = "A page of deliveries, newest first", body = DeliveryPage),
        (status = 403, description = "The caller may not see webhooks here"),
        (status = 404, description = "`webhook_not_found`: there is no such webhook, or no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<WebhooksRead>,
    id: Result<Second<WebhookId>, Problem>,
    Query(query): Query<DeliveryQuery>,
) -> Result<axum::Json<DeliveryPage>, Problem> {
    let id = named(id)?;
    let PageQuery { limit, after } = PageQuery::read(query.limit, query.cursor.as_deref())?;
    let page = deliveries::list(&ctx, project, id, query.state, after, limit).await?;
    Ok(axum::Json(DeliveryPage { data: page.data, next_cursor: page.next_cursor }))
}

/// Get a delivery with its attempts
#[utoipa::path(
    get, path = "/v1/deliveries/{id}", operation_id = "getDelivery", tag = "webhooks",
    params(("id" = DeliveryId, Path, description = "Which delivery")),
    responses(
        (status = 200, description = "The delivery", body = DeliveryDetail),
        (status = 403, description = "The caller may see webhooks nowhere"),
        (status = 404, description = "`delivery_not_found`: there is no such delivery for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    Anywhere { reach, .. }: Anywhere<WebhooksRead>,
    id: Result<Path<DeliveryId>, Problem>,
) -> Result<axum::Json<DeliveryDetail>, Problem> {
    Ok(axum::Json(deliveries::get(&ctx, &reach, first(id, no_delivery)?).await?))
}

/// Try a delivery once more
///
/// At once, whatever became of it before, with the same `webhook-id`; the schedule of retries begins anew. One that is just
/// being sent stays as it is.
#[utoipa::path(
    post, path = "/v1/deliveries/{id}/retry", operation_id = "retryDelivery", tag = "webhooks",
    params(("id" = DeliveryId, Path, description = "Which delivery")),
    responses(
        (status = 202, description = "It is due now", body = DeliveryView),
        (status = 403, description = "The caller may change webhooks nowhere"),
        (status = 404, description = "`delivery_not_found`: there is no such delivery for this caller"),
        (status = 409, description = "`webhook_disabled`: its webhook is switched off; `event_gone`: the event is no longer kept"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn retry(
    State(ctx): State<Ctx>,
    Anywhere { by, reach, .. }: Anywhere<WebhooksUpdate>,
    id: Result<Path<DeliveryId>, Problem>,
) -> Result<(StatusCode, axum::Json<DeliveryView>), Problem> {
    Ok((StatusCode::ACCEPTED, axum::Json(again::retry(&ctx, &by, &reach, first(id, no_delivery)?).await?)))
}
