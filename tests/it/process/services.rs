//! Watched services of the real binary: the command line, the end of the program, and what one that was killed leaves behind.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ended, stdout};
use crate::both_engines;
use crate::harness::program::{Beside, Program, run};
use crate::harness::{AUDIT_SEED, Scratch};

const PATIENCE: Duration = Duration::from_secs(20);

/// The configuration file with a process that writes down its id and its environment.
fn file(dir: &Path, more: &str) -> String {
    let script = dir.join("run.sh");
    let text = "env > \"$1/environment\"\necho \"says hello\"\necho $$ >> \"$1/runs\"\nexec sleep 1000\n";
    std::fs::write(&script, text).unwrap();
    let path = dir.join("keyward.toml");
    let text = format!(
        "[[services]]\nname = \"worker\"\nkind = \"process\"\nstart_period = 0\ncommand = [\"/bin/sh\", \"{}\", \"{}\"]\n\
         environment = {{ TOKEN = \"hunter2-own\" }}\n{more}\n",
        script.display(),
        dir.display(),
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn runs(dir: &Path) -> Vec<String> {
    std::fs::read_to_string(dir.join("runs")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn is_running(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not yet: {what}");
}

both_engines! {
    async fn the_process_comes_and_goes_with_the_program(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "");
        let environment = [
            ("DATABASE_URL", scratch.url.as_str()),
            ("KEYWARD_CONFIG", path.as_str()),
            ("KEYWARD_AUDIT_SIGNING_KEY", AUDIT_SEED),
            ("KEYWARD_LOG_FORMAT", "json"),
            ("SECRET_OF_OTHERS", "hunter2"),
        ];
        let cli = |arguments: &[&str]| run(dir.path(), &environment, arguments, "");
        let listed = || serde_json::from_str::<Value>(&ended(&cli(&["services", "list", "--format", "json"]), 0).0).unwrap()["data"][0].clone();
        let mut program = Program::start(dir.path(), &environment).await;
        until("it runs", || runs(dir.path()).len() == 1).await;
        until("it is up", || listed()["state"] == "up").await;
        let seen = std::fs::read_to_string(dir.path().join("environment")).unwrap();
        assert!(seen.contains("TOKEN=hunter2-own"), "{seen}");
        for other in ["DATABASE_URL", "KEYWARD_", "SECRET_OF_OTHERS"] {
            assert!(!seen.contains(other), "{seen}");
        }
        until("what it says is logged", || program.log().contains("says hello")).await;
        let said = program.lines().into_iter().find(|line| line.to_string().contains("says hello")).unwrap().to_string();
        assert!(said.contains("\"worker\"") && said.contains("\"stdout\""), "{said}");

        let table = stdout(&cli(&["services", "list"]));
        assert!(table.contains("worker") && table.contains("process") && table.contains("up"), "{table}");
        let (out, _) = ended(&cli(&["services", "restart", "worker", "--reason", "$(id)", "--format", "json"]), 0);
        let id = serde_json::from_str::<Value>(&out).unwrap()["operation_id"].as_str().unwrap().to_owned();
        until("it was restarted", || runs(dir.path()).len() == 2).await;
        until("its first run has ended", || !is_running(&runs(dir.path())[0])).await;
        until("it is up again", || listed()["state"] == "up").await;
        assert_eq!(listed()["restarts"], 1);
        let mut beside = Beside::open(&scratch.url).await;
        let row = beside.text(&format!("SELECT state || ' ' || reason || ' ' || requested_by FROM service_operations WHERE id = '{id}'")).await;
        assert_eq!(row, "succeeded $(id) system");
        let entry = "SELECT actor_name FROM audit_entries WHERE action = 'service.restart'";
        assert_eq!(beside.text(entry).await, "cli");
        let (_, err) = ended(&cli(&["services", "restart", "nobody"]), 1);
        assert!(err.contains("no such service"), "{err}");
        ended(&cli(&["services", "restart"]), 2);

        assert_eq!(program.stop(), Some(0));
        assert!(!is_running(&runs(dir.path())[1]));
        assert_eq!(listed()["is_watched"], json!(false));
        assert!(!program.log().contains("hunter2"), "{}", program.log());
    }

    async fn what_a_killed_program_left_is_ended_first(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "");
        let environment = [
            ("DATABASE_URL", scratch.url.as_str()),
            ("KEYWARD_CONFIG", path.as_str()),
            ("KEYWARD_AUDIT_SIGNING_KEY", AUDIT_SEED),
        ];
        let mut program = Program::start(dir.path(), &environment).await;
        let mut beside = Beside::open(&scratch.url).await;
        let known = "SELECT count(*) FROM services WHERE CAST(standing AS TEXT) LIKE '%\"state\":_\"up\"%' OR CAST(standing AS TEXT) LIKE '%\"state\":\"up\"%'";
        let known = known.replace(":_\"", ": \"");
        for _ in 0..1000 {
            if beside.count(&known).await == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = runs(dir.path()).remove(0);
        program.child.kill().unwrap();
        program.child.wait().unwrap();
        assert!(is_running(&left));
        // The lease would run out by itself, in real time.
        beside.execute("UPDATE services SET holder = NULL").await;
        drop(beside);
        let mut program = Program::start(dir.path(), &environment).await;
        until("it runs again", || runs(dir.path()).len() == 2).await;
        assert!(!is_running(&left));
        until("it says so", || program.log().contains("left behind")).await;
        assert_eq!(program.stop(), Some(0));
        assert!(!is_running(&runs(dir.path())[1]));
    }
}

#[test]
fn the_configuration_shows_services_without_their_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let hook = "[[services]]\nname = \"api\"\nkind = \"http\"\nurl = \"https://a.example/\"\nsecret = \"whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==\"\n\
        checks = [{ kind = \"tcp\", address = \"a:1\" }]";
    let path = file(dir.path(), hook);
    let (out, _) = ended(&run(dir.path(), &[], &["config", "--config", &path, "--format", "json"], ""), 0);
    let shown: Value = serde_json::from_str(&out).unwrap();
    for (key, value) in [
        ("services.worker.kind", "process"),
        ("services.worker.environment.TOKEN", "[secret]"),
        ("services.api.secret", "[secret]"),
        ("services.api.checks[0].address", "a:1"),
    ] {
        assert_eq!(shown[key], json!({"value": value, "source": format!("file {path}")}), "{key}");
    }
    assert!(!out.contains("hunter2") && !out.contains("aHVu"), "{out}");
    let path = file(dir.path(), "intervall = 3");
    let (_, err) = ended(&run(dir.path(), &[], &["serve", "--config", &path], ""), 2);
    assert!(err.contains("services[0].intervall"), "{err}");
}
