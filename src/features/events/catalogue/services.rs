//! What becomes of the services that are watched.

use serde_json::{Value, json};

use super::EventType;
use super::parts::{and, count, object, text, text_or_null};

pub(super) const TYPES: [EventType; 3] = [
    EventType {
        name: "service.down",
        resource: "service",
        description: "A service that is watched doesn't answer, says that it isn't well, or has ended; once more, with the state `failed`, \
                      where it was restarted too often and is left alone.",
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
        description: "A service was restarted, because somebody asked for it or by its policy. Whether it is up is yet to be seen.",
        schema,
        example: || and(example(), json!({"operation_id": "opr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "state": "starting"})),
    },
];

fn schema() -> Value {
    object([
        ("name", text("Which service.")),
        ("kind", text("`process`, `http` or `watch`.")),
        ("state", text("`up`, `down`, `starting`, or `failed`: down, and left alone.")),
        ("reason", text_or_null("Why.")),
        ("operation_id", text_or_null("The restart that it belongs to.")),
        ("failures", count("How often in a row its checks have failed.")),
    ])
}

fn example() -> Value {
    json!({"name": "worker", "kind": "process", "state": "up", "reason": null, "operation_id": null, "failures": 0})
}
