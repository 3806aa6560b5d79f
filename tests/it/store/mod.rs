//! The storage by itself.

mod schema;
mod statements;

pub use statements::STORES;
