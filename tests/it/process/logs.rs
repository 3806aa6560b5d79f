//! What the log and the database may hold: no secret, password or token, at any level.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::both_engines;
use crate::harness::program::{Beside, Program};
use crate::harness::{Answer, Call, Scratch};

/// What must be found nowhere, each under a name that may be printed.
#[derive(Default)]
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn add(&mut self, name: &str, text: &str) -> String {
        self.0.push((name.to_owned(), text.to_owned()));
        text.to_owned()
    }

    /// A password that is nobody else's.
    fn password(&mut self, name: &str) -> String {
        let text = format!("Zq7-{name}-vX9k-canary");
        self.add(name, &text)
    }

    /// Which of them, or how much of one, the bytes hold, as they are or encoded.
    fn found_in(&self, bytes: &[u8], but: &[&str]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (name, text) in self.0.iter().filter(|(name, _)| !but.contains(&name.as_str())) {
            // The ends of a key may be shown; the middle gives it away.
            let third = text.len() / 3;
            let forms = [
                ("", text.clone()),
                (" in part", text[third..text.len() - third].to_owned()),
                (" in hex", hex::encode(text)),
                (" in base64", STANDARD.encode(text).trim_end_matches('=')[4..].to_owned()),
                (" as bytes", format!("{:?}", text.as_bytes()).trim_matches(['[', ']']).to_owned()),
            ];
            for (form, text) in forms {
                if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                    found.insert(format!("{name}{form}"));
                }
            }
        }
        found
    }
}

