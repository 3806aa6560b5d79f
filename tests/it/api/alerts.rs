//! `/v1/projects/{project}/alerts`: rules, what they refuse, who sees them, and what changing one does to how it stands.

use std::time::Duration;

use keyward::features::alerts::evaluate::evaluate;
use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, NO_KEY, join, question, team_of, text, texts};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

pub(super) const SETTINGS: &[(&str, &str)] =
    &[MANY_KEYS, LONG_SESSIONS, ("KEYWARD_DEFAULT_RATE_LIMIT", "0"), ("KEYWARD_PROJECTS_PER_USER", "0")];

/// A well-formed id that names nothing.
const NO_ALERT: &str = "alr_01K5ZV8QXW3M7C2R9T4B6D8F0G";

pub(super) fn of(who: &Session, rest: &str) -> String {
    format!("/v1/projects/{}/alerts{rest}", who.project)
}

/// The path of a rule.
pub(super) fn at(rule: &Value, rest: &str) -> String {
    format!("/v1/projects/{}/alerts/{}{rest}", text(rule, "project_id"), text(rule, "id"))
}

pub(super) async fn try_rule(app: &App, who: &Session, body: &Value) -> Answer {
    app.post(&of(who, "")).token(&who.token).json(body).send().await
}

/// A rule with these fields, about denied requests where nothing is said.
pub(super) async fn rule(app: &App, who: &Session, fields: Value) -> Value {
    let mut body = json!({"name": "a rule", "metric": "denied", "operator": ">=", "threshold": 3});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    try_rule(app, who, &body).await.expect(201).json()
}

/// Lets a round pass, and evaluates what is due.
pub(super) async fn round(app: &App) {
    app.advance(Duration::from_secs(15));
    evaluate(&app.ctx).await.unwrap();
}

pub(super) async fn get(app: &App, who: &Session, rule: &Value) -> Value {
    app.get(&at(rule, "")).token(&who.token).send().await.expect(200).json()
}

/// How a rule stands after a round.
pub(super) async fn state(app: &App, who: &Session, rule: &Value) -> (String, Value) {
    round(app).await;
    let found = get(app, who, rule).await;
    (text(&found, "state").to_owned(), found["last_value"].clone())
}

/// What became of a rule, oldest first.
pub(super) async fn history(app: &App, who: &Session, rule: &Value) -> Vec<Value> {
    let path = of(who, &format!("/history?alert={}", text(rule, "id")));
    let page = app.get(&path).token(&who.token).send().await.expect(200).json();
    let mut entries = page["data"].as_array().unwrap().clone();
    entries.reverse();
    entries
}

pub(super) async fn happened(app: &App, who: &Session, rule: &Value) -> Vec<String> {
    history(app, who, rule).await.iter().map(|entry| text(entry, "state").to_owned()).collect()
}

