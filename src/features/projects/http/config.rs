//! `GET` and `PATCH /v1/projects/{project}/config`.

#![expect(clippy::option_option, reason = "a merge patch tells an absent field from null (RFC 7396)")]

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};

use crate::base::duration::Seconds;
use crate::base::id::ProjectId;
use crate::base::invalid::{Check, Invalid};
use crate::ctx::Ctx;
use crate::features::auth::InProject;
use crate::features::auth::permission::{ProjectsRead, ProjectsUpdate};
use crate::features::projects::policy::{DepartedKeys, Policy};
use crate::features::projects::{config, store};
use crate::gate::restrict::{Methods, Networks, Paths, Schedule};
use crate::gate::{self, Limits, Settings, replace};
use crate::infra::config::is_origin;
use crate::web::extract::{Json as Body, merge};
use crate::web::problem::Problem;

/// The most origins that a project names.
const MAX_ORIGINS: usize = 100;

/// What a project sets for its keys; `null` leaves it to the server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "limits": [{"name": "minute", "limit": 60, "window": "1m"}], "concurrency": 5, "ip_allow": ["192.0.2.0/24"],
    "schedule": null, "method_allow": null, "path_allow": null, "strict_scopes": true, "departed_keys": "disable",
    "default_key_expiry": "90d", "max_key_expiry": "365d", "max_keys": null, "max_keys_per_person": 10,
    "cors_origins": null, "webhook_timeout_seconds": null, "webhook_max_attempts": null, "request_log_sample": null
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
    /// Whether keys may hold only scopes of the catalogue, and wildcards over them.
    strict_scopes: Option<bool>,
    /// What becomes of the keys that somebody answers for when they leave or are disabled; `disable` where it isn't set.
    departed_keys: Option<DepartedKeys>,
    /// How long a new key lasts that says nothing of it.
    #[schema(schema_with = crate::web::openapi::duration)]
    default_key_expiry: Option<Seconds>,
    /// The longest that a key may last.
    #[schema(schema_with = crate::web::openapi::duration)]
    max_key_expiry: Option<Seconds>,
    /// The most keys that aren't revoked.
    max_keys: Option<u32>,
    /// The most of them that one person answers for.
    max_keys_per_person: Option<u32>,
    /// Pages that may call the service from a browser.
    cors_origins: Option<Vec<String>>,
    /// How long a webhook may take to answer.
    webhook_timeout_seconds: Option<u32>,
    /// How often a delivery is tried.
    webhook_max_attempts: Option<u32>,
    /// Which part of admitted requests the request log keeps: 0 to 1.
    request_log_sample: Option<f64>,
}

impl From<(Settings, Policy)> for ProjectConfig {
    fn from((settings, policy): (Settings, Policy)) -> Self {
        let Settings { limits, concurrency, ip_allow, schedule, method_allow, path_allow } = settings;
        Self {
            limits,
            concurrency,
            ip_allow,
            schedule,
            method_allow,
            path_allow,
            strict_scopes: policy.strict_scopes,
            departed_keys: policy.departed_keys,
            default_key_expiry: policy.default_key_expiry,
            max_key_expiry: policy.max_key_expiry,
            max_keys: policy.max_keys,
            max_keys_per_person: policy.max_keys_per_person,
            cors_origins: policy.cors_origins,
            webhook_timeout_seconds: policy.webhook_timeout_seconds,
            webhook_max_attempts: policy.webhook_max_attempts,
            request_log_sample: policy.request_log_sample,
        }
    }
}

