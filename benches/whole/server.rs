//! The servers under load: each a process of its own, held to one core, that lives as long as its value.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::Result;

/// The core that serves, and the one that asks.
const SERVING: u32 = 0;
pub(super) const ASKING: u32 = 1;

/// Of `/proc/PID/stat`, in seconds: the same on every Linux that anybody runs.
const TICK: f64 = 0.01;

/// A program that runs on one core, with nothing of the caller's environment, and is killed when its value goes away.
pub(super) fn pinned(core: u32, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Seconds that a process has had of its processors.
pub(super) fn processor_time(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name, which may hold anything but ends with the last parenthesis.
    let after = stat.rsplit_once(") ").ok_or("no name in /proc/PID/stat")?.1;
    let field = |n: usize| after.split(' ').nth(n).and_then(|ticks| ticks.parse::<u32>().ok()).unwrap_or(0);
    Ok(TICK * f64::from(field(11) + field(12)))
}

/// A server that answers.
pub(super) struct Server {
    child: Child,
    pid: u32,
    /// `http://127.0.0.1:PORT`
    pub(super) url: String,
    /// The same of its metrics listener.
    pub(super) metrics: String,
    log: PathBuf,
}

impl Server {
    /// The bare axum program: this one, told to be it.
    pub(super) async fn ceiling(directory: &Path) -> Result<Self> {
        let [port, _] = free_ports()?;
        let mut command = pinned(SERVING, &std::env::current_exe()?);
        command.args(["--bench", "--ceiling", &port.to_string()]);
        Self::start(command, directory, [port, port], "/").await
    }

    /// The same as a collector of telemetry, on the other core: what it takes isn't the service's work.
    pub(super) async fn collector(directory: &Path) -> Result<Self> {
        let [port, _] = free_ports()?;
        let mut command = pinned(ASKING, &std::env::current_exe()?);
        command.args(["--bench", "--ceiling", &port.to_string()]);
        Self::start(command, directory, [port, port], "/").await
    }

    /// Keyward on a SQLite file in `directory`, logging every request to a file beside it.
    pub(super) async fn keyward(binary: &Path, directory: &Path, settings: &[(String, String)]) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let ports = free_ports()?;
        let mut command = pinned(SERVING, binary);
        command.arg("serve").current_dir(directory);
        command.env("HOME", directory).env("DATABASE_URL", format!("sqlite://{}", database(directory).display()));
        command.env("KEYWARD_LOG", "info").env("KEYWARD_LOG_FORMAT", "json");
        command.env("KEYWARD_PORT", ports[0].to_string()).env("KEYWARD_METRICS_PORT", ports[1].to_string());
        // The benchmark is one person at one address, and its keys are asked about until it ends.
        command.env("KEYWARD_AUTH_RATE_PER_MINUTE", "0").env("KEYWARD_KEYS_PER_USER_PER_DAY", "0");
        command.env("KEYWARD_DEFAULT_RATE_LIMIT", "1000000000");
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        Self::start(command, directory, ports, "/health/ready").await
    }

    async fn start(mut command: Command, directory: &Path, ports: [u16; 2], ready: &str) -> Result<Self> {
        let log = directory.join(format!("{}.log", ports[0]));
        // Opened for appending, so that it can be emptied while the server writes.
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        let child = command.stdout(file.try_clone()?).stderr(file).spawn()?;
        let pid = child.id().ok_or("the server has ended")?;
        let [url, metrics] = ports.map(|port| format!("http://127.0.0.1:{port}"));
        let mut server = Self { child, pid, url, metrics, log };
        for _ in 0..1200 {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("the server ended with {status}: {}", server.last_words()).into());
            }
            let answer = reqwest::get(format!("{}{ready}", server.url)).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(server);
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(format!("the server wasn't ready within a minute: {}", server.last_words()).into())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    /// Empties its log: at a hundred megabytes a run it would fill the disk.
    pub(super) fn forget_log(&self) -> Result<()> {
        Ok(File::options().write(true).open(&self.log)?.set_len(0)?)
    }

    /// Seconds that it has had of its core since its start.
    pub(super) fn processor_time(&self) -> Result<f64> {
        processor_time(self.pid)
    }

    /// Bytes of memory that it holds.
    pub(super) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Its counters of one family: names with labels, and values.
    pub(super) async fn counters(&self, family: &str) -> Result<Vec<(String, f64)>> {
        let text = reqwest::get(format!("{}/metrics", self.metrics)).await?.error_for_status()?.text().await?;
        let lines = text.lines().filter(|line| line.starts_with(family));
        Ok(lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, n)| (name.to_owned(), n.parse().unwrap_or(0.0)))
            .collect())
    }

    /// Ends it at once, if it hasn't ended by itself. What it has acknowledged is on disk.
    pub(super) async fn end(mut self) {
        drop(self.child.kill().await);
    }
}

/// Where the server in `directory` keeps its data.
pub(super) fn database(directory: &Path) -> PathBuf {
    directory.join("keyward.db")
}

/// Two free ports of the loopback address.
fn free_ports() -> Result<[u16; 2]> {
    let held = [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
    Ok([held[0].local_addr()?.port(), held[1].local_addr()?.port()])
}
