//! Decisions about alert rules: no I/O and no clock.

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::invalid::{Check, Invalid};
use crate::features::keys;

use super::{MAX_EMAILS, Metric, Operator, Standing, State, Terms};

/// The shortest and the longest window, in seconds.
pub const WINDOW: (u64, u64) = (60, 30 * 86_400);
/// The longest cooldown, in seconds.
pub const MAX_COOLDOWN: u64 = 30 * 86_400;
/// The largest threshold of what is counted.
pub const MAX_COUNT: f64 = 1e12;

impl Metric {
    /// The largest threshold; the smallest is 0.
    #[must_use]
    pub fn most(self) -> f64 {
        match self {
            Self::ErrorRate => 1.0,
            Self::QuotaUsedPercent => 100.0,
            // A day.
            Self::LatencyP95Ms => 86_400_000.0,
            // A hundred years.
            Self::ExpiresInDays => 36_500.0,
            Self::Requests
            | Self::Denied
            | Self::RateLimited
            | Self::AuthFailures
            | Self::ScopeDenied
            | Self::IpDenied => MAX_COUNT,
        }
    }

    /// What stands behind a value in a sentence.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::QuotaUsedPercent => " %",
            Self::LatencyP95Ms => " ms",
            Self::ExpiresInDays => " days",
            _ => "",
        }
    }
}

impl Operator {
    /// Whether a value fulfils it.
    #[must_use]
    #[expect(clippy::float_cmp, reason = "the same is what is asked for")]
    pub fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Above => value > threshold,
            Self::AtLeast => value >= threshold,
            Self::Below => value < threshold,
            Self::AtMost => value <= threshold,
            Self::Equal => value == threshold,
        }
    }
}

/// Whether a rule may say this.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(terms: &Terms) -> Result<(), Invalid> {
    let mut check = Check::default();
    check.part(keys::rules::name(&terms.name));
    if let Some(description) = &terms.description {
        check.part(keys::rules::description(description));
    }
    let most = terms.metric.most();
    if !(0.0..=most).contains(&terms.threshold) {
        check.refuse("threshold", "invalid_value", format!("must be 0 to {most} for {}", terms.metric.word()));
    }
    if !(WINDOW.0..=WINDOW.1).contains(&terms.window.get()) {
        check.refuse("window", "invalid_value", "must be 1 minute to 30 days");
    }
    if terms.cooldown.get() > MAX_COOLDOWN {
        check.refuse("cooldown", "invalid_value", "must be at most 30 days");
    }
    if terms.remind && terms.cooldown.get() < WINDOW.0 {
        check.refuse("remind", "invalid_value", "needs a cooldown of at least 1 minute");
    }
    if terms.emails.len() > MAX_EMAILS {
        check.refuse("emails", "invalid_value", "must be at most 10 addresses");
    }
    check.finish()
}

/// Whether two rules look for the same: then one goes on where the other was.
#[must_use]
pub fn is_same_question(left: &Terms, right: &Terms) -> bool {
    let question = |terms: &Terms| {
        (terms.metric, terms.operator, terms.threshold.to_bits(), terms.window, terms.key_id, terms.is_active)
    };
    question(left) == question(right)
}

/// Why it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The comparison isn't true any more.
    Condition,
    /// There is nothing to compare any more.
    NoData,
    /// The rule looks for something else now.
    Changed,
    /// The rule was switched off.
    Deactivated,
    /// The rule was removed.
    Deleted,
}

impl Reason {
    /// As stored and shown.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Condition => "condition",
            Self::NoData => "no_data",
            Self::Changed => "changed",
            Self::Deactivated => "deactivated",
            Self::Deleted => "deleted",
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing that anybody must hear of.
    Stay(State),
    /// It fires.
    Fire,
    /// It still fires.
    Remind,
    /// It would fire, if the cooldown didn't run.
    Suppress,
    /// It is over.
    Resolve(Reason),
}

