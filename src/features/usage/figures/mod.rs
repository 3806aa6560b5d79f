//! Reads usage: totals of a span of time, and a page of what they are made of.
//!
//! Spans are whole minutes, hours or days. Longer ones are put together of the longest rows that fit, so that a year is read
//! as some hundred rows; what is ranked is ranked by the storage, so that a page holds no more than is shown.

pub mod span;
pub mod store;
pub mod watched;

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::time::Duration;

use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::gate::{Code, Counts, Grain};
use crate::infra::db::{Conn, DbError};
use crate::infra::deadline::within;

use super::flush;
use super::rules::Scope;

pub use span::{Asked, Place, Span, SpanError};

/// How long a reader waits until what was counted is written.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whose usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// That of a key, which is a project's.
    Key(KeyId, ProjectId),
    /// That of projects together.
    Projects(Vec<ProjectId>),
    /// Everybody's.
    All,
}

impl Whose {
    fn scopes(&self) -> Vec<Scope> {
        match self {
            Self::Key(key, _) => vec![Scope::Key(*key)],
            Self::Projects(projects) => projects.iter().map(|project| Scope::Project(*project)).collect(),
            Self::All => vec![Scope::All],
        }
    }
}

/// By what the series tells requests apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = UsageGroup)]
pub enum Group {
    /// By the minute.
    Minute,
    /// By the hour.
    Hour,
    /// By the day, in UTC.
    Day,
    /// By method and path; `(other)` is what went past the bounds.
    Endpoint,
    /// By the status; `null` for verifications.
    Status,
    /// By what the gate said; `null` where it wasn't asked.
    Code,
    /// By the key.
    Key,
    /// By the project.
    Project,
}

impl Group {
    /// The spans that it asks for, if it is about time.
    #[must_use]
    pub fn grain(self) -> Option<Grain> {
        match self {
            Self::Minute => Some(Grain::Minute),
            Self::Hour => Some(Grain::Hour),
            Self::Day => Some(Grain::Day),
            Self::Endpoint | Self::Status | Self::Code | Self::Key | Self::Project => None,
        }
    }
}

/// Counts as they are told.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = UsageFigures)]
pub struct Figures {
    /// All of them: `allowed`, `denied` and `failed` together.
    pub requests: u64,
    /// Let through, and good as far as anybody knows.
    pub allowed: u64,
    /// Turned away: a verification that wasn't `VALID`, or an answer of 401, 403 or 429.
    pub denied: u64,
    /// Let through, and answered with any other status from 400 on.
    pub failed: u64,
    /// The share of all that were denied or failed, from 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    pub error_rate: f64,
    /// How long they took.
    pub latency_ms: Latency,
}

/// How long requests took, in milliseconds; `null` where no duration is known. The mean is exact, the others within 1 %.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = UsageLatency)]
pub struct Latency {
    /// The mean.
    pub mean: Option<f64>,
    /// Half of them took no longer.
    pub p50: Option<f64>,
    /// 95 of 100 took no longer.
    pub p95: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "to be looked at, not to be counted on")]
impl From<&Counts> for Figures {
    fn from(counts: &Counts) -> Self {
        let millis = |micros: f64| (micros).round() / 1000.0;
        let quantile = |share| counts.latency.quantile(share).map(millis);
        let timed = counts.latency.count();
        let requests = counts.requests();
        Self {
            requests,
            allowed: counts.allowed,
            denied: counts.denied,
            failed: counts.failed,
            error_rate: if requests == 0 { 0.0 } else { (counts.denied + counts.failed) as f64 / requests as f64 },
            latency_ms: Latency {
                mean: (timed > 0).then(|| millis(counts.micros as f64 / timed as f64)),
                p50: quantile(0.5),
                p95: quantile(0.95),
                p99: quantile(0.99),
            },
        }
    }
}

/// What the figures of a point are about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// The beginning of a minute, an hour or a day.
    At(Timestamp),
    /// An endpoint.
    Endpoint(String),
    /// A status, or none.
    Status(Option<u16>),
    /// A code, or none.
    Code(Option<Code>),
    /// A key.
    KeyId(String),
    /// A project.
    ProjectId(String),
}

