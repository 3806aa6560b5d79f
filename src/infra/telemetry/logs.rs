//! The log: one subscriber for the process.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use prometheus::IntCounter;

use crate::infra::config::{LogConfig, LogFormat};

use super::access::{self, AccessLog};

/// Crates whose finer levels print what passes through them, headers included, and the finest level that is let through
/// whatever the setting says. The first that fits counts.
const CAPPED: [(&str, Level); 8] = [
    ("sqlx::postgres::notice", Level::WARN),
    ("h2", Level::INFO),
    ("hyper", Level::INFO),
    ("hyper_util", Level::INFO),
    ("rustls", Level::INFO),
    ("sqlx", Level::INFO),
    ("tower_http", Level::INFO),
    ("axum", Level::INFO),
];

/// Whether the caps let an event or a span of this target and level through.
fn within_caps(target: &str, level: Level) -> bool {
    let within = |name: &str| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    CAPPED.iter().find(|(name, _)| within(name)).is_none_or(|(_, finest)| level <= *finest)
}

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A service's log is its output.
    Stdout,
    /// A command's output is its result; what it says beside goes here.
    Stderr,
}

/// The target under which requests are logged; the setting may name it.
const ACCESS: &str = "keyward::access";

/// How lines are written to an output: with colours only where somebody reads them.
fn has_colours(output: Output) -> bool {
    let terminal = match output {
        Output::Stdout => std::io::stdout().is_terminal(),
        Output::Stderr => std::io::stderr().is_terminal(),
    };
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The service's log on standard output. All its lines go through one bounded buffer and one thread: whoever reads them may
/// stop to do so without stopping the service.
static SERVICE: OnceLock<AccessLog> = OnceLock::new();

/// The log of requests, if the setting lets its lines through. After [`init`].
#[must_use]
pub fn access() -> AccessLog {
    let wanted = tracing::enabled!(target: ACCESS, Level::INFO);
    SERVICE.get().filter(|_| wanted).cloned().unwrap_or(AccessLog::off())
}

/// Lines of the service's log that found no room.
#[must_use]
pub fn dropped() -> u64 {
    SERVICE.get().map_or(0, AccessLog::dropped)
}

/// Writes what is left; waits for it, at most some seconds. To be called at the end of the process.
pub fn close() {
    if let Some(log) = SERVICE.get() {
        log.close();
    }
}

/// Takes a line at a time.
struct Lines(AccessLog);

impl std::io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Starts the thread that writes the service's log.
fn start(config: &LogConfig) -> Option<AccessLog> {
    let format = match config.format {
        LogFormat::Json => access::Format::Json,
        LogFormat::Pretty => access::Format::Pretty { colours: has_colours(Output::Stdout) },
    };
    let dropped = IntCounter::new("dropped", "lines").ok()?;
    let log = AccessLog::to(format, std::io::stdout(), dropped).ok()?;
    Some(SERVICE.get_or_init(|| log).clone())
}

/// Sets the process's log up. Later calls change nothing.
pub fn init(config: &LogConfig, output: Output) {
    // Parsed once already, when the configuration was checked; without it there would be no log to complain in.
    let chosen = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let caps = filter_fn(|metadata| within_caps(metadata.target(), *metadata.level()));
    let service = if output == Output::Stdout { start(config) } else { None };
    let writer = move || -> Box<dyn std::io::Write> {
        match &service {
            Some(log) => Box::new(Lines(log.clone())),
            None => Box::new(std::io::stderr()),
        }
    };
    let colours = has_colours(output);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Pretty => lines.with_ansi(colours).with_target(false).boxed(),
    };
    // Fails only where a subscriber is set already, as in tests.
    // The filters are layers of the whole stack: filters of one layer keep a state between the question whether a line is
    // wanted and the line itself, and lose the next line of whoever only asks, as sqlx does.
    drop(tracing_subscriber::registry().with(chosen).with(caps).with(lines).try_init());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_hold_for_a_crate_and_its_modules() {
        assert!(within_caps("keyward::web", Level::TRACE) && within_caps("h2o", Level::TRACE));
        assert!(within_caps("h2", Level::INFO) && !within_caps("h2", Level::DEBUG));
        assert!(!within_caps("h2::codec::framed_read", Level::TRACE));
        assert!(within_caps("sqlx::query", Level::INFO) && !within_caps("sqlx::postgres::notice", Level::INFO));
    }
}
