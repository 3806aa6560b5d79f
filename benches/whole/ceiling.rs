//! The ceiling: what HTTP and JSON cost with axum alone, on the runtime and the allocator that Keyward has.

use std::net::Ipv4Addr;

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::Result;

/// The form of a verify question.
#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed for what it costs")]
struct Question {
    key: String,
    scopes: Option<Vec<String>>,
    cost: Option<u32>,
    client: Option<Client>,
    dry_run: Option<bool>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed for what it costs")]
struct Client {
    ip: Option<String>,
    method: Option<String>,
    path: Option<String>,
}

/// The form and about the size (400 bytes) of its answer.
#[derive(Serialize)]
struct Answer {
    valid: bool,
    code: &'static str,
    key_id: &'static str,
    project_id: &'static str,
    name: &'static str,
    owner: &'static str,
    scopes: [&'static str; 3],
    metadata: Metadata,
    expires_at: Option<&'static str>,
    limits: [Window; 1],
    request_id: &'static str,
}

#[derive(Serialize)]
struct Metadata {
    team: &'static str,
}

#[derive(Serialize)]
struct Window {
    name: &'static str,
    limit: u64,
    remaining: u64,
    reset_seconds: u64,
}

async fn answer(Json(_): Json<Question>) -> Json<Answer> {
    Json(Answer {
        valid: true,
        code: "VALID",
        key_id: "key_01K5ZV8QXW3M7C2R9T4B6D8F0G",
        project_id: "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G",
        name: "billing worker",
        owner: "customer-42",
        scopes: ["orders:*", "users:read", "billing:invoices:read"],
        metadata: Metadata { team: "billing" },
        expires_at: None,
        limits: [Window { name: "minute", limit: 1_000_000_000, remaining: 999_999_999, reset_seconds: 60 }],
        request_id: "01K5ZV8QXW3M7C2R9T4B6D8F0G",
    })
}

/// Serves until it is killed.
pub(super) fn serve(port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let routes = Router::new()
            .route("/", get(|| async { "OK" }).post(answer))
            // A collector of telemetry that does nothing with it.
            .route("/v1/{signal}", post(async |_: Bytes| ()))
            .layer(DefaultBodyLimit::disable());
        axum::serve(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?, routes).await?;
        Ok(())
    })
}