/// Figures of a part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Of which.
    #[serde(flatten)]
    pub label: Label,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The beginning of the span that was really looked at.
    pub since: Timestamp,
    /// Its end, which isn't part of it.
    pub until: Timestamp,
    /// Of what the span is made: whole `minute`s, `hour`s or `day`s.
    pub granularity: &'static str,
    /// All of it.
    pub totals: Figures,
    /// A page of its parts.
    pub series: Vec<Point>,
    /// Leads to the next page.
    pub next_cursor: Option<String>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whose.
    pub whose: Whose,
    /// When.
    pub span: Span,
    /// By what.
    pub group: Group,
    /// How many points.
    pub limit: usize,
    /// After which point.
    pub after: Option<Place>,
}

/// Waits until what this process has counted is written, but no longer than a reader should wait.
///
/// # Errors
/// The storage.
pub async fn catch_up(ctx: &Ctx) -> Result<(), DbError> {
    match within(PATIENCE, pin!(flush::flush_for_reading(ctx))).await {
        Ok(written) => written?,
        Err(_) => {
            tracing::warn!("usage is told without what was counted lately: there is too much of it to be written");
        }
    }
    Ok(())
}

/// Answers, what this process has counted and not yet written included, as long as that doesn't take longer than a reader
/// should wait: what somebody counts in masses mustn't keep others from their figures.
///
/// # Errors
/// The storage.
pub async fn read(ctx: &Ctx, question: &Question) -> Result<Report, DbError> {
    catch_up(ctx).await?;
    let Question { whose, span, group, limit, after } = question;
    let scopes = whose.scopes();
    let mut reader = ctx.db.reader().await?;
    let mut totals = Counts::default();
    for (grain, from, until) in span.parts() {
        store::totals(reader.conn(), &scopes, (grain, from, until), |_, _, counts| totals.merge(counts)).await?;
    }
    let (series, next) = match group {
        Group::Minute | Group::Hour | Group::Day => by_time(reader.conn(), &scopes, question).await?,
        Group::Status | Group::Code => (by_kind(reader.conn(), &scopes, *group, span).await?, None),
        Group::Endpoint | Group::Key | Group::Project => {
            let after = after.as_ref().map(|place| (place.count, place.name.as_str()));
            let parts = span.parts();
            let mut ranked = match (group, whose) {
                (Group::Endpoint, _) => store::endpoints(reader.conn(), &scopes, &parts, after, limit + 1).await?,
                (Group::Project, Whose::All) => store::all_projects(reader.conn(), &parts, after, limit + 1).await?,
                (Group::Project, Whose::Projects(_)) | (_, Whose::Key(..)) => {
                    store::scopes(reader.conn(), &scopes, &parts, after, limit + 1).await?
                }
                (_, Whose::Projects(_)) => store::keys(reader.conn(), &scopes, &parts, after, limit + 1).await?,
                (_, Whose::All) => store::all_keys(reader.conn(), &parts, after, limit + 1).await?,
            };
            let more = ranked.len() > *limit;
            ranked.truncate(*limit);
            let names: Vec<String> = ranked.iter().map(|(name, _)| name.clone()).collect();
            let found = named(reader.conn(), &scopes, *group, &names, &parts).await?;
            let next = ranked.last().filter(|_| more).map(|(name, count)| Place {
                grain: span.grain,
                since: span.since,
                until: span.until,
                count: *count,
                name: name.clone(),
            });
            let mut points = points(*group, names, found);
            if let (Group::Project, Whose::Key(_, project)) = (group, whose) {
                // It has one.
                for point in &mut points {
                    point.label = Label::ProjectId(project.to_string());
                }
            }
            (points, next)
        }
    };
    Ok(Report {
        since: span.since,
        until: span.until,
        granularity: span.grain.word(),
        totals: Figures::from(&totals),
        series,
        next_cursor: next.map(|place| place.to_string()),
    })
}