/// What shall be different: an absent field stays, `null` clears.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchConfig {
    /// Limits of each key.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<Limits>)]
    limits: Option<Option<Limits>>,
    /// Simultaneous operations of each key; 0 is off.
    #[serde(default, deserialize_with = "merge::whole::<_, 0, { gate::MAX_CONCURRENCY }>")]
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000)]
    concurrency: Option<Option<u32>>,
    /// Networks from which keys may be used.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<Networks>)]
    ip_allow: Option<Option<Networks>>,
    /// When keys may be used.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<Schedule>)]
    schedule: Option<Option<Schedule>>,
    /// Methods for which keys may be used.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<Methods>)]
    method_allow: Option<Option<Methods>>,
    /// Paths for which keys may be used.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<Paths>)]
    path_allow: Option<Option<Paths>>,
    /// Whether keys may hold only scopes of the catalogue, and wildcards over them.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<bool>)]
    strict_scopes: Option<Option<bool>>,
    /// What becomes of the keys that somebody answers for when they leave or are disabled.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<DepartedKeys>)]
    departed_keys: Option<Option<DepartedKeys>>,
    /// How long a new key lasts that says nothing of it.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(schema_with = crate::web::openapi::duration)]
    default_key_expiry: Option<Option<Seconds>>,
    /// The longest that a key may last.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(schema_with = crate::web::openapi::duration)]
    max_key_expiry: Option<Option<Seconds>>,
    /// The most keys that aren't revoked.
    #[serde(default, deserialize_with = "merge::whole::<_, 1, 1_000_000_000>")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    max_keys: Option<Option<u32>>,
    /// The most of them that one person answers for.
    #[serde(default, deserialize_with = "merge::whole::<_, 1, 1_000_000_000>")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    max_keys_per_person: Option<Option<u32>>,
    /// Pages that may call the service from a browser, such as `https://shop.example`.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(schema_with = origins)]
    cors_origins: Option<Option<Vec<String>>>,
    /// How long a webhook may take to answer.
    #[serde(default, deserialize_with = "merge::whole::<_, 1, 60>")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 60)]
    webhook_timeout_seconds: Option<Option<u32>>,
    /// How often a delivery is tried.
    #[serde(default, deserialize_with = "merge::whole::<_, 1, 20>")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 20)]
    webhook_max_attempts: Option<Option<u32>>,
    /// Which part of admitted requests the request log keeps: 0 to 1. What was refused or failed is always kept.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 1)]
    request_log_sample: Option<Option<f64>>,
}

/// Origins, or `null`.
fn origins() -> Schema {
    let origin = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^https?://[a-z0-9.-]+(:[0-9]+)?$"));
    ArrayBuilder::new()
        .items(origin)
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .max_items(Some(MAX_ORIGINS))
        .description(Some("Pages that may call the service from a browser."))
        .examples([serde_json::json!(["https://shop.example"])])
        .into()
}

impl PatchConfig {
    /// What its form alone doesn't say.
    fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        for (field, span) in [("default_key_expiry", self.default_key_expiry), ("max_key_expiry", self.max_key_expiry)]
        {
            if span.flatten().is_some_and(|span| span.get() == 0) {
                check.refuse(field, "invalid_value", "must be at least one second");
            }
        }
        if self.request_log_sample.flatten().is_some_and(|part| !(0.0..=1.0).contains(&part)) {
            check.refuse("request_log_sample", "invalid_value", "must be 0 to 1");
        }
        if let Some(origins) = self.cors_origins.as_ref().and_then(Option::as_ref) {
            if origins.len() > MAX_ORIGINS {
                check.refuse("cors_origins", "too_many", "must be at most 100 origins");
            }
            if !origins.iter().all(|origin| is_origin(origin)) {
                check.refuse("cors_origins", "invalid_value", "must be origins such as https://shop.example");
            }
        }
        check.finish()
    }
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
    body.check()?;
    let changed = config::change(&ctx, &by, project, |set, policy| {
        replace(&mut set.limits, body.limits);
        replace(&mut set.concurrency, body.concurrency);
        replace(&mut set.ip_allow, body.ip_allow);
        replace(&mut set.schedule, body.schedule);
        replace(&mut set.method_allow, body.method_allow);
        replace(&mut set.path_allow, body.path_allow);
        replace(&mut policy.strict_scopes, body.strict_scopes);
        replace(&mut policy.departed_keys, body.departed_keys);
        replace(&mut policy.default_key_expiry, body.default_key_expiry);
        replace(&mut policy.max_key_expiry, body.max_key_expiry);
        replace(&mut policy.max_keys, body.max_keys);
        replace(&mut policy.max_keys_per_person, body.max_keys_per_person);
        replace(&mut policy.cors_origins, body.cors_origins);
        replace(&mut policy.webhook_timeout_seconds, body.webhook_timeout_seconds);
        replace(&mut policy.webhook_max_attempts, body.webhook_max_attempts);
        replace(&mut policy.request_log_sample, body.request_log_sample);
    });
    changed.await?.map(|set| Json(set.into())).ok_or_else(not_found)
}
