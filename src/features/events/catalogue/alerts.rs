//! What alert rules tell.

use serde_json::{Value, json};

use super::EventType;
use super::parts::{count, id, number, object, text, time, time_or_null, word};

pub(super) const TYPES: [EventType; 2] = [
    EventType {
        name: "alert.fired",
        resource: "alert",
        description: "What an alert rule watches has passed its threshold.",
        schema,
        example: || example(Value::Null),
    },
    EventType {
        name: "alert.resolved",
        resource: "alert",
        description: "What an alert rule watches is back within its threshold.",
        schema,
        example: || example(json!("2026-11-20T12:00:00Z")),
    },
];

const METRICS: [&str; 10] = [
    "requests",
    "denied",
    "error_rate",
    "rate_limited",
    "auth_failures",
    "scope_denied",
    "ip_denied",
    "quota_used_percent",
    "latency_p95_ms",
    "expires_in_days",
];

const REASONS: [&str; 5] = ["condition", "no_data", "changed", "deactivated", "deleted"];

fn schema() -> Value {
    let mut key = id("key", "The one key that is watched; null for all of the project.");
    key["type"] = json!(["string", "null"]);
    let mut measured = number("What was measured; null where there was nothing to measure any more.");
    measured["type"] = json!(["number", "null"]);
    let flag = |description: &str| json!({ "type": "boolean", "description": description });
    object([
        ("id", id("alr", "Which rule.")),
        ("name", text("Its name.")),
        ("metric", word("What it watches.", &METRICS)),
        ("operator", word("How it compares.", &[">", ">=", "<", "<=", "=="])),
        ("threshold", number("With what.")),
        ("value", measured),
        ("window_seconds", count("Over how long.")),
        ("key_id", key),
        ("fired_at", time("When it fired.")),
        ("resolved_at", time_or_null("When it was over.")),
        (
            "reason",
            word(
                "Why: what was measured, or because there is nothing to measure, or the rule isn't the same.",
                &REASONS,
            ),
        ),
        ("reminder", flag("Whether this says once more that it fires, after a cooldown.")),
        ("test", flag("Whether this is a test of who hears of it: nothing has happened.")),
    ])
}

fn example(resolved_at: Value) -> Value {
    let value = if resolved_at.is_null() { 0.125 } else { 0.005 };
    json!({
        "id": "alr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "too many errors", "metric": "error_rate", "operator": ">",
        "threshold": 0.05, "value": value, "window_seconds": 3600, "key_id": null, "fired_at": "2026-11-20T11:30:00Z",
        "resolved_at": resolved_at, "reason": "condition", "reminder": false, "test": false,
    })
}
