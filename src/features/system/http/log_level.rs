//! `GET` and `PUT /v1/system/log-level`.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::auth::Instance;
use crate::features::auth::permission::{SystemRead, SystemUpdate};
use crate::features::system;
use crate::infra::telemetry::level::{Filter, Standing};
use crate::web::extract::Json;
use crate::web::problem::Problem;

/// The longest time after which the setting holds again: a day.
const LONGEST: u64 = 86_400;

/// The short forms of durations from one second to a day.
const SHORT_FORM: &str = "^(([1-9][0-9]{0,3}|[1-7][0-9]{4}|8[0-5][0-9]{3}|86[0-3][0-9]{2}|86400)s\
    |([1-9][0-9]{0,2}|1[0-3][0-9]{2}|14[0-3][0-9]|1440)m|([1-9]|1[0-9]|2[0-4])h|1d)$";

/// What shall be logged.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"level": "info,keyward::features=debug", "expires_in": "15m"}))]
pub(super) struct PutLogLevel {
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`, or levels by the origin of a line. What libraries say stays at
    /// `info`, whatever is asked for: below it they print what passes through them.
    #[schema(
        min_length = 3,
        max_length = 1024,
        pattern = "^([A-Za-z_][A-Za-z0-9_]*(::[A-Za-z_][A-Za-z0-9_]*)*=)?(off|error|warn|info|debug|trace)(,([A-Za-z_][A-Za-z0-9_]*(::[A-Za-z_][A-Za-z0-9_]*)*=)?(off|error|warn|info|debug|trace))*$",
        example = "info,keyward::features=debug"
    )]
    level: String,
    /// After which time the setting holds again, a day at most; until the process ends where it is left out.
    #[serde(default)]
    #[schema(schema_with = expires_in)]
    expires_in: Option<Seconds>,
}

fn expires_in() -> Schema {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(LONGEST));
    let short = ObjectBuilder::new().schema_type(Type::String).pattern(Some(SHORT_FORM));
    let none = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null));
    OneOfBuilder::new()
        .item(seconds)
        .item(short)
        .item(none)
        .description(Some(
            "After which time the setting holds again: whole seconds, or a short form such as `30s`, `15m` or `2h`; a day at \
             most. Until the process ends where it is left out.",
        ))
        .examples([serde_json::json!("15m")])
        .build()
        .into()
}

/// What this process logs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "level": "info,keyward::features=debug", "configured": "info", "expires_at": "2026-11-20T12:15:00Z",
    "instance": "01K5ZV8QXW3M7C2R9T4B6D8F0G"
}))]
pub(super) struct LogLevel {
    /// What holds now.
    #[schema(example = "info,keyward::features=debug")]
    level: String,
    /// What the settings say (`KEYWARD_LOG`).
    #[schema(example = "info")]
    configured: String,
    /// When the settings hold again; `null` where they do already, or not before the process ends.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    expires_at: Option<Timestamp>,
    /// The process that answers, and that alone is meant: each has its own level. Logs that are exported name it as
    /// `service.instance.id`.
    #[schema(example = "01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    instance: String,
}

impl LogLevel {
    fn new(ctx: &Ctx, standing: Standing) -> Self {
        let Standing { level, configured, until } = standing;
        Self { level, configured, expires_at: until, instance: ctx.origin.clone() }
    }
}

/// What is logged
///
/// By the process that answers. Each process of a service has its own level; `instance` says which one this is.
#[utoipa::path(
    get, path = "/v1/system/log-level", operation_id = "getLogLevel", tag = "system",
    responses(
        (status = 200, description = "What this process logs", body = LogLevel),
        (status = 403, description = "The caller may not see how the service is set"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(State(ctx): State<Ctx>, _: Instance<SystemRead>) -> axum::Json<LogLevel> {
    axum::Json(LogLevel::new(&ctx, ctx.log_level.standing(ctx.now())))
}

/// Change what is logged
///
/// From now on, by the process that answers and no other, until `expires_in` is over or the process ends. Lines of requests
/// follow, too: `off` and `warn` leave them out.
#[utoipa::path(
    put, path = "/v1/system/log-level", operation_id = "putLogLevel", tag = "system",
    request_body(content = PutLogLevel, description = "What shall be logged, and for how long"),
    responses(
        (status = 200, description = "What this process logs now", body = LogLevel),
        (status = 403, description = "The caller may not change how the service runs"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn put(
    State(ctx): State<Ctx>,
    Instance { by, .. }: Instance<SystemUpdate>,
    Json(body): Json<PutLogLevel>,
) -> Result<axum::Json<LogLevel>, Problem> {
    let filter: Filter =
        body.level.parse().map_err(|error| Invalid::field("level", "invalid_level", format!("{error}")))?;
    if body.expires_in.is_some_and(|lasts| !(1..=LONGEST).contains(&lasts.get())) {
        return Err(Invalid::field("expires_in", "out_of_range", "expected 1 second to 1 day").into());
    }
    let standing = system::set_log_level(&ctx, &by, filter, body.expires_in).await?;
    Ok(axum::Json(LogLevel::new(&ctx, standing)))
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema as _;

    use super::*;
    use crate::infra::telemetry::level::{FILTER, MAX_FILTER};

    #[test]
    fn the_document_says_what_is_read() {
        let schema = serde_json::to_value(PutLogLevel::schema()).unwrap();
        let level = &schema["properties"]["level"];
        assert_eq!((level["pattern"].as_str(), level["maxLength"].as_u64()), (Some(FILTER), Some(MAX_FILTER as u64)));
    }
}
