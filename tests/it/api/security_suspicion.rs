//! What looks like an attack: at its threshold, not below, once a key or address and hour, to whom it concerns.

use std::time::Duration;

use keyward::base::clock::Timestamp;
use keyward::base::id::ProjectId;
use keyward::base::rng::SystemRng;
use keyward::features::keys::format::NewSecret;
use keyward::features::security::habits::{self, Watched};
use keyward::features::security::{self, Wrong};
use keyward::features::{projects, usage};
use serde_json::{Value, json};

use super::security_limits::{SOON, counts, one, rows, told};
use super::support::{
    LONG_SESSIONS, MANY_KEYS, PROXY, code, path, rotate, switched, text, token_status, try_login, until,
};
use crate::both_engines;
use crate::harness::{App, Session};

const SETTINGS: &[(&str, &str)] = &[MANY_KEYS, LONG_SESSIONS, PROXY];

/// Asks about a key that nobody made.
async fn guess(app: &App, who: &Session, ip: &str) {
    let invented = NewSecret::generate("sk", &SystemRng).secret;
    let answer = app.verify(who, json!({"key": invented.expose(), "client": {"ip": ip}})).await;
    assert_eq!(answer["code"], "NOT_FOUND");
}

async fn system(app: &App) -> String {
    let id = projects::store::system(app.ctx.db.reader().await.unwrap().conn()).await.unwrap().unwrap();
    id.to_string()
}

/// What was no good, as alert rules read it.
async fn wrong(app: &App, project: &str, kinds: &[Wrong]) -> u64 {
    security::flush(&app.ctx).await.unwrap();
    let project: ProjectId = project.parse().unwrap();
    let mut reader = app.ctx.db.reader().await.unwrap();
    let day = Duration::from_hours(24);
    let (since, until) = (app.ctx.now().saturating_sub(day), app.ctx.now().saturating_add(day));
    security::store::counts(reader.conn(), project, kinds, since, until).await.unwrap()
}

