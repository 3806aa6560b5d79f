//! Taking over keys that were issued elsewhere: what comes in, what is refused, and that whatever they look like they work
//! like any other.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keyward::base::rng::SystemRng;
use keyward::features::keys::format::NewSecret;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::support::{MANY_KEYS, NO_PROJECT, faceless, path, text, texts};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

/// The hash of a key, as most databases hold it.
pub fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key))
}

/// A line for each, with more in it.
pub fn lines(lines: &[Value]) -> String {
    lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n")
}

/// Sends an import as somebody with this credential.
pub async fn send(app: &App, credential: &str, project: &str, query: &str, body: impl Into<Vec<u8>>) -> Answer {
    let call = app.post(&format!("/v1/projects/{project}/keys:import{query}")).token(credential);
    let mut call = call.header("content-type", "application/x-ndjson");
    call.0 = call.0.body(body.into());
    call.send().await
}

/// Imports into somebody's own project, and gives the report.
pub async fn import(app: &App, who: &Session, keys: &[Value]) -> Value {
    send(app, &who.token, &who.project, "", lines(keys)).await.expect(200).json()
}

/// What `verify` says of a text.
pub async fn ask(app: &App, who: &Session, key: &str) -> String {
    text(&app.verify(who, json!({"key": key})).await, "code").to_owned()
}

/// Created, skipped and failed.
#[track_caller]
pub fn counts(report: &Value) -> [u64; 3] {
    let counts = ["created", "skipped", "failed"].map(|name| report[name].as_u64().unwrap());
    assert_eq!(report["total_processed"], counts.iter().sum::<u64>(), "{report}");
    counts
}

async fn role(app: &App, role: &str) {
    match role {
        "admin" => app.tamper("UPDATE memberships SET role = 'admin'").await,
        "member" => app.tamper("UPDATE memberships SET role = 'member'").await,
        _ => app.tamper("UPDATE memberships SET role = 'viewer'").await,
    }
}

