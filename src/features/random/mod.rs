//! Random bytes for whoever asks: `curl host/key/32 | base64`.

pub mod http;
pub mod rules;
