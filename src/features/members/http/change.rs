//! `POST /v1/projects/{project}/members`, `PATCH` and `DELETE …/members/{user}`.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::base::id::{ProjectId, UserId};
use crate::ctx::Ctx;
use crate::features::auth::permission::{MembersCreate, MembersDelete, MembersRead, MembersUpdate};
use crate::features::auth::{Caller, InProject, Role};
use crate::features::idempotency::{self, Created, IdempotencyKey};
use crate::features::members::{self, Member, Target};
use crate::features::users::rules::Username;
use crate::web::extract::{Json, Second};
use crate::web::problem::Problem;

use super::no_member;

/// Who shall take part, and how.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"username": "bob", "role": "member"}))]
pub(super) struct NewMember {
    /// Their name.
    #[schema(min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9._-]*$", example = "bob")]
    username: String,
    /// What they may do. Nobody gives a role that grants more than they hold themselves.
    role: Role,
}

/// What shall be different.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchMember {
    /// Another role.
    role: Role,
}

/// Add a member
///
/// They are a member at once, and may leave at any time.
#[utoipa::path(
    post, path = "/v1/projects/{project}/members", operation_id = "addMember", tag = "projects",
    params(
        ("project" = ProjectId, Path, description = "Which project"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours add one member", min_length = 1, max_length = 255),
    ),
    request_body(content = NewMember, description = "Who, and how"),
    responses(
        (status = 201, description = "Added", body = Member, headers(("Location" = String, description = "Where the member is found"))),
        (status = 403, description = "The caller may not add members here, or `role_not_held`, or `restriction_not_held`: a key that ends or is restricted gives no roles"),
        (status = 404, description = "`user_not_found`: nobody has the username, or there is no such project for this caller"),
        (status = 409, description = "`already_member`: they are a member already; or the project is a personal one"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn add(
    State(ctx): State<Ctx>,
    InProject { caller, by, project, .. }: InProject<MembersCreate>,
    IdempotencyKey(key): IdempotencyKey,
    Json(body): Json<NewMember>,
) -> Result<Created, Problem> {
    let username = Username::parse(&body.username)?;
    let id = caller.id();
    let request = key.as_deref().map(|key| idempotency::Request {
        caller: &id,
        operation: "member.add",
        key,
        fingerprint: idempotency::fingerprint(&(project, &body)),
    });
    let target = Target { caller: &caller, by: &by, project };
    Ok(members::add(&ctx, target, &username, body.role, request).await?)
}

/// Change a member's role
///
/// Where the new role grants less, keys that the member answers for are disabled if they hold permissions that it doesn't
/// grant, unless `departed_keys` in the project's config is `keep`.
#[utoipa::path(
    patch, path = "/v1/projects/{project}/members/{user}", operation_id = "updateMember", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project"), ("user" = UserId, Path, description = "Who")),
    request_body(content = PatchMember, description = "What shall be different"),
    responses(
        (status = 200, description = "The member as they are now", body = Member),
        (status = 403, description = "The caller may not change members here, or `role_not_held`, or `restriction_not_held`: a key that ends or is restricted gives no roles"),
        (status = 404, description = "`member_not_found`: there is no such member, or no such project for this caller"),
        (status = 409, description = "`last_owner`: the project would have no owner"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn patch(
    State(ctx): State<Ctx>,
    InProject { caller, by, project, .. }: InProject<MembersUpdate>,
    user: Result<Second<UserId>, Problem>,
    Json(body): Json<PatchMember>,
) -> Result<axum::Json<Member>, Problem> {
    let Second(user) = user.map_err(|_| no_member())?;
    let target = Target { caller: &caller, by: &by, project };
    Ok(axum::Json(members::set_role(&ctx, target, user, body.role).await?))
}

/// Remove a member, or leave
///
/// Everybody may leave; the last owner can't. What becomes of the keys that the member answers for is the project's choice:
/// `departed_keys` in its config.
#[utoipa::path(
    delete, path = "/v1/projects/{project}/members/{user}", operation_id = "removeMember", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project"), ("user" = UserId, Path, description = "Who")),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "The caller may not remove members here, or `role_not_held`"),
        (status = 404, description = "`member_not_found`: there is no such member, or no such project for this caller"),
        (status = 409, description = "`last_owner`: the project would have no owner"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn remove(
    State(ctx): State<Ctx>,
    held: InProject<MembersRead>,
    user: Result<Second<UserId>, Problem>,
) -> Result<StatusCode, Problem> {
    let user = user.map(|Second(user)| user).ok();
    let is_own = matches!((&held.caller, user), (Caller::Person(person), Some(user)) if person.user == user);
    if !is_own {
        held.also::<MembersDelete>(&ctx).await?;
    }
    let target = Target { caller: &held.caller, by: &held.by, project: held.project };
    members::remove(&ctx, target, user.ok_or_else(no_member)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
