//! `PATCH /v1/keys/{id}`.

#![expect(clippy::option_option, reason = "a merge patch tells an absent field from null (RFC 7396)")]

use axum::extract::State;
use serde::Deserialize;

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::KeyId;
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::auth::OnKey;
use crate::features::auth::permission::KeysUpdate;
use crate::features::keys::change::{self, Patch, Target};
use crate::features::keys::{KeyView, Metadata, rules};
use crate::features::scopes::Scopes;
use crate::gate::restrict::{Methods, Networks, Paths, Schedule};
use crate::gate::{self, Limits};
use crate::web::extract::{Json, merge};
use crate::web::problem::Problem;

/// What shall be different: an absent field stays, `null` clears.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchKey {
    /// For people: 1 to 100 characters.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", example = "billing worker")]
    name: Option<Option<String>>,
    /// For people.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<String>, max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    description: Option<Option<String>>,
    /// Whom it is for, in the project's own words.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    owner: Option<Option<String>>,
    /// What it may do; `null` for nothing. Nobody adds what they don't hold.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<Scopes>, example = json!(["orders:read"]))]
    scopes: Option<Option<Scopes>>,
    /// Whatever the owner wants to keep with it; the whole of it is replaced.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Option<Metadata>>,
    /// How long it lasts from now on; `null` for ever, where the project allows that. With `expires_at`, whichever is first.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(schema_with = crate::web::openapi::duration)]
    expires_in: Option<Option<Seconds>>,
    /// Until when it lasts; `null` for ever, where the project allows that.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<String>, format = DateTime, example = "2099-12-31T23:59:59Z")]
    expires_at: Option<Option<Timestamp>>,
    /// Its own limits; `null` leaves them to its project. What a limit of the same name has counted stays counted.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<Limits>)]
    limits: Option<Option<Limits>>,
    /// Simultaneous operations; 0 is off, `null` leaves it to its project.
    #[serde(default, deserialize_with = "merge::whole::<_, 0, { gate::MAX_CONCURRENCY }>")]
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000)]
    concurrency: Option<Option<u32>>,
    /// Networks from which it may be used; an empty list means nobody, `null` leaves it to its project.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<Networks>)]
    ip_allow: Option<Option<Networks>>,
    /// When it may be used; an empty list means never, `null` leaves it to its project.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<Schedule>)]
    schedule: Option<Option<Schedule>>,
    /// Methods for which it may be used; an empty list means none, `null` leaves it to its project.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<Methods>)]
    method_allow: Option<Option<Methods>>,
    /// Paths for which it may be used; an empty list means none, `null` leaves it to its project.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<Paths>)]
    path_allow: Option<Option<Paths>>,
}

impl PatchKey {
    fn read(self, now: Timestamp) -> Result<Patch, Invalid> {
        if self.name == Some(None) {
            return Err(Invalid::field("name", "required", "can't be cleared"));
        }
        let expires_at = if self.expires_in.is_some() || self.expires_at.is_some() {
            Some(rules::expiry(self.expires_in.flatten(), self.expires_at.flatten(), now)?)
        } else {
            None
        };
        Ok(Patch {
            name: self.name.flatten(),
            description: self.description,
            owner: self.owner,
            scopes: self.scopes.map(Option::unwrap_or_default),
            metadata: self.metadata.map(Option::unwrap_or_default),
            expires_at,
            expires_in: self.expires_in.is_some(),
            limits: self.limits,
            concurrency: self.concurrency,
            ip_allow: self.ip_allow,
            schedule: self.schedule,
            method_allow: self.method_allow,
            path_allow: self.path_allow,
        })
    }
}

/// Change a key
#[utoipa::path(
    patch, path = "/v1/keys/{id}", operation_id = "updateKey", tag = "keys",
    params(("id" = KeyId, Path, description = "Which key")),
    request_body(content = PatchKey, description = "What shall be different"),
    responses(
        (status = 200, description = "The key as it is now", body = KeyView),
        (status = 400, description = "The request breaks a rule; `errors` says which field and why. `unknown_scope` where the project wants scopes of its catalogue alone"),
        (status = 403, description = "The caller may not change keys here, or `scope_not_held`, or `restriction_not_held`, or `own_key`: a key doesn't change itself"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
        (status = 409, description = "`key_revoked`: the key is revoked"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn patch(
    State(ctx): State<Ctx>,
    OnKey { caller, by, project, key, .. }: OnKey<KeysUpdate>,
    Json(body): Json<PatchKey>,
) -> Result<axum::Json<KeyView>, Problem> {
    let patch = body.read(ctx.now())?;
    Ok(axum::Json(change::patch(&ctx, Target { by: &by, project, key }, patch, Some(&caller)).await?))
}
