//! `POST /v1/keys/verify:batch`.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use crate::base::invalid::Invalid;
use crate::base::object::Object;
use crate::ctx::Ctx;
use crate::web::extract::json;
use crate::web::problem::Problem;
use crate::web::request::RequestContext;

use super::render;
use super::verify::{VerifyAnswer, VerifyRequest, ask, read};

/// The most questions that one call asks.
const MAX_QUESTIONS: usize = 100;

/// Several questions.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchRequest<'a> {
    /// At most 100.
    #[serde(borrow)]
    #[schema(value_type = Vec<VerifyRequest>, max_items = 100)]
    questions: Vec<Object<VerifyRequest<'a>>>,
}

/// Their answers.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what is written by hand")]
pub(super) struct BatchAnswer {
    /// One for each question, in the same order.
    #[schema(max_items = 100)]
    answers: Vec<VerifyAnswer>,
}

/// Verify several keys
///
/// Up to 100 questions, decided one after another as if they had been asked one by one: an earlier one may use up the limit
/// of a later one. If one of them isn't well formed, none is decided.
#[utoipa::path(
    post, path = "/v1/keys/verify:batch", operation_id = "verifyKeys", tag = "keys",
    request_body(content = BatchRequest, description = "The questions"),
    responses(
        (status = 200, description = "The answers, in order", body = BatchAnswer),
        (status = 403, description = "The caller may not verify keys anywhere"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn verify_batch(
    State(ctx): State<Ctx>,
    origin: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let (reach, body) = read(&ctx, &origin, &parts, body).await?;
    let BatchRequest { questions } = json::parse(&body)?;
    if questions.len() > MAX_QUESTIONS {
        return Err(Invalid::field("questions", "too_many", "must be at most 100 questions").into());
    }
    let mut text = Vec::with_capacity(512 * questions.len());
    text.extend_from_slice(b"{\"answers\":[");
    for (i, Object(question)) in questions.iter().enumerate() {
        if i > 0 {
            text.push(b',');
        }
        render::write(&mut text, &ask(&ctx, &reach, question, &origin).await?, &origin.id);
    }
    text.extend_from_slice(b"]}");
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from(text)).into_response())
}
