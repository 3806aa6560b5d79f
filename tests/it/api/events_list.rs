//! `GET /v1/projects/{project}/events`: every type that changes make, caused through the public API, as its schema says; filters,
//! pages, and what is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use keyward::features::events::{catalogue, consumers, prune, publish};
use serde_json::{Value, json};

use super::events_catalogue::faults;
use super::keys_import::{hash, lines, send};
use super::support::{
    LONG_SESSIONS, MANY_KEYS, configure, join, key_in, patched, path, rotate, switched, team, text, until,
};
use crate::both_engines;
use crate::harness::{App, Call, Session};

/// All of a project's events, newest first, page by page.
async fn all(app: &App, who: &Session, filter: &str) -> Vec<Value> {
    let (mut events, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/projects/{}/events?limit=7{filter}{cursor}", who.project);
        let page = app.get(&path).token(&who.token).send().await.expect(200).json();
        events.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return events,
        }
    }
}

/// Every event is what its type's schema describes, and holds nothing else.
#[track_caller]
fn assert_as_described(events: &[Value]) {
    for event in events {
        let kind = catalogue::find(text(event, "type")).unwrap();
        let mut schema = (kind.schema)();
        schema["additionalProperties"] = false.into();
        assert_eq!(faults(&schema, &event["data"]), Vec::<String>::new(), "{event:#}");
        assert_eq!(event.as_object().unwrap().keys().collect::<BTreeSet<_>>().len(), 6, "{event:#}");
    }
}

fn ids(events: &[Value]) -> BTreeSet<String> {
    events.iter().map(|event| text(event, "id").to_owned()).collect()
}

fn types(events: &[Value]) -> BTreeSet<&str> {
    events.iter().map(|event| text(event, "type")).collect()
}

/// Events by type and what was done, with the kind of who did it.
fn deeds(events: &[Value]) -> BTreeSet<String> {
    let deed = |event: &Value| {
        let data = &event["data"];
        format!("{} {} {}", text(event, "type"), text(data, "action"), text(&data["actor"], "type"))
    };
    events.iter().map(deed).collect()
}

async fn done(call: Call) -> Value {
    let answer = call.send().await;
    assert!(answer.status < 300, "{}", answer.text());
    if answer.status == 204 { Value::Null } else { answer.json() }
}

/// Does everything that may be done to keys.
async fn change_keys(app: &App, ada: &Session, project: &str) -> Value {
    let key = key_in(app, ada, project, json!({"scopes": ["orders:read"], "metadata": {"team": "x"}})).await;
    patched(app, ada, &key, json!({"name": "another name"})).await;
    let limits = json!({"limits": [{"name": "minute", "limit": 5, "window": "1m"}]});
    done(app.put(&path(&key, "/limits")).token(&ada.token).json(&limits)).await;
    done(app.post(&path(&key, "/limits/reset")).token(&ada.token)).await;
    done(app.post(&path(&key, "/transfer")).token(&ada.token).json(&json!({"username": "bob"}))).await;
    rotate(app, &ada.token, &key, json!({"overlap": "1h"})).await.expect(200);
    switched(app, ada, &key, "/disable").await;
    switched(app, ada, &key, "/enable").await;
    let why = json!({"reason": "key_compromise", "note": "seen in a log"});
    done(app.post(&path(&key, "/revoke")).token(&ada.token).json(&why)).await;
    done(app.delete(&path(&key, &format!("?confirm={}", text(&key, "id")))).token(&ada.token)).await;
    key
}

/// Does everything that may be done to a project but its end.
async fn change_project(app: &App, ada: &Session, project: &str) {
    let at = |rest: &str| format!("/v1/projects/{project}{rest}");
    done(app.patch(&at("")).token(&ada.token).json(&json!({"name": "the shop"}))).await;
    configure(app, ada, project, json!({"concurrency": 9, "departed_keys": "revoke"})).await;
    for how in ["/suspend", "/resume"] {
        done(app.post(&at(how)).token(&ada.token)).await;
    }
    let scope = json!({"name": "orders:read", "description": "Read orders"});
    done(app.post(&at("/scopes")).token(&ada.token).json(&scope)).await;
    done(app.patch(&at("/scopes/orders:read")).token(&ada.token).json(&json!({"description": "See orders"}))).await;
    done(app.delete(&at("/scopes/orders:read")).token(&ada.token)).await;
    let scopes = json!({"version": "1.0.0", "scopes": [{"name": "orders:list", "description": "List orders"}]});
    done(app.post(&at("/scopes:import")).token(&ada.token).json(&scopes)).await;
    done(app.post(&at("/sensitive-fields")).token(&ada.token).json(&json!({"name": "inner_*"}))).await;
    done(app.patch(&at("/sensitive-fields/inner_*")).token(&ada.token).json(&json!({"strategy": "remove"}))).await;
    done(app.delete(&at("/sensitive-fields/inner_*")).token(&ada.token)).await;
    let line = json!({"hash": hash("elsewhere"), "name": "moved", "prefix": "old"});
    send(app, &ada.token, project, "", lines(&[line])).await.expect(200);
}

