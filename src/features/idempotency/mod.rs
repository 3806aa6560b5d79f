//! `Idempotency-Key`: a creation that is sent twice happens once.
//!
//! The claim is a row written in the creation's own transaction, so that of two at once one waits for the other. An answer
//! that held a secret is never kept: the second sender learns the id of what the first one made.

pub mod store;

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::infra::db::{DbError, Tx};
use crate::web::problem::Problem;

/// How long a first answer stands.
pub const KEPT: Duration = Duration::from_hours(24);

/// What stands for the header's value, which is any text of 1 to 255 bytes; `None` if it wasn't sent. The value itself is
/// nowhere kept: people send secrets in it.
#[derive(Clone, Debug)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("idempotency-key") else {
            return Ok(Self(None));
        };
        if !(1..=255).contains(&value.len()) {
            return Err(Problem::bad_request(
                "invalid_idempotency_key",
                "Idempotency-Key must be text of 1 to 255 bytes.",
            ));
        }
        let hash = Sha256::new().chain_update(b"keyward idempotency key\0").chain_update(value.as_bytes()).finalize();
        Ok(Self(Some(hex::encode(hash))))
    }
}

/// What makes two requests the same.
#[derive(Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub caller: &'a str,
    /// For what.
    pub operation: &'static str,
    /// The client's key.
    pub key: &'a str,
    /// A hash of the body; see [`fingerprint`].
    pub fingerprint: Vec<u8>,
}

/// The SHA-256 of a body's canonical form. The body must hold no password: a hash of one could be searched for.
#[must_use]
pub fn fingerprint(body: &impl Serialize) -> Vec<u8> {
    // Our own request types always serialise.
    Sha256::digest(serde_json::to_vec(body).unwrap_or_default()).to_vec()
}

/// Why a claim isn't the first.
#[derive(Debug, thiserror::Error)]
pub enum Claimed {
    /// The same request was done before.
    #[error("the same request was done before")]
    Replay {
        /// What it made.
        resource_id: String,
    },
    /// Another request had the same key.
    #[error("another request had the same key")]
    Mismatch,
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

impl From<Claimed> for Problem {
    fn from(claimed: Claimed) -> Self {
        match claimed {
            Claimed::Replay { resource_id } => Self::new(
                StatusCode::CONFLICT,
                "idempotency_replay",
                "This request was done before; its answer held a secret, which is shown once only.",
            )
            .with_id(resource_id),
            Claimed::Mismatch => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_mismatch",
                "Another request was sent with this Idempotency-Key.",
            ),
            Claimed::Storage(error) => error.into(),
        }
    }
}

/// What a creation answers: `201`, where the thing is found, and the thing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Created {
    /// For the `Location` header.
    pub location: String,
    /// The body, as JSON.
    pub body: String,
}

impl Created {
    /// Renders a thing that holds no secret.
    #[must_use]
    pub fn new(location: String, thing: &impl Serialize) -> Self {
        // Our own answers always serialise.
        Self { location, body: serde_json::to_string(thing).unwrap_or_default() }
    }
}

impl IntoResponse for Created {
    fn into_response(self) -> Response {
        let headers = [(header::LOCATION, self.location), (header::CONTENT_TYPE, "application/json".to_owned())];
        (StatusCode::CREATED, headers, self.body).into_response()
    }
}

/// Claims a key for what this transaction makes, or gives the answer of the same request before it, whose rest the caller
/// then leaves undone. Without a key there is nothing to claim.
///
/// # Errors
/// Another request had the same key, or the storage.
pub async fn before(
    tx: &mut Tx,
    request: Option<&Request<'_>>,
    resource_id: &str,
    now: Timestamp,
) -> Result<Option<Created>, Claimed> {
    let Some(request) = request else { return Ok(None) };
    if is_first(tx, request, resource_id, now).await? {
        return Ok(None);
    }
    // Pruned in this moment: the caller may simply send it again.
    let earlier = store::find(tx.conn(), request, now.saturating_sub(KEPT)).await?.ok_or(Claimed::Mismatch)?;
    if earlier.fingerprint != request.fingerprint {
        return Err(Claimed::Mismatch);
    }
    match earlier.body {
        Some(Json(created)) => Ok(Some(created)),
        None => Err(Claimed::Replay { resource_id: earlier.resource_id }),
    }
}

/// Keeps the answer of a request that claimed a key, for those that come again.
///
/// # Errors
/// The storage.
pub async fn keep(tx: &mut Tx, request: Option<&Request<'_>>, created: &Created) -> Result<(), DbError> {
    let Some(request) = request else { return Ok(()) };
    store::keep(tx, request, created).await
}

/// Claims a key for what this transaction makes.
///
/// # Errors
/// The key was used within [`KEPT`], or the storage.
pub async fn claim(tx: &mut Tx, request: &Request<'_>, resource_id: &str, now: Timestamp) -> Result<(), Claimed> {
    if is_first(tx, request, resource_id, now).await? {
        return Ok(());
    }
    // Pruned in this moment: the caller may simply send it again.
    let Some(earlier) = store::find(tx.conn(), request, now.saturating_sub(KEPT)).await? else {
        return Err(Claimed::Mismatch);
    };
    if earlier.fingerprint == request.fingerprint {
        Err(Claimed::Replay { resource_id: earlier.resource_id })
    } else {
        Err(Claimed::Mismatch)
    }
}

/// Claims a key whose fingerprint can't be compared byte by byte; waits for another transaction that is just claiming it.
///
/// # Errors
/// The storage.
pub async fn is_first(tx: &mut Tx, request: &Request<'_>, resource_id: &str, now: Timestamp) -> Result<bool, DbError> {
    Ok(store::insert(tx, request, resource_id, now).await?
        || store::replace(tx, request, resource_id, now, now.saturating_sub(KEPT)).await?)
}
