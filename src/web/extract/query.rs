//! Query strings, as strict as bodies.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::base::invalid::Invalid;
use crate::web::problem::Problem;

/// The query's parameters; unknown and repeated ones are refused.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// The refusal of a parameter that a route doesn't know.
#[must_use]
pub fn unknown_parameter(name: &str) -> Problem {
    let name: String = name.chars().take(64).collect();
    let mut problem = Problem::from(Invalid::field(name, "unknown_field", "is not known here"));
    problem.set_code("unknown_field");
    problem
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let text = parts.uri.query().unwrap_or_default();
        if text.contains("%00") {
            return Err(Problem::bad_request("invalid_request", "The query holds a NUL character."));
        }
        // Bytes that aren't UTF-8 are read as this sign; one that was meant is written out.
        let is_text = text.to_ascii_uppercase().contains("%EF%BF%BD")
            || !form_urlencoded::parse(text.as_bytes()).any(|(name, value)| (name + &*value).contains('\u{fffd}'));
        if !is_text {
            return Err(Problem::bad_request("invalid_request", "The query isn't UTF-8."));
        }
        let deserializer = serde_urlencoded::Deserializer::new(form_urlencoded::parse(text.as_bytes()));
        serde_path_to_error::deserialize(deserializer)
            .map(Self)
            .map_err(|error| super::json::refusal(error.path().to_string(), &error.inner().to_string()))
    }
}
