//! `GET /list-keys` and `GET /v1/projects/{project}/keys`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::auth::permission::KeysRead;
use crate::features::auth::{AtHome, InProject};
use crate::features::keys::store::Filter;
use crate::features::keys::{KeyState, KeyView, list};
use crate::features::scopes::Scope;
use crate::web::extract::{PageQuery, Query};
use crate::web::problem::Problem;

/// Which keys, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}key_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
    /// Keys of this status.
    status: Option<KeyState>,
    /// Keys of this owner.
    owner: Option<String>,
    /// Keys that were given exactly this scope.
    scope: Option<Scope>,
    /// Keys whose name holds this, without regard to case.
    #[param(max_length = 100)]
    q: Option<String>,
    /// Keys that end before this.
    #[param(value_type = Option<String>, format = DateTime, example = "2027-01-01T00:00:00Z")]
    expires_before: Option<Timestamp>,
    /// Keys that haven't been used since; of those never used, the ones made before.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-01-01T00:00:00Z")]
    unused_since: Option<Timestamp>,
}

impl ListQuery {
    fn read(self) -> Result<(Filter, PageQuery<KeyId>), Invalid> {
        let page = PageQuery::read(self.limit, self.cursor.as_deref())?;
        if self.q.as_ref().is_some_and(|q| q.chars().count() > 100) {
            return Err(Invalid::field("q", "too_long", "must be at most 100 characters"));
        }
        let filter = Filter {
            status: self.status,
            owner: self.owner,
            scope: self.scope.map(|scope| scope.to_string()),
            q: self.q,
            expires_before: self.expires_before,
            unused_since: self.unused_since,
        };
        Ok((filter, page))
    }
}

/// A page of keys, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct KeyPage {
    /// The keys, never their secrets.
    data: Vec<KeyView>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// A page of keys, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ListKeysAnswer {
    /// The keys, never their secrets.
    keys: Vec<KeyView>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// List a project's keys
#[utoipa::path(
    get, path = "/v1/projects/{project}/keys", operation_id = "listProjectKeys", tag = "keys",
    params(("project" = ProjectId, Path, description = "Whose keys"), ListQuery),
    responses(
        (status = 200, description = "A page of keys, newest first", body = KeyPage),
        (status = 403, description = "The caller may not see keys here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<KeysRead>,
    Query(query): Query<ListQuery>,
) -> Result<Json<KeyPage>, Problem> {
    let (filter, page) = query.read()?;
    let page = list::list(&ctx, Some(project), &filter, page.after, page.limit).await?;
    Ok(Json(KeyPage { data: page.data, next_cursor: page.next_cursor }))
}

/// List my keys
///
/// The keys of the caller's own project.
#[utoipa::path(
    get, path = "/list-keys", operation_id = "listKeys", tag = "simple",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of keys, newest first", body = ListKeysAnswer),
        (status = 403, description = "The caller may not see keys"),
        (status = 404, description = "`project_not_found`: the caller has no project"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list_keys(
    State(ctx): State<Ctx>,
    AtHome { project, .. }: AtHome<KeysRead>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ListKeysAnswer>, Problem> {
    let (filter, page) = query.read()?;
    let page = list::list(&ctx, Some(project), &filter, page.after, page.limit).await?;
    Ok(Json(ListKeysAnswer { keys: page.data, next_cursor: page.next_cursor }))
}
