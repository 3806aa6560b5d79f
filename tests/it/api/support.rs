//! What several of these files need: callers by address, keys of the system, questions about keys, rows of the trail, and
//! raw sockets.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use keyward::features::audit::By;
use keyward::features::keys::create::{Making, NewKey, create};
use keyward::features::projects;
use keyward::features::scopes::Scopes;
use keyward::infra::db::Db;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Answer, App, FILE, PASSWORD, Session};

/// Makes the tests' own address a trusted proxy, so that `X-Forwarded-For` says who calls.
pub const PROXY: (&str, &str) = ("KEYWARD_TRUSTED_PROXIES", "127.0.0.1/32");
/// No limit on the keys that a person makes.
pub const MANY_KEYS: (&str, &str) = ("KEYWARD_KEYS_PER_USER_PER_DAY", "0");
/// Log-ins that outlast a test which moves days.
pub const LONG_SESSIONS: (&str, &str) = ("KEYWARD_SESSION_TTL", "90d");

/// A well-formed id that names nothing.
pub const NO_KEY: &str = "key_01K5ZV8QXW3M7C2R9T4B6D8F0G";
/// A well-formed id that names nothing.
pub const NO_PROJECT: &str = "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G";

/// A text member.
#[track_caller]
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// The path of a key.
#[track_caller]
pub fn path(key: &Value, rest: &str) -> String {
    format!("/v1/keys/{}{rest}", text(key, "id"))
}

/// Sends a log-in as it comes from an address.
pub async fn try_login(app: &App, from: &str, username: &str, password: &str) -> Answer {
    app.post("/login")
        .header("x-forwarded-for", from)
        .json(&json!({"username": username, "password": password}))
        .send()
        .await
}

/// Sends a registration.
pub async fn try_register(app: &App, username: &str, password: &str) -> Answer {
    app.post("/register").json(&json!({"username": username, "password": password})).send().await
}

/// Registers somebody without logging them in.
pub async fn register(app: &App, username: &str) {
    try_register(app, username, PASSWORD).await.expect(201);
}

/// The status that a token gets.
pub async fn token_status(app: &App, token: &str) -> u16 {
    app.get("/v1/users/me").token(token).send().await.status
}

/// A key of the system project, as the command line makes them.
pub async fn system_key(app: &App, scopes: &[&str]) -> String {
    let ctx = &app.ctx;
    let project = projects::store::system(ctx.db.reader().await.unwrap().conn()).await.unwrap().unwrap();
    let making =
        Making { by: &By::system("test", ctx), caller: None, project, responsible: None, idempotency_key: None };
    let new = NewKey {
        name: Some("root".to_owned()),
        scopes: Some(Scopes::new(scopes.iter().map(|scope| scope.parse().unwrap()))),
        ..NewKey::default()
    };
    create(ctx, &making, new).await.unwrap().secret.expose().to_owned()
}

/// A question about a key, with more in it.
pub fn question(key: &Value, extra: Value) -> Value {
    let mut question = json!({"key": key["key"]});
    question.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    question
}

/// The code that a question about a key is answered with.
pub async fn code(app: &App, who: &Session, key: &Value, extra: Value) -> String {
    text(&app.verify(who, question(key, extra)).await, "code").to_owned()
}

/// Changes a key.
pub async fn patched(app: &App, who: &Session, key: &Value, body: Value) -> Value {
    app.patch(&path(key, "")).token(&who.token).json(&body).send().await.expect(200).json()
}

/// Switches a key off or on, or takes it back.
pub async fn switched(app: &App, who: &Session, key: &Value, how: &str) -> Value {
    app.post(&path(key, how)).token(&who.token).send().await.expect(200).json()
}

/// How a key's limits stand.
pub async fn standing(app: &App, who: &Session, key: &Value) -> Value {
    app.get(&path(key, "/limits")).token(&who.token).send().await.expect(200).json()
}

/// What is used of each window of a key, by name.
pub async fn used(app: &App, who: &Session, key: &Value) -> BTreeMap<String, u64> {
    let standing = standing(app, who, key).await;
    let window = |window: &Value| (text(window, "name").to_owned(), window["used"].as_u64().unwrap());
    standing["limits"].as_array().unwrap().iter().map(window).collect()
}

/// How many of a key's places are taken.
pub async fn in_use(app: &App, who: &Session, key: &Value) -> u64 {
    standing(app, who, key).await["concurrency"]["in_use"].as_u64().unwrap()
}

