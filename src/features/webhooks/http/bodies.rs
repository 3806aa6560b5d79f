//! What the routes take and give.

#![expect(clippy::option_option, reason = "a merge patch tells an absent field from null (RFC 7396)")]

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};

use crate::base::duration::Seconds;
use crate::base::secret::ShownOnce;
use crate::features::webhooks::manage::{Patch, Shown};
use crate::features::webhooks::{Filter, WebhookView, rules};
use crate::web::extract::merge::{present, required};

/// A webhook with its secret, which is shown this once.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "secret": "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "id": "whk_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "url": "https://example.com/hooks", "events": ["key.*"],
    "description": "the pager", "filter": null, "is_active": true, "disabled_at": null, "disabled_reason": null,
    "failing_since": null, "last_success_at": null, "last_failure_at": null, "previous_secret_expires_at": null,
    "created_by": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "created_at": "2026-11-20T12:00:00Z",
    "updated_at": "2026-11-20T12:00:00Z"
}))]
pub(super) struct WebhookWithSecret {
    /// What deliveries are signed with: `whsec_` and base64. It is never shown again: keep it now.
    #[schema(value_type = String, example = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]
    secret: ShownOnce,
    #[serde(flatten)]
    view: WebhookView,
}

impl From<Shown> for WebhookWithSecret {
    fn from(shown: Shown) -> Self {
        Self { secret: ShownOnce(shown.secret), view: shown.view }
    }
}

/// What shall be different; an absent field stays, `null` clears.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"is_active": true}))]
pub(super) struct PatchWebhook {
    /// Another URL.
    #[serde(default, deserialize_with = "required")]
    #[schema(nullable = false, min_length = 9, max_length = 2048, pattern = "^https?://[^\\s@]+$")]
    url: Option<String>,
    /// Other events.
    #[serde(default, deserialize_with = "required")]
    #[schema(schema_with = rules::events_schema)]
    events: Option<Vec<String>>,
    /// Another description.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    description: Option<Option<String>>,
    /// Another filter.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Filter>)]
    filter: Option<Option<Filter>>,
    /// Switched on, it begins without a past: what was paused is sent. Switched off, it is sent nothing.
    #[serde(default, deserialize_with = "required")]
    #[schema(nullable = false)]
    is_active: Option<bool>,
}

impl From<PatchWebhook> for Patch {
    fn from(body: PatchWebhook) -> Self {
        let PatchWebhook { url, events, description, filter, is_active } = body;
        Self { url, events, description, filter, is_active }
    }
}

/// How a secret is rotated.
#[derive(Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap": "24h"}))]
pub(super) struct RotateWebhookSecret {
    /// How long the former secret signs, too; 24 hours where it is left out. 0 ends it at once.
    #[serde(default)]
    #[schema(schema_with = overlap)]
    pub(super) overlap: Option<Seconds>,
}

/// The short forms of durations up to 7 days.
const SHORT_FORM: &str = "^(([1-9][0-9]{0,4}|[1-5][0-9]{5}|60[0-3][0-9]{3}|604[0-7][0-9]{2}|604800)s\
    |([1-9][0-9]{0,3}|100[0-7][0-9]|10080)m|([1-9][0-9]?|1[0-5][0-9]|16[0-8])h|[1-7]d)$";

fn overlap() -> Schema {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(604_800));
    let short = ObjectBuilder::new().schema_type(Type::String).pattern(Some(SHORT_FORM));
    let none = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null));
    OneOfBuilder::new()
        .item(seconds)
        .item(short)
        .item(none)
        .description(Some(
            "How long the former secret signs, too: whole seconds, or a short form such as `15m`, `12h` or `7d`; at most 7 \
             days. 24 hours where it is left out; 0 ends it at once.",
        ))
        .examples([serde_json::json!("24h")])
        .build()
        .into()
}

/// What is sent as a test.
#[derive(Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"event_type": "key.revoked"}))]
pub(super) struct TestWebhook {
    /// The type whose example is sent; the webhook's first where it is left out.
    #[serde(default)]
    #[schema(max_length = 64, example = "key.revoked")]
    pub(super) event_type: Option<String>,
}
