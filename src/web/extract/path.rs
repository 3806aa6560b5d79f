//! Ids in paths.

use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use crate::web::problem::Problem;

/// The path's one parameter. One that can't be read names nothing, which is the same as a missing object.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::not_found("not_found", "There is nothing at this path."))?;
        params
            .iter()
            .next()
            .and_then(|(_, text)| text.parse().ok())
            .map(Self)
            .ok_or_else(|| Problem::not_found("not_found", "There is nothing at this path."))
    }
}
