//! How a service stands, and what follows from what is seen of it: thresholds, backoff, cooldown and the cap. Pure: time is an
//! argument, and whatever happens outside is told to it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::ServiceOperationId;
use crate::infra::config::{RestartPolicy, ServiceConfig, ServiceKind};

/// The span within which restarts by the policy are counted against its cap.
pub const HOUR: Duration = Duration::from_hours(1);

/// A service's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ServiceState)]
pub enum State {
    /// Nothing is known yet, or nobody watches.
    #[default]
    Unknown,
    /// Started or restarted, and not known to be up yet.
    Starting,
    /// Every check is content, and the process runs.
    Up,
    /// A check has failed too often, or the process has ended.
    Down,
    /// A restart is under way.
    Restarting,
    /// Down, and restarted too often within an hour: the policy leaves it alone until somebody restarts it, or it comes up by
    /// itself.
    Failed,
}

impl State {
    /// As shown and stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Down => "down",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
        }
    }
}

/// Why a service is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RestartCause)]
pub enum Cause {
    /// Somebody asked for it.
    Manual,
    /// It was down for so long.
    Policy,
}

impl Cause {
    /// As shown and stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Policy => "policy",
        }
    }
}

/// What a check has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ServiceCheckResult)]
pub struct Seen {
    /// When.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub at: Timestamp,
    /// Whether it was content.
    pub ok: bool,
    /// What was wrong, for people.
    #[schema(required = true, example = "status 503")]
    pub detail: Option<String>,
    /// How long it took.
    #[schema(minimum = 0, example = 12)]
    pub duration_ms: u64,
}

/// How one check stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStanding {
    /// Whether it holds the service for up; nothing before the threshold of either side is reached.
    pub verdict: Option<bool>,
    /// Failures in a row.
    pub failures: u32,
    /// Successes in a row.
    pub successes: u32,
    /// What it saw last.
    pub last: Option<Seen>,
}

/// A process that was started, so that whoever comes after a crash of ours can find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// On which machine, since which start of it, and in which space of process ids.
    pub machine: String,
    /// Its id, which is that of its group, too.
    pub pid: i32,
    /// When it was started, in the system's ticks: an id that was given to another has another one.
    pub started: u64,
}

/// How a service stands. It is stored, so that whoever takes over goes on from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Why, for people.
    pub reason: Option<String>,
    /// How each check stands, by its name.
    pub checks: BTreeMap<String, CheckStanding>,
    /// Whether the process runs; `None` where there is none of ours.
    pub alive: Option<bool>,
    /// How it ended, or why it wasn't to be started.
    pub exit: Option<String>,
    /// Told to be down, and not told to be up since.
    pub broken: bool,
    /// Failures before this don't count.
    pub grace_until: Option<Timestamp>,
    /// Since when the policy wants a restart.
    pub wanted_since: Option<Timestamp>,
    /// Restarts by the policy in this series.
    pub series: u32,
    /// Restarts by the policy within the last hour.
    pub recent: Vec<Timestamp>,
    /// The last restart.
    pub last_restart_at: Option<Timestamp>,
    /// All restarts.
    pub restarts: u64,
    /// The restart that is under way.
    pub operation: Option<ServiceOperationId>,
    /// The process that was started last.
    pub process: Option<Recorded>,
}

/// Something that is to be written down and told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// The state from then on.
    pub state: State,
    /// Why.
    pub reason: Option<String>,
    /// Failed checks in a row.
    pub failures: u32,
    /// The event, where it is one.
    pub event: Option<&'static str>,
    /// The restart that it belongs to.
    pub operation: Option<ServiceOperationId>,
    /// How that restart ended, where this is its end.
    pub ended: Option<Result<(), String>>,
}

/// What the policy wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing now.
    Wait,
    /// A restart.
    Restart,
}

