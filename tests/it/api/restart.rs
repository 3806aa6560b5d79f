//! What a restart on the same storage must not forget: windows of an hour and longer, leases, and what was counted.

use std::time::Duration;

use keyward::base::clock::Clock as _;
use keyward::server::Stop;
use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, code, in_use, patched, path, question, standing, text, until, used};
use crate::both_engines;
use crate::harness::program::Beside;
use crate::harness::{App, Engine, Scratch, noon};

const SETTINGS: &[(&str, &str)] = &[MANY_KEYS, LONG_SESSIONS];

/// A service that can be stopped and started again on the same storage, whose clock goes on.
struct Home {
    /// Holds the storage of all that are started.
    scratch: Scratch,
}

impl Home {
    async fn new(engine: Engine) -> Self {
        Self { scratch: Scratch::new(engine).await }
    }

    async fn start(&self) -> App {
        App::start_on(Scratch { url: self.scratch.url.clone(), dir: None }, SETTINGS).await
    }

    async fn restart(&self, mut app: App, later: Duration) -> App {
        let now = app.clock.now();
        app.stop(Stop::Now).await.unwrap();
        let app = self.start().await;
        app.advance(now.since(noon()) + later);
        app
    }
}

both_engines! {
    async fn a_day_that_is_used_up_stays_used_up(engine: Engine) {
        let home = Home::new(engine).await;
        let app = home.start().await;
        let ada = app.person("ada").await;
        let limits = json!([{"name": "minute", "limit": 10, "window": "59m"}, {"name": "hour", "limit": 40, "window": "1h"}, {"name": "day", "limit": 10, "window": "1d"}]);
        let key = app.key(&ada, json!({"limits": limits})).await;
        for _ in 0..5 {
            assert_eq!(code(&app, &ada, &key, json!({"cost": 2})).await, "VALID");
            app.advance(Duration::from_mins(25));
        }
        let before = app.verify(&ada, question(&key, json!({}))).await;
        assert_eq!(before["violated"], json!(["day"]));
        let stood = standing(&app, &ada, &key).await["limits"].clone();
        assert_eq!((&stood[0]["used"], &stood[1]["used"], &stood[2]["used"]), (&json!(4), &json!(4), &json!(10)));
        let mut app = home.restart(app, Duration::ZERO).await;
        for _ in 0..2 {
            // Windows below an hour begin anew.
            let after = app.verify(&ada, question(&key, json!({}))).await;
            assert_eq!((&after["code"], &after["violated"]), (&json!("QUOTA_EXCEEDED"), &json!(["day"])));
            assert_eq!((&after["limits"][2], &after["retry_after_seconds"]), (&before["limits"][2], &before["retry_after_seconds"]));
            let stands = standing(&app, &ada, &key).await["limits"].clone();
            assert_eq!((&stands[0]["used"], &stands[1], &stands[2]), (&json!(0), &stood[1], &stood[2]));
            app = home.restart(app, Duration::ZERO).await;
        }
        // To the second as if it had never stopped, and no longer.
        let wait = before["retry_after_seconds"].as_u64().unwrap();
        let app = home.restart(app, Duration::from_secs(wait - 1)).await;
        assert_eq!(code(&app, &ada, &key, json!({})).await, "QUOTA_EXCEEDED");
        app.advance(Duration::from_secs(1));
        assert_eq!(code(&app, &ada, &key, json!({"cost": 2})).await, "VALID");
        assert_eq!(code(&app, &ada, &key, json!({})).await, "QUOTA_EXCEEDED");
    }

    /// The machine's clock was set back by ten days while the service was down.
    async fn a_clock_that_was_set_back_locks_nobody_out(engine: Engine) {
        let home = Home::new(engine).await;
        let mut app = home.start().await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": [{"name": "day", "limit": 2, "window": "1d"}]})).await;
        app.advance(Duration::from_hours(240));
        assert_eq!(code(&app, &ada, &key, json!({"cost": 2})).await, "VALID");
        app.stop(Stop::Now).await.unwrap();
        let app = home.start().await;
        let told = app.verify(&ada, question(&key, json!({}))).await;
        assert_eq!(told["code"], "QUOTA_EXCEEDED");
        let wait = told["retry_after_seconds"].as_u64().unwrap();
        assert!((86_400..=86_400 * 61 / 60).contains(&wait), "{told}");
        app.advance(Duration::from_secs(wait - 1));
        assert_eq!(code(&app, &ada, &key, json!({})).await, "QUOTA_EXCEEDED");
        app.advance(Duration::from_secs(1));
        assert_eq!(code(&app, &ada, &key, json!({"cost": 2})).await, "VALID");
    }

    async fn limits_that_change_around_a_restart_keep_their_counts(engine: Engine) {
        let home = Home::new(engine).await;
        let app = home.start().await;
        let ada = app.person("ada").await;
        let day = |limit: u32| json!({"limits": [{"name": "day", "limit": limit, "window": "1d"}]});
        let (key, reset) = (app.key(&ada, day(10)).await, app.key(&ada, day(10)).await);
        for key in [&key, &reset] {
            assert_eq!(code(&app, &ada, key, json!({"cost": 8})).await, "VALID");
        }
        keyward::features::usage::flush(&app.ctx).await.unwrap();
        patched(&app, &ada, &key, day(9)).await;
        app.post(&path(&reset, "/limits/reset")).token(&ada.token).send().await.expect(200);
        let app = home.restart(app, Duration::from_secs(10)).await;
        assert_eq!((used(&app, &ada, &key).await["day"], used(&app, &ada, &reset).await["day"]), (8, 0));
        assert_eq!(code(&app, &ada, &key, json!({"cost": 2})).await, "QUOTA_EXCEEDED");
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        let app = home.restart(app, Duration::from_secs(10)).await;
        // By its own calls as well: they spend from the same windows.
        app.get("/v1/keys/self").api_key(text(&key, "key")).send().await.problem(429, "quota_exceeded");
        app.get("/v1/keys/self").api_key(text(&reset, "key")).send().await.expect(200);
        let app = home.restart(app, Duration::ZERO).await;
        assert_eq!((used(&app, &ada, &key).await["day"], used(&app, &ada, &reset).await["day"]), (9, 1));
    }

    /// Nobody has to ask about the key again for what it has counted to be written.
    async fn a_window_that_grows_long_is_kept(engine: Engine) {
        let home = Home::new(engine).await;
        let app = home.start().await;
        let ada = app.person("ada").await;
        let window = |length: &str| json!({"limits": [{"name": "window", "limit": 10, "window": length}]});
        let key = app.key(&ada, window("1m")).await;
        assert_eq!(code(&app, &ada, &key, json!({"cost": 8})).await, "VALID");
        let soon = Duration::from_secs(5);
        until(soon, 1, async || app.count("SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL").await).await;
        assert_eq!(app.count("SELECT count(*) FROM key_windows").await, 0, "a minute is forgotten");
        patched(&app, &ada, &key, window("1d")).await;
        until(soon, 1, async || app.count("SELECT count(*) FROM key_windows").await).await;
        let app = home.restart(app, Duration::from_secs(10)).await;
        assert_eq!(used(&app, &ada, &key).await["window"], 8);
        assert_eq!(code(&app, &ada, &key, json!({"cost": 3})).await, "QUOTA_EXCEEDED");
    }

    async fn leases_go_on(engine: Engine) {
        let home = Home::new(engine).await;
        let app = home.start().await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"concurrency": 3})).await;
        let take = async |app: &App, seconds: u64| {
            app.post(&path(&key, "/leases")).token(&ada.token).json(&json!({"ttl_seconds": seconds})).send().await
        };
        let place = |lease: &Value| format!("/v1/leases/{}", text(lease, "lease_id"));
        let (short, long) = (take(&app, 10).await.expect(201).json(), take(&app, 100).await.expect(201).json());
        let ended = place(&take(&app, 100).await.expect(201).json());
        let call = app.post(&format!("{}/renew", place(&short))).token(&ada.token).json(&json!({"ttl_seconds": 50}));
        call.send().await.expect(200);
        app.delete(&ended).token(&ada.token).send().await.expect(204);

        let app = home.restart(app, Duration::from_secs(5)).await;
        assert_eq!(in_use(&app, &ada, &key).await, 2);
        take(&app, 100).await.expect(201);
        assert_eq!(take(&app, 100).await.problem(429, "concurrency_limited")["violated"], json!(["concurrency"]));
        assert_eq!(code(&app, &ada, &key, json!({})).await, "CONCURRENCY_LIMITED");
        app.delete(&ended).token(&ada.token).send().await.problem(404, "lease_not_found");
        app.delete(&place(&long)).token(&ada.token).send().await.expect(204);
        assert_eq!(in_use(&app, &ada, &key).await, 2);

        // One that ended meanwhile.
        let app = home.restart(app, Duration::from_secs(45)).await;
        assert_eq!(in_use(&app, &ada, &key).await, 1);
        let call = app.post(&format!("{}/renew", place(&short))).token(&ada.token).json(&json!({"ttl_seconds": 50}));
        call.send().await.problem(404, "lease_not_found");
    }

    async fn what_was_counted_is_written_at_the_end(engine: Engine) {
        let home = Home::new(engine).await;
        let mut app = home.start().await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let asked = futures_util::future::join_all((0..25).map(|_| code(&app, &ada, &key, json!({})))).await;
        assert!(asked.iter().all(|code| code == "VALID"));
        app.stop(Stop::Now).await.unwrap();
        let mut beside = Beside::open(&home.scratch.url).await;
        assert_eq!(beside.count("SELECT CAST(sum(allowed) AS bigint) FROM usage_requests WHERE scope = '*' AND grain = 'day' AND code = 'VALID'").await, 25);
        assert_eq!(beside.count("SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL").await, 1);
        assert_eq!(beside.count("SELECT count(*) FROM key_windows").await, 1);
    }
}
