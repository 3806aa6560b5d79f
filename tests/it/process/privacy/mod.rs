//! A corpus of texts and documents with secrets in unusual places is sent to every family of routes; afterwards no secret of
//! it stands in the database, in the log at its finest level, in the metrics, or in what the service answers of itself.
//!
//! Tables and columns are read from the schema, and routes from the OpenAPI document, so that what is built later is searched
//! as well.

mod corpus;
mod search;

use keyward::base::masking::holds_secret;
use keyward::base::sensitive::{Cleaner, HashKey, defaults};
use serde_json::{Value, json};

use crate::both_engines;
use crate::harness::program::{Beside, Program};
use crate::harness::{Answer, Call, PASSWORD, Scratch};

use corpus::{Carrier, Document};
use search::Pieces;

/// Where passwords stand that their owner put there and gets back: what a key, a project or a scope is, and the answer to a
/// repeated request. Our own secrets may stand nowhere.
const OWNERS: [&str; 4] = ["keys", "projects", "scopes", "idempotency"];

#[test]
fn the_corpus_is_large_and_each_of_it_is_recognised() {
    let (carriers, documents) = (corpus::carriers(), corpus::documents());
    assert!(carriers.len() + documents.len() >= 240, "{} and {}", carriers.len(), documents.len());
    for Carrier { name, text, .. } in &carriers {
        assert!(holds_secret(text), "{name}: {text}");
    }
    let cleaner = Cleaner::new(vec![defaults::layer()], HashKey::new([0; 32]));
    for Document { name, held, password } in documents {
        let mut treated = held;
        cleaner.clean(&mut treated);
        assert!(!treated.to_string().contains(&password), "{name}: {treated}");
    }
}

/// Who sends it all, and what there is to send it to.
struct Stage<'a> {
    program: &'a Program,
    token: String,
    project: String,
    key: String,
    /// Answers that must repeat no secret.
    answers: Vec<(String, Answer)>,
}

impl<'a> Stage<'a> {
    async fn set(program: &'a Program) -> Self {
        let token = program.person("ada").await;
        let me = program.get("/v1/users/me").token(&token).send().await.expect(200).json();
        let project = me["personal_project_id"].as_str().unwrap().to_owned();
        let key = program.generate(&token).await["id"].as_str().unwrap().to_owned();
        Self { program, token, project, key, answers: Vec::new() }
    }

    fn under(&self, method: reqwest::Method, rest: &str) -> Call {
        let url = format!("{}/v1/projects/{}{rest}", self.program.url, self.project);
        Call(self.program.http.request(method, url)).token(&self.token)
    }

    fn post(&self, rest: &str) -> Call {
        self.under(reqwest::Method::POST, rest)
    }

    fn patch(&self, path: &str) -> Call {
        Call(self.program.http.patch(format!("{}{path}", self.program.url))).token(&self.token)
    }

    async fn send(&mut self, name: &str, call: Call) {
        let answer = call.send().await;
        assert!(answer.status < 500, "{name}: {}", answer.text());
        self.answers.push((name.to_owned(), answer));
    }

    /// What must be refused, because it would be kept.
    async fn refused(&mut self, name: &str, call: Call) {
        let answer = call.send().await;
        assert!((400..500).contains(&answer.status), "{name}: {} {}", answer.status, answer.text());
        self.answers.push((name.to_owned(), answer));
    }

