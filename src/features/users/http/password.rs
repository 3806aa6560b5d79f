//! `PUT /v1/users/me/password`.

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use serde::Deserialize;

use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::auth::PersonCaller;
use crate::features::sessions::login::LoginError;
use crate::features::users::password::{self, ChangePasswordError};
use crate::web::extract::SecretJson;
use crate::web::problem::Problem;
use crate::web::rate;
use crate::web::request::RequestContext;

/// The present password and the new one.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangePasswordRequest {
    /// The present one.
    #[schema(value_type = String, format = Password, example = "correct horse battery staple")]
    current_password: Secret,
    /// 8 to 256 characters of any kind (after NFKC normalisation), not a common password.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 256, example = "a different horse altogether")]
    new_password: Secret,
}

impl From<ChangePasswordError> for Problem {
    fn from(error: ChangePasswordError) -> Self {
        match error {
            ChangePasswordError::Invalid(invalid) => invalid.into(),
            ChangePasswordError::Wrong => {
                Self::new(StatusCode::FORBIDDEN, "wrong_password", "The present password is another one.")
            }
            ChangePasswordError::Blocked { seconds } => LoginError::Blocked { seconds }.into(),
            ChangePasswordError::Password(error) => error.into(),
            ChangePasswordError::Storage(error) => error.into(),
        }
    }
}

/// At most so many a minute from one address: each costs two password hashes.
pub(super) async fn limit(State(ctx): State<Ctx>, client: RequestContext, request: Request, next: Next) -> Response {
    rate::method_by_address(&Method::PUT, "password", &ctx.limits.password, client.ip, request, next).await
}

/// Change the password
///
/// Ends every other session of the person.
#[utoipa::path(
    put, path = "/v1/users/me/password", operation_id = "changePassword", tag = "people",
    request_body(content = ChangePasswordRequest, description = "The present password and the new one"),
    responses(
        (status = 204, description = "Changed"),
        (status = 403, description = "`wrong_password`: the present password is another one, or the caller is a key"),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn change(
    State(ctx): State<Ctx>,
    PersonCaller { person, by }: PersonCaller,
    SecretJson(body): SecretJson<ChangePasswordRequest>,
) -> Result<StatusCode, Problem> {
    password::change(&ctx, &by, &person, &body.current_password, &body.new_password).await?;
    Ok(StatusCode::NO_CONTENT)
}
