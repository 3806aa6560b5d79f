//! `/v1/projects/{project}/members`: who may give which role to whom, and who stays.

use keyward::features::auth::Role;
use keyward::features::auth::permission::ROLES;
use serde_json::{Value, json};

use super::support::{ADMIN, MANY_KEYS, admin, code, configure, faceless, join, key_in, system_key, team, text, texts};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

async fn add(app: &App, credential: &str, project: &str, username: &str, role: &str) -> Answer {
    let call = app.post(&format!("/v1/projects/{project}/members")).token(credential);
    call.json(&json!({"username": username, "role": role})).send().await
}

async fn give(app: &App, credential: &str, project: &str, user: &str, role: &str) -> Answer {
    app.patch(&format!("/v1/projects/{project}/members/{user}"))
        .token(credential)
        .json(&json!({"role": role}))
        .send()
        .await
}

async fn remove(app: &App, credential: &str, project: &str, user: &str) -> Answer {
    app.delete(&format!("/v1/projects/{project}/members/{user}")).token(credential).send().await
}

/// A team with one of each role, in the order of [`ROLES`].
async fn staffed(app: &App) -> (String, Vec<Session>) {
    let mut people = Vec::new();
    for name in ["owner", "admin", "member", "viewer"] {
        people.push(app.person(name).await);
    }
    let project = team(app, &people[0], "shop").await;
    for role in &ROLES[1..] {
        join(app, &people[0], &project, role.word(), role.word()).await;
    }
    (project, people)
}

/// What a call of somebody with this role comes to: a status and, where it is refused, its code.
fn expected(may: bool, acts: bool, done: u16) -> (u16, &'static str) {
    match (acts, may) {
        (false, _) => (403, "forbidden"),
        (true, false) => (403, "role_not_held"),
        (true, true) => (done, ""),
    }
}

#[track_caller]
fn is(answer: &Answer, (status, code): (u16, &str), what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    if !code.is_empty() {
        answer.problem(status, code);
    }
}

