//! Limits of keys: how they stand, where they come from, changing them, setting them back.

pub mod http;
pub mod status;
pub mod store;
