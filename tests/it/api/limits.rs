//! Sliding windows through the API: what is spent, what isn't, and when there is room again.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{Dice, LONG_SESSIONS, MANY_KEYS, code, patched, path, question, standing, switched, text, used};
use crate::both_engines;
use crate::harness::{App, Session};

fn limit(name: &str, limit: u64, window: &str) -> Value {
    json!({"name": name, "limit": limit, "window": window})
}

async fn limited(app: &App, who: &Session, limits: &[Value]) -> Value {
    app.key(who, json!({"scopes": ["a:b"], "limits": limits})).await
}

/// Asks many at once, and counts those who are admitted.
async fn rush(app: &App, who: &Session, key: &Value, times: usize) -> usize {
    let asked = (0..times).map(|_| app.verify(who, question(key, json!({}))));
    futures_util::future::join_all(asked).await.iter().filter(|answer| answer["valid"] == true).count()
}

both_engines! {
    async fn a_denied_question_changes_no_counter(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        // Of three windows, each refuses alone in its turn.
        for (short, hour, day, cost, expected) in [(2, 9, 9, 1, "RATE_LIMITED"), (9, 2, 9, 1, "RATE_LIMITED"), (9, 9, 2, 1, "QUOTA_EXCEEDED"), (9, 9, 9, 8, "RATE_LIMITED"), (2, 2, 2, 1, "RATE_LIMITED"), (99, 99, 9, 10, "QUOTA_EXCEEDED")] {
            let key = limited(&app, &ada, &[limit("short", short, "30s"), limit("hour", hour, "1h"), limit("day", day, "1d")]).await;
            for _ in 0..2 {
                assert_eq!(code(&app, &ada, &key, json!({"scopes": ["a:b"]})).await, "VALID");
                app.advance(Duration::from_millis(700));
            }
            let before = standing(&app, &ada, &key).await;
            assert!(before["limits"].as_array().unwrap().iter().all(|window| window["used"] == 2));
            for extra in [json!({"cost": cost}), json!({"cost": cost, "dry_run": true}), json!({"dry_run": true}), json!({"scopes": ["a:c"]}), json!({"cost": 1_000_000})] {
                let answer = app.verify(&ada, question(&key, extra.clone())).await;
                match extra["cost"].as_u64() {
                    Some(1_000_000) => assert_eq!(answer["code"], "RATE_LIMITED"),
                    Some(_) => assert_eq!(answer["code"], expected, "{answer}"),
                    None => {}
                }
                assert_eq!(standing(&app, &ada, &key).await, before, "{extra}");
            }
        }
        // Every other refusal.
        let key = limited(&app, &ada, &[limit("minute", 9, "1m"), limit("day", 9, "1d")]).await;
        code(&app, &ada, &key, json!({"cost": 3})).await;
        let mut before = standing(&app, &ada, &key).await;
        assert_eq!(code(&app, &bob, &key, json!({})).await, "NOT_FOUND");
        for (change, expected) in [(json!({"path_allow": []}), "INSUFFICIENT_SCOPE"), (json!({"schedule": []}), "OUTSIDE_SCHEDULE"), (json!({"ip_allow": []}), "IP_NOT_ALLOWED")] {
            patched(&app, &ada, &key, change).await;
            assert_eq!(code(&app, &ada, &key, json!({})).await, expected);
            app.get("/v1/keys/self").api_key(text(&key, "key")).send().await.expect(403);
            assert_eq!(standing(&app, &ada, &key).await, before, "{expected}");
        }
        for (how, expected) in [("/disable", "DISABLED"), ("/revoke", "REVOKED")] {
            switched(&app, &ada, &key, how).await;
            assert_eq!(code(&app, &ada, &key, json!({})).await, expected);
            app.get("/v1/keys/self").api_key(text(&key, "key")).send().await.expect(401);
            assert_eq!(standing(&app, &ada, &key).await, before, "{expected}");
        }
        // And so does the passing of time, until it frees something.
        app.advance(Duration::from_mins(1));
        for (window, reset) in [(0, 1), (1, 87_780)] {
            before["limits"][window]["reset_seconds"] = json!(reset);
        }
        assert_eq!(standing(&app, &ada, &key).await, before);
    }

    async fn all_windows_are_spent_together(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let limits: Vec<_> = (1..=8).map(|n| limit(&format!("w{n}"), 10 * n, &format!("{n}m"))).collect();
        let key = limited(&app, &ada, &limits).await;
        let mut spent = 0;
        for cost in [1, 4, 2] {
            let answer = app.verify(&ada, question(&key, json!({"cost": cost}))).await;
            spent += cost;
            let left: Vec<_> = answer["limits"].as_array().unwrap().iter().map(|window| window["remaining"].as_u64().unwrap()).collect();
            assert_eq!(left, (1..=8).map(|n| 10 * n - spent).collect::<Vec<_>>());
            assert!(used(&app, &ada, &key).await.values().all(|used| *used == spent));
        }
        assert_eq!(code(&app, &ada, &key, json!({"cost": 4})).await, "RATE_LIMITED");
        assert!(used(&app, &ada, &key).await.values().all(|used| *used == 7));
        // Sorted by their length, whatever the order in which they were given.
        let (a, b, c) = (limit("a", 3, "30d"), limit("b", 3, "5s"), limit("c", 3, "1h"));
        let key = limited(&app, &ada, &[a, b, c]).await;
        let standing = standing(&app, &ada, &key).await;
        assert_eq!(standing, json!({"limits": [
            {"name": "b", "limit": 3, "window_seconds": 5, "used": 0, "remaining": 3, "reset_seconds": 0},
            {"name": "c", "limit": 3, "window_seconds": 3600, "used": 0, "remaining": 3, "reset_seconds": 0},
            {"name": "a", "limit": 3, "window_seconds": 2_592_000, "used": 0, "remaining": 3, "reset_seconds": 0},
        ], "concurrency": {"limit": 0, "in_use": 0}}));
    }

    async fn a_window_of_a_day_is_a_quota(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for (windows, expected, violated) in [
            (&[("almost", "86399s")][..], "RATE_LIMITED", json!(["almost"])),
            (&[("day", "86400s")], "QUOTA_EXCEEDED", json!(["day"])),
            (&[("month", "30d")], "QUOTA_EXCEEDED", json!(["month"])),
            (&[("month", "30d"), ("day", "1d")], "QUOTA_EXCEEDED", json!(["day", "month"])),
            (&[("month", "30d"), ("second", "1s"), ("day", "1d")], "RATE_LIMITED", json!(["second", "day", "month"])),
        ] {
            let limits: Vec<_> = windows.iter().map(|(name, window)| limit(name, 1, window)).collect();
            let key = limited(&app, &ada, &limits).await;
            assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
            let answer = app.verify(&ada, question(&key, json!({}))).await;
            assert_eq!((&answer["code"], &answer["violated"]), (&json!(expected), &violated));
            let longest = answer["limits"].as_array().unwrap().iter().map(|window| window["reset_seconds"].as_u64().unwrap()).max();
            assert_eq!(answer["retry_after_seconds"].as_u64(), longest, "{answer}");
        }
    }
}