both_engines! {
    async fn every_role_gives_and_takes_what_it_holds(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (project, people) = staffed(&app).await;
        let owner = people[0].token.clone();
        let guest = app.person("guest").await;
        for (caller, own) in people.iter().zip(ROLES) {
            let acts = matches!(own, Role::Owner | Role::Admin);
            // Nobody gives or takes more than they hold: an admin never an owner's role.
            let holds = |role: Role| own == Role::Owner || role != Role::Owner;
            for before in ROLES {
                let what = format!("{own:?} adds {before:?}");
                let added = add(&app, &caller.token, &project, "guest", before.word()).await;
                is(&added, expected(holds(before), acts, 201), &what);
                if added.status != 201 {
                    add(&app, &owner, &project, "guest", before.word()).await.expect(201);
                }
                for after in ROLES {
                    let what = format!("{own:?} makes {before:?} {after:?}");
                    let answer = give(&app, &caller.token, &project, &guest.user, after.word()).await;
                    is(&answer, expected(holds(before) && holds(after), acts, 200), &what);
                    give(&app, &owner, &project, &guest.user, before.word()).await.expect(200);
                }
                let removed = remove(&app, &caller.token, &project, &guest.user).await;
                is(&removed, expected(holds(before), acts, 204), &format!("{own:?} removes {before:?}"));
                if removed.status != 204 {
                    remove(&app, &owner, &project, &guest.user).await.expect(204);
                }
            }
            // Everybody sees who is there.
            let seen = app.get(&format!("/v1/projects/{project}/members")).token(&caller.token).send().await.expect(200).json();
            assert_eq!(seen["data"].as_array().unwrap().len(), 4);
        }
    }

    async fn a_role_is_what_one_may_do_from_the_next_request_on(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        let keys = format!("/v1/projects/{project}/keys");
        app.get(&keys).token(&bob.token).send().await.problem(404, "project_not_found");
        let key = key_in(&app, &ada, &project, json!({})).await;
        for _ in 0..3 {
            let added = add(&app, &ada.token, &project, "BOB", "viewer").await.expect(201);
            assert_eq!(added.header("location"), format!("/v1/projects/{project}/members/{}", bob.user));
            assert_eq!(added.json(), json!({"user_id": bob.user, "username": "bob", "role": "viewer", "is_disabled": false, "created_at": "2031-05-06T12:00:00Z"}));
            app.get(&keys).token(&bob.token).send().await.expect(200);
            app.post(&keys).token(&bob.token).json(&json!({"name": "n"})).send().await.problem(403, "forbidden");
            app.post("/v1/keys/verify").token(&bob.token).json(&json!({"key": key["key"]})).send().await;
            assert_eq!(code(&app, &bob, &key, json!({})).await, "NOT_FOUND");
            give(&app, &ada.token, &project, &bob.user, "member").await.expect(200);
            assert_eq!(code(&app, &bob, &key, json!({})).await, "VALID");
            app.post(&keys).token(&bob.token).json(&json!({"name": "n"})).send().await.expect(201);
            remove(&app, &ada.token, &project, &bob.user).await.expect(204);
            assert_eq!(code(&app, &bob, &key, json!({})).await, "NOT_FOUND");
            app.get(&keys).token(&bob.token).send().await.problem(404, "project_not_found");
        }
        // Each change left an entry and an event.
        for (action, changed) in [("member.add", 3), ("member.update", 3), ("member.remove", 3)] {
            let entries = texts(&app, format!("SELECT actor_id FROM audit_entries WHERE action = '{action}' AND project_id = '{project}' AND resource_id = '{}'", bob.user)).await;
            assert_eq!(entries, vec![ada.user.clone(); changed]);
        }
        assert_eq!(app.count("SELECT count(*) FROM events WHERE type = 'member.changed'").await, 9);
    }

    async fn an_owner_always_stays(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        let root = system_key(&app, &["keyward:*"]).await;
        for credential in [&ada.token, &root] {
            remove(&app, credential, &project, &ada.user).await.problem(409, "last_owner");
            give(&app, credential, &project, &ada.user, "admin").await.problem(409, "last_owner");
            give(&app, credential, &project, &ada.user, "owner").await.expect(200);
        }
        add(&app, &ada.token, &project, "bob", "owner").await.expect(201);
        // Two owners who take the role from each other, or leave, at once.
        for round in 0..6 {
            let (a, b) = (&ada, &bob);
            let (one, other) = match round % 3 {
                0 => futures_util::future::join(give(&app, &a.token, &project, &b.user, "admin"), give(&app, &b.token, &project, &a.user, "admin")).await,
                1 => futures_util::future::join(give(&app, &a.token, &project, &a.user, "viewer"), give(&app, &b.token, &project, &b.user, "viewer")).await,
                _ => futures_util::future::join(remove(&app, &a.token, &project, &a.user), remove(&app, &b.token, &project, &b.user)).await,
            };
            let mut statuses = [one.status, other.status];
            statuses.sort_unstable();
            assert!(matches!(statuses, [200 | 204, 403 | 409]), "{} {}", one.text(), other.text());
            assert_eq!(texts(&app, format!("SELECT role FROM memberships WHERE project_id = '{project}' AND role = 'owner'")).await.len(), 1);
            for user in [&ada, &bob] {
                if give(&app, &root, &project, &user.user, "owner").await.status == 404 {
                    let name = if user.user == ada.user { "ada" } else { "bob" };
                    add(&app, &root, &project, name, "owner").await.expect(201);
                }
            }
        }
    }

    async fn an_owner_who_is_out_does_not_count(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        join(&app, &ada, &project, "bob", "owner").await;
        let switch = async |how: &str| app.post(&format!("/v1/users/{}/{how}", bob.user)).token(&root.token).send().await.expect(200);
        switch("disable").await;
        let seen = app.get(&format!("/v1/projects/{project}/members/{}", bob.user)).token(&ada.token).send().await.expect(200).json();
        assert_eq!(seen["is_disabled"], true);
        remove(&app, &ada.token, &project, &ada.user).await.problem(409, "last_owner");
        give(&app, &ada.token, &project, &ada.user, "viewer").await.problem(409, "last_owner");
        let delete = format!("/v1/users/{0}?confirm={0}", ada.user);
        app.delete(&delete).token(&root.token).send().await.problem(409, "last_owner");
        // The one who is out may be put out.
        give(&app, &ada.token, &project, &bob.user, "admin").await.expect(200);
        give(&app, &ada.token, &project, &bob.user, "owner").await.expect(200);
        switch("enable").await;
        remove(&app, &ada.token, &project, &ada.user).await.expect(204);
    }

    async fn anybody_may_leave(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (project, people) = staffed(&app).await;
        for leaving in people.iter().skip(1) {
            remove(&app, &leaving.token, &project, &leaving.user).await.expect(204);
            remove(&app, &leaving.token, &project, &leaving.user).await.problem(404, "project_not_found");
            remove(&app, &people[0].token, &project, &leaving.user).await.problem(404, "member_not_found");
        }
    }

    async fn keys_of_who_leaves_are_settled(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        for (choice, verified) in [(Value::Null, "DISABLED"), (json!("keep"), "VALID"), (json!("disable"), "DISABLED"), (json!("revoke"), "REVOKED")] {
            let project = team(&app, &ada, "shop").await;
            let other = team(&app, &ada, "other").await;
            for place in [&project, &other] {
                join(&app, &ada, place, "bob", "member").await;
                configure(&app, &ada, place, json!({"departed_keys": choice})).await;
            }
            let (key, elsewhere, hers) = (key_in(&app, &bob, &project, json!({})).await, key_in(&app, &bob, &other, json!({})).await, key_in(&app, &ada, &project, json!({})).await);
            for key in [&key, &elsewhere, &hers] {
                assert_eq!(code(&app, &ada, key, json!({})).await, "VALID");
            }
            remove(&app, &bob.token, &project, &bob.user).await.expect(204);
            assert_eq!(code(&app, &ada, &key, json!({})).await, verified, "{choice}");
            for key in [&elsewhere, &hers] {
                assert_eq!(code(&app, &ada, key, json!({})).await, "VALID");
            }
            // Coming back brings nothing back.
            join(&app, &ada, &project, "bob", "member").await;
            assert_eq!(code(&app, &ada, &key, json!({})).await, verified);
        }
    }
}

