//! Imports that are large, hostile, many at once, or made by another process; and what texts cost that are no keys.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use keyward::base::rng::SystemRng;
use keyward::ctx::Ctx;
use keyward::features::audit::By;
use keyward::features::auth::Reach;
use keyward::features::changes::follow;
use keyward::features::keys::moving::import::{self, Importing};
use keyward::features::keys::moving::report::Report;
use keyward::features::keys::verify::{Question, verify};
use keyward::features::scopes::ScopeQuery;
use keyward::gate::{Client, Code};
use keyward::infra::db::Db;
use serde_json::{Value, json};

use super::keys_import::{ask, counts, hash, import, lines, send};
use super::support::{until, until_metrics_say};
use crate::both_engines;
use crate::harness::{App, Scratch, Session};

/// How long what another process did may go unseen, in real time.
const SEEN: Duration = Duration::from_secs(1);

/// Another process, as the command line is one.
async fn elsewhere(app: &App) -> Ctx {
    let config = app.ctx.config.clone();
    let db = Db::open(&config.database).await.unwrap();
    Ctx::new(db, app.clock.clone(), std::sync::Arc::new(SystemRng), config).unwrap()
}

/// Imports without HTTP, as the command line does.
pub async fn import_there(there: &Ctx, who: &Session, keys: &[Value]) -> Report {
    let by = By::system("cli", there);
    let importing = Importing {
        by: &by,
        caller: None,
        project: who.project.parse().unwrap(),
        responsible: None,
        dry_run: false,
        partial: false,
        revive: false,
        first_line: 1,
        first_index: 0,
    };
    import::import(there, &importing, Bytes::from(lines(keys))).await.unwrap()
}

/// The code and the field of the one error that a body has.
async fn refusal(app: &App, who: &Session, body: impl Into<Vec<u8>>) -> (String, String) {
    let body = send(app, &who.token, &who.project, "", body).await.problem(400, "invalid_request");
    assert_eq!((body["errors"].as_array().unwrap().len(), &body["failed"]), (1, &json!(1)), "{body}");
    let word = |name: &str| body["errors"][0][name].as_str().unwrap().to_owned();
    (word("field"), word("code"))
}

fn whole(code: &str) -> (String, String) {
    ("line".to_owned(), code.to_owned())
}