both_engines! {
    async fn after_a_burst_nothing_is_admitted_until_it_has_left_the_window(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for (window, seconds) in [("1s", 1), ("5s", 5), ("1m", 60), ("10m", 600)] {
            let key = limited(&app, &ada, &[limit("w", 3, window)]).await;
            for _ in 0..2 {
                assert_eq!(rush(&app, &ada, &key, 4).await, 3);
                // To the end of the window nothing; a sub-window (a sixtieth) later at the latest, everything.
                app.advance(Duration::from_millis(500));
                assert_eq!(rush(&app, &ada, &key, 2).await, 0);
                app.advance(Duration::from_millis(seconds * 1_000 - 500));
                assert_eq!(rush(&app, &ada, &key, 2).await, 0, "{window}: both ends belong to the span");
                app.advance(Duration::from_micros((seconds * 1_000_000).div_ceil(60) * 61 - seconds * 1_000_000 - 1));
                assert_eq!(rush(&app, &ada, &key, 2).await, 0, "{window}");
                app.advance(Duration::from_micros(1));
            }
            assert_eq!(rush(&app, &ada, &key, 4).await, 3, "{window}");
            // Two halves leave one after the other.
            app.advance(Duration::from_secs(2 * seconds));
            assert_eq!(code(&app, &ada, &key, json!({"cost": 2})).await, "VALID");
            app.advance(Duration::from_millis(seconds * 500));
            assert_eq!(rush(&app, &ada, &key, 2).await, 1);
            app.advance(Duration::from_micros((seconds * 1_000_000).div_ceil(60) * 61 - seconds * 500_000));
            assert_eq!(rush(&app, &ada, &key, 3).await, 2, "{window}");
        }
    }

    /// Whatever was asked before: who waits as long as the answer says is admitted, and a second less isn't enough.
    async fn waiting_as_long_as_told_is_enough_and_no_less(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let mut dice = Dice(7);
        let windows = ["1s", "3s", "5s", "7s", "1m", "90s", "1h"];
        for _ in 0..8 {
            let count = 1 + dice.roll(3);
            let mut limits = Vec::new();
            for n in 0..count {
                let (amount, window) = (2 + dice.roll(9), windows[usize::try_from(dice.roll(7)).unwrap()]);
                limits.push(limit(&format!("w{n}"), amount, window));
            }
            let least = limits.iter().map(|limit| limit["limit"].as_u64().unwrap()).min().unwrap();
            let key = limited(&app, &ada, &limits).await;
            // When it was admitted, and how much of it, on a clock of our own.
            let (mut now, mut log) = (0, Vec::new());
            for _ in 0..30 {
                let step = [0, dice.roll(100), dice.roll(2_000), dice.roll(20_000)][usize::try_from(dice.roll(4)).unwrap()] * 1_000 + dice.roll(1_000);
                app.advance(Duration::from_micros(step));
                now += step;
                let cost = 1 + dice.roll(least.min(3));
                let answer = app.verify(&ada, question(&key, json!({"cost": cost}))).await;
                if answer["valid"] == false {
                    let seconds = answer["retry_after_seconds"].as_u64().unwrap();
                    let dry = async || code(&app, &ada, &key, json!({"cost": cost, "dry_run": true})).await;
                    assert_eq!(dry().await, "RATE_LIMITED");
                    if seconds > 1 {
                        app.advance(Duration::from_secs(seconds - 1));
                        assert_eq!(dry().await, "RATE_LIMITED", "{limits:?}: {answer}");
                        app.advance(Duration::from_secs(1));
                    } else {
                        app.advance(Duration::from_secs(seconds));
                    }
                    now += seconds * 1_000_000;
                    let again = app.verify(&ada, question(&key, json!({"cost": cost}))).await;
                    assert_eq!(again["code"], "VALID", "{limits:?}: {answer}");
                }
                log.push((now, cost));
                // By the client's own log, no span as long as a window holds more than its limit.
                for shown in standing(&app, &ada, &key).await["limits"].as_array().unwrap() {
                    let since = now.saturating_sub(shown["window_seconds"].as_u64().unwrap() * 1_000_000);
                    let held: u64 = log.iter().filter(|(at, _)| *at >= since).map(|(_, cost)| cost).sum();
                    assert!(held <= shown["limit"].as_u64().unwrap(), "{held} in {shown}");
                }
            }
        }
    }

    async fn at_once_exactly_the_limit_is_admitted(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for limits in [vec![limit("minute", 10, "1m")], vec![limit("second", 20, "1s"), limit("hour", 10, "1h"), limit("day", 30, "1d")]] {
            // Nobody has asked about this one before: all find it at once.
            let key = limited(&app, &ada, &limits).await;
            assert_eq!(rush(&app, &ada, &key, 32).await, 10);
            assert!(used(&app, &ada, &key).await.values().all(|used| *used == 10));
            app.advance(Duration::from_mins(61));
            // What others changed must be heard of again first: all load it at once.
            assert_eq!(rush(&app, &ada, &key, 32).await, 10);
        }
        // Through every door.
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:read"], "limits": [limit("minute", 10, "1m")]})).await;
        let secret = text(&key, "key");
        let single = (0..12).map(|_| async { app.verify(&ada, question(&key, json!({}))).await["valid"] == true });
        let own = (0..12).map(|_| async { app.get(&path(&key, "")).api_key(secret).send().await.status == 200 });
        let (single, own) = futures_util::future::join(futures_util::future::join_all(single), futures_util::future::join_all(own)).await;
        assert_eq!(single.iter().chain(&own).filter(|admitted| **admitted).count(), 10);
    }
}
