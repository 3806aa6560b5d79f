//! What becomes of projects and their members.

use serde_json::{Value, json};

use crate::features::members::Member;
use crate::features::projects::ProjectView;

use super::EventType;
use super::parts::{and, change, changed, count, did, id, object, view, with};

pub(super) const TYPES: [EventType; 4] = [
    EventType {
        name: "project.created",
        resource: "project",
        description: "A project was made, also the personal one of somebody who registers.",
        schema,
        example: || and(project(), did("project.create")),
    },
    EventType {
        name: "project.updated",
        resource: "project",
        description: "A project, its configuration, its scopes or its sensitive fields changed; it was suspended, resumed or \
            restored; keys were imported. `action` says which.",
        schema: || {
            let any = |what: &str| json!({ "type": "object", "description": what });
            let more = [
                ("config?", any("The configuration as it is now, where that changed.")),
                ("scope?", any("The scope of the catalogue that was made, changed or removed.")),
                ("scopes?", any("What became of scopes that were imported: `created`, `updated`, `skipped`.")),
                ("sensitive_field?", any("The rule for sensitive fields that was made, changed or removed.")),
                ("keys_imported?", count("How many keys were imported.")),
            ];
            with(schema(), more)
        },
        example: || {
            let before = json!({"status": "active", "suspended_at": null});
            let now = json!({"status": "suspended", "suspended_at": "2026-11-20T12:00:00Z"});
            and(and(project(), now.clone()), changed("project.suspend", before, now))
        },
    },
    EventType {
        name: "project.deleted",
        resource: "project",
        description: "A project was deleted (its keys are refused; `purge_at` says until when it can be restored), or, where \
            `action` is `project.purge`, removed for good with its keys.",
        schema,
        example: || {
            let before = json!({"status": "active", "deleted_at": null, "purge_at": null});
            let now = json!({
                "status": "deleted", "deleted_at": "2026-11-20T12:00:00Z", "purge_at": "2026-12-20T12:00:00Z",
            });
            and(and(project(), now.clone()), changed("project.delete", before, now))
        },
    },
    EventType {
        name: "member.changed",
        resource: "user",
        description: "Somebody was added to a project, has another role in it, or isn't a member any more: `action` is \
            `member.add`, `member.update` or `member.remove`.",
        schema: || {
            let mut member = view::<Member>();
            member["description"] = json!("The member as they are now; of one who was removed, as they were.");
            let members =
                object([("id", id("usr", "Who.")), ("project_id", id("prj", "In which project.")), ("member", member)]);
            with(members, change())
        },
        example: || {
            let member = json!({
                "id": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G",
                "member": {
                    "user_id": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "username": "ada", "role": "admin",
                    "is_disabled": false, "created_at": "2026-11-20T12:00:00Z",
                },
            });
            and(member, changed("member.update", json!({"role": "member"}), json!({"role": "admin"})))
        },
    },
];

/// A project as it is now, and who did what.
fn schema() -> Value {
    with(view::<ProjectView>(), change())
}

fn project() -> Value {
    json!({
        "id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "kind": "team", "name": "shop", "description": null, "prefix": "shop_live",
        "status": "active", "created_by": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "created_at": "2026-11-20T12:00:00Z",
        "updated_at": "2026-11-20T12:00:00Z", "suspended_at": null, "suspended_by": null, "suspended_reason": null,
        "deleted_at": null, "purge_at": null,
    })
}
