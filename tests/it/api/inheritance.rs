//! A key passes on no more than it has: what it makes is restricted as it is, and itself it doesn't change.

use serde_json::{Value, json};

use super::support::{MANY_KEYS, PROXY, code, path, switched, system_key, team_of, text};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

const MAKER: &[&str] = &["keyward:keys:create", "keyward:keys:update", "keyward:keys:read", "orders:read"];

/// Each restriction: a value that lets the tests' own calls through, and others that aren't the same.
fn restrictions() -> Vec<(&'static str, Value, Vec<Value>)> {
    let opening = |from: &str, to: &str| json!([{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": from, "to": to, "timezone": "UTC"}]);
    vec![
        ("ip_allow", json!(["127.0.0.0/8"]), vec![json!(["127.0.0.1"]), json!(["0.0.0.0/0", "::/0"]), json!([])]),
        ("schedule", opening("06:00", "18:00"), vec![opening("00:00", "24:00"), opening("12:00", "13:00")]),
        (
            "method_allow",
            json!(["POST", "PATCH", "GET"]),
            vec![json!(["POST"]), json!(["POST", "PATCH", "GET", "DELETE"])],
        ),
        ("path_allow", json!(["/v1/**", "/generate-key"]), vec![json!(["/**"]), json!(["/v1/**"])]),
    ]
}

async fn make(app: &App, credential: &str, who: &Session, mut body: Value) -> Answer {
    body["name"] = json!("made");
    app.post(&format!("/v1/projects/{}/keys", who.project)).token(credential).json(&body).send().await
}

async fn patch(app: &App, credential: &str, key: &Value, body: &Value) -> Answer {
    app.patch(&path(key, "")).token(credential).json(body).send().await
}

async fn get(app: &App, who: &Session, key: &Value) -> Value {
    app.get(&path(key, "")).token(&who.token).send().await.expect(200).json()
}

both_engines! {
    async fn what_a_restricted_key_makes_is_restricted_as_it_is(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for (field, value, others) in restrictions() {
            let maker = app.key(&ada, json!({"scopes": MAKER, field: value})).await;
            let secret = text(&maker, "key");
            assert_eq!(make(&app, secret, &ada, json!({})).await.expect(201).json()[field], value, "{field}: taken over");
            assert_eq!(make(&app, secret, &ada, json!({field: null})).await.expect(201).json()[field], value, "{field}: null says nothing");
            assert_eq!(make(&app, secret, &ada, json!({field: value})).await.expect(201).json()[field], value, "{field}: the same");
            assert_eq!(app.post("/generate-key").api_key(secret).send().await.expect(201).json()[field], value, "{field}: the simple route");
            for other in &others {
                make(&app, secret, &ada, json!({field: other})).await.problem(403, "restriction_not_held");
                app.post("/generate-key").api_key(secret).json(&json!({field: other})).send().await.problem(403, "restriction_not_held");
            }
            // And what that one makes as well.
            let child = make(&app, secret, &ada, json!({"scopes": MAKER})).await.expect(201).json();
            let grandchild = make(&app, text(&child, "key"), &ada, json!({})).await.expect(201).json();
            assert_eq!(grandchild[field], value, "{field}");
            // A key without the restriction, and a person, say what they like.
            let free = app.key(&ada, json!({"scopes": MAKER})).await;
            for credential in [text(&free, "key"), &ada.token] {
                assert_eq!(make(&app, credential, &ada, json!({field: others[0]})).await.expect(201).json()[field], others[0]);
            }
        }
    }

    async fn what_is_taken_over_holds(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, PROXY]).await;
        let ada = app.person("ada").await;
        let maker = app.key(&ada, json!({"scopes": MAKER, "ip_allow": ["192.0.2.0/24"]})).await;
        let call = app.post("/generate-key").api_key(text(&maker, "key")).header("x-forwarded-for", "192.0.2.7");
        let made = call.json(&json!({"scopes": ["orders:read"]})).send().await.expect(201).json();
        assert_eq!(code(&app, &ada, &made, json!({"client": {"ip": "192.0.2.8"}})).await, "VALID");
        for elsewhere in [json!({"client": {"ip": "198.51.100.1"}}), json!({})] {
            assert_eq!(code(&app, &ada, &made, elsewhere).await, "IP_NOT_ALLOWED");
        }
    }

    async fn a_key_outlives_its_maker_no_more_than_it_may(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let maker = app.key(&ada, json!({"scopes": MAKER, "expires_in": "10h"})).await;
        let secret = text(&maker, "key");
        for (body, end) in [
            (json!({}), "2031-05-06T22:00:00Z"),
            (json!({"expires_in": null, "expires_at": null}), "2031-05-06T22:00:00Z"),
            (json!({"expires_in": "10h"}), "2031-05-06T22:00:00Z"),
            (json!({"expires_in": "1h"}), "2031-05-06T13:00:00Z"),
            (json!({"expires_at": "2031-05-06T21:59:59Z"}), "2031-05-06T21:59:59Z"),
            (json!({"expires_in": "1d", "expires_at": "2031-05-06T14:00:00Z"}), "2031-05-06T14:00:00Z"),
        ] {
            assert_eq!(make(&app, secret, &ada, body.clone()).await.expect(201).json()["expires_at"], end, "{body}");
        }
        for body in [json!({"expires_in": 36001}), json!({"expires_in": "30d"}), json!({"expires_at": "2031-05-06T22:00:00.000001Z"})] {
            make(&app, secret, &ada, body).await.problem(403, "restriction_not_held");
        }
        // A project's default that is nearer counts.
        app.patch(&format!("/v1/projects/{}/config", ada.project)).token(&ada.token).json(&json!({"default_key_expiry": "2h"})).send().await.expect(200);
        assert_eq!(make(&app, secret, &ada, json!({})).await.expect(201).json()["expires_at"], "2031-05-06T14:00:00Z");
    }

    async fn a_restricted_key_loosens_nothing_of_others(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let mut all = restrictions();
        all.push(("expires_at", json!("2031-05-06T22:00:00Z"), vec![json!("2031-05-06T22:00:01Z")]));
        for (field, value, others) in all {
            let caller = app.key(&ada, json!({"scopes": MAKER, field: value})).await;
            let secret = text(&caller, "key");
            let tight = app.key(&ada, json!({field: value})).await;
            let wanted = others.iter().chain([&Value::Null]);
            for other in wanted {
                patch(&app, secret, &tight, &json!({field: other})).await.problem(403, "restriction_not_held");
                // Together with something that it may.
                patch(&app, secret, &tight, &json!({"name": "x", field: other})).await.problem(403, "restriction_not_held");
            }
            assert_eq!((&get(&app, &ada, &tight).await["name"], &get(&app, &ada, &tight).await[field]), (&json!("test"), &value));
            // What isn't about it, what changes nothing of it, and what makes the other the same.
            patch(&app, secret, &tight, &json!({"name": "y", "owner": "o", field: value})).await.expect(200);
            let loose = app.key(&ada, json!({})).await;
            patch(&app, secret, &loose, &json!({field: null, "name": "z"})).await.expect(200);
            patch(&app, secret, &loose, &json!({field: others[0]})).await.problem(403, "restriction_not_held");
            patch(&app, secret, &loose, &json!({field: value})).await.expect(200);
            // What it holds itself isn't handed to a key that is freer.
            let freer = app.key(&ada, json!({})).await;
            patch(&app, secret, &freer, &json!({"scopes": ["orders:read"]})).await.problem(403, "restriction_not_held");
            patch(&app, secret, &tight, &json!({"scopes": ["orders:read"]})).await.expect(200);
            patch(&app, secret, &tight, &json!({"scopes": []})).await.expect(200);
            // Of what doesn't restrict it, it changes what it likes.
            let unrestricted = app.key(&ada, json!({"scopes": MAKER})).await;
            patch(&app, text(&unrestricted, "key"), &tight, &json!({field: null})).await.expect(200);
        }
    }

    async fn a_key_never_changes_itself(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let team = team_of(&app, &ada, &[]).await;
        let key = app.key(&team, json!({"scopes": ["keyward:*"], "limits": [{"name": "minute", "limit": 50, "window": "1m"}]})).await;
        let before = get(&app, &team, &key).await;
        let calls = |credential: &str| {
            [
                app.patch(&path(&key, "")).json(&json!({})),
                app.patch(&path(&key, "")).json(&json!({"name": "x"})),
                app.patch(&path(&key, "")).json(&json!({"limits": null})),
                app.patch(&path(&key, "")).json(&json!({"scopes": []})),
                app.put(&path(&key, "/limits")).json(&json!({"limits": []})),
                app.post(&path(&key, "/limits/reset")),
                app.post(&path(&key, "/enable")),
                app.post(&path(&key, "/transfer")).json(&json!({"user_id": ada.user})),
            ]
            .map(|call| call.api_key(credential))
        };
        for call in calls(text(&key, "key")) {
            call.send().await.problem(403, "own_key");
        }
        let after = get(&app, &team, &key).await;
        assert_eq!((&after["name"], &after["limits"], &after["updated_at"]), (&before["name"], &before["limits"], &before["updated_at"]));
        let counted = app.get(&path(&key, "/limits")).token(&ada.token).send().await.expect(200).json();
        assert_eq!(counted["limits"][0]["used"], 8, "not set back");
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE outcome = 'success' AND action IN ('key.update', 'key.reset_limits', 'key.enable', 'key.transfer')").await, 0);
        // By its former secret it is the same key.
        let new = app.post(&path(&key, "/rotate")).api_key(text(&key, "key")).send().await.expect(200).json();
        for credential in [&key, &new] {
            app.patch(&path(&key, "")).api_key(text(credential, "key")).json(&json!({"name": "x"})).send().await.problem(403, "own_key");
        }
        // Another key may change it, and it may harm itself.
        let other = app.key(&team, json!({"scopes": ["keyward:*"]})).await;
        app.patch(&path(&key, "")).api_key(text(&other, "key")).json(&json!({"name": "x"})).send().await.expect(200);
        app.post(&path(&key, "/disable")).api_key(text(&new, "key")).send().await.expect(200);
        app.post(&path(&key, "/enable")).api_key(text(&new, "key")).send().await.problem(401, "invalid_credentials");
        switched(&app, &ada, &key, "/enable").await;
        app.post(&path(&key, "/revoke")).api_key(text(&new, "key")).send().await.expect(200);
        let confirm = format!("?confirm={}", text(&other, "id"));
        app.delete(&path(&other, &confirm)).api_key(text(&other, "key")).send().await.expect(204);
        // The operator's key of the system is no exception.
        let root = system_key(&app, &["keyward:*"]).await;
        let own = app.get("/v1/keys/self").api_key(&root).send().await.expect(200).json();
        app.patch(&path(&own, "")).api_key(&root).json(&json!({"name": "x"})).send().await.problem(403, "own_key");
    }

    async fn what_restricts_a_key_of_the_system_goes_with_it(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let (root, minting) = (system_key(&app, &["keyward:*"]).await, system_key(&app, &["keyward:keys:create"]).await);
        let own = app.get("/v1/keys/self").api_key(&minting).send().await.expect(200).json();
        app.patch(&path(&own, "")).api_key(&root).json(&json!({"ip_allow": ["127.0.0.0/8"], "expires_in": "1d"})).send().await.expect(200);
        // In a project of others; from the next request on.
        let made = make(&app, &minting, &ada, json!({})).await.expect(201).json();
        assert_eq!((&made["project_id"], &made["ip_allow"], &made["expires_at"]), (&json!(ada.project), &json!(["127.0.0.0/8"]), &json!("2031-05-07T12:00:00Z")));
        make(&app, &minting, &ada, json!({"ip_allow": []})).await.problem(403, "restriction_not_held");
    }
}
