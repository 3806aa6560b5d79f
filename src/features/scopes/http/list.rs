//! `GET` and `POST /v1/projects/{project}/scopes`.

use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::base::id::{ProjectId, ScopeId};
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::auth::InProject;
use crate::features::auth::permission::{ScopesCreate, ScopesRead, ScopesUpdate};
use crate::features::idempotency::{self, Created, IdempotencyKey};
use crate::features::scopes::rules::NewScope;
use crate::features::scopes::store::Filter;
use crate::features::scopes::{CatalogueScope, Scope, manage};
use crate::web::extract::{Json, PageQuery, Query};
use crate::web::problem::Problem;

/// Which scopes, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ScopeQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}scp_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
    /// Scopes of this category.
    category: Option<String>,
    /// Only those that grant something, or only the others.
    is_active: Option<bool>,
    /// Scopes whose name or description holds this, without regard to case.
    #[param(max_length = 100)]
    q: Option<String>,
    /// Scopes that this one covers, such as `orders:*`.
    under: Option<Scope>,
}

impl ScopeQuery {
    fn read(self) -> Result<(Filter, PageQuery<ScopeId>), Invalid> {
        let page = PageQuery::read(self.limit, self.cursor.as_deref())?;
        if self.q.as_ref().is_some_and(|q| q.chars().count() > 100) {
            return Err(Invalid::field("q", "too_long", "must be at most 100 characters"));
        }
        Ok((Filter { category: self.category, is_active: self.is_active, q: self.q, under: self.under }, page))
    }
}

/// A page of a catalogue, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ScopePage {
    /// The scopes.
    data: Vec<CatalogueScope>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// List a project's catalogue of scopes
#[utoipa::path(
    get, path = "/v1/projects/{project}/scopes", operation_id = "listScopes", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project"), ScopeQuery),
    responses(
        (status = 200, description = "A page of scopes, newest first", body = ScopePage),
        (status = 403, description = "The caller may not see the catalogue"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<ScopesRead>,
    Query(query): Query<ScopeQuery>,
) -> Result<axum::Json<ScopePage>, Problem> {
    let (filter, PageQuery { limit, after }) = query.read()?;
    let page = manage::list(&ctx, project, &filter, after, limit).await?;
    Ok(axum::Json(ScopePage { data: page.data, next_cursor: page.next_cursor }))
}

/// Add a scope to the catalogue
///
/// One that is inactive takes from keys what they hold of this name, and needs `keyward:scopes:update`, too.
#[utoipa::path(
    post, path = "/v1/projects/{project}/scopes", operation_id = "createScope", tag = "projects",
    params(
        ("project" = ProjectId, Path, description = "Which project"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours add one scope", min_length = 1, max_length = 255),
    ),
    request_body(content = NewScope, description = "What it shall be"),
    responses(
        (status = 201, description = "Added", body = CatalogueScope,
         headers(("Location" = String, description = "Where the scope is found")),
         links(
            ("get" = (operation_id = "getScope", parameters(("project" = "$response.body#/project_id"), ("name" = "$response.body#/name")), description = "What was added")),
            ("update" = (operation_id = "updateScope", parameters(("project" = "$response.body#/project_id"), ("name" = "$response.body#/name")), description = "Change it")),
            ("delete" = (operation_id = "deleteScope", parameters(("project" = "$response.body#/project_id"), ("name" = "$response.body#/name")), description = "Remove it")),
         )),
        (status = 403, description = "The caller may not add scopes here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
        (status = 409, description = "`scope_exists`: the catalogue holds the name already; or `too_many_scopes`, `too_many_inactive_scopes`: it is full"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn create(
    State(ctx): State<Ctx>,
    held: InProject<ScopesCreate>,
    IdempotencyKey(key): IdempotencyKey,
    Json(body): Json<NewScope>,
) -> Result<Created, Problem> {
    if !body.is_active {
        held.also::<ScopesUpdate>(&ctx).await?;
    }
    let id = held.caller.id();
    let request = key.as_deref().map(|key| idempotency::Request {
        caller: &id,
        operation: "scope.create",
        key,
        fingerprint: idempotency::fingerprint(&(held.project, &body)),
    });
    Ok(manage::create(&ctx, &held.by, held.project, body, request).await?)
}
