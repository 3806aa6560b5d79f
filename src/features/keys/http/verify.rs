//! `POST /v1/keys/verify`.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::body::{Bytes, HttpBody};
use axum::extract::State;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Deserializer};

use crate::base::id::{KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::features::auth::permission::{KeysVerify, Permission as _};
use crate::features::auth::{Caller, Reach, authenticate, forbidden};
use crate::features::keys::verify::{self, Answer, Question};
use crate::features::scopes::{ScopeQuery, Scopes};
use crate::gate::noticed::Asker;
use crate::gate::{self, Checked, Code};
use crate::web::extract::{json, object};
use crate::web::problem::Problem;
use crate::web::request::{CallerId, RequestContext};

use super::render;

/// What is asked.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"key": "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg", "scopes": ["orders:read"]}))]
pub(super) struct VerifyRequest<'a> {
    /// The key as somebody showed it.
    #[serde(borrow)]
    #[schema(value_type = String, example = "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg")]
    key: Cow<'a, str>,
    /// Scopes that are all needed, or a query of them.
    #[serde(default)]
    #[schema(value_type = Option<ScopeQuery>, example = json!(["orders:read"]))]
    scopes: Option<ScopeQuery>,
    /// How much of each of the key's limits this takes.
    #[serde(default)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000, default = 1)]
    cost: Option<Cost>,
    /// Who showed the key, and for what.
    #[serde(borrow, default, deserialize_with = "object::optional")]
    #[schema(value_type = Option<Client>)]
    client: Option<Client<'a>>,
    /// Ask without spending anything and without leaving a trace of a use; the answer explains itself in `trace`.
    #[serde(default)]
    #[schema(default = false)]
    dry_run: Option<bool>,
}

/// Who showed the key, and for what. What isn't named satisfies no restriction of the key.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Client<'a> {
    /// The client's address.
    #[serde(default)]
    #[schema(schema_with = crate::web::openapi::address)]
    ip: Option<IpAddr>,
    /// The request's method.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "GET")]
    method: Option<Cow<'a, str>>,
    /// The request's path.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "/orders")]
    path: Option<Cow<'a, str>>,
}

// Written by hand in `render.rs`, because that is worth a tenth of the whole.
/// What is answered.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what is written by hand")]
#[schema(examples(
    json!({"valid": true, "code": "VALID", "key_id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G",
        "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "billing worker", "owner": "customer-42",
        "scopes": ["orders:read"], "metadata": {"team": "billing"}, "expires_at": null,
        "limits": [{"name": "minute", "limit": 60, "remaining": 59, "reset_seconds": 60}],
        "request_id": "01K5ZV8QXW3M7C2R9T4B6D8F0G"}),
    json!({"valid": false, "code": "REVOKED", "key_id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G",
        "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "billing worker",
        "request_id": "01K5ZV8QXW3M7C2R9T4B6D8F0G"}),
))]
pub(super) struct VerifyAnswer {
    /// Whether the key may do this now.
    valid: bool,
    /// Yes, or why not.
    code: Code,
    /// Which key; there once the secret is proven, whatever the code.
    #[schema(nullable = false, required = false)]
    key_id: Option<KeyId>,
    /// Whose key.
    #[schema(nullable = false, required = false)]
    project_id: Option<ProjectId>,
    /// Its name.
    #[schema(nullable = false, required = false)]
    name: Option<String>,
    /// Whom it was made for; this and what follows with `VALID` alone.
    #[schema(value_type = Option<String>, required = false)]
    owner: Option<String>,
    /// What it may do.
    #[schema(nullable = false, required = false)]
    scopes: Option<Scopes>,
    /// What its owner keeps with it.
    #[schema(value_type = Option<Object>, nullable = false, required = false)]
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
    /// When it ends.
    #[schema(value_type = Option<String>, format = DateTime, required = false)]
    expires_at: Option<String>,
    /// Its windows as they stand after this question; with `VALID` and with the codes of limits.
    #[schema(nullable = false, required = false, max_items = 16)]
    limits: Option<Vec<LimitStanding>>,
    /// The names of the windows that refuse; with `RATE_LIMITED` and `QUOTA_EXCEEDED`.
    #[schema(nullable = false, required = false, example = json!(["minute"]))]
    violated: Option<Vec<String>>,
    /// Seconds after which the same question is admitted, if the key isn't used meanwhile; with the codes of limits, unless
    /// `cost` exceeds a limit: such a question is never admitted.
    #[schema(nullable = false, required = false, minimum = 1)]
    retry_after_seconds: Option<u64>,
    /// Every check in order, with its outcome; only for a dry run.
    #[schema(nullable = false, required = false)]
    trace: Option<Vec<Checked>>,
    /// Names the question in the service's log.
    request_id: String,
}