    /// In every field of every body that is kept.
    async fn fields(&mut self, Carrier { name, text, .. }: &Carrier) {
        let (text, key) = (text.as_str(), format!("/v1/keys/{}", self.key));
        let bodies = [
            ("/keys", json!({"name": text})),
            ("/keys", json!({"name": "n", "description": text})),
            ("/keys", json!({"name": "n", "owner": text})),
            ("/keys", json!({"name": "n", "metadata": {"a": [{"b": text}]}})),
            ("/keys", json!({"name": "n", "metadata": {text: 1}})),
            ("/keys", json!({"name": "n", "scopes": [text]})),
            ("/scopes", json!({"name": "a:b", "description": text})),
            ("/scopes", json!({"name": text, "description": "d"})),
            ("/scopes", json!({"name": "a:c", "description": "d", "category": text})),
            ("/scopes:import", json!({"version": "1.0.0", "scopes": [{"name": "a:d", "description": text}]})),
            (
                "/scopes:from-openapi",
                json!({"document": {
                    "openapi": "3.1.0", "info": {"title": text, "version": "1"},
                    "paths": {"/o": {"get": {"summary": text, "responses": {}}}}
                }}),
            ),
            ("/members", json!({"username": text, "role": "viewer"})),
            ("/suspend", json!({"reason": text})),
            ("/sensitive-fields", json!({"name": "x", "replacement": text})),
            ("/sensitive-fields", json!({"name": text})),
            ("/keys", json!({"name": "n", text: 1})),
        ];
        for (rest, body) in bodies {
            self.refused(&format!("{name} in {rest} {body}"), self.post(rest).json(&body)).await;
        }
        for (path, body) in [
            (key.clone(), json!({"description": text})),
            (key.clone(), json!({"metadata": {"x": text}})),
            (format!("/v1/projects/{}", self.project), json!({"name": text})),
            (format!("/v1/projects/{}/config", self.project), json!({"cors_origins": [text]})),
            (format!("/v1/projects/{}/config", self.project), json!({"path_allow": [text]})),
        ] {
            self.refused(&format!("{name} in {path}"), self.patch(&path).json(&body)).await;
        }
        let revoke = self.program.post(&format!("{key}/revoke")).token(&self.token);
        self.refused(&format!("{name} as note"), revoke.json(&json!({"reason": "key_compromise", "note": text}))).await;
        let create = self.program.post("/v1/projects").token(&self.token);
        self.refused(&format!("{name} of a project"), create.json(&json!({"name": "p", "description": text}))).await;
        let line = json!({"hash": "0".repeat(64), "name": text, "metadata": {"x": text}}).to_string();
        let url = format!("{}/v1/projects/{}/keys:import", self.program.url, self.project);
        let import = self.program.http.post(url).header("content-type", "application/x-ndjson").body(line);
        self.send(&format!("{name} in an import"), Call(import).token(&self.token)).await;
    }

    /// Where people mistake one field for another, and in bodies that can't be read.
    async fn mistakes(&mut self, Carrier { name, text, .. }: &Carrier) {
        let program = self.program;
        for body in [
            json!({"username": text, "password": PASSWORD}),
            json!({"username": "ada", "password": text}),
            json!({"username": "ada", "password": PASSWORD, text.as_str(): 1}),
        ] {
            self.refused(&format!("{name} at the log-in"), program.post("/login").json(&body)).await;
        }
        let register = json!({"username": text, "password": PASSWORD});
        self.refused(&format!("{name} at registration"), program.post("/register").json(&register)).await;
        for body in [format!("{{\"name\": \"{text}\""), format!("[\"{text}\"]"), text.clone()] {
            let call = self.post("/keys").raw(body);
            self.refused(&format!("{name} in a broken body"), call).await;
        }
        for body in [json!({"key": text}), json!({"key": text, "client": {"path": text, "method": "GET"}})] {
            self.send(name, program.post("/v1/keys/verify").token(&self.token).json(&body)).await;
        }
        self.refused(name, program.post("/revoke-key").token(&self.token).json(&json!({"key": text}))).await;
        self.refused(name, program.post("/revoke-key").token(&self.token).json(&json!({"id": text}))).await;
    }

