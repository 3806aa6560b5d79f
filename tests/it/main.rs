//! One binary for all integration tests, so that they share one throw-away Postgres.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that can't go on fails; and real servers take real time"
)]

mod api;
mod architecture;
mod harness;
mod permissions;
mod process;
mod readme;
mod store;
