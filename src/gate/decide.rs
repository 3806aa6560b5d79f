//! The decision: may this key do this now? The same code for verification and for Keyward's own routes.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::scope_query::ScopeQuery;

use super::code::Code;
use super::entry::{Entry, Rules};
use super::settings::QUOTA_SECONDS;
use super::state::Noted;
use super::tally::Hit;
use super::windows::{Standing, Standings};

/// The moment of a question, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Microseconds of the wall clock: for expiry, schedules and leases.
    pub wall: i64,
    /// Microseconds that never run backwards while the process lives: for windows.
    pub steady: u64,
}

/// Who showed the key, and for what. What isn't known satisfies no restriction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client<'a> {
    /// From where.
    pub ip: Option<IpAddr>,
    /// With which method.
    pub method: Option<&'a str>,
    /// For which path.
    pub path: Option<&'a str>,
}

/// What is asked of a key.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The scopes that are needed.
    pub scopes: &'a ScopeQuery,
    /// How much of each window it takes, 1 to 1,000,000.
    pub cost: u32,
    /// Who asks.
    pub client: Client<'a>,
    /// As what it is counted; `None` isn't.
    pub hit: Option<Hit<'a>>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Yes, or why not.
    pub code: Code,
    /// The key's windows, if they were looked at.
    pub standings: Option<Standings>,
    /// The rules by which it was decided: the entry's, or later ones.
    pub rules: Arc<Rules>,
    /// Whether the key's state has something to be written, for the first time since it was.
    pub to_write: bool,
}

/// Whether a key is good at all, whatever it wants.
#[must_use]
pub fn state(entry: &Entry, now: i64) -> Option<Code> {
    if entry.revoked {
        Some(Code::Revoked)
    } else if entry.disabled {
        Some(Code::Disabled)
    } else if entry.is_expired(now) {
        Some(Code::Expired)
    } else {
        None
    }
}

fn from_there(rules: &Rules, client: &Client<'_>) -> bool {
    rules.networks.as_ref().is_none_or(|networks| client.ip.is_some_and(|ip| networks.admits(ip)))
}

fn at_this_time(rules: &Rules, now: i64) -> bool {
    rules.schedule.as_ref().is_none_or(|schedule| Timestamp::from_micros(now).is_some_and(|now| schedule.admits(now)))
}

fn for_this(rules: &Rules, client: &Client<'_>) -> bool {
    rules.methods.as_ref().is_none_or(|methods| client.method.is_some_and(|method| methods.admits(method)))
        && rules.paths.as_ref().is_none_or(|paths| client.path.is_some_and(|path| paths.admits(path)))
}

/// Why the rules refuse, limits apart.
#[must_use]
pub fn refusal(entry: &Entry, question: &Question<'_>, now: i64) -> Option<Code> {
    if let Some(code) = state(entry, now) {
        return Some(code);
    }
    if !from_there(&entry.rules, &question.client) {
        Some(Code::IpNotAllowed)
    } else if !at_this_time(&entry.rules, now) {
        Some(Code::OutsideSchedule)
    } else if !for_this(&entry.rules, &question.client) || !question.scopes.holds(|scope| entry.covers(scope)) {
        Some(Code::InsufficientScope)
    } else {
        None
    }
}

/// What a refusal by windows is called.
#[must_use]
pub fn limited(standings: &Standings) -> Code {
    let short = |window: &Standing| window.refused && window.window_seconds < QUOTA_SECONDS;
    if standings.iter().any(short) { Code::RateLimited } else { Code::QuotaExceeded }
}

/// Decides. A question that counts spends from all windows or from none, and is noted in the key's state; another changes
/// nothing.
#[must_use]
pub fn decide(entry: &Entry, question: &Question<'_>, now: Moment, counts: bool) -> Decision {
    let noted = counts.then_some(Noted { secret: entry.secret, hit: question.hit });
    if let Some(code) = refusal(entry, question, now.wall) {
        let to_write = noted.is_some_and(|noted| entry.state.note(code, noted, now.wall));
        return Decision { code, standings: None, rules: Arc::clone(&entry.rules), to_write };
    }
    entry.state.admit(entry, question.cost, now, noted)
}

/// How one check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = TraceOutcome)]
pub enum Outcome {
    /// Nothing against it.
    Passed,
    /// It refuses.
    Failed,
    /// Nothing is set that could refuse.
    Off,
}

/// One check of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = TracedCheck)]
pub struct Checked {
    /// What was checked: the code that it answers when it refuses.
    pub check: Code,
    /// How it came out.
    pub outcome: Outcome,
}

/// Seconds, rounded up and at least 1, after which a refused question of this cost is admitted if nothing else is spent
/// meanwhile; `None` if it never is, because the cost exceeds a limit.
#[must_use]
pub fn retry_after(standings: &Standings, cost: u32) -> Option<u64> {
    if standings.iter().any(|window| cost > window.limit) {
        return None;
    }
    let longest = standings.iter().filter(|window| window.refused).map(|window| window.reset_micros).max();
    Some(longest.unwrap_or(0).div_ceil(1_000_000).max(1))
}

/// The checks that come before there is a key.
#[must_use]
pub fn trace_unknown(code: Code) -> Vec<Checked> {
    let malformed = Checked { check: Code::Malformed, outcome: Outcome::Failed };
    let passed = Checked { check: Code::Malformed, outcome: Outcome::Passed };
    match code {
        Code::Malformed => vec![malformed],
        _ => vec![passed, Checked { check: Code::NotFound, outcome: Outcome::Failed }],
    }
}

/// Every check of a key that exists, in order, whether or not an earlier one refuses. Spends nothing.
#[must_use]
pub fn trace(entry: &Entry, question: &Question<'_>, now: Moment) -> Vec<Checked> {
    let rules = &entry.rules;
    let judged = |passes: bool| if passes { Outcome::Passed } else { Outcome::Failed };
    let set = |is_set: bool, passes: bool| if is_set { judged(passes) } else { Outcome::Off };
    let needs = !question.scopes.is_empty() || rules.methods.is_some() || rules.paths.is_some();
    let holds = for_this(rules, &question.client) && question.scopes.holds(|scope| entry.covers(scope));
    let standings = entry.state.ask(rules, question.cost, now.steady);
    let free = rules.concurrency == 0 || entry.state.in_use(now.wall) < rules.concurrency;
    let windows = |quota: bool| {
        let mut of_kind = standings.iter().filter(|w| (w.window_seconds >= QUOTA_SECONDS) == quota);
        let is_set = rules.limits.iter().any(|limit| (limit.window_seconds >= QUOTA_SECONDS) == quota);
        set(is_set, of_kind.all(|window| !window.refused))
    };
    [
        (Code::Malformed, Outcome::Passed),
        (Code::NotFound, Outcome::Passed),
        (Code::Revoked, judged(!entry.revoked)),
        (Code::Disabled, judged(!entry.disabled)),
        (Code::Expired, judged(!entry.is_expired(now.wall))),
        (Code::IpNotAllowed, set(rules.networks.is_some(), from_there(rules, &question.client))),
        (Code::OutsideSchedule, set(rules.schedule.is_some(), at_this_time(rules, now.wall))),
        (Code::InsufficientScope, set(needs, holds)),
        (Code::ConcurrencyLimited, set(rules.concurrency > 0, free)),
        (Code::RateLimited, windows(false)),
        (Code::QuotaExceeded, windows(true)),
    ]
    .map(|(check, outcome)| Checked { check, outcome })
    .into()
}
