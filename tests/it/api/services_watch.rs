//! Checks, the policy, and who watches: against a real listener, with the clock moved.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::services::{PATIENCE, Peer, SECRET, events, history, kinds, restarted, service, start, until_state};
use super::support::{ADMIN, admin, text, texts, until, until_metrics_say};
use crate::both_engines;
use crate::harness::{App, Engine, FILE, Scratch};
use keyward::server::Stop;

const SECOND: Duration = Duration::from_secs(1);

fn one(check: &str, more: &str) -> String {
    format!(
        "[[services]]\nname = \"web\"\nkind = \"watch\"\nstart_period = 0\nchecks = [{{ {check}, interval = 1, failures = 2 }}]\n{more}"
    )
}

fn with_policy(peer: &Peer, policy: &str) -> String {
    format!(
        "[[services]]\nname = \"api\"\nkind = \"http\"\nurl = \"{0}/restart\"\nsecret = \"{SECRET}\"\nstart_period = 0\nrestart = {{ {policy} }}\n\
         checks = [{{ name = \"page\", kind = \"http\", url = \"{0}/health\", interval = 1, failures = 2 }}]\n",
        peer.url
    )
}

/// What is said of the last check of the one service.
async fn detail(app: &App, root: &crate::harness::Session) -> String {
    service(app, root, "web").await["last_check"]["detail"].as_str().unwrap_or_default().to_owned()
}

