//! Strict extractors: what they refuse is a problem that says what to change, and never repeats the value.

pub mod again;
pub mod json;
pub mod merge;
mod page;
mod path;
mod query;
pub mod secrets;

pub use crate::base::object;
pub use again::Again;
pub use json::{BulkJson, Json, JsonLines, Nothing, OptionalJson, SecretBulkJson, SecretJson};
pub use page::PageQuery;
pub use path::{Path, Second};
pub use query::{Query, unknown_parameter};
