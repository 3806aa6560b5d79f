//! The HTTP contract, a file a route or a subject; every test on both engines.

mod address_limits;
mod audit_events;
mod hardening;
mod health;
mod idempotency;
mod keys;
mod keys_manage;
mod keys_pages;
mod metrics;
mod people;
mod random;
mod sessions;
mod support;
mod tenants;
mod tenants_grants;
mod throttle;
mod web_cors;
mod web_problems;
mod web_sockets;
