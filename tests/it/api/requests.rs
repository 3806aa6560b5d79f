//! The request log: what is kept of which requests, who sees it, and for how long.

use std::time::Duration;

use keyward::base::clock::Clock as _;
use keyward::features::requests::log;
use keyward::gate::noted::{Head, Kept, Outcome, Source, Texts};
use keyward::server::Stop;
use keyward::worker;
use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, code, configure, join, key_in, path, switched, team, text, until};
use crate::both_engines;
use crate::harness::program::Beside;
use crate::harness::{App, Scratch, Session};

const NOTHING: (&str, &str) = ("KEYWARD_REQUEST_LOG_SAMPLE", "0");
const EVERYTHING: (&str, &str) = ("KEYWARD_REQUEST_LOG_SAMPLE", "1");
/// How long what was kept may stay unwritten, in real time.
const WRITTEN: Duration = Duration::from_secs(3);

/// Every row at a path, newest first, page by page.
pub async fn all(app: &App, who: &Session, path: &str) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let and = if path.contains('?') { '&' } else { '?' };
        let page = app.get(&format!("{path}{and}limit=200{cursor}")).token(&who.token).send().await.expect(200).json();
        rows.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

/// How many requests rows stand for.
pub fn sum(rows: &[Value]) -> u64 {
    rows.iter().map(|row| row["count"].as_u64().unwrap()).sum()
}

/// The rows of a key, once so many requests are written and no more.
pub async fn logged(app: &App, who: &Session, key: &Value, requests: u64) -> Vec<Value> {
    let path = path(key, "/requests");
    let written = async || {
        log::flush(&app.ctx).await.unwrap();
        sum(&all(app, who, &path).await)
    };
    // The worker may be about to write some of them itself.
    until(WRITTEN, requests, written).await;
    assert_eq!(written().await, requests);
    all(app, who, &path).await
}

fn words(rows: &[Value], field: &str) -> Vec<String> {
    rows.iter().map(|row| row[field].as_str().unwrap_or("-").to_owned()).collect()
}

