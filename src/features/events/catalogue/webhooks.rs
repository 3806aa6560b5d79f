//! What becomes of the delivery of events.

use serde_json::json;

use super::EventType;
use super::parts::{count, id, object, text, text_or_null, time};

pub(super) const TYPES: [EventType; 2] = [
    EventType {
        name: "webhook.failed",
        resource: "webhook",
        description: "A delivery failed for the last time: nobody tries it again by themselves.",
        schema: || {
            object([
                ("id", id("whk", "Which webhook.")),
                ("url", text("Where it points.")),
                ("delivery_id", id("dlv", "Which delivery.")),
                ("event_id", id("evt", "Of which event.")),
                ("event_type", text("Of which type that is.")),
                ("attempts", count("How often it was tried.")),
                (
                    "last_status",
                    json!({ "type": ["integer", "null"], "description": "What was answered last, if anything." }),
                ),
                ("last_error", text_or_null("What went wrong last, where nothing was answered.")),
            ])
        },
        example: || {
            json!({
                "id": "whk_01K5ZV8QXW3M7C2R9T4B6D8F0G", "url": "https://example.com/hooks",
                "delivery_id": "dlv_01K5ZV8QXW3M7C2R9T4B6D8F0G", "event_id": "evt_01K5ZV8QXW3M7C2R9T4B6D8F0G",
                "event_type": "key.revoked", "attempts": 12, "last_status": 503, "last_error": null,
            })
        },
    },
    EventType {
        name: "webhook.disabled",
        resource: "webhook",
        description: "A webhook was switched off: it has failed for days, or it said that it is gone (`410`).",
        schema: || {
            object([
                ("id", id("whk", "Which webhook.")),
                ("url", text("Where it points.")),
                ("reason", text("Why it was switched off.")),
                ("failing_since", time("Since when nothing could be delivered.")),
            ])
        },
        example: || {
            json!({
                "id": "whk_01K5ZV8QXW3M7C2R9T4B6D8F0G", "url": "https://example.com/hooks", "reason": "failing",
                "failing_since": "2026-11-15T12:00:00Z",
            })
        },
    },
];
