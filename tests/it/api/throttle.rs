//! The delays after failed log-ins: they grow, end by themselves, and never keep the owner out.

use std::time::Duration;

use serde_json::json;

use super::support::{PROXY, register, try_login};
use crate::both_engines;
use crate::harness::{Answer, App, PASSWORD};

const WRONG: &str = "not her password";
const HOME: &str = "192.0.2.1";
/// Failures from one address that cost nothing.
const FREE: usize = 10;

#[track_caller]
fn wait(answer: &Answer) -> u64 {
    let problem = answer.problem(429, "rate_limited");
    assert_eq!(problem["detail"], "Rate limit exceeded. Try again later.");
    assert_eq!(problem["violated"], json!(["failed_logins"]));
    answer.header("retry-after").parse().unwrap()
}

async fn fail(app: &App, from: &str, times: usize) {
    for _ in 0..times {
        try_login(app, from, "ada", WRONG).await.problem(401, "invalid_credentials");
    }
}

both_engines! {
    async fn delays_grow_and_end_by_themselves(engine: Engine) {
        let app = App::start_with(engine, &[PROXY]).await;
        register(&app, "ada").await;
        fail(&app, HOME, FREE).await;
        let mut waits = Vec::new();
        for _ in 0..12 {
            let seconds = wait(&try_login(&app, HOME, "ada", WRONG).await);
            // The right password waits as well: otherwise guessing would go on.
            assert_eq!(wait(&try_login(&app, HOME, "ada", PASSWORD).await), seconds);
            app.advance(Duration::from_millis(seconds * 1000 - 1));
            assert_eq!(wait(&try_login(&app, HOME, "ada", PASSWORD).await), 1);
            app.advance(Duration::from_millis(1));
            waits.push(seconds);
            fail(&app, HOME, 1).await;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
        app.advance(Duration::from_mins(15));
        try_login(&app, HOME, "ada", PASSWORD).await.expect(200);
        // All is forgiven.
        fail(&app, HOME, FREE).await;
        assert_eq!(wait(&try_login(&app, HOME, "ada", WRONG).await), 1);
    }

    async fn a_delay_stands_in_every_header(engine: Engine) {
        let app = App::start_with(engine, &[PROXY]).await;
        fail(&app, HOME, FREE).await;
        let denied = try_login(&app, HOME, "ada", WRONG).await;
        wait(&denied);
        for name in ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
            assert!(!denied.header(name).is_empty(), "no {name}: {:?}", denied.headers);
        }
    }

    async fn failures_are_forgotten_after_a_day(engine: Engine) {
        let app = App::start_with(engine, &[PROXY]).await;
        register(&app, "ada").await;
        fail(&app, HOME, FREE - 1).await;
        app.advance(Duration::from_secs(86_401));
        fail(&app, HOME, FREE).await;
        assert_eq!(wait(&try_login(&app, HOME, "ada", WRONG).await), 1);
    }

    async fn capitals_and_unknown_names_are_delayed_alike(engine: Engine) {
        let app = App::start_with(engine, &[PROXY]).await;
        register(&app, "ada").await;
        for name in ["ada", "nobody", "not a name!"] {
            let mut shown = Vec::new();
            for spelling in [name, &name.to_uppercase()].into_iter().cycle().take(FREE) {
                shown.push(try_login(&app, HOME, spelling, WRONG).await.status);
            }
            assert_eq!(shown, [401; FREE], "{name}");
            assert_eq!(wait(&try_login(&app, HOME, name, WRONG).await), 1, "{name}");
        }
        // Other names from the same address aren't touched.
        register(&app, "bob").await;
        try_login(&app, HOME, "bob", PASSWORD).await.expect(200);
    }

    async fn guesses_from_one_address_bind_only_that_one(engine: Engine) {
        let app = App::start_with(engine, &[PROXY]).await;
        register(&app, "ada").await;
        fail(&app, "198.51.100.1", FREE).await;
        wait(&try_login(&app, "198.51.100.1", "ada", PASSWORD).await);
        try_login(&app, HOME, "ada", PASSWORD).await.expect(200);
        // One subscriber's IPv6 network is one address.
        for host in 1..=FREE {
            fail(&app, &format!("2001:db8:1:2::{host}"), 1).await;
        }
        wait(&try_login(&app, "2001:db8:1:2:ffff::6", "ada", PASSWORD).await);
        try_login(&app, "2001:db8:1:3::1", "ada", PASSWORD).await.expect(200);
    }

    async fn the_owner_is_not_locked_out_by_others(engine: Engine) {
        let app = App::start_with(engine, &[PROXY]).await;
        register(&app, "ada").await;
        try_login(&app, HOME, "ada", PASSWORD).await.expect(200);
        for host in 1..=10 {
            fail(&app, &format!("198.51.100.{host}"), 5).await;
        }
        // Fifty failures: now addresses that nobody logged in from must wait, whatever they know.
        assert_eq!(wait(&try_login(&app, "203.0.113.1", "ada", WRONG).await), 1);
        assert_eq!(wait(&try_login(&app, "203.0.113.2", "ada", PASSWORD).await), 1);
        try_login(&app, HOME, "ada", PASSWORD).await.expect(200);
        let mut waits = Vec::new();
        for host in 1..=7 {
            app.advance(Duration::from_secs(waits.last().copied().unwrap_or(1)));
            fail(&app, &format!("203.0.113.{host}"), 1).await;
            waits.push(wait(&try_login(&app, "203.0.113.100", "ada", PASSWORD).await));
        }
        // Never for long: from a new address the owner gets in as well.
        assert_eq!(waits, [2, 4, 8, 16, 30, 30, 30]);
        try_login(&app, HOME, "ada", PASSWORD).await.expect(200);
        app.advance(Duration::from_secs(30));
        try_login(&app, "203.0.113.100", "ada", PASSWORD).await.expect(200);
        // An address is usual for ninety days.
        fail(&app, "203.0.113.8", 1).await;
        try_login(&app, "203.0.113.100", "ada", PASSWORD).await.expect(200);
    }

    async fn parallel_guesses_cannot_exceed(engine: Engine) {
        // So many hashes at once that the guesses arrive at the count together.
        let app = App::start_with(engine, &[PROXY, ("KEYWARD_PASSWORD_HASH_PARALLELISM", "24")]).await;
        for name in ["ada", "bob", "cyd", "dan"] {
            register(&app, name).await;
            let guesses = (0..24).map(|_| try_login(&app, HOME, name, WRONG));
            let answers = futures_util::future::join_all(guesses).await;
            let (told, waits): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 401);
            assert_eq!(told.len(), FREE, "{name}: guesses that were answered");
            for answer in waits {
                assert_eq!(wait(&answer), 1);
            }
        }
        // Ten each, of which the account as a whole knows too.
        assert_eq!(app.count("SELECT count(*) FROM login_failures WHERE failures <> 10").await, 0);
        assert_eq!(app.count("SELECT count(*) FROM login_failures").await, 8);
    }
}
