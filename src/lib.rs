//! Keyward issues, verifies, limits and audits API keys.
//!
//! The binary is a thin shell around this library: `cli` parses the command line and calls `server`, which merges the
//! features' routes under one stack of layers. `ARCHITECTURE.md` walks a request and a change through the modules.
//!
//! Imports go one way: `base ← infra ← gate ← ctx ← web ← features ← {server, worker, embed, cli}`; a test holds the code to that.

pub mod base;
pub mod cli;
pub mod ctx;
pub mod embed;
pub mod features;
pub mod gate;
pub mod infra;
pub mod server;
pub mod web;
pub mod worker;
