use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::base::scope::covers;

fn query(value: &Value) -> ScopeQuery {
    serde_json::from_str(&value.to_string()).unwrap()
}

fn refusal(value: &Value) -> String {
    let error = serde_json::from_str::<ScopeQuery>(&value.to_string()).unwrap_err().to_string();
    error.split(" at line ").next().unwrap().to_owned()
}

/// Whether it holds for a key with these scopes.
fn holds(value: &Value, held: &[&str]) -> bool {
    query(value).holds(|wanted| held.iter().any(|held| covers(held, wanted)))
}

#[test]
fn lists_need_all() {
    let both = json!(["a:b", "a:c"]);
    assert!(holds(&both, &["a:b", "a:c"]) && holds(&both, &["a:*"]));
    assert!(!holds(&both, &["a:b"]) && !holds(&both, &[]));
    assert!(holds(&json!([]), &[]));
    assert!(query(&json!([])).is_empty() && ScopeQuery::default().is_empty());
    assert!(!query(&both).is_empty() && !query(&json!({"all": []})).is_empty());
    let scopes: Scopes = serde_json::from_value(both.clone()).unwrap();
    assert_eq!(ScopeQuery::from(scopes.clone()), query(&both));
}

#[test]
fn operators_mean_what_they_say() {
    for (value, held, expected) in [
        (json!({"all": []}), &[][..], true),
        (json!({"any": []}), &["a:*"], false),
        (json!({"not": {"any": []}}), &[], true),
        (json!({"not": {"all": []}}), &["a:*"], false),
        (json!({"all": ["a:b", "a:c"]}), &["a:b"], false),
        (json!({"all": ["a:b", "a:c"]}), &["a:c", "a:b"], true),
        (json!({"any": ["a:b", "a:c"]}), &["a:c"], true),
        (json!({"any": ["a:b", "a:c"]}), &["a:d"], false),
        (json!({"not": "a:b"}), &["a:c"], true),
        (json!({"not": "a:b"}), &["a:b"], false),
        // What is enough for a scope is enough to be refused by its `not`.
        (json!({"not": "a:b"}), &["a:*"], false),
        // One scope of many isn't all of them.
        (json!({"not": "a:*"}), &["a:b"], true),
        (json!({"not": "a:*"}), &["a:*"], false),
        (json!({"not": "a:b:*"}), &["a:*"], false),
        (json!({"any": ["a:*", "b:c"]}), &["a:b"], false),
        (json!({"any": ["a:w", {"all": ["a:r", {"not": "g:r"}]}]}), &["a:r"], true),
        (json!({"any": ["a:w", {"all": ["a:r", {"not": "g:r"}]}]}), &["a:r", "g:*"], false),
        (json!({"any": ["a:w", {"all": ["a:r", {"not": "g:r"}]}]}), &["a:w", "g:r"], true),
    ] {
        assert_eq!(holds(&value, held), expected, "{value} for {held:?}");
    }
}

#[test]
fn no_more_is_asked_than_needed() {
    for (value, held, asked) in [
        (json!(["a:1", "a:2", "a:3"]), &["a:1"][..], &["a:1", "a:2"][..]),
        (json!({"all": ["a:1", "a:2", "a:3"]}), &[], &["a:1"]),
        (json!({"any": ["a:1", "a:2", "a:3"]}), &["a:2"], &["a:1", "a:2"]),
        (json!({"any": [{"not": "a:1"}, "a:2"]}), &[], &["a:1"]),
        (json!({"all": [{"any": ["a:1", "a:2"]}, "a:3", "a:4"]}), &["a:1"], &["a:1", "a:3"]),
    ] {
        let mut calls = Vec::new();
        query(&value).holds(|wanted| {
            calls.push(wanted.to_owned());
            held.contains(&wanted)
        });
        assert_eq!(calls, asked, "{value}");
    }
}