both_engines! {
    async fn a_page_is_asked_for_its_status_and_what_it_says(engine: Engine) {
        let peer = Peer::open().await;
        let check = format!("kind = \"http\", url = \"{}/health\", body = \"is well\"", peer.url);
        let (app, root) = start(engine, &one(&check, "")).await;
        until_state(&app, &root, "web", "up", SECOND).await;
        // Nobody is told of the first time.
        assert!(events(&app).await.is_empty());
        peer.health.store(503, Ordering::SeqCst);
        until_state(&app, &root, "web", "down", SECOND).await;
        assert_eq!(detail(&app, &root).await, "status 503");
        let down = service(&app, &root, "web").await;
        assert!(down["failures"].as_u64().unwrap() >= 2, "{down}");
        assert_eq!(text(&down, "reason"), "check http-0: status 503");
        until_metrics_say(&app, "keyward_service_up{service=\"web\"} 0").await;
        // A good status with another text.
        peer.health.store(201, Ordering::SeqCst);
        until(PATIENCE, "the answer doesn't hold what it should".to_owned(), async || {
            app.advance(SECOND);
            detail(&app, &root).await
        }).await;
        peer.health.store(200, Ordering::SeqCst);
        until_state(&app, &root, "web", "up", SECOND).await;
        assert_eq!(kinds(&app).await, ["service.down", "service.recovered"]);
        let told = events(&app).await;
        assert_eq!(told[0].1, json!({
            "name": "web", "kind": "watch", "state": "down", "reason": "check http-0: status 503", "operation_id": null, "failures": 2,
        }));
        assert_eq!(told[1].1["state"], "up");
        assert_eq!(history(&app, &root, "web").await, ["up", "down", "up"]);
    }

    async fn statuses_are_the_operators_choice(engine: Engine) {
        let peer = Peer::open().await;
        peer.health.store(302, Ordering::SeqCst);
        let (app, root) = start(engine, &one(&format!("kind = \"http\", url = \"{}/health?a=b\", status = [302, 401]", peer.url), "")).await;
        until_state(&app, &root, "web", "up", SECOND).await;
        peer.health.store(200, Ordering::SeqCst);
        until_state(&app, &root, "web", "down", SECOND).await;
        assert_eq!(detail(&app, &root).await, "status 200");
    }

    async fn a_port_is_asked_for_a_connection(engine: Engine) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (app, root) = start(engine, &one(&format!("kind = \"tcp\", address = \"localhost:{}\"", address.port()), "")).await;
        until_state(&app, &root, "web", "up", SECOND).await;
        drop(listener);
        until_state(&app, &root, "web", "down", SECOND).await;
        assert_eq!(detail(&app, &root).await, "its host takes no connection");
        let _listener = tokio::net::TcpListener::bind(address).await.unwrap();
        until_state(&app, &root, "web", "up", SECOND).await;
    }

    async fn a_command_is_asked_for_its_status(engine: Engine) {
        let dir = tempfile::tempdir().unwrap();
        let flag = dir.path().join("is up; exit 0");
        std::fs::write(&flag, "").unwrap();
        let check = format!("kind = \"command\", command = [\"/bin/sh\", \"-c\", 'test -e \"$0\" || exit 7', \"{}\"]", flag.display());
        let (app, root) = start(engine, &one(&check, "")).await;
        until_state(&app, &root, "web", "up", SECOND).await;
        std::fs::remove_file(&flag).unwrap();
        until_state(&app, &root, "web", "down", SECOND).await;
        assert_eq!(detail(&app, &root).await, "ended with status 7");
    }

    async fn a_command_that_takes_too_long_is_ended_with_its_children(engine: Engine) {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = "sleep 1000 & echo $! >> \"$0\"; wait";
        let check = format!("kind = \"command\", command = [\"/bin/sh\", \"-c\", '{script}', \"{}\"], timeout = 1", pids.display());
        let (app, root) = start(engine, &one(&check, "")).await;
        until_state(&app, &root, "web", "down", SECOND).await;
        assert_eq!(detail(&app, &root).await, "it took too long");
        let first = std::fs::read_to_string(&pids).unwrap().lines().next().unwrap().to_owned();
        until(PATIENCE, false, async || is_running(&first)).await;
    }

    async fn the_policy_restarts_backs_off_and_gives_up(engine: Engine) {
        let peer = Peer::open().await;
        let (app, root) = start(engine, &with_policy(&peer, "after = 3, backoff = 2, cooldown = 0, per_hour = 3")).await;
        until_state(&app, &root, "api", "up", SECOND).await;
        peer.health.store(500, Ordering::SeqCst);
        // In steps of a second, and never past half an hour.
        until_state(&app, &root, "api", "failed", SECOND).await;
        let heard = peer.heard();
        assert_eq!(heard.len(), 3, "{heard:?}");
        assert!(heard.iter().all(|(_, body)| body.contains("\"cause\":\"policy\"")), "{heard:?}");
        let told = events(&app).await;
        let states: Vec<_> = told.iter().map(|(kind, data)| format!("{kind} {}", text(data, "state"))).collect();
        assert_eq!(states, [
            "service.down down", "service.restarted starting", "service.restarted starting", "service.restarted starting", "service.down failed",
        ]);
        assert!(text(&told[4].1, "reason").starts_with("restarted 3 times within an hour"), "{told:?}");
        until_metrics_say(&app, "keyward_service_failed{service=\"api\"} 1").await;
        until_metrics_say(&app, "keyward_service_restarts_total{cause=\"policy\",service=\"api\"} 3").await;
        // The waits double: between the beginnings of the restarts lie 3 failures and 2, 4, 8 seconds at least.
        let begun = texts(&app, "SELECT CAST(id AS TEXT) FROM service_operations WHERE cause = 'policy' AND state = 'succeeded' ORDER BY requested_at".to_owned()).await;
        assert_eq!(begun.len(), 3);
        let trail = texts(&app, "SELECT actor_type || ' ' || actor_name || ' ' || resource_id FROM audit_entries WHERE action = 'service.restart'".to_owned()).await;
        assert_eq!(trail, ["system services api"; 3]);
        // Nobody restarts it any more, however long it takes.
        for _ in 0..4 {
            app.advance(Duration::from_mins(30));
            until(PATIENCE, true, async || service(&app, &root, "api").await["is_watched"].as_bool().unwrap()).await;
        }
        assert_eq!((peer.heard().len(), text(&service(&app, &root, "api").await, "state")), (3, "failed"));
        // But by hand, and it is well again.
        peer.health.store(200, Ordering::SeqCst);
        restarted(&app, &root, "api").await;
        until_state(&app, &root, "api", "up", SECOND).await;
        assert_eq!(kinds(&app).await[5..], ["service.restarted", "service.recovered"]);
        until_metrics_say(&app, "keyward_service_failed{service=\"api\"} 0").await;
        // Everything that was told is in the one order for all.
        until(PATIENCE, 0, async || app.count("SELECT count(*) FROM events WHERE place IS NULL").await).await;
    }

    async fn what_cannot_be_written_is_not_done_and_not_lost(engine: Engine) {
        let peer = Peer::open().await;
        let (app, root) = start(engine, &with_policy(&peer, "after = 2, backoff = 0, cooldown = 0")).await;
        until_state(&app, &root, "api", "up", SECOND).await;
        app.tamper("ALTER TABLE service_history RENAME TO elsewhere").await;
        peer.health.store(500, Ordering::SeqCst);
        // Some looks, each of which fails to write.
        let lookups = async || app.metrics().await.lines().any(|line| line.starts_with("keyward_service_check_duration_seconds_count{service=\"api\"} ") && line.ends_with(|c: char| c > '4'));
        until(PATIENCE, true, async || { app.advance(SECOND); lookups().await }).await;
        assert!(peer.heard().is_empty() && events(&app).await.is_empty());
        app.tamper("ALTER TABLE elsewhere RENAME TO service_history").await;
        until(PATIENCE, true, async || { app.advance(SECOND); !peer.heard().is_empty() }).await;
        assert_eq!(kinds(&app).await[0], "service.down");
    }
}

