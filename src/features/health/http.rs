//! `GET /health`, `/health/live`, `/health/ready`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;

/// How long the readiness check waits for the storage: shorter than the second that Kubernetes waits by default.
const PATIENCE: Duration = Duration::from_millis(800);

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(live)).routes(routes!(ready))
}

/// The process answers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// The service's version.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Since the process began.
    uptime_seconds: u64,
}

/// One or more checks.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Report {
    /// `ok`, `draining` or `unavailable`.
    #[schema(example = "ok")]
    status: &'static str,
    /// What was checked.
    checks: Checks,
}

/// What was checked.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
pub(super) struct Checks {
    /// The storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    database: Option<Checked>,
}

/// One check.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Checked {
    /// `ok` or `unavailable`.
    #[schema(example = "ok")]
    status: &'static str,
    /// How long the check took.
    #[schema(example = 0.4)]
    latency_ms: f64,
}

/// Is it up?
///
/// `OK`; with `Accept: application/json` the version and uptime.
#[utoipa::path(
    get, path = "/health", operation_id = "health", tag = "health",
    responses((status = 200, description = "The process answers", content(
        (String = "text/plain", example = "OK"),
        (Health = "application/json"),
    ))),
)]
pub(super) async fn health(State(ctx): State<Ctx>, headers: HeaderMap) -> Response {
    let wants_json = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|accept| {
        accept.split(',').any(|part| part.trim().to_ascii_lowercase().starts_with("application/json"))
    });
    if wants_json {
        let version = env!("CARGO_PKG_VERSION");
        Json(Health { status: "ok", version, uptime_seconds: ctx.uptime().as_secs() }).into_response()
    } else {
        "OK".into_response()
    }
}

/// Does the process live?
///
/// Touches nothing outside of the process.
#[utoipa::path(
    get, path = "/health/live", operation_id = "live", tag = "health",
    responses((status = 200, description = "It lives", body = Report)),
)]
pub(super) async fn live() -> Json<Report> {
    Json(Report { status: "ok", checks: Checks::default() })
}

/// Can it work?
///
/// `503` while the storage can't be used, and once the process has been told to end.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "ready", tag = "health",
    responses(
        (status = 200, description = "It can", body = Report),
        (status = 503, description = "It can't just now", body = Report),
    ),
)]
pub(super) async fn ready(State(ctx): State<Ctx>) -> Response {
    let started = ctx.clock.monotonic();
    let reachable = matches!(tokio::time::timeout(PATIENCE, ctx.db.ping()).await, Ok(Ok(())));
    let latency_ms = ctx.clock.monotonic().saturating_sub(started).as_secs_f64() * 1000.0;
    let word = |ok: bool| if ok { "ok" } else { "unavailable" };
    let status = if ctx.is_draining() { "draining" } else { word(reachable) };
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let database = Some(Checked { status: word(reachable), latency_ms: (latency_ms * 1000.0).round() / 1000.0 });
    let mut response = (code, Json(Report { status, checks: Checks { database } })).into_response();
    if code != StatusCode::OK {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(1));
    }
    response
}
