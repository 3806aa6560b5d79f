//! Alert rules over HTTP.

mod bodies;
mod change;
mod history;
mod list;
mod test;

use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::id::AlertId;
use crate::ctx::Ctx;
use crate::web::extract::Second;
use crate::web::problem::Problem;
use crate::web::rate::RateLimited;

use super::AlertError;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(list::list, change::create))
        .routes(routes!(history::history))
        .routes(routes!(list::get, change::patch, change::delete))
        .routes(routes!(test::test))
}

fn no_alert() -> Problem {
    Problem::not_found("alert_not_found", "There is no such alert rule.")
}

/// The id in a path; one that can't be an id names nothing.
fn named(id: Result<Second<AlertId>, Problem>) -> Result<AlertId, Problem> {
    id.map(|Second(id)| id).map_err(|_| no_alert())
}

impl From<AlertError> for Problem {
    fn from(error: AlertError) -> Self {
        let conflict = |code, detail: &'static str| Self::new(StatusCode::CONFLICT, code, detail);
        match error {
            AlertError::NoProject => Self::not_found("project_not_found", "There is no such project."),
            AlertError::NotFound => no_alert(),
            AlertError::Exists => conflict("alert_exists", "The project has an alert rule of this name."),
            AlertError::TooMany => conflict("too_many_alerts", "A project has at most 200 alert rules."),
            AlertError::TooSoon(seconds) => Self::rate_limited(&RateLimited {
                name: "alert_tests".into(),
                limit: 1,
                window_seconds: 10,
                remaining: 0,
                reset_seconds: seconds,
            }),
            AlertError::Invalid(invalid) => invalid.into(),
            AlertError::Claimed(claimed) => claimed.into(),
            AlertError::Storage(error) => error.into(),
        }
    }
}
