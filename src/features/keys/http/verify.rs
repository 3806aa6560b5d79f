//! `POST /v1/keys/verify`.

use std::net::IpAddr;

use axum::extract::State;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Value, json};
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, SchemaFormat, Type};

use crate::base::id::{KeyId, ProjectId};
use crate::base::invalid::Invalid;
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::auth::Anywhere;
use crate::features::auth::permission::KeysVerify;
use crate::features::keys::Metadata;
use crate::features::keys::rules::Code;
use crate::features::keys::verify::{self, Question};
use crate::features::scopes::{MAX_SCOPES, Scopes};
use crate::web::extract::{Json, object};
use crate::web::problem::Problem;
use crate::web::request::RequestContext;

/// What is asked.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"key": "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg", "scopes": ["orders:read"]}))]
pub(super) struct VerifyRequest {
    /// The key as somebody showed it.
    #[schema(value_type = String, example = "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg")]
    key: Secret,
    /// Scopes that are all needed.
    #[serde(default)]
    #[schema(example = json!(["orders:read"]))]
    scopes: Option<Scopes>,
    /// How much of the key's limits this takes.
    #[serde(default)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000, default = 1)]
    #[expect(dead_code, reason = "checked for its form; no key has limits yet that it would take from")]
    cost: Option<Cost>,
    /// Who showed the key, and for what.
    #[serde(default, deserialize_with = "object::optional")]
    #[expect(dead_code, reason = "checked for its form; no key has restrictions yet that would judge it")]
    client: Option<Client>,
    /// Ask without leaving a trace of a use.
    #[serde(default)]
    #[schema(default = false)]
    dry_run: Option<bool>,
}

/// Who showed the key, and for what.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "checked for its form; no key has restrictions yet that would judge it")]
pub(super) struct Client {
    /// The client's address.
    #[serde(default)]
    #[schema(schema_with = address)]
    ip: Option<IpAddr>,
    /// The request's method.
    #[serde(default)]
    #[schema(example = "GET")]
    method: Option<String>,
    /// The request's path.
    #[serde(default)]
    #[schema(example = "/orders")]
    path: Option<String>,
}

/// What is answered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(examples(
    json!({"valid": true, "code": "VALID", "key_id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G",
        "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "billing worker", "owner": "customer-42",
        "scopes": ["orders:read"], "metadata": {"team": "billing"}, "expires_at": null, "limits": [],
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
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    key_id: Option<KeyId>,
    /// Whose key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    project_id: Option<ProjectId>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    name: Option<String>,
    /// Whom it was made for; this and what follows with `VALID` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false)]
    owner: Option<Value>,
    /// What it may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    scopes: Option<Scopes>,
    /// What its owner keeps with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false, required = false)]
    metadata: Option<Metadata>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, required = false)]
    expires_at: Option<Value>,
    /// Its windows as they stand after this question.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>, nullable = false, required = false, max_items = 8)]
    limits: Option<[(); 0]>,
    /// Names the question in the service's log.
    request_id: String,
}

/// How much a question takes: a whole number from 1 to 1,000,000.
#[derive(Debug, Clone, Copy)]
struct Cost;

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A whole number is an integer however it is written (JSON Schema, 4.2.3).
        let cost = f64::deserialize(deserializer)?;
        if cost.fract() == 0.0 && (1.0..=1_000_000.0).contains(&cost) {
            Ok(Self)
        } else {
            Err(de::Error::custom("expected a whole number from 1 to 1000000"))
        }
    }
}

/// The schema of an address of either kind.
fn address() -> Schema {
    let text = |format: &str| {
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::Custom(format.to_owned())))
    };
    let none = ObjectBuilder::new().schema_type(Type::Null);
    AnyOfBuilder::new()
        .item(text("ipv4"))
        .item(text("ipv6"))
        .item(none)
        .description(Some("The client's address."))
        .examples([json!("192.0.2.7")])
        .build()
        .into()
}

/// Verify a key
///
/// Always `200` when the question was well formed and allowed; `valid` and `code` are the answer. A key of a project that the
/// caller may not ask about is `NOT_FOUND`.
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
    Anywhere { reach, .. }: Anywhere<KeysVerify>,
    Json(body): Json<VerifyRequest>,
) -> Result<axum::Json<VerifyAnswer>, Problem> {
    let scopes = body.scopes.unwrap_or_default();
    if scopes.len() > MAX_SCOPES {
        return Err(Invalid::field("scopes", "too_many", "must be at most 256 scopes").into());
    }
    let question = Question { key: body.key, scopes, dry_run: body.dry_run.unwrap_or(false) };
    let verify::Answer { code, key } = verify::verify(&ctx, &reach, &question).await?;
    let mut answer = VerifyAnswer {
        valid: code == Code::Valid,
        code,
        key_id: key.as_ref().map(|key| key.id),
        project_id: key.as_ref().map(|key| key.project_id),
        name: key.as_ref().map(|key| key.name.clone()),
        owner: None,
        scopes: None,
        metadata: None,
        expires_at: None,
        limits: None,
        request_id: origin.id.clone(),
    };
    if let Some(key) = key.filter(|_| code == Code::Valid) {
        answer.owner = Some(json!(key.owner));
        answer.scopes = Some(key.scopes);
        answer.metadata = Some(key.metadata);
        answer.expires_at = Some(json!(key.expires_at));
        answer.limits = Some([]);
    }
    Ok(axum::Json(answer))
}
