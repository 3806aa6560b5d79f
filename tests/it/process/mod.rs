//! The real binary as a process.

mod access_log;
mod cli;
mod cli_alerts;
mod cli_audit;
mod cli_audit_list;
mod cli_keys;
mod cli_lifecycle;
mod cli_moving;
mod cli_projects;
mod cli_ratelimit;
mod cli_scopes;
mod cli_webhooks;
mod config;
mod crash;
mod desk;
mod doctor;
mod embed;
mod limits_flat_out;
mod limits_restart;
mod logs;
mod outage;
mod privacy;
mod services;
mod shutdown;
mod sqlite_faults;
mod start;
mod telemetry;
mod telemetry_outage;
mod usage;
mod webhooks_crash;
mod webhooks_verified;

use std::process::Output;

/// What a command wrote where its result goes.
fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command wrote where its complaints go.
fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The command ended with this status; gives both outputs.
#[track_caller]
fn ended(output: &Output, status: i32) -> (String, String) {
    let (out, err) = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(status), "stdout: {out}\nstderr: {err}");
    (out, err)
}
