//! Refuses query parameters on routes that take none, as the extractors of queries refuse those that a route doesn't know: a
//! misspelt or misplaced one never passes as if it hadn't been there. Health apart: probes add what they like. Before anybody is
//! asked who they are; but a request without credentials where some are needed is told that first.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

use crate::web::extract::unknown_parameter;

/// The operations that take no query parameters, by path template and method, as the OpenAPI document says; and whether they
/// ask for credentials.
#[derive(Clone, Debug)]
pub struct Queryless(Arc<HashMap<(String, Method), bool>>);

impl Queryless {
    /// Reads them from the document.
    #[must_use]
    pub fn of(document: &OpenApi) -> Self {
        let takes_none = |operation: &Operation| {
            !operation.parameters.iter().flatten().any(|parameter| match parameter {
                RefOr::T(parameter) => matches!(parameter.parameter_in, ParameterIn::Query),
                RefOr::Ref(_) => true,
            })
        };
        let paths = document.paths.paths.iter().filter(|(path, _)| !super::is_health(path));
        let operations = paths.flat_map(|(path, item)| {
            let operations = [
                (Method::GET, &item.get),
                (Method::HEAD, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            operations.into_iter().filter_map(|(method, operation)| {
                let operation = operation.as_ref().filter(|operation| takes_none(operation))?;
                let is_secured = operation.security.as_ref().is_some_and(|ways| !ways.is_empty());
                Some(((path.clone(), method), is_secured))
            })
        });
        Self(Arc::new(operations.collect()))
    }
}

/// Lets requests pass that have no query, or a route that takes one.
pub async fn refuse_queries(
    State(Queryless(queryless)): State<Queryless>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let query = request.uri().query().unwrap_or_default();
    if let (Some((name, _)), Some(route)) = (form_urlencoded::parse(query.as_bytes()).next(), route)
        && let Some(is_secured) = queryless.get(&(route.as_str().to_owned(), request.method().clone()))
    {
        let headers = request.headers();
        let has_credentials = headers.contains_key(header::AUTHORIZATION) || headers.contains_key("x-api-key");
        if *is_secured && !has_credentials {
            // Who shows a key in the query is told that it is none: `401`, from the route.
            return next.run(request).await;
        }
        return unknown_parameter(&name).into_response();
    }
    next.run(request).await
}
