//! What can be wrong with a SQLite file, at start and while serving: a clear error or a `503`, never a panic, never half a
//! change.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::postgres::is_root;
use crate::harness::program::{Beside, Program, keyward};
use crate::harness::{Answer, Call, PASSWORD};

/// `serve` must refuse; gives its complaint.
fn refused(dir: &Path, command: Command) -> String {
    let mut program = Program::launch(dir, command);
    let status = program.wait(Duration::from_secs(12));
    let log = program.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    let last = log.lines().last().unwrap().to_owned();
    assert!(last.starts_with("keyward: "), "{last}");
    last
}

fn serve(dir: &Path, url: &str) -> Command {
    let mut command = keyward(dir);
    command.arg("serve").env("DATABASE_URL", url);
    command
}

/// As somebody for whom modes count: root ignores them.
fn serve_unprivileged(dir: &Path, url: &str) -> Command {
    if !is_root() {
        return serve(dir, url);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(env!("CARGO_BIN_EXE_keyward"))
        .arg("serve")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("DATABASE_URL", url)
        .current_dir(dir);
    command
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A file with the schema, folded into one.
async fn existing(dir: &Path) {
    let mut program = Program::start(dir, &[]).await;
    assert_eq!(program.stop(), Some(0));
    std::fs::remove_file(&program.log).unwrap();
}

#[tokio::test]
async fn a_place_that_can_not_hold_a_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let said = refused(dir.path(), serve(dir.path(), "sqlite://missing/keyward.db"));
    assert!(said.contains("missing/keyward.db: No such file or directory"), "{said}");
    let said = refused(dir.path(), serve(dir.path(), "sqlite://."));
    assert!(said.contains("directory"), "{said}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = "This is somebody's diary, and not a database. ".repeat(200);
    std::fs::write(dir.path().join("diary"), &garbage).unwrap();
    let said = refused(dir.path(), serve(dir.path(), "sqlite://diary"));
    assert!(said.contains("diary: it isn't a SQLite database"), "{said}");
    assert_eq!(std::fs::read_to_string(dir.path().join("diary")).unwrap(), garbage);
}

#[tokio::test]
async fn what_may_not_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    // The log is opened by the test; the database's own directory takes nothing new.
    mode(dir.path(), 0o755);
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    mode(&data, 0o555);
    let said = refused(dir.path(), serve_unprivileged(dir.path(), "sqlite://data/keyward.db"));
    assert!(said.contains("data/keyward.db: Permission denied"), "{said}");

    // Now a file that is there, first in a directory that takes nothing, then in one that does.
    mode(&data, 0o777);
    existing(&data).await;
    for (directory, file) in [(0o555, 0o444), (0o777, 0o444)] {
        mode(&data.join("keyward.db"), file);
        mode(&data, directory);
        let said = refused(dir.path(), serve_unprivileged(dir.path(), "sqlite://data/keyward.db"));
        assert!(said.contains("data/keyward.db: Permission denied"), "{said}");
    }

    // The file may be written, but not the log that must stand beside it.
    mode(&data.join("keyward.db"), 0o666);
    mode(&data, 0o555);
    let said = refused(dir.path(), serve_unprivileged(dir.path(), "sqlite://data/keyward.db"));
    assert!(said.contains("data/keyward.db") || said.contains("read-only") || said.contains("readonly"), "{said}");
    mode(&data, 0o755);
}

#[tokio::test]
async fn a_file_that_another_process_holds_is_an_error_soon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keyward.db");
    existing(dir.path()).await;
    let fresh = dir.path().join("fresh.db");
    std::fs::write(&fresh, "").unwrap();
    for path in [&path, &fresh] {
        let url = format!("sqlite://{}", path.display());
        let mut other = Beside::open(&url).await;
        other.execute("CREATE TABLE IF NOT EXISTS other (x)").await;
        other.execute("BEGIN EXCLUSIVE").await;
        let started = Instant::now();
        let said = refused(dir.path(), serve(dir.path(), &url));
        assert!(said.contains("locked by another process"), "{said}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        other.execute("ROLLBACK").await;
        let mut program = Program::start(dir.path(), &[("DATABASE_URL", &url)]).await;
        assert_eq!(program.stop(), Some(0));
    }
}

#[tokio::test]
async fn a_newer_schema_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    existing(dir.path()).await;
    let mut beside = Beside::open(&format!("sqlite://{}", dir.path().join("keyward.db").display())).await;
    beside
        .execute("INSERT INTO _sqlx_migrations VALUES (9999, 'from the future', CURRENT_TIMESTAMP, 1, x'00', 1)")
        .await;
    drop(beside);
    for migrate in ["true", "false"] {
        let mut command = serve(dir.path(), "sqlite://keyward.db");
        command.env("KEYWARD_MIGRATE_ON_START", migrate);
        let said = refused(dir.path(), command);
        assert!(said.contains("version 9999") && said.contains("newer than this binary"), "{said}");
    }
}

