//! `keyward doctor` and `keyward migrate`.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ended;
use crate::both_engines;
use crate::harness::postgres::{self, free_port};
use crate::harness::program::{Beside, Program, run};
use crate::harness::smtp::{LOGIN, MailServer};
use crate::harness::{AUDIT_SEED, Scratch};

/// Every finding, as check, verdict and detail; the exit status must fit them.
fn findings(dir: &Path, environment: &[(&str, &str)]) -> Vec<(String, String, String)> {
    let (port, metrics) = (free_port().to_string(), free_port().to_string());
    let mut all = vec![("KEYWARD_PORT", port.as_str()), ("KEYWARD_METRICS_PORT", metrics.as_str())];
    all.extend(environment);
    let output = run(dir, &all, &["doctor", "--format", "json"], "");
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let found: Vec<_> = found.iter().map(|f| (text(f, "check"), text(f, "verdict"), text(f, "detail"))).collect();
    ended(&output, i32::from(found.iter().any(|(_, verdict, _)| verdict == "failed")));
    found
}

#[track_caller]
fn has(found: &[(String, String, String)], check: &str, verdict: &str, detail: &str) {
    let fits = |f: &&(String, String, String)| f.0 == check && f.1 == verdict && f.2.contains(detail);
    assert!(found.iter().any(|f| fits(&f)), "no {check} {verdict} {detail:?} in {found:#?}");
}

both_engines! {
    async fn all_is_well(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        // On Postgres nothing is as good a place for it as the settings.
        let url = [("DATABASE_URL", scratch.url.as_str()), ("KEYWARD_SECRETS_KEY", AUDIT_SEED)];
        ended(&run(dir.path(), &url, &["migrate"], ""), 0);
        let found = findings(dir.path(), &url);
        for check in ["database", "schema", "clock", "port", "metrics port"] {
            has(&found, check, "ok", "");
        }
        assert!(found.iter().all(|(_, verdict, _)| verdict == "ok"), "{found:#?}");
        let (out, _) = ended(&run(dir.path(), &[url[0], url[1], ("KEYWARD_PORT", &free_port().to_string())], &["doctor"], ""), 0);
        assert!(out.contains("CHECK") && out.contains("schema"), "{out}");
    }

    async fn a_schema_that_is_behind_is_found_and_migrated(engine: Engine) {
        let scratch = match engine {
            crate::harness::Engine::Sqlite => Scratch::new(engine).await,
            crate::harness::Engine::Postgres => Scratch { url: postgres::shared().await.empty_database().await, dir: None },
        };
        let dir = tempfile::tempdir().unwrap();
        // A SQLite file must be there to be behind.
        if let Some(path) = scratch.url.strip_prefix("sqlite://") {
            std::fs::write(path, "").unwrap();
        }
        let url = ("DATABASE_URL", scratch.url.as_str());
        has(&findings(dir.path(), &[url]), "schema", "ok", "the next start does");
        let off = [url, ("KEYWARD_MIGRATE_ON_START", "false")];
        has(&findings(dir.path(), &off), "schema", "failed", "keyward migrate");
        for command in [&["serve", "--port", "0", "--metrics-port", "0"][..], &["users", "list"]] {
            let (_, said) = ended(&run(dir.path(), &off, command, ""), 1);
            assert!(said.contains("older than this binary") && said.contains("keyward migrate"), "{said}");
        }
        let (said, _) = ended(&run(dir.path(), &off, &["migrate"], ""), 0);
        assert!(said.starts_with("applied "), "{said}");
        let (said, _) = ended(&run(dir.path(), &off, &["migrate"], ""), 0);
        assert_eq!(said, "the schema is up to date\n");
        has(&findings(dir.path(), &off), "schema", "ok", "version");
        Program::start(dir.path(), &off).await;
    }

    async fn a_newer_or_edited_schema_is_found(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let url = [("DATABASE_URL", scratch.url.as_str())];
        ended(&run(dir.path(), &url, &["migrate"], ""), 0);
        let mut beside = Beside::open(&scratch.url).await;
        beside.execute("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) SELECT 9999, description, success, checksum, 1 FROM _sqlx_migrations WHERE version = 1").await;
        has(&findings(dir.path(), &url), "schema", "failed", "9999");
        for command in [&["migrate"][..], &["users", "list"]] {
            let (_, said) = ended(&run(dir.path(), &url, command, ""), 1);
            assert!(said.contains("9999") && said.contains("newer"), "{said}");
        }
        beside.execute("UPDATE _sqlx_migrations SET version = 1, checksum = checksum WHERE version = 1").await;
        beside.execute("DELETE FROM _sqlx_migrations WHERE version = 9999").await;
        beside.execute(if scratch.dir.is_some() { "UPDATE _sqlx_migrations SET checksum = x'00'" } else { "UPDATE _sqlx_migrations SET checksum = '\\x00'" }).await;
        has(&findings(dir.path(), &url), "schema", "failed", "changed");
        let (_, said) = ended(&run(dir.path(), &url, &["migrate"], ""), 1);
        assert!(said.contains("changed"), "{said}");
    }
}

