//! Many deliveries and many who send: no endpoint waits for another, and no event is sent twice in the ordinary case.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use keyward::base::rng::SystemRng;
use keyward::ctx::Ctx;
use keyward::infra::db::Db;
use keyward::worker::Workers;
use serde_json::json;

use super::support::{MANY_KEYS, texts, until};
use super::webhooks::{ALLOW, deliveries, hook, seen};
use crate::both_engines;
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::{App, Scratch, settings};

const SECOND: Duration = Duration::from_secs(1);

both_engines! {
    /// Acceptance 3 of issue 6: one hangs, one is gone, one is healthy.
    #[expect(clippy::print_stdout, reason = "what was measured is worth seeing")]
    async fn a_slow_endpoint_delays_no_other(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS, ("KEYWARD_WEBHOOK_TIMEOUT", "2s")]).await;
        let ada = app.person("ada").await;
        let hanging = Receiver::start(|_, _| Reply::never()).await;
        let gone = Receiver::start(|_, _| Reply::status(410)).await;
        let healthy = Receiver::willing().await;
        let slow = hook(&app, &ada, &hanging.url, &["key.created"], json!({})).await;
        // A backlog of 20,000 that are due.
        app.key(&ada, json!({})).await;
        hanging.until(1).await;
        let backlog = match engine {
            crate::harness::Engine::Postgres => {
                "INSERT INTO webhook_deliveries (id, webhook_id, project_id, event_id, event_type, state, attempts, tries, next_at, created_at, updated_at)
                 SELECT 'dlv_00000000000000000000' || lpad(CAST(n AS text), 6, '0'), d.webhook_id, d.project_id, 'evt_00000000000000000000' || lpad(CAST(n AS text), 6, '0'),
                     d.event_type, 'pending', 0, 0, d.created_at, d.created_at, d.created_at FROM generate_series(1, 20000) n, (SELECT * FROM webhook_deliveries LIMIT 1) d"
            }
            crate::harness::Engine::Sqlite => {
                "INSERT INTO webhook_deliveries (id, webhook_id, project_id, event_id, event_type, state, attempts, tries, next_at, created_at, updated_at)
                 WITH RECURSIVE g (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 20000)
                 SELECT printf('dlv_00000000000000000000%06d', n), d.webhook_id, d.project_id, printf('evt_00000000000000000000%06d', n),
                     d.event_type, 'pending', 0, 0, d.created_at, d.created_at, d.created_at FROM g, (SELECT * FROM webhook_deliveries LIMIT 1) d"
            }
        };
        app.tamper(backlog).await;
        // As test sends, which need no event behind them, each is really sent.
        app.tamper("UPDATE webhook_deliveries SET body = '{}' WHERE event_id LIKE 'evt_0000000000000000000%'").await;
        hanging.until(8).await;

        hook(&app, &ada, &gone.url, &["key.created"], json!({})).await;
        let fine = hook(&app, &ada, &healthy.url, &["key.created"], json!({})).await;
        let mut delays = Vec::new();
        for sent in 1..=20 {
            let began = Instant::now();
            app.key(&ada, json!({})).await;
            let got = healthy.until(sent).await;
            delays.push(got[sent - 1].at.duration_since(began));
        }
        delays.sort();
        println!("{engine:?}: healthy endpoint: median {:?}, longest {:?}, beside {} hanging", delays[10], delays[19], hanging.count());
        assert!(delays[10] < SECOND, "{delays:?}");
        assert_eq!(gone.count(), 1);
        until(15 * SECOND, 20, async || deliveries(&app, &ada, &fine, "&state=delivered").await.len()).await;
        assert!(app.count("SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'").await > 19_000);
        // While everything fails, one attempt at a time is enough.
        until(15 * SECOND, true, async || seen(&app, &ada, &slow).await["failing_since"].is_string()).await;
    }

    async fn two_processes_share_the_work(engine: Engine) {
        let mut scratch = Scratch::new(engine).await;
        let url = scratch.url.clone();
        let dir = scratch.dir.take();
        let app = App::start_on(scratch, &[ALLOW, MANY_KEYS]).await;
        let config = settings(&url, &[ALLOW, MANY_KEYS]);
        let db = Db::open(&config.database).await.unwrap();
        let other = Ctx::new(db, app.clock.clone(), std::sync::Arc::new(SystemRng), config).unwrap();
        let workers = Workers::start(&other).await.unwrap();
        let ada = app.person("ada").await;
        let receiver = Receiver::start(|_, _| Reply { after: Duration::from_millis(5), ..Reply::status(200) }).await;
        for _ in 0..3 {
            hook(&app, &ada, &receiver.url, &["key.created"], json!({})).await;
        }
        for _ in 0..20 {
            join_all((0..5).map(|_| app.key(&ada, json!({})))).await;
        }
        let all = "SELECT count(*) FROM webhook_deliveries WHERE state = 'delivered'";
        until(30 * SECOND, 300, async || app.count(all).await).await;
        let events: BTreeSet<_> = texts(&app, "SELECT id FROM events WHERE type = 'key.created'".to_owned()).await.into_iter().collect();
        let mut times = BTreeMap::<String, usize>::new();
        receiver.got().iter().for_each(|got| *times.entry(got.id().to_owned()).or_default() += 1);
        assert_eq!(times.keys().cloned().collect::<BTreeSet<_>>(), events);
        assert!(times.values().all(|times| *times == 3), "{times:?}");
        workers.stop().await;
        other.db.close().await;
        drop(app);
        drop(dir);
    }

    /// A process that is killed leaves its leases: another one, or its next life, takes up what it was sending.
    async fn what_a_lost_process_was_sending_is_sent_again(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let receiver = Receiver::willing().await;
        let made = hook(&app, &ada, &receiver.url, &["key.created"], json!({"is_active": false})).await;
        super::webhooks::patched(&app, &ada, &made, json!({"is_active": true})).await;
        app.key(&ada, json!({})).await;
        receiver.until(1).await;
        until(15 * SECOND, 1, async || deliveries(&app, &ada, &made, "&state=delivered").await.len()).await;
        // As it would stand, had the process ended between the answer and its being written.
        let at = app.ctx.now().saturating_add(Duration::from_secs(25));
        let text = match engine {
            crate::harness::Engine::Postgres => format!("'{at}'"),
            crate::harness::Engine::Sqlite => at.as_micros().to_string(),
        };
        let sql = format!("UPDATE webhook_deliveries SET state = 'pending', attempts = 0, claimed_by = 'a lost one', delivered_at = NULL, next_at = {text}");
        app.tamper(Box::leak(sql.into_boxed_str())).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(receiver.count(), 1);
        app.advance(26 * SECOND);
        let got = receiver.until(2).await;
        assert_eq!((got[0].id(), &got[0].body), (got[1].id(), &got[1].body));
    }
}
