//! What schemas and examples are put together from.

use serde_json::{Value, json};
use utoipa::ToSchema;

/// An object with members: a `?` behind a name says that it may be missing. More members may come.
pub(super) fn object(members: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let (mut properties, mut required) = (serde_json::Map::new(), Vec::new());
    for (name, schema) in members {
        let bare = name.trim_end_matches('?');
        if bare == name {
            required.push(name);
        }
        properties.insert(bare.to_owned(), schema);
    }
    json!({ "type": "object", "required": required, "properties": properties })
}

/// An object with the members of another, and more.
pub(super) fn with(mut of: Value, members: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let Value::Object(more) = object(members) else { return of };
    for (name, schema) in more.get("properties").and_then(Value::as_object).into_iter().flatten() {
        of["properties"][name] = schema.clone();
    }
    if let (Some(required), Some(Value::Array(more))) = (of["required"].as_array_mut(), more.get("required")) {
        required.extend(more.iter().cloned());
    }
    of
}

/// An example with the members of another.
pub(super) fn and(mut of: Value, more: Value) -> Value {
    if let (Value::Object(of), Value::Object(more)) = (&mut of, more) {
        of.extend(more);
    }
    of
}

pub(super) fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

pub(super) fn text_or_null(description: &str) -> Value {
    json!({ "type": ["string", "null"], "description": description })
}

pub(super) fn word(description: &str, words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words, "description": description })
}

pub(super) fn count(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": description })
}

pub(super) fn flag(description: &str) -> Value {
    json!({ "type": "boolean", "description": description })
}

pub(super) fn number(description: &str) -> Value {
    json!({ "type": "number", "description": description })
}

pub(super) fn time(description: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": description })
}

pub(super) fn time_or_null(description: &str) -> Value {
    json!({ "type": ["string", "null"], "format": "date-time", "description": description })
}

pub(super) fn list(description: &str, items: Value) -> Value {
    json!({ "type": "array", "items": items, "description": description })
}

/// An id with its prefix.
pub(super) fn id(prefix: &str, description: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^{prefix}_[0-9A-HJKMNP-TV-Z]{{26}}$"), "description": description })
}

/// What a change says beside the thing itself: [`crate::features::events::told`] writes it.
pub(super) fn change() -> [(&'static str, Value); 4] {
    let actor = object([
        ("type", word("What acted.", &["user", "key", "system", "anonymous"])),
        ("id", text_or_null("Which person or key; null for the service itself.")),
        ("name", text_or_null("Their name at that time; for the service, which part of it.")),
    ]);
    let fields = json!({ "type": "object" });
    let mut changes = object([("before", fields.clone()), ("after", fields)]);
    changes["description"] = json!("The members that are different, as they were and as they are.");
    [
        ("action", text("What was done, by the name that it has in the audit trail.")),
        ("actor", actor),
        ("changes?", changes),
        ("cause?", id("aud", "The audit entry of the change of which this is a consequence.")),
    ]
}

/// An example of it.
pub(super) fn changed(action: &str, before: Value, after: Value) -> Value {
    and(did(action), json!({ "changes": { "before": before, "after": after } }))
}

/// An example where there is nothing to compare.
pub(super) fn did(action: &str) -> Value {
    json!({
        "action": action,
        "actor": { "type": "user", "id": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "ada" },
    })
}

/// The schema that the OpenAPI document has for a type, with what it refers to written out.
pub(super) fn view<T: ToSchema>() -> Value {
    let mut inner = Vec::new();
    T::schemas(&mut inner);
    let mut schema = json!(T::schema());
    for _ in 0..DEPTH {
        write_out(&mut schema, &inner);
    }
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("example");
        schema.entry("required").or_insert_with(|| json!([]));
    }
    schema
}

/// How deep types hold each other, with room to spare.
const DEPTH: usize = 4;

type Inner = (String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>);

fn write_out(schema: &mut Value, inner: &[Inner]) {
    let refers = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    let found = refers.and_then(|name| inner.iter().find(|(known, _)| known == name));
    if let Some((_, found)) = found {
        let description = schema.get("description").cloned();
        *schema = json!(found);
        if let Some(description) = description {
            schema["description"] = description;
        }
    }
    match schema {
        Value::Object(members) => members.values_mut().for_each(|member| write_out(member, inner)),
        Value::Array(items) => items.iter_mut().for_each(|item| write_out(item, inner)),
        _ => {}
    }
}
