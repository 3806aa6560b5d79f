use super::*;
use crate::infra::config::{Config, Loaded};

const WEB: &str = r#"
    [[services]]
    name = "web"
    kind = "http"
    url = "http://127.0.0.1:1/"
    secret = "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg=="
    start_period = 5
    checks = [
        { name = "a", kind = "tcp", address = "a:1", failures = 2, successes = 2 },
        { name = "b", kind = "tcp", address = "b:1", failures = 1 },
    ]
    restart = { after = 3, backoff = 2, backoff_max = 10, cooldown = 4, per_hour = 3 }
"#;

const WORKER: &str = r#"
    [[services]]
    name = "worker"
    kind = "process"
    command = ["/bin/true"]
    start_period = 5
    restart = { backoff = 1, backoff_max = 8, cooldown = 0, per_hour = 4 }
"#;

fn service(text: &str) -> ServiceConfig {
    use std::io::Write as _;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Config::parse(&Loaded::load(Some(file.path()), [], []).unwrap()).unwrap().services.remove(0)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000).unwrap()
}

fn id(number: u128) -> ServiceOperationId {
    ServiceOperationId::from_bits(number)
}

fn seen(seconds: i64, ok: bool) -> Seen {
    Seen { at: at(seconds), ok, detail: (!ok).then(|| "status 503".to_owned()), duration_ms: 1 }
}

/// State and event of each change.
fn told(changes: &[Change]) -> Vec<(State, Option<&'static str>)> {
    changes.iter().map(|change| (change.state, change.event)).collect()
}

/// Up, at ten seconds.
fn up(web: &ServiceConfig) -> Standing {
    let mut standing = Standing::new(at(0));
    for second in [9, 10] {
        standing.observe(web, "b", seen(second, true));
        standing.observe(web, "a", seen(second, true));
    }
    assert_eq!(standing.state, State::Up);
    standing
}

#[test]
fn thresholds_hold_on_both_sides() {
    let web = service(WEB);
    let mut standing = Standing::new(at(0));
    assert_eq!(told(&standing.observe(&web, "b", seen(1, true))), []);
    assert_eq!(told(&standing.observe(&web, "a", seen(1, true))), []);
    // The first time up is no recovery.
    assert_eq!(told(&standing.observe(&web, "a", seen(2, true))), [(State::Up, None)]);
    assert_eq!(told(&standing.observe(&web, "a", seen(3, false))), []);
    assert_eq!(told(&standing.observe(&web, "a", seen(4, true))), []);
    assert_eq!(told(&standing.observe(&web, "a", seen(5, false))), []);
    let down = standing.observe(&web, "a", seen(6, false));
    assert_eq!(told(&down), [(State::Down, Some("service.down"))]);
    assert_eq!((down[0].reason.as_deref(), down[0].failures), (Some("check a: status 503"), 2));
    // The other check alone doesn't make it up.
    assert_eq!(told(&standing.observe(&web, "b", seen(7, true))), []);
    assert_eq!(told(&standing.observe(&web, "a", seen(8, true))), []);
    assert_eq!(told(&standing.observe(&web, "a", seen(9, true))), [(State::Up, Some("service.recovered"))]);
    assert_eq!(standing.observe(&web, "nobody", seen(9, false)), []);
}

