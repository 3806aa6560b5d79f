//! The log: one subscriber for the process.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::infra::config::{LogConfig, LogFormat};

/// Crates whose finer levels print what passes through them, headers included. No setting raises them.
const CAPPED: [&str; 7] = ["h2", "hyper", "hyper_util", "rustls", "sqlx", "tower_http", "axum"];

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A service's log is its output.
    Stdout,
    /// A command's output is its result; what it says beside goes here.
    Stderr,
}

/// Sets the process's log up. Later calls change nothing.
pub fn init(config: &LogConfig, output: Output) {
    // Parsed once already, when the configuration was checked; without it there would be no log to complain in.
    let mut filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    for name in CAPPED {
        if let Ok(directive) = format!("{name}=info").parse() {
            filter = filter.add_directive(directive);
        }
    }
    let writer = move || -> Box<dyn std::io::Write> {
        match output {
            Output::Stdout => Box::new(std::io::stdout()),
            Output::Stderr => Box::new(std::io::stderr()),
        }
    };
    let terminal = match output {
        Output::Stdout => std::io::stdout().is_terminal(),
        Output::Stderr => std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // Fails only where a subscriber is set already, as in tests.
    drop(match config.format {
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
        LogFormat::Pretty => builder
            .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
            .with_target(false)
            .try_init(),
    });
}