    /// In what is around a body: the target, and headers as far as they can be sent.
    async fn around(&mut self, Carrier { name, text, .. }: &Carrier) {
        let program = self.program;
        let encoded = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        for target in [
            format!("/v1/keys/{encoded}"),
            format!("/v1/projects/{encoded}/keys"),
            format!("/v1/leases/{encoded}/renew"),
            format!("/unknown/{encoded}"),
            format!("/list-keys?api_key={encoded}"),
            format!("/list-keys?{encoded}=1"),
            format!("/list-keys?cursor={encoded}"),
            format!("/v1/sensitive-fields/{encoded}"),
        ] {
            self.refused(&format!("{name} in {target}"), program.get(&target).token(&self.token)).await;
        }
        let Ok(value) = reqwest::header::HeaderValue::from_bytes(text.as_bytes()) else { return };
        for header in [
            "user-agent",
            "x-request-id",
            "traceparent",
            "tracestate",
            "referer",
            "cookie",
            "origin",
            "x-forwarded-for",
        ] {
            let call = |path: &str| Call(program.post(path).0.header(header, value.clone())).token(&self.token);
            // A change, a refusal and a read, so that it could come into the trail, the log and the answer.
            let changed = call(&format!("/v1/keys/{}/disable", self.key));
            let again = call(&format!("/v1/keys/{}/enable", self.key));
            let failed = call("/login").json(&json!({"username": "ada", "password": "not this"}));
            for sent in [changed, again, failed] {
                self.send(&format!("{name} as {header}"), sent).await;
            }
        }
        let again =
            self.post("/scopes").json(&json!({"name": format!("i:{}", self.answers.len()), "description": "d"}));
        self.send(&format!("{name} as Idempotency-Key"), Call(again.0.header("idempotency-key", value.clone()))).await;
        for header in ["authorization", "x-api-key"] {
            let call = Call(program.get("/list-keys").0.header(header, value.clone()));
            self.refused(&format!("{name} as {header}"), call).await;
        }
        let log_in = program.post("/login").json(&json!({"username": "ada", "password": PASSWORD}));
        if self.answers.len().is_multiple_of(7) {
            let answer = Call(log_in.0.header("user-agent", value)).send().await.expect(200);
            let token = answer.json()["token"].as_str().unwrap().to_owned();
            self.program.post("/logout").token(&token).send().await.expect(204);
        }
    }

    /// As what somebody keeps with a key: given back to them, and to nobody told.
    async fn document(&mut self, Document { name, held: document, password }: &Document) {
        let body = json!({"name": name, "metadata": {"d": document}, "description": "d"});
        let made = self.post("/keys").json(&body).send().await.expect(201).json();
        assert_eq!(made["metadata"]["d"], *document, "{name}: what is the owner's stays theirs");
        let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
        self.patch(&path).json(&json!({"metadata": {"e": [document]}})).send().await.expect(200);
        let text = document.to_string();
        let short = text.chars().take(1000).collect::<String>();
        self.patch(&path).json(&json!({"description": short})).send().await.expect(200);
        let project = json!({"name": name, "description": short});
        self.program.post("/v1/projects").token(&self.token).json(&project).send().await.expect(201);
        let preview = self.post("/sensitive-fields:preview").json(&json!({"document": document}));
        self.send(&format!("the preview of {name}"), preview).await;
        let agents = [format!("tool/1.0 password={password}"), format!("x (https://u:{password}@h.example/)")];
        for agent in agents {
            let call = self.program.post(&format!("{path}/disable")).token(&self.token).header("user-agent", &agent);
            call.header("x-request-id", &format!("password={password}")).send().await.expect(200);
        }
        let deleted = format!("{}{path}?confirm={}", self.program.url, made["id"].as_str().unwrap());
        Call(self.program.http.delete(deleted)).token(&self.token).send().await.expect(204);
    }

    /// What the service tells of itself: every answer of a route about the trail, usage, requests or events.
    async fn told(&mut self) -> Vec<(String, Vec<u8>)> {
        let document: Value = self.program.get("/openapi.json").send().await.expect(200).json();
        let mut told = Vec::new();
        for (template, item) in document["paths"].as_object().unwrap() {
            let about = ["audit", "usage", "requests", "events", "sensitive", "sessions", "deliveries"];
            if item.get("get").is_none() || !about.iter().any(|about| template.contains(about)) {
                continue;
            }
            let path = template.replace("{project}", &self.project).replace("{id}", &self.key);
            let answer = self.program.get(&path).token(&self.token).send().await;
            assert!(answer.status < 500, "{path}: {}", answer.text());
            told.push((path, answer.bytes));
        }
        told
    }
}

