//! What the service says about itself: log lines, traces and metrics.

pub mod access;
pub mod alerts;
pub mod current;
pub mod http;
pub mod level;
mod lines;
pub mod logs;
pub mod metrics;
pub mod otlp;
pub mod services;
pub mod trace;
pub mod webhooks;

use std::borrow::Cow;

use crate::base::masking::mask_secrets;

/// Text without Keyward's keys: the last resort of everything that is logged or exported.
fn masked(text: &str) -> Cow<'_, str> {
    mask_secrets(text)
}
