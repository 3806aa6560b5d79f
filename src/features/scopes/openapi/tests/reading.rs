use proptest::prelude::{Strategy as _, prop, prop_assert_eq, prop_oneof, proptest};

use super::*;

fn refusal(document: &str) -> DocumentError {
    derive(document.as_bytes(), &Options::default()).unwrap_err()
}

const YAML: &str = r"# A shop.
openapi: 3.0
info:
  title: >-
    The
    shop
  version: 1.10
  contact: &contact {name: Ada, url: 'https://example.org'}
x-common: &common
  tags: [Orders, on, 2024]
  responses: {200: {description: ok}, default: {$ref: '#/components/responses/Error'}}
x-more: {contact: *contact, infinite: .inf, huge: 1e999}
paths:
  /orders:
    get:
      <<: *common
      summary: List orders
      operationId: listOrders
    post: {<<: *common, tags: [Orders], operationId: 17}
  /orders/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    delete: {}
    patch: null
    x-note: text
  /invoices: {$ref: '#/components/pathItems/Invoices'}
components:
  pathItems:
    Invoices:
      get:
        description: |

          The invoices.

          Newest first.
";

#[test]
fn yaml_and_json_give_the_same() {
    let json = json!({
        "components": {"pathItems": {"Invoices": {"get": {"description": "\nThe invoices.\n\nNewest first.\n"}}}},
        "paths": {
            "/invoices": {"$ref": "#/components/pathItems/Invoices"},
            "/orders/{id}": {"parameters": [], "x-note": "text", "patch": null, "delete": {}},
            "/orders": {
                "post": {"operationId": 17, "tags": ["Orders"]},
                "get": {"summary": "List orders", "operationId": "listOrders", "tags": ["Orders", "on", 2024]},
            },
        },
        "info": {"version": "1.10", "title": "The shop"},
        "openapi": "3.0.3",
    });
    for strategy in Strategy::ALL {
        let from_json = derive(json.to_string().as_bytes(), &by(strategy)).unwrap();
        let mut from_yaml = derive(YAML.as_bytes(), &by(strategy)).unwrap();
        // YAML takes an unquoted version for a number.
        assert_eq!(from_yaml.version.replace("1.10".to_owned()).as_deref(), Some("1.1"));
        assert_eq!(from_yaml, from_json, "{strategy:?}");
        // JSON is YAML, too.
        assert_eq!(derive(format!("---\n{json:#}\n...\n").as_bytes(), &by(strategy)).unwrap(), from_json);
    }
    let derived = derive(YAML.as_bytes(), &by(Strategy::Tag)).unwrap();
    assert_eq!((derived.title.as_deref(), derived.operations), (Some("The shop"), 4));
    assert_eq!(names(&derived), ["2024:read", "on:read", "orders:read", "orders:write"]);
    assert_eq!(unmapped(&derived), [("GET /invoices", "it has no tag"), ("DELETE /orders/{id}", "it has no tag")]);
    let derived = derive(YAML.as_bytes(), &by(Strategy::OperationId)).unwrap();
    assert_eq!(names(&derived), ["17:write", "list-orders:read"]);
    let derived = derive(YAML.as_bytes(), &Options::default()).unwrap();
    assert_eq!(names(&derived), ["invoices:read", "orders:delete", "orders:read", "orders:write"]);
    assert_eq!(derived.scopes[0].description, "The invoices.");
}

#[test]
fn what_stands_around_the_document_makes_no_difference() {
    let plain = document(&json!({"/a": {"get": {}}}));
    let expected = derived(&plain);
    for around in [format!("\u{feff}{plain}"), format!("\r\n \t{plain}\n"), format!("# c\n---\n{plain}\n")] {
        assert_eq!(derived(&around), expected, "{around}");
    }
}

