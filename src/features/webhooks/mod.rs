//! Webhooks: a project's events, sent to URLs that it names, as Standard Webhooks 1.0.0 says. `docs/webhooks.md` says it for
//! people.
//!
//! Reads events, and is imported by nobody that makes them. Who does what, in the order of an event's way:
//! - `dispatch` reads events by their place and makes a delivery for each webhook that wants one, in the transaction that
//!   moves its cursor: each event becomes each delivery once.
//! - `deliver` claims what is due, an endpoint at a time, sends it, and writes down how it ended. Any number of replicas do.
//! - `settle` stops what belongs to webhooks that are switched off, takes it up again, and forgets what is old.
//! - `manage`, `trial` and `again` are what people do: webhooks, test sends, and sending once more.
//!
//! `rules` decides, without I/O; `sign` signs. A secret is readable only between the vault and the signature.

pub mod again;
pub mod deliver;
pub mod deliveries;
pub mod dispatch;
pub mod http;
pub mod manage;
pub mod rules;
pub mod settle;
pub mod sign;
pub mod store;
pub mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, WebhookId};
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::infra::db::DbError;
use crate::infra::reconcile;
use crate::infra::vault::VaultError;

use super::idempotency::Claimed;

/// Starts what works in the background, until `stop` turns true.
#[must_use]
pub fn spawn(ctx: &Ctx, stop: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
    let settled = {
        let ctx = ctx.clone();
        move || {
            let ctx = ctx.clone();
            async move { settle::settle(&ctx).await }
        }
    };
    let figures = {
        let ctx = ctx.clone();
        move || {
            let ctx = ctx.clone();
            async move { settle::figures(&ctx).await }
        }
    };
    let never_woken = || Arc::new(Notify::new());
    vec![
        deliver::spawn(ctx, stop.clone()),
        reconcile::spawn("webhooks", settle::INTERVAL, never_woken(), stop.clone(), settled),
        reconcile::spawn("webhook figures", settle::FIGURES, never_woken(), stop.clone(), figures),
    ]
}

/// The most webhooks of one project.
pub const MAX_WEBHOOKS: i64 = 200;

/// To which events a webhook is narrowed. All that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookFilter, example = json!({"metadata": {"team": "billing"}}))]
pub struct Filter {
    /// Events of this key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// Events of keys whose metadata has all of these members with these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = rules::metadata_schema)]
    pub metadata: Option<BTreeMap<String, Value>>,
}

/// Why a webhook gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookDisabledReason)]
pub enum Disabled {
    /// Somebody switched it off.
    Request,
    /// It answered `410`.
    Gone,
    /// Every attempt has failed for days.
    Failing,
}

impl Disabled {
    /// As stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Request, Self::Gone, Self::Failing].into_iter().find(|reason| reason.word() == word)
    }
}

/// A webhook as it is stored.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// What is shown of it.
    pub view: WebhookView,
    /// Its secrets.
    pub secrets: Sealed,
    /// Events after this place are sent.
    pub from_place: i64,
    /// Attempts in a row that failed.
    pub failures: i64,
}

/// Secrets, encrypted.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The present one.
    pub secret: Vec<u8>,
    /// The former one, and until when it signs too.
    pub previous: Option<(Vec<u8>, Timestamp)>,
}

/// A webhook.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = Webhook, example = json!({
    "id": "whk_01K5ZV8QXW3M7C2R9T4B6D8F0G", "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "url": "https://example.com/hooks", "events": ["key.*"], "description": "the pager", "filter": null,
    "is_active": true, "disabled_at": null, "disabled_reason": null, "failing_since": null,
    "last_success_at": "2026-11-20T12:00:00Z", "last_failure_at": null, "previous_secret_expires_at": null,
    "created_by": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "created_at": "2026-11-20T12:00:00Z",
    "updated_at": "2026-11-20T12:00:00Z"
}))]
pub struct WebhookView {
    /// Names it for good.
    pub id: WebhookId,
    /// Whose.
    pub project_id: ProjectId,
    /// Where events are sent.
    pub url: String,
    /// Which: names of types, `key.*` for all of a kind, `*` for all.
    pub events: Vec<String>,
    /// For people.
    pub description: Option<String>,
    /// To which of these it is narrowed.
    pub filter: Option<Filter>,
    /// Whether anything is sent.
    pub is_active: bool,
    /// Since when nothing is sent.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub disabled_at: Option<Timestamp>,
    /// Why nothing is sent.
    pub disabled_reason: Option<Disabled>,
    /// Since when every attempt has failed; `null` where the last one succeeded.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub failing_since: Option<Timestamp>,
    /// The last attempt that succeeded.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_success_at: Option<Timestamp>,
    /// The last attempt that failed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_failure_at: Option<Timestamp>,
    /// Until when deliveries carry a signature by the former secret, too; `null` where the secret is the only one.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub previous_secret_expires_at: Option<Timestamp>,
    /// Who made it: a person, a key, or `system`.
    pub created_by: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When somebody changed it last.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

impl WebhookView {
    /// As the trail and events have it: its URL may hold secrets behind the host.
    #[must_use]
    pub fn masked(&self) -> Self {
        Self { url: rules::masked_url(&self.url), ..self.clone() }
    }
}

/// What a webhook's secret belongs to, for the vault.
#[must_use]
pub fn belongs(id: WebhookId) -> String {
    format!("{id} signing secret")
}

/// Why a webhook or a delivery can't be handled so.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The project isn't there any more.
    #[error("there is no such project")]
    NoProject,
    /// There is no such webhook in the project.
    #[error("there is no such webhook")]
    NotFound,
    /// There is no such delivery for this caller.
    #[error("there is no such delivery")]
    NoDelivery,
    /// As many as there may be.
    #[error("a project has at most {MAX_WEBHOOKS} webhooks")]
    TooMany,
    /// The event of a delivery is no longer kept.
    #[error("the event is no longer kept")]
    EventGone,
    /// Its webhook sends nothing now.
    #[error("the webhook is switched off")]
    Inactive,
    /// Too many test sends; so many seconds until the next.
    #[error("at most {} test sends a minute", trial::PER_MINUTE)]
    TooOften(u64),
    /// The vault can't do it.
    #[error("the webhook's secret: {0}")]
    Vault(#[from] VaultError),
    /// What was sent breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The Idempotency-Key was used.
    #[error(transparent)]
    Claimed(#[from] Claimed),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}
