//! The catalogue: its schemas are schemas, and its examples satisfy them.

use keyward::features::events::catalogue;
use serde_json::Value;

/// What is wrong with a document, by a schema.
pub fn faults(schema: &Value, document: &Value) -> Vec<String> {
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(schema).unwrap();
    validator.iter_errors(document).map(|error| format!("{} at {}", error, error.instance_path())).collect()
}

#[test]
fn every_example_satisfies_its_schema() {
    for kind in catalogue::all() {
        let schema = (kind.schema)();
        assert!(jsonschema::draft202012::meta::is_valid(&schema), "{}", kind.name);
        assert_eq!(faults(&schema, &(kind.example)()), Vec::<String>::new(), "{}", kind.name);
        assert_eq!(faults(&kind.message_schema(), &kind.message_example()), Vec::<String>::new(), "{}", kind.name);
        // Nothing but what the schema describes.
        let mut strict = schema.clone();
        strict["additionalProperties"] = false.into();
        assert_eq!(faults(&strict, &(kind.example)()), Vec::<String>::new(), "{}", kind.name);
        assert!(!schema.to_string().contains("$ref"), "{}: {schema}", kind.name);
        // And a schema refuses something.
        assert!(!faults(&schema, &serde_json::json!({})).is_empty(), "{}", kind.name);
    }
}
