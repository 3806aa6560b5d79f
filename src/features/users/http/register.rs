//! `POST /register`.

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::audit::{Actor, By};
use crate::features::auth::forbidden;
use crate::features::idempotency::IdempotencyKey;
use crate::features::sessions::throttle;
use crate::features::users::User;
use crate::features::users::register::{self, RegisterError};
use crate::infra::config::Registration;
use crate::web::extract::SecretJson;
use crate::web::problem::Problem;
use crate::web::rate;
use crate::web::request::RequestContext;

/// Who wants to register.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RegisterRequest {
    /// 3 to 64 of `A-Z a-z 0-9 . _ -`; unique without regard to case.
    #[schema(min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9._-]{3,64}$", example = "ada")]
    username: String,
    /// 8 to 256 characters of any kind (after NFKC normalisation), not a common password.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 256, example = "correct horse battery staple")]
    password: Secret,
}

/// The new person.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Registered {
    /// For people.
    #[schema(example = "User registered")]
    message: &'static str,
    /// The new person.
    user: User,
}

impl From<RegisterError> for Problem {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Invalid(invalid) => invalid.into(),
            RegisterError::Forbidden => forbidden(),
            RegisterError::Taken => Self::new(StatusCode::CONFLICT, "username_taken", "The username is taken."),
            RegisterError::Claimed(claimed) => claimed.into(),
            RegisterError::Blocked { seconds } => Self::rate_limited(&throttle::told(seconds)),
            RegisterError::Password(error) => error.into(),
            RegisterError::Storage(error) => error.into(),
        }
    }
}

/// At most so many a minute from one address.
pub(super) async fn limit(State(ctx): State<Ctx>, client: RequestContext, request: Request, next: Next) -> Response {
    rate::method_by_address(&Method::POST, "register", &ctx.limits.register, client.ip, request, next).await
}

/// Register
///
/// Makes a person and their own project. The password is hashed with argon2id.
#[utoipa::path(
    post, path = "/register", operation_id = "register", tag = "people",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key, name and password within 24 hours make one person", min_length = 1, max_length = 255)),
    request_body(content = RegisterRequest, description = "A name and a password"),
    responses(
        (status = 201, description = "Registered", body = Registered,
         headers(("Location" = String, description = "Where the person finds themselves")),
         links(("log_in" = (operation_id = "login", description = "The same name and password log in.")))),
        (status = 403, description = "`registration_closed`: registration is closed on this server"),
        (status = 409, description = "`username_taken`: the username is taken"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
)]
pub(super) async fn register(
    State(ctx): State<Ctx>,
    origin: RequestContext,
    IdempotencyKey(key): IdempotencyKey,
    SecretJson(body): SecretJson<RegisterRequest>,
) -> Result<impl IntoResponse, Problem> {
    if ctx.config.auth.registration == Registration::Closed {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "registration_closed",
            "Registration is closed; ask an administrator.",
        ));
    }
    let by = By::new(Actor::Anonymous, origin);
    let user = register::register(&ctx, &by, &body.username, &body.password, false, key.as_deref()).await?;
    let body = Registered { message: "User registered", user };
    Ok((StatusCode::CREATED, [(header::LOCATION, "/v1/users/me")], axum::Json(body)))
}
