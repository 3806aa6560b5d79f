//! What looks like an attack or a mistake of whoever holds a key: told once a key and window with a count.

use serde_json::json;

use super::EventType;
use super::parts::{and, count, flag, id, list, number, object, text, text_or_null, time, with, word};
use super::traffic::{counted, example};

pub(super) const TYPES: [EventType; 4] = [
    EventType {
        name: "auth.suspicious",
        resource: "key",
        description: "Somebody guesses keys, a key is used from many addresses at once, a revoked key is still being used, or a \
            key fails far more than is its habit. Where no key is concerned, `id` is missing and the event is about the project.",
        schema: || {
            let reasons = ["guessing", "many_addresses", "revoked_key_used", "unusual_failures"];
            object([
                ("reason", word("What was seen.", &reasons)),
                ("id?", id("key", "Which key.")),
                ("name?", text("Its name.")),
                ("owner?", text_or_null("Whom it was made for, in the project's own words.")),
                ("metadata?", json!({ "type": "object", "description": "Whatever its owner keeps with it." })),
                (
                    "count",
                    count(
                        "How many requests; for `many_addresses`, how many addresses, each once a tenth of the window.",
                    ),
                ),
                ("addresses", list("From where, at most ten of them.", text("An address."))),
                ("first_at?", time("The first of them.")),
                ("last_at?", time("The last of them.")),
                ("user_agents?", list("What the clients call themselves, at most ten of them.", text("A client."))),
                ("asked_by?", list("Who asked about it, at most ten of them.", text("A key's or a person's id."))),
                (
                    "superseded?",
                    flag("Whether the secret is one that a newer has replaced, and whose overlap is over."),
                ),
                ("window_seconds?", count("Over how long was looked.")),
                ("habit?", number("How often it usually fails in such a time.")),
            ])
        },
        example: || {
            let more = json!({"reason": "many_addresses", "addresses": ["192.0.2.1", "198.51.100.7", "203.0.113.9"]});
            and(and(example(), more), json!({"window_seconds": 300}))
        },
    },
    EventType {
        name: "scope.denied",
        resource: "key",
        description: "A key was refused because it lacks a scope that was asked for.",
        schema: || {
            let scopes = list("Which scopes it lacks, as far as they are kept.", text("A scope."));
            with(counted(), [("scopes?", scopes)])
        },
        example: || and(example(), json!({"scopes": ["orders:write"]})),
    },
    EventType {
        name: "ip.denied",
        resource: "key",
        description: "A key was refused because of the address that it was used from.",
        schema: counted,
        example: || and(example(), json!({"addresses": ["203.0.113.9"]})),
    },
    EventType {
        name: "schedule.denied",
        resource: "key",
        description: "A key was refused because of the time at which it was used.",
        schema: counted,
        example,
    },
];
