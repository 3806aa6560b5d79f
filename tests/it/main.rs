//! One binary for all integration tests, so that they share one throw-away Postgres.

mod api;
mod architecture;
mod harness;
mod process;
mod store;
