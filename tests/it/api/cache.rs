//! What is in memory is never older than the last change that was answered: every change holds for the very next question.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::support::{MANY_KEYS, code, dial, patched, path, question, switched, text, token_status};
use crate::both_engines;
use crate::harness::{App, PASSWORD, Session};

const CLIENT: &str = r#"{"ip":"192.0.2.1","method":"GET","path":"/a"}"#;

/// What is asked of the key that changes.
fn asked() -> Value {
    json!({"scopes": ["a:b"], "client": serde_json::from_str::<Value>(CLIENT).unwrap()})
}

/// Changes of one key, and what is answered after each.
fn changes() -> Vec<(&'static str, Value, &'static str)> {
    let good = |field: &str, value: Value| ("", json!({field: value}), "VALID");
    vec![
        ("/disable", Value::Null, "DISABLED"),
        ("/enable", Value::Null, "VALID"),
        ("", json!({"scopes": ["a:c"]}), "INSUFFICIENT_SCOPE"),
        good("scopes", json!(["a:*"])),
        ("", json!({"ip_allow": []}), "IP_NOT_ALLOWED"),
        good("ip_allow", json!(["192.0.2.0/24"])),
        ("", json!({"schedule": []}), "OUTSIDE_SCHEDULE"),
        good("schedule", Value::Null),
        ("", json!({"method_allow": ["PUT"]}), "INSUFFICIENT_SCOPE"),
        good("method_allow", json!(["GET"])),
        ("", json!({"path_allow": ["/b"]}), "INSUFFICIENT_SCOPE"),
        good("path_allow", json!(["/a"])),
        ("", json!({"limits": [{"name": "default", "limit": 1, "window": "30d"}]}), "QUOTA_EXCEEDED"),
        good("limits", json!([{"name": "default", "limit": 1_000_000, "window": "30d"}])),
    ]
}

async fn change(app: &App, who: &Session, key: &Value, how: &str, body: &Value) {
    if how.is_empty() {
        patched(app, who, key, body.clone()).await
    } else {
        switched(app, who, key, how).await
    };
}

async fn delete(app: &App, who: &Session, key: &Value) {
    app.delete(&path(key, &format!("?confirm={}", text(key, "id")))).token(&who.token).send().await.expect(204);
}

both_engines! {
    async fn a_change_holds_for_the_very_next_question(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["a:*"]})).await;
        assert_eq!(code(&app, &ada, &key, json!({"scopes": ["a:b"], "cost": 3})).await, "VALID");
        for (how, body, expected) in changes() {
            change(&app, &ada, &key, how, &body).await;
            assert_eq!(code(&app, &ada, &key, asked()).await, expected, "{how}{body}");
        }
        let name = patched(&app, &ada, &key, json!({"name": "new", "owner": "o", "metadata": {"m": 1}})).await;
        let answer = app.verify(&ada, question(&key, asked())).await;
        for field in ["name", "owner", "metadata", "scopes"] {
            assert_eq!(answer[field], name[field]);
        }
        switched(&app, &ada, &key, "/revoke").await;
        assert_eq!(code(&app, &ada, &key, asked()).await, "REVOKED");
        delete(&app, &ada, &key).await;
        assert_eq!(code(&app, &ada, &key, asked()).await, "NOT_FOUND");
        for how in ["key", "id"] {
            let key = app.key(&ada, json!({})).await;
            assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
            app.post("/revoke-key").token(&ada.token).json(&json!({how: key[how]})).send().await.expect(200);
            assert_eq!(code(&app, &ada, &key, json!({})).await, "REVOKED");
        }
    }

    /// The same where the key calls itself, and where it asks about others.
    async fn a_change_holds_for_the_callers_next_call(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:verify"]})).await;
        let ask = async || app.post("/v1/keys/verify").api_key(text(&key, "key")).json(&json!({"key": "x"})).send().await.status;
        let own = async || app.get("/v1/keys/self").api_key(text(&key, "key")).send().await.status;
        assert_eq!((ask().await, own().await), (200, 200));
        for (how, body, asked, owned) in [
            ("/disable", Value::Null, 401, 401),
            ("/enable", Value::Null, 200, 200),
            ("", json!({"scopes": ["keyward:keys:read"]}), 403, 200),
            ("", json!({"scopes": ["keyward:*"]}), 200, 200),
            ("", json!({"path_allow": ["/v1/keys/self"]}), 403, 200),
            ("", json!({"path_allow": null, "ip_allow": ["192.0.2.0/24"]}), 403, 403),
            ("", json!({"ip_allow": null, "limits": [{"name": "default", "limit": 1, "window": "1h"}]}), 200, 429),
            ("/revoke", Value::Null, 401, 401),
        ] {
            change(&app, &ada, &key, how, &body).await;
            assert_eq!((ask().await, own().await), (asked, owned), "{how}{body}");
        }
    }

    async fn a_log_in_ends_at_once(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let logins = [app.login("ada", PASSWORD).await, app.login("ada", PASSWORD).await, app.login("ada", PASSWORD).await];
        for one in &logins {
            assert_eq!(token_status(&app, &one.token).await, 200);
        }
        app.post("/logout").token(&logins[0].token).send().await.expect(204);
        assert_eq!((token_status(&app, &logins[0].token).await, token_status(&app, &logins[1].token).await), (401, 200));
        let sessions = app.get("/v1/users/me/sessions").token(&logins[1].token).send().await.expect(200).json();
        let current = sessions["data"].as_array().unwrap().iter().find(|one| one["current"] == true).unwrap();
        app.delete(&format!("/v1/users/me/sessions/{}", text(current, "id"))).token(&ada.token).send().await.expect(204);
        assert_eq!((token_status(&app, &logins[1].token).await, token_status(&app, &logins[2].token).await), (401, 200));
        let body = json!({"current_password": PASSWORD, "new_password": "another correct horse battery"});
        app.put("/v1/users/me/password").token(&ada.token).json(&body).send().await.expect(204);
        assert_eq!((token_status(&app, &logins[2].token).await, token_status(&app, &ada.token).await), (401, 200));
    }
}

