//! What becomes of keys.

use serde_json::{Value, json};

use crate::features::keys::KeyView;

use super::EventType;
use super::parts::{and, change, changed, count, did, id, number, object, text, text_or_null, time, view, with};

pub(super) const TYPES: [EventType; 9] = [
    EventType {
        name: "key.created",
        resource: "key",
        description: "A key was made. Keys that are imported in bulk are one `project.updated` with their number.",
        schema,
        example: || and(key(), did("key.create")),
    },
    EventType {
        name: "key.updated",
        resource: "key",
        description: "A key's settings, limits or person changed, or its counts were set back.",
        schema,
        example: || {
            let (before, after) = (json!({"name": "billing"}), json!({"name": "billing worker"}));
            and(key(), changed("key.update", before, after))
        },
    },
    EventType {
        name: "key.rotated",
        resource: "key",
        description: "A key has a new secret; the former one ends at `previous_expires_at`.",
        schema: || {
            let more = [
                ("generation", count("The number of the new secret, from 1.")),
                ("previous_expires_at", time("When the secret that was the present one ends.")),
            ];
            with(schema(), more)
        },
        example: || {
            let more = json!({"generation": 2, "previous_expires_at": "2026-11-21T12:00:00Z"});
            and(and(key(), more), changed("key.rotate", json!({"generation": 1}), json!({"generation": 2})))
        },
    },
    EventType {
        name: "key.disabled",
        resource: "key",
        description: "A key is refused until it is enabled: somebody switched it off, or the person who answers for it left, \
            was disabled, or may do less than the key (then `cause` names the entry of that change).",
        schema,
        example: || {
            let now = json!({"status": "disabled", "disabled_at": "2026-11-20T12:00:00Z"});
            let before = json!({"status": "active", "disabled_at": null});
            and(and(key(), now.clone()), changed("key.disable", before, now))
        },
    },
    EventType {
        name: "key.enabled",
        resource: "key",
        description: "A key that was disabled works again.",
        schema,
        example: || {
            let before = json!({"status": "disabled", "disabled_at": "2026-11-20T11:00:00Z"});
            and(key(), changed("key.enable", before, json!({"status": "active", "disabled_at": null})))
        },
    },
    EventType {
        name: "key.revoked",
        resource: "key",
        description: "A key was taken back for good; `reason` says why.",
        schema: || with(schema(), [("reason", text("Why: `revoked_reason`."))]),
        example: || {
            let now = json!({
                "status": "revoked", "revoked_at": "2026-11-20T12:00:00Z", "revoked_reason": "key_compromise",
            });
            let before = json!({"status": "active", "revoked_at": null, "revoked_reason": null});
            let whole = and(and(key(), now.clone()), changed("key.revoke", before, now));
            and(whole, json!({"reason": "key_compromise"}))
        },
    },
    EventType {
        name: "key.deleted",
        resource: "key",
        description: "A key was removed for good; `data` is what it was. Keys that end with their project are told of by \
            `project.deleted`.",
        schema,
        example: || and(key(), did("key.delete")),
    },
    EventType {
        name: "key.expiring",
        resource: "key",
        description: "A key ends in 30, 7 or 1 days, unless it is given more time.",
        schema: || {
            let more = [
                ("expires_at", time("When it ends.")),
                ("days", number("How many days before its end this is told: 30, 7 or 1.")),
            ];
            with(brief(), more)
        },
        example: || and(named(), json!({"expires_at": "2026-12-20T12:00:00Z", "days": 30})),
    },
    EventType {
        name: "key.expired",
        resource: "key",
        description: "A key's time is over: it is refused from now on.",
        schema: || with(brief(), [("expires_at", time("When it ended."))]),
        example: || and(named(), json!({"expires_at": "2026-11-20T12:00:00Z"})),
    },
];

/// A key as it is now, and who did what.
fn schema() -> Value {
    with(view::<KeyView>(), change())
}

/// What names a key, for events that no change of it makes.
pub(super) fn brief() -> Value {
    object([
        ("id", id("key", "Which key.")),
        ("name", text("Its name.")),
        ("owner", text_or_null("Whom it was made for, in the project's own words.")),
        ("metadata", json!({ "type": "object", "description": "Whatever its owner keeps with it." })),
    ])
}

/// An example of it.
pub(super) fn named() -> Value {
    json!({
        "id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "billing worker", "owner": "customer-42",
        "metadata": {"team": "billing"},
    })
}

/// An example of a whole key.
fn key() -> Value {
    json!({
        "id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G", "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "billing worker",
        "description": null, "prefix": "sk", "display": "sk_AAEC…_cIg", "status": "active", "scopes": ["orders:read"],
        "metadata": {"team": "billing"}, "owner": "customer-42", "created_by": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G",
        "user_id": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "created_at": "2026-11-20T12:00:00Z",
        "updated_at": "2026-11-20T12:00:00Z", "expires_at": "2026-12-20T12:00:00Z", "first_used_at": null,
        "last_used_at": null, "disabled_at": null, "revoked_at": null, "revoked_reason": null, "revoked_note": null,
        "limits": [{"name": "minute", "limit": 60, "window": "1m"}], "concurrency": null, "ip_allow": ["192.0.2.0/24"],
        "schedule": null, "method_allow": null, "path_allow": null,
    })
}
