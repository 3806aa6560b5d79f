//! The hooks: what a request shows beside its answer. None of them waits, fails, or asks the storage; a valid request costs
//! one load and a comparison a quota.

use std::net::IpAddr;

use crate::base::id::{KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::features::auth::Reach;
use crate::features::requests::rules::{self as texts, USER_AGENT};
use crate::features::usage::{More, Outcome, Seen};
use crate::gate::noted::Source;
use crate::gate::noticed::{Asker, Detail, EACH, Head, Kind, One, SYSTEM, Subject, Window, Wrong};
use crate::gate::{Code, QUOTA_SECONDS, Rules, Standings};
use crate::infra::address_limit::household;

use super::{QUIET, Reason, quiet};

/// A request of a key was counted.
pub fn counted(ctx: &Ctx, seen: &Seen<'_>, more: &More<'_>) {
    if seen.outcome == Outcome::Allowed && seen.code == Some(Code::Valid) {
        if seen.source != Source::Recorded {
            used(ctx, seen);
            if let (Some(standings), Some(rules)) = (more.standings, more.rules) {
                spent(ctx, (seen.project, seen.key), standings, rules, more.cost, seen.at.as_micros());
            }
        }
        return;
    }
    if seen.outcome != Outcome::Allowed && ctx.config.security.failures > 0 {
        ctx.gate.noticed.failed(seen.project, seen.key);
    }
    if seen.source != Source::Recorded
        && let Some(code) = if more.forbidden { Some(Code::InsufficientScope) } else { seen.code }
    {
        refused(ctx, seen, more, code);
    }
}

/// A key was good: from how many addresses is it used?
fn used(ctx: &Ctx, seen: &Seen<'_>) {
    let config = &ctx.config.security;
    let Some(ip) = seen.ip.filter(|_| config.addresses > 0) else { return };
    let (window, at) = (config.address_window.as_secs(), seen.at.as_micros());
    if let Some(many) = ctx.gate.noticed.spread.seen(seen.key, household(ip), at, config.addresses, window) {
        let one = One {
            count: many.count,
            ip: Some(ip),
            ..suspicion(seen.project, Subject::Key(seen.key), Reason::ManyAddresses, at)
        };
        let mut addresses = many.addresses;
        addresses.truncate(EACH);
        note(ctx, &one, || Detail { window_seconds: Some(window), addresses, ..Detail::default() });
    }
}

/// Something was spent from a key's windows: has it just crossed the line in one of a day or longer?
pub fn spent(ctx: &Ctx, (project, key): (ProjectId, KeyId), standings: &Standings, rules: &Rules, cost: u32, at: i64) {
    let percent = u64::from(ctx.config.security.quota_warning_percent);
    if percent == 0 || !rules.is_kept {
        return;
    }
    for (limit, window) in rules.limits.iter().zip(standings.iter()) {
        if window.window_seconds < QUOTA_SECONDS {
            continue;
        }
        let line = u64::from(window.limit) * percent;
        let (before, now) = (u64::from(window.used.saturating_sub(cost)) * 100, u64::from(window.used) * 100);
        if before < line && line <= now {
            let head = Head { project, kind: Kind::QuotaWarning, subject: Subject::Key(key) };
            let detail = || Detail { used: Some(window.used), ..windowed(&limit.name, window) };
            let quiet_seconds = quiet(window.window_seconds);
            note(ctx, &One { quiet_seconds, ..one(head, &limit.name, at) }, detail);
        }
    }
}

fn windowed(name: &str, window: &crate::gate::Standing) -> Detail {
    let window = Window { name: name.to_owned(), limit: window.limit, window_seconds: window.window_seconds };
    Detail { window: Some(window), ..Detail::default() }
}

/// A key was refused.
fn refused(ctx: &Ctx, seen: &Seen<'_>, more: &More<'_>, code: Code) {
    let at = seen.at.as_micros();
    let subject = Subject::Key(seen.key);
    let known = |one: One<'_>, detail: &dyn Fn() -> Detail| {
        let one = One { ip: seen.ip, asked_by: more.asked_by, ..one };
        note(ctx, &one, || {
            let agent = seen.user_agent.map(|agent| texts::kept(agent, USER_AGENT).into_string());
            Detail { user_agents: agent.into_iter().filter(|agent| !agent.is_empty()).collect(), ..detail() }
        });
    };
    let of = |kind| One { quiet_seconds: QUIET, ..one(Head { project: seen.project, kind, subject }, "", at) };
    match code {
        Code::RateLimited | Code::QuotaExceeded => {
            let (Some(standings), Some(rules)) = (more.standings, more.rules) else { return };
            for (limit, window) in rules.limits.iter().zip(standings.iter()).filter(|(_, window)| window.refused) {
                let kind = if window.window_seconds < QUOTA_SECONDS { Kind::Limit } else { Kind::Quota };
                let quiet_seconds = quiet(window.window_seconds);
                known(One { about: &limit.name, quiet_seconds, ..of(kind) }, &|| windowed(&limit.name, window));
            }
        }
        Code::ConcurrencyLimited => {
            let cap = more.rules.map(|rules| rules.concurrency);
            known(of(Kind::Concurrency), &|| Detail { concurrency: cap, ..Detail::default() });
        }
        Code::InsufficientScope => known(of(Kind::Scope), &|| Detail { scopes: lacking(more), ..Detail::default() }),
        Code::IpNotAllowed => known(of(Kind::Address), &Detail::default),
        Code::OutsideSchedule => known(of(Kind::Schedule), &Detail::default),
        Code::Revoked if ctx.config.security.revoked => {
            known(suspicion(seen.project, subject, Reason::RevokedKeyUsed, at), &Detail::default);
        }
        Code::Expired if more.superseded && ctx.config.security.revoked => {
            let detail = || Detail { superseded: Some(true), ..Detail::default() };
            known(suspicion(seen.project, subject, Reason::SupersededSecretUsed, at), &detail);
        }
        Code::Malformed | Code::NotFound | Code::Revoked | Code::Disabled | Code::Expired | Code::Valid => {}
    }
}