/// Asks again and again until the answer is this one; fails when that takes longer than so much real time.
pub async fn until<T: PartialEq + Debug>(patience: Duration, wanted: T, ask: impl AsyncFn() -> T) {
    let started = Instant::now();
    loop {
        let answer = ask().await;
        if answer == wanted {
            return;
        }
        assert!(started.elapsed() < patience, "{answer:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Random numbers, the same each time.
pub struct Dice(pub u64);

impl Dice {
    /// From 0 up to `below`, exclusive.
    pub fn roll(&mut self, below: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// The texts of one column.
pub async fn texts(app: &App, sql: String) -> Vec<String> {
    let sql = sqlx::AssertSqlSafe(sql);
    match &app.ctx.db {
        Db::Postgres(pool) => sqlx::query_scalar(sql).fetch_all(pool).await.unwrap(),
        Db::Sqlite(db) => sqlx::query_scalar(sql).fetch_all(db.writer()).await.unwrap(),
    }
}

/// A problem's body without what differs from request to request.
pub fn faceless(answer: &Answer) -> Value {
    let mut body = answer.json();
    body.as_object_mut().unwrap().remove("request_id").unwrap();
    body
}

/// A connection of our own.
pub async fn dial(app: &App) -> TcpStream {
    let address = app.url.strip_prefix("http://").unwrap().parse().unwrap();
    TcpSocket::new_v4().unwrap().connect(address).await.unwrap()
}

/// Sends bytes as they stand, and gives what came back until the server closed, or what stood there after two seconds.
pub async fn talk(app: &App, bytes: &[u8]) -> String {
    let mut stream = dial(app).await;
    // The server may have heard enough before the end.
    let _ = stream.write_all(bytes).await;
    listen(&mut stream).await.0
}

/// What comes until the server closes, and whether it did within three seconds.
pub async fn listen(stream: &mut TcpStream) -> (String, bool) {
    let mut heard = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut heard)).await;
    (String::from_utf8_lossy(&heard).into_owned(), end.is_ok())
}

/// The body of an answer from a raw socket, as JSON.
#[track_caller]
pub fn body_of(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// Waits, for two seconds at most, until the metrics hold a line.
pub async fn until_metrics_say(app: &App, line: &str) {
    for _ in 0..100 {
        if app.metrics().await.lines().any(|l| l == line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no line {line:?} in {}", app.metrics().await);
}

/// The settings that make an administrator at the start.
pub const ADMIN: [(&str, &str); 3] =
    [("KEYWARD_ADMIN_USERNAME", "root"), ("KEYWARD_ADMIN_PASSWORD", "the operator's own horse"), MANY_KEYS];

/// That administrator, logged in.
pub async fn admin(app: &App) -> Session {
    app.login("root", "the operator's own horse").await
}

/// A new team's id.
pub async fn team(app: &App, owner: &Session, name: &str) -> String {
    let made = app.post("/v1/projects").token(&owner.token).json(&json!({"name": name})).send().await.expect(201);
    text(&made.json(), "id").to_owned()
}

/// Makes somebody a member.
pub async fn join(app: &App, owner: &Session, project: &str, username: &str, role: &str) {
    let call = app.post(&format!("/v1/projects/{project}/members")).token(&owner.token);
    call.json(&json!({"username": username, "role": role})).send().await.expect(201);
}

/// Makes a key in a project and gives the whole answer, which holds the secret as `key`.
pub async fn key_in(app: &App, who: &Session, project: &str, mut body: Value) -> Value {
    if body.get("name").is_none() {
        body["name"] = json!("test");
    }
    app.post(&format!("/v1/projects/{project}/keys")).token(&who.token).json(&body).send().await.expect(201).json()
}

/// Changes what a project sets.
pub async fn configure(app: &App, who: &Session, project: &str, body: Value) {
    app.patch(&format!("/v1/projects/{project}/config")).token(&who.token).json(&body).send().await.expect(200);
}

/// The status with which a key may ask about itself.
pub async fn own_status(app: &App, key: &Value) -> u16 {
    app.get("/v1/keys/self").api_key(text(key, "key")).send().await.status
}

/// A request whose head is in, and whose body is still to come.
pub struct Slow {
    stream: TcpStream,
    body: String,
}

impl Slow {
    /// Sends the head, and waits until the service asks for the body: then permission has been given.
    pub async fn begin(app: &App, method: &str, path: &str, credential: &str, body: &Value) -> Self {
        let (mut stream, body) = (dial(app).await, body.to_string());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {credential}\r\nexpect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n", "{}", String::from_utf8_lossy(&asked));
        Self { stream, body }
    }

    /// Sends the body, and gives the status and the answer.
    pub async fn end(mut self) -> (u16, String) {
        self.stream.write_all(self.body.as_bytes()).await.unwrap();
        let (answer, _) = listen(&mut self.stream).await;
        (answer.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0), answer)
    }
}

/// A team of somebody's, with others in it by their roles: the owner's session in it.
pub async fn team_of(app: &App, owner: &Session, others: &[(&str, &str)]) -> Session {
    let made =
        app.post("/v1/projects").token(&owner.token).json(&json!({"name": "team"})).send().await.expect(201).json();
    let project = text(&made, "id").to_owned();
    for (username, role) in others {
        let body = json!({"username": username, "role": role});
        app.post(&format!("/v1/projects/{project}/members")).token(&owner.token).json(&body).send().await.expect(201);
    }
    Session { project, ..owner.clone() }
}

/// Rotates a key.
pub async fn rotate(app: &App, credential: &str, key: &Value, body: Value) -> Answer {
    app.post(&path(key, "/rotate")).token(credential).json(&body).send().await
}

/// The secrets of a key, newest first.
pub async fn secrets(app: &App, who: &Session, key: &Value) -> Vec<Value> {
    let listed = app.get(&path(key, "/secrets")).token(&who.token).send().await.expect(200).json();
    listed["data"].as_array().unwrap().clone()
}

/// A service to be watched, for tests that ask every route; nobody is there.
pub const SERVICES: (&str, &str) = (
    FILE,
    r#"
    [[services]]
    name = "the-worker"
    kind = "http"
    url = "http://127.0.0.1:1/"
    secret = "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg=="
    checks = [{ kind = "tcp", address = "127.0.0.1:1" }]
    "#,
);
