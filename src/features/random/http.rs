//! `GET /key/{length}`.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::Deserialize;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{OpenApi, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::rng::Rng;
use crate::ctx::Ctx;
use crate::web::extract::{Path, Query};
use crate::web::problem::Problem;

use super::rules::{self, Encoding, LengthError};

/// Made at once up to here, in pieces of this size beyond. A multiple of three, so that encoded pieces join.
const PIECE: u64 = 63 * 1024;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new().routes(routes!(random))
}

/// Says in the document how long a key may be on this server.
pub fn set_maximum(document: &mut OpenApi, maximum: u64) {
    let operation = document.paths.paths.get_mut("/key/{length}").and_then(|item| item.get.as_mut());
    for parameter in operation.into_iter().flat_map(|operation| operation.parameters.iter_mut().flatten()) {
        if let RefOr::T(parameter) = parameter
            && parameter.name == "length"
            && let Some(RefOr::T(Schema::Object(length))) = &mut parameter.schema
        {
            length.maximum = Some(maximum.into());
        }
    }
}

/// The schema of bytes as they are.
struct Octets;

impl PartialSchema for Octets {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for Octets {}

/// How the bytes are written.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RandomQuery {
    /// Text instead of bytes.
    #[param(inline)]
    encoding: Option<Encoding>,
}

/// Random bytes
///
/// From a cryptographic generator that the system seeds and reseeds. Nothing of them is kept.
#[utoipa::path(
    get, path = "/key/{length}", operation_id = "randomKey", tag = "simple",
    params(
        ("length" = u64, Path, description = "How many bytes; the maximum is a setting of the server (1024 by default)", minimum = 1, example = 32),
        RandomQuery,
    ),
    responses(
        (status = 200, description = "The bytes, or their text", content(
            (Octets = "application/octet-stream"),
            (String = "text/plain", example = "6ba7b8109dad11d180b400c04fd430c8"),
        )),
        (status = 400, description = "`invalid_length`: the length isn't a positive integer, or the query holds something else"),
        (status = 413, description = "`length_too_large`: the length is above the server's maximum"),
    ),
)]
pub(super) async fn random(
    State(ctx): State<Ctx>,
    length: Result<Path<String>, Problem>,
    Query(query): Query<RandomQuery>,
) -> Result<Response, Problem> {
    let max = ctx.config.keys.max_random_bytes;
    let Path(text) = length.unwrap_or_else(|_| Path(String::new()));
    let length = rules::length(&text, max).map_err(|error| match error {
        LengthError::Invalid => Problem::bad_request("invalid_length", "Length must be an integer of at least 1."),
        LengthError::TooLarge => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "length_too_large",
            format!("Length exceeds maximum size of {max}"),
        ),
    })?;
    // An integer below 2^53: a double holds it exactly.
    #[expect(clippy::cast_precision_loss, reason = "at most 16 MiB")]
    ctx.metrics.random_key_size.observe(length as f64);

    let (kind, written) = match query.encoding {
        None => ("application/octet-stream", length),
        Some(encoding) => ("text/plain; charset=utf-8", encoding.text_length(length)),
    };
    let body = if length <= PIECE {
        Body::from(piece(&*ctx.rng, length, query.encoding))
    } else {
        pieces(Arc::clone(&ctx.rng), length, query.encoding)
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_LENGTH, HeaderValue::from(written)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, body).into_response())
}

fn piece(rng: &dyn Rng, length: u64, encoding: Option<Encoding>) -> Bytes {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    rng.fill(&mut bytes);
    match encoding {
        None => bytes.into(),
        Some(encoding) => encoding.write(&bytes).into(),
    }
}

/// Made as the client takes them, so that a large answer costs no memory, and none at all for `HEAD`.
fn pieces(rng: Arc<dyn Rng>, length: u64, encoding: Option<Encoding>) -> Body {
    Body::from_stream(stream::unfold(length, move |left| {
        let rng = Arc::clone(&rng);
        async move {
            let next = left.min(PIECE);
            (next > 0).then(|| (Ok::<_, std::convert::Infallible>(piece(&*rng, next, encoding)), left - next))
        }
    }))
}
