//! `GET /v1/projects/{project}/members` and `…/members/{user}`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::base::id::{ProjectId, UserId};
use crate::ctx::Ctx;
use crate::features::audit;
use crate::features::auth::InProject;
use crate::features::auth::permission::MembersRead;
use crate::features::members::{self, Member, store};
use crate::web::extract::{PageQuery, Query, Second};
use crate::web::problem::Problem;

use super::no_member;

/// A page of members, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct MemberPage {
    /// The members.
    data: Vec<Member>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MemberQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}usr_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
}

/// List a project's members
#[utoipa::path(
    get, path = "/v1/projects/{project}/members", operation_id = "listMembers", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project"), MemberQuery),
    responses(
        (status = 200, description = "A page of members, newest first", body = MemberPage),
        (status = 403, description = "The caller may not see members here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<MembersRead>,
    Query(query): Query<MemberQuery>,
) -> Result<Json<MemberPage>, Problem> {
    let PageQuery { limit, after } = PageQuery::read(query.limit, query.cursor.as_deref())?;
    let page = members::list(&ctx, project, after, limit).await?;
    let count = json!({ "count": page.data.len() });
    audit::append_reading(&ctx, &by, "members.list", Some(project), Some(count)).await?;
    Ok(Json(MemberPage { data: page.data, next_cursor: page.next_cursor }))
}

/// Get a member
#[utoipa::path(
    get, path = "/v1/projects/{project}/members/{user}", operation_id = "getMember", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project"), ("user" = UserId, Path, description = "Who")),
    responses(
        (status = 200, description = "The member", body = Member),
        (status = 403, description = "The caller may not see members here"),
        (status = 404, description = "`member_not_found`: there is no such member, or no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<MembersRead>,
    user: Result<Second<UserId>, Problem>,
) -> Result<Json<Member>, Problem> {
    let Second(user) = user.map_err(|_| no_member())?;
    store::find(ctx.db.reader().await?.conn(), project, user).await?.map(Json).ok_or_else(no_member)
}