impl Standing {
    /// Of a service of which nothing is known.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self {
            state: State::Unknown,
            since: at,
            reason: None,
            checks: BTreeMap::new(),
            alive: None,
            exit: None,
            broken: false,
            grace_until: None,
            wanted_since: None,
            series: 0,
            recent: Vec::new(),
            last_restart_at: None,
            restarts: 0,
            operation: None,
            process: None,
        }
    }

    /// Failures in a row of the check that has most.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.checks.values().map(|check| check.failures).max().unwrap_or(0)
    }

    /// Somebody else watched it before, or nobody did. A restart that was under way has ended with whoever did it.
    pub fn resume(&mut self, service: &ServiceConfig, at: Timestamp) -> Vec<Change> {
        self.checks.retain(|name, _| service.checks.iter().any(|check| check.name == *name));
        let mut changes = Vec::new();
        if let Some(operation) = self.operation.take() {
            let state = if self.broken { State::Down } else { State::Unknown };
            let mut change = self.go(state, Some("whoever restarted it is gone".to_owned()), at, None);
            change.operation = Some(operation);
            change.ended = Some(Err("ended with the process that ran it".to_owned()));
            changes.push(change);
        }
        let is_process = matches!(service.kind, ServiceKind::Process(_));
        self.alive = None;
        if is_process {
            self.begin_anew(at, service);
            changes.push(self.go(State::Starting, Some("started".to_owned()), at, None));
        }
        changes
    }

    /// The process of a service was started, outside of a restart.
    pub fn started(&mut self, service: &ServiceConfig, how: Result<(), String>, at: Timestamp) -> Vec<Change> {
        self.alive = Some(how.is_ok());
        self.exit = how.err();
        self.begin_anew(at, service);
        self.settle(service, at)
    }

    /// The process ended.
    pub fn exited(&mut self, service: &ServiceConfig, how: String, at: Timestamp) -> Vec<Change> {
        self.alive = Some(false);
        self.exit = Some(how);
        self.settle(service, at)
    }

    /// A check has seen something. While a restart is under way nothing counts; failures right after one don't.
    pub fn observe(&mut self, service: &ServiceConfig, name: &str, seen: Seen) -> Vec<Change> {
        let Some(config) = service.checks.iter().find(|check| check.name == name) else { return Vec::new() };
        if self.operation.is_some() {
            return Vec::new();
        }
        let at = seen.at;
        let spared = !seen.ok && self.grace_until.is_some_and(|until| at < until);
        let check = self.checks.entry(name.to_owned()).or_default();
        if seen.ok {
            check.failures = 0;
            check.successes = check.successes.saturating_add(1);
            if check.successes >= config.successes {
                check.verdict = Some(true);
            }
        } else if !spared {
            check.successes = 0;
            check.failures = check.failures.saturating_add(1);
            if check.failures >= config.failures {
                check.verdict = Some(false);
            }
        }
        check.last = Some(seen);
        self.settle(service, at)
    }

    /// A restart begins. One by hand forgives what was before.
    pub fn begun(&mut self, operation: ServiceOperationId, cause: Cause, at: Timestamp) -> Change {
        match cause {
            Cause::Manual => {
                self.series = 0;
                self.recent.clear();
            }
            Cause::Policy => {
                self.series = self.series.saturating_add(1);
                self.recent.push(at);
            }
        }
        self.wanted_since = None;
        self.last_restart_at = Some(at);
        self.restarts = self.restarts.saturating_add(1);
        self.operation = Some(operation);
        let why = match cause {
            Cause::Manual => "restarted by hand".to_owned(),
            Cause::Policy => self.reason.clone().unwrap_or_else(|| "it was down".to_owned()),
        };
        self.go(State::Restarting, Some(why), at, None)
    }

    /// The restart that is under way has ended.
    pub fn ended(&mut self, service: &ServiceConfig, how: Result<(), String>, at: Timestamp) -> Vec<Change> {
        let operation = self.operation.take();
        let is_process = matches!(service.kind, ServiceKind::Process(_));
        let mut change = match &how {
            Ok(()) => {
                self.alive = is_process.then_some(true);
                self.exit = None;
                self.begin_anew(at, service);
                let why = self.reason.take();
                self.go(State::Starting, why, at, Some("service.restarted"))
            }
            Err(error) => {
                if is_process {
                    self.alive = Some(false);
                    self.exit = Some(error.clone());
                }
                let state = if self.broken { State::Down } else { State::Unknown };
                self.go(state, Some(format!("the restart failed: {error}")), at, None)
            }
        };
        change.operation = operation;
        change.ended = Some(how);
        let mut changes = vec![change];
        changes.extend(self.settle(service, at));
        changes
    }

    /// Time passes: what does the policy want?
    pub fn tick(&mut self, service: &ServiceConfig, at: Timestamp) -> (Act, Vec<Change>) {
        if self.operation.is_some() {
            return (Act::Wait, Vec::new());
        }
        let mut changes = self.settle(service, at);
        let Some(policy) = &service.restart else { return (Act::Wait, changes) };
        if self.state == State::Up
            && self.series > 0
            && at.since(self.since) >= policy.cooldown.max(delay(policy, self.series))
        {
            self.series = 0;
        }
        let Some(wanted) = self.wanted_since.filter(|_| self.state == State::Down) else { return (Act::Wait, changes) };
        let backed_off = wanted.saturating_add(delay(policy, self.series));
        let cooled = self.last_restart_at.map_or(wanted, |last| last.saturating_add(policy.cooldown));
        if at < backed_off.max(cooled) {
            return (Act::Wait, changes);
        }
        self.recent.retain(|restart| at.since(*restart) < HOUR);
        if self.recent.len() < policy.per_hour as usize {
            return (Act::Restart, changes);
        }
        self.wanted_since = None;
        self.broken = true;
        let reason = format!("restarted {} times within an hour, and left alone now", self.recent.len());
        changes.push(self.go(State::Failed, Some(reason), at, Some("service.down")));
        (Act::Wait, changes)
    }

    /// Forgets what was seen before a start.
    fn begin_anew(&mut self, at: Timestamp, service: &ServiceConfig) {
        for check in self.checks.values_mut() {
            *check = CheckStanding { last: check.last.take(), ..CheckStanding::default() };
        }
        self.grace_until = Some(at.saturating_add(service.start_period));
    }

    /// Whether it is up, as far as anybody knows; and why not.
    fn verdict(&self, service: &ServiceConfig, at: Timestamp) -> Option<Result<(), String>> {
        if self.alive == Some(false) {
            return Some(Err(self.exit.clone().unwrap_or_else(|| "it doesn't run".to_owned())));
        }
        if matches!(service.kind, ServiceKind::Process(_)) && self.alive.is_none() {
            return None;
        }
        let of = |name: &str| self.checks.get(name);
        let failing =
            service.checks.iter().find(|config| of(&config.name).is_some_and(|check| check.verdict == Some(false)));
        if let Some(config) = failing {
            let detail = of(&config.name).and_then(|check| check.last.as_ref()).and_then(|seen| seen.detail.clone());
            return Some(Err(format!("check {}: {}", config.name, detail.unwrap_or_else(|| "failed".to_owned()))));
        }
        let content =
            service.checks.iter().all(|config| of(&config.name).is_some_and(|check| check.verdict == Some(true)));
        // Nobody vouches for a process without checks but the time that it has run.
        let vouched = !service.checks.is_empty() || self.grace_until.is_none_or(|until| at >= until);
        (content && vouched).then_some(Ok(()))
    }

    fn settle(&mut self, service: &ServiceConfig, at: Timestamp) -> Vec<Change> {
        if self.operation.is_some() {
            return Vec::new();
        }
        let mut changes = Vec::new();
        match self.verdict(service, at) {
            Some(Ok(())) if self.state != State::Up => {
                let event = self.broken.then_some("service.recovered");
                self.broken = false;
                changes.push(self.go(State::Up, None, at, event));
            }
            Some(Err(reason)) if !matches!(self.state, State::Down | State::Failed) => {
                let event = (!self.broken).then_some("service.down");
                self.broken = true;
                changes.push(self.go(State::Down, Some(reason), at, event));
            }
            _ => {}
        }
        let after = service.restart.map_or(u32::MAX, |policy| policy.after);
        if self.state != State::Down {
            self.wanted_since = None;
        } else if self.alive == Some(false) || self.failures() >= after {
            self.wanted_since.get_or_insert(at);
        }
        changes
    }

    fn go(&mut self, state: State, reason: Option<String>, at: Timestamp, event: Option<&'static str>) -> Change {
        self.state = state;
        self.since = at;
        self.reason.clone_from(&reason);
        Change { at, state, reason, failures: self.failures(), event, operation: self.operation, ended: None }
    }
}

/// How long is waited before the next restart, after so many in this series.
fn delay(policy: &RestartPolicy, series: u32) -> Duration {
    let factor = 1_u32.checked_shl(series).unwrap_or(u32::MAX);
    policy.backoff.saturating_mul(factor).min(policy.backoff_max)
}

#[cfg(test)]
mod tests;
