//! `POST /v1/keys/{id}/leases`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use crate::base::id::KeyId;
use crate::ctx::Ctx;
use crate::features::auth::OnKey;
use crate::features::auth::permission::KeysVerify;
use crate::features::idempotency::{self, IdempotencyKey};
use crate::features::leases;
use crate::web::extract::Json;
use crate::web::problem::Problem;

use super::{LeaseRequest, LeaseView, to_the_end};

/// Take a lease
///
/// Holds one of the places that the key's `concurrency` allows, for work that is done elsewhere.
#[utoipa::path(
    post, path = "/v1/keys/{id}/leases", operation_id = "takeLease", tag = "limits",
    params(
        ("id" = KeyId, Path, description = "Which key"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours give one lease", min_length = 1, max_length = 255),
    ),
    request_body(content = LeaseRequest, description = "For how long"),
    responses(
        (status = 201, description = "A place is held", body = LeaseView,
         headers(("Location" = String, description = "Where the lease is ended")),
         links(
            ("renew" = (operation_id = "renewLease", parameters(("id" = "$response.body#/lease_id")), description = "Hold it longer")),
            ("release" = (operation_id = "releaseLease", parameters(("id" = "$response.body#/lease_id")), description = "Give it back")),
         )),
        (status = 403, description = "The caller may not verify keys here"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
        (status = 409, description = "`key_not_active`: the key is revoked, disabled or expired, or its project suspended"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
        (status = 429, description = "`concurrency_limited`: every place is taken; `Retry-After` says when the first lease ends"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn take(
    State(ctx): State<Ctx>,
    OnKey { caller, project, key, .. }: OnKey<KeysVerify>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    Json(body): Json<LeaseRequest>,
) -> Result<Response, Problem> {
    let ttl = body.ttl()?;
    let id = caller.id();
    let held = to_the_end(async move {
        let request = idempotency_key.as_deref().map(|client_key| idempotency::Request {
            caller: &id,
            operation: "lease.take",
            key: client_key,
            fingerprint: idempotency::fingerprint(&(key, &body)),
        });
        leases::take(&ctx, project, key, ttl, request).await
    })
    .await??;
    let location = [(header::LOCATION, format!("/v1/leases/{}", held.id))];
    Ok((StatusCode::CREATED, location, axum::Json(LeaseView::from(held))).into_response())
}