/// The writes that a person and a key can ask for.
async fn writes(program: &Program, token: &str, id: &str) -> Vec<Answer> {
    let register = json!({"username": "bob", "password": PASSWORD});
    let patch = program.http.patch(format!("{}/v1/keys/{id}", program.url)).bearer_auth(token);
    let calls = [
        program.post("/generate-key").token(token),
        program.post("/register").json(&register),
        program.post(&format!("/v1/keys/{id}/disable")).token(token),
        Call(patch).json(&json!({"name": "new name"})),
    ];
    futures_util::future::join_all(calls.into_iter().map(Call::send)).await
}

#[track_caller]
fn all_unavailable(answers: &[Answer]) {
    for answer in answers {
        answer.problem(503, "storage_unavailable");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    }
}

#[tokio::test]
async fn while_another_process_holds_the_lock_reads_work_and_writes_wait_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[]).await;
    let token = program.person("ada").await;
    let made = program.generate(&token).await;
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let mut other = Beside::open(&format!("sqlite://{}", dir.path().join("keyward.db").display())).await;
    other.execute("BEGIN EXCLUSIVE").await;

    let started = Instant::now();
    let reads = async {
        assert_eq!(program.verify(&token, key).await, "VALID");
        assert_eq!(program.get("/list-keys").token(&token).send().await.expect(200).json()["keys"][0]["id"], id);
        program.get("/v1/keys/self").api_key(key).send().await.expect(200);
        program.get("/health/ready").send().await.expect(200);
        started.elapsed()
    };
    let (answers, read) = tokio::join!(writes(&program, &token, id), reads);
    all_unavailable(&answers);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert!(read < Duration::from_secs(1), "{read:?}");

    other.execute("ROLLBACK").await;
    for answer in writes(&program, &token, id).await {
        assert!(answer.status < 300, "{}", answer.text());
    }
    assert_eq!(program.verify(&token, key).await, "DISABLED");
    assert_eq!(other.count("SELECT count(*) FROM api_keys").await, 2);
    // The use that couldn't be written while the file was locked.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(other.count("SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL").await, 1);
}

/// Runs `serve` with room for files of this size. A disk that is full sends no signal, so the limit's own is ignored.
fn serve_within(dir: &Path, bytes: &str) -> Command {
    let mut command = Command::new("sh");
    let script =
        format!("trap '' XFSZ; exec prlimit --fsize={bytes}:unlimited {} serve \"$@\"", env!("CARGO_BIN_EXE_keyward"));
    command.args(["-c", &script, "keyward"]).env_clear().current_dir(dir);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("KEYWARD_KEYS_PER_USER_PER_DAY", "0");
    command
}

/// The largest file that a process may write from now on: what a full disk is to it.
fn largest_file(program: &Program, bytes: &str) {
    let limit = format!("--fsize={bytes}:unlimited");
    let status = Command::new("prlimit").args(["--pid", &program.child.id().to_string(), &limit]).status();
    assert!(status.unwrap().success());
}

const WRITTEN: [&str; 7] = ["users", "projects", "api_keys", "key_secrets", "key_creations", "audit_entries", "events"];

async fn rows(beside: &mut Beside) -> Vec<i64> {
    let mut rows = Vec::new();
    for table in WRITTEN {
        rows.push(beside.count(&format!("SELECT count(*) FROM {table}")).await);
    }
    rows
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_keeps_what_is_there_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::launch(dir.path(), serve_within(dir.path(), "unlimited")).up().await;
    let token = program.person("ada").await;
    let made = program.generate(&token).await;
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let mut beside = Beside::open(&format!("sqlite://{}", dir.path().join("keyward.db").display())).await;

    // Room for some more, so that the end comes in the middle of a change.
    let wal = std::fs::metadata(dir.path().join("keyward.db-wal")).unwrap().len();
    largest_file(&program, &(wal + 300_000).to_string());
    let mut acknowledged = 0;
    let refused = loop {
        let answer = program.post("/generate-key").token(&token).send().await;
        if answer.status != 201 {
            break answer;
        }
        acknowledged += 1;
        assert!(acknowledged < 500, "the disk never became full");
    };
    assert_eq!(refused.status, 503, "{}", program.log());
    assert!(acknowledged > 0);
    // Now there is no room even for a small change.
    largest_file(&program, &wal.to_string());
    let before = rows(&mut beside).await;
    assert_eq!(before[2], 1 + acknowledged);
    all_unavailable(&writes(&program, &token, id).await);
    all_unavailable(&writes(&program, &token, id).await);
    assert_eq!(program.verify(&token, key).await, "VALID");
    program.get("/health/live").send().await.expect(200);
    assert_eq!(rows(&mut beside).await, before);
    assert_eq!(beside.text("PRAGMA integrity_check").await, "ok");

    largest_file(&program, "unlimited");
    for answer in writes(&program, &token, id).await {
        assert!(answer.status < 300, "{}", answer.text());
    }
    for (table, column, action) in [
        ("key_secrets", "key_id", ""),
        ("events", "resource_id", "AND type = 'key.created'"),
        ("audit_entries", "resource_id", "AND action = 'key.create'"),
    ] {
        let sql = format!(
            "SELECT count(*) FROM api_keys k WHERE (SELECT count(*) FROM {table} WHERE {column} = k.id {action}) <> 1"
        );
        assert_eq!(beside.count(&sql).await, 0, "{table}");
    }
    assert_eq!(beside.text("PRAGMA integrity_check").await, "ok");
    assert!(!program.log().contains("panicked"));
    assert_eq!(program.stop(), Some(0));
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let command = serve_within(dir.path(), "20000");
    let said = refused(dir.path(), command);
    assert!(said.contains("can't") && (said.contains("disk") || said.contains("full")), "{said}");
    // With room again, it starts: nothing half done stood in the way.
    Program::start(dir.path(), &[]).await;
}

