//! What is logged, and how.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::source::{ConfigError, Loaded};

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A level, or directives of `tracing`.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl LogConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let filter = loaded.text("log").to_owned();
        EnvFilter::try_new(&filter).map_err(|_| {
            loaded.invalid(
                "log",
                "expected a level (error, warn, info, debug, trace) or directives such as info,keyward=debug",
            )
        })?;
        let format = match loaded.text("log_format") {
            "pretty" => LogFormat::Pretty,
            "" if std::io::stdout().is_terminal() => LogFormat::Pretty,
            "json" | "" => LogFormat::Json,
            _ => return Err(loaded.invalid("log_format", "expected pretty or json")),
        };
        Ok(Self { filter, format })
    }
}
