//! HTTP without features: problems, extractors, layers, and the parts of the OpenAPI document that every route shares.

pub mod extract;
pub mod layers;
pub mod long;
pub mod openapi;
pub mod problem;
pub mod rate;
pub mod request;
