//! A check that runs a program: good with status 0. In a group of its own, which ends with it or with its time.

use std::process::Stdio;
use std::time::Duration;

use crate::features::services::kinds::process::{command, describe, kill_group};
use crate::infra::config::CommandLine;

pub(super) async fn run(line: &CommandLine, most: Duration) -> Result<(), String> {
    let mut command = command(line).ok_or("there is nothing to run")?;
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("it can't be started: {}", error.kind()))?;
    let group = child.id();
    let waited = tokio::time::timeout(most, child.wait()).await;
    // What it has left behind, too.
    kill_group(group);
    match waited {
        Err(_) => Err("it took too long".to_owned()),
        Ok(Err(error)) => Err(error.kind().to_string()),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(describe(status)),
    }
}