/// A page of times, oldest first; those at which nothing happened are left out, and a page begins where something did.
async fn by_time(
    mut conn: Conn<'_>,
    scopes: &[Scope],
    question: &Question,
) -> Result<(Vec<Point>, Option<Place>), DbError> {
    let Question { span, limit, after, .. } = question;
    let from = after.as_ref().and_then(|place| Timestamp::from_micros(place.count)).unwrap_or(span.since);
    // Moved to the beginning of a span, whoever made the cursor.
    let from = span.grain.floor(from.as_micros());
    let from = Timestamp::from_micros(from).unwrap_or(span.since).max(span.since).min(span.until);
    let Some(from) = store::first(conn.lend(), scopes, (span.grain, from, span.until)).await? else {
        return Ok((Vec::new(), None));
    };
    let page = i64::try_from(*limit).unwrap_or(i64::MAX).saturating_mul(span.grain.micros());
    let until =
        Timestamp::from_micros(from.as_micros().saturating_add(page)).map_or(span.until, |end| end.min(span.until));
    let mut found: BTreeMap<Timestamp, Counts> = BTreeMap::new();
    store::totals(conn.lend(), scopes, (span.grain, from, until), |_, at, counts| {
        found.entry(at).or_default().merge(counts);
    })
    .await?;
    let goes_on = store::first(conn, scopes, (span.grain, until, span.until)).await?;
    let points = found.iter().map(|(at, counts)| Point { label: Label::At(*at), figures: Figures::from(counts) });
    let next = goes_on.map(|at| Place {
        grain: span.grain,
        since: span.since,
        until: span.until,
        count: at.as_micros(),
        name: String::new(),
    });
    Ok((points.collect(), next))
}

/// All statuses, or all codes: there are few.
async fn by_kind(mut conn: Conn<'_>, scopes: &[Scope], group: Group, span: &Span) -> Result<Vec<Point>, DbError> {
    let mut found: HashMap<(u16, String), Counts> = HashMap::new();
    for part in span.parts() {
        store::requests(conn.lend(), scopes, part, None, |_, status, code, counts| {
            let kind = if group == Group::Status { (status, String::new()) } else { (0, code.to_owned()) };
            found.entry(kind).or_default().merge(counts);
        })
        .await?;
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by(|(left, few), (right, many)| many.requests().cmp(&few.requests()).then_with(|| left.cmp(right)));
    let label = |(status, code): (u16, String)| match group {
        Group::Status => Label::Status((status > 0).then_some(status)),
        _ => Label::Code(crate::gate::CODES.into_iter().find(|known| known.word() == code)),
    };
    Ok(found.into_iter().map(|(kind, counts)| Point { label: label(kind), figures: Figures::from(&counts) }).collect())
}

/// The counts of what stands on a page.
async fn named(
    mut conn: Conn<'_>,
    scopes: &[Scope],
    group: Group,
    names: &[String],
    parts: &[(Grain, Timestamp, Timestamp)],
) -> Result<HashMap<String, Counts>, DbError> {
    let mut found: HashMap<String, Counts> = HashMap::new();
    for part in parts {
        if group == Group::Endpoint {
            store::requests(conn.lend(), scopes, *part, Some(names), |endpoint, _, _, counts| {
                found.entry(endpoint.to_owned()).or_default().merge(counts);
            })
            .await?;
        } else {
            store::totals(conn.lend(), names, *part, |scope, _, counts| {
                found.entry(scope.to_owned()).or_default().merge(counts);
            })
            .await?;
        }
    }
    Ok(found)
}

fn points(group: Group, names: Vec<String>, mut found: HashMap<String, Counts>) -> Vec<Point> {
    let label = |name| match group {
        Group::Endpoint => Label::Endpoint(name),
        Group::Project => Label::ProjectId(name),
        _ => Label::KeyId(name),
    };
    let point = |name: String| {
        let counts = found.remove(&name).unwrap_or_default();
        Point { label: label(name), figures: Figures::from(&counts) }
    };
    names.into_iter().map(point).collect()
}
