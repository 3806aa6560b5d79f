//! The start of `keyward serve`: what it says, what it needs, whom it waits for, and what it refuses.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ended, stderr};
use crate::both_engines;
use crate::harness::postgres::{self, Postgres, free_port};
use crate::harness::program::{Beside, Program, keyward, run};
use crate::harness::{AUDIT_SEED, PASSWORD, Scratch};

/// Makes the call that `curl --json 'BODY' URL` would make; it must register somebody.
async fn make_first_call(program: &Program, line: &str) {
    let body = line.split('\'').nth(1).unwrap();
    let url = line.rsplit(' ').next().unwrap();
    assert_eq!((line.split('\'').next().unwrap(), url), ("curl --json ", format!("{}/register", program.url).as_str()));
    let call = program.http.post(url).header("content-type", "application/json").body(body.to_owned());
    assert_eq!(call.send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn nothing_needs_to_be_configured() {
    let dir = tempfile::tempdir().unwrap();
    // No command either.
    let program = Program::launch(dir.path(), keyward(dir.path())).up().await;
    program.get("/health/ready").send().await.expect(200);
    let token = program.person("ada").await;
    program.generate(&token).await;
    for name in ["keyward.db", "keyward.db-wal", "keyward.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn the_first_lines_say_how_to_make_the_first_call() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[("KEYWARD_LOG_FORMAT", "pretty")]).await;
    let log = program.log();
    let lines: Vec<_> = log.lines().take(3).collect();
    assert!(lines[0].contains(&program.url) && lines[0].contains("sqlite") && lines[0].contains(&program.metrics_url));
    make_first_call(&program, lines[1].strip_prefix("First call:").unwrap().trim()).await;
    let docs = lines[2].split_whitespace().find(|word| word.starts_with("http")).unwrap();
    let docs = program.http.get(format!("{docs}/")).send().await.unwrap();
    assert_eq!(docs.status(), 200);
}

both_engines! {
    async fn the_first_line_says_so_in_json_too(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let program = Program::start(dir.path(), &[("DATABASE_URL", &scratch.url), ("KEYWARD_LOG_FORMAT", "json"), ("KEYWARD_SECRETS_KEY", AUDIT_SEED)]).await;
        let first = program.lines()[0].clone();
        assert_eq!((&first["message"], &first["url"]), (&json!("serving"), &json!(program.url)));
        make_first_call(&program, first["first_call"].as_str().unwrap()).await;
    }
}

#[test]
fn a_taken_port_is_said_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let (held_port, free) = (held.local_addr().unwrap().port().to_string(), free_port().to_string());
    for (arguments, what) in [
        (["--port", &held_port, "--metrics-port", &free], "the service"),
        (["--port", &free, "--metrics-port", &held_port], "/metrics"),
    ] {
        let (_, said) = ended(&run(dir.path(), &[], &arguments, ""), 1);
        assert!(
            said.contains(&format!("127.0.0.1:{held_port}")) && said.contains(what) && said.contains("in use"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn settings_without_effect_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let set = [
        ("REDIS_URL", "redis://:hunter2hunter2@127.0.0.1/"),
        // This one has an effect.
        ("KEYWARD_OUTBOUND_ALLOW", "10.0.0.0/8"),
    ];
    let program = Program::start(dir.path(), &set).await;
    let warned: Vec<Value> =
        program.lines().iter().filter(|line| line["level"] == "WARN").map(|line| line["setting"].clone()).collect();
    assert_eq!(warned, ["redis_url"]);
    assert!(!program.log().contains("hunter2"));
}

both_engines! {
    async fn the_configured_administrator_is_made_once(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        // The second start finds them there, and leaves their password alone.
        for first_password in [PASSWORD, "another good passphrase"] {
            let admin = [("DATABASE_URL", scratch.url.as_str()), ("KEYWARD_ADMIN_USERNAME", "root-ada"), ("KEYWARD_ADMIN_PASSWORD", first_password)];
            let mut program = Program::start(dir.path(), &admin).await;
            let token = program.login("root-ada", PASSWORD).await;
            let me = program.get("/v1/users/me").token(&token).send().await.expect(200).json();
            assert_eq!(me["is_admin"], true);
            assert_eq!(program.stop(), Some(0));
        }
        let mut beside = Beside::open(&scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM users").await, 1);
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE action = 'user.create'").await, 1);
    }
}

#[test]
fn an_administrator_with_a_bad_password_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (port, metrics) = (free_port().to_string(), free_port().to_string());
    let admin = [("KEYWARD_ADMIN_USERNAME", "root-ada"), ("KEYWARD_ADMIN_PASSWORD", "pass123")];
    let (out, said) = ended(&run(dir.path(), &admin, &["--port", &port, "--metrics-port", &metrics], ""), 1);
    assert!(said.contains("8 to 256 characters"), "{said}");
    assert!(!said.contains("pass123") && !out.contains("pass123"));
}

#[tokio::test]
async fn replicas_may_all_start_at_once_on_an_empty_postgres() {
    let url = postgres::shared().await.empty_database().await;
    let admin =
        [("DATABASE_URL", url.as_str()), ("KEYWARD_ADMIN_USERNAME", "root-ada"), ("KEYWARD_ADMIN_PASSWORD", PASSWORD)];
    let dirs: Vec<_> = (0..5).map(|_| tempfile::tempdir().unwrap()).collect();
    let programs: Vec<_> = dirs.iter().map(|dir| Program::spawn(dir.path(), &admin)).collect();
    let programs = futures_util::future::join_all(programs.into_iter().map(Program::up)).await;
    let token = programs[0].login("root-ada", PASSWORD).await;
    for program in &programs {
        program.get("/health/ready").send().await.expect(200);
        program.get("/v1/users/me").token(&token).send().await.expect(200);
    }
    let mut beside = Beside::open(&url).await;
    assert_eq!(beside.count("SELECT count(*) FROM projects WHERE kind = 'system'").await, 1);
    assert_eq!(beside.count("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn a_sqlite_file_may_be_started_on_twice_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let programs: Vec<_> = (0..3).map(|_| Program::spawn(dir.path(), &[])).collect();
    for program in futures_util::future::join_all(programs.into_iter().map(Program::up)).await {
        program.get("/health/ready").send().await.expect(200);
    }
}

#[tokio::test]
async fn the_start_waits_for_postgres() {
    let postgres = Postgres::start().await;
    let url = postgres.database().await;
    postgres.stop();
    let dir = tempfile::tempdir().unwrap();
    let program = Program::spawn(dir.path(), &[("DATABASE_URL", &url)]);
    let started = Instant::now();
    while !program.log().contains("waiting for Postgres") {
        assert!(started.elapsed() < Duration::from_secs(5), "{}", program.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Meanwhile another one is told to stop, and does.
    let other = tempfile::tempdir().unwrap();
    let mut impatient = Program::spawn(other.path(), &[("DATABASE_URL", &url)]);
    while !impatient.log().contains("waiting for Postgres") {
        assert!(started.elapsed() < Duration::from_secs(5), "{}", impatient.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(impatient.stop(), Some(0));

    postgres.start_again().await;
    let back = Instant::now();
    let program = program.up().await;
    program.get("/health/ready").send().await.expect(200);
    assert!(back.elapsed() < Duration::from_secs(4), "{:?}", back.elapsed());
}

/// `serve` on a Postgres that can't be had: its complaint, and how long it took.
fn refused(dir: &Path, url: &str, patience: &str) -> (String, Duration) {
    let started = Instant::now();
    let (port, metrics) = (free_port().to_string(), free_port().to_string());
    let environment = [("DATABASE_URL", url), ("KEYWARD_DATABASE_START_TIMEOUT", patience)];
    let output = run(dir, &environment, &["--port", &port, "--metrics-port", &metrics], "");
    let (out, said) = ended(&output, 1);
    assert!(!out.contains("hunter2") && !said.contains("hunter2"), "{out}{said}");
    let last = stderr(&output).lines().last().unwrap().to_owned();
    (last, started.elapsed())
}

#[tokio::test]
async fn a_postgres_that_never_comes_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (said, took) = refused(dir.path(), &format!("postgres://ada:hunter2@127.0.0.1:{}/keyward", free_port()), "1s");
    assert!(said.contains("Postgres didn't answer within 1 s"), "{said}");
    assert!((Duration::from_millis(900)..Duration::from_secs(4)).contains(&took), "{took:?}");
    // One that accepts, and then says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (said, took) =
        refused(dir.path(), &format!("postgres://ada:hunter2@{}/keyward", silent.local_addr().unwrap()), "1s");
    assert!(said.contains("Postgres didn't answer within 1 s"), "{said}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn what_waiting_does_not_mend_is_an_error_at_once() {
    let postgres = Postgres::start().await;
    postgres.sql("CREATE ROLE guarded LOGIN PASSWORD 'the right one'").await;
    postgres.require_password("guarded").await;
    let dir = tempfile::tempdir().unwrap();
    let server = format!("127.0.0.1:{}", postgres.port);
    for (url, word) in [
        (format!("postgres://guarded:hunter2@{server}/postgres"), "password authentication failed"),
        (format!("postgres://guarded@{server}/postgres?password=hunter2"), "password authentication failed"),
        (format!("postgres://postgres:hunter2@{server}/nowhere"), "\"nowhere\" does not exist"),
        (format!("postgres://nobody:hunter2@{server}/postgres"), "\"nobody\" does not exist"),
    ] {
        let (said, took) = refused(dir.path(), &url, "30s");
        assert!(said.contains(word), "{said}");
        assert!(took < Duration::from_secs(3), "{took:?}: {said}");
    }
}
