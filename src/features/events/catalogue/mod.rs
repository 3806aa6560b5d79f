//! Every type of event there is: what it is called, when it happens, what its `data` holds, and an example of it.
//!
//! Names are for good. A schema may gain members, so that whoever reads events must pass over what they don't know; a member
//! that is there never changes its meaning.

mod alerts;
mod keys;
mod parts;
mod projects;
mod security;
mod services;
mod traffic;
mod webhooks;

use serde_json::{Value, json};

/// A type of event.
#[derive(Clone, Copy, Debug)]
pub struct EventType {
    /// `noun.past_participle`.
    pub name: &'static str,
    /// What kind of thing `resource_id` names.
    pub resource: &'static str,
    /// When it happens.
    pub description: &'static str,
    /// JSON Schema (2020-12) of `data`.
    pub schema: fn() -> Value,
    /// Some `data` that satisfies it.
    pub example: fn() -> Value,
}

/// In the order in which they are shown.
const GROUPS: [&[EventType]; 7] = [
    &keys::TYPES,
    &traffic::TYPES,
    &security::TYPES,
    &projects::TYPES,
    &webhooks::TYPES,
    &alerts::TYPES,
    &services::TYPES,
];

/// The time of every example.
pub const EXAMPLE_TIME: &str = "2026-11-20T12:00:00Z";

/// All types.
pub fn all() -> impl Iterator<Item = &'static EventType> {
    const { &GROUPS }.iter().flat_map(|group| group.iter())
}

/// The type of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static EventType> {
    all().find(|kind| kind.name == name)
}

/// The types that a pattern means: a name; a part of one and `.*` (`key.*`); or `*`. Empty where it means none.
#[must_use]
pub fn matching(pattern: &str) -> Vec<&'static EventType> {
    match pattern.strip_suffix('*') {
        None => find(pattern).into_iter().collect(),
        Some("") => all().collect(),
        Some(part) if part.ends_with('.') => all().filter(|kind| kind.name.starts_with(part)).collect(),
        Some(_) => Vec::new(),
    }
}

impl EventType {
    /// The schema of what is sent: `{"type", "timestamp", "data"}`.
    #[must_use]
    pub fn message_schema(&self) -> Value {
        json!({
            "type": "object",
            "required": ["type", "timestamp", "data"],
            "properties": {
                "type": { "const": self.name },
                "timestamp": { "type": "string", "format": "date-time" },
                "data": (self.schema)(),
            },
        })
    }

    /// An example of what is sent.
    #[must_use]
    pub fn message_example(&self) -> Value {
        json!({ "type": self.name, "timestamp": EXAMPLE_TIME, "data": (self.example)() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_holds_what_the_contract_names() {
        let contract = "key.created key.updated key.rotated key.disabled key.enabled key.revoked key.deleted key.expiring \
            key.expired limit.reached quota.warning quota.reached concurrency.reached auth.suspicious scope.denied \
            ip.denied schedule.denied project.created project.updated project.deleted member.changed webhook.failed \
            webhook.disabled alert.fired alert.resolved service.down service.recovered service.restarted";
        let names: Vec<_> = all().map(|kind| kind.name).collect();
        assert_eq!(names, contract.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn patterns_mean_whole_parts() {
        let names = |pattern| matching(pattern).iter().map(|kind| kind.name).collect::<Vec<_>>();
        assert_eq!(names("service.*"), ["service.down", "service.recovered", "service.restarted"]);
        assert_eq!(names("key.revoked"), ["key.revoked"]);
        assert_eq!(names("*").len(), all().count());
        for nothing in ["", "key", "key.", "key*", "k*", "key.rev*", ".*", "nothing.*", "key.*.*", "**"] {
            assert!(names(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn what_is_said_of_a_type_is_a_sentence() {
        for kind in all() {
            assert!(kind.description.len() > 20 && kind.description.ends_with('.'), "{}", kind.name);
            let example = (kind.example)();
            let schema = (kind.schema)();
            for name in schema["required"].as_array().unwrap() {
                assert!(example.get(name.as_str().unwrap()).is_some(), "{}: {name}", kind.name);
            }
        }
    }
}
