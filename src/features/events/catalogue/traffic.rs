//! What limits refuse: told once a key and window with a count, never once a request.

use serde_json::{Value, json};

use super::EventType;
use super::keys::{brief, named};
use super::parts::{and, count, list, number, object, text, time, with};

pub(super) const TYPES: [EventType; 4] = [
    EventType {
        name: "limit.reached",
        resource: "key",
        description: "A key's rate limit refused requests.",
        schema: || with(counted(), [("window", window())]),
        example: || and(example(), json!({"window": {"name": "minute", "limit": 60, "window_seconds": 60}})),
    },
    EventType {
        name: "quota.warning",
        resource: "key",
        description: "A key has used most of a quota (a window of a day or longer): `used` of `window.limit`.",
        schema: || {
            let more = [
                ("window", window()),
                ("used", count("How much is used.")),
                ("percent", number("Which part of the limit that is, in percent.")),
            ];
            with(counted(), more)
        },
        example: || {
            let more = json!({
                "window": {"name": "day", "limit": 1000, "window_seconds": 86400}, "used": 800, "percent": 80,
            });
            and(example(), more)
        },
    },
    EventType {
        name: "quota.reached",
        resource: "key",
        description: "A key's quota (a window of a day or longer) refused requests.",
        schema: || with(counted(), [("window", window())]),
        example: || and(example(), json!({"window": {"name": "day", "limit": 1000, "window_seconds": 86400}})),
    },
    EventType {
        name: "concurrency.reached",
        resource: "key",
        description: "A key's cap on simultaneous operations refused requests.",
        schema: || with(counted(), [("concurrency", count("How many it may have at once."))]),
        example: || and(example(), json!({"concurrency": 5})),
    },
];

/// A key, and how often something happened to it.
pub(super) fn counted() -> Value {
    let more = [
        ("count", count("How many requests.")),
        ("first_at", time("The first of them.")),
        ("last_at", time("The last of them.")),
        ("addresses?", list("From where, at most ten of them.", text("An address."))),
        ("user_agents?", list("What the clients call themselves, at most ten of them.", text("A client."))),
        ("asked_by?", list("Who asked about the key, at most ten of them.", text("A key's or a person's id."))),
    ];
    with(brief(), more)
}

/// An example of it.
pub(super) fn example() -> Value {
    and(named(), json!({"count": 17, "first_at": "2026-11-20T11:59:10Z", "last_at": "2026-11-20T11:59:59Z"}))
}

fn window() -> Value {
    object([
        ("name", text("Which limit.")),
        ("limit", count("How many it admits in the window.")),
        ("window_seconds", count("How long the window is.")),
    ])
}
