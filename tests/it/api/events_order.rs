//! The one order of events: commits of a thing in their order, nothing lost, nothing twice.

use std::collections::BTreeMap;
use std::time::Duration;

use keyward::base::id::ProjectId;
use keyward::features::events::{self, Event, consumers, publish, store};
use keyward::features::projects;
use serde_json::{Value, json};

use super::support::{MANY_KEYS, path, text, texts, until};
use crate::both_engines;
use crate::harness::{App, Engine};

/// All events, in the order of places.
async fn placed(app: &App) -> Vec<store::Stored> {
    publish::publish(&app.ctx).await.unwrap();
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(0, |event: &store::Stored| event.place.unwrap());
        let page = store::placed_after(app.ctx.db.reader().await.unwrap().conn(), after, 100).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// Places are 1, 2, 3 … and nothing waits.
#[track_caller]
fn assert_without_gaps(events: &[store::Stored]) {
    let places: Vec<_> = events.iter().map(|event| event.place.unwrap()).collect();
    assert_eq!(places, (1..=i64::try_from(events.len()).unwrap()).collect::<Vec<_>>());
}

fn event(app: &App, project: ProjectId, thing: &str) -> Event {
    Event { at: app.ctx.now(), project, kind: "key.updated", resource_id: thing.to_owned(), data: json!({"id": thing}) }
}

async fn system(app: &App) -> ProjectId {
    projects::store::system(app.ctx.db.reader().await.unwrap().conn()).await.unwrap().unwrap()
}

both_engines! {
    async fn events_of_a_thing_have_the_order_of_its_commits(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let keys = [app.key(&ada, json!({"name": "a"})).await, app.key(&ada, json!({"name": "b"})).await];
        let change = async |n: usize| {
            let call = app.patch(&path(&keys[n % 2], "")).token(&ada.token).json(&json!({"name": format!("n{n}")}));
            call.send().await.expect(200);
        };
        futures_util::future::join_all((0..60).map(change)).await;

        let events = placed(&app).await;
        assert_without_gaps(&events);
        for key in &keys {
            let id = text(key, "id");
            // The feed's numbers are taken under the lock of the key's row, as are the entries' befores and afters.
            let entries = texts(&app, format!(
                "SELECT CAST(changes AS TEXT) FROM audit_entries WHERE resource_id = '{id}' AND action = 'key.update'"
            )).await;
            let next: BTreeMap<String, String> = entries.iter().map(|entry| {
                let entry: Value = serde_json::from_str(entry).unwrap();
                (text(&entry["before"], "name").to_owned(), text(&entry["after"], "name").to_owned())
            }).collect();
            let of_key: Vec<_> = events.iter().filter(|event| event.resource_id == id).collect();
            let names: Vec<_> = of_key.iter().map(|event| text(&event.data, "name")).collect();
            assert_eq!(names.len(), 31, "{names:?}");
            for pair in names.windows(2) {
                assert_eq!(next[pair[0]], pair[1], "{names:?}");
            }
            let now = app.get(&path(key, "")).token(&ada.token).send().await.expect(200).json();
            assert_eq!(*names.last().unwrap(), text(&now, "name"));
        }
        assert_eq!(app.count("SELECT count(*) FROM events").await, i64::try_from(events.len()).unwrap());
    }

    async fn many_publishers_give_each_place_once(engine: Engine) {
        let app = App::start(engine).await;
        let project = system(&app).await;
        let write = async |n: usize| {
            let mut tx = app.ctx.db.begin().await.unwrap();
            for part in 0..30 {
                events::append(&mut tx, &app.ctx, event(&app, project, &format!("thing-{n}-{part}"))).await.unwrap();
            }
            tx.commit().await.unwrap();
            publish::publish(&app.ctx).await.unwrap();
        };
        futures_util::future::join_all((0..40).map(write)).await;
        let events = placed(&app).await;
        assert_without_gaps(&events);
        assert_eq!(events.iter().filter(|event| event.resource_id.starts_with("thing-")).count(), 1200);
        for n in 0..40 {
            let own: Vec<_> = events.iter().filter_map(|event| event.resource_id.strip_prefix(&format!("thing-{n}-"))).collect();
            assert_eq!(own, (0..30).map(|part: u32| part.to_string()).collect::<Vec<_>>());
        }
        let head = app.count("SELECT place FROM event_head").await;
        assert_eq!(head, i64::try_from(events.len()).unwrap());
    }

    async fn a_commit_is_published_at_once_and_a_change_that_is_given_up_never(engine: Engine) {
        let app = App::start(engine).await;
        let project = system(&app).await;
        publish::publish(&app.ctx).await.unwrap();
        let mut newest = app.ctx.wakers.newest();
        let before = *newest.borrow_and_update();
        let mut tx = app.ctx.db.begin().await.unwrap();
        events::append(&mut tx, &app.ctx, event(&app, project, "given up")).await.unwrap();
        drop(tx);
        let mut tx = app.ctx.db.begin().await.unwrap();
        events::append(&mut tx, &app.ctx, event(&app, project, "done")).await.unwrap();
        tx.commit().await.unwrap();
        // Who waits is told.
        tokio::time::timeout(Duration::from_secs(20), newest.wait_for(|place| *place == before + 1)).await.unwrap().unwrap();
        let last = store::placed_after(app.ctx.db.reader().await.unwrap().conn(), before, 10).await.unwrap();
        assert_eq!(last.iter().map(|event| event.resource_id.as_str()).collect::<Vec<_>>(), ["done"]);
    }

    async fn a_type_that_the_catalogue_lacks_is_a_defect(engine: Engine) {
        let app = App::start(engine).await;
        let project = system(&app).await;
        let unknown = Event { kind: "key.nothing", ..event(&app, project, "x") };
        let ctx = app.ctx.clone();
        let written = tokio::spawn(async move {
            let mut tx = ctx.db.begin().await.unwrap();
            events::append(&mut tx, &ctx, unknown).await
        });
        assert!(written.await.unwrap_err().is_panic());
    }

    async fn a_consumer_begins_at_the_newest_and_never_goes_back(engine: Engine) {
        let app = App::start(engine).await;
        let there = i64::try_from(placed(&app).await.len()).unwrap();
        assert!(there > 0);
        assert_eq!(consumers::read(&app.ctx, "test").await.unwrap(), there);
        let mut tx = app.ctx.db.begin().await.unwrap();
        assert_eq!(consumers::hold(&mut tx, "test").await.unwrap(), there);
        consumers::advance(&mut tx, "test", there + 2).await.unwrap();
        consumers::advance(&mut tx, "test", there + 1).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(consumers::read(&app.ctx, "test").await.unwrap(), there + 2);
        assert_eq!(consumers::read(&app.ctx, "other").await.unwrap(), there);
        // One that wasn't known is, once it has come somewhere.
        let mut tx = app.ctx.db.begin().await.unwrap();
        consumers::advance(&mut tx, "third", 1).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(consumers::read(&app.ctx, "third").await.unwrap(), 1);
    }
}

/// On SQLite there is one writer at a time, so this can't happen there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_earlier_and_committed_later_is_not_lost() {
    let app = App::start(Engine::Postgres).await;
    let project = system(&app).await;
    let mut early = app.ctx.db.begin().await.unwrap();
    events::append(&mut early, &app.ctx, event(&app, project, "early")).await.unwrap();
    let mut late = app.ctx.db.begin().await.unwrap();
    events::append(&mut late, &app.ctx, event(&app, project, "late")).await.unwrap();
    late.commit().await.unwrap();
    until(Duration::from_secs(20), 1, async || {
        app.count("SELECT count(*) FROM events WHERE resource_id = 'late' AND place IS NOT NULL").await
    })
    .await;
    early.commit().await.unwrap();
    let events = placed(&app).await;
    assert_without_gaps(&events);
    let [.., late, early] = events.as_slice() else { panic!() };
    assert_eq!((late.resource_id.as_str(), early.resource_id.as_str()), ("late", "early"));
    assert!(early.seq < late.seq);
}
