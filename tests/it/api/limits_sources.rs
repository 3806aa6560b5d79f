//! Where limits come from: the key, its project, the server; value by value and name by name.

use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, code, patched, path, question, standing, used};
use crate::both_engines;
use crate::harness::{App, Session};

/// Gives every personal project settings.
const PROJECT: &str = r#"UPDATE projects SET settings = '{"limits":[{"name":"minute","limit":6,"window":"1m"},{"name":"day","limit":9,"window":"1d"}],"concurrency":3,"ip_allow":["192.0.2.0/24"],"schedule":[{"days":["tue"],"from":"08:00","to":"18:00","timezone":"Europe/Berlin"}]}' WHERE kind = 'personal'"#;

async fn effective(app: &App, who: &Session, key: &Value) -> Value {
    app.get(&path(key, "/config/effective")).token(&who.token).send().await.expect(200).json()
}

/// The limits that hold, as `name=limit/seconds source`.
async fn holding(app: &App, who: &Session, key: &Value) -> Vec<String> {
    let effective = effective(app, who, key).await;
    let shown = |limit: &Value| {
        let (word, number) =
            (|name: &str| limit[name].as_str().unwrap().to_owned(), |name: &str| limit[name].as_u64().unwrap());
        format!("{}={}/{} {}", word("name"), number("limit"), number("window_seconds"), word("source"))
    };
    effective["limits"].as_array().unwrap().iter().map(shown).collect()
}

