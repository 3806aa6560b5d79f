//! Types of events in the OpenAPI document: what a receiver is sent, under `webhooks`; and the names that a filter takes.

use serde_json::{Value, json};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{PathItemBuilder, PathsBuilder};
use utoipa::openapi::{OpenApi, RefOr, Schema};

use crate::features::events::catalogue::{self, EventType};

/// Adds what the catalogue knows.
pub fn describe(document: &mut OpenApi) {
    let paths = catalogue::all().fold(PathsBuilder::new(), |paths, kind| {
        // As it stands: the builders of schemas don't know all that JSON Schema does.
        let operation = Extensions::from_iter([("post", operation(kind))]);
        paths.path(kind.name, PathItemBuilder::new().extensions(Some(operation)).build())
    });
    document.webhooks = Some(paths.build());
    name_types(document);
}

/// `key.revoked` as `onKeyRevoked`.
fn operation_id(name: &str) -> String {
    let parts = name.split('.').map(|part| part[..1].to_ascii_uppercase() + &part[1..]);
    format!("on{}", parts.collect::<String>())
}

fn operation(kind: &EventType) -> Value {
    let header = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "header", "required": true, "description": description, "schema": schema });
    let id = "Names the event's delivery to this endpoint: the same however often it is sent, so that a repetition is known.";
    let signature =
        "One or more of `v1,<base64>`, separated by spaces: HMAC-SHA256 of `id.timestamp.body` under the secret.";
    let timestamp = "When it was sent: seconds since 1970.";
    json!({
        "operationId": operation_id(kind.name),
        "summary": kind.name,
        "description": format!("{}\n\nSigned as Standard Webhooks 1.0.0 have it.", kind.description),
        "tags": ["events"],
        "security": [],
        "parameters": [
            header("webhook-id", id, json!({ "type": "string" })),
            header("webhook-timestamp", timestamp, json!({ "type": "string", "pattern": "^[0-9]+$" })),
            header("webhook-signature", signature, json!({ "type": "string" })),
        ],
        "requestBody": {
            "required": true,
            "content": {
                "application/json": { "schema": kind.message_schema(), "example": kind.message_example() },
            },
        },
        "responses": {
            "2XX": { "description": "It has arrived." },
            "410": { "description": "The endpoint is gone: nothing more is sent." },
            "default": { "description": "It is sent again, later." },
        },
    })
}

/// Says which types the filter takes.
fn name_types(document: &mut OpenApi) {
    let item = document.paths.paths.get_mut("/v1/projects/{project}/events");
    let parameters = item.and_then(|item| item.get.as_mut()).and_then(|operation| operation.parameters.as_mut());
    for parameter in parameters.into_iter().flatten() {
        if let RefOr::T(parameter) = parameter
            && parameter.name == "type"
            && let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema
        {
            schema.pattern = Some(pattern());
        }
    }
}

fn pattern() -> String {
    let mut names: Vec<String> = vec![r"\*".to_owned()];
    for kind in catalogue::all() {
        let (noun, verb) = kind.name.split_once('.').unwrap_or((kind.name, ""));
        let wildcard = format!(r"{noun}\.\*");
        if !names.contains(&wildcard) {
            names.push(wildcard);
        }
        names.push(format!(r"{noun}\.{verb}"));
    }
    let one = format!("(?:{})", names.join("|"));
    format!("^{one}(?:,{one})*$")
}
