//! What becomes of the services that are watched.

use serde_json::{Value, json};

use super::EventType;
use super::parts::{and, count, object, text, text_or_null};

pub(super) const TYPES: [EventType; 3] = [
    EventType {
        name: "service.down",
        resource: "service",
        description: "A service that is watched doesn't answer, or says that it isn't well.",
        schema,
        example: || and(example(), json!({"state": "down", "reason": "connection refused", "failures": 3})),
    },
    EventType {
        name: "service.recovered",
        resource: "service",
        description: "A service that was down is well again.",
        schema,
        example,
    },
    EventType {
        name: "service.restarted",
        resource: "service",
        description: "A service was restarted: by an operation that somebody asked for, or by itself.",
        schema,
        example: || and(example(), json!({"operation_id": "op_01K5ZV8QXW3M7C2R9T4B6D8F0G", "reason": "asked for"})),
    },
];

fn schema() -> Value {
    object([
        ("name", text("Which service.")),
        ("kind", text("What kind of service.")),
        ("state", text("How it is now.")),
        ("reason", text_or_null("Why.")),
        ("operation_id", text_or_null("The operation that did it, where somebody asked for one.")),
        ("failures", count("How often in a row it was found not to be well.")),
    ])
}

fn example() -> Value {
    json!({"name": "database", "kind": "database", "state": "up", "reason": null, "operation_id": null, "failures": 0})
}
