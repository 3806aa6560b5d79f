//! `POST /v1/projects/{project}/webhooks/{id}/test` and `…/replay`.

use axum::extract::State;
use axum::http::StatusCode;

use crate::base::id::{ProjectId, WebhookId};
use crate::ctx::Ctx;
use crate::features::auth::InProject;
use crate::features::auth::permission::{EventsRead, WebhooksUpdate};
use crate::features::webhooks::again::{self, Replayed, Span};
use crate::features::webhooks::trial::{self, Trial};
use crate::web::extract::{Json, OptionalJson, Second};
use crate::web::problem::Problem;

use super::bodies::TestWebhook;
use super::named;

/// Send a test
///
/// Sends the example of a type of event at once, also where the webhook is switched off, and says what came of it. Nothing
/// follows from it: it isn't tried again, and disables nothing. At most 10 a minute.
#[utoipa::path(
    post, path = "/v1/projects/{project}/webhooks/{id}/test", operation_id = "testWebhook", tag = "webhooks",
    params(("project" = ProjectId, Path, description = "Whose webhook"), ("id" = WebhookId, Path, description = "Which webhook")),
    request_body(content = Option<TestWebhook>, description = "What is sent; it may be left out"),
    responses(
        (status = 200, description = "What came of it; `delivered` says whether it arrived", body = Trial),
        (status = 400, description = "`errors` says which field and why: `unknown_event_type`"),
        (status = 403, description = "The caller may not change webhooks here"),
        (status = 404, description = "`webhook_not_found`: there is no such webhook, or no such project for this caller"),
        (status = 409, description = "`secret_unreadable`: the webhook's secret can't be read"),
        (status = 429, description = "`rate_limited`: 10 tests were sent within a minute, or too many are under way"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn test(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<WebhooksUpdate>,
    id: Result<Second<WebhookId>, Problem>,
    OptionalJson(body): OptionalJson<TestWebhook>,
) -> Result<axum::Json<Trial>, Problem> {
    Ok(axum::Json(trial::trial(&ctx, &by, project, named(id)?, body.event_type.as_deref()).await?))
}

/// Send past events once more
///
/// Those of a span of time that the webhook gets, by its events and its filter as they are now; also those for which there
/// was never a delivery. What is on its way already isn't counted. At most 10,000 deliveries and 50,000 events at once:
/// where there are more, `next_since` says where to go on.
#[utoipa::path(
    post, path = "/v1/projects/{project}/webhooks/{id}/replay", operation_id = "replayWebhook", tag = "webhooks",
    params(("project" = ProjectId, Path, description = "Whose webhook"), ("id" = WebhookId, Path, description = "Which webhook")),
    request_body(content = Span, description = "Which events"),
    responses(
        (status = 202, description = "They are due now", body = Replayed),
        (status = 400, description = "The request breaks a rule; `errors` says which field and why"),
        (status = 403, description = "The caller may not change webhooks here"),
        (status = 404, description = "`webhook_not_found`: there is no such webhook, or no such project for this caller"),
        (status = 409, description = "`webhook_disabled`: the webhook is switched off"),
        (status = 429, description = "`rate_limited`: the project replays too often: ten at once, then one every ten seconds"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn replay(
    State(ctx): State<Ctx>,
    inside: InProject<WebhooksUpdate>,
    id: Result<Second<WebhookId>, Problem>,
    Json(body): Json<Span>,
) -> Result<(StatusCode, axum::Json<Replayed>), Problem> {
    // What is sent can be read.
    inside.also::<EventsRead>(&ctx).await?;
    let InProject { by, project, .. } = inside;
    Ok((StatusCode::ACCEPTED, axum::Json(again::replay(&ctx, &by, (project, named(id)?), body).await?)))
}