#[test]
fn versions_are_checked() {
    let with = |head: &Value| {
        let mut document = json!({"paths": {"/a": {"get": {}}}});
        document.as_object_mut().unwrap().extend(head.as_object().unwrap().clone());
        derive(document.to_string().as_bytes(), &Options::default()).map(|derived| derived.operations)
    };
    for good in ["3.0", "3.0.0", "3.0.4", "3.1", "3.1.0", "3.1.1", " 3.1.0 ", "3.0.0-rc1"] {
        assert_eq!(with(&json!({"openapi": good})), Ok(1), "{good}");
    }
    assert_eq!(with(&json!({"openapi": 3.1})), Ok(1));
    assert_eq!(with(&json!({"openapi": "3.0.0", "swagger": "2.0"})), Ok(1));
    for unknown in ["3", "3.10.0", "3.2.0", "4.0.0", "2.0", "v3.0.0", "latest"] {
        assert_eq!(with(&json!({"openapi": unknown})), Err(DocumentError::UnknownVersion(unknown.to_owned())));
    }
    assert_eq!(with(&json!({"swagger": "2.0"})), Err(DocumentError::Swagger("2.0".to_owned())));
    assert_eq!(with(&json!({"swagger": 2.0})), Err(DocumentError::Swagger("2.0".to_owned())));
    assert_eq!(with(&json!({"openapi": "9".repeat(1000)})), Err(DocumentError::UnknownVersion("9".repeat(19) + "…")));
    for none in [json!({}), json!({"openapi": null}), json!({"openapi": ["3.0.0"]}), json!({"openapi": ""})] {
        assert_eq!(with(&none), Err(DocumentError::NoVersion), "{none}");
    }
    let message = refusal(r#"{"swagger": "2.0"}"#).to_string();
    assert_eq!(message, "the document is Swagger 2.0; convert it to OpenAPI 3.0 or 3.1");
}

#[test]
fn what_is_no_description_is_refused() {
    for text in ["", "  ", "just text", "- a\n- b", "null", "42", "[]", "{}", "a: b", "\"text\""] {
        assert_eq!(refusal(text), DocumentError::NoVersion, "{text}");
    }
    assert_eq!(derive(b"{\"openapi\": \"\xff\"}", &Options::default()), Err(DocumentError::NotText));
    for paths in ["", r#", "paths": null"#, r#", "webhooks": {"paid": {"post": {}}}"#, r#", "components": {}"#] {
        assert_eq!(refusal(&format!(r#"{{"openapi": "3.1.0"{paths}}}"#)), DocumentError::NoPaths, "{paths}");
    }
    let nothing = derived(&document(&json!({})));
    assert_eq!((nothing.operations, nothing.scopes.len(), nothing.unmapped.len()), (0, 0, 0));
    // Webhooks are calls that the API makes, not calls to it.
    let both = r#"{"openapi": "3.1.0", "paths": {"/a": {"get": {}}}, "webhooks": {"paid": {"post": {}}}}"#;
    assert_eq!(names(&derived(both)), ["a:read"]);
}

#[test]
fn mistakes_are_shown_by_line_and_column() {
    for (text, expected) in [
        ("{\n  \"openapi\": oops\n}", "the document isn't valid JSON: expected value (line 2, column 14)"),
        ("{\"openapi\": \"3.1.0\"", "the document isn't valid JSON: EOF while parsing an object (line 1, column 19)"),
        ("{\"openapi\": \"3.1.0\"} x", "the document isn't valid JSON: trailing characters (line 1, column 22)"),
        (
            "{\"paths\": {\"/a\": {\n \"get\": {}, \"get\": {}}}}",
            "the document isn't valid JSON: duplicate field `get` (line 2, column 22)",
        ),
        ("openapi: 3.1.0\npaths: [\n", "the document isn't valid YAML: unclosed bracket '[' (line 2, column 8)"),
        (
            "openapi: 3.1.0\npaths:\n  /a: {}\n  /a: {}\n",
            "the document isn't valid YAML: duplicate mapping key /a (line 4, column 3)",
        ),
        (
            "openapi: 3.1.0\n---\nopenapi: 3.1.0\n",
            "the document isn't valid YAML: it holds more than one document (line 3, column 1)",
        ),
        ("openapi: *nowhere", "the document isn't valid YAML: alias references unknown anchor (line 1, column 10)"),
    ] {
        assert_eq!(refusal(text).to_string(), expected, "{text}");
    }
    // Of JSON, only the parts that are read tell.
    let twice = r#"{"openapi": "3.1.0", "paths": {"/b": {}, "/a": {}, "/b": {"get": {}}}}"#;
    assert_eq!(refusal(twice), DocumentError::RepeatedPath("/b".to_owned()));
}

#[test]
fn other_types_are_taken_for_absent() {
    let odd = json!({
        "openapi": "3.1.0", "info": "Shop", "components": [], "tags": 1,
        "paths": {
            "x-internal": {"get": {}},
            "/null": null, "/list": [{"get": {}}], "/text": "get",
            "/a": {"get": null, "put": [], "post": "x", "delete": {"tags": "a", "summary": ["b"], "operationId": {}}},
            "/b": {"get": {"tags": [null, 7, {"name": "c"}, "b", true], "summary": 1.5}},
            "/c": {"GET": {}, "summary": "no method", "servers": [], "connect": {}},
        },
    });
    let derived = derive(odd.to_string().as_bytes(), &by(Strategy::Tag)).unwrap();
    assert_eq!((derived.title.clone(), derived.version.clone(), derived.operations), (None, None, 2));
    assert_eq!(names(&derived), ["7:read", "b:read", "true:read"]);
    assert_eq!(derived.scopes[0].description, "1.5");
    assert_eq!(unmapped(&derived), [("DELETE /a", "it has no tag")]);
    let huge = "openapi: 3.1.0\ninfo: {title: 99999999999999999999999, version: !!binary aGk=}\npaths: {/a: {get: {}}}";
    assert_eq!(derive(huge.as_bytes(), &Options::default()).unwrap().operations, 1);
}

#[test]
fn references_are_followed_within_the_document() {
    let document = json!({
        "openapi": "3.1.0",
        "paths": {
            "/a/{id}": {"get": {}, "put": {}},
            "/by-path": {"$ref": "#/paths/~1a~1%7Bid%7D"},
            "/by-plain-path": {"$ref": "#/paths/~1a~1{id}"},
            "/by-name": {"$ref": "#/components/pathItems/Some%20thing~01"},
            "/more": {"$ref": "#/components/pathItems/Chain", "delete": {"summary": "Own"}, "get": {"summary": "Own"}},
            "/self": {"$ref": "#/paths/~1self", "get": {}},
            "/circle": {"$ref": "#/paths/~1circle2"},
            "/circle2": {"$ref": "#/paths/~1circle"},
            "/out": {"$ref": "./other.yaml#/paths/~1a"},
            "/web": {"$ref": "https://example.org/a.json"},
            "/nowhere": {"$ref": "#/paths/~1none"},
            "/elsewhere": {"$ref": "#/components/schemas/A"},
            "/whole": {"$ref": "#"},
            "/broken": {"$ref": "#/paths/%ff"},
        },
        "components": {"pathItems": {
            "Some thing~1": {"post": {}},
            "Chain": {"$ref": "#/components/pathItems/Some%20thing~01", "get": {"summary": "Theirs"}},
        }},
    });
    let derived = derived(&document.to_string());
    assert_eq!(derived.operations, 11);
    let sources: Vec<(&str, &[String])> =
        derived.scopes.iter().map(|scope| (scope.name.as_str(), scope.sources.as_slice())).collect();
    let expected = [
        ("a:read", "GET /a/{id}"),
        ("a:write", "PUT /a/{id}"),
        ("by-name:write", "POST /by-name"),
        ("by-path:read", "GET /by-path"),
        ("by-path:write", "PUT /by-path"),
        ("by-plain-path:read", "GET /by-plain-path"),
        ("by-plain-path:write", "PUT /by-plain-path"),
        ("more:delete", "DELETE /more"),
        ("more:read", "GET /more"),
        ("more:write", "POST /more"),
        ("self:read", "GET /self"),
    ];
    for ((name, sources), (expected_name, expected_source)) in sources.iter().zip(expected) {
        assert_eq!((*name, *sources), (expected_name, &[expected_source.to_owned()][..]));
    }
    assert_eq!((sources.len(), derived.scopes[8].description.as_str()), (expected.len(), "Own"));
    let (circle, nothing) =
        ("its $ref leads in a circle, or over more than 16 others", "its $ref leads to no path item");
    let out = "its $ref leads out of the document";
    let left = [
        ("/broken", nothing),
        ("/circle", circle),
        ("/circle2", circle),
        ("/elsewhere", nothing),
        ("/nowhere", nothing),
        ("/out", out),
        ("/self", circle),
        ("/web", out),
        ("/whole", nothing),
    ];
    assert_eq!(unmapped(&derived), left);
}

#[test]
fn chains_of_references_have_an_end() {
    let chain = |steps: usize| {
        let mut paths = json!({"/0": {"get": {}}});
        for i in 1..=steps {
            paths[format!("/{i}")] = json!({"$ref": format!("#/paths/~1{}", i - 1)});
        }
        derive(document(&paths).as_bytes(), &Options::default()).unwrap()
    };
    let (fits, over) = (chain(16), chain(17));
    assert_eq!((fits.operations, over.operations), (17, 17));
    assert_eq!(over.unmapped.iter().filter(|left| left.reason.contains("circle")).count(), 1);
    assert_eq!(fits.unmapped.iter().filter(|left| left.reason.contains("circle")).count(), 0);
}

#[test]
fn depth_is_bounded() {
    // The document is the first level.
    let json = |n: usize| {
        document(&json!({"/a": {"get": {}}})).replacen('{', &format!("{{\"x\":{}{},", "[".repeat(n), "]".repeat(n)), 1)
    };
    let flow =
        |n: usize| format!("openapi: 3.1.0\npaths: {{/a: {{get: {{}}}}}}\nx: {}{}\n", "[".repeat(n), "]".repeat(n));
    let block = |n: usize| {
        let nested = (0..n).map(|i| " ".repeat(i) + "a:\n").collect::<Vec<_>>().concat();
        format!("openapi: 3.1.0\npaths: {{/a: {{get: {{}}}}}}\n{nested}")
    };
    for good in [json(MAX_DEPTH - 1), flow(MAX_DEPTH - 1), block(MAX_DEPTH)] {
        assert_eq!(derived(&good).operations, 1);
    }
    for bad in [json(MAX_DEPTH), flow(MAX_DEPTH), block(MAX_DEPTH + 1), json(100_000), flow(100_000)] {
        assert_eq!(refusal(&bad), DocumentError::TooDeep);
    }
    for open in ["{\"a\":".repeat(100_000), format!("a:\n {}", "- ".repeat(100_000)), "? ".repeat(100_000)] {
        assert_eq!(refusal(&open), DocumentError::TooDeep);
    }
    // Brackets within texts nest nothing.
    let text = json!({"/a": {"get": {"summary": "[{\\\"".repeat(1000)}}});
    assert_eq!(derived(&document(&text)).operations, 1);
}

#[test]
fn bombs_are_refused() {
    let head = "openapi: 3.1.0\npaths: {/a: {get: {}}}\n";
    let letters: Vec<char> = ('b'..='z').collect();
    let laughs: String = letters
        .iter()
        .fold((String::from("a: &a [x, x, x, x, x, x, x, x]\n"), 'a'), |(text, before), letter| {
            let eight = vec![format!("*{before}"); 8].join(", ");
            (format!("{text}{letter}: &{letter} [{eight}]\n"), *letter)
        })
        .0;
    let merges: String = (1..60).fold(String::from("m0: &m0 {k0: v}\n"), |text, i| {
        format!("{text}m{i}: &m{i} {{<<: [*m{0}, *m{0}], k{i}: v}}\n", i - 1)
    });
    let long = format!("a: &a \"{}\"\nb:\n{}", "\\t".repeat(1_000_000), "- *a\n".repeat(40_000));
    let anchors = (0..60_000).map(|i| format!("- &a{i} b\n")).collect::<Vec<_>>().concat();
    let itself = "a: &a [*a]\n";
    for bomb in
        [laughs, merges, long, format!("a:\n{anchors}"), itself.to_owned(), format!("x: [{}]", "a,".repeat(200_000))]
    {
        assert_eq!(refusal(&format!("{head}{bomb}")), DocumentError::TooMuch, "{}", &bomb[..40.min(bomb.len())]);
    }
    // What is shared as it should be passes, also in numbers.
    let shared = format!("{head}a: &a {{b: c}}\nd:\n{}", "- *a\n".repeat(20_000));
    assert_eq!(derived(&shared).operations, 1);
}

/// A document of `n` paths with `per_path` operations each.
fn many(n: usize, per_path: usize) -> String {
    let methods: Vec<String> =
        Method::ALL.iter().take(per_path).map(|m| format!("\"{}\":{{\"tags\":[\"a\"]}}", m.as_str())).collect();
    let paths: Vec<String> = (0..n).map(|i| format!("\"/p{i}/q\":{{{}}}", methods.join(","))).collect();
    format!("{{\"openapi\":\"3.0.0\",\"paths\":{{{}}}}}", paths.join(","))
}

#[test]
fn size_is_bounded() {
    let most = derived(&many(MAX_OPERATIONS / 2, 2));
    assert_eq!((most.operations, most.scopes.len()), (MAX_OPERATIONS, MAX_OPERATIONS / 2));
    assert_eq!(derived(&many(MAX_OPERATIONS, 1)).scopes.len(), MAX_OPERATIONS);
    assert_eq!(refusal(&many(MAX_OPERATIONS / 2 + 1, 2)), DocumentError::TooMany("operations"));
    assert_eq!(refusal(&many(MAX_OPERATIONS + 1, 0)), DocumentError::TooMany("paths"));
    // References multiply.
    let referring: Vec<String> = (0..7000).map(|i| format!("\"/{i}\":{{\"$ref\":\"#/paths/~1p0~1q\"}},")).collect();
    let referring = many(1, 8).replacen("\"/p0", &format!("{}\"/p0", referring.concat()), 1);
    assert_eq!(refusal(&referring), DocumentError::TooMany("operations"));
    // So do tags.
    let tags = |i: usize| (0..8).map(|k| format!("\"t{}\"", i * 8 + k)).collect::<Vec<_>>().join(",");
    let paths: Vec<String> = (0..6300).map(|i| format!("\"/{i}\":{{\"get\":{{\"tags\":[{}]}}}}", tags(i))).collect();
    let tagged = format!("{{\"openapi\":\"3.0.0\",\"paths\":{{{}}}}}", paths.join(","));
    assert_eq!(derive(tagged.as_bytes(), &by(Strategy::Tag)), Err(DocumentError::TooMany("scopes")));
}

/// As large as those of the largest services, most of it schemas and examples.
#[test]
fn large_documents_are_read() {
    let schema = json!({"type": "object", "properties": {"id": {"type": "string", "example": "}]\"\\"}, "n": {"type": "number"}}});
    let paths: serde_json::Map<String, Value> = (0..500)
        .map(|i| {
            let operation = |word: &str| {
                json!({"operationId": format!("{word}Thing{i}"), "tags": [format!("T{}", i % 20)],
                "responses": {"200": {"description": "ok", "content": {"application/json": {"schema": schema}}}}})
            };
            (format!("/v1/things{}/{{id}}", i % 50), i, operation("get"), operation("put"))
        })
        .map(|(path, i, get, put)| (format!("{path}/part{i}"), json!({"get": get, "put": put})))
        .collect();
    let document = document(&paths.into());
    for document in [document.clone(), format!("---\n{document}")] {
        let by_resource = derived(&document);
        assert_eq!((by_resource.operations, by_resource.scopes.len(), by_resource.unmapped.len()), (1000, 100, 0));
        assert_eq!(derive(document.as_bytes(), &by(Strategy::Tag)).unwrap().scopes.len(), 40);
        assert_eq!(derive(document.as_bytes(), &by(Strategy::OperationId)).unwrap().scopes.len(), 1000);
    }
}

proptest! {
    /// Whatever stands in a document, both formats read the same of it.
    #[test]
    fn both_formats_agree(document in documents()) {
        let text = document.to_string();
        for strategy in Strategy::ALL {
            let json = derive(text.as_bytes(), &by(strategy));
            let yaml = derive(format!("---\n{text}").as_bytes(), &by(strategy));
            prop_assert_eq!(json, yaml);
        }
    }

    /// The order of a document is nothing to the scopes.
    #[test]
    fn order_makes_no_difference(document in documents()) {
        let text = document.to_string();
        let Value::Object(map) = document else { unreachable!() };
        let reversed: Vec<String> = map.iter().rev().map(|(name, value)| match value {
            Value::Object(inner) => {
                let inner: Vec<String> = inner.iter().rev().map(|(k, v)| format!("{}:{v}", json!(k))).collect();
                format!("{}:{{{}}}", json!(name), inner.join(","))
            }
            other => format!("{}:{other}", json!(name)),
        }).collect();
        let reversed = format!("{{{}}}", reversed.join(","));
        for strategy in Strategy::ALL {
            prop_assert_eq!(derive(text.as_bytes(), &by(strategy)), derive(reversed.as_bytes(), &by(strategy)));
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(prop::num::u8::ANY, 0..200)) {
        let _ = derive(&bytes, &Options::default());
    }

    #[test]
    fn any_change_to_a_document_is_read_without_panic(place in 0..YAML.len(), bytes in "[-\\[\\]{}&*!|>'\"%@`#,?: \n\ta0<]{0,4}") {
        let mut text = YAML.to_owned();
        text.insert_str(place, &bytes);
        let _ = derive(text.as_bytes(), &Options::default());
    }
}

/// Documents of small words, right and wrong ones.
fn documents() -> impl proptest::strategy::Strategy<Value = Value> {
    let text = || prop_oneof!["[a-zA-Z/{}:. ~-]{0,12}".prop_map(Value::from), "\\PC{0,6}".prop_map(Value::from)];
    let other = || {
        prop_oneof![
            proptest::strategy::Just(Value::Null),
            proptest::strategy::Just(json!(7)),
            proptest::strategy::Just(json!([[]]))
        ]
    };
    let operation = prop_oneof![
        8 => (text(), text(), prop::collection::vec(text(), 0..3))
            .prop_map(|(id, summary, tags)| json!({"operationId": id, "summary": summary, "tags": tags})),
        1 => other(),
    ];
    let method = prop_oneof!["get", "put", "post", "delete", "x-a", "summary"];
    let item = prop_oneof![
        6 => prop::collection::btree_map(method, operation, 0..3).prop_map(|map| json!(map)),
        1 => "#/paths/~1[ab]".prop_map(|reference| json!({"$ref": reference})),
        1 => other(),
    ];
    let path = prop_oneof!["/[ab]", "/[a-zA-Z0-9/{}:.]{0,20}", "/\\PC{0,8}"];
    prop::collection::btree_map(path, item, 0..6).prop_map(|paths| json!({"openapi": "3.0.1", "paths": paths}))
}
