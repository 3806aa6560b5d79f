//! Bodies that hold one of Keyward's own secrets where none belongs. What is sent to be kept is refused with a key in it: a
//! name, a description or metadata would keep it, show it to others and send it on.

use serde_json::Value;

use crate::base::invalid::{FieldError, Invalid};
use crate::base::masking::{holds_secret, mask_secrets};
use crate::web::problem::Problem;

/// The most places that are told of.
const MAX_PLACES: usize = 10;

/// Characters of a name that are told of.
const MAX_SEGMENT: usize = 64;

/// Refuses a body with a secret in it, and says where.
///
/// # Errors
/// `secret_in_field`.
pub fn refuse(body: &[u8]) -> Result<(), Problem> {
    // A body that was parsed is text.
    let Ok(text) = std::str::from_utf8(body) else { return Ok(()) };
    if !holds_secret(text) {
        return Ok(());
    }
    let mut places = Vec::new();
    if let Ok(value) = serde_json::from_slice(body) {
        search(&value, &mut Vec::new(), &mut places);
    }
    if places.is_empty() {
        places.push("body".to_owned());
    }
    let error = |field: String| FieldError {
        field: field.into(),
        code: "holds_secret".into(),
        message: "holds a key, a token or a webhook's secret, which is never kept".into(),
    };
    let mut problem = Problem::from(Invalid(places.into_iter().map(error).collect()));
    problem.set_code("secret_in_field");
    Err(problem)
}

/// Collects the places of texts and names that hold one.
fn search(value: &Value, path: &mut Vec<String>, places: &mut Vec<String>) {
    if places.len() >= MAX_PLACES {
        return;
    }
    let place = |path: &[String]| path.join(".").replace(".[", "[");
    match value {
        Value::String(text) if holds_secret(text) => places.push(place(path)),
        Value::Array(elements) => {
            for (at, element) in elements.iter().enumerate() {
                path.push(format!("[{at}]"));
                search(element, path, places);
                path.pop();
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                path.push(mask_secrets(name).chars().take(MAX_SEGMENT).collect());
                if holds_secret(name) && places.len() < MAX_PLACES {
                    places.push(place(path));
                }
                search(member, path, places);
                path.pop();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_places_are_named_and_the_secret_isnt() {
        let key = "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg";
        let body = json!({"name": "x", "metadata": {"a": [1, format!("see {key}")], key: 1}});
        let problem = refuse(body.to_string().as_bytes()).unwrap_err();
        assert_eq!(problem.code(), "secret_in_field");
        let fields: Vec<_> = problem.errors().iter().map(|error| error.field.as_ref()).collect();
        assert_eq!(fields, ["metadata.a[1]", "metadata.sk_…_cIg"]);
        let escaped = body.to_string().replace('_', "\\u005f");
        assert_eq!(refuse(escaped.as_bytes()).unwrap_err().errors().len(), 2);
        assert!(refuse(r#"{"name": "sk_…_cIg"}"#.as_bytes()).is_ok());
    }
}
