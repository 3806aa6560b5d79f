//! Which fields of others' documents are sensitive, and what becomes of them before anything is kept or sent: rules of the
//! server, rules of projects, and defaults (`base/sensitive`). `docs/privacy.md` says it for people.
//!
//! `guard` is what those call who write such documents; `memory` holds the rules; `manage` changes them.

pub mod guard;
pub mod http;
pub mod manage;
pub mod memory;
pub mod store;

use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, SensitiveFieldId};
use crate::base::invalid::Invalid;
use crate::base::sensitive::names::Name;
use crate::base::sensitive::{Rule, Strategy};
use crate::infra::db::DbError;

use super::idempotency::Claimed;

/// The most rules of one project, and of the server.
pub const MAX_RULES: usize = 200;

/// A rule that somebody made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Names it in the audit trail.
    pub id: SensitiveFieldId,
    /// Whose; `None` for the server's.
    pub project: Option<ProjectId>,
    /// What it says.
    pub rule: Rule,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Where a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SensitiveFieldSource)]
pub enum Origin {
    /// It is compiled in.
    Default,
    /// An administrator made it, for every project.
    Server,
    /// The project made it, for itself.
    Project,
}

/// A rule as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = SensitiveField, example = json!({
    "name": "*_token", "strategy": "mask", "replacement": null, "show_start": 0, "show_end": 4, "mask_char": "*",
    "is_active": true, "source": "project", "created_at": "2026-11-20T12:00:00Z", "updated_at": "2026-11-20T12:00:00Z"
}))]
pub struct View {
    /// Which fields: a name, or a pattern in which `*` stands for any characters.
    #[schema(value_type = String, min_length = 1, max_length = 100)]
    pub name: Name,
    /// What becomes of them.
    pub strategy: Strategy,
    /// What takes the place of a value that is redacted; `[redacted]` where it is `null`.
    pub replacement: Option<String>,
    /// Characters that stay at the beginning of a value that is masked.
    #[schema(maximum = 16)]
    pub show_start: u8,
    /// Characters that stay at its end.
    #[schema(maximum = 16)]
    pub show_end: u8,
    /// What takes the place of the others.
    #[schema(value_type = String, min_length = 1, max_length = 1)]
    pub mask_char: char,
    /// Whether it does anything. One that doesn't lets its fields through, whatever rules behind it say.
    pub is_active: bool,
    /// Where it comes from.
    pub source: Origin,
    /// When it was made; `null` for a default.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
    /// When it last changed; `null` for a default.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub updated_at: Option<Timestamp>,
}

impl View {
    fn of(rule: Rule, source: Origin, times: Option<(Timestamp, Timestamp)>) -> Self {
        let Rule { name, strategy, replacement, show_start, show_end, mask_char, is_active } = rule;
        let (created_at, updated_at) = times.unzip();
        Self { name, strategy, replacement, show_start, show_end, mask_char, is_active, source, created_at, updated_at }
    }
}

impl From<Kept> for View {
    fn from(kept: Kept) -> Self {
        let source = if kept.project.is_some() { Origin::Project } else { Origin::Server };
        Self::of(kept.rule, source, Some((kept.created_at, kept.updated_at)))
    }
}

/// Why rules can't be changed so.
#[derive(Debug, thiserror::Error)]
pub enum SensitiveError {
    /// The project isn't there any more.
    #[error("there is no such project")]
    NoProject,
    /// Nothing of that name, here or behind.
    #[error("there is no such rule")]
    NotFound,
    /// There is one of that name.
    #[error("there is a rule of that name")]
    Exists,
    /// It comes from behind: it can be switched off here, but not removed.
    #[error("the rule is inherited")]
    Inherited,
    /// As many as there may be.
    #[error("too many rules")]
    TooMany,
    /// What was sent breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The Idempotency-Key was used.
    #[error(transparent)]
    Claimed(#[from] Claimed),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
    /// A defect.
    #[error("a preview broke off")]
    BrokenOff(#[from] tokio::task::JoinError),
}