/// Sixteen who ask without a pause while a state is changed, so that some of them read the storage at any moment. An odd
/// phase stands for a change under way.
struct Watched<'a> {
    app: &'a App,
    phase: AtomicUsize,
    asked: AtomicUsize,
}

impl Watched<'_> {
    /// Asks on and on until the last change is over.
    async fn watch<T: PartialEq + std::fmt::Debug>(&self, states: &[T], ask: impl AsyncFn() -> T) {
        futures_util::future::join_all((0..16).map(|n| self.watch_one(states, n % 4 == 0, &ask))).await;
    }

    /// Whatever is answered must have held at some moment between the question and the answer: `states[n]` holds from the
    /// answer to the `n`th change on.
    async fn watch_one<T: PartialEq + std::fmt::Debug>(
        &self,
        states: &[T],
        forgetful: bool,
        ask: &impl AsyncFn() -> T,
    ) {
        let last = states.len() * 2 - 1;
        loop {
            let before = self.phase.load(Ordering::SeqCst);
            if before >= last {
                return;
            }
            if forgetful {
                self.app.ctx.gate.forget_all();
            }
            let answer = ask().await;
            let after = self.phase.load(Ordering::SeqCst);
            let possible = &states[before / 2..=after.div_ceil(2).min(states.len() - 1)];
            assert!(
                possible.contains(&answer),
                "{answer:?} is none of {possible:?} (change {} to {})",
                before / 2,
                after.div_ceil(2)
            );
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes a change, once somebody has asked since the last.
    async fn change<F: Future<Output = ()>>(&self, work: F) {
        let before = self.asked.load(Ordering::Relaxed);
        while self.asked.load(Ordering::Relaxed) < before + 8 {
            tokio::task::yield_now().await;
        }
        self.phase.fetch_add(1, Ordering::SeqCst);
        work.await;
        self.phase.fetch_add(1, Ordering::SeqCst);
    }
}

fn watched(app: &App) -> Watched<'_> {
    Watched { app, phase: AtomicUsize::new(0), asked: AtomicUsize::new(0) }
}

both_engines! {
    async fn nobody_who_asks_after_a_change_sees_what_was_before(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["a:*"], "limits": [{"name": "default", "limit": 1_000_000, "window": "30d"}]})).await;
        assert_eq!(code(&app, &ada, &key, json!({"scopes": ["a:b"], "cost": 3})).await, "VALID");
        let mut steps: Vec<_> = (0..4).flat_map(|_| changes()).collect();
        steps.push(("/revoke", Value::Null, "REVOKED"));
        let states: Vec<_> = std::iter::once("VALID").chain(steps.iter().map(|(_, _, state)| *state)).map(str::to_owned).collect();
        let watched = watched(&app);
        let watch = watched.watch(&states, async || code(&app, &ada, &key, asked()).await);
        let work = async {
            for (how, body, _) in &steps {
                watched.change(change(&app, &ada, &key, how, body)).await;
            }
            // The last state is watched as well.
            watched.change(async {}).await;
        };
        futures_util::future::join(watch, work).await;
    }

    async fn nobody_who_asks_after_a_removal_finds_the_key(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let states = ["VALID".to_owned(), "NOT_FOUND".to_owned()];
        for _ in 0..12 {
            let key = app.key(&ada, json!({})).await;
            let watched = watched(&app);
            let watch = watched.watch(&states, async || code(&app, &ada, &key, json!({})).await);
            let work = async {
                watched.change(delete(&app, &ada, &key)).await;
                watched.change(async {}).await;
            };
            futures_util::future::join(watch, work).await;
        }
    }

    async fn nobody_who_calls_after_a_log_out_is_let_in(engine: Engine) {
        let app = App::start(engine).await;
        app.person("ada").await;
        for _ in 0..8 {
            let login = app.login("ada", PASSWORD).await;
            let watched = watched(&app);
            let watch = watched.watch(&[200, 401], async || token_status(&app, &login.token).await);
            let work = async {
                watched.change(async { drop(app.post("/logout").token(&login.token).send().await.expect(204)) }).await;
                watched.change(async {}).await;
            };
            futures_util::future::join(watch, work).await;
        }
    }

    /// Who sends a change and doesn't wait for its answer: it holds within a second, made or not.
    async fn a_change_whose_client_went_away_is_seen(engine: Engine) {
        use tokio::io::AsyncWriteExt as _;
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for pause in 0..10 {
            let key = app.key(&ada, json!({})).await;
            assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
            let mut stream = dial(&app).await;
            let head = format!("POST {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", path(&key, "/revoke"), ada.token);
            stream.write_all(head.as_bytes()).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_micros(pause * 300)).await;
            drop(stream);
            let agree = async || {
                let stored = app.get(&path(&key, "")).token(&ada.token).send().await.expect(200).json()["status"] == "revoked";
                stored == (code(&app, &ada, &key, json!({})).await == "REVOKED")
            };
            // Whatever became of it is settled soon.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            super::support::until(std::time::Duration::from_secs(1), true, agree).await;
        }
    }
}
