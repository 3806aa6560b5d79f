//! `GET /v1/event-types`.

use axum::Json;
use serde::Serialize;
use serde_json::Value;

use crate::features::events::catalogue::{self, EventType};

/// A type of event.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = EventType, example = json!({
    "name": "key.revoked", "resource": "key", "description": "A key was taken back for good; `reason` says why.",
    "schema": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
    "example": {"id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G"}
}))]
struct EventTypeView {
    /// What `type` says.
    name: &'static str,
    /// What kind of thing `resource_id` names.
    resource: &'static str,
    /// When it happens.
    description: &'static str,
    /// JSON Schema (2020-12) of `data`. More members may come; those that there are keep their meaning.
    #[schema(value_type = Object)]
    schema: Value,
    /// Some `data` that satisfies it.
    #[schema(value_type = Object)]
    example: Value,
}

impl From<&EventType> for EventTypeView {
    fn from(kind: &EventType) -> Self {
        let mut schema = (kind.schema)();
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
        let EventType { name, resource, description, example, .. } = *kind;
        Self { name, resource, description, schema, example: example() }
    }
}

/// Every type of event.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct EventTypes {
    /// One after another.
    data: Vec<EventTypeView>,
    /// All of them are on one page.
    #[schema(value_type = Option<String>)]
    next_cursor: (),
}

/// List the types of events
///
/// What each is called, when it happens, and what its `data` holds. In this document they stand under `webhooks`.
#[utoipa::path(
    get, path = "/v1/event-types", operation_id = "listEventTypes", tag = "events",
    responses((status = 200, description = "All of them", body = EventTypes)),
)]
pub(super) async fn types() -> Json<EventTypes> {
    Json(EventTypes { data: catalogue::all().map(EventTypeView::from).collect(), next_cursor: () })
}
