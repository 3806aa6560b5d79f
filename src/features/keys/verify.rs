//! Is this key good, and may it do this now? Nothing is written to the database here.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::ctx::Ctx;
use crate::features::auth::Reach;
use crate::features::scopes::ScopeQuery;
use crate::features::security;
use crate::features::usage::{self, More, Outcome, Seen};
use crate::gate::noted::Source;
use crate::gate::noticed::Asker;
use crate::gate::{self, Checked, Client, Code, Entry, Found, Hit, Moment, Rules, Standings};
use crate::infra::db::DbError;
use crate::infra::telemetry::metrics::VERIFY_ROUTE;

use super::secrets;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The key as somebody showed it.
    pub key: &'a str,
    /// The scopes that are needed.
    pub scopes: &'a ScopeQuery,
    /// How much of each window it takes, 1 to 1,000,000.
    pub cost: u32,
    /// Who showed it, and for what.
    pub client: Client<'a>,
    /// Ask without spending anything and without leaving a trace of a use; explain the answer.
    pub dry_run: bool,
    /// When the question came, in steady microseconds.
    pub arrived: u64,
    /// Names the question in logs.
    pub request_id: Option<&'a str>,
    /// Who asks.
    pub asked_by: Option<Asker>,
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    /// Yes, or why not.
    pub code: Code,
    /// Whose key it is; there once the secret is proven, whatever the code.
    pub entry: Option<Arc<Entry>>,
    /// How its windows stand, if they were looked at, and the rules that these are of.
    pub windows: Option<(Standings, Arc<Rules>)>,
    /// Seconds after which the same question may be admitted; with the codes of limits alone.
    pub retry_after: Option<u64>,
    /// Every check and its outcome; only for a dry run.
    pub trace: Option<Vec<Checked>>,
}

/// Answers a question of somebody who may ask about the projects in `reach`.
///
/// # Errors
/// The storage.
pub async fn verify(ctx: &Ctx, reach: &Reach, question: &Question<'_>, mut now: Moment) -> Result<Answer, DbError> {
    let Some(shown) = secrets::shown(ctx, question.key, now.steady) else {
        return Ok(unknown(ctx, reach, Code::Malformed, question));
    };
    let entry = match ctx.gate.cached(&shown.digest, now.steady) {
        Some(entry) => entry,
        // In a box: what asks the storage is large, and would be copied with every question that doesn't.
        None => match Box::pin(secrets::find(ctx, &shown.digest)).await? {
            Found::Entry(entry) => {
                // That took its time.
                now = ctx.moment();
                entry
            }
            Found::Unknown => return Ok(unknown(ctx, reach, shown.absent(), question)),
        },
    };
    if entry.gone || !reach.contains(entry.project()) {
        return Ok(unknown(ctx, reach, shown.absent(), question));
    }
    Ok(decide(ctx, entry, question, now))
}

fn decide(ctx: &Ctx, entry: Arc<Entry>, question: &Question<'_>, now: Moment) -> Answer {
    let client = question.client;
    // What the key is used for, if the caller says so.
    let (method, path) = match client.path {
        Some(path) if !path.is_empty() => (client.method.unwrap_or_default(), path),
        _ => ("POST", VERIFY_ROUTE),
    };
    let micros = now.steady.saturating_sub(question.arrived);
    let hit = ctx.config.usage.is_on.then(|| Hit {
        project: entry.project(),
        endpoint: ctx.gate.ledger.endpoint(method, path),
        status: None,
        micros: Some(micros),
    });
    let asked = gate::Question { scopes: question.scopes, cost: question.cost, client, hit };
    let gate::Decision { code, standings, rules, to_write } = gate::decide(&entry, &asked, now, !question.dry_run);
    if to_write {
        ctx.gate.write_later(&entry.state);
    }
    if !question.dry_run {
        ctx.metrics.verifications.inc(code.index());
        usage::counted(
            ctx,
            &Seen {
                key: entry.key(),
                project: entry.project(),
                sample: entry.sample(),
                source: Source::Verify,
                at: Timestamp::from_micros(now.wall).unwrap_or(Timestamp::EPOCH),
                method,
                endpoint: path,
                status: None,
                outcome: Outcome::of_code(code),
                code: Some(code),
                duration: Some(Duration::from_micros(micros)),
                ip: client.ip,
                user_agent: None,
                request_id: question.request_id,
            },
            &More {
                standings: standings.as_ref(),
                rules: Some(&rules),
                cost: question.cost,
                asked_by: question.asked_by,
                asked_for: Some((&entry, question.scopes)),
                superseded: entry.is_superseded(),
                forbidden: false,
            },
        );
    }
    let retry_after = match code {
        Code::RateLimited | Code::QuotaExceeded => {
            standings.as_ref().and_then(|standings| gate::retry_after(standings, question.cost))
        }
        Code::ConcurrencyLimited => Some(entry.state.free_in(rules.concurrency, now.wall)),
        _ => None,
    };
    let trace = question.dry_run.then(|| gate::trace(&entry, &asked, now));
    Answer { code, entry: Some(entry), windows: standings.map(|standings| (standings, rules)), retry_after, trace }
}

fn unknown(ctx: &Ctx, reach: &Reach, code: Code, question: &Question<'_>) -> Answer {
    if !question.dry_run {
        ctx.metrics.verifications.inc(code.index());
        security::notice::unknown(ctx, reach, code, question.client.ip, question.asked_by);
    }
    let trace = question.dry_run.then(|| gate::trace_unknown(code));
    Answer { code, entry: None, windows: None, retry_after: None, trace }
}
