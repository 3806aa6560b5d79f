//! Alert rules: a number of a project or of a key, compared with a threshold every few seconds; what must be known when the
//! comparison comes true, and when it doesn't hold any more. `docs/alerts.md` says it for people.
//!
//! `manage` makes, changes and removes rules; `evaluate` is the reconciler: it takes what is due, `measure` finds the numbers,
//! `rules` decides, and `settle` writes what that leads to, with its event, its mails and its row of `history`; `firing` shows
//! Prometheus what fires; `trial` lets people try their receivers. Nothing imports this feature: whoever must know reads
//! events.

pub mod evaluate;
pub mod firing;
pub mod history;
pub mod http;
pub mod manage;
pub mod measure;
pub mod rules;
pub mod settle;
pub mod store;
pub mod trial;

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::{AlertId, KeyId, ProjectId};
use crate::base::invalid::Invalid;
use crate::infra::db::DbError;

use super::idempotency::Claimed;

/// The most rules of one project.
pub const MAX_RULES: usize = 200;
/// The most addresses of one rule.
pub const MAX_EMAILS: usize = 10;

macro_rules! words {
    ($($(#[$meta:meta])* $enum:ident { $($(#[$doc:meta])* $variant:ident = $word:tt,)* })*) => {$(
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        $(#[$meta])*
        pub enum $enum {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $enum {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// As on the wire and as stored.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// `None` for a word that is none of them.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.word() == word)
            }
        }
    )*};
}

words! {
    /// What is looked at.
    #[schema(as = AlertMetric)]
    Metric {
        /// Requests in the window: however they came out.
        Requests = "requests",
        /// Those that were denied.
        Denied = "denied",
        /// The share of all that were denied or failed, from 0 to 1, as usage tells it; without requests there is none.
        ErrorRate = "error_rate",
        /// Those refused by a limit: `RATE_LIMITED`, `QUOTA_EXCEEDED`, `CONCURRENCY_LIMITED`, or reported with status 429.
        RateLimited = "rate_limited",
        /// Those with a key that is revoked, disabled or expired, or reported with status 401; for a project also those
        /// with no key that there is, and failed log-ins.
        AuthFailures = "auth_failures",
        /// Those refused because a scope, a method or a path wasn't allowed: `INSUFFICIENT_SCOPE`.
        ScopeDenied = "scope_denied",
        /// Those from an address that wasn't allowed: `IP_NOT_ALLOWED`.
        IpDenied = "ip_denied",
        /// How much is used of the fullest limit of a day or longer, from 0 to 100: the key's, or that of any of the project's
        /// keys that was used in the window.
        QuotaUsedPercent = "quota_used_percent",
        /// Milliseconds that 95 of 100 requests of the window took at most; without durations there is none.
        LatencyP95Ms = "latency_p95_ms",
        /// Days, with fractions, until the key expires, or the next of the project's active keys; 0 for a key that has expired.
        ExpiresInDays = "expires_in_days",
    }

    /// How the number is compared with the threshold.
    #[schema(as = AlertOperator)]
    Operator {
        /// Greater.
        Above = ">",
        /// Greater or the same.
        AtLeast = ">=",
        /// Less.
        Below = "<",
        /// Less or the same.
        AtMost = "<=",
        /// The same.
        Equal = "==",
    }

    /// How a rule stands.
    #[schema(as = AlertState)]
    State {
        /// The comparison isn't true.
        Ok = "ok",
        /// It is true, and the cooldown of the last time runs: it fires at its end, if it is still true then.
        Muted = "muted",
        /// It is true.
        Firing = "firing",
        /// There was nothing to compare: not evaluated yet, switched off, or no data.
        NoData = "no_data",
    }
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Terms {
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// What is looked at.
    pub metric: Metric,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    #[serde(serialize_with = "number")]
    pub threshold: f64,
    /// The time up to now that is looked at.
    #[serde(serialize_with = "span")]
    pub window: Seconds,
    /// How long after it fired it doesn't fire again.
    #[serde(serialize_with = "span")]
    pub cooldown: Seconds,
    /// Of which key; of the whole project where it is `None`.
    pub key_id: Option<KeyId>,
    /// Who gets a mail.
    pub emails: Vec<String>,
    /// Whether it tells again after each cooldown that it still fires.
    pub remind: bool,
    /// Whether it is evaluated.
    pub is_active: bool,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Names it.
    pub id: AlertId,
    /// Whose.
    pub project: ProjectId,
    /// What it says.
    pub terms: Terms,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// How a rule stands, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// In a word.
    pub state: State,
    /// The number, as it was found last.
    pub value: Option<f64>,
    /// When that was.
    pub evaluated_at: Option<Timestamp>,
    /// When it fired last.
    pub fired_at: Option<Timestamp>,
    /// When that was over.
    pub resolved_at: Option<Timestamp>,
    /// When people were told last that it fires.
    pub told_at: Option<Timestamp>,
    /// Since when it would fire, if the cooldown didn't run.
    pub suppressed_at: Option<Timestamp>,
}

impl Standing {
    /// That of a rule which nobody has evaluated.
    pub const NEW: Self = Self {
        state: State::NoData,
        value: None,
        evaluated_at: None,
        fired_at: None,
        resolved_at: None,
        told_at: None,
        suppressed_at: None,
    };

    /// The time at which something happens to it: now, or just after what happened last, where that was begun earlier and
    /// ended later. So its history has an order.
    #[must_use]
    pub fn after(&self, now: Timestamp) -> Timestamp {
        let last = [self.fired_at, self.resolved_at, self.told_at, self.suppressed_at].into_iter().flatten().max();
        last.map_or(now, |last| now.max(last.saturating_add(Duration::from_micros(1))))
    }

    /// Until when it doesn't fire again; `None` if no cooldown runs.
    #[must_use]
    pub fn muted_until(&self, cooldown: Seconds, now: Timestamp) -> Option<Timestamp> {
        self.told_at.map(|told| told.saturating_add(cooldown.as_duration())).filter(|until| *until > now)
    }
}

/// A rule as it is shown.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Alert, example = json!({
    "id": "alr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "many refusals",
    "description": null, "metric": "denied", "operator": ">=", "threshold": 100, "window": "1h", "cooldown": "1h",
    "key_id": null, "emails": [], "remind": false, "is_active": true, "state": "firing", "last_value": 117,
    "last_evaluated_at": "2026-11-20T12:00:15Z", "fired_at": "2026-11-20T12:00:00Z", "resolved_at": null,
    "is_muted_until": "2026-11-20T13:00:00Z", "created_at": "2026-11-19T12:00:00Z", "updated_at": "2026-11-19T12:00:00Z"
}))]
pub struct View {
    /// Names it.
    pub id: AlertId,
    /// Whose.
    pub project_id: ProjectId,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// What is looked at.
    pub metric: Metric,
    /// How it is compared.
    pub operator: Operator,
    /// With what; in the metric's unit.
    #[serde(serialize_with = "number")]
    pub threshold: f64,
    /// The time up to now that is looked at: a short form in the largest unit that fits.
    #[serde(serialize_with = "span")]
    #[schema(schema_with = crate::web::openapi::duration)]
    pub window: Seconds,
    /// How long after it fired it doesn't fire again: 0, or a short form in the largest unit that fits.
    #[serde(serialize_with = "span")]
    #[schema(schema_with = shown_cooldown)]
    pub cooldown: Seconds,
    /// Of which key; of the whole project where it is `null`.
    pub key_id: Option<KeyId>,
    /// Who gets a mail.
    pub emails: Vec<String>,
    /// Whether it tells again after each cooldown that it still fires.
    pub remind: bool,
    /// Whether it is evaluated.
    pub is_active: bool,
    /// How it stands.
    pub state: State,
    /// The number, as it was found last.
    #[serde(serialize_with = "maybe_number")]
    pub last_value: Option<f64>,
    /// When that was.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_evaluated_at: Option<Timestamp>,
    /// When it fired last.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub fired_at: Option<Timestamp>,
    /// When it was resolved last.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resolved_at: Option<Timestamp>,
    /// Until when it doesn't fire again, because the cooldown runs.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub is_muted_until: Option<Timestamp>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

impl View {
    /// A rule and how it stands now.
    #[must_use]
    pub fn of(rule: Rule, standing: &Standing, now: Timestamp) -> Self {
        let Rule { id, project, terms, created_at, updated_at } = rule;
        Self {
            id,
            project_id: project,
            is_muted_until: standing.muted_until(terms.cooldown, now),
            name: terms.name,
            description: terms.description,
            metric: terms.metric,
            operator: terms.operator,
            threshold: terms.threshold,
            window: terms.window,
            cooldown: terms.cooldown,
            key_id: terms.key_id,
            emails: terms.emails,
            remind: terms.remind,
            is_active: terms.is_active,
            state: standing.state,
            last_value: standing.value,
            last_evaluated_at: standing.evaluated_at,
            fired_at: standing.fired_at,
            resolved_at: standing.resolved_at,
            created_at,
            updated_at,
        }
    }
}

fn shown_cooldown() -> utoipa::openapi::schema::Schema {
    use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
    let none = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(0));
    let short = ObjectBuilder::new().schema_type(Type::String).pattern(Some(crate::base::duration::SHORT_FORM));
    OneOfBuilder::new().item(none).item(short).examples([serde_json::json!("1h")]).build().into()
}

/// Whole numbers without a fraction, as people write them.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    #[expect(clippy::cast_possible_truncation, reason = "whole, and far below the largest")]
    if value.fract() == 0.0 && value.abs() < 1e15 {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f64(*value)
    }
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn maybe_number<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => number(value, serializer),
        None => serializer.serialize_none(),
    }
}

/// The short form where there is one; whole seconds otherwise.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn span<S: Serializer>(span: &Seconds, serializer: S) -> Result<S::Ok, S::Error> {
    match span.short_form() {
        Some(text) => serializer.serialize_str(&text),
        None => serializer.serialize_u64(span.get()),
    }
}

/// Why a rule can't be made, changed or tried so.
#[derive(Debug, thiserror::Error)]
pub enum AlertError {
    /// The project isn't there any more.
    #[error("there is no such project")]
    NoProject,
    /// No rule of this id in this project.
    #[error("there is no such alert rule")]
    NotFound,
    /// The project has one of that name.
    #[error("there is an alert rule of that name")]
    Exists,
    /// As many as there may be.
    #[error("a project has at most 200 alert rules")]
    TooMany,
    /// Tried a moment ago.
    #[error("it was tried a moment ago; try again in {0} s")]
    TooSoon(u64),
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
