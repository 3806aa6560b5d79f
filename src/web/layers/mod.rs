//! What stands around every route. `server.rs` puts these together, in an order that it explains.

mod admission;
mod cors;
mod edge;
mod queries;
mod slots;

pub use admission::{Admitted, admission, admit};
pub use cors::cors;
pub use edge::{Edge, note_route};
pub use queries::{Queryless, refuse_queries};
pub use slots::Slots;

/// Whether a request asks for the process's health, which must be answered whatever else is refused.
fn is_health(path: &str) -> bool {
    matches!(path, "/health" | "/health/live" | "/health/ready")
}
