//! Ids in paths.

use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use crate::web::problem::Problem;

/// The path's first parameter. One that can't be read names nothing, which is the same as a missing object.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// The path's second parameter, such as the member in a project.
#[derive(Debug)]
pub struct Second<T>(pub T);

async fn parameter<S: Send + Sync, T: FromStr>(parts: &mut Parts, state: &S, place: usize) -> Result<T, Problem> {
    let nothing = || Problem::not_found("not_found", "There is nothing at this path.");
    let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| nothing())?;
    params.iter().nth(place).and_then(|(_, text)| text.parse().ok()).ok_or_else(nothing)
}

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        parameter(parts, state, 0).await.map(Self)
    }
}

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Second<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        parameter(parts, state, 1).await.map(Self)
    }
}
