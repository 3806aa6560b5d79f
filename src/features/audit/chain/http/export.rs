//! `GET /v1/audit:export`.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use crate::base::clock::Timestamp;
use crate::base::id::ProjectId;
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::audit::chain::export::{self, Span, Whose};
use crate::features::auth::permission::AuditExport;
use crate::features::auth::{Anywhere, Reach};
use crate::web::extract::Query;
use crate::web::problem::Problem;

/// Which entries.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportQuery {
    /// Not before this.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Before this.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Only what happened in this project.
    project: Option<ProjectId>,
}

/// Export the audit trail
///
/// One JSON object a line, in its canonical form (RFC 8785): a header, sealed entries, and a trailer. An answer without its
/// trailer isn't the whole: the connection is broken off then.
///
/// Administrators and keys of the system project get the chain, in its order, up to a signed place: `keyward audit verify
/// --file` verifies it without the database. With `since` or `until` they get a run of it that holds everything of that span,
/// and a little more around it. With `project`, and to everybody else, go the entries of projects alone: each entry's own hash
/// can be checked, the links between them can't.
#[utoipa::path(
    get, path = "/v1/audit:export", operation_id = "exportAudit", tag = "audit",
    params(ExportQuery),
    responses(
        (status = 200, description = "The entries", body = String, content_type = "application/x-ndjson",
         headers(("Content-Disposition" = String, description = "A name for the file"))),
        (status = 403, description = "The caller may not export any part of the trail"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn export(
    State(ctx): State<Ctx>,
    Anywhere { by, reach, .. }: Anywhere<AuditExport>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Problem> {
    let span = Span { since: query.since, until: query.until };
    if span.since.zip(span.until).is_some_and(|(since, until)| until < since) {
        return Err(Invalid::field("until", "invalid_value", "must not be before since").into());
    }
    let whose = match (query.project, reach) {
        (Some(project), reach) if reach.contains(project) => Whose::Projects(vec![project]),
        (Some(_), _) => return Err(Problem::not_found("project_not_found", "There is no such project.")),
        (None, Reach::Everywhere) => Whose::Everybodys,
        (None, Reach::Project(project)) => Whose::Projects(vec![project]),
        (None, Reach::Projects(projects)) => Whose::Projects(projects),
        (None, Reach::Nowhere) => Whose::Projects(Vec::new()),
    };
    export::begin(&ctx, &by, &whose, span).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"keyward.audit.ndjson\""),
    ];
    Ok((headers, Body::from_stream(export::lines(ctx, whose, span))).into_response())
}
