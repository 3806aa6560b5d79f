//! `GET /v1/permissions`.

use axum::Json;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;

use super::permission::{IN_PROJECTS, INSTANCE, ROLES, Role};

/// What can be allowed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Permission, example = json!({
    "scope": "keyward:keys:read", "description": "See keys and their settings, never their secrets.", "level": "project",
    "roles": ["owner", "admin", "member", "viewer"]
}))]
struct PermissionView {
    /// The scope that a key holds for it.
    scope: &'static str,
    /// What it allows.
    description: &'static str,
    /// `project`: inside one; `instance`: in the whole service, for administrators and for keys of the system project.
    level: &'static str,
    /// The roles that grant it in a project.
    roles: Vec<Role>,
}

/// Everything that can be allowed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Permissions {
    /// One after another.
    data: Vec<PermissionView>,
}

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new().routes(routes!(permissions))
}

/// What can be allowed
///
/// Keyward's own scopes, what each allows, and which roles grant it. Nobody grants one that they don't hold.
#[utoipa::path(
    get, path = "/v1/permissions", operation_id = "listPermissions", tag = "projects",
    responses((status = 200, description = "All of them", body = Permissions)),
)]
async fn permissions() -> Json<Permissions> {
    let view = |level: &'static str| {
        move |(scope, description): &(&'static str, &'static str)| PermissionView {
            scope,
            description: description.trim(),
            level,
            roles: ROLES.into_iter().filter(|role| level == "project" && role.grants(scope)).collect(),
        }
    };
    let data = IN_PROJECTS.iter().map(view("project")).chain(INSTANCE.iter().map(view("instance"))).collect();
    Json(Permissions { data })
}
