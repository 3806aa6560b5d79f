//! `GET /v1/projects/{project}/keys:export`.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::auth::InProject;
use crate::features::auth::permission::KeysExport;
use crate::features::keys::moving::export;
use crate::web::problem::Problem;

/// Export keys
///
/// Every key of the project with the SHA-256 of its secrets, one JSON object a line, oldest first, in the form that an import
/// reads. Never a secret. An answer that ends early isn't the whole: the connection is broken off then.
#[utoipa::path(
    get, path = "/v1/projects/{project}/keys:export", operation_id = "exportKeys", tag = "keys",
    params(("project" = ProjectId, Path, description = "Whose keys")),
    responses(
        (status = 200, description = "The keys", body = String, content_type = "application/x-ndjson",
         headers(("Content-Disposition" = String, description = "A name for the file"))),
        (status = 403, description = "The caller may not export keys here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn export(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<KeysExport>,
) -> Result<Response, Problem> {
    export::begin(&ctx, &by, project).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{project}.keys.ndjson\"")),
    ];
    Ok((headers, Body::from_stream(export::lines(ctx, by, project))).into_response())
}
