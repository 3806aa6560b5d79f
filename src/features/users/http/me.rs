//! `GET /v1/users/me`.

use axum::extract::State;
use serde::Serialize;

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::auth::PersonCaller;
use crate::features::projects;
use crate::features::users::{User, store};
use crate::web::problem::Problem;

/// The caller.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Me {
    #[serde(flatten)]
    user: User,
    /// Whether they may act in every project.
    is_admin: bool,
    /// The project that the simple API works in.
    #[schema(nullable = false, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    personal_project_id: Option<ProjectId>,
}

/// Who am I?
#[utoipa::path(
    get, path = "/v1/users/me", operation_id = "getMe", tag = "people",
    responses(
        (status = 200, description = "The caller", body = Me),
        (status = 403, description = "`person_required`: the caller is a key, not a person"),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn me(
    State(ctx): State<Ctx>,
    PersonCaller { person, .. }: PersonCaller,
) -> Result<axum::Json<Me>, Problem> {
    let mut reader = ctx.db.reader().await?;
    let user = store::by_id(reader.conn(), person.user)
        .await?
        .ok_or_else(|| Problem::unauthorized("invalid_credentials", "The person is gone."))?;
    let personal_project_id = projects::store::personal(reader.conn(), person.user).await?;
    Ok(axum::Json(Me { user, is_admin: person.is_admin, personal_project_id }))
}