/// What a value leads to; `None` where there is none.
#[must_use]
pub fn step(standing: &Standing, terms: &Terms, value: Option<f64>, now: Timestamp) -> Step {
    let is_true = value.map(|value| terms.operator.holds(value, terms.threshold));
    let is_muted = standing.muted_until(terms.cooldown, now).is_some();
    match (standing.state, is_true) {
        (State::Firing, Some(true)) if terms.remind && !is_muted => Step::Remind,
        (State::Firing, Some(true)) => Step::Stay(State::Firing),
        (State::Firing, Some(false)) => Step::Resolve(Reason::Condition),
        // As in Prometheus, where a series that is gone resolves.
        (State::Firing, None) => Step::Resolve(Reason::NoData),
        (_, Some(true)) if !is_muted => Step::Fire,
        // Said once a cooldown, however often it comes and goes.
        (_, Some(true)) if standing.suppressed_at.is_none() => Step::Suppress,
        (_, Some(true)) => Step::Stay(State::Muted),
        (_, Some(false)) => Step::Stay(State::Ok),
        (_, None) => Step::Stay(State::NoData),
    }
}

/// A comparison in words: `denied >= 100 in 1h`.
#[must_use]
pub fn sentence(metric: Metric, operator: Operator, threshold: f64, window: Seconds) -> String {
    let window = window.short_form().unwrap_or_else(|| window.to_string());
    format!("{} {} {threshold}{} in {window}", metric.word(), operator.word(), metric.unit())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn terms(cooldown: u64, remind: bool) -> Terms {
        Terms {
            name: "n".to_owned(),
            description: None,
            metric: Metric::Denied,
            operator: Operator::AtLeast,
            threshold: 3.0,
            window: Seconds::new(60).unwrap(),
            cooldown: Seconds::new(cooldown).unwrap(),
            key_id: None,
            emails: Vec::new(),
            remind,
            is_active: true,
        }
    }

    fn after(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.saturating_add(Duration::from_secs(seconds))
    }

    #[test]
    fn each_operator_at_its_edges() {
        let held = |operator: Operator| [2.0, 3.0, 4.0].map(|value| operator.holds(value, 3.0));
        assert_eq!(held(Operator::Above), [false, false, true]);
        assert_eq!(held(Operator::AtLeast), [false, true, true]);
        assert_eq!(held(Operator::Below), [true, false, false]);
        assert_eq!(held(Operator::AtMost), [true, true, false]);
        assert_eq!(held(Operator::Equal), [false, true, false]);
        for operator in Operator::ALL {
            assert!(!operator.holds(f64::NAN, 3.0), "nothing is told of what isn't a number");
        }
    }

    #[test]
    fn it_fires_once_an_incident_and_not_within_the_cooldown() {
        let rule = terms(600, false);
        let fired = Standing { state: State::Firing, told_at: Some(after(0)), ..Standing::NEW };
        assert_eq!(step(&Standing::NEW, &rule, Some(2.0), after(0)), Step::Stay(State::Ok));
        assert_eq!(step(&Standing::NEW, &rule, Some(3.0), after(0)), Step::Fire);
        assert_eq!(step(&fired, &rule, Some(3.0), after(10_000)), Step::Stay(State::Firing));
        assert_eq!(step(&fired, &rule, Some(2.0), after(1)), Step::Resolve(Reason::Condition));
        assert_eq!(step(&fired, &rule, None, after(1)), Step::Resolve(Reason::NoData));
        let over = Standing { state: State::Ok, ..fired };
        assert_eq!(step(&over, &rule, Some(3.0), after(599)), Step::Suppress);
        let known = Standing { state: State::Muted, suppressed_at: Some(after(599)), ..over };
        assert_eq!(step(&known, &rule, Some(3.0), after(599)), Step::Stay(State::Muted));
        assert_eq!(step(&known, &rule, Some(3.0), after(600)), Step::Fire);
        assert_eq!(step(&known, &rule, None, after(600)), Step::Stay(State::NoData));
    }

    #[test]
    fn it_reminds_after_each_cooldown_if_it_shall() {
        let fired = Standing { state: State::Firing, told_at: Some(after(0)), ..Standing::NEW };
        assert_eq!(step(&fired, &terms(600, true), Some(3.0), after(599)), Step::Stay(State::Firing));
        assert_eq!(step(&fired, &terms(600, true), Some(3.0), after(600)), Step::Remind);
    }

    #[test]
    fn thresholds_have_the_bounds_of_their_metric() {
        for metric in Metric::ALL {
            let of = |threshold| check(&Terms { metric: *metric, threshold, ..terms(0, false) });
            assert!(of(0.0).is_ok() && of(metric.most()).is_ok(), "{metric:?}");
            for wrong in [-0.1, metric.most() * 1.01, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                assert!(of(wrong).is_err(), "{metric:?} {wrong}");
            }
        }
        assert!(check(&terms(0, true)).is_err(), "it would remind all the time");
    }
}
