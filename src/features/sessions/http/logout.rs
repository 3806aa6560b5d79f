//! `POST /logout` and `DELETE /v1/users/me/sessions/{id}`.

use axum::extract::State;
use axum::http::StatusCode;

use crate::base::id::SessionId;
use crate::ctx::Ctx;
use crate::features::auth::PersonCaller;
use crate::features::sessions::login;
use crate::web::extract::{Nothing, OptionalJson, Path};
use crate::web::problem::Problem;

/// Log out
///
/// The token is dead at once.
#[utoipa::path(
    post, path = "/logout", operation_id = "logout", tag = "people",
    responses(
        (status = 204, description = "Logged out"),
        (status = 403, description = "`person_required`: the caller is a key, not a person"),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn logout(
    State(ctx): State<Ctx>,
    PersonCaller { person, by }: PersonCaller,
    _: OptionalJson<Nothing>,
) -> Result<StatusCode, Problem> {
    login::end(&ctx, &by, &person, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End a session
#[utoipa::path(
    delete, path = "/v1/users/me/sessions/{session}", operation_id = "endSession", tag = "people",
    params(("session" = SessionId, Path, description = "Which session")),
    responses(
        (status = 204, description = "Ended; its token is dead at once"),
        (status = 403, description = "`person_required`: the caller is a key, not a person"),
        (status = 404, description = "`session_not_found`: the caller has no such session"),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn end(
    State(ctx): State<Ctx>,
    PersonCaller { person, by }: PersonCaller,
    session: Result<Path<SessionId>, Problem>,
) -> Result<StatusCode, Problem> {
    let not_found = || Problem::not_found("session_not_found", "You have no such session.");
    let Path(session) = session.map_err(|_| not_found())?;
    if login::end(&ctx, &by, &person, Some(session)).await? { Ok(StatusCode::NO_CONTENT) } else { Err(not_found()) }
}