both_engines! {
    async fn what_was_refused_is_kept_exactly_and_bounded(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, NOTHING]).await;
        let ada = app.person("ada").await;
        let limits = json!([{"name": "minute", "limit": 5, "window": "1m"}]);
        let key = app.key(&ada, json!({"limits": limits, "scopes": ["a:b"]})).await;
        let other = app.key(&ada, json!({"limits": limits})).await;
        let ask = |n: usize| {
            let (app, ada, key, other) = (&app, &ada, &key, &other);
            let extra = match n % 4 {
                0 => json!({"scopes": ["a:c"]}),
                1 => json!({"dry_run": true}),
                _ => json!({"client": {"ip": "192.0.2.7", "method": "GET", "path": "/orders"}}),
            };
            async move {
                code(app, ada, key, extra).await;
                if n.is_multiple_of(40) {
                    code(app, ada, other, json!({"scopes": ["x:y"]})).await;
                }
            }
        };
        futures_util::future::join_all((0..400).map(ask)).await;
        // A stranger's question and what is no key are nobody's.
        let bob = app.person("bob").await;
        code(&app, &bob, &key, json!({})).await;
        code(&app, &ada, &json!({"key": "x"}), json!({})).await;
        let rows = logged(&app, &ada, &key, 195 + 100).await;
        assert!(rows.iter().all(|row| row["outcome"] == "denied" && row["source"] == "verify" && row["status"].is_null()), "{rows:?}");
        let of = |code: &str| rows.iter().filter(|row| row["code"] == code).cloned().collect::<Vec<_>>();
        assert_eq!((sum(&of("RATE_LIMITED")), sum(&of("INSUFFICIENT_SCOPE"))), (195, 100));
        // Ten of the second one by one, and a row for each reason with every batch that is written.
        let single: Vec<_> = rows.iter().filter(|row| row["duration_ms"].is_number()).collect();
        assert_eq!(single.len(), 10);
        assert!(single.iter().all(|row| row["count"] == 1 && row["request_id"].is_string()));
        assert!(rows.len() < 60, "{}", rows.len());
        let folded: Vec<_> = rows.iter().filter(|row| row["duration_ms"].is_null()).collect();
        assert!(folded.iter().all(|row| ["endpoint", "ip", "method", "request_id"].iter().all(|field| row[*field].is_null())));
        // Another key is in nobody's way.
        assert_eq!(logged(&app, &ada, &other, 10).await.len(), 10);
        // A second later they are kept one by one again.
        app.advance(Duration::from_secs(1));
        for _ in 0..3 {
            code(&app, &ada, &key, json!({"scopes": ["a:c"]})).await;
        }
        assert_eq!(logged(&app, &ada, &key, 195 + 103).await.iter().filter(|row| row["duration_ms"].is_number()).count(), 13);
        assert_eq!(app.count("SELECT count(*) FROM key_requests WHERE outcome = 'allowed'").await, 0);
    }

    async fn the_projects_sample_holds_from_the_next_request_on(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, NOTHING]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let unlimited = json!({"limits": [{"name": "minute", "limit": 1_000_000, "window": "1m"}]});
        let (key, other) = (app.key(&ada, unlimited.clone()).await, app.key(&bob, unlimited).await);
        let ask = async |times: usize| {
            for asked in [&key, &other] {
                let who = if asked == &key { &ada } else { &bob };
                let all = futures_util::future::join_all((0..times).map(|_| code(&app, who, asked, json!({})))).await;
                assert!(all.iter().all(|code| code == "VALID"));
            }
        };
        ask(20).await;
        configure(&app, &ada, &ada.project, json!({"request_log_sample": 1})).await;
        ask(20).await;
        configure(&app, &ada, &ada.project, json!({"request_log_sample": 0})).await;
        ask(20).await;
        assert_eq!(logged(&app, &ada, &key, 20).await.len(), 20);
        configure(&app, &ada, &ada.project, json!({"request_log_sample": 0.5})).await;
        ask(400).await;
        configure(&app, &ada, &ada.project, json!({"request_log_sample": null})).await;
        ask(20).await;
        // Eight standard deviations on either side.
        log::flush(&app.ctx).await.unwrap();
        tokio::time::sleep(log::FLUSH).await;
        let kept = all(&app, &ada, &path(&key, "/requests")).await.len() - 20;
        assert!((120..=280).contains(&kept), "{kept} of 400");
        assert_eq!(logged(&app, &bob, &other, 0).await.len(), 0);
    }

    async fn the_servers_sample_holds_where_a_project_says_nothing(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, EVERYTHING]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        for _ in 0..7 {
            code(&app, &ada, &key, json!({})).await;
        }
        assert_eq!(words(&logged(&app, &ada, &key, 7).await, "code"), ["VALID"; 7]);
        code(&app, &ada, &key, json!({"dry_run": true})).await;
        logged(&app, &ada, &key, 7).await;
    }

    async fn a_row_says_what_is_known_and_nothing_secret(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, EVERYTHING]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:read"]})).await;
        let secret = text(&key, "key");
        let client = json!({"ip": "2001:db8::7", "method": "GET", "path": format!("/orders/{secret}/x?token=hunter2#hunter2")});
        let question = json!({"key": secret, "client": client});
        let asked = app.post("/v1/keys/verify").token(&ada.token).header("x-request-id", "from-me").json(&question);
        asked.send().await.expect(200);
        let row = logged(&app, &ada, &key, 1).await.remove(0);
        assert!(text(&row, "id").starts_with("req_"));
        for (field, expected) in [
            ("at", json!("2031-05-06T12:00:00Z")), ("project_id", json!(ada.project)), ("key_id", key["id"].clone()),
            ("source", json!("verify")), ("method", json!("GET")), ("status", Value::Null), ("outcome", json!("allowed")),
            ("code", json!("VALID")), ("ip", json!("2001:db8::7")), ("user_agent", Value::Null),
            ("request_id", json!("from-me")), ("count", json!(1)), ("duration_ms", json!(0.0)),
        ] {
            assert_eq!(row[field], expected, "{field}");
        }
        assert_eq!(row.as_object().unwrap().len(), 15);
        let endpoint = text(&row, "endpoint");
        assert!(endpoint.starts_with("/orders/") && endpoint.ends_with("/x"), "{endpoint}");
        let secret_body = &secret[8..40];
        assert!(!row.to_string().contains("hunter2") && !row.to_string().contains(secret_body), "{row}");

        // A call of Keyward's own routes: the template of the route, never the path.
        app.advance(Duration::from_secs(1));
        let agent = format!("curl/8 (key {secret})");
        let own = app.get(&path(&key, "")).api_key(secret).header("user-agent", &agent).header("x-request-id", secret);
        own.send().await.expect(200);
        app.advance(Duration::from_secs(1));
        app.get(&format!("/v1/projects/{}", ada.project)).api_key(secret).send().await.expect(403);
        app.advance(Duration::from_secs(1));
        switched(&app, &ada, &key, "/disable").await;
        app.get("/v1/keys/self").api_key(secret).send().await.expect(401);
        let rows = logged(&app, &ada, &key, 4).await;
        assert_eq!(words(&rows, "source"), ["own", "own", "own", "verify"]);
        assert_eq!(words(&rows, "outcome"), ["denied", "denied", "allowed", "allowed"]);
        // The gate has nothing against the second; its rights are too few.
        assert_eq!(words(&rows, "code")[..2], ["DISABLED", "VALID"]);
        assert_eq!(words(&rows, "endpoint")[..3], ["/v1/keys/self", "/v1/projects/{project}", "/v1/keys/{id}"]);
        assert_eq!((&rows[0]["status"], &rows[1]["status"], &rows[2]["status"]), (&json!(401), &json!(403), &json!(200)));
        assert_eq!(rows[2]["ip"], "127.0.0.1");
        assert!(text(&rows[2], "user_agent").starts_with("curl/8 (key "));
        assert!(!json!(rows).to_string().contains(secret_body), "{rows:?}");
    }

    async fn pages_and_filters(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, EVERYTHING]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["a:b"]})).await;
        let other = app.key(&ada, json!({})).await;
        for n in 0..12_u64 {
            let scopes = if n % 3 == 0 { json!(["a:c"]) } else { json!([]) };
            let extra = json!({"scopes": scopes, "client": {"path": format!("/n/{}", n % 2)}});
            assert_eq!(code(&app, &ada, &key, extra).await == "VALID", n % 3 != 0);
            code(&app, &ada, &other, json!({})).await;
            app.advance(Duration::from_mins(1));
        }
        logged(&app, &ada, &key, 12).await;
        logged(&app, &ada, &other, 12).await;
        let of_key = path(&key, "/requests");
        let of_project = format!("/v1/projects/{}/requests", ada.project);
        let count = async |path: String| all(&app, &ada, &path).await.len();
        for base in [of_key.clone(), format!("{of_project}?key_id={}", text(&key, "id"))] {
            let and = if base.contains('?') { '&' } else { '?' };
            for (filter, expected) in [
                ("outcome=denied", 4), ("outcome=allowed", 8), ("outcome=failed", 0), ("endpoint=/n/1", 6), ("endpoint=/n", 0),
                ("outcome=denied&endpoint=/n/0", 2), ("since=2031-05-06T12:05:00Z", 7), ("until=2031-05-06T12:05:00Z", 5),
                ("since=2031-05-06T12:02:00Z&until=2031-05-06T12:05:00Z", 3), ("status=200", 0),
                ("since=2031-05-06T13:00:00Z", 0), ("until=2031-05-06T12:00:00Z", 0),
            ] {
                assert_eq!(count(format!("{base}{and}{filter}")).await, expected, "{base} {filter}");
            }
        }
        assert_eq!(count(of_project.clone()).await, 24);
        // Pages neither skip nor repeat, and cursors go with filters.
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("{of_key}?limit=5&until=2031-05-06T12:11:00Z{cursor}");
            let page = app.get(&path).token(&ada.token).send().await.expect(200).json();
            seen.extend(page["data"].as_array().unwrap().iter().map(|row| text(row, "at").to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), 11);
        assert!(seen.is_sorted_by(|later, earlier| later > earlier), "{seen:?}");
        for wrong in [
            "limit=0", "limit=201", "cursor=x", "outcome=maybe", "status=99", "status=600", "status=x", "since=yesterday",
            "colour=red", "status=200&status=200", &format!("endpoint={}", "x".repeat(513)),
        ] {
            let answer = app.get(&format!("{of_key}?{wrong}")).token(&ada.token).send().await;
            assert_eq!(answer.status, 400, "{wrong}: {}", answer.text());
        }
        app.get(&format!("{of_key}?key_id={}", text(&key, "id"))).token(&ada.token).send().await.problem(400, "unknown_field");
        app.get(&format!("{of_project}?key_id=x")).token(&ada.token).send().await.problem(400, "invalid_request");
    }

    async fn nobody_sees_anothers_requests(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, EVERYTHING]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        app.person("eve").await;
        let (project, foreign) = (team(&app, &ada, "shop").await, team(&app, &bob, "elsewhere").await);
        join(&app, &ada, &project, "eve", "viewer").await;
        let key = key_in(&app, &ada, &project, json!({})).await;
        let inside = key_in(&app, &ada, &project, json!({"scopes": ["keyward:usage:read"]})).await;
        let outside = key_in(&app, &bob, &foreign, json!({"scopes": ["keyward:*"]})).await;
        code(&app, &ada, &key, json!({})).await;
        logged(&app, &ada, &key, 1).await;
        let eve = app.login("eve", crate::harness::PASSWORD).await;
        let (of_key, of_project) = (path(&key, "/requests"), format!("/v1/projects/{project}/requests"));
        for (path, hidden) in [(&of_key, "key_not_found"), (&of_project, "project_not_found")] {
            app.get(path).send().await.problem(401, "unauthenticated");
            app.get(path).token(&bob.token).send().await.problem(404, hidden);
            app.get(path).api_key(text(&outside, "key")).send().await.problem(404, hidden);
            app.get(path).api_key(text(&key, "key")).send().await.problem(403, "forbidden");
            app.get(path).api_key(text(&inside, "key")).send().await.expect(200);
            assert!(!all(&app, &eve, path).await.is_empty());
        }
        // A foreign key's id in one's own project finds nothing.
        let own = format!("/v1/projects/{foreign}/requests?key_id={}", text(&key, "id"));
        assert_eq!(all(&app, &bob, &own).await, Vec::<Value>::new());
    }

    async fn rows_go_when_their_time_is_over(engine: Engine) {
        let settings = [MANY_KEYS, EVERYTHING, LONG_SESSIONS, ("KEYWARD_REQUEST_LOG_RETENTION", "7d")];
        let app = App::start_with(engine, &settings).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": [{"name": "minute", "limit": 100_000, "window": "1m"}]})).await;
        for _ in 0..3 {
            code(&app, &ada, &key, json!({})).await;
        }
        logged(&app, &ada, &key, 3).await;
        // More than one transaction removes.
        app.tamper("INSERT INTO key_requests (id, at, project_id, key_id, source, outcome, count)
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
            SELECT 'req_01K5ZV8QXW3M7C2R9T4B' || substr(CAST(1000000 + i AS text), 2), r.at, r.project_id, r.key_id, r.source, r.outcome, 1
            FROM n, (SELECT * FROM key_requests ORDER BY id LIMIT 1) r").await;
        app.advance(Duration::from_hours(7 * 24));
        code(&app, &ada, &key, json!({})).await;
        logged(&app, &ada, &key, 2504).await;
        worker::prune(&app.ctx).await.unwrap();
        logged(&app, &ada, &key, 2504).await;
        app.advance(Duration::from_micros(1));
        worker::prune(&app.ctx).await.unwrap();
        assert_eq!(logged(&app, &ada, &key, 1).await.len(), 1);
    }

    async fn the_log_outlives_the_key_but_not_the_project(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, EVERYTHING, LONG_SESSIONS, ("KEYWARD_PROJECT_GRACE", "1d")]).await;
        let ada = app.person("ada").await;
        let project = team(&app, &ada, "shop").await;
        let key = key_in(&app, &ada, &project, json!({})).await;
        let mine = app.key(&ada, json!({})).await;
        for asked in [&key, &mine] {
            code(&app, &ada, asked, json!({})).await;
            logged(&app, &ada, asked, 1).await;
        }
        app.delete(&path(&key, &format!("?confirm={}", text(&key, "id")))).token(&ada.token).send().await.expect(204);
        app.get(&path(&key, "/requests")).token(&ada.token).send().await.problem(404, "key_not_found");
        let of_project = format!("/v1/projects/{project}/requests");
        assert_eq!(all(&app, &ada, &format!("{of_project}?key_id={}", text(&key, "id"))).await.len(), 1);
        app.delete(&format!("/v1/projects/{project}?confirm={project}")).token(&ada.token).send().await.expect(204);
        app.get(&of_project).token(&ada.token).send().await.problem(404, "project_not_found");
        app.advance(Duration::from_hours(25));
        worker::prune(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT count(*) FROM key_requests").await, 1);
    }

    async fn what_finds_no_room_is_counted(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, EVERYTHING]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let head = Head {
            at: app.clock.now().as_micros(),
            project: ada.project.parse().unwrap(),
            key: text(&key, "id").parse().unwrap(),
            source: Source::Own,
            outcome: Outcome::Allowed,
            code: None,
            status: Some(200),
            duration_us: None,
        };
        // At once: the worker can't write so many.
        let kept = (0..5_000).filter(|_| app.ctx.gate.noted.add(head, 0, Texts::default) == Kept::Yes).count();
        assert!(kept < 5_000, "{kept}");
        logged(&app, &ada, &key, kept as u64).await;
        // The same by way of a report, which tells of it in the metrics.
        let report = json!({"key_id": key["id"], "method": "GET", "endpoint": "/", "status": 200, "duration_ms": 1});
        let call = || app.post("/v1/requests:record").token(&ada.token).json(&json!({"requests": vec![report.clone(); 1000]}));
        for answer in futures_util::future::join_all((0..6).map(|_| call().send())).await {
            answer.expect(202);
        }
        let metrics = app.metrics().await;
        let dropped: u64 = metrics.lines().find_map(|line| line.strip_prefix("keyward_request_log_dropped_total ")).unwrap().parse().unwrap();
        logged(&app, &ada, &key, kept as u64 + 6_000 - dropped).await;
    }

    async fn what_waits_is_written_at_the_end(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let mut app = App::start_on(Scratch { url: scratch.url.clone(), dir: None }, &[MANY_KEYS, EVERYTHING]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": [{"name": "minute", "limit": 20, "window": "1m"}]})).await;
        futures_util::future::join_all((0..50).map(|_| code(&app, &ada, &key, json!({})))).await;
        app.stop(Stop::Now).await.unwrap();
        let mut beside = Beside::open(&scratch.url).await;
        assert_eq!(beside.count("SELECT CAST(sum(count) AS bigint) FROM key_requests WHERE code = 'VALID'").await, 20);
        assert_eq!(beside.count("SELECT CAST(sum(count) AS bigint) FROM key_requests WHERE code = 'RATE_LIMITED'").await, 30);
    }

    /// A storage that refuses costs nothing but time, as long as there is room.
    async fn what_cannot_be_written_waits(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, EVERYTHING]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        app.tamper("ALTER TABLE key_requests RENAME TO elsewhere").await;
        code(&app, &ada, &key, json!({})).await;
        // A defect of the storage itself: what can't ever be written mustn't stand in the way.
        until(WRITTEN, true, async || {
            let _ = log::flush(&app.ctx).await;
            app.metrics().await.lines().any(|line| line == "keyward_request_log_dropped_total 1")
        }).await;
        app.tamper("ALTER TABLE elsewhere RENAME TO key_requests").await;
        code(&app, &ada, &key, json!({})).await;
        logged(&app, &ada, &key, 1).await;
    }
}
