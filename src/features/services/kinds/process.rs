//! A process of ours: started without a shell, with the environment that the configuration names and nothing else, in a
//! process group of its own, which is ended as a whole. What it says goes to the log.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::ctx::Ctx;
use crate::features::services::output;
use crate::features::services::rules::Recorded;
use crate::infra::config::{CommandLine, ProcessConfig, ServiceName};

/// How often is looked whether a process that shall end has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long the system may take to end a killed one.
const KILLED: Duration = Duration::from_secs(5);

/// A running process, or one that has ended. Dropped without [`stop`](Self::stop), its group is killed.
pub struct Process {
    group: Option<Pid>,
    exit: watch::Receiver<Option<String>>,
    recorded: Option<Recorded>,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// Why not, for people; never with what stands in its environment.
    pub fn start(ctx: &Ctx, name: &ServiceName, config: &ProcessConfig) -> Result<Self, String> {
        let mut command = command(&config.command).ok_or("there is nothing to run")?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("it can't be started: {}", error.kind()))?;
        let group = group_of(child.id());
        let recorded = group.and_then(record);
        output::follow(ctx, name, child.stdout.take(), child.stderr.take());
        let (told, exit) = watch::channel(None);
        tokio::spawn(wait(child, group, told));
        tracing::info!(service = %name, pid = group.map(Pid::as_raw_nonzero), "started a service's process");
        Ok(Self { group, exit, recorded })
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<String> {
        self.exit.borrow().clone()
    }

    /// How others may know it again.
    #[must_use]
    pub fn recorded(&self) -> Option<Recorded> {
        self.recorded.clone()
    }

    /// Ends it: SIGTERM to its group; SIGKILL to what is left when it has ended, or after the grace.
    pub async fn stop(mut self, ctx: &Ctx, grace: Duration) {
        self.signal(Signal::TERM);
        let begun = ctx.clock.monotonic();
        while self.exit().is_none() && ctx.clock.monotonic().saturating_sub(begun) < grace {
            // The clock may be one that a test moves, so it is looked at again and again.
            drop(tokio::time::timeout(LOOK, self.exit.changed()).await);
        }
        if self.exit().is_none() {
            tracing::warn!(
                pid = self.group.map(Pid::as_raw_nonzero),
                "a service's process didn't end in time: it is killed"
            );
            self.signal(Signal::KILL);
            drop(tokio::time::timeout(KILLED, self.exit.wait_for(Option::is_some)).await);
        }
    }

    fn signal(&self, signal: Signal) {
        // An id that has been waited for may be another's by now.
        if self.exit().is_none()
            && let Some(group) = self.group
        {
            send(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Waits for the end, which ends the rest of the group, too.
async fn wait(mut child: Child, group: Option<Pid>, told: watch::Sender<Option<String>>) {
    let how = match child.wait().await {
        Ok(status) => describe(status),
        Err(error) => format!("it can't be waited for: {}", error.kind()),
    };
    if let Some(group) = group {
        send(group, Signal::KILL);
    }
    told.send_replace(Some(how));
}

/// The command of a line, that is `None` without a program: no shell, no environment but the one that is named, a process
/// group of its own, nothing to read, and an end with whoever holds it.
pub(in crate::features::services) fn command(line: &CommandLine) -> Option<Command> {
    let (program, arguments) = line.words.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    for name in &line.pass_environment {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for (name, value) in &line.environment {
        command.env(name, value.expose());
    }
    if let Some(directory) = &line.directory {
        command.current_dir(directory);
    }
    Some(command)
}

/// How a process ended, for people.
pub(in crate::features::services) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Kills what is left of the group of a process that is ours.
pub(in crate::features::services) fn kill_group(leader: Option<u32>) {
    if let Some(group) = group_of(leader) {
        send(group, Signal::KILL);
    }
}

fn group_of(leader: Option<u32>) -> Option<Pid> {
    // Never 0 or 1: those would be signals to others.
    leader.and_then(|id| i32::try_from(id).ok()).filter(|id| *id > 1).and_then(Pid::from_raw)
}

fn send(group: Pid, signal: Signal) {
    // Gone already, as a rule.
    let _ = kill_process_group(group, signal);
}

/// Ends a process that somebody before us has left behind: a Keyward that was killed. Only one that is certainly the same.
pub(super) async fn end_left(ctx: &Ctx, name: &ServiceName, left: &Recorded, grace: Duration) {
    let Some(group) = Pid::from_raw(left.pid).filter(|_| left.pid > 1) else { return };
    let is_there = || record(group).as_ref() == Some(left);
    if !is_there() {
        return;
    }
    tracing::warn!(service = %name, pid = left.pid, "a process that an earlier Keyward left behind is ended");
    send(group, Signal::TERM);
    let begun = ctx.clock.monotonic();
    while is_there() && ctx.clock.monotonic().saturating_sub(begun) < grace {
        tokio::time::sleep(LOOK).await;
    }
    if is_there() || test_kill_process_group(group).is_ok() {
        send(group, Signal::KILL);
    }
    for _ in 0..KILLED.as_millis() / LOOK.as_millis() {
        if !is_there() {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What tells a process from every other, where the system says so (Linux): the machine's present run and its space of ids,
/// the id, and when it was started. A process that has ended, and that nobody has waited for yet, is none.
fn record(pid: Pid) -> Option<Recorded> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let pid = pid.as_raw_nonzero().get();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(Recorded { machine: format!("{} {}", boot.trim(), space.display()), pid, started: started(&stat)? })
}

/// The 22nd field of `/proc/<pid>/stat` (`proc_pid_stat(5)`); the second one holds the name, in which anything may stand.
fn started(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::started;

    #[test]
    fn the_start_is_read_whatever_the_name() {
        let stat = |name: &str, state: &str| {
            format!("42 ({name}) {state} 1 42 42 0 -1 4194560 100 0 0 0 0 0 0 0 20 0 1 0 987654 1000 10")
        };
        assert_eq!(started(&stat("sleep", "S")), Some(987_654));
        assert_eq!(started(&stat("a) R 7 (b", "R")), Some(987_654));
        assert_eq!(started(&stat("sleep", "Z")), None);
        assert_eq!(started(""), None);
    }
}