/// Every column of every table, as text.
async fn columns(url: &str) -> Vec<(String, String)> {
    let mut beside = Beside::open(url).await;
    let is_sqlite = matches!(beside, Beside::Sqlite(_));
    let list = if is_sqlite {
        "SELECT group_concat(m.name || '.' || p.name, ' ') FROM sqlite_schema m, pragma_table_info(m.name) p
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'"
    } else {
        "SELECT string_agg(table_name || '.' || column_name, ' ') FROM information_schema.columns
         WHERE table_schema = 'public'"
    };
    let mut all = Vec::new();
    for place in beside.text(list).await.split(' ') {
        let (table, column) = place.split_once('.').unwrap();
        let sql = if is_sqlite {
            format!(
                "SELECT coalesce(group_concat(CASE typeof(\"{column}\") WHEN 'blob' THEN hex(\"{column}\")
                     ELSE \"{column}\" END, ' '), '') FROM \"{table}\""
            )
        } else {
            format!("SELECT coalesce(string_agg(CAST(\"{column}\" AS text), ' '), '') FROM \"{table}\"")
        };
        all.push((place.to_owned(), beside.text(&sql).await));
    }
    all
}

#[track_caller]
fn assert_clean(place: &str, bytes: &[u8], pieces: &Pieces) {
    let found = pieces.found_in(bytes);
    assert!(found.is_empty(), "{} secrets in {place}: {found:#?}", found.len());
}

both_engines! {
    async fn the_corpus_leaves_no_secret(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let mut program = Program::start(dir.path(), &[
            ("DATABASE_URL", scratch.url.as_str()), ("KEYWARD_LOG", "trace"), ("KEYWARD_LOG_FORMAT", "json"),
            ("KEYWARD_KEYS_PER_USER_PER_DAY", "0"), ("KEYWARD_PROJECTS_PER_USER", "0"),
            ("KEYWARD_TRUSTED_PROXIES", "127.0.0.1/32"), ("KEYWARD_DEFAULT_RATE_LIMIT", "0"),
        ]).await;
        let mut stage = Stage::set(&program).await;
        let (mut own, mut all) = (Pieces::default(), Pieces::default());
        for carrier in corpus::carriers() {
            own.add_own(&carrier.name, &carrier.secret);
            all.add_own(&carrier.name, &carrier.secret);
            own.add(&carrier.name, &carrier.secret[carrier.secret.len() / 3..carrier.secret.len() - 5]);
            stage.fields(&carrier).await;
            stage.mistakes(&carrier).await;
            stage.around(&carrier).await;
        }
        for document in corpus::documents() {
            all.add(&document.name, &document.password);
            stage.document(&document).await;
        }
        for (name, answer) in std::mem::take(&mut stage.answers) {
            let headers = format!("{:?}", answer.headers);
            assert_clean(&format!("the answer to {name}"), &[&answer.bytes, headers.as_bytes()].concat(), &all);
        }
        for (path, bytes) in stage.told().await {
            assert_clean(&path, &bytes, &all);
        }
        let metrics = program.http.get(&program.metrics_url).send().await.unwrap().text().await.unwrap();
        assert_clean("the metrics", metrics.as_bytes(), &all);
        drop(stage);
        assert_eq!(program.stop(), Some(0));
        let log = program.log();
        assert!(log.lines().count() > 1000 && !log.contains("panicked"));
        assert_clean("the log", log.as_bytes(), &all);
        let columns = columns(&scratch.url).await;
        assert!(columns.len() > 80, "{} columns", columns.len());
        for (place, text) in columns {
            let table = place.split('.').next().unwrap();
            assert_clean(&place, text.as_bytes(), if OWNERS.contains(&table) { &own } else { &all });
        }
    }
}