/// A key of the right form that nobody has.
fn unknown_key(first: u8) -> String {
    let mut bytes: Vec<u8> = (0..32).map(|n| (n * 7) ^ first).collect();
    let checksum = crc32fast::hash(&[b"sk_", bytes.as_slice()].concat());
    bytes.extend(checksum.to_be_bytes());
    format!("sk_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

/// Somebody who does everything, with secrets in each place where one could be put.
struct Flow<'a> {
    program: &'a Program,
    secrets: &'a mut Secrets,
    /// Answers that must hold no secret either.
    refusals: Vec<Answer>,
    password: String,
    wrong: String,
    token: String,
    key: String,
}

impl Flow<'_> {
    async fn run(program: &Program, secrets: &mut Secrets) {
        let (password, wrong) = (secrets.password("password"), secrets.password("wrong-password"));
        let (token, key) = (String::new(), String::new());
        let mut flow = Flow { program, secrets, refusals: Vec::new(), password, wrong, token, key };
        flow.people().await;
        flow.keys().await;
        flow.targets().await;
        flow.bodies().await;
        flow.headers().await;
        program.post("/revoke-key").token(&flow.token).json(&json!({"key": flow.key})).send().await.expect(200);
        program.post("/logout").token(&flow.token).send().await.expect(204);
        for answer in flow.refusals {
            let headers = format!("{:?}", answer.headers);
            let found = flow.secrets.found_in(&[&answer.bytes, headers.as_bytes()].concat(), &[]);
            assert!(found.is_empty(), "{found:?} in an answer: {} {}", answer.status, answer.text());
        }
    }

    /// The call must be refused.
    async fn refused(&mut self, call: Call) {
        let answer = call.send().await;
        assert!((400..500).contains(&answer.status), "{}: {}", answer.status, answer.text());
        self.refusals.push(answer);
    }

    async fn people(&mut self) {
        let (program, first, wrong) = (self.program, self.password.clone(), self.wrong.clone());
        program.post("/register").json(&json!({"username": "ada", "password": first})).send().await.expect(201);
        let token = program.login("ada", &first).await;
        self.secrets.add("token", &token);
        // A password where the name belongs.
        let misplaced = self.secrets.password("in-the-name");
        for (username, password) in [("ada", &wrong), ("nobody", &wrong), (&misplaced, &first), (&first, &first)] {
            let body = json!({"username": username, "password": password});
            self.refused(program.post("/login").json(&body)).await;
            let body = json!({"username": format!("{username}!"), "password": password});
            self.refused(program.post("/register").json(&body)).await;
        }
        let second = self.secrets.password("new-password");
        let change = |current: &str| {
            let call = Call(program.http.put(format!("{}/v1/users/me/password", program.url))).token(&token);
            call.json(&json!({"current_password": current, "new_password": second}))
        };
        self.refused(change(&wrong)).await;
        change(&first).send().await.expect(204);
        self.token = program.login("ada", &second).await;
        self.secrets.add("second token", &self.token);
        self.password = second;
    }

    /// Keys, good and bad, in each place where one is taken.
    async fn keys(&mut self) {
        let (program, token) = (self.program, self.token.clone());
        let generate = || {
            let call = program.post("/generate-key").token(&token).header("idempotency-key", "once");
            call.json(&json!({"scopes": ["keyward:*"]}))
        };
        let made = generate().send().await.expect(201).json();
        self.key = self.secrets.add("key", made["key"].as_str().unwrap());
        self.refused(generate()).await;
        let unknown = self.secrets.add("unknown key", &unknown_key(1));
        let malformed = self.secrets.add("malformed key", "sk_QmFkQ2hlY2tzdW1CYWRDaGVja3N1bUJhZENoZWNrc3VtQmFk");
        for presented in [&self.key.clone(), &unknown, &malformed] {
            program.verify(&token, presented).await;
            program.get("/v1/keys/self").api_key(presented).send().await;
            program.get("/v1/keys/self").token(presented).send().await;
            self.refused(program.get("/list-keys").header("authorization", &format!("Basic {presented}"))).await;
            self.refused(program.get("/list-keys").api_key(presented).token(&token)).await;
            self.refused(program.post("/revoke-key").token(&token).json(&json!({"id": presented}))).await;
        }
        self.refused(program.get("/list-keys").token("kws_bm90IGEgdG9rZW4gYnV0IGxvb2tzIGxpa2Ugb25l")).await;
    }

    /// In URLs, where they never belong.
    async fn targets(&mut self) {
        let (program, token, key, password) = (self.program, &self.token, &self.key, &self.password);
        let paths = [
            format!("/v1/keys/{key}"),
            format!("/key/{key}"),
            format!("/unknown/{key}?key={key}&password={password}"),
            format!("/list-keys?key={key}"),
            format!("/list-keys?cursor={key}"),
            format!("/list-keys?limit={password}"),
            format!("/health?token={token}"),
            format!("/v1/projects/{key}/keys"),
            format!("/docs/{key}"),
        ];
        for path in paths {
            self.refusals.push(program.get(&path).send().await);
            self.refusals.push(program.get(&path).token(&self.token).send().await);
        }
    }

    /// In bodies that can't be read, or not so.
    async fn bodies(&mut self) {
        let (program, token) = (self.program, self.token.clone());
        let broken = self.secrets.password("broken-body");
        for body in [
            format!("{{\"username\": \"ada\", \"password\": \"{broken}\""),
            format!("{{\"username\": \"ada\", \"password\": {broken}}}"),
            format!("{{\"username\": [\"{broken}\"], \"password\": \"{broken}\"}}"),
            format!("{{\"username\": \"ada\", \"password\": {{\"{broken}\": 1}}}}"),
            format!("{{\"password\": \"{broken}\"}}"),
            format!("\"{broken}\""),
            format!("username=ada&password={broken}"),
            format!("{{\"username\": \"ada\", \"password\": \"{broken}\\u0000\"}}"),
        ] {
            self.refused(program.post("/login").raw(body.clone())).await;
            self.refused(program.post("/register").raw(body.clone())).await;
            self.refused(Call(program.http.post(format!("{}/login", program.url)).body(body))).await;
        }
        // An unknown field is named in the answer, and nowhere else.
        let field = self.secrets.password("field-name");
        let body = json!({"username": "ada", "password": self.password, field.as_str(): 1});
        program.post("/login").json(&body).send().await.expect(400);
        let body = json!({field.as_str(): self.password});
        program.post("/generate-key").token(&token).json(&body).send().await.expect(400);
        let body = json!({"scopes": [self.key], "expires_in": self.password});
        self.refused(program.post("/generate-key").token(&token).json(&body)).await;
    }

    /// In headers that are none of our business, also over HTTP/2.
    async fn headers(&mut self) {
        let program = self.program;
        let canary = self.secrets.password("some-header");
        let two = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let bearer = format!("Bearer {}", self.token);
        for http in [&program.http, &two] {
            let known = [("x-api-key", &self.key), ("authorization", &bearer)];
            let others = ["cookie", "traceparent", "x-forwarded-for", "origin", "accept", "referer"];
            for (name, value) in known.into_iter().chain(others.map(|name| (name, &canary))) {
                let target = format!("{}/v1/keys/self?h={canary}", program.url);
                self.refusals.push(Call(http.get(target)).header(name, value).send().await);
                let body = json!({"username": "ada", "password": self.wrong});
                let login = Call(http.post(format!("{}/login", program.url))).header(name, value).json(&body);
                self.refusals.push(login.send().await);
            }
        }
        let agent = self.secrets.add("key in User-Agent", &unknown_key(9));
        let call = program.get("/v1/users/me").token(&self.token).header("user-agent", &agent);
        self.refusals.push(call.send().await.expect(200));
        program.post("/generate-key").token(&self.token).header("user-agent", &agent).send().await.expect(201);
    }
}

