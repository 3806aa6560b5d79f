//! A server with somebody in it, and the command line on the same database.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use super::ended;
use crate::harness::program::{Program, run};
use crate::harness::{Engine, Scratch};

pub struct Desk {
    pub scratch: Scratch,
    pub dir: tempfile::TempDir,
    pub program: Program,
    pub token: String,
    /// Whose keys the tests make.
    pub project: String,
}

impl Desk {
    pub async fn open(engine: Engine) -> Self {
        Self::with(engine, &[]).await
    }

    /// One that evaluates alert rules every second.
    pub async fn quick(engine: Engine) -> Self {
        Self::with(engine, &[("KEYWARD_ALERT_INTERVAL", "1s")]).await
    }

    async fn with(engine: Engine, settings: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let program = Program::start(dir.path(), &[&[("DATABASE_URL", scratch.url.as_str())], settings].concat()).await;
        let token = program.person("ada").await;
        let me = program.get("/v1/users/me").token(&token).send().await.expect(200).json();
        let project = me["personal_project_id"].as_str().unwrap().to_owned();
        Self { scratch, dir, program, token, project }
    }

    /// Runs `keyward` on the same database.
    pub fn cli(&self, arguments: &[&str], input: &str) -> Output {
        run(self.dir.path(), &[("DATABASE_URL", &self.scratch.url)], arguments, input)
    }

    pub fn keys(&self, arguments: &[&str], input: &str) -> Output {
        self.cli(&[&["keys"], arguments].concat(), input)
    }

    /// A new key, as the command prints it.
    pub fn create(&self, arguments: &[&str]) -> String {
        let (out, err) = ended(&self.keys(&[&["create"], arguments].concat(), ""), 0);
        let key = out.strip_suffix('\n').unwrap();
        assert!(!err.contains(key), "{err}");
        key.to_owned()
    }

    /// The id of the newest key.
    pub fn newest(&self) -> String {
        let (out, _) = ended(&self.keys(&["list", "--user", "ada", "--limit", "1", "--format", "json"], ""), 0);
        serde_json::from_str::<Value>(&out).unwrap()["data"][0]["id"].as_str().unwrap().to_owned()
    }

    /// A new key with these settings: its secret and its id.
    pub async fn key(&self, mut settings: Value) -> (String, String) {
        settings["name"] = json!("test");
        let call = self.program.post(&format!("/v1/projects/{}/keys", self.project)).token(&self.token).json(&settings);
        let made = call.send().await.expect(201).json();
        (made["key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
    }

    /// What `verify` says of a key.
    pub async fn ask(&self, key: &str) -> String {
        self.program.verify(&self.token, key).await
    }

    /// Asks so many times, and gives how often the answer was `VALID`.
    pub async fn admitted(&self, key: &str, times: usize) -> usize {
        let mut admitted = 0;
        for _ in 0..times {
            admitted += usize::from(self.ask(key).await == "VALID");
        }
        admitted
    }

    /// How a key's limits stand, as the running server says.
    pub async fn standing(&self, id: &str) -> Value {
        self.program.get(&format!("/v1/keys/{id}/limits")).token(&self.token).send().await.expect(200).json()
    }

    /// Ends the server as an orchestrator does and starts it again.
    pub async fn restart(&mut self) {
        assert_eq!(self.program.stop(), Some(0), "{}", self.program.log());
        self.start_again().await;
    }

    /// `kill -9`, and starts it again.
    pub async fn crash(&mut self) {
        self.program.signal("KILL");
        self.program.wait(Duration::from_secs(5));
        self.start_again().await;
    }

    /// Starts a server that has ended.
    pub async fn start_again(&mut self) {
        self.program = start(self.dir.path(), &self.scratch.url).await;
    }
}

async fn start(directory: &Path, url: &str) -> Program {
    Program::start(directory, &[("DATABASE_URL", url)]).await
}