both_engines! {
    async fn keys_of_any_form_work_once_they_are_imported(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let foreign = ["AKIA1234567890ABCDEF", "live/4eC39HqLyjWDarjtT1zdp7dc==", "x", &"~".repeat(512), "kws_looks-like-a-token", "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIh"];
        for key in foreign {
            assert_eq!(ask(&app, &ada, key).await, "MALFORMED");
        }
        let own = NewSecret::generate("acme", &SystemRng);
        assert_eq!(ask(&app, &ada, own.secret.expose()).await, "NOT_FOUND");
        let mut keys: Vec<Value> = foreign.iter().map(|key| json!({"hash": hash(key), "name": "old", "scopes": ["a:b"]})).collect();
        keys.push(json!({"hash": STANDARD.encode(own.hash), "algorithm": "sha256", "prefix": "acme", "start": own.first_four, "end": own.last_four}));
        keys[1]["hash"] = json!(URL_SAFE_NO_PAD.encode(Sha256::digest(foreign[1])));
        let report = import(&app, &ada, &keys).await;
        assert_eq!(counts(&report), [7, 0, 0]);
        assert_eq!((&report["errors"], &report["dry_run"]), (&json!([]), &json!(false)));

        for key in foreign {
            let answer = app.verify(&ada, json!({"key": key, "scopes": ["a:b"]})).await;
            assert_eq!((&answer["code"], &answer["name"]), (&json!("VALID"), &json!("old")));
            let shown = app.get("/v1/keys/self").api_key(key).send().await.expect(200).json();
            assert_eq!((&shown["id"], &shown["scopes"], &shown["created_by"]), (&answer["key_id"], &json!(["a:b"]), &json!(ada.user)));
        }
        app.get("/v1/keys/self").token(foreign[0]).send().await.expect(200);
        assert_eq!(ask(&app, &ada, own.secret.expose()).await, "VALID");
        let shown = app.get("/v1/keys/self").token(own.secret.expose()).send().await.expect(200).json();
        assert_eq!((text(&shown, "display"), text(&shown, "name")), (format!("acme_{}…{}", own.first_four, own.last_four).as_str(), "imported"));
        // What isn't theirs to the letter isn't a key.
        for key in ["AKIA1234567890ABCDEG", "AKIA1234567890ABCDE", " AKIA1234567890ABCDEF", "", "y", "é", "a b", &"~".repeat(513)] {
            assert_eq!(ask(&app, &ada, key).await, "MALFORMED");
        }
        app.get("/v1/keys/self").api_key("AKIA1234567890ABCDEG").send().await.problem(401, "invalid_credentials");
        let batch = json!({"questions": [{"key": foreign[0]}, {"key": "nothing"}, {"key": foreign[3]}]});
        let answers = app.post("/v1/keys/verify:batch").token(&ada.token).json(&batch).send().await.expect(200).json();
        let codes: Vec<&Value> = answers["answers"].as_array().unwrap().iter().map(|answer| &answer["code"]).collect();
        assert_eq!(codes, ["VALID", "MALFORMED", "VALID"]);
        // Taken back by themselves.
        app.post("/revoke-key").token(&ada.token).json(&json!({"key": "nothing"})).send().await.problem(404, "key_not_found");
        app.post("/revoke-key").token(&ada.token).json(&json!({"key": foreign[0]})).send().await.expect(200);
        assert_eq!(ask(&app, &ada, foreign[0]).await, "REVOKED");
        app.get("/v1/keys/self").api_key(foreign[0]).send().await.problem(401, "invalid_credentials");
        // Once it is gone, it is no key any more.
        let id = text(&app.verify(&ada, json!({"key": foreign[2]})).await, "key_id").to_owned();
        app.delete(&format!("/v1/keys/{id}?confirm={id}")).token(&ada.token).send().await.expect(204);
        assert_eq!(ask(&app, &ada, foreign[2]).await, "MALFORMED");

        // One entry, one event and one change tell of it, in one transaction.
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'keys.import' AND outcome = 'success'").await, 1);
        assert_eq!(app.count("SELECT count(*) FROM changes WHERE topic = 'project' AND id LIKE '%/imported'").await, 1);
        let entry: Value = serde_json::from_str(&texts(&app, "SELECT CAST(changes AS text) FROM audit_entries WHERE action = 'keys.import'".to_owned()).await[0]).unwrap();
        assert_eq!(entry, json!({"total_processed": 7, "created": 7, "skipped": 0, "failed": 0}));
        let events = texts(&app, format!("SELECT CAST(data AS text) FROM events WHERE type = 'project.updated' AND resource_id = '{}'", ada.project)).await;
        let event: Value = serde_json::from_str(&events[0]).unwrap();
        assert_eq!((events.len(), &event["keys_imported"], &event["id"]), (1, &json!(7), &json!(ada.project)));
        assert_eq!(app.count("SELECT count(*) FROM key_creations").await, 0, "the limit on a person's own keys isn't touched");
    }

    async fn everything_that_a_line_says_is_kept(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let full = json!({
            "hash": hash("full"), "prefix": "live", "start": "abcd", "end": "wxyz", "name": "Ünï ‘quoted’ \"x\"", "description": "two\nlines",
            "owner": "customer-42", "scopes": ["a:b", "c:*", "a:b"], "metadata": {"team": "billing", "n": 1.5, "deep": [[{"a": null}]]},
            "created_at": "2001-02-03T04:05:06.123457Z", "expires_at": "9998-12-31T23:59:59.999999Z",
            "limits": [{"name": "minute", "limit": 2, "window": "1m"}], "concurrency": 3, "ip_allow": ["192.0.2.0/24"],
            "schedule": [{"days": ["mon"], "from": "08:00", "to": "18:00", "timezone": "Europe/Berlin"}],
            "method_allow": ["GET"], "path_allow": ["/orders/**"],
        });
        let states = [
            json!({"hash": hash("disabled"), "disabled": true, "name": "disabled"}),
            json!({"hash": hash("revoked"), "revoked": true, "name": "revoked"}),
            json!({"hash": hash("gone"), "revoked_at": "2020-01-01T00:00:00Z", "revoked_reason": "key_compromise", "revoked_note": "leaked", "name": "gone"}),
            json!({"hash": hash("over"), "expires_at": "2020-01-01T00:00:00Z", "name": "over"}),
            json!({"hash": hash("plain"), "disabled": false, "revoked": false, "description": null, "older": null, "limits": null}),
        ];
        assert_eq!(counts(&import(&app, &ada, &[std::slice::from_ref(&full), &states[..]].concat()).await), [6, 0, 0]);
        for (key, code) in [("disabled", "DISABLED"), ("revoked", "REVOKED"), ("gone", "REVOKED"), ("over", "EXPIRED"), ("plain", "VALID"), ("full", "IP_NOT_ALLOWED")] {
            assert_eq!(ask(&app, &ada, key).await, code, "{key}");
        }
        let list = app.get("/list-keys").token(&ada.token).send().await.expect(200).json();
        let listed = list["keys"].as_array().unwrap();
        assert_eq!(text(&listed[5], "name"), full["name"], "the oldest");
        let shown = app.get(&path(&listed[5], "")).token(&ada.token).send().await.expect(200).json();
        for field in ["name", "description", "owner", "metadata", "created_at", "expires_at", "limits", "concurrency", "ip_allow", "schedule", "method_allow", "path_allow"] {
            assert_eq!(shown[field], full[field], "{field}");
        }
        assert_eq!((&shown["scopes"], text(&shown, "display")), (&json!(["a:b", "c:*"]), "live_abcd…wxyz"));
        let gone = listed.iter().find(|key| key["name"] == "gone").unwrap();
        assert_eq!((&gone["revoked_at"], &gone["revoked_reason"], &gone["revoked_note"]), (&json!("2020-01-01T00:00:00Z"), &json!("key_compromise"), &json!("leaked")));
        let inside = json!({"key": "full", "client": {"ip": "192.0.2.7", "method": "GET", "path": "/orders/1"}, "dry_run": true});
        let answer = app.verify(&ada, inside).await;
        assert!(["VALID", "OUTSIDE_SCHEDULE"].contains(&text(&answer, "code")), "{answer}");
        // It is a key like any other.
        super::support::patched(&app, &ada, &shown, json!({"schedule": null, "ip_allow": null, "method_allow": null, "path_allow": null})).await;
        assert_eq!((ask(&app, &ada, "full").await, ask(&app, &ada, "full").await, ask(&app, &ada, "full").await), ("VALID".into(), "VALID".into(), "RATE_LIMITED".into()));
        let disabled = listed.iter().find(|key| key["name"] == "disabled").unwrap();
        super::support::switched(&app, &ada, disabled, "/enable").await;
        assert_eq!(ask(&app, &ada, "disabled").await, "VALID");
    }

    async fn revoked_keys_and_former_secrets_are_bounded_too(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_KEYS_PER_PROJECT", "3")]).await;
        let ada = app.person("ada").await;
        let keys: Vec<Value> = (0..5).map(|n| json!({"hash": hash(&format!("k{n}")), "revoked": n != 1})).collect();
        let refused = send(&app, &ada.token, &ada.project, "", lines(&keys)).await.problem(400, "invalid_request");
        assert_eq!((&refused["errors"][0]["index"], &refused["errors"][0]["code"]), (&json!(3), &json!("too_many_keys")));
        let part = send(&app, &ada.token, &ada.project, "?partial=true", lines(&keys)).await.expect(200).json();
        assert_eq!(counts(&part), [3, 0, 2]);
        let older = |count: usize| {
            let secrets: Vec<Value> = (0..count).map(|n| json!({"hash": hash(&format!("o{n}")), "expires_at": "2032-01-01T00:00:00Z"})).collect();
            lines(&[json!({"hash": hash("new"), "older": secrets})])
        };
        let refused = send(&app, &ada.token, &ada.project, "", older(5)).await.problem(400, "invalid_request");
        assert_eq!((&refused["errors"][0]["field"], &refused["errors"][0]["code"]), (&json!("older"), &json!("too_many")));
        assert_eq!(counts(&send(&app, &ada.token, &ada.project, "", older(4)).await.expect(200).json()), [1, 0, 0]);
    }

    async fn superseded_secrets_come_along(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = json!({"hash": hash("new"), "older": [
            {"hash": hash("oldest"), "expires_at": "2031-05-06T11:00:00Z"},
            {"hash": hash("older"), "prefix": "live", "start": "abcd", "end": "wxyz", "expires_at": "2031-05-06T13:00:00Z"},
        ]});
        assert_eq!(counts(&import(&app, &ada, std::slice::from_ref(&key)).await), [1, 0, 0]);
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 1);
        let of = async |text: &str| app.verify(&ada, json!({"key": text})).await;
        assert_eq!((of("new").await["code"].clone(), of("oldest").await["code"].clone()), (json!("VALID"), json!("EXPIRED")));
        assert_eq!(of("older").await["key_id"], of("new").await["key_id"]);
        app.advance(std::time::Duration::from_hours(2));
        let ada = app.login("ada", crate::harness::PASSWORD).await;
        assert_eq!(ask(&app, &ada, "older").await, "EXPIRED");
        assert_eq!(ask(&app, &ada, "new").await, "VALID");
        // Neither by its present secret nor by a former one does it come a second time.
        assert_eq!(counts(&import(&app, &ada, &[key, json!({"hash": hash("older")})]).await), [0, 2, 0]);
        // As a former secret of another key it is taken.
        let other = json!({"hash": hash("other"), "older": [{"hash": hash("new"), "expires_at": "2031-05-06T23:00:00Z"}]});
        let refused = send(&app, &ada.token, &ada.project, "", lines(&[other])).await.problem(400, "invalid_request");
        assert_eq!((&refused["errors"][0]["field"], &refused["errors"][0]["code"]), (&json!("older[0].hash"), &json!("hash_taken")));
    }

    async fn what_is_there_is_skipped_and_left_as_it_is(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        assert_eq!(counts(&import(&app, &ada, &[json!({"hash": hash("a"), "name": "first"})]).await), [1, 0, 0]);
        let again = [json!({"hash": hash("a"), "name": "second", "scopes": ["a:b"], "revoked": true}), json!({"hash": hash("b")}), json!({"hash": hash("b"), "name": "twice"})];
        assert_eq!(counts(&import(&app, &ada, &again).await), [1, 2, 0]);
        assert_eq!(counts(&import(&app, &ada, &again).await), [0, 3, 0]);
        let answer = app.verify(&ada, json!({"key": "a"})).await;
        assert_eq!((&answer["code"], &answer["name"], &answer["scopes"]), (&json!("VALID"), &json!("first"), &json!([])));
        assert_eq!(app.verify(&ada, json!({"key": "b"})).await["name"], "imported");
        // Of what changed nothing, nothing is told.
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'keys.import'").await, 2);
        // One that was made here is known too.
        let made = app.key(&ada, json!({})).await;
        assert_eq!(counts(&import(&app, &ada, &[json!({"hash": hash(text(&made, "key"))})]).await), [0, 1, 0]);
    }

    async fn a_broken_line_changes_nothing_unless_a_part_will_do(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let body = format!("{}\n\n  \r\n{}\nnonsense\n{}\n", json!({"hash": hash("a")}), json!({"hash": "short", "name": ""}), json!({"hash": hash("b")}));
        let refused = send(&app, &ada.token, &ada.project, "", body.clone()).await.problem(400, "invalid_request");
        assert_eq!((&refused["created"], &refused["failed"], &refused["total_processed"]), (&json!(0), &json!(2), &json!(4)));
        app.stopped_at_nothing().await;
        let dry = send(&app, &ada.token, &ada.project, "?dry_run=true", body.clone()).await.expect(200).json();
        let places: Vec<_> = dry["errors"].as_array().unwrap().iter().map(|e| (e["index"].as_u64().unwrap(), e["line"].as_u64().unwrap(), text(e, "field"), text(e, "code"))).collect();
        assert_eq!(places, [(1, 4, "hash", "invalid_value"), (1, 4, "name", "too_short"), (2, 5, "line", "invalid_json")]);
        assert_eq!((&dry["dry_run"], &dry["errors"]), (&json!(true), &refused["errors"]));
        app.stopped_at_nothing().await;
        let part = send(&app, &ada.token, &ada.project, "?partial=true", body).await.expect(200).json();
        assert_eq!((counts(&part), &part["errors"]), ([2, 0, 2], &refused["errors"]));
        assert_eq!((ask(&app, &ada, "a").await, ask(&app, &ada, "b").await), ("VALID".into(), "VALID".into()));
    }

    async fn a_dry_run_tells_what_would_be(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        import(&app, &ada, &[json!({"hash": hash("a")})]).await;
        let body = lines(&[json!({"hash": hash("a")}), json!({"hash": hash("b")}), json!({"hash": hash("b")})]);
        for query in ["?dry_run=true", "?dry_run=true&partial=true"] {
            let report = send(&app, &ada.token, &ada.project, query, body.clone()).await.expect(200).json();
            assert_eq!((counts(&report), &report["dry_run"]), ([1, 2, 0], &json!(true)));
        }
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 1);
        assert_eq!(ask(&app, &ada, "b").await, "MALFORMED");
        for query in ["?dry_run=yes", "?dryrun=true", "?partial=true&partial=true"] {
            assert_eq!(send(&app, &ada.token, &ada.project, query, "").await.status, 400, "{query}");
        }
    }

    async fn nobody_takes_over_what_others_have(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let made = app.key(&ada, json!({})).await;
        import(&app, &ada, &[json!({"hash": hash("hers"), "older": [{"hash": hash("hers before"), "expires_at": "2032-01-01T00:00:00Z"}]})]).await;
        for key in [text(&made, "key"), "hers", "hers before"] {
            for line in [json!({"hash": hash(key)}), json!({"hash": hash("his"), "older": [{"hash": hash(key), "expires_at": "2032-01-01T00:00:00Z"}]})] {
                let refused = send(&app, &bob.token, &bob.project, "", lines(&[line])).await;
                let body = refused.problem(400, "invalid_request");
                assert_eq!((text(&body["errors"][0], "code"), text(&body["errors"][0], "message")), ("hash_taken", "is in use already"));
                for word in [&ada.project, &ada.user, text(&made, "id"), "ada"] {
                    assert!(!refused.text().contains(word), "{body}");
                }
            }
            let part = send(&app, &bob.token, &bob.project, "?partial=true", lines(&[json!({"hash": hash(key)})])).await.expect(200).json();
            assert_eq!(counts(&part), [0, 0, 1]);
        }
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 2);
        assert_eq!((ask(&app, &ada, "hers").await.as_str(), ask(&app, &ada, text(&made, "key")).await.as_str()), ("VALID", "VALID"));
        // To him hers are what they would be if nobody had them.
        assert_eq!((ask(&app, &bob, "hers").await.as_str(), ask(&app, &bob, text(&made, "key")).await.as_str()), ("MALFORMED", "NOT_FOUND"));
        let unknown = faceless(&app.post("/revoke-key").token(&bob.token).json(&json!({"key": "nobody's"})).send().await);
        assert_eq!(faceless(&app.post("/revoke-key").token(&bob.token).json(&json!({"key": "hers"})).send().await), unknown);
    }

    async fn nobody_imports_what_they_do_not_hold(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let line = |scopes: &[&str]| lines(&[json!({"hash": hash(&format!("{scopes:?}")), "scopes": scopes})]);
        send(&app, &ada.token, &ada.project, "", line(&["keyward:*"])).await.expect(200);
        // A stranger, nobody, and a project that isn't there look alike.
        let missing = faceless(&send(&app, &bob.token, NO_PROJECT, "", line(&[])).await);
        assert_eq!(missing["code"], "project_not_found");
        assert_eq!(faceless(&send(&app, &bob.token, &ada.project, "", line(&[])).await), missing);
        assert_eq!(faceless(&send(&app, &bob.token, "nonsense", "", line(&[])).await), missing);
        app.post(&format!("/v1/projects/{}/keys:import", ada.project)).send().await.problem(401, "unauthenticated");

        let importing = app.key(&ada, json!({"scopes": ["keyward:keys:import", "orders:read"]})).await;
        let reading = app.key(&ada, json!({"scopes": ["keyward:keys:create", "keyward:keys:export"]})).await;
        send(&app, text(&reading, "key"), &ada.project, "", line(&[])).await.problem(403, "forbidden");
        send(&app, text(&importing, "key"), &bob.project, "", line(&[])).await.problem(404, "project_not_found");
        send(&app, text(&importing, "key"), &ada.project, "", line(&["orders:read", "keyward:keys:import"])).await.expect(200);
        let refused = |answer: Answer, at: &str| {
            let body = answer.problem(400, "invalid_request");
            assert_eq!((text(&body["errors"][0], "field"), text(&body["errors"][0], "code")), (at, "scope_not_held"), "{body}");
        };
        refused(send(&app, text(&importing, "key"), &ada.project, "", line(&["orders:read", "orders:write"])).await, "scopes[1]");
        refused(send(&app, text(&importing, "key"), &ada.project, "", line(&["orders:*"])).await, "scopes[0]");
        refused(send(&app, text(&importing, "key"), &ada.project, "", line(&["keyward:keys:*"])).await, "scopes[0]");
        role(&app, "admin").await;
        refused(send(&app, &ada.token, &ada.project, "", line(&["keyward:projects:delete"])).await, "scopes[0]");
        let dry = send(&app, &ada.token, &ada.project, "?dry_run=true", line(&["keyward:*", "a:b"])).await.expect(200).json();
        assert_eq!((counts(&dry), text(&dry["errors"][0], "code")), ([0, 0, 1], "scope_not_held"));
        send(&app, &ada.token, &ada.project, "", line(&["bills:*", "keyward:keys:*"])).await.expect(200);
        for weaker in ["member", "viewer"] {
            role(&app, weaker).await;
            send(&app, &ada.token, &ada.project, "", line(&["a:b"])).await.problem(403, "forbidden");
        }
        app.tamper("DELETE FROM memberships").await;
        assert_eq!(faceless(&send(&app, &ada.token, &ada.project, "", line(&[])).await), missing);
    }

    async fn whoever_is_put_out_while_the_request_waits_imports_nothing(engine: Engine) {
        use keyward::features::audit::By;
        use keyward::features::auth::{Caller, Person};
        use keyward::features::keys::moving::import::{self, ImportError, Importing};
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        // As she was a moment ago.
        let logged_in = keyward::gate::people::LoggedIn { user: ada.user.parse().unwrap(), username: "ada".to_owned(), is_admin: false, expires_at: app.ctx.now(), roles: vec![(ada.project.parse().unwrap(), "owner".to_owned())] };
        let caller = Caller::Person(Person { logged_in: logged_in.into(), token_hash: Vec::new() });
        let by = By::system("test", &app.ctx);
        let importing = |dry_run| Importing { by: &by, caller: Some(&caller), project: ada.project.parse().unwrap(), responsible: None, dry_run, partial: false, revive: false, first_line: 1, first_index: 0 };
        let body = bytes::Bytes::from(lines(&[json!({"hash": hash("a")})]));
        role(&app, "member").await;
        for dry_run in [true, false] {
            let refused = import::import(&app.ctx, &importing(dry_run), body.clone()).await;
            assert!(matches!(refused, Err(ImportError::Forbidden)), "{refused:?}");
        }
        app.tamper("UPDATE projects SET deleted_at = created_at").await;
        for dry_run in [true, false] {
            let refused = import::import(&app.ctx, &importing(dry_run), body.clone()).await;
            assert!(matches!(refused, Err(ImportError::NoProject)), "{refused:?}");
        }
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 0);
    }
}

impl App {
    /// No key, and no trace of an import.
    async fn stopped_at_nothing(&self) {
        assert_eq!(self.count("SELECT count(*) FROM api_keys").await, 0);
        assert_eq!(self.count("SELECT count(*) FROM key_secrets").await, 0);
        assert_eq!(self.count("SELECT count(*) FROM audit_entries WHERE action = 'keys.import'").await, 0);
        assert_eq!(self.count("SELECT count(*) FROM changes WHERE id LIKE '%/imported'").await, 0);
    }
}
