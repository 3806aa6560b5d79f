//! `GET` and `POST /v1/projects`.

use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::ctx::Ctx;
use crate::features::auth::permission::{Permission as _, ProjectsCreate, ProjectsRead};
use crate::features::auth::{Anybody, Caller, forbidden};
use crate::features::idempotency::{self, Created, IdempotencyKey};
use crate::features::projects::manage::{self, Making, NewProject, Whose};
use crate::features::projects::{ProjectView, Status};
use crate::web::extract::{Json, PageQuery, Query};
use crate::web::problem::Problem;

/// Which projects, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ProjectQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}prj_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
    /// Projects of this status; deleted ones only where they are asked for.
    status: Option<Status>,
}

/// A page of projects, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ProjectPage {
    /// The projects.
    data: Vec<ProjectView>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// List projects
///
/// A person's are those of which they are a member; a key's is its own; an administrator's are all.
#[utoipa::path(
    get, path = "/v1/projects", operation_id = "listProjects", tag = "projects",
    params(ProjectQuery),
    responses(
        (status = 200, description = "A page of projects, newest first", body = ProjectPage),
        (status = 403, description = "The key may not see its project"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    Anybody { caller, .. }: Anybody,
    Query(query): Query<ProjectQuery>,
) -> Result<axum::Json<ProjectPage>, Problem> {
    let whose = match &caller {
        Caller::Machine(machine) if !machine.covers(ProjectsRead::SCOPE) => return Err(forbidden()),
        caller if caller.holds_everywhere(ProjectsRead::SCOPE) => Whose::All,
        Caller::Machine(machine) => Whose::Only(machine.project()),
        Caller::Person(person) => Whose::Member(person.user),
    };
    let PageQuery { limit, after } = PageQuery::read(query.limit, query.cursor.as_deref())?;
    let page = manage::list(&ctx, whose, query.status, after, limit).await?;
    Ok(axum::Json(ProjectPage { data: page.data, next_cursor: page.next_cursor }))
}

/// Create a project
///
/// Whoever makes it is its owner. A key makes one only if it is the system project's; that has no owner yet.
#[utoipa::path(
    post, path = "/v1/projects", operation_id = "createProject", tag = "projects",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours make one project", min_length = 1, max_length = 255)),
    request_body(content = NewProject, description = "What it shall be"),
    responses(
        (status = 201, description = "Created", body = ProjectView,
         headers(("Location" = String, description = "Where the project is found")),
         links(
            ("get" = (operation_id = "getProject", parameters(("project" = "$response.body#/id")), description = "What was made")),
            ("delete" = (operation_id = "deleteProject", parameters(("project" = "$response.body#/id"), ("confirm" = "$response.body#/id")), description = "Remove it")),
            ("scopes" = (operation_id = "listScopes", parameters(("project" = "$response.body#/id")), description = "Its catalogue of scopes")),
            ("addScope" = (operation_id = "createScope", parameters(("project" = "$response.body#/id")), description = "Add to its catalogue")),
            ("importScopes" = (operation_id = "importScopes", parameters(("project" = "$response.body#/id")), description = "Fill its catalogue")),
            ("exportScopes" = (operation_id = "exportScopes", parameters(("project" = "$response.body#/id")), description = "Take its catalogue away")),
         )),
        (status = 403, description = "A key of a project makes no others; or `too_many_projects`"),
        (status = 409, description = "`prefix_taken`: another project's keys begin with this, or with its first part"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn create(
    State(ctx): State<Ctx>,
    Anybody { caller, by }: Anybody,
    IdempotencyKey(key): IdempotencyKey,
    Json(body): Json<NewProject>,
) -> Result<Created, Problem> {
    let owner = match &caller {
        Caller::Person(person) => Some(person.user),
        Caller::Machine(_) if caller.holds_everywhere(ProjectsCreate::SCOPE) => None,
        Caller::Machine(_) => return Err(forbidden()),
    };
    let id = caller.id();
    let request = key.as_deref().map(|key| idempotency::Request {
        caller: &id,
        operation: "project.create",
        key,
        fingerprint: idempotency::fingerprint(&body),
    });
    let making = Making { caller: Some(&caller), by: &by, owner, request };
    Ok(manage::create(&ctx, making, body).await?)
}
