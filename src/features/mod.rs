//! What the service does, a folder a noun. The same file names in each: `mod.rs` says what it is, `rules.rs` decides
//! without I/O, a file a use-case, `store.rs` holds all SQL for its tables, `http/` one endpoint a file.

pub mod alerts;
pub mod audit;
pub mod auth;
pub mod changes;
pub mod events;
pub mod health;
pub mod idempotency;
pub mod keys;
pub mod leases;
pub mod limits;
pub mod mail;
pub mod members;
pub mod projects;
pub mod random;
pub mod requests;
pub mod scopes;
pub mod security;
pub mod sensitive;
pub mod services;
pub mod sessions;
pub mod system;
pub mod usage;
pub mod users;
pub mod webhooks;
