//! `POST /v1/projects/{project}/keys:import`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::auth::permission::KeysImport;
use crate::features::auth::{InProject, forbidden};
use crate::features::keys::moving::import::{self, ImportError, Importing};
use crate::features::keys::moving::line::MovedKey;
use crate::features::keys::moving::report::Report;
use crate::web::extract::{JsonLines, Query};
use crate::web::problem::Problem;

/// How keys are imported.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportQuery {
    /// Only look what would happen.
    #[serde(default)]
    #[param(required = false, default = false)]
    dry_run: bool,
    /// Take over what is right, although other lines aren't.
    #[serde(default)]
    #[param(required = false, default = false)]
    partial: bool,
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::NoProject => Self::not_found("project_not_found", "There is no such project."),
            ImportError::Forbidden | ImportError::Changed => forbidden(),
            ImportError::TooMany => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_lines", "The body has more than 100,000 lines.")
            }
            ImportError::Refused(report) => {
                Self::bad_request("invalid_request", ImportError::Refused(report.clone()).to_string())
                    .with_members(json!(report))
            }
            ImportError::Scopes(error) => error.into(),
            ImportError::Storage(error) => error.into(),
        }
    }
}

/// Import keys
///
/// Takes over keys that were issued elsewhere, by the SHA-256 of each, one JSON object a line: at most 16 MiB and 100,000
/// lines. They keep working as they are, whatever they look like, as long as they are 1 to 512 visible ASCII characters.
///
/// All or none: if a line is wrong, the answer is a `400` problem with the members of the report, and nothing has changed.
/// With `partial`, what is right is taken over, 5,000 lines at a time. A key whose hash the project has already is skipped
/// and left as it is, so the same call may be sent again; one that it had and deleted is skipped, too, and stays deleted. A
/// hash that somebody else has or had is an error of its line, `hash_taken`.
#[utoipa::path(
    post, path = "/v1/projects/{project}/keys:import", operation_id = "importKeys", tag = "keys",
    params(("project" = ProjectId, Path, description = "Whose keys they become"), ImportQuery),
    request_body(description = "The keys, one JSON object a line", content(
        (MovedKey = "application/json"),
        (String = "application/x-ndjson", example = "{\"hash\":\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\",\"name\":\"customer-42\"}\n"),
        (String = "application/jsonl", example = "{\"hash\":\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\",\"name\":\"customer-42\"}\n"),
    )),
    responses(
        (status = 200, description = "What came of it", body = Report),
        (status = 403, description = "The caller may not import keys here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
        (status = 413, description = "`body_too_large`: the body is larger than 16 MiB, or has more than 100,000 lines (`too_many_lines`)"),
        (status = 415, description = "`unsupported_media_type`: the body isn't declared as `application/x-ndjson`, `application/jsonl` or `application/json`"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn import(
    State(ctx): State<Ctx>,
    InProject { caller, by, project, .. }: InProject<KeysImport>,
    Query(query): Query<ImportQuery>,
    JsonLines(text): JsonLines,
) -> Result<Json<Report>, Problem> {
    let importing = Importing {
        by: &by,
        caller: Some(&caller),
        project,
        responsible: caller.responsible(),
        dry_run: query.dry_run,
        partial: query.partial,
        revive: false,
        first_line: 1,
        first_index: 0,
    };
    let report = import::import(&ctx, &importing, text).await?;
    import::settle(&ctx, &report).await;
    Ok(Json(report))
}
