//! Finds the numbers that rules compare: for many rules together, one question for all that look at the same kind of thing
//! over the same time.
//!
//! A window is that of usage (`usage/figures/span.rs`): whole minutes, or whole hours where it is longer than six hours; the
//! span that `GET …/usage?period=` tells of. Nothing here is read from the memory of one process: each replica finds the same.

pub mod store;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::{AlertId, KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::features::limits::status;
use crate::features::security::{self, Wrong};
use crate::features::usage::figures::watched::{self, Refused};
use crate::features::usage::figures::{Asked, Figures, Group, Span};
use crate::features::usage::rules::Scope;
use crate::gate::Code;
use crate::infra::db::{DbError, Reader};

use super::{Metric, Rule};

/// Keys of a project whose quotas are looked at: those with the most requests in the window.
pub const QUOTA_KEYS: usize = 1_000;

/// What a number is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Sums,
    Latencies,
    Refusals,
    Quotas,
    Ends,
}

impl Metric {
    fn source(self) -> Source {
        match self {
            Self::Requests | Self::Denied | Self::ErrorRate => Source::Sums,
            Self::LatencyP95Ms => Source::Latencies,
            Self::RateLimited | Self::AuthFailures | Self::ScopeDenied | Self::IpDenied => Source::Refusals,
            Self::QuotaUsedPercent => Source::Quotas,
            Self::ExpiresInDays => Source::Ends,
        }
    }
}

fn scope(rule: &Rule) -> Scope {
    rule.terms.key_id.map_or(Scope::Project(rule.project), Scope::Key)
}

/// The number of each rule for which there is one. Rules about a key must be about one of their project's.
///
/// # Errors
/// The storage.
pub async fn measure(ctx: &Ctx, rules: &[&Rule], now: Timestamp) -> Result<HashMap<AlertId, f64>, DbError> {
    let mut groups: BTreeMap<(Source, Seconds), Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        groups.entry((rule.terms.metric.source(), rule.terms.window)).or_default().push(rule);
    }
    let mut values = HashMap::new();
    let mut reader = ctx.db.reader().await?;
    for ((source, window), rules) in groups {
        // Of nothing that has to do with time, so that minutes are taken as far as they reach.
        let asked = Asked { period: Some(window), group: Some(Group::Key), ..Asked::default() };
        // A window is never too long for it, nor backwards.
        let Ok((span, _)) = Span::of(asked, now, &ctx.config.usage) else { continue };
        match source {
            Source::Sums => sums(&mut reader, &rules, &span, &mut values).await?,
            Source::Latencies => {
                let found = watched::quantiles(reader.conn(), &scopes(&rules), &span, 0.95).await?;
                let known = rules.iter().filter_map(|rule| Some((rule.id, *found.get(&scope(rule).to_string())?)));
                values.extend(known);
            }
            Source::Refusals => refusals(&mut reader, &rules, &span, &mut values).await?,
            Source::Quotas => quotas(ctx, &mut reader, &rules, &span, &mut values).await?,
            Source::Ends => ends(&mut reader, &rules, now, &mut values).await?,
        }
    }
    Ok(values)
}

/// Each once, in order.
fn scopes(rules: &[&Rule]) -> Vec<Scope> {
    rules.iter().map(|rule| scope(rule)).collect::<BTreeSet<_>>().into_iter().collect()
}

#[expect(clippy::cast_precision_loss, reason = "compared with a threshold of at most 1e12")]
async fn sums(
    reader: &mut Reader,
    rules: &[&Rule],
    span: &Span,
    values: &mut HashMap<AlertId, f64>,
) -> Result<(), DbError> {
    let found = watched::sums(reader.conn(), &scopes(rules), span).await?;
    for rule in rules {
        let counts = found.get(&scope(rule).to_string());
        let value = match rule.terms.metric {
            Metric::Requests => Some(counts.map_or(0.0, |counts| counts.requests() as f64)),
            Metric::Denied => Some(counts.map_or(0.0, |counts| counts.denied as f64)),
            // Of nothing there is no share.
            _ => counts.filter(|counts| counts.requests() > 0).map(|counts| Figures::from(counts).error_rate),
        };
        values.extend(value.map(|value| (rule.id, value)));
    }
    Ok(())
}

