//! `POST /login`.

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::base::secret::{Secret, ShownOnce};
use crate::ctx::Ctx;
use crate::features::sessions::login::{self, LoginError};
use crate::features::sessions::throttle;
use crate::web::extract::SecretJson;
use crate::web::problem::Problem;
use crate::web::rate;
use crate::web::request::RequestContext;

/// Who wants to log in.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginRequest {
    /// As registered; capitals don't matter.
    #[schema(example = "ada")]
    username: String,
    /// As registered.
    #[schema(value_type = String, format = Password, example = "correct horse battery staple")]
    password: Secret,
}

/// A session.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct LoginAnswer {
    /// Send it as `Authorization: Bearer <token>`. Shown this once.
    #[schema(value_type = String, example = "kws_3q2-7wVvYmFyYmF6cXV4cXV1eGNvcmdlZ3JhdWx0Z2E")]
    token: ShownOnce,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds until the session ends by itself.
    #[schema(example = 43200)]
    expires_in: u64,
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Wrong => Self::unauthorized("invalid_credentials", "The username or the password is wrong."),
            LoginError::Blocked { seconds } => Self::rate_limited(&throttle::told(seconds)),
            LoginError::Password(error) => error.into(),
            LoginError::Storage(error) => error.into(),
        }
    }
}

/// At most so many a minute from one address.
pub(super) async fn limit(State(ctx): State<Ctx>, client: RequestContext, request: Request, next: Next) -> Response {
    rate::method_by_address(&Method::POST, "login", &ctx.limits.login, client.ip, request, next).await
}

/// Log in
///
/// After repeated failures an account answers `429` for a growing time, which never locks its owner out for good.
#[utoipa::path(
    post, path = "/login", operation_id = "login", tag = "people",
    request_body(content = LoginRequest, description = "A name and a password"),
    responses(
        (status = 200, description = "Logged in", body = LoginAnswer),
        (status = 401, description = "`invalid_credentials`: the username or the password is wrong"),
    ),
)]
pub(super) async fn login(
    State(ctx): State<Ctx>,
    origin: RequestContext,
    SecretJson(body): SecretJson<LoginRequest>,
) -> Result<axum::Json<LoginAnswer>, Problem> {
    let session = login::login(&ctx, &origin, &body.username, &body.password).await?;
    Ok(axum::Json(LoginAnswer {
        token: ShownOnce(session.token),
        token_type: "Bearer",
        expires_in: session.lasts.as_secs(),
    }))
}