fn assert_clean(what: &str, bytes: &[u8], secrets: &Secrets, but: &[&str]) {
    assert!(!bytes.is_empty(), "{what} is empty");
    let found = secrets.found_in(bytes, but);
    assert!(found.is_empty(), "in {what}: {found:#?}");
}

async fn leave_no_trace(url: &str, file: Option<&Path>, environment: &[(&str, &str)]) {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        [&[("DATABASE_URL", url), ("KEYWARD_LOG", "trace"), ("KEYWARD_KEYS_PER_USER_PER_DAY", "0")], environment]
            .concat();
    let mut program = Program::start(dir.path(), &settings).await;
    let mut secrets = Secrets::default();
    Flow::run(&program, &mut secrets).await;
    if let Some(file) = file {
        let wal = file.with_file_name("keyward.db-wal");
        assert_clean("the write-ahead log", &std::fs::read(wal).unwrap(), &secrets, &[]);
    }
    assert_eq!(program.stop(), Some(0));
    let log = program.log();
    assert!(log.contains("/generate-key") && log.lines().count() > 80, "{log}");
    assert_clean("the log", log.as_bytes(), &secrets, &[]);
    assert!(!log.contains("panicked"));
    if let Some(file) = file {
        return assert_clean("the file", &std::fs::read(file).unwrap(), &secrets, &[]);
    }
    let mut beside = Beside::open(url).await;
    let tables = beside.text("SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = 'public'").await;
    assert!(tables.contains("audit_entries"), "{tables}");
    for table in tables.split(' ') {
        let text = beside.text(&format!("SELECT coalesce(string_agg(t::text, ' '), '-') FROM {table} t")).await;
        assert_clean(table, text.as_bytes(), &secrets, &[]);
    }
}

both_engines! {
    async fn no_secret_is_logged_or_stored(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let file = scratch.dir.as_ref().map(|dir| dir.path().join("keyward.db"));
        leave_no_trace(&scratch.url, file.as_deref(), &[("KEYWARD_LOG_FORMAT", "json")]).await;
    }

    async fn nor_in_the_form_for_people(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let file = scratch.dir.as_ref().map(|dir| dir.path().join("keyward.db"));
        leave_no_trace(&scratch.url, file.as_deref(), &[("KEYWARD_LOG_FORMAT", "pretty")]).await;
    }

    async fn nor_where_somebody_asks_for_the_depths_of_a_library(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let file = scratch.dir.as_ref().map(|dir| dir.path().join("keyward.db"));
        let depths = "trace,h2::codec=trace,h2::proto=trace,h2::hpack=trace,h2::frame=trace,hyper::proto=trace,hyper::proto::h1::io=trace,\
                      hyper_util::client=trace,sqlx::query=trace,sqlx::postgres=trace,axum::rejection=trace,tower_http::trace=trace,rustls::msgs=trace";
        leave_no_trace(&scratch.url, file.as_deref(), &[("KEYWARD_LOG", depths)]).await;
    }
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let mut secrets = Secrets::default();
    let key = secrets.add("key", &unknown_key(3));
    for hidden in
        [key.clone(), key[12..45].to_owned(), hex::encode(&key), STANDARD.encode(&key), format!("{:?}", key.as_bytes())]
    {
        assert!(!secrets.found_in(format!("x{hidden}y").as_bytes(), &[]).is_empty(), "{hidden}");
    }
    let shown = format!("sk_{}…{}", &key[3..7], &key[47..]);
    assert!(secrets.found_in(shown.as_bytes(), &[]).is_empty());
}

#[tokio::test]
async fn no_setting_raises_what_libraries_print_of_requests() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(
        dir.path(),
        &[("KEYWARD_LOG", "trace,h2::codec=trace,h2::proto::connection=debug"), ("KEYWARD_LOG_FORMAT", "json")],
    )
    .await;
    let two = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    Call(two.get(format!("{}/v1/keys/self", program.url))).api_key("sk_x").send().await.expect(401);
    let fine: BTreeSet<_> = program
        .lines()
        .into_iter()
        .filter(|line| line["level"] == "TRACE" || line["level"] == "DEBUG")
        .map(|line| line["target"].to_string())
        .collect();
    assert!(fine.iter().all(|target| !target.starts_with("\"h2")), "{fine:?}");
}
