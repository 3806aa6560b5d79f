//! What the servers know: a person with keys, made over HTTP, and very many keys, written straight into the file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use keyward::base::clock::{Clock as _, SystemClock};
use keyward::base::id::{KeyId, SecretId};
use keyward::base::rng::SystemRng;
use keyward::features::keys::format::NewSecret;
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};

use super::Result;
use super::server::{Server, database};

/// A person with a project, and a key that may verify the others.
pub(super) struct Person {
    url: String,
    user_id: String,
    project_id: String,
    /// Of the log-in.
    pub(super) token: String,
    /// May verify the project's keys.
    pub(super) caller: String,
}

/// Of every person here.
pub(super) const PASSWORD: &str = "kw-bench-7hQx2mVd9-Lr4";

async fn post(url: &str, token: Option<&str>, body: Value) -> Result<Value> {
    let request = reqwest::Client::new().post(url).json(&body);
    let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
    let answer = request.send().await?;
    let (status, body) = (answer.status(), answer.text().await?);
    if status.is_success() {
        Ok(serde_json::from_str(&body)?)
    } else {
        Err(format!("{url} answered {status}: {body}").into())
    }
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().ok_or("a member of an answer is missing")?.to_owned())
}

impl Person {
    pub(super) async fn register(server: &Server, username: &str) -> Result<Self> {
        let url = server.url.clone();
        let who = json!({ "username": username, "password": PASSWORD });
        let registered = post(&format!("{url}/register"), None, who.clone()).await?;
        let token = text(&post(&format!("{url}/login"), None, who).await?["token"])?;
        let user_id = text(&registered["user"]["id"])?;
        let mut person = Self { url, user_id, project_id: String::new(), token, caller: String::new() };
        let caller = person.make(json!({ "name": "gateway", "scopes": ["keyward:keys:verify"] })).await?;
        person.project_id = text(&caller["project_id"])?;
        person.caller = text(&caller["key"])?;
        Ok(person)
    }

    async fn make(&self, wishes: Value) -> Result<Value> {
        post(&format!("{}/generate-key", self.url), Some(&self.token), wishes).await
    }

    /// A key with three scopes and these windows.
    pub(super) async fn key(&self, limits: Option<Value>) -> Result<String> {
        let mut wishes = json!({
            "name": "billing worker",
            "owner": "customer-42",
            "scopes": ["orders:*", "users:read", "billing:invoices:read"],
            "metadata": { "team": "billing" },
        });
        if let Some(limits) = limits {
            wishes["limits"] = limits;
        }
        text(&self.make(wishes).await?["key"])
    }

    /// Makes so many webhooks and alert rules in the person's project, as anybody would.
    pub(super) async fn watch(&self, count: u32) -> Result<()> {
        const METRICS: [&str; 8] = [
            "requests",
            "denied",
            "error_rate",
            "rate_limited",
            "auth_failures",
            "scope_denied",
            "ip_denied",
            "latency_p95_ms",
        ];
        let project = format!("{}/v1/projects/{}", self.url, self.project_id);
        for n in 0..count {
            let hook = json!({ "url": format!("https://hooks.example.com/{n}"), "events": ["*"] });
            post(&format!("{project}/webhooks"), Some(&self.token), hook).await?;
            let metric = METRICS.into_iter().cycle().nth(n as usize).unwrap_or("requests");
            let rule = json!({
                "name": format!("rule {n}"), "metric": metric, "operator": ">", "threshold": 1_000_000_000,
                "window": "60m", "cooldown": "60m", "is_active": true,
            });
            post(&format!("{project}/alerts"), Some(&self.token), rule).await?;
        }
        Ok(())
    }

    /// Writes `count` keys into the file of a server that has ended, and their texts, in random order, into another.
    pub(super) async fn own(&self, directory: &Path, count: u32) -> Result<PathBuf> {
        /// Rows of one statement.
        const BATCH: u32 = 10_000;
        let options = SqliteConnectOptions::new().filename(database(directory));
        let options = options
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .foreign_keys(false)
            .pragma("cache_size", "-500000");
        let mut db = SqliteConnection::connect_with(&options).await?;
        let now = SystemClock::new().now();
        let mut texts = BTreeSet::new();
        for from in (0..count).step_by(BATCH as usize) {
            let mut rows = Vec::new();
            for n in from..(from + BATCH).min(count) {
                let new = NewSecret::generate("sk", &SystemRng);
                let (id, secret) = (KeyId::generate(now, &SystemRng), SecretId::generate(now, &SystemRng));
                let hash = hex::encode(new.hash);
                rows.push(json!([id, secret, hash, new.prefix, new.first_four, new.last_four, format!("key {n}")]));
                texts.insert(new.secret.expose().to_owned());
            }
            let rows = Value::from(rows).to_string();
            let mut tx = db.begin().await?;
            sqlx::query(
                "INSERT INTO api_keys (id, project_id, user_id, created_by, name, name_folded, scopes, metadata,
                     generation, created_at, updated_at)
                 SELECT value ->> 0, $2, $3, $3, value ->> 6, value ->> 6, $4, '{}', 1, $5, $5 FROM json_each($1)",
            )
            .bind(&rows)
            .bind(&self.project_id)
            .bind(&self.user_id)
            .bind(r#"["orders:*","users:read","billing:invoices:read"]"#)
            .bind(now.as_micros())
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "INSERT INTO key_secrets (id, key_id, generation, hash, prefix, first_four, last_four, created_at)
                 SELECT value ->> 1, value ->> 0, 1, unhex(value ->> 2), value ->> 3, value ->> 4, value ->> 5, $2
                 FROM json_each($1)",
            )
            .bind(&rows)
            .bind(now.as_micros())
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
        }
        db.close().await?;
        write_keys(directory, texts)
    }
}

/// `count` keys that nobody has made.
pub(super) fn strangers(directory: &Path, count: u32) -> Result<PathBuf> {
    write_keys(
        directory,
        (0..count).map(|_| NewSecret::generate("sk", &SystemRng).secret.expose().to_owned()).collect(),
    )
}

/// Sorted by their text, random keys are in random order, whatever the order in which they were made.
fn write_keys(directory: &Path, texts: BTreeSet<String>) -> Result<PathBuf> {
    let file = directory.join("keys");
    fs::write(&file, texts.into_iter().collect::<String>())?;
    Ok(file)
}
