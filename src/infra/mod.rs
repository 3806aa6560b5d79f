//! What the service stands on: configuration, storage, password hashing, counters in memory, requests of its own, logs and
//! metrics.
//!
//! Imports `base` alone. Knows no HTTP route and no feature.

pub mod address_limit;
pub mod audit_key;
pub mod bodies;
pub mod config;
pub mod db;
pub mod deadline;
pub mod net;
pub mod origins;
pub mod passwords;
pub mod reconcile;
pub mod refusals;
pub mod sensitive;
pub mod smtp;
pub mod telemetry;
pub mod wakers;