#[tokio::test]
async fn the_signal_of_a_file_size_limit_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[("KEYWARD_KEYS_PER_USER_PER_DAY", "0")]).await;
    let token = program.person("ada").await;
    largest_file(&program, "100000");
    let make = async || program.http.post(format!("{}/generate-key", program.url)).bearer_auth(&token).send().await;
    let answer = make().await;
    assert_eq!(answer.expect("an answer: was the process ended by SIGXFSZ?").status(), 503);
    largest_file(&program, "unlimited");
    program.generate(&token).await;
}

#[tokio::test]
async fn damaged_pages_are_a_problem_and_not_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keyward.db");
    let mut program = Program::start(dir.path(), &[]).await;
    let token = program.person("ada").await;
    let made = program.generate(&token).await;
    assert_eq!(program.stop(), Some(0));
    let mut beside = Beside::open(&format!("sqlite://{}", path.display())).await;
    let size = u64::try_from(beside.count("PRAGMA page_size").await).unwrap();
    let mut pages = Vec::new();
    for nth in 0..beside
        .count("SELECT count(*) FROM sqlite_schema WHERE tbl_name IN ('api_keys', 'key_secrets') AND rootpage > 0")
        .await
    {
        let sql = format!(
            "SELECT rootpage FROM sqlite_schema WHERE tbl_name IN ('api_keys', 'key_secrets') AND rootpage > 0 ORDER BY 1 LIMIT 1 OFFSET {nth}"
        );
        pages.push(u64::try_from(beside.count(&sql).await).unwrap());
    }
    drop(beside);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let garbage = vec![0xA5; usize::try_from(size).unwrap()];
    for page in pages {
        file.write_all_at(&garbage, (page - 1) * size).unwrap();
    }

    let program = Program::start(dir.path(), &[]).await;
    let key = made["key"].as_str().unwrap();
    let id = made["id"].as_str().unwrap();
    for call in [
        program.post("/v1/keys/verify").token(&token).json(&json!({"key": key})),
        program.get("/list-keys").token(&token),
        program.get("/v1/keys/self").api_key(key),
        program.post("/generate-key").token(&token),
        program.get(&format!("/v1/keys/{id}")).token(&token),
        program.post(&format!("/v1/keys/{id}/disable")).token(&token),
    ] {
        let answer = call.send().await;
        assert!(matches!(answer.status, 500 | 503), "{}: {}", answer.status, answer.text());
        let code = if answer.status == 500 { "internal" } else { "storage_unavailable" };
        let problem = answer.problem(answer.status, code);
        assert!(
            !answer.text().contains("malformed") && !problem["detail"].as_str().unwrap().contains("disk"),
            "{problem}"
        );
    }
    program.get("/health/live").send().await.expect(200);
    program.get("/v1/users/me").token(&token).send().await.expect(200);
    // The operator learns the cause.
    assert!(program.log().contains("malformed") && !program.log().contains("panicked"), "{}", program.log());
}

#[tokio::test]
async fn a_truncated_file_is_an_error_or_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    existing(dir.path()).await;
    let path = dir.path().join("keyward.db");
    let whole = std::fs::read(&path).unwrap();
    for length in [whole.len() / 2, 5000, 1000, 50] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let said = refused(dir.path(), serve(dir.path(), "sqlite://keyward.db"));
        assert!(said.contains("malformed") || said.contains("isn't a SQLite database"), "{length}: {said}");
        for extra in ["keyward.db-wal", "keyward.db-shm"] {
            let _ = std::fs::remove_file(dir.path().join(extra));
        }
    }
}
