//! The words that everything else is written in: ids, time, randomness, secrets, durations, pages.
//!
//! Imports nothing of ours and does no I/O, so that every rule built on it can be tested by itself.

pub mod clock;
pub mod duration;
pub mod histogram;
pub mod id;
pub mod invalid;
pub mod key_shape;
pub mod masking;
pub mod object;
pub mod page;
pub mod rng;
pub mod scope;
pub mod scope_query;
pub mod secret;
pub mod sensitive;
pub mod unseen;