both_engines! {
    async fn every_change_is_listed_and_told_as_its_schema_says(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        app.person("carol").await;
        let project = team(&app, &ada, "shop").await;
        let shop = Session { project: project.clone(), ..ada.clone() };
        let mut listener = app.listen(&ada.token, &project, "?since=2000-01-01T00:00:00Z").await;
        join(&app, &ada, &project, "bob", "admin").await;
        let key = change_keys(&app, &ada, &project).await;
        change_project(&app, &ada, &project).await;
        // What follows from a change: a lesser role, a departure.
        let keep = json!({"scopes": ["keyward:members:read", "keyward:keys:transfer"]});
        let key_of_bob = key_in(&app, &Session { project: project.clone(), ..bob.clone() }, &project, keep).await;
        let member = format!("/v1/projects/{project}/members/{}", bob.user);
        done(app.patch(&member).token(&ada.token).json(&json!({"role": "member"}))).await;
        done(app.delete(&member).token(&ada.token)).await;
        // By a key: it is the actor.
        let machine = key_in(&app, &ada, &project, json!({"scopes": ["keyward:keys:*"], "name": "ci"})).await;
        let made = app.post(&format!("/v1/projects/{project}/keys")).api_key(text(&machine, "key")).json(&json!({"name": "by a key"}));
        done(made).await;
        // The end, and back.
        let end = format!("/v1/projects/{project}?confirm={project}");
        done(app.delete(&end).token(&ada.token)).await;
        let heard = listener.rest().await;
        // Whoever may look at a deleted project sees what became of it.
        let listed = all(&app, &shop, "").await;
        assert_eq!(text(&listed[0], "type"), "project.deleted");
        assert_eq!(ids(&listed), ids(&heard));
        assert_eq!(listed.len(), heard.len());
        for event in &heard {
            assert!(listed.contains(event), "{event}");
        }
        done(app.post(&format!("/v1/projects/{project}/restore")).token(&ada.token)).await;
        let listed = all(&app, &shop, "").await;
        assert_as_described(&listed);
        let expected = [
            "key.created", "key.deleted", "key.disabled", "key.enabled", "key.revoked", "key.rotated", "key.updated",
            "member.changed", "project.created", "project.deleted", "project.updated",
        ];
        assert_eq!(types(&listed), BTreeSet::from(expected));
        let found = deeds(&listed);
        for deed in [
            "key.created key.create user", "key.created key.create key", "key.updated key.update user",
            "key.updated key.reset_limits user", "key.updated key.transfer user", "key.rotated key.rotate user",
            "key.disabled key.disable user", "key.enabled key.enable user", "key.revoked key.revoke user",
            "key.deleted key.delete user", "key.disabled key.disable system", "key.revoked key.revoke system",
            "project.created project.create user", "project.updated project.update user",
            "project.updated project.configure user", "project.updated project.suspend user",
            "project.updated project.resume user", "project.updated project.restore user",
            "project.updated scope.create user", "project.updated scope.update user", "project.updated scope.delete user",
            "project.updated scopes.import user", "project.updated sensitive_field.create user",
            "project.updated sensitive_field.update user", "project.updated sensitive_field.delete user",
            "project.updated keys.import user", "project.deleted project.delete user", "member.changed member.add user",
            "member.changed member.update user", "member.changed member.remove user",
        ] {
            assert!(found.contains(deed), "{deed} isn't in {found:#?}");
        }
        // What they say: who, what is different, why; and never a secret.
        let of = |kind: &str, resource: &Value| {
            listed.iter().find(|event| event["type"] == *kind && event["resource_id"] == *resource).unwrap()["data"].clone()
        };
        let updated = listed.iter().find(|event| event["data"]["action"] == "key.update" && event["data"]["changes"]["after"]["name"] == "another name");
        let updated = &updated.unwrap()["data"];
        assert_eq!(updated["changes"], json!({"before": {"name": "test"}, "after": {"name": "another name"}}));
        assert_eq!(updated["actor"], json!({"type": "user", "id": ada.user, "name": "ada"}));
        assert_eq!(updated["metadata"], json!({"team": "x"}));
        assert_eq!(of("key.revoked", &key["id"])["reason"], "key_compromise");
        assert_eq!(of("key.rotated", &key["id"])["generation"], 2);
        let departed = of("key.revoked", &key_of_bob["id"]);
        assert_eq!((text(&departed, "reason"), text(&departed["actor"], "name")), ("affiliation_changed", "departure"));
        assert!(text(&departed, "cause").starts_with("aud_"));
        let removed = listed.iter().find(|event| event["data"]["action"] == "member.remove").unwrap();
        assert_eq!((&removed["resource_id"], &removed["data"]["id"]), (&json!(bob.user), &json!(bob.user)));
        let configured = listed.iter().find(|event| event["data"]["action"] == "project.configure").unwrap();
        assert_eq!(configured["data"]["changes"]["after"], json!({"concurrency": 9, "departed_keys": "revoke"}));
        assert_eq!(configured["data"]["name"], "the shop");
        let everything = json!(listed).to_string();
        for secret in [&key["key"], &machine["key"], &key_of_bob["key"]] {
            assert!(!everything.contains(secret.as_str().unwrap()));
        }
        // Others' projects have their own.
        let own = all(&app, &ada, "").await;
        assert_eq!(types(&own), BTreeSet::from(["project.created"]));
        assert_as_described(&own);
    }

    async fn the_end_of_a_person_is_told(engine: Engine) {
        let app = App::start_with(engine, &super::support::ADMIN).await;
        let (root, ada, bob) = (super::support::admin(&app).await, app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        let shop = Session { project: project.clone(), ..ada.clone() };
        join(&app, &ada, &project, "bob", "member").await;
        let inside = Session { project: project.clone(), ..bob.clone() };
        let keys = [app.key(&inside, json!({})).await, app.key(&inside, json!({})).await];
        done(app.post(&format!("/v1/users/{}/disable", bob.user)).token(&root.token)).await;
        until(Duration::from_secs(20), 2, async || all(&app, &shop, "&type=key.disabled").await.len()).await;
        switched(&app, &ada, &keys[0], "/revoke").await;
        done(app.delete(&format!("/v1/users/{0}?confirm={0}", bob.user)).token(&root.token)).await;
        let listed = all(&app, &shop, "").await;
        assert_as_described(&listed);
        let removed = listed.iter().find(|event| event["data"]["action"] == "member.remove").unwrap();
        assert_eq!(removed["data"]["actor"]["name"], "departure");
        // Their own project went with them; who administers the service still reads what became of it in the trail.
        app.get(&format!("/v1/projects/{}/events", bob.project)).token(&root.token).send().await.problem(404, "project_not_found");
        assert_eq!(app.count("SELECT count(*) FROM events WHERE type = 'project.deleted'").await, 1);
    }

    async fn lists_are_filtered(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let mut keys = Vec::new();
        for n in 0..4 {
            keys.push(app.key(&ada, json!({"name": format!("k{n}")})).await);
            app.advance(Duration::from_mins(1));
        }
        for key in &keys {
            switched(&app, &ada, key, "/disable").await;
            switched(&app, &ada, key, "/enable").await;
        }
        let everything = all(&app, &ada, "").await;
        assert_eq!(everything.len(), 13);
        assert_eq!(ids(&everything).len(), 13);
        let times: Vec<_> = everything.iter().map(|event| text(event, "timestamp")).collect();
        assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
        // Those of one moment are in their order.
        let last: Vec<_> = everything.iter().take(8).map(|event| (text(event, "type"), &event["resource_id"])).collect();
        let of = |n: usize| [("key.enabled", &keys[n]["id"]), ("key.disabled", &keys[n]["id"])];
        assert_eq!(last, [of(3), of(2), of(1), of(0)].concat());

        assert_eq!(types(&all(&app, &ada, "&type=key.enabled,project.created").await), BTreeSet::from(["key.enabled", "project.created"]));
        assert_eq!(all(&app, &ada, "&type=key.*").await.len(), 12);
        assert_eq!(all(&app, &ada, "&type=*").await, everything);
        assert_eq!(all(&app, &ada, "&type=alert.*").await, Vec::<Value>::new());
        let of_one = format!("&resource={}", text(&keys[1], "id"));
        assert_eq!(all(&app, &ada, &of_one).await.len(), 3);
        assert_eq!(all(&app, &ada, &format!("{of_one}&type=key.created,key.enabled")).await.len(), 2);
        let (since, until) = (times[10], times[8]);
        let span = all(&app, &ada, &format!("&since={since}&until={until}")).await;
        let inside = |event: &&Value| text(event, "timestamp") >= since && text(event, "timestamp") < until;
        assert_eq!(span, everything.iter().filter(inside).cloned().collect::<Vec<_>>());
        assert!(!span.is_empty());
        for (rest, field) in [("?type=key.nothing", "type"), ("?type=key", "type"), ("?resource=", "resource"), ("?limit=0", "limit"), ("?cursor=x", "cursor"), ("?since=x", "since")] {
            let answer = app.get(&format!("/v1/projects/{}/events{rest}", ada.project)).token(&ada.token).send().await;
            assert_eq!(answer.problem(400, "invalid_request")["errors"][0]["field"], field, "{rest}");
        }
        // One by one, and not by others.
        let one = |project: &str, id: &str| app.get(&format!("/v1/projects/{project}/events/{id}"));
        let id = text(&everything[0], "id");
        assert_eq!(one(&ada.project, id).token(&ada.token).send().await.expect(200).json(), everything[0]);
        let eve = app.person("eve").await;
        one(&eve.project, id).token(&eve.token).send().await.problem(404, "event_not_found");
        one(&ada.project, id).token(&eve.token).send().await.problem(404, "project_not_found");
        one(&ada.project, "x").token(&ada.token).send().await.problem(404, "event_not_found");
    }

    async fn old_events_end_once_everybody_has_passed_them(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS, ("KEYWARD_EVENT_RETENTION", "7d")]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        publish::publish(&app.ctx).await.unwrap();
        let old = text(&all(&app, &ada, "").await[0], "id").to_owned();
        let place = consumers::read(&app.ctx, "slow").await.unwrap();
        switched(&app, &ada, &key, "/disable").await;
        publish::publish(&app.ctx).await.unwrap();
        prune::prune(&app.ctx).await.unwrap();
        assert_eq!(all(&app, &ada, "").await.len(), 3);
        app.advance(Duration::from_hours(24 * 8));
        switched(&app, &ada, &key, "/enable").await;
        publish::publish(&app.ctx).await.unwrap();
        prune::prune(&app.ctx).await.unwrap();
        let left = all(&app, &ada, "").await;
        assert_eq!(left.iter().map(|event| text(event, "type")).collect::<Vec<_>>(), ["key.enabled", "key.disabled"]);
        let call = app.get(&format!("/v1/projects/{}/events?last_event_id={old}", ada.project)).token(&ada.token);
        call.header("accept", "text/event-stream").send().await.problem(410, "event_gone");
        let mut tx = app.ctx.db.begin().await.unwrap();
        consumers::advance(&mut tx, "slow", place + 1).await.unwrap();
        tx.commit().await.unwrap();
        prune::prune(&app.ctx).await.unwrap();
        assert_eq!(types(&all(&app, &ada, "").await), BTreeSet::from(["key.enabled"]));
        // Numbers and places go on.
        switched(&app, &ada, &key, "/disable").await;
        publish::publish(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT max(place) - min(place) FROM events").await, 1);
        assert_eq!(app.count("SELECT max(place) FROM events").await, app.count("SELECT place FROM event_head").await);
    }

    async fn the_catalogue_is_for_everybody(engine: Engine) {
        let app = App::start(engine).await;
        let told = app.get("/v1/event-types").send().await.expect(200).json();
        assert_eq!(told["next_cursor"], Value::Null);
        let told = told["data"].as_array().unwrap();
        assert_eq!(told.len(), catalogue::all().count());
        let document = app.get("/openapi.json").send().await.expect(200).json();
        for kind in told {
            assert_eq!(kind["schema"]["$schema"], "https://json-schema.org/draft/2020-12/schema");
            assert_eq!(faults(&kind["schema"], &kind["example"]), Vec::<String>::new());
            // The same in the document, as it is sent.
            let post = &document["webhooks"][text(kind, "name")]["post"];
            let content = &post["requestBody"]["content"]["application/json"];
            assert_eq!(content["schema"]["properties"]["data"]["properties"], kind["schema"]["properties"]);
            assert_eq!(faults(&content["schema"], &content["example"]), Vec::<String>::new());
            let headers: Vec<_> = post["parameters"].as_array().unwrap().iter().map(|header| text(header, "name")).collect();
            assert_eq!(headers, ["webhook-id", "webhook-timestamp", "webhook-signature"]);
        }
        assert_eq!(document["webhooks"].as_object().unwrap().len(), told.len());
    }
}

#[test]
fn the_page_lists_the_types_of_the_catalogue() {
    let page = include_str!("../../../docs/events.md");
    let said: Vec<&str> = page.lines().filter(|line| is_row(line)).collect();
    let row = |kind: &catalogue::EventType| format!("| `{}` | {} | {} |", kind.name, kind.resource, kind.description);
    let meant: Vec<String> = catalogue::all().map(row).collect();
    assert_eq!(said, meant, "the table in docs/events.md should be:\n{}", meant.join("\n"));
}

/// A row of the table of types: three columns, the first of them a type.
fn is_row(line: &str) -> bool {
    let columns: Vec<_> = line.split(" | ").collect();
    columns.len() == 3 && columns[0].strip_prefix("| `").is_some_and(|name| name.contains('.') && name.ends_with('`'))
}
