//! `GET /v1/audit/keys`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::ctx::Ctx;
use crate::features::audit::chain::{self, KnownKey};
use crate::features::auth::Anybody;
use crate::web::problem::Problem;

/// What a key is for.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AuditKeyStatus)]
pub(super) enum KeyStatus {
    /// It signs.
    Signing,
    /// It has signed before, and its signatures count.
    Trusted,
    /// It has signed here, but its signatures don't count for this process.
    Unknown,
}

/// A public key as a JSON Web Key (RFC 8037).
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Jwk {
    /// `OKP`.
    kty: &'static str,
    /// `Ed25519`.
    crv: &'static str,
    /// Its name.
    kid: String,
    /// `sig`.
    #[serde(rename = "use")]
    purpose: &'static str,
    /// The key, in base64url.
    x: String,
}

/// A public key of the audit trail.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct AuditKey {
    /// Its name: the beginning of its SHA-256.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    id: String,
    /// `Ed25519`.
    algorithm: &'static str,
    /// What it is for.
    status: KeyStatus,
    /// Since when it has signed; `null` for one that never has.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// The 32 bytes in base64.
    public_key: String,
    /// The same as PEM (RFC 8410).
    pem: String,
    /// The same as a JSON Web Key.
    jwk: Jwk,
}

/// The public keys of the audit trail.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct AuditKeys {
    /// The keys, newest first.
    data: Vec<AuditKey>,
}

impl From<KnownKey> for AuditKey {
    fn from(known: KnownKey) -> Self {
        let KnownKey { key, since, is_signing, is_trusted } = known;
        let status = match (is_signing, is_trusted) {
            (true, _) => KeyStatus::Signing,
            (false, true) => KeyStatus::Trusted,
            (false, false) => KeyStatus::Unknown,
        };
        let jwk = Jwk { kty: "OKP", crv: "Ed25519", kid: key.id(), purpose: "sig", x: key.base64url() };
        Self { id: key.id(), algorithm: "Ed25519", status, since, public_key: key.base64(), pem: key.pem(), jwk }
    }
}

/// Public keys of the audit trail
///
/// With them, an export and its checkpoints are verified elsewhere. Keep them where whoever could change this service can't:
/// an answer from here proves nothing about itself.
#[utoipa::path(
    get, path = "/v1/audit/keys", operation_id = "listAuditKeys", tag = "audit",
    responses((status = 200, description = "The keys", body = AuditKeys)),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn keys(State(ctx): State<Ctx>, _: Anybody) -> Result<Json<AuditKeys>, Problem> {
    let keys = chain::keys(&ctx).await?;
    Ok(Json(AuditKeys { data: keys.into_iter().map(AuditKey::from).collect() }))
}
