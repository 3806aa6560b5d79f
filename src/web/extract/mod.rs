//! Strict extractors: what they refuse is a problem that says what to change, and never repeats the value.

mod json;
pub mod object;
mod page;
mod path;
mod query;

pub use json::{Json, Nothing, OptionalJson};
pub use page::PageQuery;
pub use path::Path;
pub use query::Query;
