//! What is asked once more when a body has come.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use axum::http::Extensions;

use crate::web::problem::Problem;

type Asked = Pin<Box<dyn Future<Output = Result<(), Problem>> + Send>>;

/// Left in a request's extensions by whoever let it in; the extractors of bodies ask it when they have read one, which may
/// take the client a while.
#[derive(Clone)]
pub struct Again(Arc<dyn Fn() -> Asked + Send + Sync>);

impl Again {
    /// From the question.
    pub fn new(ask: impl Fn() -> Asked + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Again")
    }
}

/// Asks, if there is anything to ask.
///
/// # Errors
/// The answer that the request gets in place of its own.
pub async fn ask(extensions: &Extensions) -> Result<(), Problem> {
    match extensions.get::<Again>() {
        Some(Again(ask)) => ask().await,
        None => Ok(()),
    }
}