/// The scopes that were asked for and aren't held.
fn lacking(more: &More<'_>) -> Vec<String> {
    let Some((entry, query)) = more.asked_for else { return Vec::new() };
    let mut lacking = Vec::new();
    query.lacking(&mut |scope| entry.covers(scope), &mut |scope| {
        if lacking.len() < EACH {
            lacking.push(texts::kept(scope, SCOPE).into_string());
        }
    });
    lacking
}

/// As much of a scope's name as is kept.
const SCOPE: usize = 256;

/// A place of a key's concurrency was asked for elsewhere, and none was free.
pub fn crowded(ctx: &Ctx, project: ProjectId, key: KeyId, cap: u32) {
    let head = Head { project, kind: Kind::Concurrency, subject: Subject::Key(key) };
    let one = One { quiet_seconds: QUIET, ..one(head, "", ctx.now().as_micros()) };
    note(ctx, &one, || Detail { concurrency: Some(cap), ..Detail::default() });
}

/// Where somebody is at home who may ask about so many projects: in the one, or nowhere but in the system's.
#[must_use]
pub fn home(reach: &Reach) -> ProjectId {
    match reach {
        Reach::Project(project) => *project,
        Reach::Projects(projects) => match projects.as_slice() {
            [one] => *one,
            _ => SYSTEM,
        },
        Reach::Nowhere | Reach::Everywhere => SYSTEM,
    }
}

/// Somebody asked about a key that doesn't exist, or not for them. `ip` is where it was shown, if they said.
pub fn unknown(ctx: &Ctx, reach: &Reach, code: Code, ip: Option<IpAddr>, asked_by: Option<Asker>) {
    let wrong = if code == Code::Malformed { Wrong::MalformedKey } else { Wrong::UnknownKey };
    guessed(ctx, home(reach), wrong, ip, asked_by);
}

/// Something was shown to Keyward itself that isn't good. A token that ended is counted, but is no guess: a page that is left
/// open shows it for hours.
pub fn wrong_credentials(ctx: &Ctx, ip: Option<IpAddr>, is_token: bool) {
    guessed(ctx, SYSTEM, Wrong::WrongCredentials, ip.filter(|_| !is_token), None);
}

/// A log-in failed.
pub fn failed_login(ctx: &Ctx, ip: IpAddr) {
    guessed(ctx, SYSTEM, Wrong::FailedLogin, Some(ip), None);
}

fn guessed(ctx: &Ctx, project: ProjectId, wrong: Wrong, ip: Option<IpAddr>, asked_by: Option<Asker>) {
    let at = ctx.now().as_micros();
    if !ctx.gate.noticed.wrong(project, wrong, at) {
        ctx.metrics.notices_dropped.inc();
    }
    let config = &ctx.config.security;
    let Some(ip) = ip.filter(|_| config.guesses > 0) else { return };
    let (address, window) = (household(ip), config.guess_window.as_secs());
    if let Some(count) = ctx.gate.noticed.attempts.add(project, address, at, config.guesses, window) {
        let suspicion = suspicion(project, Subject::Address(address), Reason::Guessing, at);
        let one = One { count, ip: Some(ip), asked_by, ..suspicion };
        note(ctx, &one, || Detail { window_seconds: Some(window), ..Detail::default() });
    }
}

fn one(head: Head, about: &str, at: i64) -> One<'_> {
    One { head, about, quiet_seconds: QUIET, count: 1, at, ip: None, asked_by: None }
}

fn suspicion(project: ProjectId, subject: Subject, reason: Reason, at: i64) -> One<'static> {
    one(Head { project, kind: Kind::Suspicion, subject }, reason.about(), at)
}

fn note(ctx: &Ctx, one: &One<'_>, detail: impl FnOnce() -> Detail) {
    if !ctx.gate.noticed.note(one, detail) {
        ctx.metrics.notices_dropped.inc_by(one.count);
    }
}
