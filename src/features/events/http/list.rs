//! `GET /v1/projects/{project}/events` and `…/events/{event}`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::{EventId, ProjectId};
use crate::base::invalid::Check;
use crate::ctx::Ctx;
use crate::features::auth::permission::EventsRead;
use crate::features::auth::{InAnyProject, InProject, LastingInAnyProject};
use crate::features::events::read::{self, EventView, Filter, Number};
use crate::web::extract::{PageQuery, Query, Second};
use crate::web::problem::Problem;

use super::stream;

/// Which events, and which page of them, or from where on.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventQuery {
    /// How many: 1 to 200. For lists alone.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before. For lists alone.
    #[param(pattern = "^[0-9a-f]{15}[0-9]{1,18}$")]
    cursor: Option<String>,
    /// Events of these types: names, or `key.*` for all that begin so, separated by commas.
    #[serde(rename = "type")]
    #[param(max_length = 1000, example = "key.revoked,key.deleted")]
    kind: Option<String>,
    /// Events of this thing: a key, a person, a project.
    #[param(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_.\\-]+$")]
    resource: Option<String>,
    /// Events of this time or later. A stream begins there.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-20T00:00:00Z")]
    since: Option<Timestamp>,
    /// Events from before this.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-21T00:00:00Z")]
    until: Option<Timestamp>,
    /// For a stream: goes on behind this event. The header `Last-Event-ID` says the same, and counts for more.
    #[param(value_type = Option<EventId>)]
    last_event_id: Option<String>,
}

/// A page of events, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct EventPage {
    /// The events.
    data: Vec<EventView>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// List a project's events, or listen to them
///
/// Newest first. An event is listed as soon as its change is answered, and for as long as the server keeps it. Those of a
/// deleted project are there for whoever may look at it, until it is removed for good.
///
/// With `Accept: text/event-stream` the answer is a stream of events as they come (server-sent events): `id` is the event's id,
/// `event` its type, `data` the event as the list has it, on one line. It begins now, or with `since`, or behind the event that
/// `Last-Event-ID` (or `last_event_id`) names: then nothing is missed and nothing told twice. Things keep the order of their
/// changes. A stream ends when its caller may not listen any more, behind the deletion of its project, and when the server
/// stops.
#[utoipa::path(
    get, path = "/v1/projects/{project}/events", operation_id = "listEvents", tag = "events",
    params(("project" = ProjectId, Path, description = "Which project"), EventQuery),
    responses(
        (status = 200, description = "A page of events, newest first; or the stream", content(
            (EventPage = "application/json"), (String = "text/event-stream"),
        )),
        (status = 403, description = "The caller may not read events here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
        (status = 410, description = "`event_gone`: the event to go on behind isn't kept any more, or never was there: list what there is, and begin anew"),
        (status = 429, description = "`too_many_streams`: the caller, their address or the project has as many streams open as they may; or `rate_limited`"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    LastingInAnyProject { now, lasting }: LastingInAnyProject<EventsRead>,
    headers: HeaderMap,
    Query(query): Query<EventQuery>,
) -> Result<Response, Problem> {
    let filter = Filter::read(query.kind.as_deref(), query.resource, query.since, query.until)?;
    let is_stream = stream::is_wanted(&headers);
    let mut check = Check::default();
    let mut only = |is_misplaced: bool, name: &'static str, what: &'static str| {
        if is_misplaced {
            check.refuse(name, "invalid_value", what);
        }
    };
    only(is_stream && query.limit.is_some(), "limit", "is for lists alone");
    only(is_stream && query.cursor.is_some(), "cursor", "is for lists alone");
    let last = stream::last_seen(&headers, query.last_event_id.as_deref());
    only(last.is_err(), "last_event_id", "isn't the id of an event");
    check.finish()?;
    if is_stream {
        let after = last.unwrap_or_default();
        return stream::begin(&ctx, &now, lasting, filter, after).await;
    }
    let PageQuery { limit, after } = PageQuery::<Number>::read(query.limit, query.cursor.as_deref())?;
    let page = read::list(&ctx, now.project, &filter, after, limit).await?;
    Ok(Json(EventPage { data: page.data, next_cursor: page.next_cursor }).into_response())
}

fn no_event() -> Problem {
    Problem::not_found("event_not_found", "There is no such event, or not any more.")
}

/// Get an event
#[utoipa::path(
    get, path = "/v1/projects/{project}/events/{event}", operation_id = "getEvent", tag = "events",
    params(
        ("project" = ProjectId, Path, description = "Which project"),
        ("event" = EventId, Path, description = "Which event"),
    ),
    responses(
        (status = 200, description = "The event", body = EventView),
        (status = 403, description = "The caller may not read events here"),
        (status = 404, description = "`event_not_found`: there is no such event any more, or no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    InAnyProject(InProject { project, .. }): InAnyProject<EventsRead>,
    event: Result<Second<EventId>, Problem>,
) -> Result<Json<EventView>, Problem> {
    let Second(event) = event.map_err(|_| no_event())?;
    read::get(&ctx, project, event).await?.map(Json).ok_or_else(no_event)
}