#[test]
fn what_is_no_query_is_refused_with_a_reason() {
    let not_a_scope =
        "expected 2 to 8 parts of a-z, 0-9, _, . or - joined by : such as orders:read; * may be the last part";
    for (value, message) in [
        (json!("a:b"), "invalid type: string \"a:b\", expected a list of scopes, or an object with all, any or not"),
        (json!(1), "invalid type: integer `1`, expected a list of scopes, or an object with all, any or not"),
        (json!(null), "invalid type: null, expected a list of scopes, or an object with all, any or not"),
        (json!(["a"]), not_a_scope),
        (json!([{"any": ["a:b"]}]), "invalid type: map, expected a scope"),
        (json!([["a:b"]]), "invalid type: sequence, expected a scope"),
        (json!([null]), "invalid type: null, expected a scope"),
        (json!({}), "expected one of all, any and not"),
        (json!({"all": [{}]}), "expected one of all, any and not"),
        (json!({"none": []}), "unknown field `none`, expected one of `all`, `any`, `not`"),
        (json!({"any": [{"All": []}]}), "unknown field `All`, expected one of `all`, `any`, `not`"),
        (json!({"all": [], "any": []}), "expected only one of all, any and not in an object"),
        (json!({"all": [], "z": []}), "unknown field `z`, expected one of `all`, `any`, `not`"),
        (json!({"not": {"all": [], "not": "a:b"}}), "expected only one of all, any and not in an object"),
        (json!({"all": "a:b"}), "invalid type: string \"a:b\", expected a list of scopes and queries"),
        (json!({"any": {"all": []}}), "invalid type: map, expected a list of scopes and queries"),
        (json!({"all": [["a:b"]]}), "invalid type: sequence, expected a scope, or an object with all, any or not"),
        (json!({"all": [true]}), "invalid type: boolean `true`, expected a scope, or an object with all, any or not"),
        (json!({"all": ["a:b", "A:b"]}), not_a_scope),
        (json!({"not": ["a:b"]}), "invalid type: sequence, expected a scope, or an object with all, any or not"),
        (json!({"not": null}), "invalid type: null, expected a scope, or an object with all, any or not"),
        (json!({"not": "a"}), not_a_scope),
    ] {
        assert_eq!(refusal(&value), message, "{value}");
    }
    let twice = serde_json::from_str::<ScopeQuery>(r#"{"all": [], "all": []}"#).unwrap_err().to_string();
    assert!(twice.starts_with("duplicate field `all`"), "{twice}");
}

#[test]
fn eight_levels_are_read_and_nine_are_not() {
    let nested = |levels: usize| (0..levels).fold(json!("a:b"), |inner, _| json!({"not": inner}));
    for levels in 1..=8 {
        assert_eq!(holds(&nested(levels), &["a:b"]), levels % 2 == 0, "{levels}");
    }
    let mixed = json!({"all": [{"any": [{"not": {"all": [{"any": [{"not": {"all": [{"any": ["a:b"]}]}}]}]}}]}]});
    assert!(holds(&mixed, &["a:b"]));
    for too_deep in [nested(9), json!({"any": ["a:b", mixed]}), nested(60)] {
        assert_eq!(refusal(&too_deep), "expected at most 8 levels of all, any and not");
    }
    // The ninth level is refused whatever stands in it.
    let empty = (0..8).fold(json!({}), |inner, _| json!({"not": inner}));
    assert_eq!(refusal(&empty), "expected at most 8 levels of all, any and not");
}

#[test]
fn size_is_bounded_wherever_it_stands() {
    let scopes = |from: usize, n: usize| (from..from + n).map(|i| format!("a:{i}")).collect::<Value>();
    let wide = |n: usize| json!({"any": vec![json!({"all": []}); n]});
    for fits in
        [scopes(0, 256), json!({"all": scopes(0, 256)}), json!({"any": [{"all": scopes(0, 255)}, "a:b"]}), wide(255)]
    {
        query(&fits);
    }
    for over in
        [scopes(0, 257), json!({"all": scopes(0, 257)}), json!({"any": [{"all": scopes(0, 256)}, {"not": "a:b"}]})]
    {
        assert_eq!(refusal(&over), "expected at most 256 scopes in all");
    }
    assert_eq!(refusal(&wide(256)), "expected at most 256 objects in all");
}

/// As a field of a body, where errors must be traceable to their place.
#[test]
fn errors_name_their_place() {
    #[derive(Debug, Deserialize)]
    struct Body {
        #[expect(dead_code, reason = "only its errors matter")]
        scopes: Option<ScopeQuery>,
    }
    let place = |text: &str| {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        serde_path_to_error::deserialize::<_, Body>(&mut deserializer).unwrap_err().path().to_string()
    };
    assert_eq!(place(r#"{"scopes": ["a:b", "c"]}"#), "scopes[1]");
    assert_eq!(place(r#"{"scopes": {"any": ["a:b", {"not": "c"}]}}"#), "scopes.any[1].not");
    assert!(serde_json::from_str::<Body>(r#"{"scopes": null}"#).is_ok() && serde_json::from_str::<Body>("{}").is_ok());
}

/// Escapes keep the text from being borrowed, and owned values come by other ways.
#[test]
fn the_way_in_makes_no_difference() {
    let expected = query(&json!({"any": ["a:b", "a:*"]}));
    assert_eq!(serde_json::from_str::<ScopeQuery>(r#"{"\u0061ny": ["\u0061:b", "a:*"]}"#).unwrap(), expected);
    assert_eq!(serde_json::from_slice::<ScopeQuery>(br#"{"any": ["a:b", "a:*"]}"#).unwrap(), expected);
    assert_eq!(serde_json::from_reader::<_, ScopeQuery>(&br#"{"any": ["a:b", "a:*"]}"#[..]).unwrap(), expected);
    assert_eq!(serde_json::from_value::<ScopeQuery>(json!({"any": ["a:b", "a:*"]})).unwrap(), expected);
}

#[test]
fn the_schema_refers_to_itself_by_name() {
    let mut schemas = Vec::new();
    ScopeQuery::schemas(&mut schemas);
    let names: Vec<&str> = schemas.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Scope", "ScopeCondition"]);
    let own = serde_json::to_value(ScopeQuery::schema()).unwrap();
    assert_eq!(own["oneOf"][0]["items"]["$ref"], "#/components/schemas/Scope");
    assert_eq!(own["oneOf"][1]["$ref"], "#/components/schemas/ScopeCondition");
    let condition = serde_json::to_value(Condition::schema()).unwrap();
    assert_eq!(condition["oneOf"][0]["properties"]["all"]["items"]["oneOf"][1], own["oneOf"][1]);
    assert_eq!(condition["oneOf"][2]["properties"]["not"]["oneOf"][1], own["oneOf"][1]);
    assert_eq!(condition["oneOf"][2]["additionalProperties"], false);
}

/// The definition, over the text as it was sent, by counting what holds.
fn naive(value: &Value, held: &[String]) -> bool {
    let holding = |inner: &Value| inner.as_array().unwrap().iter().filter(|value| naive(value, held)).count();
    match value {
        Value::String(wanted) => held.iter().any(|held| covers(held, wanted)),
        Value::Array(values) => holding(value) == values.len(),
        Value::Object(map) => {
            let (name, inner) = map.iter().next().unwrap();
            match name.as_str() {
                "all" => holding(inner) == inner.as_array().unwrap().len(),
                "any" => holding(inner) > 0,
                _ => !naive(inner, held),
            }
        }
        other => panic!("{other}"),
    }
}

fn scope() -> impl Strategy<Value = String> {
    "[ab](:[ab]){0,2}:[ab*]"
}

fn condition() -> impl Strategy<Value = Value> {
    let leaf = scope().prop_map(Value::from);
    let inner = leaf.prop_recursive(7, 60, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| json!({"all": list})),
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| json!({"any": list})),
            inner.prop_map(|one| json!({"not": one})),
        ]
    });
    prop_oneof![
        prop::collection::vec(scope(), 0..6).prop_map(|list| json!(list)),
        inner.prop_map(|value| if value.is_object() { value } else { json!({"all": [value]}) }),
    ]
}

proptest! {
    #[test]
    fn every_query_agrees_with_its_definition(value in condition(), held in prop::collection::vec(scope(), 0..4)) {
        let query = query(&value);
        let found = query.holds(|wanted| held.iter().any(|held| covers(held, wanted)));
        prop_assert_eq!(found, naive(&value, &held));
        prop_assert_eq!(serde_json::to_value(&query).unwrap(), value);
    }

    #[test]
    fn anything_is_read_without_panic(text in "[\\[\\]{}:,\"a-bnoty ]{0,60}") {
        let _ = serde_json::from_str::<ScopeQuery>(&text);
    }
}