both_engines! {
    async fn hostile_lines_are_refused_one_by_one(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let good = json!({"hash": hash("good"), "name": "good"}).to_string();
        let with = |bad: &[u8]| [good.as_bytes(), b"\n", bad, b"\n"].concat();
        // Ten megabytes on a line.
        let long = format!("{{\"hash\":\"{}\",\"name\":\"{}\"}}", hash("x"), "x".repeat(10 * 1024 * 1024));
        assert_eq!(refusal(&app, &ada, with(long.as_bytes())).await, whole("too_long"));
        let nested = |levels: usize| format!("{{\"hash\":\"{}\",\"metadata\":{{\"x\":{}1{}}}}}", hash("deep"), "[".repeat(levels - 2), "]".repeat(levels - 2));
        assert_eq!(refusal(&app, &ada, with(nested(65).as_bytes())).await, whole("invalid_json"));
        for bad in [&b"{\"hash\":\"\xff\xfe\"}"[..], b"\xff", b"{", b"{\"hash\":\"a\\u0000\"}", b"\x00"] {
            assert_eq!(refusal(&app, &ada, with(bad)).await, whole("invalid_json"), "{bad:?}");
        }
        for bad in ["[]", "1", "null", "\"x\"", &format!("[{good}]")] {
            assert_eq!(refusal(&app, &ada, with(bad.as_bytes())).await, whole("invalid_value"), "{bad}");
        }
        let twice = format!("{{\"hash\":\"{0}\",\"hash\":\"{0}\"}}", hash("x"));
        assert_eq!(refusal(&app, &ada, with(twice.as_bytes())).await.1, "duplicate");
        for bad in ["", "0", &"0".repeat(63), &"z".repeat(64), &"A".repeat(44), "sk_live_4eC39HqLyjWDarjtT1zdp7dc"] {
            let answer = refusal(&app, &ada, with(json!({"hash": bad}).to_string().as_bytes())).await;
            assert_eq!(answer, ("hash".to_owned(), "invalid_value".to_owned()), "{bad}");
        }
        // No answer repeats a value.
        let answer = send(&app, &ada.token, &ada.project, "", with(json!({"hash": "hunter2", "scopes": ["Hunter2"]}).to_string().as_bytes())).await;
        assert!(!answer.text().to_lowercase().contains("hunter2"), "{}", answer.text());
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 0);
        // What editors and other systems leave in a file is taken as it was meant.
        let body = format!("\u{feff}\r\n{good}\r\n\r\n \t\n{}\r\n{}", json!({"hash": hash("second")}), nested(64));
        let report = send(&app, &ada.token, &ada.project, "", body).await.expect(200).json();
        assert_eq!(counts(&report), [3, 0, 0]);
        assert_eq!(counts(&send(&app, &ada.token, &ada.project, "", "").await.expect(200).json()), [0, 0, 0]);
    }

    async fn bodies_are_bounded_and_declared(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let route = format!("/v1/projects/{}/keys:import", ada.project);
        let line = lines(&[json!({"hash": hash("a")})]);
        for kind in ["application/x-ndjson", "application/jsonl", "application/json", "application/x-ndjson; charset=utf-8", "Application/NDJSON"] {
            let mut call = app.post(&route).token(&ada.token).header("content-type", kind);
            call.0 = call.0.body(line.clone());
            call.send().await.expect(200);
        }
        for kind in ["text/plain", "application/problem+json", "text/csv", ""] {
            let mut call = app.post(&route).token(&ada.token).header("content-type", kind);
            call.0 = call.0.body(line.clone());
            call.send().await.problem(415, "unsupported_media_type");
        }
        let blank = |count: usize| "\n".repeat(count);
        send(&app, &ada.token, &ada.project, "", blank(100_000)).await.expect(200);
        send(&app, &ada.token, &ada.project, "", blank(100_001)).await.problem(413, "too_many_lines");
        send(&app, &ada.token, &ada.project, "", blank(100_000) + " ").await.problem(413, "too_many_lines");
        let large = |bytes: usize| " ".repeat(bytes);
        send(&app, &ada.token, &ada.project, "", large(16 * 1024 * 1024)).await.expect(200);
        send(&app, &ada.token, &ada.project, "", large(16 * 1024 * 1024 + 1)).await.problem(413, "body_too_large");
        // Ordinary routes take what they took.
        let body = format!("{{\"name\":\"x\",\"metadata\":{{\"x\":\"{}\"}}}}", "y".repeat(1024 * 1024));
        app.post(&format!("/v1/projects/{}/keys", ada.project)).token(&ada.token).raw(body).send().await.problem(413, "body_too_large");
    }

    async fn a_thousand_errors_are_told(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let wrong = "{}\n".repeat(12_000);
        for query in ["", "?partial=true", "?dry_run=true"] {
            let report = send(&app, &ada.token, &ada.project, query, wrong.clone()).await.json();
            assert_eq!((&report["failed"], &report["total_processed"]), (&json!(12_000), &json!(12_000)), "{query}");
            assert_eq!(report["errors"].as_array().unwrap().len(), 1_000);
            assert_eq!((&report["errors"][999]["index"], &report["errors"][999]["line"]), (&json!(999), &json!(1_000)));
        }
        // Across the borders of chunks places are counted on.
        let body = lines(&(0..11_000).map(|i| if [4_999, 5_000, 10_001].contains(&i) { json!({}) } else { json!({"hash": hash(&i.to_string())}) }).collect::<Vec<_>>());
        let report = send(&app, &ada.token, &ada.project, "?partial=true", format!("\n{body}")).await.expect(200).json();
        let places: Vec<_> = report["errors"].as_array().unwrap().iter().map(|e| (e["index"].as_u64().unwrap(), e["line"].as_u64().unwrap())).collect();
        assert_eq!((counts(&report), places), ([10_997, 0, 3], vec![(4_999, 5_001), (5_000, 5_002), (10_001, 10_003)]));
        // A transaction a chunk.
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'keys.import'").await, 3);
    }

    async fn of_many_who_import_the_same_each_key_is_made_once(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let keys: Vec<Value> = (0..60).map(|i| json!({"hash": hash(&format!("k{i}")), "name": format!("k{i}")})).collect();
        // Twenty at once into one project, forwards and backwards.
        let reports = join_all((0..20).map(|n| {
            let mut keys = keys[..30].to_vec();
            if n % 2 == 0 {
                keys.reverse();
            }
            let (app, ada) = (&app, &ada);
            async move { import(app, ada, &keys).await }
        }))
        .await;
        let created: u64 = reports.iter().map(|report| counts(report)[0]).sum();
        assert_eq!((created, app.count("SELECT count(*) FROM api_keys").await), (30, 30));
        // And into two: every hash is somebody's, and nobody's twice.
        let bodies = join_all((0..20).map(|n| {
            let mut keys = keys[30..].to_vec();
            if n % 3 == 0 {
                keys.reverse();
            }
            let (app, who) = (&app, if n % 2 == 0 { &ada } else { &bob });
            async move { send(app, &who.token, &who.project, "?partial=true", lines(&keys)).await.expect(200).json() }
        }))
        .await;
        let created: u64 = bodies.iter().map(|report| counts(report)[0]).sum();
        assert_eq!((created, app.count("SELECT count(*) FROM api_keys").await), (30, 60));
        assert_eq!(app.count("SELECT count(*) FROM api_keys WHERE generation = 1").await, app.count("SELECT count(*) FROM key_secrets").await);
        for key in &keys {
            let codes: BTreeSet<String> = [ask(&app, &ada, key["name"].as_str().unwrap()).await, ask(&app, &bob, key["name"].as_str().unwrap()).await].into();
            assert_eq!(codes, BTreeSet::from(["MALFORMED".to_owned(), "VALID".to_owned()]), "{key}");
        }
    }

    async fn what_another_process_imports_works_within_a_second(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let beside = Scratch { url: scratch.url.clone(), dir: None };
        let (here, there) = (App::start_on(scratch, &[]).await, App::start_on(beside, &[]).await);
        let ada = here.person("ada").await;
        for app in [&here, &there] {
            until(Duration::from_secs(5), true, async || app.ctx.gate.known.is_complete()).await;
            assert_eq!(ask(app, &ada, "first").await, "MALFORMED");
        }
        let own = keyward::features::keys::format::NewSecret::generate("sk", &SystemRng);
        assert_eq!(ask(&here, &ada, own.secret.expose()).await, "NOT_FOUND");
        import(&there, &ada, &[json!({"hash": hash("first")}), json!({"hash": hex::encode(own.hash)})]).await;
        for key in ["first", own.secret.expose()] {
            assert_eq!(ask(&there, &ada, key).await, "VALID", "at once");
            until(SEEN, "VALID".to_owned(), async || ask(&here, &ada, key).await).await;
            here.get("/v1/keys/self").api_key(key).send().await.expect(200);
        }
        // The command line's clock may be another one.
        let cli = elsewhere(&here).await;
        here.advance(Duration::from_hours(5));
        there.advance(Duration::from_hours(1));
        let ada = here.login("ada", crate::harness::PASSWORD).await;
        assert_eq!(import_there(&cli, &ada, &[json!({"hash": hash("second")})]).await.created, 1);
        let later = elsewhere(&there).await;
        assert_eq!(import_there(&later, &ada, &[json!({"hash": hash("third")})]).await.created, 1);
        for app in [&here, &there] {
            for key in ["second", "third"] {
                until(SEEN, "VALID".to_owned(), async || ask(app, &ada, key).await).await;
            }
        }
        cli.db.close().await;
        later.db.close().await;
    }

    async fn an_import_leaves_what_is_in_memory_alone(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        tokio::time::sleep(follow::INTERVAL * 3).await;
        assert_eq!(ask(&app, &ada, key["key"].as_str().unwrap()).await, "VALID");
        let cli = elsewhere(&app).await;
        import_there(&cli, &ada, &[json!({"hash": hash("a")})]).await;
        until(SEEN, "VALID".to_owned(), async || ask(&app, &ada, "a").await).await;
        assert_eq!(ask(&app, &ada, key["key"].as_str().unwrap()).await, "VALID");
        until_metrics_say(&app, "keyward_key_cache_lookups_total{result=\"loaded\"} 2").await;
        cli.db.close().await;
    }

    async fn a_text_that_is_no_key_costs_no_look_up(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        import(&app, &ada, &[json!({"hash": hash("known")})]).await;
        until(Duration::from_secs(5), true, async || app.ctx.gate.known.is_complete()).await;
        assert_eq!(ask(&app, &ada, "known").await, "VALID");
        for hundred in 0..5 {
            let questions: Vec<_> = (0..100).map(|i| json!({"key": format!("guess-{hundred}-{i}")})).collect();
            let answer = app.post("/v1/keys/verify:batch").token(&ada.token).json(&json!({"questions": questions})).send().await.expect(200).json();
            assert!(answer["answers"].as_array().unwrap().iter().all(|answer| answer["code"] == "MALFORMED"));
        }
        for (result, count) in [("loaded", 1), ("absent", 0), ("spared", 0)] {
            until_metrics_say(&app, &format!("keyward_key_cache_lookups_total{{result=\"{result}\"}} {count}")).await;
        }
    }

    async fn before_everything_is_read_in_a_hundred_a_second_are_looked_up(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        import(&app, &ada, &[json!({"hash": hash("known")}), json!({"hash": hash("other")})]).await;
        // A process that has just begun: nothing is read in, and its cache is trusted.
        let there = elsewhere(&app).await;
        there.gate.heard(there.steady());
        assert!(!there.gate.known.has_all_imported());
        let scopes = ScopeQuery::default();
        let asked = async |key: &str| {
            let question = Question { key, scopes: &scopes, cost: 1, client: Client::default(), dry_run: false, arrived: 0, request_id: None, asked_by: None };
            verify(&there, &Reach::Everywhere, &question, there.moment()).await.unwrap().code
        };
        assert_eq!(asked("known").await, Code::Valid);
        for i in 0..300 {
            assert_eq!(asked(&format!("guess-{i}")).await, Code::Malformed);
        }
        let absent = || there.gate.lookups().absent.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(absent(), 99, "with the one that is known, a hundred");
        // What is in memory isn't held up; what isn't waits until it is known.
        assert_eq!((asked("known").await, asked("other").await), (Code::Valid, Code::Malformed));
        keyward::features::keys::secrets::known::read_in(&there).await.unwrap();
        assert!(there.gate.known.has_all_imported() && there.gate.known.is_complete());
        assert_eq!(asked("other").await, Code::Valid);
        assert_eq!((asked("guess-299").await, absent()), (Code::Malformed, 99));
        there.db.close().await;
    }
}
