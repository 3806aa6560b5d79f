//! `POST /v1/keys/verify`.

use std::net::IpAddr;

use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
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
pub(super) struct VerifyRequest {
    /// The key as somebody showed it.
    #[schema(value_type = String, example = "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg")]
    key: Secret,
    /// Scopes that are all needed.
    #[serde(default)]
    #[schema(nullable = false, example = json!(["orders:read"]))]
    scopes: Option<Scopes>,
    /// How much of the key's limits this takes.
    #[serde(default)]
    #[schema(nullable = false, minimum = 1, maximum = 1_000_000, default = 1)]
    cost: Option<u32>,
    /// Who showed the key, and for what.
    #[serde(default, deserialize_with = "object::optional")]
    #[schema(nullable = false)]
    #[expect(
        dead_code,
        reason = "checked for its form; no key has restrictions yet that would judge it"
    )]
    client: Option<Client>,
    /// Ask without leaving a trace of a use.
    #[serde(default)]
    #[schema(nullable = false, default = false)]
    dry_run: Option<bool>,
}

/// Who showed the key, and for what.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "checked for its form; no key has restrictions yet that would judge it"
)]
pub(super) struct Client {
    /// The client's address.
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false, format = Ipv4, example = "192.0.2.7")]
    ip: Option<IpAddr>,
    /// The request's method.
    #[serde(default)]
    #[schema(nullable = false, example = "GET")]
    method: Option<String>,
    /// The request's path.
    #[serde(default)]
    #[schema(nullable = false, example = "/orders")]
    path: Option<String>,
}

/// What is answered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
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
    #[serde(flatten)]
    #[schema(inline)]
    granted: Option<Granted>,
    /// Names the question in the service's log.
    request_id: String,
}

/// What a good key is and may do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Granted {
    /// Whom it was made for.
    owner: Option<String>,
    /// What it may do.
    scopes: Scopes,
    /// What its owner keeps with it.
    #[schema(value_type = Object)]
    metadata: Metadata,
    /// When it ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Its windows as they stand after this question.
    #[schema(value_type = Vec<Object>, max_items = 8)]
    limits: [(); 0],
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
    if body.cost.is_some_and(|cost| !(1..=1_000_000).contains(&cost)) {
        return Err(Invalid::field("cost", "invalid_value", "must be 1 to 1000000").into());
    }
    let scopes = body.scopes.unwrap_or_default();
    if scopes.len() > MAX_SCOPES {
        return Err(Invalid::field("scopes", "too_many", "must be at most 256 scopes").into());
    }
    let question = Question {
        key: body.key,
        scopes,
        dry_run: body.dry_run.unwrap_or(false),
    };
    let verify::Answer { code, key } = verify::verify(&ctx, &reach, &question).await?;
    let mut answer = VerifyAnswer {
        valid: code == Code::Valid,
        code,
        key_id: key.as_ref().map(|key| key.id),
        project_id: key.as_ref().map(|key| key.project_id),
        name: key.as_ref().map(|key| key.name.clone()),
        granted: None,
        request_id: origin.id.clone(),
    };
    if let Some(key) = key.filter(|_| code == Code::Valid) {
        answer.granted = Some(Granted {
            owner: key.owner,
            scopes: key.scopes,
            metadata: key.metadata,
            expires_at: key.expires_at,
            limits: [],
        });
    }
    Ok(axum::Json(answer))
}
