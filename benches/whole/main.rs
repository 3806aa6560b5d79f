//! The whole service under load: the release binary and a bare axum server, on one core, `wrk` on another.
//!
//! `cargo bench --bench whole -- --help` says how. What counts are the ratios: they were measured within seconds of each
//! other, while absolute figures belong to one machine in one moment. Needs Linux, two cores, `wrk` and `taskset`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its result is what it prints")]
#![expect(clippy::disallowed_methods, reason = "it is the client of the server that it measures")]

mod ceiling;
mod load;
mod scenarios;
mod seed;
mod server;
mod watch;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use keyward::base::clock::SystemClock;
use tokio::signal::unix::{SignalKind, signal};

use load::Bench;
use scenarios::Scenarios;

/// The ceiling has the product's allocator, so that a ratio says nothing about allocators.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Keyward under load, in ratios to a bare axum server.
///
/// The binary is the one that cargo has just built; the variable `KEYWARD_BIN` names another.
#[derive(Parser)]
struct Args {
    /// Only scenarios whose names hold one of these
    names: Vec<String>,
    /// Runs of a second, and 20,000 keys instead of 1,000,000: to see that everything works
    #[arg(long)]
    quick: bool,
    /// Length of a measured run
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: Option<u64>,
    /// Runs of each variant that count
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=50))]
    pairs: Option<u8>,
    /// A setting for Keyward, besides the benchmark's own
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Make keys without limits of their own, for a binary that knows none
    #[arg(long)]
    without_limits: bool,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the bare server
    #[arg(long, hide = true)]
    ceiling: Option<u16>,
}

fn setting(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.ceiling {
        Some(port) => ceiling::serve(port).map(|()| true),
        // `cargo test --all-targets` starts benchmarks too.
        None if !args.bench => {
            println!("cargo bench --bench whole runs this");
            Ok(true)
        }
        None => bench(args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("whole: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was measured.
fn bench(args: Args) -> Result<bool> {
    for (tool, package) in [("wrk", "wrk"), ("taskset", "util-linux")] {
        if Command::new(tool).arg("--version").output().is_err() {
            return Err(format!("{tool} is missing (Debian: apt-get install {package})").into());
        }
    }
    if !Command::new("taskset").args(["-c", "0,1", "true"]).status()?.success() {
        return Err("two cores are needed, one to serve and one to ask".into());
    }
    let scratch = tempfile::Builder::new().prefix("keyward-bench.").tempdir()?;
    let binary = std::env::var_os("KEYWARD_BIN").map_or_else(|| env!("CARGO_BIN_EXE_keyward").into(), PathBuf::from);
    let bench = Bench {
        seconds: args.seconds.unwrap_or(if args.quick { 1 } else { 4 }),
        brackets: args.pairs.unwrap_or(if args.quick { 1 } else { 3 }).into(),
        directory: scratch.path().to_owned(),
        clock: SystemClock::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let complete = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let scenarios = Scenarios {
            bench,
            binary: binary.canonicalize().map_err(|_| format!("no binary at {}", binary.display()))?,
            many: if args.quick { 20_000 } else { 1_000_000 },
            settings: args.settings,
            own_limits: !args.without_limits,
        };
        tokio::select! {
            complete = scenarios.run(&args.names) => complete,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            _ = terminate.recv() => Err("terminated".into()),
        }
    });
    // What was still running has been killed with its value; its files go once it is gone.
    std::thread::sleep(Duration::from_millis(200));
    scratch.close()?;
    complete
}
