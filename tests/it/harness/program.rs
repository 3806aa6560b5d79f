//! The real binary as a process of its own, for what can't be seen from inside: signals, logs, exit statuses.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use super::postgres::free_port;

/// The binary with an empty environment, apart from what the test sets.
pub fn keyward(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyward"));
    command.env_clear().current_dir(directory).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(directory: &Path, environment: &[(&str, &str)], arguments: &[&str], input: &str) -> Output {
    let mut command = keyward(directory);
    command.args(arguments).envs(environment.iter().copied());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// A server process on free ports; killed when dropped.
pub struct Program {
    pub child: Child,
    pub url: String,
    pub metrics_url: String,
    pub log: std::path::PathBuf,
}

impl Program {
    /// Starts it and waits until it answers. Its output goes to `keyward.log` in the directory.
    pub async fn start(directory: &Path, environment: &[(&str, &str)]) -> Self {
        let mut program = Self::spawn(directory, environment);
        let started = Instant::now();
        while reqwest::get(format!("{}/health", program.url)).await.is_err() {
            let ended = program.child.try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < Duration::from_secs(20),
                "didn't start: {}",
                program.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        program
    }

    /// Starts it without waiting.
    pub fn spawn(directory: &Path, environment: &[(&str, &str)]) -> Self {
        let (port, metrics_port) = (free_port(), free_port());
        let log = directory.join("keyward.log");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut command = keyward(directory);
        command
            .args([
                "serve",
                "--port",
                &port.to_string(),
                "--metrics-port",
                &metrics_port.to_string(),
            ])
            .env("KEYWARD_AUTH_RATE_PER_MINUTE", "0")
            .env("KEYWARD_DRAIN_DELAY", "0")
            .envs(environment.iter().copied())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        Self {
            child: command.spawn().unwrap(),
            url: format!("http://127.0.0.1:{port}"),
            metrics_url: format!("http://127.0.0.1:{metrics_port}/metrics"),
            log,
        }
    }

    /// Everything it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < patience, "still running: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