#[test]
fn the_policy_waits_for_its_number_of_failures_and_the_backoff() {
    let web = service(WEB);
    let mut standing = up(&web);
    standing.observe(&web, "a", seen(20, false));
    standing.observe(&web, "a", seen(21, false));
    assert_eq!(standing.state, State::Down);
    // Down after two, restarted after three and two seconds.
    assert_eq!(standing.tick(&web, at(30)).0, Act::Wait);
    standing.observe(&web, "a", seen(31, false));
    assert_eq!(standing.tick(&web, at(32)).0, Act::Wait);
    assert_eq!(standing.tick(&web, at(33)).0, Act::Restart);
    let begun = standing.begun(id(1), Cause::Policy, at(33));
    assert_eq!((begun.state, begun.operation, begun.event), (State::Restarting, Some(id(1)), None));
    // Nothing counts meanwhile.
    assert_eq!(standing.observe(&web, "a", seen(34, true)), []);
    assert_eq!(standing.tick(&web, at(100)).0, Act::Wait);
    let ended = standing.ended(&web, Ok(()), at(35));
    assert_eq!(told(&ended), [(State::Starting, Some("service.restarted"))]);
    assert_eq!((ended[0].operation, &ended[0].ended), (Some(id(1)), &Some(Ok(()))));
    // Failures right after the start are spared, successes aren't.
    standing.observe(&web, "b", seen(36, false));
    assert_eq!(standing.state, State::Starting);
    standing.observe(&web, "b", seen(37, true));
    standing.observe(&web, "a", seen(37, true));
    assert_eq!(told(&standing.observe(&web, "a", seen(38, true))), [(State::Up, Some("service.recovered"))]);
    assert_eq!((standing.restarts, standing.series), (1, 1));
    // A series ends with a while of being up: as long as the next wait, and the cooldown.
    standing.tick(&web, at(41));
    assert_eq!(standing.series, 1);
    standing.tick(&web, at(42));
    assert_eq!(standing.series, 0);
}

/// Fails check `b` once, and gives the second at which the policy restarts.
fn restarted_at(web: &ServiceConfig, standing: &mut Standing, from: i64) -> Option<i64> {
    for failure in 0..3 {
        standing.observe(web, "b", seen(from + failure, false));
    }
    (from..from + 60).find(|second| standing.tick(web, at(*second)).0 == Act::Restart)
}

#[test]
fn backoff_doubles_the_cooldown_holds_and_the_cap_ends_it() {
    let web = service(WEB);
    let mut standing = up(&web);
    let mut from = 100;
    // Waits of 2, 4 and 8 seconds after the third failure.
    for (number, wait) in [(1, 2), (2, 4), (3, 8)] {
        let second = restarted_at(&web, &mut standing, from).unwrap();
        assert_eq!(second - (from + 2), wait, "{number}");
        standing.begun(id(number), Cause::Policy, at(second));
        standing.ended(&web, Ok(()), at(second));
        // Past the start period.
        from = second + 5;
    }
    assert_eq!(restarted_at(&web, &mut standing, from), None);
    assert_eq!(standing.state, State::Failed);
    assert!(standing.reason.as_deref().unwrap().starts_with("restarted 3 times within an hour"));
    // Also when the hour is over.
    assert_eq!(standing.tick(&web, at(from + 7200)), (Act::Wait, vec![]));
    // It may come up by itself.
    standing.observe(&web, "a", seen(9000, true));
    standing.observe(&web, "a", seen(9001, true));
    assert_eq!(told(&standing.observe(&web, "b", seen(9001, true))), [(State::Up, Some("service.recovered"))]);
    // The hour is over: there is room again.
    assert!(restarted_at(&web, &mut standing, 9100).is_some());
}

#[test]
fn the_cap_is_told_and_a_restart_by_hand_forgives() {
    let web = service(WEB);
    let mut standing = up(&web);
    let mut from = 100;
    for number in 1..=3 {
        let second = restarted_at(&web, &mut standing, from).unwrap();
        standing.begun(id(number), Cause::Policy, at(second));
        standing.ended(&web, Ok(()), at(second));
        from = second + 5;
    }
    for failure in 0..3 {
        standing.observe(&web, "b", seen(from + failure, false));
    }
    let (act, changes) = standing.tick(&web, at(from + 30));
    assert_eq!((act, told(&changes)), (Act::Wait, vec![(State::Failed, Some("service.down"))]));
    standing.begun(id(9), Cause::Manual, at(from + 40));
    let ended = standing.ended(&web, Err("status 500".to_owned()), at(from + 41));
    assert_eq!(told(&ended), [(State::Down, None)]);
    assert_eq!(ended[0].reason.as_deref(), Some("the restart failed: status 500"));
    // The policy goes on from the start.
    assert_eq!(standing.series, 0);
    assert_eq!(standing.tick(&web, at(from + 42)).0, Act::Wait);
    assert_eq!(standing.tick(&web, at(from + 44)).0, Act::Restart);
}