/// The data of a rule's events of a type, oldest first.
pub(super) async fn events(app: &App, rule: &Value, kind: &str) -> Vec<Value> {
    let sql = format!(
        "SELECT CAST(data AS text) FROM events WHERE type = '{kind}' AND resource_id = '{}' ORDER BY seq",
        text(rule, "id")
    );
    texts(app, sql).await.iter().map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// Asks for a scope that a key doesn't have.
pub(super) async fn denied(app: &App, who: &Session, key: &Value, times: usize) {
    for _ in 0..times {
        let answer = app.verify(who, question(key, json!({"scopes": ["nobody:has"]}))).await;
        assert_eq!(answer["code"], "INSUFFICIENT_SCOPE");
    }
}

async fn patch(app: &App, who: &Session, rule: &Value, body: Value) -> Answer {
    app.patch(&at(rule, "")).token(&who.token).json(&body).send().await
}

both_engines! {
    async fn a_rule_is_made_found_changed_and_removed(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let body = json!({"name": "many refusals", "description": "who is it?", "metric": "denied", "operator": ">", "threshold": 2.5});
        let create = || app.post(&of(&ada, "")).token(&ada.token).header("idempotency-key", "one").json(&body);
        let made = create().send().await.expect(201);
        let rule = made.json();
        assert_eq!(made.header("location"), at(&rule, ""));
        assert_eq!(create().send().await.expect(201).json(), rule, "the same request again");
        assert!(text(&rule, "id").starts_with("alr_"));
        let expected = json!({
            "id": rule["id"], "project_id": ada.project, "name": "many refusals", "description": "who is it?", "metric": "denied",
            "operator": ">", "threshold": 2.5, "window": "1h", "cooldown": "1h", "key_id": null, "emails": [], "remind": false,
            "is_active": true, "state": "no_data", "last_value": null, "last_evaluated_at": null, "fired_at": null,
            "resolved_at": null, "is_muted_until": null, "created_at": "2031-05-06T12:00:00Z", "updated_at": "2031-05-06T12:00:00Z",
        });
        assert_eq!(rule, expected);
        assert_eq!(get(&app, &ada, &rule).await, expected);
        let changed = patch(&app, &ada, &rule, json!({"name": "few", "description": null, "threshold": 3, "cooldown": 0, "window": 90})).await;
        let changed = changed.expect(200).json();
        assert_eq!((&changed["name"], &changed["description"], &changed["threshold"]), (&json!("few"), &Value::Null, &json!(3)));
        assert_eq!((&changed["window"], &changed["cooldown"]), (&json!("90s"), &json!(0)));
        app.delete(&at(&rule, "")).token(&ada.token).send().await.expect(204);
        app.delete(&at(&rule, "")).token(&ada.token).send().await.problem(404, "alert_not_found");
        app.get(&at(&rule, "")).token(&ada.token).send().await.problem(404, "alert_not_found");
        let actions = texts(&app, "SELECT action FROM audit_entries WHERE resource_type = 'alert' ORDER BY at, id".to_owned()).await;
        assert_eq!(actions.len(), 3);
        for action in ["alert.create", "alert.update", "alert.delete"] {
            assert!(actions.iter().any(|found| found == action), "{actions:?}");
        }
    }

    async fn what_breaks_a_rule_is_refused(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let (ada, ben) = (app.person("ada").await, app.person("ben").await);
        let theirs = app.key(&ben, json!({})).await;
        let good = json!({"name": "n", "metric": "denied", "operator": ">=", "threshold": 1});
        let with = |field: &str, value: Value| { let mut body = good.clone(); body[field] = value; body };
        for (field, value) in [
            ("name", json!("")), ("name", json!("x".repeat(101))), ("name", json!("a\nb")), ("name", json!("a\u{7f}b")), ("name", json!(7)),
            ("description", json!("x".repeat(1001))), ("metric", json!("weather")), ("metric", json!("Denied")),
            ("operator", json!("=")), ("operator", json!("!=")), ("threshold", json!("3")), ("threshold", json!(null)),
            ("threshold", json!(-1)), ("threshold", json!(1.1e12)), ("threshold", json!(f64::MAX)), ("window", json!(59)), ("window", json!("59s")), ("window", json!("31d")),
            ("window", json!(2_592_001)), ("window", json!("1w")), ("window", json!(null)), ("cooldown", json!("31d")), ("cooldown", json!(-1)),
            ("key_id", json!(NO_KEY)), ("key_id", theirs["id"].clone()), ("key_id", json!("x")), ("emails", json!("a@b")),
            ("is_active", json!("yes")), ("nonsense", json!(1)),
        ] {
            let answer = try_rule(&app, &ada, &with(field, value.clone())).await;
            assert_eq!(answer.status, 400, "{field} {value}: {}", answer.text());
            assert_eq!(answer.json()["errors"][0]["field"], field, "{}", answer.text());
        }
        assert_eq!(try_rule(&app, &ada, &with("key_id", theirs["id"].clone())).await.json()["errors"][0]["code"], "key_not_found");
        for (metric, most) in [("error_rate", 1.0), ("quota_used_percent", 100.0), ("latency_p95_ms", 86_400_000.0), ("expires_in_days", 36_500.0)] {
            let body = |threshold: f64| json!({"name": metric, "metric": metric, "operator": ">=", "threshold": threshold});
            try_rule(&app, &ada, &body(most * 1.001)).await.problem(400, "invalid_request");
            try_rule(&app, &ada, &body(most)).await.expect(201);
        }
        // Neither is JSON, or a number that can be kept.
        for threshold in ["NaN", "Infinity", "-Infinity", "1e999", "01"] {
            let body = format!(r#"{{"name": "n", "metric": "denied", "operator": ">", "threshold": {threshold}}}"#);
            assert_eq!(app.post(&of(&ada, "")).token(&ada.token).raw(body).send().await.status, 400, "{threshold}");
        }
        let mut reminding = with("remind", json!(true));
        reminding["cooldown"] = json!(59);
        assert_eq!(try_rule(&app, &ada, &reminding).await.json()["errors"][0]["field"], "remind");
        try_rule(&app, &ada, &good).await.expect(201);
        try_rule(&app, &ada, &good).await.problem(409, "alert_exists");
        try_rule(&app, &ben, &good).await.expect(201);
        // A patch breaks the same rules.
        let other = rule(&app, &ada, json!({"name": "other"})).await;
        for (body, code) in [
            (json!({"name": "n"}), (409, "alert_exists")), (json!({"name": null}), (400, "invalid_request")),
            (json!({"metric": "error_rate"}), (400, "invalid_request")), (json!({"window": "1s"}), (400, "invalid_request")),
            (json!({"key_id": theirs["id"]}), (400, "invalid_request")), (json!({"threshold": null}), (400, "invalid_request")),
            (json!({"x": 1}), (400, "unknown_field")),
        ] {
            patch(&app, &ada, &other, body).await.problem(code.0, code.1);
        }
        assert_eq!(get(&app, &ada, &other).await, other);
    }

    async fn mail_is_refused_where_none_can_be_sent(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let body = json!({"name": "n", "metric": "denied", "operator": ">=", "threshold": 1, "emails": ["ops@example.com"]});
        let problem = try_rule(&app, &ada, &body).await.problem(400, "invalid_request");
        assert_eq!(problem["errors"][0]["code"], "mail_not_configured");
        let rule = rule(&app, &ada, json!({})).await;
        let problem = patch(&app, &ada, &rule, json!({"emails": ["ops@example.com"]})).await.problem(400, "invalid_request");
        assert_eq!(problem["errors"][0]["code"], "mail_not_configured");
        patch(&app, &ada, &rule, json!({"emails": []})).await.expect(200);
    }

    async fn mail_goes_to_whom_the_operator_allows(engine: Engine) {
        let mail = [
            ("KEYWARD_SMTP_HOST", "127.0.0.1"), ("KEYWARD_SMTP_TLS", "none"), ("KEYWARD_SMTP_PORT", "9"),
            ("KEYWARD_SMTP_FROM", "keyward@example.com"), ("KEYWARD_MAIL_RECIPIENTS", "@corp.example"), ("KEYWARD_MAIL_PER_DAY", "5"),
        ];
        let app = App::start_with(engine, &[SETTINGS, &mail].concat()).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let body = |emails: Value| json!({"name": "n", "metric": "denied", "operator": ">=", "threshold": 1, "emails": emails});
        for (emails, field, code) in [
            (json!(["ops@corp.example", "ops@evil.example"]), "emails[1]", "address_not_allowed"),
            (json!(["ops"]), "emails[0]", "invalid_value"),
            (json!(["a@corp.example\r\nBcc: x@evil.example"]), "emails[0]", "invalid_value"),
            (json!((0..11).map(|n| format!("a{n}@corp.example")).collect::<Vec<_>>()), "emails", "invalid_value"),
        ] {
            let problem = try_rule(&app, &ada, &body(emails)).await.problem(400, "invalid_request");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!(field), &json!(code)));
        }
        let emails = json!(["ops@corp.example", "OPS@corp.example", "dev@corp.example"]);
        let rule = rule(&app, &ada, json!({"name": "many refusals", "window": "1m", "emails": emails, "cooldown": 0})).await;
        assert_eq!(rule["emails"], json!(["ops@corp.example", "dev@corp.example"]), "each once");
        let mails = async || texts(&app, "SELECT recipient || ' ' || subject FROM mails ORDER BY id".to_owned()).await;
        denied(&app, &ada, &key, 3).await;
        assert_eq!(state(&app, &ada, &rule).await.0, "firing");
        let mut fired = mails().await;
        fired.sort();
        assert_eq!(fired, ["dev@corp.example [FIRING] many refusals", "ops@corp.example [FIRING] many refusals"]);
        let letters = texts(&app, "SELECT text FROM mails".to_owned()).await;
        for word in ["Rule: denied >= 3 in 1m", "Value: 3", "Alert: many refusals", ada.project.as_str(), text(&rule, "id")] {
            assert!(letters[0].contains(word), "{word}: {}", letters[0]);
        }
        app.advance(Duration::from_mins(3));
        assert_eq!(state(&app, &ada, &rule).await.0, "ok");
        assert_eq!(mails().await.iter().filter(|mail| mail.contains("[RESOLVED]")).count(), 2);
        // A test says so, and that the project has caused as many mails today as it may.
        let tried = app.post(&at(&rule, "/test")).token(&ada.token).send().await.expect(202).json();
        assert_eq!((&tried["emails"], &tried["emails_refused"]), (&json!(["ops@corp.example"]), &json!(["dev@corp.example"])));
        assert_eq!(mails().await.iter().filter(|mail| mail.contains("[TEST]")).count(), 1);
        // Nobody hears less because no mail can be written.
        denied(&app, &ada, &key, 3).await;
        assert_eq!(state(&app, &ada, &rule).await.0, "firing");
        assert_eq!((mails().await.len(), events(&app, &rule, "alert.fired").await.len()), (5, 3));
    }

    async fn a_project_has_at_most_200(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        for n in 0..200 {
            rule(&app, &ada, json!({"name": format!("rule {n}")})).await;
        }
        let body = json!({"name": "one more", "metric": "denied", "operator": ">=", "threshold": 1});
        try_rule(&app, &ada, &body).await.problem(409, "too_many_alerts");
        let mut names = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = app.get(&of(&ada, &format!("?limit=90{cursor}"))).token(&ada.token).send().await.expect(200).json();
            names.extend(page["data"].as_array().unwrap().iter().map(|rule| text(rule, "name").to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 200);
        for query in ["?limit=0", "?limit=201", "?cursor=x", "?state=red", "?nonsense=1"] {
            assert_eq!(app.get(&of(&ada, query)).token(&ada.token).send().await.status, 400, "{query}");
        }
        let at = of(&ada, "?state=firing");
        assert_eq!(app.get(&at).token(&ada.token).send().await.expect(200).json()["data"], json!([]));
        // All of them are evaluated in one round.
        round(&app).await;
        assert_eq!(app.count("SELECT count(*) FROM alert_states WHERE state = 'ok' AND last_value = 0").await, 200);
        assert!(app.metrics().await.contains("\nkeyward_alert_rules 200\n"));
    }

    async fn a_rule_is_seen_and_changed_by_who_may(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        for name in ["viewer", "member", "admin", "stranger"] {
            app.person(name).await;
        }
        let team = team_of(&app, &ada, &[("viewer", "viewer"), ("member", "member")]).await;
        join(&app, &ada, &team.project, "admin", "admin").await;
        let made = rule(&app, &team, json!({})).await;
        let stranger = app.login("stranger", crate::harness::PASSWORD).await;
        let elsewhere = rule(&app, &stranger, json!({})).await;
        for (name, sees, changes) in [("viewer", 200, 403), ("member", 200, 403), ("admin", 200, 200), ("stranger", 404, 404)] {
            let who = app.login(name, crate::harness::PASSWORD).await;
            assert_eq!(app.get(&of(&team, "")).token(&who.token).send().await.status, sees, "{name}");
            assert_eq!(app.get(&of(&team, "/history")).token(&who.token).send().await.status, sees, "{name}");
            assert_eq!(patch(&app, &who, &made, json!({"threshold": 4})).await.status, changes, "{name}");
        }
        // Another project's rule isn't there, in whichever project it is looked for.
        for foreign in [text(&elsewhere, "id"), NO_ALERT, "alr_x"] {
            let path = of(&team, &format!("/{foreign}"));
            app.get(&path).token(&ada.token).send().await.problem(404, "alert_not_found");
            app.patch(&path).token(&ada.token).json(&json!({})).send().await.problem(404, "alert_not_found");
            app.delete(&path).token(&ada.token).send().await.problem(404, "alert_not_found");
            app.post(&format!("{path}/test")).token(&ada.token).send().await.problem(404, "alert_not_found");
        }
        let page = of(&team, &format!("/history?alert={}", text(&elsewhere, "id")));
        assert_eq!(app.get(&page).token(&ada.token).send().await.expect(200).json()["data"], json!([]));
    }

    async fn another_question_begins_anew(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let rule = rule(&app, &ada, json!({"cooldown": "1d"})).await;
        denied(&app, &ada, &key, 3).await;
        assert_eq!(state(&app, &ada, &rule).await, ("firing".to_owned(), json!(3)));
        // What it is called is nothing new.
        let same = patch(&app, &ada, &rule, json!({"name": "renamed", "description": "d"})).await.expect(200).json();
        assert_eq!((&same["state"], &same["last_value"]), (&json!("firing"), &json!(3)));
        assert_eq!(state(&app, &ada, &rule).await.0, "firing");
        let anew = patch(&app, &ada, &rule, json!({"threshold": 2})).await.expect(200).json();
        assert_eq!((&anew["state"], &anew["last_value"], &anew["is_muted_until"]), (&json!("no_data"), &Value::Null, &Value::Null));
        assert_eq!(state(&app, &ada, &rule).await, ("firing".to_owned(), json!(3)), "no cooldown of the former question");
        let off = patch(&app, &ada, &rule, json!({"is_active": false})).await.expect(200).json();
        assert_eq!((&off["state"], &off["is_active"]), (&json!("no_data"), &json!(false)));
        assert_eq!(state(&app, &ada, &rule).await, ("no_data".to_owned(), Value::Null), "it isn't evaluated");
        patch(&app, &ada, &rule, json!({"is_active": true})).await.expect(200);
        assert_eq!(state(&app, &ada, &rule).await.0, "firing");
        app.delete(&at(&rule, "")).token(&ada.token).send().await.expect(204);
        let entries = history(&app, &ada, &rule).await;
        let told: Vec<_> = entries.iter().map(|entry| (text(entry, "state"), text(entry, "reason"))).collect();
        assert_eq!(told, [
            ("fired", "condition"), ("resolved", "changed"), ("fired", "condition"), ("resolved", "deactivated"),
            ("fired", "condition"), ("resolved", "deleted"),
        ]);
        assert_eq!((&entries[1]["threshold"], &entries[2]["threshold"]), (&json!(3), &json!(2)), "what it said at the time");
        assert_eq!(events(&app, &rule, "alert.fired").await.len(), 3);
        let resolved: Vec<_> = events(&app, &rule, "alert.resolved").await.iter().map(|data| data["reason"].clone()).collect();
        assert_eq!(resolved, [json!("changed"), json!("deactivated"), json!("deleted")]);
        assert!(!app.metrics().await.contains("keyward_alert_firing{"), "gone with the rule");
    }

    async fn a_test_is_told_and_changes_nothing(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let rule = rule(&app, &ada, json!({})).await;
        let test = || app.post(&at(&rule, "/test")).token(&ada.token);
        let done = test().send().await.expect(202).json();
        assert_eq!(done, json!({"alert_id": rule["id"], "at": "2031-05-06T12:00:00Z", "event": "alert.fired", "emails": [], "emails_refused": []}));
        let told = events(&app, &rule, "alert.fired").await;
        assert_eq!((told.len(), &told[0]["test"], &told[0]["id"]), (1, &json!(true), &rule["id"]));
        assert_eq!(get(&app, &ada, &rule).await, rule);
        assert_eq!(happened(&app, &ada, &rule).await, [""; 0]);
        let refused = test().send().await;
        refused.problem(429, "rate_limited");
        assert_eq!(refused.header("retry-after"), "10");
        app.advance(Duration::from_secs(10));
        test().send().await.expect(202);
        for n in 0..9 {
            let other = self::rule(&app, &ada, json!({"name": format!("rule {n}")})).await;
            app.post(&at(&other, "/test")).token(&ada.token).send().await.expect(202);
        }
        let last = self::rule(&app, &ada, json!({"name": "the last"})).await;
        app.post(&at(&last, "/test")).token(&ada.token).send().await.problem(429, "rate_limited");
        app.advance(Duration::from_mins(1));
        app.post(&at(&last, "/test")).token(&ada.token).send().await.expect(202);
        test().json(&json!({"x": 1})).send().await.problem(400, "unknown_field");
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'alert.test' AND outcome = 'success'").await, 12);
    }

    async fn names_are_tenants_words_in_the_metrics(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let name = "a\"} 1 # {x=\"\\é";
        let rule = rule(&app, &ada, json!({"name": name})).await;
        denied(&app, &ada, &key, 3).await;
        assert_eq!(state(&app, &ada, &rule).await.0, "firing");
        let metrics = app.metrics().await;
        let line = format!(
            "keyward_alert_firing{{alert=\"{}\",metric=\"denied\",name=\"a\\\"}} 1 # {{x=\\\"\\\\é\",project=\"{}\"}} 1",
            text(&rule, "id"), ada.project
        );
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
        for line in ["keyward_alerts_firing 1", "keyward_alert_rules 1", "keyward_alerts_fired_total 1", "keyward_alerts_resolved_total 0"] {
            assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
        }
        assert!(metrics.contains("keyward_alert_evaluation_duration_seconds_count"));
        app.advance(Duration::from_hours(2));
        assert_eq!(state(&app, &ada, &rule).await.0, "ok");
        let metrics = app.metrics().await;
        assert!(!metrics.contains("keyward_alert_firing{") && metrics.contains("\nkeyward_alerts_firing 0\n"), "{metrics}");
    }

    async fn a_project_with_many_firing_rules_hides_no_other(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let (ada, ben) = (app.person("ada").await, app.person("ben").await);
        let key = app.key(&ada, json!({})).await;
        denied(&app, &ada, &key, 3).await;
        let mut rules = Vec::new();
        for n in 0..20 {
            rules.push(rule(&app, &ada, json!({"name": format!("rule {n}")})).await);
        }
        round(&app).await;
        let last = rule(&app, &ada, json!({"name": "the last"})).await;
        assert_eq!(state(&app, &ada, &last).await.0, "firing");
        let theirs = app.key(&ben, json!({})).await;
        denied(&app, &ben, &theirs, 3).await;
        let other = rule(&app, &ben, json!({"name": "another's"})).await;
        assert_eq!(state(&app, &ben, &other).await.0, "firing");
        let metrics = app.metrics().await;
        let shown = |rule: &Value| metrics.contains(&format!("keyward_alert_firing{{alert=\"{}\"", text(rule, "id")));
        assert!(rules.iter().all(shown) && !shown(&last), "the oldest: {metrics}");
        assert!(shown(&other), "{metrics}");
        assert_eq!(metrics.matches("keyward_alert_firing{").count(), 21);
        assert!(metrics.contains("\nkeyward_alerts_firing 22\n"), "{metrics}");
    }

    async fn a_deleted_project_tells_nothing(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let team = team_of(&app, &ada, &[]).await;
        let key = app.key(&team, json!({})).await;
        let rule = rule(&app, &team, json!({})).await;
        denied(&app, &team, &key, 3).await;
        assert_eq!(state(&app, &team, &rule).await.0, "firing");
        app.delete(&format!("/v1/projects/{0}?confirm={0}", team.project)).token(&ada.token).send().await.expect(204);
        app.advance(Duration::from_hours(2));
        round(&app).await;
        assert_eq!(events(&app, &rule, "alert.resolved").await.len(), 0);
        assert!(!app.metrics().await.contains("keyward_alert_firing{"));
        app.post(&format!("/v1/projects/{}/restore", team.project)).token(&ada.token).send().await.expect(200);
        assert_eq!(state(&app, &team, &rule).await.0, "ok");
        assert_eq!(events(&app, &rule, "alert.resolved").await.len(), 1);
    }
}
