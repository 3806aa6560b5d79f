//! Webhooks and deliveries over HTTP.

mod bodies;
mod deliveries;
mod list;
mod send;
mod webhook;

use std::str::FromStr;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::id::WebhookId;
use crate::ctx::Ctx;
use crate::infra::vault::VaultError;
use crate::web::extract::Second;
use crate::web::problem::Problem;

use super::WebhookError;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(list::list, list::create))
        .routes(routes!(webhook::get, webhook::patch, webhook::delete))
        .routes(routes!(webhook::rotate))
        .routes(routes!(send::test))
        .routes(routes!(send::replay))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::get))
        .routes(routes!(deliveries::retry))
}

fn no_webhook() -> Problem {
    Problem::not_found("webhook_not_found", "There is no such webhook.")
}

fn no_delivery() -> Problem {
    Problem::not_found("delivery_not_found", "There is no such delivery.")
}

/// The webhook that a path names; what can't be an id names nothing.
fn named(id: Result<Second<WebhookId>, Problem>) -> Result<WebhookId, Problem> {
    id.map(|Second(id)| id).map_err(|_| no_webhook())
}

/// The id at the beginning of a path.
fn first<T: FromStr>(id: Result<crate::web::extract::Path<T>, Problem>, none: fn() -> Problem) -> Result<T, Problem> {
    id.map(|crate::web::extract::Path(id)| id).map_err(|_| none())
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        let conflict = |code, detail: &'static str| Self::new(StatusCode::CONFLICT, code, detail);
        match error {
            WebhookError::NoProject => Self::not_found("project_not_found", "There is no such project."),
            WebhookError::NotFound => no_webhook(),
            WebhookError::NoDelivery => no_delivery(),
            WebhookError::TooMany => conflict("too_many_webhooks", "A project has at most 200 webhooks."),
            WebhookError::EventGone => {
                conflict("event_gone", "The event is no longer kept, so it can't be sent again.")
            }
            WebhookError::Inactive => conflict(
                "webhook_disabled",
                "The webhook is switched off: switch it on with PATCH and is_active: true.",
            ),
            WebhookError::TooOften(seconds) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Rate limit exceeded. Try again later.")
                    .with_header(RETRY_AFTER, HeaderValue::from(seconds))
            }
            WebhookError::Vault(VaultError::NoKey) => conflict(
                "secrets_key_missing",
                "The service has no key to encrypt webhooks' secrets with: its operator must set KEYWARD_SECRETS_KEY.",
            ),
            WebhookError::Vault(VaultError::OtherKey(_) | VaultError::Broken) => conflict(
                "secret_unreadable",
                "The webhook's secret can't be read: it is encrypted under a key that the service doesn't have.",
            ),
            WebhookError::Invalid(invalid) => invalid.into(),
            WebhookError::Claimed(claimed) => claimed.into(),
            WebhookError::Storage(error) => error.into(),
        }
    }
}
