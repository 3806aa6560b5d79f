//! `POST /v1/keys/verify:batch`: many questions at once, decided as if they had been asked one by one.

use serde_json::{Value, json};

use super::support::{code, patched, question, standing, switched, text, used};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

async fn ask(app: &App, who: &Session, questions: &[Value]) -> Answer {
    app.post("/v1/keys/verify:batch").token(&who.token).json(&json!({"questions": questions})).send().await
}

fn codes(answer: &Answer) -> Vec<String> {
    answer.json()["answers"].as_array().unwrap().iter().map(|answer| text(answer, "code").to_owned()).collect()
}

fn minute(limit: u32) -> Value {
    json!([{"name": "minute", "limit": limit, "window": "1m"}])
}

both_engines! {
    async fn answers_stand_in_the_order_of_the_questions(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let (good, off) = (app.key(&ada, json!({"name": "good", "scopes": ["a:*"]})).await, app.key(&ada, json!({"name": "off"})).await);
        let foreign = app.key(&bob, json!({})).await;
        switched(&app, &ada, &off, "/disable").await;
        let questions = [json!({"key": "x"}), question(&off, json!({})), question(&good, json!({"scopes": ["a:b"]})), question(&foreign, json!({})),
            question(&good, json!({"scopes": ["b:c"]})), question(&good, json!({"dry_run": true}))];
        let answer = ask(&app, &ada, &questions).await.expect(200);
        assert_eq!(codes(&answer), ["MALFORMED", "DISABLED", "VALID", "NOT_FOUND", "INSUFFICIENT_SCOPE", "VALID"]);
        let answers = answer.json()["answers"].as_array().unwrap().clone();
        assert_eq!((&answers[1]["name"], &answers[2]["name"], answers[3].get("name")), (&json!("off"), &json!("good"), None));
        assert!(answers.iter().all(|one| one["request_id"] == answer.header("x-request-id")));
        assert_eq!(answers.iter().filter(|one| one.get("trace").is_some()).count(), 1);
        // Each as if it had been asked alone.
        for (question, together) in questions.iter().zip(&answers) {
            let alone = app.verify(&ada, question.clone()).await;
            let members = |answer: &Value| answer.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!((members(&alone), &alone["code"]), (members(together), &together["code"]));
        }
        assert_eq!(ask(&app, &ada, &[]).await.expect(200).json(), json!({"answers": []}));
    }

    async fn a_hundred_are_answered_and_one_more_is_refused(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": minute(1000)})).await;
        let many = |n: usize| vec![question(&key, json!({})); n];
        let answers = codes(&ask(&app, &ada, &many(100)).await.expect(200));
        assert!(answers.len() == 100 && answers.iter().all(|code| code == "VALID"), "{answers:?}");
        let problem = ask(&app, &ada, &many(101)).await.problem(400, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], "questions");
        assert_eq!(used(&app, &ada, &key).await["minute"], 100);
    }

    async fn one_malformed_question_refuses_all(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": minute(1000)})).await;
        let before = standing(&app, &ada, &key).await;
        let scopes: Vec<_> = (0..257).map(|n| format!("a:{n}")).collect();
        for (bad, code, field) in [
            (json!({"scope": []}), "unknown_field", "questions[2].scope"),
            (json!({"client": {"IP": "192.0.2.1"}}), "unknown_field", "questions[2].client.IP"),
            (json!({"cost": 0}), "invalid_request", "questions[2].cost"),
            (json!({"cost": 1.5}), "invalid_request", "questions[2].cost"),
            (json!({"scopes": ["nonsense"]}), "invalid_request", "questions[2].scopes[0]"),
            (json!({"scopes": scopes}), "invalid_request", "questions[2].scopes"),
            (json!({"client": {"ip": "here"}}), "invalid_request", "questions[2].client.ip"),
            (json!({"client": []}), "invalid_request", "questions[2].client"),
            (json!({"dry_run": "no"}), "invalid_request", "questions[2].dry_run"),
            (json!({"key": 1}), "invalid_request", "questions[2].key"),
        ] {
            let good = || question(&key, json!({}));
            let problem = ask(&app, &ada, &[good(), good(), question(&key, bad), good()]).await.problem(400, code);
            assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        }
        for no_object in [json!([key["key"]]), json!(key["key"]), Value::Null, json!({})] {
            let problem = ask(&app, &ada, &[question(&key, json!({})), no_object]).await.problem(400, "invalid_request");
            assert!(!problem.to_string().contains(text(&key, "key")), "{problem}");
        }
        for body in [json!({}), json!({"questions": null}), json!({"questions": {}}), json!([[question(&key, json!({}))]])] {
            app.post("/v1/keys/verify:batch").token(&ada.token).json(&body).send().await.problem(400, "invalid_request");
        }
        let extra = json!({"questions": [question(&key, json!({}))], "dry_run": true});
        app.post("/v1/keys/verify:batch").token(&ada.token).json(&extra).send().await.problem(400, "unknown_field");
        assert_eq!(standing(&app, &ada, &key).await, before);
    }

    async fn an_earlier_question_uses_up_the_limit_of_a_later_one(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let (key, other) = (app.key(&ada, json!({"limits": minute(5)})).await, app.key(&ada, json!({"limits": minute(1)})).await);
        let cost = |cost: u32| question(&key, json!({"cost": cost}));
        let dry = question(&key, json!({"dry_run": true}));
        let answer = ask(&app, &ada, &[cost(3), dry.clone(), cost(3), cost(2), dry, question(&other, json!({})), cost(1), question(&other, json!({}))]).await;
        assert_eq!(codes(&answer), ["VALID", "VALID", "RATE_LIMITED", "VALID", "RATE_LIMITED", "VALID", "RATE_LIMITED", "RATE_LIMITED"]);
        let answers = answer.json()["answers"].as_array().unwrap().clone();
        let left: Vec<_> = answers.iter().map(|one| one["limits"][0]["remaining"].as_u64().unwrap()).collect();
        assert_eq!(left, [2, 2, 2, 0, 0, 0, 0, 0]);
        assert_eq!((&answers[2]["violated"], &answers[2]["retry_after_seconds"]), (&json!(["minute"]), &json!(61)));
        // It tells of many keys: of none in its headers.
        assert_eq!((answer.header("ratelimit"), answer.header("retry-after")), ("", ""));
    }

    async fn it_asks_for_the_same_permission_as_one_question(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:read"], "limits": minute(2)})).await;
        let questions = json!({"questions": [question(&key, json!({}))]});
        app.post("/v1/keys/verify:batch").json(&questions).send().await.problem(401, "unauthenticated");
        let call = || app.post("/v1/keys/verify:batch").api_key(text(&key, "key")).json(&questions).send();
        call().await.problem(403, "forbidden");
        patched(&app, &ada, &key, json!({"scopes": ["keyward:keys:verify"]})).await;
        // The caller's own limit isn't spent by asking, but by being asked about.
        assert_eq!(codes(&call().await.expect(200)), ["VALID"]);
        assert_eq!(used(&app, &ada, &key).await["minute"], 1);
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        assert_eq!(codes(&call().await.expect(200)), ["RATE_LIMITED"]);
    }
}
