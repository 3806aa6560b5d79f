//! What the service says about itself: log lines and metrics.

pub mod access;
pub mod http;
pub mod logs;
pub mod metrics;
