//! Races that requests alone seldom hit, staged step by step against the parts that decide.

use std::sync::atomic::{AtomicUsize, Ordering};

use keyward::features::keys::format::PresentedKey;
use keyward::features::keys::secrets;
use keyward::features::limits::status;
use keyward::features::scopes::ScopeQuery;
use keyward::gate::{self, Client, Code, Digest, Found, Question};
use serde_json::{Value, json};

use super::support::{code, patched, switched, text, used};
use crate::both_engines;
use crate::harness::App;

fn digest(key: &Value) -> Digest {
    PresentedKey::parse(text(key, "key")).unwrap().hash()
}

fn limits(name: &str, limit: u32) -> Value {
    json!({"limits": [{"name": "minute", "limit": 1000, "window": "1m"}, {"name": name, "limit": limit, "window": "1h"}]})
}

both_engines! {
    /// A look-up that read the key before a change mustn't be remembered after it.
    async fn a_look_up_that_was_overtaken_by_a_change_reads_again(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        for forgetting in [false, true] {
            let key = app.key(&ada, json!({})).await;
            let (ctx, digest, times) = (&app.ctx, digest(&key), AtomicUsize::new(0));
            let load = || async {
                times.fetch_add(1, Ordering::Relaxed);
                let read = secrets::store::by_hash(ctx.db.reader().await.unwrap().conn(), &digest).await;
                switched(&app, &ada, &key, "/revoke").await;
                if forgetting {
                    // What the worker does once a minute.
                    ctx.gate.forget_idle(ctx.moment());
                }
                read
            };
            let found = ctx.gate.find(&digest, ctx.steady(), load).await.unwrap();
            let Found::Entry(entry) = found else { panic!("not found") };
            assert_eq!((entry.revoked, times.load(Ordering::Relaxed)), (true, 2), "forgetting: {forgetting}");
            assert_eq!(code(&app, &ada, &key, json!({})).await, "REVOKED", "forgetting: {forgetting}");
        }
    }

    /// A question about the limits that began before they changed, and is answered after.
    async fn who_looks_at_former_limits_forgets_no_counts(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, limits("old", 5)).await;
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        let late = status::counted(&app.ctx, text(&key, "id").parse().unwrap(), ada.project.parse().unwrap()).await.unwrap().unwrap();
        patched(&app, &ada, &key, limits("new", 2)).await;
        for expected in ["VALID", "VALID", "RATE_LIMITED"] {
            assert_eq!(code(&app, &ada, &key, json!({})).await, expected);
        }
        assert_eq!(late.standings(&app.ctx).len(), 2);
        assert_eq!(code(&app, &ada, &key, json!({})).await, "RATE_LIMITED");
        assert_eq!(used(&app, &ada, &key).await, [("minute".to_owned(), 3), ("new".to_owned(), 2)].into());
    }

    /// A verification that found the key before its limits changed, and decides after.
    async fn who_decides_by_former_limits_forgets_no_counts(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, limits("old", 5)).await;
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        let ctx = &app.ctx;
        let late = ctx.gate.cached(&digest(&key), ctx.steady()).unwrap();
        patched(&app, &ada, &key, limits("new", 2)).await;
        for expected in ["VALID", "VALID", "RATE_LIMITED"] {
            assert_eq!(code(&app, &ada, &key, json!({})).await, expected);
        }
        let question = Question { scopes: &ScopeQuery::default(), cost: 1, client: Client::default(), hit: None };
        // By the later limits, which are known by now.
        assert_eq!(gate::decide(&late, &question, ctx.moment(), true).code, Code::RateLimited);
        assert_eq!(code(&app, &ada, &key, json!({})).await, "RATE_LIMITED");
        assert_eq!(used(&app, &ada, &key).await, [("minute".to_owned(), 3), ("new".to_owned(), 2)].into());
    }
}