both_engines! {
    async fn a_restricted_key_gives_no_roles(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        for restriction in [
            json!({"expires_at": "2031-05-07T12:00:00Z"}),
            json!({"ip_allow": ["0.0.0.0/0", "::/0"]}),
            json!({"schedule": [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "24:00", "timezone": "UTC"}]}),
            json!({"method_allow": ["POST", "PATCH", "DELETE"]}),
            json!({"path_allow": ["/**"]}),
        ] {
            let mut body = restriction.clone();
            body["scopes"] = json!(["keyward:*"]);
            let secret = text(&key_in(&app, &ada, &project, body).await, "key").to_owned();
            add(&app, &secret, &project, "bob", "viewer").await.problem(403, "restriction_not_held");
            add(&app, &ada.token, &project, "bob", "viewer").await.expect(201);
            give(&app, &secret, &project, &bob.user, "member").await.problem(403, "restriction_not_held");
            // Taking one away is no gift.
            remove(&app, &secret, &project, &bob.user).await.expect(204);
        }
        let free = secret_of(&app, &ada, &project, json!(["keyward:*"])).await;
        add(&app, &free, &project, "bob", "viewer").await.expect(201);
        give(&app, &free, &project, &bob.user, "member").await.expect(200);
    }

    async fn keys_of_who_may_less_are_settled(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        for (choice, verified) in [(Value::Null, "DISABLED"), (json!("keep"), "VALID"), (json!("revoke"), "DISABLED")] {
            let project = team(&app, &ada, "shop").await;
            join(&app, &ada, &project, "bob", "admin").await;
            configure(&app, &ada, &project, json!({"departed_keys": choice})).await;
            let make = async |who: &Session, scopes: Value| key_in(&app, who, &project, json!({"scopes": scopes})).await;
            let (wide, exact) = (make(&bob, json!(["orders:read", "keyward:keys:*"])).await, make(&bob, json!(["keyward:members:update"])).await);
            let (fits, foreign) = (make(&bob, json!(["keyward:keys:read"])).await, make(&bob, json!(["orders:*"])).await);
            let hers = make(&ada, json!(["keyward:*"])).await;
            let are = async |lost: &str, what: &str| {
                for (key, expected) in [(&wide, lost), (&exact, lost), (&fits, "VALID"), (&foreign, "VALID"), (&hers, "VALID")] {
                    assert_eq!(code(&app, &ada, key, json!({})).await, expected, "{choice} {what}");
                }
            };
            // More than before takes nothing.
            give(&app, &ada.token, &project, &bob.user, "owner").await.expect(200);
            are("VALID", "promoted").await;
            give(&app, &ada.token, &project, &bob.user, "member").await.expect(200);
            are(verified, "demoted").await;
            // Coming back brings nothing back.
            give(&app, &ada.token, &project, &bob.user, "admin").await.expect(200);
            are(verified, "promoted again").await;
            for sql in [format!("SELECT resource_id FROM audit_entries WHERE action = 'key.disable' AND project_id = '{project}'"), format!("SELECT resource_id FROM events WHERE type = 'key.disabled' AND project_id = '{project}'")] {
                assert_eq!(texts(&app, sql).await.len(), if verified == "VALID" { 0 } else { 2 });
            }
        }
    }

    async fn keys_act_for_members_with_what_they_hold(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let (project, other) = (team(&app, &ada, "shop").await, team(&app, &ada, "other").await);
        configure(&app, &ada, &project, json!({"departed_keys": "keep"})).await;
        let secret = async |scopes: Value| text(&key_in(&app, &ada, &project, json!({"scopes": scopes})).await, "key").to_owned();
        // Members' scopes alone give no role: each grants something else, too.
        let bare = secret(json!(["keyward:members:*"])).await;
        for role in ROLES {
            add(&app, &bare, &project, "bob", role.word()).await.problem(403, "role_not_held");
        }
        let viewer = secret(json!(["keyward:members:*", "keyward:keys:read", "keyward:projects:read", "keyward:scopes:read", "keyward:usage:read", "keyward:alerts:read"])).await;
        for role in ["owner", "admin", "member"] {
            add(&app, &viewer, &project, "bob", role).await.problem(403, "role_not_held");
        }
        add(&app, &viewer, &project, "bob", "viewer").await.expect(201);
        give(&app, &viewer, &project, &bob.user, "member").await.problem(403, "role_not_held");
        remove(&app, &viewer, &project, &ada.user).await.problem(403, "role_not_held");
        give(&app, &viewer, &project, &ada.user, "viewer").await.problem(403, "role_not_held");
        remove(&app, &viewer, &project, &bob.user).await.expect(204);
        let all = secret(json!(["keyward:*"])).await;
        add(&app, &all, &project, "bob", "owner").await.expect(201);
        remove(&app, &all, &project, &ada.user).await.expect(204);
        remove(&app, &all, &project, &bob.user).await.problem(409, "last_owner");
        // Each call asks for its own scope.
        let member = format!("/v1/projects/{project}/members/{}", bob.user);
        let reader = secret_of(&app, &bob, &project, json!(["keyward:members:read"])).await;
        app.get(&member).api_key(&reader).send().await.expect(200);
        add(&app, &reader, &project, "ada", "viewer").await.problem(403, "forbidden");
        give(&app, &reader, &project, &bob.user, "viewer").await.problem(403, "forbidden");
        remove(&app, &reader, &project, &bob.user).await.problem(403, "forbidden");
        let blind = secret_of(&app, &bob, &project, json!(["keyward:keys:*"])).await;
        app.get(&member).api_key(&blind).send().await.problem(403, "forbidden");
        // And only at home.
        for credential in [&all, &viewer] {
            add(&app, credential, &other, "bob", "viewer").await.problem(404, "project_not_found");
            remove(&app, credential, &other, &ada.user).await.problem(404, "project_not_found");
        }
    }

    async fn only_teams_have_members(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada) = (admin(&app).await, app.person("ada").await);
        app.person("bob").await;
        let system = app.get("/v1/keys/self").api_key(&system_key(&app, &[]).await).send().await.expect(200).json();
        for (credential, project) in [(&ada.token, ada.project.as_str()), (&root.token, &ada.project), (&root.token, text(&system, "project_id"))] {
            add(&app, credential, project, "bob", "viewer").await.problem(409, "not_a_team");
        }
        give(&app, &ada.token, &ada.project, &ada.user, "viewer").await.problem(409, "not_a_team");
        remove(&app, &ada.token, &ada.project, &ada.user).await.problem(409, "not_a_team");
        let seen = app.get(&format!("/v1/projects/{}/members", ada.project)).token(&ada.token).send().await.expect(200).json();
        assert_eq!((&seen["data"][0]["username"], &seen["data"][0]["role"]), (&json!("ada"), &json!("owner")));
    }

    async fn what_is_asked_is_read_strictly(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        add(&app, &ada.token, &project, "nobody", "viewer").await.problem(404, "user_not_found");
        add(&app, &ada.token, &project, "n!", "viewer").await.problem(400, "invalid_request");
        for role in ["root", "Owner", "", "keyward:*"] {
            add(&app, &ada.token, &project, "bob", role).await.problem(400, "invalid_request");
        }
        let members = format!("/v1/projects/{project}/members");
        app.post(&members).token(&ada.token).json(&json!({"username": "bob", "role": "viewer", "user_id": ada.user})).send().await.problem(400, "unknown_field");
        app.post(&members).token(&ada.token).json(&json!({"username": "bob"})).send().await.problem(400, "invalid_request");
        add(&app, &ada.token, &project, "bob", "viewer").await.expect(201);
        for role in ["viewer", "owner"] {
            add(&app, &ada.token, &project, "bob", role).await.problem(409, "already_member");
        }
        for missing in [&ada.project, "nonsense", "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G"] {
            give(&app, &ada.token, &project, missing, "viewer").await.problem(404, "member_not_found");
            remove(&app, &ada.token, &project, missing).await.problem(404, "member_not_found");
            app.get(&format!("{members}/{missing}")).token(&ada.token).send().await.problem(404, "member_not_found");
        }
        // To a stranger nothing is there: neither the project nor who is in it.
        let eve = app.person("eve").await;
        let missing = app.get(&format!("/v1/projects/{}/members", super::support::NO_PROJECT)).token(&eve.token).send().await;
        for answer in [app.get(&members).token(&eve.token).send().await, add(&app, &eve.token, &project, "eve", "owner").await, remove(&app, &eve.token, &project, &bob.user).await, give(&app, &eve.token, &project, &bob.user, "owner").await, remove(&app, &eve.token, &project, &eve.user).await] {
            assert_eq!(faceless(&answer), faceless(&missing));
        }
    }

    async fn a_member_is_added_once(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let (project, other) = (team(&app, &ada, "shop").await, team(&app, &ada, "other").await);
        let once = async |project: &str, role: &str| app.post(&format!("/v1/projects/{project}/members")).token(&ada.token).header("idempotency-key", "once").json(&json!({"username": "bob", "role": role})).send().await;
        let answers = futures_util::future::join_all((0..10).map(|_| once(&project, "viewer"))).await;
        for answer in &answers {
            assert_eq!((answer.status, answer.text()), (201, answers[0].text()));
        }
        once(&project, "admin").await.problem(422, "idempotency_mismatch");
        once(&other, "viewer").await.problem(422, "idempotency_mismatch");
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'member.add'").await, 1);
        // A replay changes nothing: who was put out meanwhile stays out.
        remove(&app, &ada.token, &project, &bob.user).await.expect(204);
        once(&project, "viewer").await.expect(201);
        app.get(&format!("/v1/projects/{project}")).token(&bob.token).send().await.problem(404, "project_not_found");
        // Without a key, of ten at once one is.
        let answers = futures_util::future::join_all((0..10).map(|_| add(&app, &ada.token, &other, "bob", "member"))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
        answers.iter().filter(|answer| answer.status != 201).for_each(|answer| drop(answer.problem(409, "already_member")));
    }
}

async fn secret_of(app: &App, who: &Session, project: &str, scopes: Value) -> String {
    text(&key_in(app, who, project, json!({"scopes": scopes})).await, "key").to_owned()
}
