//! Postgres goes away while the service runs, by stopping and by hanging, and comes back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::postgres::Postgres;
use crate::harness::program::Program;
use crate::harness::{Answer, Call, PASSWORD};

struct Served {
    postgres: Postgres,
    program: Program,
    token: String,
    key: Value,
    _dir: tempfile::TempDir,
}

impl Served {
    /// A service with somebody and a key, and connections in its pool.
    async fn start() -> Self {
        let postgres = Postgres::start().await;
        let url = postgres.database().await;
        let dir = tempfile::tempdir().unwrap();
        let program =
            Program::start(dir.path(), &[("DATABASE_URL", &url), ("KEYWARD_KEYS_PER_USER_PER_DAY", "0")]).await;
        let token = program.person("ada").await;
        let key = program.generate(&token).await;
        let warm = (0..8).map(|_| program.get("/list-keys").token(&token).send());
        futures_util::future::join_all(warm).await.into_iter().for_each(|answer| drop(answer.expect(200)));
        Self { postgres, program, token, key, _dir: dir }
    }

    /// One call of each kind that needs the storage.
    fn calls(&self) -> Vec<(&'static str, Call)> {
        let (program, key) = (&self.program, self.key["key"].as_str().unwrap());
        vec![
            ("list", program.get("/list-keys").token(&self.token)),
            ("verify", program.post("/v1/keys/verify").token(&self.token).json(&json!({"key": key}))),
            ("generate", program.post("/generate-key").token(&self.token)),
            ("self", program.get("/v1/keys/self").api_key(key)),
            ("login", program.post("/login").json(&json!({"username": "ada", "password": PASSWORD}))),
            ("register", program.post("/register").json(&json!({"username": "bob", "password": PASSWORD}))),
            ("revoke", program.post("/revoke-key").token(&self.token).json(&json!({"id": self.key["id"]}))),
        ]
    }

    /// What is cached goes on being verified for as long as the cache is trusted without word from the storage.
    async fn assert_trusted(&self) {
        let key = self.key["key"].as_str().unwrap();
        assert_eq!(self.program.verify(&self.token, key).await, "VALID");
        self.program.get("/list-keys").token(&self.token).send().await.problem(503, "storage_unavailable");
        let out = Instant::now();
        while self.calls().remove(1).1.send().await.status == 200 {
            assert!(out.elapsed() < Duration::from_secs(6), "still trusted");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Each call that needs the storage is a `503` within this time; what doesn't need it works meanwhile.
    async fn assert_out(&self, within: Duration) {
        let calls = self.calls().into_iter().map(async |(name, call)| {
            let started = Instant::now();
            (name, call.send().await, started.elapsed())
        });
        let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), self.assert_alive());
        for (name, answer, took) in answers {
            assert_eq!(answer.status, 503, "{name}: {}", answer.text());
            answer.problem(503, "storage_unavailable");
            let retry: u64 = answer.header("retry-after").parse().unwrap();
            assert!(retry > 0 && took < within, "{name}: {took:?}");
        }
    }

    async fn assert_alive(&self) {
        let program = &self.program;
        let started = Instant::now();
        program.get("/health/live").send().await.expect(200);
        program.get("/health").send().await.expect(200);
        assert_eq!(program.get("/key/32").send().await.expect(200).bytes.len(), 32);
        let soon = started.elapsed();
        assert!(soon < Duration::from_millis(500), "{soon:?}");
        let started = Instant::now();
        let ready = program.get("/health/ready").send().await.expect(503).json();
        assert_eq!(
            (&ready["status"], &ready["checks"]["database"]["status"]),
            (&json!("unavailable"), &json!("unavailable"))
        );
        // Kubernetes waits for a second.
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }

    /// Everything works again, at the latest after this time, without a restart, and nothing was lost.
    async fn assert_back(&self, within: Duration) {
        let back = Instant::now();
        let verify = async || -> Answer { self.calls().remove(1).1.send().await };
        let mut answer = verify().await;
        while answer.status != 200 {
            answer.problem(503, "storage_unavailable");
            assert!(back.elapsed() < within, "{}", answer.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer = verify().await;
        }
        assert_eq!(answer.json()["code"], "VALID");
        self.program.get("/health/ready").send().await.expect(200);
        let second = self.program.generate(&self.token).await;
        assert_eq!(self.program.verify(&self.token, second["key"].as_str().unwrap()).await, "VALID");
        for (name, call) in self.calls() {
            let answer = call.send().await;
            assert!(answer.status < 300, "{name}: {}", answer.text());
        }
        assert!(!self.program.log().contains("panicked"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_stops_and_comes_back() {
    let served = Served::start().await;
    for _ in 0..2 {
        // Each connection of the pool may have died with the server: one request each.
        let up = Instant::now();
        while served.calls().remove(1).1.send().await.status != 200 {
            assert!(up.elapsed() < Duration::from_secs(2));
        }
        // The feed of changes has been read since.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(served.program.verify(&served.token, served.key["key"].as_str().unwrap()).await, "VALID");
        served.postgres.stop();
        served.assert_trusted().await;
        served.assert_out(Duration::from_secs(5)).await;
        // Still, a while later.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        served.assert_out(Duration::from_secs(5)).await;
        served.postgres.start_again().await;
        let first = served.program.get("/list-keys").token(&served.token).send().await;
        assert!(matches!(first.status, 200 | 503), "{}", first.text());
        // The key must be good for another round.
        let back = Instant::now();
        while served.program.get("/list-keys").token(&served.token).send().await.status != 200 {
            assert!(back.elapsed() < Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        served.program.get("/health/ready").send().await.expect(200);
    }
    served.assert_back(Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_between_two_requests_costs_none() {
    let served = Served::start().await;
    served.postgres.stop();
    served.postgres.start_again().await;
    // The pool's connections were idle for longer than they are trusted without a sign of life.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let code = served.program.verify(&served.token, served.key["key"].as_str().unwrap()).await;
    assert_eq!(code, "VALID");
    served.program.generate(&served.token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_hangs_and_goes_on() {
    let served = Served::start().await;
    let paused = served.postgres.pause();
    tokio::time::sleep(Duration::from_millis(5500)).await;
    served.assert_out(Duration::from_secs(12)).await;
    served.assert_out(Duration::from_secs(12)).await;
    drop(paused);
    served.assert_back(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_does_not_wait_for_a_postgres_that_hangs() {
    let mut served = Served::start().await;
    served.program.get("/v1/keys/self").api_key(served.key["key"].as_str().unwrap()).send().await.expect(200);
    let _paused = served.postgres.pause();
    served.program.signal("TERM");
    assert_eq!(served.program.wait(Duration::from_secs(20)).code(), Some(0));
}
