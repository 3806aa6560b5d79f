//! `POST /v1/projects/{project}/scopes:from-openapi`: a catalogue from the description of an API.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::support::{MANY_KEYS, NO_PROJECT, text};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

fn shop() -> Value {
    json!({
        "openapi": "3.0.3", "info": {"title": "Shop", "version": "7"},
        "paths": {
            "/v1/orders": {
                "get": {"operationId": "listOrders", "tags": ["Orders"], "responses": {}},
                "post": {"operationId": "createOrder", "tags": ["Orders"], "responses": {}},
            },
            "/v1/orders/{id}": {
                "get": {"operationId": "getOrder", "tags": ["Orders"], "responses": {}},
                "delete": {"operationId": "cancelOrder", "tags": ["Orders"], "responses": {}},
            },
            "/": {"get": {"responses": {}}},
        },
    })
}

async fn derive(app: &App, who: &Session, body: Value) -> Answer {
    let path = format!("/v1/projects/{}/scopes:from-openapi", who.project);
    app.post(&path).token(&who.token).json(&body).send().await
}

fn names(list: &Value, member: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| text(one, member).to_owned()).collect()
}

async fn catalogue(app: &App, who: &Session) -> Vec<String> {
    let path = format!("/v1/projects/{}/scopes?limit=200", who.project);
    let mut names = names(&app.get(&path).token(&who.token).send().await.expect(200).json()["data"], "name");
    names.sort();
    names
}

/// Serves one answer a connection, and says where.
async fn serve(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/openapi.yaml", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

both_engines! {
    async fn a_document_becomes_a_catalogue(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let wish = json!({"document": shop(), "dry_run": true});
        let tried = derive(&app, &ada, wish).await.expect(200).json();
        assert_eq!((&tried["created"], &tried["dry_run"], catalogue(&app, &ada).await.len()), (&json!(3), &json!(true), 0));
        assert_eq!((&tried["title"], &tried["version"], &tried["operations"]), (&json!("Shop"), &json!("7"), &json!(5)));
        assert_eq!(names(&tried["scopes"], "name"), ["orders:delete", "orders:read", "orders:write"]);
        assert_eq!(tried["unmapped"][0]["operation"], "GET /");
        assert_eq!(tried["scopes"][1]["sources"], json!(["GET /v1/orders", "GET /v1/orders/{id}"]));

        // What is there stays as it is.
        let path = format!("/v1/projects/{}/scopes", ada.project);
        app.post(&path).token(&ada.token).json(&json!({"name": "orders:read", "description": "our own words", "is_active": false})).send().await.expect(201);
        let done = derive(&app, &ada, json!({"document": shop()})).await.expect(200).json();
        assert_eq!((&done["created"], &done["updated"], &done["skipped"]), (&json!(2), &json!(0), &json!(1)));
        assert_eq!(done["scope_names"], json!(["orders:delete", "orders:write"]));
        let own = app.get(&format!("{path}/orders:read")).token(&ada.token).send().await.expect(200).json();
        assert_eq!((&own["description"], &own["is_active"]), (&json!("our own words"), &json!(false)));
        assert_eq!(derive(&app, &ada, json!({"document": shop()})).await.expect(200).json()["skipped"], 3);
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'scopes.import'").await, 1);
    }

    async fn names_are_made_as_wished(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for (wish, expected) in [
            (json!({"strategy": "path_method"}), vec!["orders:delete", "orders:get", "orders:post"]),
            (json!({"strategy": "tag", "namespace": "acme:shop"}), vec!["acme:shop:orders:delete", "acme:shop:orders:read", "acme:shop:orders:write"]),
            (json!({"strategy": "operation_id"}), vec!["cancel-order:delete", "create-order:write", "get-order:read", "list-orders:read"]),
            (json!({"actions": {"post": "create", "delete": "cancel"}}), vec!["orders:cancel", "orders:create", "orders:read"]),
        ] {
            let mut body = wish.clone();
            body["document"] = shop();
            body["dry_run"] = json!(true);
            assert_eq!(names(&derive(&app, &ada, body).await.expect(200).json()["scopes"], "name"), expected, "{wish}");
        }
        // YAML comes as text.
        let yaml = "openapi: 3.1.0\ninfo: {title: t, version: '1'}\npaths:\n  /bills:\n    get: {responses: {}}\n";
        assert_eq!(derive(&app, &ada, json!({"document": yaml})).await.expect(200).json()["scope_names"], json!(["bills:read"]));
    }

    async fn what_is_no_document_is_refused(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let swagger = json!({"swagger": "2.0", "paths": {}});
        for (body, field) in [
            (json!({}), "document"),
            (json!({"document": shop(), "url": "https://example.com/"}), "document"),
            (json!({"document": 7}), "document"),
            (json!({"document": swagger}), "document"),
            (json!({"document": "a: [b"}), "document"),
            (json!({"document": shop(), "strategy": "guess"}), "strategy"),
            (json!({"document": shop(), "namespace": "keyward"}), "namespace"),
            (json!({"document": shop(), "actions": {"post": "Create!"}}), "actions.post"),
            (json!({"document": shop(), "actions": {"query": "read"}}), "actions.query"),
            (json!({"document": shop(), "file": "/etc/passwd"}), "file"),
            (json!({"url": "file:///etc/passwd"}), "url"),
            (json!({"url": "http://127.0.0.1:1/"}), "url"),
            (json!({"url": "http://[::ffff:169.254.169.254]/"}), "url"),
            (json!({"url": "http://2130706433/"}), "url"),
        ] {
            let answer = derive(&app, &ada, body.clone()).await;
            assert_eq!(answer.status, 400, "{body}: {}", answer.text());
            assert_eq!(answer.json()["errors"][0]["field"], field, "{body}: {}", answer.text());
        }
        let elsewhere = Session { project: ada.project.clone(), ..bob };
        derive(&app, &elsewhere, json!({"document": shop()})).await.problem(404, "project_not_found");
        derive(&app, &Session { project: NO_PROJECT.to_owned(), ..elsewhere }, json!({"document": shop()})).await.problem(404, "project_not_found");
        assert!(catalogue(&app, &ada).await.is_empty());
    }

    async fn a_document_is_fetched_from_where_the_operator_allows(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, ("KEYWARD_OUTBOUND_ALLOW", "127.0.0.0/8")]).await;
        let ada = app.person("ada").await;
        let url = serve(http("200 OK", "content-type: application/json\r\n", &shop().to_string())).await;
        let hop = serve(http("302 Found", &format!("location: {url}\r\n"), "")).await;
        let out = serve(http("302 Found", "location: http://10.0.0.1/openapi.json\r\n", "")).await;
        let gone = serve(http("404 Not Found", "", "")).await;
        assert_eq!(derive(&app, &ada, json!({"url": url})).await.expect(200).json()["created"], 3);
        assert_eq!(derive(&app, &ada, json!({"url": hop})).await.expect(200).json()["skipped"], 3);
        derive(&app, &ada, json!({"url": gone})).await.problem(422, "document_unreachable");
        let refused = derive(&app, &ada, json!({"url": out})).await;
        assert!(matches!(refused.status, 400 | 422), "{}", refused.text());
        assert!(!refused.text().contains("10.0.0.1"), "{}", refused.text());
    }
}
