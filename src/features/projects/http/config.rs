//! `GET` and `PATCH /v1/projects/{project}/config`.

#![expect(clippy::option_option, reason = "a merge patch tells an absent field from null (RFC 7396)")]

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Deserializer, Serialize};

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::auth::InProject;
use crate::features::auth::permission::{ProjectsRead, ProjectsUpdate};
use crate::features::keys::create::concurrency;
use crate::features::projects::{config, store};
use crate::gate::restrict::{Methods, Networks, Paths, Schedule};
use crate::gate::{Limits, Settings, replace};
use crate::web::extract::Json as Body;
use crate::web::problem::Problem;

/// What a project sets for its keys; `null` leaves it to the server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "limits": [{"name": "minute", "limit": 60, "window": "1m"}], "concurrency": 5, "ip_allow": ["192.0.2.0/24"],
    "schedule": null, "method_allow": null, "path_allow": null
}))]
pub(super) struct ProjectConfig {
    /// Limits of each key; one of a key's own of the same name replaces it.
    limits: Option<Limits>,
    /// Simultaneous operations of each key; 0 is off.
    concurrency: Option<u32>,
    /// Networks from which keys may be used. An empty list means nobody.
    ip_allow: Option<Networks>,
    /// When keys may be used. An empty list means never.
    schedule: Option<Schedule>,
    /// Methods for which keys may be used. An empty list means none.
    method_allow: Option<Methods>,
    /// Paths for which keys may be used. An empty list means none.
    path_allow: Option<Paths>,
}

impl From<Settings> for ProjectConfig {
    fn from(settings: Settings) -> Self {
        let Settings { limits, concurrency, ip_allow, schedule, method_allow, path_allow } = settings;
        Self { limits, concurrency, ip_allow, schedule, method_allow, path_allow }
    }
}

/// What shall be different: an absent field stays, `null` clears.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchConfig {
    /// Limits of each key.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Limits>)]
    limits: Option<Option<Limits>>,
    /// Simultaneous operations of each key; 0 is off.
    #[serde(default, deserialize_with = "present_cap")]
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000)]
    concurrency: Option<Option<u32>>,
    /// Networks from which keys may be used.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Networks>)]
    ip_allow: Option<Option<Networks>>,
    /// When keys may be used.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Schedule>)]
    schedule: Option<Option<Schedule>>,
    /// Methods for which keys may be used.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Methods>)]
    method_allow: Option<Option<Methods>>,
    /// Paths for which keys may be used.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Paths>)]
    path_allow: Option<Option<Paths>>,
}

/// Tells `null` from an absent field.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn present_cap<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u32>>, D::Error> {
    concurrency(deserializer).map(Some)
}

fn not_found() -> Problem {
    Problem::not_found("project_not_found", "There is no such project.")
}

/// What a project sets for its keys
#[utoipa::path(
    get, path = "/v1/projects/{project}/config", operation_id = "getProjectConfig", tag = "limits",
    params(("project" = ProjectId, Path, description = "Which project")),
    responses(
        (status = 200, description = "What it sets", body = ProjectConfig),
        (status = 403, description = "The caller may not see the project's settings"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<ProjectsRead>,
) -> Result<Json<ProjectConfig>, Problem> {
    let settings = store::settings(ctx.db.reader().await?.conn(), project).await?.ok_or_else(not_found)?;
    Ok(Json(settings.into()))
}

/// Change what a project sets for its keys
///
/// It holds from the next request on. What a limit of the same name has counted stays counted.
#[utoipa::path(
    patch, path = "/v1/projects/{project}/config", operation_id = "updateProjectConfig", tag = "limits",
    params(("project" = ProjectId, Path, description = "Which project")),
    request_body(content = PatchConfig, description = "What shall be different"),
    responses(
        (status = 200, description = "What it sets now", body = ProjectConfig),
        (status = 403, description = "The caller may not change the project's settings"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn patch(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<ProjectsUpdate>,
    Body(body): Body<PatchConfig>,
) -> Result<Json<ProjectConfig>, Problem> {
    let changed = config::change(&ctx, &by, project, |set| {
        replace(&mut set.limits, body.limits);
        replace(&mut set.concurrency, body.concurrency);
        replace(&mut set.ip_allow, body.ip_allow);
        replace(&mut set.schedule, body.schedule);
        replace(&mut set.method_allow, body.method_allow);
        replace(&mut set.path_allow, body.path_allow);
    });
    changed.await?.map(|settings| Json(settings.into())).ok_or_else(not_found)
}
