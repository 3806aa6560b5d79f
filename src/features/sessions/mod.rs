//! Sessions: log-ins of people, and the delays that make guessing passwords slow.

pub mod http;
pub mod login;
pub mod store;
pub mod throttle;
pub mod token;
