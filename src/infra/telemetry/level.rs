//! What is logged, as long as the process runs: the setting, or what an administrator wants for a while.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::clock::Timestamp;

use super::logs;

/// The longest [`Filter`], in characters.
pub const MAX_FILTER: usize = 1024;

/// What a [`Filter`] looks like.
pub const FILTER: &str = "^([A-Za-z_][A-Za-z0-9_]*(::[A-Za-z_][A-Za-z0-9_]*)*=)?(off|error|warn|info|debug|trace)\
    (,([A-Za-z_][A-Za-z0-9_]*(::[A-Za-z_][A-Za-z0-9_]*)*=)?(off|error|warn|info|debug|trace))*$";

/// A level, or levels by where a line comes from: `info`, `info,keyward::web=debug`. The setting may say more than that: a
/// process that runs takes nothing that is dear to evaluate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(String);

/// The text is no [`Filter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected off, error, warn, info, debug or trace, or levels by origin such as info,keyward::web=debug")]
pub struct FilterError;

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let is_level = |word: &str| matches!(word, "off" | "error" | "warn" | "info" | "debug" | "trace");
        let is_name = |name: &str| {
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
        };
        let is_directive = |directive: &str| match directive.split_once('=') {
            None => is_level(directive),
            Some((target, level)) => is_level(level) && target.split("::").all(is_name),
        };
        if text.len() <= MAX_FILTER && text.split(',').all(is_directive) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FilterError)
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What this process logs.
#[derive(Debug)]
pub struct LogLevel {
    configured: String,
    chosen: Mutex<Option<Chosen>>,
    /// Held by whoever changes it, so that what is told last is what holds.
    pub changing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Chosen {
    filter: Filter,
    until: Option<Timestamp>,
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What holds now.
    pub level: String,
    /// What the settings say.
    pub configured: String,
    /// When the settings hold again; `None` where the process's end does it.
    pub until: Option<Timestamp>,
}

impl LogLevel {
    /// As configured.
    #[must_use]
    pub fn new(configured: String) -> Self {
        Self { configured, chosen: Mutex::default(), changing: tokio::sync::Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Chosen>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands at this moment.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        let chosen = self.lock().clone().filter(|chosen| chosen.until.is_none_or(|until| now < until));
        Standing {
            level: chosen.as_ref().map_or_else(|| self.configured.clone(), |chosen| chosen.filter.to_string()),
            configured: self.configured.clone(),
            until: chosen.and_then(|chosen| chosen.until),
        }
    }

    /// Another filter, for a while or until the process ends.
    pub fn choose(&self, filter: Filter, until: Option<Timestamp>) {
        let mut chosen = self.lock();
        logs::set_filter(&filter.0);
        *chosen = Some(Chosen { filter, until });
    }

    /// Goes back to the setting, if it is time to.
    pub fn settle(&self, now: Timestamp) {
        let mut chosen = self.lock();
        if chosen.as_ref().and_then(|chosen| chosen.until).is_some_and(|until| until <= now) {
            logs::set_filter(&self.configured);
            *chosen = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn filters_are_levels_by_origin() {
        for good in ["info", "off", "info,keyward=debug", "keyward::web=trace,warn", "info,sqlx::query=off"] {
            assert_eq!(good.parse::<Filter>().unwrap().to_string(), good);
            assert!(tracing_subscriber::EnvFilter::try_new(good).is_ok(), "{good}");
        }
        let long = vec!["info"; 300].join(",");
        for bad in [
            "",
            "loud",
            "INFO",
            "info,",
            ",info",
            "a b=info",
            "x[y]=info",
            "x[{a=b}]=info",
            "keyward",
            "=info",
            "a:b=info",
            "1a=info",
            &long,
        ] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_choice_ends_when_its_time_is_over() {
        let (level, start) = (LogLevel::new("warn".to_owned()), Timestamp::EPOCH);
        let end = start.saturating_add(Duration::from_mins(1));
        level.choose("debug".parse().unwrap(), Some(end));
        level.settle(start);
        assert_eq!(
            level.standing(start),
            Standing { level: "debug".into(), configured: "warn".into(), until: Some(end) }
        );
        assert_eq!(level.standing(end).level, "warn");
        level.settle(end);
        assert_eq!(level.standing(start).level, "warn");
        level.choose("trace".parse().unwrap(), None);
        level.settle(Timestamp::FAR);
        assert_eq!(level.standing(Timestamp::FAR).level, "trace");
    }
}
