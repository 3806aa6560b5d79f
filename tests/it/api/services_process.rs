//! Processes that Keyward starts: real ones, which are killed, crash, take their time to end, and look around.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::services::{PATIENCE, events, history, kinds, operation, restarted, service, start, until_state};
use super::services_watch::is_running;
use super::support::{text, texts, until, until_metrics_say};
use crate::both_engines;
use crate::harness::{App, Session};

/// A process that runs a script of the test's, which finds the directory as `$0`.
fn process(dir: &Path, script: &str, more: &str) -> String {
    let path = dir.join("run.sh");
    std::fs::write(&path, script).unwrap();
    format!(
        "[[services]]\nname = \"worker\"\nkind = \"process\"\ncommand = [\"/bin/sh\", \"{}\", \"{}\"]\n{more}\n",
        path.display(),
        dir.display()
    )
}

/// The lines of a file that the script writes.
fn lines(dir: &Path, name: &str) -> Vec<String> {
    std::fs::read_to_string(dir.join(name)).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn kill(pid: &str, signal: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

async fn up(app: &App, root: &Session) {
    until_state(app, root, "worker", "up", Duration::ZERO).await;
}

const RUN: &str = "echo $$ >> \"$1/runs\"\nexec sleep 1000\n";

both_engines! {
    async fn one_that_is_killed_comes_back(engine: Engine) {
        let dir = tempfile::tempdir().unwrap();
        let (app, root) = start(engine, &process(dir.path(), RUN, "start_period = 0\nrestart = { backoff = 0, cooldown = 0 }")).await;
        up(&app, &root).await;
        let first = lines(dir.path(), "runs").remove(0);
        kill(&first, "-9");
        until(PATIENCE, 2, async || lines(dir.path(), "runs").len()).await;
        up(&app, &root).await;
        let second = lines(dir.path(), "runs").remove(1);
        assert!(!is_running(&first) && is_running(&second));
        let told = events(&app).await;
        let kinds: Vec<_> = told.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["service.down", "service.restarted", "service.recovered"]);
        assert_eq!(told[0].1, json!({
            "name": "worker", "kind": "process", "state": "down", "reason": "ended by signal 9", "operation_id": null, "failures": 0,
        }));
        let id = text(&told[1].1, "operation_id").to_owned();
        let done = operation(&app, &root, &id).await;
        assert_eq!((text(&done, "cause"), text(&done, "state"), text(&done, "requested_by")), ("policy", "succeeded", "system"));
        assert_eq!(text(&done, "reason"), "ended by signal 9");
        let trail = texts(&app, "SELECT actor_type || ' ' || actor_name || ' ' || resource_id FROM audit_entries WHERE action = 'service.restart'".to_owned()).await;
        assert_eq!(trail, ["system services worker"]);
        assert_eq!(history(&app, &root, "worker").await, ["starting", "up", "down", "restarting", "starting", "up"]);
        until_metrics_say(&app, "keyward_service_restarts_total{cause=\"policy\",service=\"worker\"} 1").await;
    }

    async fn one_that_crashes_at_once_is_backed_off_and_given_up(engine: Engine) {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo $$ >> \"$1/runs\"\nexit 3\n";
        let policy = "restart = { backoff = 10, backoff_max = 20, cooldown = 0, per_hour = 3 }";
        let (app, root) = start(engine, &process(dir.path(), script, policy)).await;
        let runs = || lines(dir.path(), "runs").len();
        for (run, wait) in [(1, 10), (2, 20), (3, 20)] {
            until_state(&app, &root, "worker", "down", Duration::ZERO).await;
            assert_eq!(runs(), run);
            // Just before the time nothing is begun: the next look at the clock is seen by the lease, which it renews.
            app.advance(Duration::from_secs(wait - 1));
            let now = app.ctx.now();
            until(PATIENCE, true, async || last_look(&app).await >= now.as_micros()).await;
            assert_eq!(runs(), run);
            app.advance(Duration::from_secs(1));
            until(PATIENCE, run + 1, async || runs()).await;
        }
        until_state(&app, &root, "worker", "failed", Duration::from_secs(1)).await;
        assert_eq!(runs(), 4);
        let told = events(&app).await;
        assert_eq!(kinds(&app).await, [
            "service.down", "service.restarted", "service.restarted", "service.restarted", "service.down",
        ]);
        assert_eq!((text(&told[4].1, "state"), text(&told[0].1, "reason")), ("failed", "ended with status 3"));
        // By hand, once more.
        assert_eq!(text(&restarted(&app, &root, "worker").await, "state"), "succeeded");
        until(PATIENCE, 5, async || runs()).await;
    }

    async fn one_that_ends_when_told_is_given_the_time(engine: Engine) {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap 'echo ended >> \"$1/said\"; exit 0' TERM\necho $$ >> \"$1/runs\"\nwhile :; do sleep 0.05; done\n";
        let (app, root) = start(engine, &process(dir.path(), script, "start_period = 0")).await;
        until(PATIENCE, 1, async || lines(dir.path(), "runs").len()).await;
        up(&app, &root).await;
        assert_eq!(text(&restarted(&app, &root, "worker").await, "state"), "succeeded");
        until(PATIENCE, 2, async || lines(dir.path(), "runs").len()).await;
        assert_eq!(lines(dir.path(), "said"), ["ended"]);
        assert!(!is_running(&lines(dir.path(), "runs")[0]));
        // The clock stood still: there was no need for the grace.
        assert_eq!(kinds(&app).await, ["service.restarted"]);
    }

    async fn one_that_does_not_end_is_killed_after_the_grace_with_its_children(engine: Engine) {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap '' TERM\nsh -c 'echo $$ >> \"$0/children\"; while :; do sleep 0.05; done' \"$1\" &\n\
            echo $$ >> \"$1/runs\"\nwhile :; do sleep 0.05; done\n";
        let (app, root) = start(engine, &process(dir.path(), script, "start_period = 0\nstop_grace = 30")).await;
        until(PATIENCE, 1, async || lines(dir.path(), "children").len()).await;
        up(&app, &root).await;
        let id = app.post("/v1/services/worker/restart").token(&root.token).send().await.expect(202).json();
        let id = text(&id, "operation_id").to_owned();
        let state = async || text(&operation(&app, &root, &id).await, "state").to_owned();
        until(PATIENCE, "running".to_owned(), state).await;
        app.advance(Duration::from_secs(29));
        let now = app.ctx.now();
        until(PATIENCE, true, async || last_look(&app).await >= now.as_micros()).await;
        assert!(is_running(&lines(dir.path(), "runs")[0]));
        assert_eq!(text(&service(&app, &root, "worker").await, "state"), "restarting");
        app.advance(Duration::from_secs(1));
        until(PATIENCE, "succeeded".to_owned(), state).await;
        until(PATIENCE, false, async || is_running(&lines(dir.path(), "runs")[0]) || is_running(&lines(dir.path(), "children")[0])).await;
        until(PATIENCE, 2, async || lines(dir.path(), "runs").len()).await;
        // At its end nobody waits for a clock that stands still.
        app.advance(Duration::from_hours(1));
    }

    async fn one_that_is_not_there_is_down(engine: Engine) {
        let services = "[[services]]\nname = \"worker\"\nkind = \"process\"\ncommand = [\"/nowhere/worker\", \"--token=hunter2\"]\nenvironment = { TOKEN = \"hunter2\" }";
        let (app, root) = start(engine, services).await;
        until_state(&app, &root, "worker", "down", Duration::ZERO).await;
        let standing = service(&app, &root, "worker").await;
        assert_eq!(text(&standing, "reason"), "it can't be started: entity not found");
        let failed = restarted(&app, &root, "worker").await;
        assert_eq!((text(&failed, "state"), text(&failed, "error")), ("failed", "it can't be started: entity not found"));
        for said in [standing, failed, json!(events(&app).await)] {
            assert!(!said.to_string().contains("hunter2"), "{said}");
        }
    }

    async fn its_environment_is_what_the_configuration_names(engine: Engine) {
        let dir = tempfile::tempdir().unwrap();
        let script = "env > \"$1/environment.tmp\"\npwd > \"$1/directory\"\nmv \"$1/environment.tmp\" \"$1/environment\"\nexec sleep 1000\n";
        let more = format!("directory = \"{}\"\nenvironment = {{ ONE = \"$(id) 1\" }}\npass_environment = [\"PATH\", \"NOT_SET_ANYWHERE\"]", dir.path().display());
        let (_app, _root) = start(engine, &process(dir.path(), script, &more)).await;
        until(PATIENCE, true, async || dir.path().join("environment").exists()).await;
        let mut found: Vec<_> = lines(dir.path(), "environment");
        // The shell's own.
        found.retain(|line| !["PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|start| line.starts_with(start)));
        found.sort();
        assert_eq!(found, ["ONE=$(id) 1".to_owned(), format!("PATH={}", std::env::var("PATH").unwrap())]);
        assert_eq!(lines(dir.path(), "directory"), [dir.path().canonicalize().unwrap().display().to_string()]);
    }

    async fn checks_of_a_process_count_as_well(engine: Engine) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("well"), "").unwrap();
        let more = format!(
            "start_period = 2\nrestart = {{ after = 2, backoff = 0, cooldown = 0 }}\n\
             checks = [{{ kind = \"command\", command = [\"/usr/bin/test\", \"-e\", \"{}\"], interval = 1, failures = 2 }}]",
            dir.path().join("well").display()
        );
        let (app, root) = start(engine, &process(dir.path(), RUN, &more)).await;
        up(&app, &root).await;
        let first = lines(dir.path(), "runs").remove(0);
        std::fs::remove_file(dir.path().join("well")).unwrap();
        until(PATIENCE, 2, async || { app.advance(Duration::from_secs(1)); lines(dir.path(), "runs").len() }).await;
        assert!(!is_running(&first));
        std::fs::write(dir.path().join("well"), "").unwrap();
        until_state(&app, &root, "worker", "up", Duration::from_secs(1)).await;
        assert_eq!(kinds(&app).await.last().map(String::as_str), Some("service.recovered"));
        assert!(service(&app, &root, "worker").await["checks"][0]["last"]["ok"] == Value::Bool(true));
    }
}

/// When the standing was written last: at every look five seconds after the one before.
async fn last_look(app: &App) -> i64 {
    let sql = match &app.ctx.db {
        keyward::infra::db::Db::Postgres(_) => {
            "SELECT CAST((extract(epoch FROM updated_at) * 1000000)::bigint AS TEXT) FROM services"
        }
        keyward::infra::db::Db::Sqlite(_) => "SELECT CAST(updated_at AS TEXT) FROM services",
    };
    texts(app, sql.to_owned()).await[0].parse().unwrap()
}
