//! `GET /v1/users` and `GET /v1/users/{id}`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::base::id::UserId;
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::audit;
use crate::features::auth::Instance;
use crate::features::auth::permission::UsersRead;
use crate::features::users::store::{self, Filter};
use crate::features::users::{Account, Status, manage};
use crate::web::extract::{PageQuery, Path, Query};
use crate::web::problem::Problem;

use super::no_user;

/// Which people, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UserQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}usr_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
    /// People whose name holds this, without regard to case.
    #[param(max_length = 100)]
    q: Option<String>,
    /// People who may log in, or may not.
    status: Option<Status>,
    /// Administrators, or the others.
    is_admin: Option<bool>,
}

/// A page of people, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct UserPage {
    /// The people.
    data: Vec<Account>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// List people
///
/// For administrators, and for keys of the system project.
#[utoipa::path(
    get, path = "/v1/users", operation_id = "listUsers", tag = "people",
    params(UserQuery),
    responses(
        (status = 200, description = "A page of people, newest first", body = UserPage),
        (status = 403, description = "The caller is no administrator, nor a key of the system project with the scope"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    Instance { by, .. }: Instance<UsersRead>,
    Query(query): Query<UserQuery>,
) -> Result<Json<UserPage>, Problem> {
    let PageQuery { limit, after } = PageQuery::read(query.limit, query.cursor.as_deref())?;
    if query.q.as_ref().is_some_and(|q| q.chars().count() > 100) {
        return Err(Invalid::field("q", "too_long", "must be at most 100 characters").into());
    }
    let is_active = query.status.map(|status| status == Status::Active);
    let filter = Filter { q: query.q, is_active, is_admin: query.is_admin };
    let page = manage::list(&ctx, &filter, after, limit).await?;
    audit::append_reading(&ctx, &by, "users.list", None, Some(json!({ "count": page.data.len() }))).await?;
    Ok(Json(UserPage { data: page.data, next_cursor: page.next_cursor }))
}

/// Get a person
#[utoipa::path(
    get, path = "/v1/users/{id}", operation_id = "getUser", tag = "people",
    params(("id" = UserId, Path, description = "Who")),
    responses(
        (status = 200, description = "The person", body = Account),
        (status = 403, description = "The caller is no administrator, nor a key of the system project with the scope"),
        (status = 404, description = "`user_not_found`: there is no such person"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    _: Instance<UsersRead>,
    id: Result<Path<UserId>, Problem>,
) -> Result<Json<Account>, Problem> {
    let Path(id) = id.map_err(|_| no_user())?;
    let found = store::find(ctx.db.reader().await?.conn(), id).await?;
    found.map(|user| Json(user.into())).ok_or_else(no_user)
}
