//! How many entries there are of what: counted by the database.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::ProjectId;
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::auth::Reach;

use super::read::{AuditActor, ReadError};
use super::store;

/// The period where nobody says which.
const USUAL: Duration = Duration::from_hours(30 * 24);
/// The longest period.
const LONGEST: Duration = Duration::from_hours(366 * 24);
/// The most groups of an answer: as many as a period has days.
const MAX_GROUPS: usize = 366;
/// Groups of one project that are added to those of others.
const FETCHED: i64 = 10_000;
/// The most projects at once.
const MAX_PROJECTS: usize = 100;

/// What entries are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AuditGroupBy)]
pub enum GroupBy {
    /// What was done.
    Action,
    /// Who did it.
    Actor,
    /// How it ended.
    Outcome,
    /// On which day, in UTC.
    Day,
}

/// A group as the database counts it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Group {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) label: String,
    pub(super) entries: i64,
}

/// How many entries there are of one group; which one says the member that the answer is grouped by.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct AuditCount {
    /// What was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, example = "key.create")]
    pub action: Option<String>,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    pub actor: Option<AuditActor>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, example = "success")]
    pub outcome: Option<String>,
    /// On which day, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, example = "2026-11-20")]
    pub day: Option<String>,
    /// How many.
    #[schema(minimum = 1, example = 17)]
    pub count: i64,
}

/// How many entries there are of what.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "since": "2026-10-21T12:00:00Z", "until": "2026-11-20T12:00:00Z", "group_by": "action", "total": 20,
    "is_complete": true, "data": [{"action": "key.create", "count": 17}, {"action": "key.revoke", "count": 3}]
}))]
pub struct AuditStats {
    /// From then on.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Before then.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// What they are counted by.
    pub group_by: GroupBy,
    /// All of these groups together.
    pub total: i64,
    /// Whether these are all groups; otherwise they are the largest.
    pub is_complete: bool,
    /// The largest first; days from the first to the last.
    pub data: Vec<AuditCount>,
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// By what.
    pub by: GroupBy,
    /// In this project.
    pub project: Option<ProjectId>,
    /// From then on.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
}

impl Wanted {
    /// The period.
    ///
    /// # Errors
    /// It is empty, or longer than 366 days.
    pub fn period(&self, now: Timestamp) -> Result<(Timestamp, Timestamp), Invalid> {
        let until = self.until.unwrap_or(now.saturating_add(Duration::from_micros(1)));
        let since = self.since.unwrap_or(until.saturating_sub(USUAL));
        if since >= until {
            return Err(Invalid::field("since", "invalid_value", "must be before until"));
        }
        if until.since(since) > LONGEST {
            return Err(Invalid::field("since", "too_long", "must be at most 366 days before until"));
        }
        Ok((since, until))
    }
}

/// Counts the entries of the projects that the caller sees.
///
/// # Errors
/// See [`ReadError`].
pub async fn count(
    ctx: &Ctx,
    reach: &Reach,
    wanted: Wanted,
    period: (Timestamp, Timestamp),
) -> Result<AuditStats, ReadError> {
    let projects: Vec<Option<ProjectId>> = match (wanted.project, reach) {
        (Some(project), reach) if reach.contains(project) => vec![Some(project)],
        (Some(_), _) | (None, Reach::Nowhere) => Vec::new(),
        (None, Reach::Everywhere) => vec![None],
        (None, Reach::Project(project)) => vec![Some(*project)],
        (None, Reach::Projects(projects)) => projects.iter().copied().map(Some).collect(),
    };
    if projects.len() > MAX_PROJECTS {
        return Err(ReadError::TooWide);
    }
    let mut reader = ctx.db.reader().await?;
    let mut counted: BTreeMap<(String, String), (String, i64)> = BTreeMap::new();
    let mut is_complete = true;
    for project in projects {
        let groups = store::counts(reader.conn(), wanted.by, period, project, FETCHED).await?;
        is_complete &= i64::try_from(groups.len()).is_ok_and(|length| length < FETCHED);
        for group in groups {
            let entry = counted.entry((group.name, group.kind)).or_insert((group.label, 0));
            entry.1 += group.entries;
        }
    }
    let mut groups: Vec<_> = counted.into_iter().collect();
    if wanted.by != GroupBy::Day {
        // Stable: among as many, by name.
        groups.sort_by_key(|(_, (_, count))| std::cmp::Reverse(*count));
    }
    is_complete &= groups.len() <= MAX_GROUPS + 1;
    groups.truncate(MAX_GROUPS + 1);
    let data: Vec<AuditCount> = groups
        .into_iter()
        .map(|((name, kind), (label, count))| {
            let mut group = AuditCount { action: None, actor: None, outcome: None, day: None, count };
            let said = |text: String| (!text.is_empty()).then_some(text);
            match wanted.by {
                GroupBy::Action => group.action = Some(name),
                GroupBy::Outcome => group.outcome = Some(name),
                GroupBy::Day => group.day = Some(name),
                GroupBy::Actor => group.actor = Some(AuditActor { kind, id: said(name), name: said(label) }),
            }
            group
        })
        .collect();
    let (since, until) = period;
    let total = data.iter().map(|group| group.count).sum();
    Ok(AuditStats { since, until, group_by: wanted.by, total, is_complete, data })
}
