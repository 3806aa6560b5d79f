//! Services that Keyward watches and restarts: `[[services]]` tables, which stand in the file alone, since what is run and
//! called must come from the operator and from nowhere else.

mod fields;
mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::base::secret::Secret;

pub(super) use parse::{parse, shown};

/// The name of the tables in the file.
pub(super) const KEY: &str = "services";

/// The name of a service: 1 to 63 of `a-z 0-9 - _`, beginning with a letter or a digit; not `operations`, which is a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

/// The text is no name of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 63 of a-z 0-9 - _, beginning with a letter or a digit")]
pub struct NotAName;

impl FromStr for ServiceName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let good = (1..=63).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
            && !text.starts_with(['-', '_'])
            && text != "operations";
        if good { Ok(Self(text.to_owned())) } else { Err(NotAName) }
    }
}

impl ServiceName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A service that is watched.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Its name.
    pub name: ServiceName,
    /// What it is, and so how it is restarted.
    pub kind: ServiceKind,
    /// How is found out whether it is up; at least one, except of a process.
    pub checks: Vec<CheckConfig>,
    /// When it is restarted without anybody asking; never where there is none.
    pub restart: Option<RestartPolicy>,
    /// How long after a start failed checks don't count. A process without checks counts as up when it has run so long.
    pub start_period: Duration,
}

/// What a service is. Further kinds are further variants, each with a file in `features/services/kinds`.
#[derive(Clone, Debug)]
pub enum ServiceKind {
    /// Started and supervised by Keyward.
    Process(ProcessConfig),
    /// Restarted by whoever listens at a URL.
    Http(HookConfig),
    /// Watched alone.
    Watch,
}

impl ServiceKind {
    /// As written in the file.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Process(_) => "process",
            Self::Http(_) => "http",
            Self::Watch => "watch",
        }
    }
}

/// What is run: never through a shell.
#[derive(Clone, Debug)]
pub struct CommandLine {
    /// The program (an absolute path) and its arguments; never empty.
    pub words: Vec<String>,
    /// Where it runs; Keyward's own directory where nothing is said.
    pub directory: Option<PathBuf>,
    /// Its environment: nothing else of Keyward's own comes through.
    pub environment: BTreeMap<String, Secret>,
    /// Names of Keyward's variables that it gets as well.
    pub pass_environment: Vec<String>,
}

/// A process of ours.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// What is run.
    pub command: CommandLine,
    /// How long it may take to end after SIGTERM, before SIGKILL.
    pub stop_grace: Duration,
}

/// Who restarts a service when asked to.
#[derive(Clone, Debug)]
pub struct HookConfig {
    /// Where is asked.
    pub url: String,
    /// What requests are signed with: `whsec_` and base64 of 24 to 64 bytes.
    pub secret: Secret,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// One question whether a service is up.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// Its name among the service's checks.
    pub name: String,
    /// What is asked.
    pub kind: CheckKind,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// After so many failures in a row the service is down.
    pub failures: u32,
    /// After so many successes in a row it is up again.
    pub successes: u32,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum CheckKind {
    /// A page is got.
    Http {
        /// Which one.
        url: String,
        /// Which statuses are good; 200 to 299 where empty.
        status: Vec<u16>,
        /// What must stand in the first 64 KiB of the answer.
        body: Option<String>,
    },
    /// A connection is accepted.
    Tcp {
        /// `host:port`.
        address: String,
    },
    /// A program ends with status 0.
    Command(CommandLine),
}

impl CheckKind {
    /// As written in the file.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Tcp { .. } => "tcp",
            Self::Command(_) => "command",
        }
    }
}

/// When a service is restarted without anybody asking.
#[derive(Clone, Copy, Debug)]
pub struct RestartPolicy {
    /// After so many failures of a check in a row; at once where a process ends.
    pub after: u32,
    /// How long is waited before the first restart of a series; doubled for each further one.
    pub backoff: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// Between two restarts lies at least so much. A service that was up so long begins a new series when it fails again.
    pub cooldown: Duration,
    /// The most restarts within an hour; past it the service is given up.
    pub per_hour: u32,
}
