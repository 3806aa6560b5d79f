//! The log: one subscriber for the process.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use prometheus::IntCounter;

use crate::infra::config::{LogConfig, LogFormat, OtlpConfig};

use super::access::{self, AccessLog};
use super::{lines, otlp};

/// The finest level of a library's lines that is let through, whatever the setting says: below it they print what passes
/// through them, headers and values included.
const CAP: Level = Level::INFO;

/// What Postgres itself says may quote a statement's values.
const NOTICES: (&str, Level) = ("sqlx::postgres::notice", Level::WARN);

/// Whether the caps let an event or a span of this target and level through.
fn within_caps(target: &str, level: Level) -> bool {
    let within = |name: &str| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    if within("keyward") {
        true
    } else if within(NOTICES.0) {
        level <= NOTICES.1
    } else {
        level <= CAP
    }
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
pub(super) const ACCESS: &str = "keyward::access";

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

/// The filter that holds, to be changed while the process runs.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// The log of requests; it is on as long as the filter lets its lines through. After [`init`].
#[must_use]
pub fn access() -> AccessLog {
    SERVICE.get().cloned().unwrap_or(AccessLog::off())
}

/// Lets other lines through from now on. Without effect where [`init`] wasn't called, or the text is no filter.
pub(super) fn set_filter(filter: &str) {
    if let (Some(handle), Ok(filter)) = (FILTER.get(), EnvFilter::try_new(filter)) {
        // Fails only where the subscriber is gone, with the process.
        drop(handle.reload(filter));
        switch_access();
    }
}

/// Whether requests are logged is asked for each of them, so the answer is kept.
fn switch_access() {
    if let Some(log) = SERVICE.get() {
        log.switch(tracing::enabled!(target: ACCESS, Level::INFO));
    }
}

/// Lines of the service's log that found no room.
#[must_use]
pub fn dropped() -> u64 {
    SERVICE.get().map_or(0, AccessLog::dropped)
}

/// Exports and writes what is left; waits for it, at most some seconds. To be called at the end of the process.
pub fn close() {
    otlp::close();
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

/// Sets the process's log up, and what is exported of it. Later calls change nothing.
///
/// # Errors
/// The system gives no thread for the export.
pub fn init(config: &LogConfig, exported: Option<&OtlpConfig>, output: Output) -> std::io::Result<()> {
    // Parsed once already, when the configuration was checked; without it there would be no log to complain in.
    let chosen = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let (chosen, handle) = reload::Layer::new(chosen);
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
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_span_list(false).with_current_span(false);
            lines.map_event_format(|inner| lines::Lines { inner, style: lines::Style::Json }).boxed()
        }
        LogFormat::Pretty => {
            let inner = format().with_ansi(colours).with_target(false);
            lines.with_ansi(colours).event_format(lines::Lines { inner, style: lines::Style::Pretty(colours) }).boxed()
        }
    };
    // A command ends before anybody would look.
    let exported = exported.filter(|_| output == Output::Stdout);
    exported.map(otlp::start).transpose()?;
    let exported = exported.map(|_| otlp::Exported);
    // Fails only where a subscriber is set already, as in tests.
    // The filters are layers of the whole stack: filters of one layer keep a state between the question whether a line is
    // wanted and the line itself, and lose the next line of whoever only asks, as sqlx does.
    if tracing_subscriber::registry().with(chosen).with(caps).with(lines).with(exported).try_init().is_ok() {
        // The first one counts, as above.
        drop(FILTER.set(handle));
    }
    switch_access();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finer_lines_are_our_own() {
        assert!(within_caps("keyward", Level::TRACE) && within_caps("keyward::web", Level::TRACE));
        assert!(
            within_caps("h2", Level::INFO)
                && !within_caps("h2", Level::DEBUG)
                && !within_caps("keywarden", Level::DEBUG)
        );
        assert!(!within_caps("h2::codec::framed_read", Level::TRACE));
        assert!(within_caps("sqlx::query", Level::INFO) && !within_caps("sqlx::postgres::notice", Level::INFO));
    }
}