#[test]
fn two_restarts_keep_the_cooldown() {
    let web = service(&WEB.replace("cooldown = 4", "cooldown = 60"));
    let mut standing = up(&web);
    let first = restarted_at(&web, &mut standing, 100).unwrap();
    standing.begun(id(1), Cause::Policy, at(first));
    standing.ended(&web, Ok(()), at(first));
    assert_eq!(restarted_at(&web, &mut standing, first + 10), Some(first + 60));
}

#[test]
fn a_process_that_ends_at_once_is_backed_off_and_given_up() {
    let worker = service(WORKER);
    let mut standing = Standing::new(at(0));
    assert_eq!(told(&standing.resume(&worker, at(0))), [(State::Starting, None)]);
    assert_eq!(told(&standing.started(&worker, Ok(()), at(0))), []);
    // Without checks it is up when it has run for a while.
    assert_eq!(told(&standing.tick(&worker, at(4)).1), []);
    assert_eq!(told(&standing.tick(&worker, at(5)).1), [(State::Up, None)]);
    let down = standing.exited(&worker, "exit status 1".to_owned(), at(10));
    assert_eq!(told(&down), [(State::Down, Some("service.down"))]);
    let (mut second, mut waits) = (10, Vec::new());
    for number in 1..=4 {
        let restart = (second..second + 60).find(|now| standing.tick(&worker, at(*now)).0 == Act::Restart).unwrap();
        waits.push(restart - second);
        standing.begun(id(number), Cause::Policy, at(restart));
        assert_eq!(told(&standing.ended(&worker, Ok(()), at(restart))), [(State::Starting, Some("service.restarted"))]);
        // It dies again; that it is down was told.
        assert_eq!(
            told(&standing.exited(&worker, "killed by signal 9".to_owned(), at(restart))),
            [(State::Down, None)]
        );
        second = restart;
    }
    assert_eq!(waits, [1, 2, 4, 8]);
    let (act, changes) = standing.tick(&worker, at(second + 8));
    assert_eq!((act, told(&changes)), (Act::Wait, vec![(State::Failed, Some("service.down"))]));
    assert_eq!(standing.restarts, 4);
}

#[test]
fn without_a_policy_nothing_is_restarted() {
    let worker = service(WORKER.split("restart =").next().unwrap());
    let mut standing = Standing::new(at(0));
    standing.started(&worker, Err("no such file".to_owned()), at(0));
    assert_eq!((standing.state, standing.reason.as_deref()), (State::Down, Some("no such file")));
    assert_eq!(standing.tick(&worker, at(100_000)), (Act::Wait, vec![]));
    // By hand it can be.
    standing.begun(id(1), Cause::Manual, at(100_000));
    standing.ended(&worker, Ok(()), at(100_001));
    assert_eq!(told(&standing.tick(&worker, at(100_006)).1), [(State::Up, Some("service.recovered"))]);
}

#[test]
fn who_takes_over_ends_what_was_under_way() {
    let web = service(WEB);
    let mut standing = up(&web);
    standing.begun(id(7), Cause::Manual, at(20));
    let stored: Standing = serde_json::from_str(&serde_json::to_string(&standing).unwrap()).unwrap();
    assert_eq!(stored, standing);
    let changes = standing.resume(&web, at(60));
    assert_eq!((changes.len(), changes[0].operation), (1, Some(id(7))));
    assert!(matches!(&changes[0].ended, Some(Err(error)) if error.contains("ended with")));
    // As it was before: its checks are content.
    assert_eq!(told(&standing.tick(&web, at(60)).1), [(State::Up, None)]);
}
