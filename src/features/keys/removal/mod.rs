//! Removing keys for good, one or a project's. The digests of their secrets stay taken: otherwise whoever holds an old export
//! could bring a deleted key back to life, and an operator's suspension would end where the key is deleted and imported
//! elsewhere.
//!
//! Whatever removes secrets writes their digests in its own transaction; imports read them. They are kept for ever: about a
//! hundred bytes each.

pub mod store;
