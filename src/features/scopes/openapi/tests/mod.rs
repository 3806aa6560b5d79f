use serde_json::{Value, json};

use super::*;

mod naming;
mod reading;

/// The options of a strategy, otherwise as they are by default.
fn by(strategy: Strategy) -> Options {
    Options { strategy, ..Options::default() }
}

/// A document with these paths.
fn document(paths: &Value) -> String {
    json!({"openapi": "3.1.0", "info": {"title": "Shop", "version": "1.2"}, "paths": paths}).to_string()
}

/// What the document gives by default, for one that must be fine.
fn derived(document: &str) -> Derived {
    derive(document.as_bytes(), &Options::default()).unwrap()
}

/// The names of all scopes.
fn names(derived: &Derived) -> Vec<&str> {
    derived.scopes.iter().map(|scope| scope.name.as_str()).collect()
}

/// What isn't covered, as pairs.
fn unmapped(derived: &Derived) -> Vec<(&str, &str)> {
    derived.unmapped.iter().map(|left| (left.operation.as_str(), left.reason.as_str())).collect()
}