/// How a window of the key stands.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what is written by hand")]
pub(super) struct LimitStanding {
    /// Its name.
    #[schema(example = "minute")]
    name: String,
    /// How much it admits.
    #[schema(minimum = 0, example = 60)]
    limit: u32,
    /// How much is left.
    #[schema(minimum = 0, example = 59)]
    remaining: u32,
    /// Seconds, rounded up: until a refused question is admitted, otherwise until the whole limit is free again.
    #[schema(minimum = 0, example = 60)]
    reset_seconds: u64,
}

/// How much a question takes: a whole number from 1 to 1,000,000.
#[derive(Clone, Copy)]
struct Cost(u32);

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        gate::whole(deserializer, 1, 1_000_000).map(Self)
    }
}

/// Verify a key
///
/// Always `200` when the question was well formed and allowed; `valid` and `code` are the answer. A key of a project that the
/// caller may not ask about is `NOT_FOUND`. A valid answer spends `cost` from every window of the key, any other nothing. The
/// call itself is never limited by the caller's own limits. The `RateLimit` headers tell of the key that is asked about.
#[utoipa::path(
    post, path = "/v1/keys/verify", operation_id = "verifyKey", tag = "keys",
    request_body(content = VerifyRequest, description = "The key, and what it wants to do"),
    responses(
        (status = 200, description = "The answer", body = VerifyAnswer),
        (status = 403, description = "The caller may not verify keys anywhere"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn verify(
    State(ctx): State<Ctx>,
    origin: RequestContext,
    request: axum::extract::Request,
) -> Response {
    let (head, mut body) = request.into_parts();
    respond(&ctx, &origin, &head, &mut body).await
}

/// Answers a request for this route, whether or not a router found it.
pub(crate) async fn respond<B>(ctx: &Ctx, origin: &RequestContext, head: &Parts, body: &mut B) -> Response
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let answer = async {
        let (reach, body) = read(ctx, origin, head, body).await?;
        let asked: VerifyRequest<'_> = json::parse(&body)?;
        let answer = ask(ctx, &reach, &asked, origin).await?;
        if answer.code != Code::Valid {
            origin.note_code(answer.code.word());
        }
        Ok::<_, Problem>(render::response(&answer, &origin.id))
    };
    answer.await.unwrap_or_else(Problem::into_response)
}

/// Where the caller may ask, as it is when the body has come, and the body.
pub(super) async fn read<B>(
    ctx: &Ctx,
    origin: &RequestContext,
    parts: &Parts,
    body: B,
) -> Result<(Reach, Vec<u8>), Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let epoch = ctx.gate.epoch().now();
    let mut found = reach(ctx, origin, parts).await?;
    let body = json::body(&parts.headers, body).await?;
    if ctx.gate.epoch().now() != epoch {
        // A body may take its time, in which the caller may have been revoked.
        found = Box::pin(reach(ctx, origin, parts)).await?;
    }
    Ok((found, body))
}

/// Where the caller may ask.
async fn reach(ctx: &Ctx, origin: &RequestContext, parts: &Parts) -> Result<Reach, Problem> {
    let own = gate::Client { ip: Some(origin.ip), method: Some(parts.method.as_str()), path: Some(parts.uri.path()) };
    let told = authenticate::Told::of(origin, parts);
    let caller = authenticate::caller(ctx, &parts.headers, own, origin.arrival, Some(&told)).await?;
    // Set once a request: a second time would be the same caller.
    let _ = origin.caller.set(caller.name());
    let reach = caller.reach(KeysVerify::SCOPE);
    if reach.is_empty() {
        if let Caller::Machine(machine) = &caller {
            told.forbidden(ctx, machine);
        }
        return Err(forbidden());
    }
    Ok(reach)
}

/// Answers one question.
pub(super) async fn ask(
    ctx: &Ctx,
    reach: &Reach,
    asked: &VerifyRequest<'_>,
    origin: &RequestContext,
) -> Result<Answer, Problem> {
    let none = ScopeQuery::default();
    let scopes = asked.scopes.as_ref().unwrap_or(&none);
    let client = asked.client.as_ref().map_or_else(gate::Client::default, |client| gate::Client {
        ip: client.ip,
        method: client.method.as_deref(),
        path: client.path.as_deref(),
    });
    let question = Question {
        key: &asked.key,
        scopes,
        cost: asked.cost.map_or(1, |Cost(cost)| cost),
        client,
        dry_run: asked.dry_run.unwrap_or(false),
        arrived: ctx.moment_at(origin.arrival).steady,
        request_id: Some(&origin.id),
        asked_by: origin.caller.get().map(|caller| match caller {
            CallerId::Key(key) => Asker::Key(*key),
            CallerId::User(user) => Asker::User(*user),
        }),
    };
    Ok(verify::verify(ctx, reach, &question, ctx.moment_after(origin.arrival)).await?)
}