/// Whether a refusal is what a metric counts.
fn is_counted(metric: Metric, refused: &Refused) -> bool {
    let is = |codes: &[Code]| codes.iter().any(|code| code.word() == refused.code);
    // What a service has judged by itself has a status alone.
    let reported = |status: u16| refused.code.is_empty() && refused.status == status;
    match metric {
        Metric::RateLimited => is(&[Code::RateLimited, Code::QuotaExceeded, Code::ConcurrencyLimited]) || reported(429),
        Metric::AuthFailures => is(&[Code::Revoked, Code::Disabled, Code::Expired]) || reported(401),
        Metric::ScopeDenied => is(&[Code::InsufficientScope]),
        Metric::IpDenied => is(&[Code::IpNotAllowed]),
        _ => false,
    }
}

#[expect(clippy::cast_precision_loss, reason = "compared with a threshold of at most 1e12")]
async fn refusals(
    reader: &mut Reader,
    rules: &[&Rule],
    span: &Span,
    values: &mut HashMap<AlertId, f64>,
) -> Result<(), DbError> {
    let found = watched::refused(reader.conn(), &scopes(rules), span).await?;
    let mut strangers: HashMap<ProjectId, u64> = HashMap::new();
    for rule in rules {
        let metric = rule.terms.metric;
        let of = found.get(&scope(rule).to_string()).map(Vec::as_slice).unwrap_or_default();
        let mut count: u64 = of.iter().filter(|refused| is_counted(metric, refused)).map(|refused| refused.count).sum();
        if metric == Metric::AuthFailures && rule.terms.key_id.is_none() {
            let known = strangers.get(&rule.project).copied();
            let more = if let Some(more) = known {
                more
            } else {
                let (since, until) = (span.since, span.until);
                security::store::counts(reader.conn(), rule.project, &Wrong::ALL, since, until).await?
            };
            strangers.insert(rule.project, more);
            count = count.saturating_add(more);
        }
        values.insert(rule.id, count as f64);
    }
    Ok(())
}

async fn quotas(
    ctx: &Ctx,
    reader: &mut Reader,
    rules: &[&Rule],
    span: &Span,
    values: &mut HashMap<AlertId, f64>,
) -> Result<(), DbError> {
    let mut found: HashMap<(ProjectId, Option<KeyId>), Option<f64>> = HashMap::new();
    for rule in rules {
        let whose = (rule.project, rule.terms.key_id);
        let value = if let Some(value) = found.get(&whose) {
            *value
        } else {
            let keys = match rule.terms.key_id {
                Some(key) => vec![key],
                None => watched::busiest(reader.conn(), rule.project, span, QUOTA_KEYS).await?,
            };
            status::fullest(ctx, reader.conn(), &keys, rule.project).await?
        };
        found.insert(whose, value);
        values.extend(value.map(|value| (rule.id, value)));
    }
    Ok(())
}

/// A day in microseconds.
const DAY: f64 = 86_400e6;

#[expect(clippy::cast_precision_loss, reason = "shown to a few digits")]
async fn ends(
    reader: &mut Reader,
    rules: &[&Rule],
    now: Timestamp,
    values: &mut HashMap<AlertId, f64>,
) -> Result<(), DbError> {
    let keys: BTreeSet<KeyId> = rules.iter().filter_map(|rule| rule.terms.key_id).collect();
    let projects: BTreeSet<ProjectId> =
        rules.iter().filter(|rule| rule.terms.key_id.is_none()).map(|rule| rule.project).collect();
    let of_keys: HashMap<KeyId, Timestamp> = store::ends_of_keys(reader.conn(), &keys).await?.into_iter().collect();
    let of_projects: HashMap<ProjectId, Timestamp> =
        store::next_ends(reader.conn(), &projects, now).await?.into_iter().collect();
    for rule in rules {
        let end = match rule.terms.key_id {
            Some(key) => of_keys.get(&key),
            None => of_projects.get(&rule.project),
        };
        // 0 for one that is over.
        let days = end.map(|end| end.since(now).as_micros() as f64 / DAY);
        values.extend(days.map(|days| (rule.id, days)));
    }
    Ok(())
}
