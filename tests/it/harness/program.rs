//! The real binary as a process of its own, for what can't be seen from inside: signals, logs, exit statuses.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, SqliteConnection};

use super::postgres::free_port;
use super::{Call, PASSWORD};

/// The binary with an empty environment, apart from what the test sets.
pub fn keyward(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyward"));
    command.env_clear().current_dir(directory).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(directory: &Path, environment: &[(&str, &str)], arguments: &[&str], input: &str) -> Output {
    let mut command = keyward(directory);
    command.args(arguments).envs(environment.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// A server process on free ports; killed when dropped.
pub struct Program {
    pub child: Child,
    pub url: String,
    pub metrics_url: String,
    pub log: PathBuf,
    pub http: reqwest::Client,
}

impl Program {
    /// Starts it and waits until it answers. Its output goes to `keyward.log` in the directory.
    pub async fn start(directory: &Path, environment: &[(&str, &str)]) -> Self {
        Self::spawn(directory, environment).up().await
    }

    /// Starts it without waiting.
    pub fn spawn(directory: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = keyward(directory);
        command
            .arg("serve")
            .env("KEYWARD_AUTH_RATE_PER_MINUTE", "0")
            .env("KEYWARD_DRAIN_DELAY", "0")
            .envs(environment.iter().copied());
        Self::launch(directory, command)
    }

    /// Starts a command line of the test's own, to which only the ports are added.
    pub fn launch(directory: &Path, mut command: Command) -> Self {
        let (port, metrics_port) = (free_port(), free_port());
        let log = directory.join("keyward.log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        command
            .args(["--port", &port.to_string(), "--metrics-port", &metrics_port.to_string()])
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        Self {
            child: command.spawn().unwrap(),
            url: format!("http://127.0.0.1:{port}"),
            metrics_url: format!("http://127.0.0.1:{metrics_port}/metrics"),
            log,
            http: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(Duration::from_secs(30))
                .build()
                .unwrap(),
        }
    }

    /// Waits until it answers.
    pub async fn up(mut self) -> Self {
        let started = Instant::now();
        while self.http.get(format!("{}/health", self.url)).send().await.is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && started.elapsed() < Duration::from_secs(20), "didn't start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self
    }

    /// Everything it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Everything it has said in JSON.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.log().lines().map(parse).collect()
    }

    /// The host and port, for a socket of the test's own.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        let status = kill.arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < patience, "still running: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as an orchestrator does, and gives its exit status.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait(Duration::from_secs(10)).code()
    }

    pub fn get(&self, path: &str) -> Call {
        Call(self.http.get(format!("{}{path}", self.url)))
    }

    pub fn post(&self, path: &str) -> Call {
        Call(self.http.post(format!("{}{path}", self.url)))
    }

    /// Registers somebody, logs them in, and gives their token.
    pub async fn person(&self, username: &str) -> String {
        let body = json!({"username": username, "password": PASSWORD});
        self.post("/register").json(&body).send().await.expect(201);
        self.login(username, PASSWORD).await
    }

    /// Logs somebody in and gives their token.
    pub async fn login(&self, username: &str, password: &str) -> String {
        let body = json!({"username": username, "password": password});
        let answer = self.post("/login").json(&body).send().await.expect(200).json();
        answer["token"].as_str().unwrap().to_owned()
    }

    /// Makes a key and gives the whole answer, which holds the secret as `key`.
    pub async fn generate(&self, token: &str) -> Value {
        self.post("/generate-key").token(token).send().await.expect(201).json()
    }

    /// What `verify` says of a key.
    pub async fn verify(&self, token: &str, key: &str) -> String {
        let call = self.post("/v1/keys/verify").token(token).json(&json!({"key": key}));
        call.send().await.expect(200).json()["code"].as_str().unwrap().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to a database beside the service, and what the tests ask through it.
pub enum Beside {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Beside {
    pub async fn open(url: &str) -> Self {
        if let Some(path) = url.strip_prefix("sqlite://") {
            let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(5));
            Self::Sqlite(options.connect().await.unwrap())
        } else {
            Self::Postgres(PgConnection::connect(url).await.unwrap())
        }
    }

    /// One number, by a query without parameters in the words of both engines.
    pub async fn count(&mut self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => sqlx::query_scalar(sql).fetch_one(connection).await.unwrap(),
            Self::Postgres(connection) => sqlx::query_scalar(sql).fetch_one(connection).await.unwrap(),
        }
    }

    /// One text.
    pub async fn text(&mut self, sql: &str) -> String {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => sqlx::query_scalar(sql).fetch_one(connection).await.unwrap(),
            Self::Postgres(connection) => sqlx::query_scalar(sql).fetch_one(connection).await.unwrap(),
        }
    }

    pub async fn execute(&mut self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => drop(sqlx::raw_sql(sql).execute(connection).await.unwrap()),
            Self::Postgres(connection) => drop(sqlx::raw_sql(sql).execute(connection).await.unwrap()),
        }
    }
}