both_engines! {
    async fn guessing_is_told_at_its_threshold(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        for _ in 0..10 {
            guess(&app, &ada, "198.51.100.7").await;
            app.verify(&ada, json!({"key": "sk_malformed", "client": {"ip": "198.51.100.8"}})).await;
        }
        for _ in 0..9 {
            app.verify(&ada, json!({"key": "sk_malformed", "client": {"ip": "198.51.100.7"}})).await;
        }
        // Without an address, nobody can be told apart.
        for _ in 0..30 {
            app.verify(&ada, json!({"key": "sk_malformed"})).await;
        }
        assert_eq!(rows(&app).await, 0, "nineteen aren't twenty");
        guess(&app, &ada, "198.51.100.7").await;
        let event = one(&app, &ada.project, "auth.suspicious").await;
        assert_eq!((&event["reason"], &event["count"]), (&json!("guessing"), &json!(20)));
        assert_eq!((&event["addresses"], &event["window_seconds"]), (&json!(["198.51.100.7"]), &json!(300)));
        assert_eq!((&event["asked_by"], event.get("id")), (&json!([ada.user]), None));
        for _ in 0..15 {
            guess(&app, &ada, "198.51.100.7").await;
        }
        app.advance(Duration::from_mins(59));
        assert_eq!(counts(&app, &ada.project, "auth.suspicious").await, [20]);
        app.advance(Duration::from_mins(1));
        until(SOON, vec![20, 15], async || counts(&app, &ada.project, "auth.suspicious").await).await;
        until(SOON, 26, async || wrong(&app, &ada.project, &[Wrong::UnknownKey]).await).await;
        assert_eq!(wrong(&app, &ada.project, &[Wrong::MalformedKey]).await, 49);
        assert_eq!(wrong(&app, &ada.project, &Wrong::ALL).await, 75);
        assert_eq!(wrong(&app, &system(&app).await, &Wrong::ALL).await, 0);
        assert!(app.metrics().await.contains(r#"keyward_suspicions_total{reason="guessing"} 2"#));
        // They stay as long as minutes of usage do.
        app.advance(Duration::from_hours(49));
        security::prune(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT count(*) FROM security_counts").await, 0);
    }

    async fn slow_guesses_and_those_of_many_addresses_are_not_a_burst(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        for i in 0..40 {
            guess(&app, &ada, "198.51.100.7").await;
            guess(&app, &ada, &format!("192.0.2.{i}")).await;
            app.advance(Duration::from_secs(17));
        }
        // Neither are those of one address that two projects heard of.
        for _ in 0..10 {
            guess(&app, &ada, "203.0.113.1").await;
            guess(&app, &bob, "203.0.113.1").await;
        }
        assert_eq!(rows(&app).await, 0);
        // One network of IPv6 is one guesser.
        for i in 0..20 {
            guess(&app, &bob, &format!("2001:db8:0:7::{i:x}")).await;
        }
        let event = one(&app, &bob.project, "auth.suspicious").await;
        assert_eq!((&event["count"], event["addresses"].as_array().unwrap().len()), (&json!(20), 1));
        assert!(told(&app, &ada.project, "auth.suspicious").await.is_empty());
    }

    async fn wrong_keys_and_passwords_shown_to_keyward_are_the_operators_matter(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let system = system(&app).await;
        let from = "203.0.113.9";
        for i in 0..9 {
            try_login(&app, from, "ada", &format!("wrong password {i}")).await.problem(401, "invalid_credentials");
            let call = app.get("/v1/keys/self").header("x-forwarded-for", from).api_key("sk_nothing");
            call.send().await.problem(401, "invalid_credentials");
        }
        // A session that ended is no guess.
        let ended = app.login("ada", crate::harness::PASSWORD).await;
        app.post("/logout").token(&ended.token).send().await.expect(204);
        for _ in 0..25 {
            assert_eq!(token_status(&app, &ended.token).await, 401);
        }
        try_login(&app, from, "nobody", "wrong password").await.problem(401, "invalid_credentials");
        assert_eq!(rows(&app).await, 0, "nineteen aren't twenty");
        let call = app.get("/v1/keys/self").header("x-forwarded-for", from).api_key("sk_nothing");
        call.send().await.problem(401, "invalid_credentials");
        let event = one(&app, &system, "auth.suspicious").await;
        assert_eq!((&event["reason"], &event["count"], &event["addresses"]), (&json!("guessing"), &json!(20), &json!([from])));
        assert!(told(&app, &ada.project, "auth.suspicious").await.is_empty());
        until(SOON, 10, async || wrong(&app, &system, &[Wrong::FailedLogin]).await).await;
        assert_eq!(wrong(&app, &system, &[Wrong::WrongCredentials]).await, 35);
        assert_eq!(wrong(&app, &ada.project, &Wrong::ALL).await, 0);
    }

    async fn a_key_that_is_used_from_everywhere_is_told_of(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let (key, other) = (app.key(&ada, json!({})).await, app.key(&ada, json!({})).await);
        let from = async |key: &Value, ip: &str| {
            assert_eq!(code(&app, &ada, key, json!({"client": {"ip": ip}})).await, "VALID");
        };
        for i in 0..10 {
            from(&key, &format!("198.51.100.{i}")).await;
            from(&key, &format!("198.51.100.{i}")).await;
            from(&other, &format!("2001:db8::{i}")).await;
        }
        // One after the other is not at once; neither is one network.
        for i in 0..30 {
            app.advance(Duration::from_mins(2));
            from(&other, &format!("192.0.2.{i}")).await;
        }
        assert_eq!(rows(&app).await, 0, "ten are allowed");
        for i in 0..11 {
            from(&key, &format!("203.0.113.{i}")).await;
        }
        let event = one(&app, &ada.project, "auth.suspicious").await;
        assert_eq!((&event["reason"], &event["id"], &event["count"]), (&json!("many_addresses"), &key["id"], &json!(11)));
        assert_eq!((event["addresses"].as_array().unwrap().len(), &event["window_seconds"]), (10, &json!(600)));
        for i in 0..20 {
            from(&key, &format!("192.0.2.{i}")).await;
        }
        assert_eq!(counts(&app, &ada.project, "auth.suspicious").await, [11]);
        app.advance(Duration::from_hours(1));
        until(SOON, vec![11, 20], async || counts(&app, &ada.project, "auth.suspicious").await).await;
    }

    async fn a_revoked_key_that_is_used_is_told_of_with_by_whom(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let project = ada.project.as_str();
        let key = app.key(&ada, json!({})).await;
        switched(&app, &ada, &key, "/disable").await;
        assert_eq!(code(&app, &ada, &key, json!({})).await, "DISABLED");
        assert_eq!(rows(&app).await, 0);
        switched(&app, &ada, &key, "/revoke").await;
        assert_eq!(code(&app, &ada, &key, json!({"client": {"ip": "198.51.100.7"}})).await, "REVOKED");
        let event = one(&app, project, "auth.suspicious").await;
        assert_eq!((&event["reason"], &event["id"], &event["count"]), (&json!("revoked_key_used"), &key["id"], &json!(1)));
        assert_eq!((&event["addresses"], &event["asked_by"]), (&json!(["198.51.100.7"]), &json!([ada.user])));
        // It called Keyward itself, with a text in its name that looks like a key.
        let agent = format!("curl/8 {}", NewSecret::generate("sk", &SystemRng).secret.expose());
        let call = app.get("/v1/keys/self").api_key(text(&key, "key")).header("user-agent", &agent);
        call.header("x-forwarded-for", "203.0.113.5").send().await.problem(401, "invalid_credentials");
        app.advance(Duration::from_hours(1));
        until(SOON, 2, async || told(&app, project, "auth.suspicious").await.len()).await;
        let event = told(&app, project, "auth.suspicious").await.remove(1);
        assert_eq!(event["addresses"], json!(["203.0.113.5"]));
        let agent = event["user_agents"][0].as_str().unwrap();
        assert!(agent.starts_with("curl/8 sk_") && agent.contains('…'), "{agent}");

        // So is a secret that was replaced, once its time is over.
        let key = app.key(&ada, json!({})).await;
        rotate(&app, &ada.token, &key, json!({"overlap": "1h"})).await.expect(200);
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        app.advance(Duration::from_hours(1));
        assert_eq!(code(&app, &ada, &key, json!({})).await, "EXPIRED");
        until(SOON, 3, async || told(&app, project, "auth.suspicious").await.len()).await;
        let event = told(&app, project, "auth.suspicious").await.remove(2);
        assert_eq!((&event["reason"], &event["superseded"], &event["id"]), (&json!("revoked_key_used"), &json!(true), &key["id"]));
        // One whose own time is over isn't.
        let key = app.key(&ada, json!({"expires_in": "1h"})).await;
        app.advance(Duration::from_hours(1));
        assert_eq!(code(&app, &ada, &key, json!({})).await, "EXPIRED");
        assert_eq!(told(&app, project, "auth.suspicious").await.len(), 3);
    }

    async fn failures_beyond_a_keys_habit_are_told_of(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let (calm, used_to_it, few) = (app.key(&ada, json!({})).await, app.key(&ada, json!({})).await, app.key(&ada, json!({})).await);
        let watched = Watched::default();
        let report = async |key: &Value, failures: usize, at: Timestamp| {
            let reports: Vec<_> = (0..failures).map(|_| json!({"key_id": key["id"], "at": at, "method": "GET", "endpoint": "/x", "status": 503, "duration_ms": 1})).collect();
            app.post("/v1/requests:record").token(&ada.token).json(&json!({"requests": reports})).send().await.expect(202);
        };
        // Twenty-five in each quarter of an hour.
        for _ in 0..24 {
            app.advance(Duration::from_mins(30));
            report(&used_to_it, 50, app.ctx.now()).await;
        }
        usage::flush(&app.ctx).await.unwrap();
        habits::look(&app.ctx, &watched).await.unwrap();
        app.advance(Duration::from_hours(2));
        habits::look(&app.ctx, &watched).await.unwrap();
        let before = told(&app, &ada.project, "auth.suspicious").await.len();
        report(&used_to_it, 60, app.ctx.now()).await;
        report(&calm, 20, app.ctx.now()).await;
        report(&few, 19, app.ctx.now()).await;
        usage::flush(&app.ctx).await.unwrap();
        for _ in 0..2 {
            // The service's own pass may have seen it first.
            habits::look(&app.ctx, &watched).await.unwrap();
        }
        until(SOON, before + 1, async || told(&app, &ada.project, "auth.suspicious").await.len()).await;
        let event = told(&app, &ada.project, "auth.suspicious").await.pop().unwrap();
        assert_eq!((&event["reason"], &event["id"], &event["count"]), (&json!("unusual_failures"), &calm["id"], &json!(20)));
        assert_eq!((&event["habit"], &event["window_seconds"]), (&json!(0.0), &json!(900)));
        // Once an hour, and not when it is over.
        report(&calm, 30, app.ctx.now()).await;
        usage::flush(&app.ctx).await.unwrap();
        habits::look(&app.ctx, &watched).await.unwrap();
        app.advance(Duration::from_hours(1));
        habits::look(&app.ctx, &watched).await.unwrap();
        assert_eq!(told(&app, &ada.project, "auth.suspicious").await.len(), before + 1);
    }

    async fn each_can_be_switched_off(engine: Engine) {
        let off = [
            MANY_KEYS, PROXY,
            ("KEYWARD_SUSPICION_GUESSES", "0"),
            ("KEYWARD_SUSPICION_ADDRESSES", "0"),
            ("KEYWARD_SUSPICION_REVOKED", "off"),
            ("KEYWARD_SUSPICION_FAILURES", "0"),
            ("KEYWARD_QUOTA_WARNING_PERCENT", "0"),
        ];
        let app = App::start_with(engine, &off).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": [{"name": "day", "limit": 30, "window": "1d"}]})).await;
        for i in 0..30 {
            guess(&app, &ada, "198.51.100.7").await;
            assert_eq!(code(&app, &ada, &key, json!({"client": {"ip": format!("192.0.2.{i}")}})).await, "VALID");
        }
        switched(&app, &ada, &key, "/revoke").await;
        for _ in 0..30 {
            assert_eq!(code(&app, &ada, &key, json!({})).await, "REVOKED");
        }
        usage::flush(&app.ctx).await.unwrap();
        habits::look(&app.ctx, &Watched::default()).await.unwrap();
        assert_eq!(rows(&app).await, 0);
        until(SOON, 30, async || wrong(&app, &ada.project, &Wrong::ALL).await).await;
        app.get(&path(&key, "")).token(&ada.token).send().await.expect(200);
    }
}