both_engines! {
    async fn the_servers_default_holds_only_where_nothing_else_does(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_DEFAULT_RATE_LIMIT", "2"), ("KEYWARD_RATE_LIMIT_WINDOW", "90s"), ("KEYWARD_DEFAULT_CONCURRENCY", "1")]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        assert_eq!(effective(&app, &ada, &key).await, json!({
            "limits": [{"name": "default", "limit": 2, "window": "90s", "window_seconds": 90, "source": "server"}],
            "concurrency": {"value": 1, "source": "server"},
            "ip_allow": {"value": null, "source": "server"}, "schedule": {"value": null, "source": "server"},
            "method_allow": {"value": null, "source": "server"}, "path_allow": {"value": null, "source": "server"},
        }));
        for expected in ["VALID", "VALID", "RATE_LIMITED"] {
            assert_eq!(code(&app, &ada, &key, json!({})).await, expected);
        }
        app.post(&path(&key, "/leases")).token(&ada.token).json(&json!({"ttl_seconds": 60})).send().await.expect(201);
        assert_eq!(code(&app, &ada, &key, json!({})).await, "CONCURRENCY_LIMITED");
        // A limit of its own under whatever name takes the default's place; 0 is a cap of its own, too: none.
        patched(&app, &ada, &key, json!({"limits": [{"name": "minute", "limit": 5, "window": "1m"}], "concurrency": 0})).await;
        assert_eq!(holding(&app, &ada, &key).await, ["minute=5/60 key"]);
        assert_eq!(effective(&app, &ada, &key).await["concurrency"], json!({"value": 0, "source": "key"}));
        assert_eq!(code(&app, &ada, &key, json!({"cost": 5})).await, "VALID");
        // An empty list names none.
        patched(&app, &ada, &key, json!({"limits": []})).await;
        assert_eq!(holding(&app, &ada, &key).await, ["default=2/90 server"]);
        patched(&app, &ada, &key, json!({"limits": [{"name": "default", "limit": 7, "window": "1h"}], "concurrency": null})).await;
        assert_eq!(holding(&app, &ada, &key).await, ["default=7/3600 key"]);
        assert_eq!(effective(&app, &ada, &key).await["concurrency"], json!({"value": 1, "source": "server"}));
    }

    async fn nothing_holds_where_everything_is_off(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_DEFAULT_RATE_LIMIT", "0")]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        assert_eq!(holding(&app, &ada, &key).await, Vec::<String>::new());
        assert_eq!(standing(&app, &ada, &key).await, json!({"limits": [], "concurrency": {"limit": 0, "in_use": 0}}));
        for _ in 0..20 {
            let answer = app.verify(&ada, question(&key, json!({"cost": 1_000_000}))).await;
            assert_eq!((&answer["code"], &answer["limits"]), (&json!("VALID"), &json!([])));
        }
    }

    async fn a_key_replaces_its_projects_limits_by_name(engine: Engine) {
        let app = App::start_with(engine, &[LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let (plain, own) = (app.key(&ada, json!({})).await, app.key(&ada, json!({"limits": [{"name": "minute", "limit": 60, "window": "2m"}, {"name": "hour", "limit": 100, "window": "1h"}]})).await);
        assert_eq!(holding(&app, &ada, &plain).await, ["default=1000/3600 server"]);
        app.tamper(PROJECT).await;
        assert_eq!(holding(&app, &ada, &plain).await, ["minute=6/60 project", "day=9/86400 project"]);
        assert_eq!(holding(&app, &ada, &own).await, ["minute=60/120 key", "hour=100/3600 key", "day=9/86400 project"]);
        let shown = effective(&app, &ada, &own).await;
        assert_eq!(shown["limits"][0], json!({"name": "minute", "limit": 60, "window": "2m", "window_seconds": 120, "source": "key"}));
        assert_eq!((&shown["concurrency"], &shown["ip_allow"]), (&json!({"value": 3, "source": "project"}), &json!({"value": ["192.0.2.0/24"], "source": "project"})));
        assert_eq!(shown["schedule"], json!({"value": [{"days": ["tue"], "from": "08:00", "to": "18:00", "timezone": "Europe/Berlin"}], "source": "project"}));

        let from = json!({"client": {"ip": "192.0.2.1"}});
        let mut heavy = from.clone();
        heavy["cost"] = json!(6);
        assert_eq!(code(&app, &ada, &plain, heavy.clone()).await, "VALID");
        assert_eq!(code(&app, &ada, &plain, from.clone()).await, "RATE_LIMITED");
        // Two keys of one project count apart.
        assert_eq!(used(&app, &ada, &own).await.values().sum::<u64>(), 0);
        assert_eq!(code(&app, &ada, &own, heavy.clone()).await, "VALID");
        assert_eq!(code(&app, &ada, &own, heavy).await, "QUOTA_EXCEEDED");
        // What the project's limit has counted, the key's of the same name goes on with.
        patched(&app, &ada, &plain, json!({"limits": [{"name": "minute", "limit": 8, "window": "1m"}]})).await;
        assert_eq!(used(&app, &ada, &plain).await, [("minute".to_owned(), 6), ("day".to_owned(), 6)].into());
        patched(&app, &ada, &plain, json!({"limits": null})).await;
        assert_eq!(holding(&app, &ada, &plain).await, ["minute=6/60 project", "day=9/86400 project"]);
        assert_eq!(used(&app, &ada, &plain).await, [("minute".to_owned(), 6), ("day".to_owned(), 6)].into());
        app.tamper("UPDATE projects SET settings = NULL").await;
        assert_eq!(holding(&app, &ada, &own).await, ["minute=60/120 key", "hour=100/3600 key"]);
        assert_eq!(holding(&app, &ada, &plain).await, ["default=1000/3600 server"]);
    }

    async fn eight_of_a_key_and_eight_of_its_project_all_hold(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let limits: Vec<_> = (0..8).map(|n| json!({"name": format!("k{n}"), "limit": 20 + n, "window": format!("{}m", n + 1)})).collect();
        let key = app.key(&ada, json!({"limits": limits})).await;
        app.tamper(r#"UPDATE projects SET settings = '{"limits":[{"name":"p0","limit":10,"window":"1s"},{"name":"p1","limit":11,"window":"1h"},{"name":"p2","limit":12,"window":"2h"},{"name":"p3","limit":13,"window":"3h"},{"name":"p4","limit":14,"window":"1d"},{"name":"p5","limit":15,"window":"2d"},{"name":"p6","limit":16,"window":"3d"},{"name":"p7","limit":9,"window":"4d"}]}' WHERE kind = 'personal'"#).await;
        assert_eq!(holding(&app, &ada, &key).await.len(), 16);
        let answer = app.verify(&ada, question(&key, json!({"cost": 9}))).await;
        assert_eq!((&answer["code"], answer["limits"].as_array().unwrap().len()), (&json!("VALID"), 16));
        assert!(used(&app, &ada, &key).await.values().all(|used| *used == 9));
        let answer = app.verify(&ada, question(&key, json!({}))).await;
        assert_eq!((&answer["code"], &answer["violated"]), (&json!("QUOTA_EXCEEDED"), &json!(["p7"])));
    }
}