pub(super) fn is_running(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// An app on a database where others are, too.
async fn replica(url: &str, services: &str) -> App {
    let mut settings = ADMIN.to_vec();
    settings.push((FILE, services));
    settings.push(("KEYWARD_SESSION_TTL", "90d"));
    App::start_on(Scratch { url: url.to_owned(), dir: None }, &settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_replicas_acts() {
    let dir = tempfile::tempdir().unwrap();
    let runs = dir.path().join("runs");
    let services = format!(
        "[[services]]\nname = \"worker\"\nkind = \"process\"\nstart_period = 0\ncommand = [\"/bin/sh\", \"-c\", 'echo $$ >> \"$0\"; exec sleep 1000', \"{}\"]",
        runs.display()
    );
    let pids = || std::fs::read_to_string(&runs).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let scratch = Scratch::new(Engine::Postgres).await;
    let mut first = replica(&scratch.url, &services).await;
    let root = admin(&first).await;
    until_state(&first, &root, "worker", "up", Duration::ZERO).await;
    let second = replica(&scratch.url, &services).await;
    // Both see it; the second asks, and the first does it.
    until_state(&second, &root, "worker", "up", Duration::ZERO).await;
    assert_eq!(text(&restarted(&second, &root, "worker").await, "state"), "succeeded");
    until(PATIENCE, 2, async || pids().len()).await;
    until_state(&second, &root, "worker", "up", Duration::ZERO).await;
    let holders = async || texts(&second, "SELECT holder FROM services".to_owned()).await;
    assert_eq!(holders().await, std::slice::from_ref(&first.ctx.origin));
    // Several renewals of both change nothing.
    for _ in 0..4 {
        first.advance(Duration::from_secs(5));
        second.advance(Duration::from_secs(5));
        let until_then = (second.ctx.now().as_micros() + 15_000_000).to_string();
        let lease = "SELECT CAST((extract(epoch FROM lease_until) * 1000000)::bigint AS TEXT) FROM services";
        until(PATIENCE, vec![until_then], async || texts(&second, lease.to_owned()).await).await;
    }
    assert_eq!((pids().len(), holders().await), (2, vec![first.ctx.origin.clone()]));

    // The first goes, and takes its process along; the second goes on.
    first.stop(Stop::Now).await.unwrap();
    let former = pids()[1].clone();
    assert!(!is_running(&former));
    until(PATIENCE, 3, async || {
        second.advance(SECOND);
        pids().len()
    })
    .await;
    until_state(&second, &root, "worker", "up", Duration::ZERO).await;
    assert_eq!(holders().await, std::slice::from_ref(&second.ctx.origin));
    assert!(is_running(&pids()[2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_the_lease_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let runs = dir.path().join("runs");
    let services = format!(
        "[[services]]\nname = \"worker\"\nkind = \"process\"\nstart_period = 0\ncommand = [\"/bin/sh\", \"-c\", 'echo $$ >> \"$0\"; exec sleep 1000', \"{}\"]",
        runs.display()
    );
    let pids = || std::fs::read_to_string(&runs).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let scratch = Scratch::new(Engine::Postgres).await;
    let app = replica(&scratch.url, &services).await;
    let root = admin(&app).await;
    until_state(&app, &root, "worker", "up", Duration::ZERO).await;
    // As if it had been away for longer than its lease.
    app.tamper("UPDATE services SET holder = 'another', lease_until = lease_until + interval '1 minute'").await;
    app.advance(Duration::from_secs(5));
    until(PATIENCE, false, async || is_running(&pids()[0])).await;
    assert!(!app.metrics().await.contains("keyward_service_up{service=\"worker\"}"));
    // The other is gone, too.
    app.advance(Duration::from_secs(75));
    until(PATIENCE, 2, async || pids().len()).await;
    until_state(&app, &root, "worker", "up", Duration::ZERO).await;
    let standing = service(&app, &root, "worker").await;
    assert_eq!((&standing["restarts"], &standing["operation_id"]), (&json!(0), &Value::Null));
}
