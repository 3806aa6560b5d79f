//! `GET /v1/audit` and `GET /v1/audit/{id}`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::{AuditId, ProjectId};
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::audit::Outcome;
use crate::features::audit::read::{self, Actions, AuditEntry, Filter, View};
use crate::features::auth::permission::AuditRead;
use crate::features::auth::{Anybody, Caller, Permission as _, forbidden};
use crate::web::extract::{PageQuery, Path, Query};
use crate::web::problem::Problem;

/// Which entries, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}aud_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
    /// By this person or key.
    #[param(pattern = "^(usr|key)_[0-7][0-9A-HJKMNP-TV-Z]{25}$", example = "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    actor: Option<String>,
    /// Of this action, or of those that begin so where a `*` stands at the end.
    #[param(pattern = r"^([a-z_.]{1,64}\*?|\*)$", max_length = 65, example = "key.*")]
    action: Option<String>,
    /// About this thing: its id, its kind, or both as `kind:id`.
    #[param(
        pattern = "^([a-z_]{1,24}|([a-z_]{1,24}:)?[a-z]{3}_[0-7][0-9A-HJKMNP-TV-Z]{25})$",
        max_length = 55,
        example = "key:key_01K5ZV8QXW3M7C2R9T4B6D8F0G"
    )]
    resource: Option<String>,
    /// In this project.
    project: Option<ProjectId>,
    /// Through this request.
    #[param(pattern = "^[!-~]{1,128}$", max_length = 128)]
    request_id: Option<String>,
    /// That ended so.
    outcome: Option<Outcome>,
    /// At this time or after it.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-20T00:00:00Z")]
    since: Option<Timestamp>,
    /// Before this time.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-21T00:00:00Z")]
    until: Option<Timestamp>,
}

impl AuditQuery {
    fn read(self) -> Result<(Filter, PageQuery<AuditId>), Invalid> {
        let page = PageQuery::read(self.limit, self.cursor.as_deref())?;
        let mut filter = Filter {
            actor: self.actor,
            action: self.action.as_deref().map(Actions::read),
            project: self.project,
            request: self.request_id,
            outcome: self.outcome,
            since: self.since,
            until: self.until,
            ..Filter::default()
        };
        if let Some(resource) = &self.resource {
            filter.set_resource(resource);
        }
        filter.check()?;
        Ok((filter, page))
    }
}

/// A page of entries, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct AuditPage {
    /// The entries.
    data: Vec<AuditEntry>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// What the caller sees of the trail: a key without the permission sees nothing of it.
fn view(caller: &Caller) -> Result<View, Problem> {
    let reach = caller.reach(AuditRead::SCOPE);
    match caller {
        Caller::Person(person) => Ok(View { reach, person: Some(person.user) }),
        Caller::Machine(_) if reach.is_empty() => Err(forbidden()),
        Caller::Machine(_) => Ok(View { reach, person: None }),
    }
}

/// Read the audit trail
///
/// The entries of the projects in which the caller may read them, newest first. People also see what they did themselves
/// outside of projects, and what happened to them, such as their log-ins; the rest of what belongs to no project only
/// administrators and keys of the system project see. Entries of refusals that a project was hidden from belong to none.
#[utoipa::path(
    get, path = "/v1/audit", operation_id = "listAudit", tag = "audit",
    params(AuditQuery),
    responses(
        (status = 200, description = "A page of entries, newest first", body = AuditPage),
        (status = 400, description = "The request breaks a rule; `errors` says which field and why. `too_wide`: the caller sees too many projects to look at all of them; name one"),
        (status = 403, description = "The key may not read the trail"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    Anybody { caller, .. }: Anybody,
    Query(query): Query<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    let view = view(&caller)?;
    let (filter, page) = query.read()?;
    let page = read::list(&ctx, &view, &filter, page.after, page.limit).await?;
    Ok(Json(AuditPage { data: page.data, next_cursor: page.next_cursor }))
}

/// Get an entry of the audit trail
#[utoipa::path(
    get, path = "/v1/audit/{id}", operation_id = "getAudit", tag = "audit",
    params(("id" = AuditId, Path, description = "Which entry")),
    responses(
        (status = 200, description = "The entry", body = AuditEntry),
        (status = 403, description = "The key may not read the trail"),
        (status = 404, description = "`entry_not_found`: there is no such entry for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    Anybody { caller, .. }: Anybody,
    id: Result<Path<AuditId>, Problem>,
) -> Result<Json<AuditEntry>, Problem> {
    let not_found = || Problem::not_found("entry_not_found", "There is no such entry.");
    let view = view(&caller)?;
    let Path(id) = id.map_err(|_| not_found())?;
    read::find(&ctx, &view, id).await?.map(Json).ok_or_else(not_found)
}
