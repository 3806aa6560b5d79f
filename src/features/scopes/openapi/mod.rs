//! Scopes from an OpenAPI document: what an API's description says of its operations, as a draft of a catalogue.
//!
//! A pure function of the document and the options: the same document gives the same scopes, whatever its order and format.
//! Nothing is fetched; a reference out of the document is only reported. 16 MiB of JSON take some 40 ms, of YAML about a
//! second, and of what was made to cost up to three seconds and 300 MiB: call it where waiting is allowed, few at once.

use serde::Serialize;

use super::Scope;

mod catalogue;
mod document;
mod lenient;
mod names;
mod operations;
mod options;

pub use operations::Method;
pub use options::{
    Action, Actions, Namespace, NotAMethod, NotANamespace, NotAStrategy, NotAnAction, Options, Strategy,
};

/// The most paths, operations and scopes of a document.
pub const MAX_OPERATIONS: usize = 50_000;

/// How deep a document may nest. Real ones reach 40.
pub const MAX_DEPTH: usize = 128;

/// The most operations that [`DerivedScope::sources`] names.
pub const MAX_SOURCES: usize = 20;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// If the first character is `{`.
    Json,
    /// Otherwise.
    Yaml,
}

/// Why a document gives no scopes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Bytes that aren't UTF-8.
    #[error("the document isn't UTF-8 text")]
    NotText,
    /// Neither JSON nor YAML, or something in it twice.
    #[error("the document isn't valid {}: {reason} (line {line}, column {column})", match format {
        Format::Json => "JSON",
        Format::Yaml => "YAML",
    })]
    Syntax {
        /// What it was read as.
        format: Format,
        /// From 1; 0 if it isn't known.
        line: u64,
        /// From 1; 0 if it isn't known.
        column: u64,
        /// What is wrong there.
        reason: String,
    },
    /// It nests deeper than [`MAX_DEPTH`].
    #[error("the document nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// YAML with far more values than a description of its length has, or with aliases that stand for as many.
    #[error("the document's YAML holds too many values, or its anchors and aliases stand for too many")]
    TooMuch,
    /// No `openapi` field.
    #[error("the document has no openapi field with the version that it is written in, such as 3.1.0")]
    NoVersion,
    /// Swagger 2.0 or older.
    #[error("the document is Swagger {0}; convert it to OpenAPI 3.0 or 3.1")]
    Swagger(String),
    /// A version that isn't known here.
    #[error("the document is OpenAPI {0}; 3.0 and 3.1 are understood")]
    UnknownVersion(String),
    /// Nothing that can be called. Webhooks are calls that the API makes itself.
    #[error("the document has no paths")]
    NoPaths,
    /// The same path twice: which one counts can't be known.
    #[error("the document describes the path {0} twice")]
    RepeatedPath(String),
    /// More than [`MAX_OPERATIONS`] of them.
    #[error("the document describes more than {MAX_OPERATIONS} {0}")]
    TooMany(&'static str),
}

/// What a document gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Derived {
    /// What the API is called.
    pub title: Option<String>,
    /// Which version of the API it is.
    pub version: Option<String>,
    /// How many operations it describes.
    pub operations: usize,
    /// Sorted by name.
    pub scopes: Vec<DerivedScope>,
    /// What no scope covers, and why; sorted by path.
    pub unmapped: Vec<Unmapped>,
}

/// A scope, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "name": "orders:read", "description": "Read orders: GET /orders, GET /orders/{id}", "category": "orders",
    "operations": 2, "sources": ["GET /orders", "GET /orders/{id}"],
}))]
pub struct DerivedScope {
    /// Its name.
    pub name: Scope,
    /// What it allows, in at most 1,000 characters.
    pub description: String,
    /// The tag or resource that it belongs to.
    pub category: Option<String>,
    /// How many operations it covers.
    pub operations: usize,
    /// The first 20 of them.
    #[schema(max_items = 20)]
    pub sources: Vec<String>,
}

/// An operation, or a path, that no scope covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(example = json!({"operation": "GET /", "reason": "no part of its path names a resource"}))]
pub struct Unmapped {
    /// Which one.
    pub operation: String,
    /// Why.
    pub reason: String,
}

/// Reads a document and names its scopes.
///
/// # Errors
/// The document isn't one, isn't understood, or is beyond a bound.
pub fn derive(document: &[u8], options: &Options) -> Result<Derived, DocumentError> {
    let document = document::read(document)?;
    let (operations, mut unmapped) = operations::of(&document)?;
    let scopes = catalogue::make(&operations, options, &mut unmapped)?;
    unmapped.sort_by(|a, b| (a.path, a.method).cmp(&(b.path, b.method)));
    Ok(Derived {
        title: document.title(),
        version: document.version(),
        operations: operations.len(),
        scopes,
        unmapped: unmapped.iter().map(catalogue::unmapped).collect(),
    })
}

#[cfg(test)]
mod tests;
