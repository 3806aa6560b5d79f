//! Requests of keys: how many, for what, how they came out, how long they took.
//!
//! Every request is counted in memory, in the state of its key (`gate/tally.rs`), and written together with the others twice
//! a second and at shutdown (`flush`), by minute, hour and day at once, for the key, for its project and for all. A crash
//! forgets what was counted since the last write: at most a second. `figures` reads it.

pub mod figures;
pub mod flush;
pub mod http;
pub mod rules;
pub mod store;

use std::net::IpAddr;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::features::scopes::ScopeQuery;
use crate::features::{requests, security};
use crate::gate::noted::Source;
use crate::gate::noticed::Asker;
use crate::gate::{Code, Entry, Hit, Rules, Sample, Standings};

pub use crate::gate::Verdict as Outcome;

pub use flush::{FLUSH, flush};

/// One request of a key: everything that usage and the request log may want to know of it. Texts are the client's own words.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Whose request.
    pub key: KeyId,
    /// The key's project.
    pub project: ProjectId,
    /// Which part of the project's admitted requests the request log keeps.
    pub sample: Sample,
    /// Who saw it.
    pub source: Source,
    /// When it came.
    pub at: Timestamp,
    /// With which method; empty where nobody said.
    pub method: &'a str,
    /// The template of a route, or a path. A query is cut off here.
    pub endpoint: &'a str,
    /// What it was answered with, 100 to 599; `None` for a verification.
    pub status: Option<u16>,
    /// How it came out.
    pub outcome: Outcome,
    /// What the gate said, where it was asked.
    pub code: Option<Code>,
    /// How long it took.
    pub duration: Option<Duration>,
    /// From where.
    pub ip: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: Option<&'a str>,
    /// Names it in logs.
    pub request_id: Option<&'a str>,
}

/// What only some know who see a request: for what is told of it beside its counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct More<'a> {
    /// How the key's windows stood, where they were asked.
    pub standings: Option<&'a Standings>,
    /// The rules that these are of.
    pub rules: Option<&'a Rules>,
    /// How much was taken of them.
    pub cost: u32,
    /// Who asked about the key, if it didn't call itself.
    pub asked_by: Option<Asker>,
    /// The key, and the scopes that were asked for.
    pub asked_for: Option<(&'a Entry, &'a ScopeQuery)>,
    /// Whether the secret was one that a newer has replaced.
    pub superseded: bool,
    /// Whether the key is good, and what it asked of Keyward itself was refused because it lacks the permission.
    pub forbidden: bool,
}

/// Counts a request: one that a service reports, or one of Keyward's own routes. Never waits for I/O and never fails; what is
/// counted is bounded.
pub fn seen(ctx: &Ctx, seen: &Seen<'_>, more: &More<'_>) {
    if ctx.config.usage.is_on {
        let hit = Hit {
            project: seen.project,
            endpoint: ctx.gate.ledger.endpoint(seen.method, seen.endpoint),
            status: seen.status,
            micros: seen.duration.map(|duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
        };
        let state = ctx.gate.state(seen.key);
        if state.count(&hit, seen.at.as_micros(), seen.outcome, seen.code) {
            ctx.gate.write_later(&state);
        }
    }
    counted(ctx, seen, more);
}

/// A request has been counted: by [`seen`], or by the gate, which counts verifications under the lock that it takes anyway.
/// Every request of a key comes through here exactly once; whoever wants more than counts hooks in here.
pub fn counted(ctx: &Ctx, seen: &Seen<'_>, more: &More<'_>) {
    requests::log::note(ctx, seen);
    security::notice::counted(ctx, seen, more);
}