#[test]
fn before_the_first_start_all_is_well_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    has(&findings(dir.path(), &[]), "database", "ok", "first start");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_database_that_can_not_be_had_fails() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = format!("postgres://ada:hunter2@127.0.0.1:{}/keyward", free_port());
    let started = Instant::now();
    let found = findings(dir.path(), &[("DATABASE_URL", &nowhere)]);
    assert!(started.elapsed() < Duration::from_secs(10));
    has(&found, "database", "failed", "Postgres didn't answer");
    assert!(!format!("{found:?}").contains("hunter2"));
    std::fs::write(dir.path().join("diary"), "dear diary, ".repeat(1000)).unwrap();
    has(&findings(dir.path(), &[("DATABASE_URL", "sqlite://diary")]), "database", "failed", "isn't a SQLite database");
    let (_, said) =
        ended(&run(dir.path(), &[("DATABASE_URL", "sqlite://diary"), ("KEYWARD_PORT", "0")], &["doctor"], ""), 1);
    assert!(said.contains("some checks failed"), "{said}");
    let short = [("DATABASE_URL", nowhere.as_str()), ("KEYWARD_DATABASE_START_TIMEOUT", "0")];
    for command in [&["migrate"][..], &["users", "list"], &["keys", "list", "--system"]] {
        let (out, said) = ended(&run(dir.path(), &short, command, ""), 1);
        assert!(said.contains("Postgres didn't answer") && !said.contains("hunter2"), "{said}");
        assert_eq!(out, "");
    }
}

#[test]
fn a_taken_port_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let held = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let listener = TcpListener::bind(format!("127.0.0.1:{held}")).unwrap();
    has(&findings(dir.path(), &[("KEYWARD_PORT", &held)]), "port", "warning", &held);
    has(&findings(dir.path(), &[("KEYWARD_METRICS_PORT", &held)]), "metrics port", "warning", &held);
    drop(listener);
}

#[tokio::test]
async fn what_is_unsafe_in_production_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    for (environment, detail) in [
        (&[("KEYWARD_HOST", "0.0.0.0")][..], "KEYWARD_REGISTRATION"),
        (&[("KEYWARD_HOST", "0.0.0.0")], "KEYWARD_METRICS_HOST"),
        (&[("KEYWARD_AUTH_RATE_PER_MINUTE", "0")], "KEYWARD_AUTH_RATE_PER_MINUTE"),
        (&[("KEYWARD_TRUSTED_PROXIES", "10.0.0.0/8,0.0.0.0/0")], "KEYWARD_TRUSTED_PROXIES"),
        (&[("KEYWARD_OUTBOUND_ALLOW", "10.0.0.0/8,::/0")], "KEYWARD_OUTBOUND_ALLOW"),
        (&[("KEYWARD_CORS_ORIGINS", "http://example.com")], "KEYWARD_CORS_ORIGINS"),
        (&[("KEYWARD_LOG", "trace")], "KEYWARD_LOG"),
        (&[("KEYWARD_ADMIN_USERNAME", "ada"), ("KEYWARD_ADMIN_PASSWORD", "hunter2hunter2")], "KEYWARD_ADMIN_PASSWORD"),
    ] {
        let found = findings(dir.path(), environment);
        has(&found, "settings", "warning", detail);
        assert!(!format!("{found:?}").contains("hunter2"));
    }
    let path = dir.path().join("keyward.db");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    has(&findings(dir.path(), &[]), "settings", "warning", "chmod 600");
}

#[tokio::test]
async fn the_mail_server_is_asked_whether_it_lets_us_in() {
    let server = MailServer::start("starttls", true, &[]).await;
    let dir = tempfile::tempdir().unwrap();
    let port = server.port.to_string();
    let with = |more: &[(&'static str, &str)]| {
        let mut all = vec![
            ("KEYWARD_SMTP_HOST", "localhost"),
            ("KEYWARD_SMTP_PORT", port.as_str()),
            ("KEYWARD_SMTP_FROM", "keyward@auth.example"),
            ("KEYWARD_SMTP_CA_FILE", server.certificate.to_str().unwrap()),
            ("KEYWARD_SMTP_USERNAME", LOGIN.0),
            ("KEYWARD_SMTP_PASSWORD", LOGIN.1),
            ("KEYWARD_MAIL_RECIPIENTS", "@corp.example"),
        ];
        all.extend(more);
        findings(dir.path(), &all)
    };
    has(&with(&[]), "mail", "ok", "lets us in");
    has(&with(&[("KEYWARD_MAIL_RECIPIENTS", "")]), "mail", "warning", "KEYWARD_MAIL_RECIPIENTS");
    has(&with(&[("KEYWARD_SMTP_PASSWORD", "hunter2")]), "mail", "failed", "535");
    has(&with(&[("KEYWARD_SMTP_CA_FILE", "")]), "mail", "failed", "ertificate");
    has(&with(&[("KEYWARD_SMTP_TLS", "tls")]), "mail", "failed", "takes no mail");
    has(&with(&[("KEYWARD_SMTP_PORT", &free_port().to_string())]), "mail", "failed", "takes no mail");
    assert!(!server.was_given_mail());
    assert!(!findings(dir.path(), &[]).iter().any(|(check, _, _)| check == "mail"));
    let (shown, _) = ended(
        &run(
            dir.path(),
            &[
                ("KEYWARD_SMTP_HOST", "localhost"),
                ("KEYWARD_SMTP_FROM", "a@b.example"),
                ("KEYWARD_SMTP_USERNAME", "me"),
                ("KEYWARD_SMTP_PASSWORD", "hunter2"),
            ],
            &["config"],
            "",
        ),
        0,
    );
    assert!(shown.contains("smtp_password") && !shown.contains("hunter2"), "{shown}");
}
