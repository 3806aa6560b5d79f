//! What became of alert rules: when each fired and was resolved, with the number that it was then. Outlives the rules.

pub mod store;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::{AlertHistoryId, AlertId, KeyId, ProjectId};
use crate::base::page::{Cursor, Limit, Page};
use crate::ctx::Ctx;
use crate::infra::db::{DbError, Tx};

use super::rules::Reason;
use super::{Metric, Operator, Rule, maybe_number, number, span};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AlertHistoryState)]
pub enum Happened {
    /// It fired.
    Fired,
    /// It still fired after a cooldown, and said so again.
    Reminded,
    /// It would have fired, if the cooldown of the last time hadn't run. Noted once a cooldown.
    Suppressed,
    /// It was over.
    Resolved,
}

impl Happened {
    /// As stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Reminded => "reminded",
            Self::Suppressed => "suppressed",
            Self::Resolved => "resolved",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Fired, Self::Reminded, Self::Suppressed, Self::Resolved].into_iter().find(|one| one.word() == word)
    }
}

/// What became of a rule at a moment, and what it said then.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AlertHistoryEntry, example = json!({
    "id": "alh_01K5ZV8QXW3M7C2R9T4B6D8F0G", "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "alert_id": "alr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "at": "2026-11-20T12:30:00Z", "state": "resolved", "reason": "condition",
    "fired_at": "2026-11-20T12:00:00Z", "duration_seconds": 1800, "value": 12, "name": "many refusals", "metric": "denied",
    "operator": ">=", "threshold": 100, "window": "1h", "key_id": null
}))]
pub struct HistoryEntry {
    /// Names it.
    pub id: AlertHistoryId,
    /// In which project.
    pub project_id: ProjectId,
    /// Of which rule, which may be gone.
    pub alert_id: AlertId,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What happened.
    pub state: Happened,
    /// Why: `condition` for what the number did; a rule may also be resolved because there is `no_data` any more, or because
    /// it was `changed`, `deactivated` or `deleted`.
    #[schema(pattern = "^(condition|no_data|changed|deactivated|deleted)$")]
    pub reason: String,
    /// When it had fired; `null` where it didn't fire.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub fired_at: Option<Timestamp>,
    /// How long it had fired by then, in whole seconds; `null` where it didn't fire.
    pub duration_seconds: Option<u64>,
    /// The number; `null` where there was none.
    #[serde(serialize_with = "maybe_number")]
    pub value: Option<f64>,
    /// What the rule was called.
    pub name: String,
    /// What was looked at.
    pub metric: Metric,
    /// How it was compared.
    pub operator: Operator,
    /// With what.
    #[serde(serialize_with = "number")]
    pub threshold: f64,
    /// The time that was looked at.
    #[serde(serialize_with = "span")]
    #[schema(schema_with = crate::web::openapi::duration)]
    pub window: Seconds,
    /// Of which key; of the whole project where it is `null`.
    pub key_id: Option<KeyId>,
}

/// Notes what becomes of a rule, as part of the change.
pub(super) async fn append(
    tx: &mut Tx,
    ctx: &Ctx,
    rule: &Rule,
    (state, reason): (Happened, Reason),
    fired_at: Option<Timestamp>,
    value: Option<f64>,
    at: Timestamp,
) -> Result<(), DbError> {
    let terms = &rule.terms;
    let entry = HistoryEntry {
        id: AlertHistoryId::generate(at, &*ctx.rng),
        project_id: rule.project,
        alert_id: rule.id,
        at,
        state,
        reason: reason.word().to_owned(),
        fired_at,
        duration_seconds: fired_at.map(|fired| at.since(fired).as_secs()),
        value,
        name: terms.name.clone(),
        metric: terms.metric,
        operator: terms.operator,
        threshold: terms.threshold,
        window: terms.window,
        key_id: terms.key_id,
    };
    store::insert(tx, &entry).await
}

/// Which entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Of this rule.
    pub alert: Option<AlertId>,
    /// Of this kind.
    pub state: Option<Happened>,
    /// At this time or after it.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

/// A page of a project's history, newest first.
///
/// # Errors
/// The storage.
pub async fn list(
    ctx: &Ctx,
    project: ProjectId,
    filter: Filter,
    after: Option<Cursor<AlertHistoryId>>,
    limit: Limit,
) -> Result<Page<HistoryEntry>, DbError> {
    let after = after.unwrap_or(Cursor { at: Timestamp::FAR, id: AlertHistoryId::from_bits(u128::MAX) });
    let rows = store::list(ctx.db.reader().await?.conn(), project, filter, &after, limit).await?;
    Ok(Page::cut(rows, limit, |entry| Cursor { at: entry.at, id: entry.id }))
}

/// Rows removed in one transaction.
const PRUNED: u16 = 1_000;

/// Removes what is older than is kept, a few rows a transaction.
///
/// # Errors
/// The storage.
pub async fn prune(ctx: &Ctx) -> Result<(), DbError> {
    let keep: Duration = ctx.config.alerts.retention;
    loop {
        let mut tx = ctx.db.begin().await?;
        let removed = store::prune(&mut tx, ctx.now().saturating_sub(keep), i64::from(PRUNED)).await?;
        tx.commit().await?;
        if removed < u64::from(PRUNED) {
            return Ok(());
        }
    }
}
