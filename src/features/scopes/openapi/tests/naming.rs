use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::super::names::slug;
use super::*;

/// The only scope of a document with one operation, or why there is none.
fn one(options: &Options, method: &str, path: &str, operation: &Value) -> Result<String, String> {
    let derived = derive(document(&json!({path: {method: operation}})).as_bytes(), options).unwrap();
    match (derived.scopes.as_slice(), derived.unmapped.as_slice()) {
        ([scope], []) => Ok(scope.name.as_str().to_owned()),
        ([], [left]) => Err(left.reason.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn parts_of_names_are_made_of_any_text() {
    for (text, expected) in [
        ("orders", Some("orders")),
        ("Pet Store", Some("pet-store")),
        ("petStore", Some("pet-store")),
        ("PetStore", Some("pet-store")),
        ("pet_store", Some("pet_store")),
        ("pet--store", Some("pet-store")),
        ("-pet-", Some("pet")),
        ("  Pet & Store!  ", Some("pet-store")),
        ("users.v2", Some("users.v2")),
        (".well-known", Some(".well-known")),
        ("_all", Some("_all")),
        ("getHTTPResponse", Some("get-http-response")),
        ("listAPIs", Some("list-apis")),
        ("getVMsByID", Some("get-vms-by-id")),
        ("APIStatus", Some("api-status")),
        ("isAs", Some("is-as")),
        ("oauth2Token", Some("oauth2-token")),
        ("S3Bucket", Some("s3-bucket")),
        ("Größe", Some("gr-e")),
        ("Überweisung", Some("berweisung")),
        ("注文", None),
        ("...", None),
        ("-_-", None),
        ("", None),
        ("*", None),
        ("a*", Some("a")),
        ("a\u{0}b\nc", Some("a-b-c")),
    ] {
        assert_eq!(slug(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn resources_are_the_first_fixed_part_of_a_path() {
    let nothing = Err("no part of its path names a resource".to_owned());
    for (path, resource) in [
        ("/orders", Some("orders")),
        ("/orders/", Some("orders")),
        ("orders", Some("orders")),
        ("/v1/orders/{id}/items", Some("orders")),
        ("/api/v1/orders", Some("orders")),
        ("/API/V1.0/Orders", Some("orders")),
        ("/rest/api/3/issue/{key}", Some("issue")),
        ("/apis/apps/v1beta1/deployments", Some("apps")),
        ("/v1p1beta1/documents", Some("documents")),
        ("/2010-04-01/Accounts/{Sid}.json", Some("accounts")),
        ("/{tenant}/v2/users", Some("users")),
        ("/{tenant}/{name}:cancel", Some("cancel")),
        ("/messages:send", Some("messages")),
        ("/reports({id})/rows", Some("reports")),
        ("/users.json", Some("users.json")),
        ("/search?q={q}", Some("search")),
        ("//a//b", Some("a")),
        ("/vaults", Some("vaults")),
        ("/v", Some("v")),
        ("/2fa/codes", Some("2fa")),
        ("/v1alphabet", Some("v1alphabet")),
        ("/apiKeys", Some("api-keys")),
        ("/日本/orders", Some("orders")),
        ("/", None),
        ("", None),
        ("/{id}", None),
        ("/api/v2", None),
        ("/{id}.json", None),
        ("/{a}/{b}", None),
        ("/?action=x", None),
        ("/日本", None),
    ] {
        let expected = resource.map_or_else(|| nothing.clone(), |resource| Ok(format!("{resource}:read")));
        assert_eq!(one(&Options::default(), "get", path, &json!({})), expected, "{path}");
    }
}

#[test]
fn path_and_method_make_a_name_together() {
    let shop = Options { namespace: Some("acme:shop".parse().unwrap()), ..by(Strategy::PathMethod) };
    for (options, method, path, expected) in [
        (&by(Strategy::PathMethod), "get", "/v1/orders/{id}/items", "orders:items:get"),
        (&by(Strategy::PathMethod), "post", "/orders/{id}:cancel", "orders:cancel:post"),
        (&by(Strategy::PathMethod), "trace", "/orders", "orders:trace"),
        (&by(Strategy::PathMethod), "get", "/a/b/c/d/e/f/g", "a:b:c:d:e:f:g:get"),
        (&by(Strategy::PathMethod), "get", "/a/b/c/d/e/f/g/h/i", "a:b:c:d:e:f:g.h.i:get"),
        (&shop, "get", "/a/b/c/d/e", "acme:shop:a:b:c:d:e:get"),
        (&shop, "get", "/a/b/c/d/e/f", "acme:shop:a:b:c:d:e.f:get"),
    ] {
        assert_eq!(one(options, method, path, &json!({})).as_deref(), Ok(expected));
    }
    let deep = Options { namespace: Some("1:2:3:4:5:6".parse().unwrap()), ..by(Strategy::PathMethod) };
    assert_eq!(one(&deep, "get", "/a/b/c", &json!({})).as_deref(), Ok("1:2:3:4:5:6:a.b.c:get"));
    let nothing = Err("no part of its path names a resource".to_owned());
    assert_eq!(one(&shop, "get", "/v1/{id}", &json!({})), nothing);
}

#[test]
fn tags_make_names() {
    let paths = json!({
        "/a": {"get": {"tags": ["Pet Store", "Admin"]}, "post": {"tags": ["pet-store"]}},
        "/b": {"get": {"tags": ["PetStore", "Pet Store", "注文"]}, "put": {"tags": ["注文", ""]}, "delete": {"tags": []}},
        "/c": {"patch": {}},
        "/d": {"get": {"tags": ["1", "2", "3", "4", "5", "6", "7", "8", "9"]}},
    });
    let derived = derive(document(&paths).as_bytes(), &by(Strategy::Tag)).unwrap();
    let first: Vec<(&str, Option<&str>, usize)> =
        derived.scopes.iter().map(|s| (s.name.as_str(), s.category.as_deref(), s.operations)).skip(8).collect();
    let expected = [
        ("admin:read", Some("Admin"), 1),
        ("pet-store:read", Some("Pet Store"), 2),
        ("pet-store:write", Some("pet-store"), 1),
    ];
    assert_eq!((first.as_slice(), derived.scopes.len()), (&expected[..], 11));
    assert_eq!(derived.scopes[9].sources, ["GET /a", "GET /b"]);
    assert_eq!(derived.scopes[9].description, "Read Pet Store: GET /a, GET /b");
    let left = [
        ("PUT /b", "its tags have no letter a-z and no digit"),
        ("DELETE /b", "it has no tag"),
        ("PATCH /c", "it has no tag"),
    ];
    assert_eq!(unmapped(&derived), left);
}

#[test]
fn operation_ids_make_names() {
    let options = by(Strategy::OperationId);
    for (id, expected) in [
        (json!("getPetById"), Ok("get-pet-by-id:write")),
        (json!("repos/list-for-org"), Ok("repos:list-for-org:write")),
        (json!("compute.instances.list"), Ok("compute.instances.list:write")),
        (json!("list_pets"), Ok("list_pets:write")),
        (json!("a/b/c/d/e/f/g/h/i"), Ok("a:b:c:d:e:f:g.h.i:write")),
        (json!("//a//"), Ok("a:write")),
        (json!("注文"), Err("its operationId has no letter a-z and no digit")),
        (json!("  "), Err("it has no operationId")),
        (json!(null), Err("it has no operationId")),
        (json!("x".repeat(250)), Err("its name would be longer than 255 characters")),
    ] {
        let found = one(&options, "post", "/a", &json!({"operationId": id}));
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{id}");
    }
    let category = |operation: &Value| {
        let derived = derive(document(&json!({"/v1/pets": {"get": operation}})).as_bytes(), &options).unwrap();
        derived.scopes[0].category.clone()
    };
    assert_eq!(category(&json!({"operationId": "a", "tags": ["", "Pet Store"]})).as_deref(), Some("Pet Store"));
    assert_eq!(category(&json!({"operationId": "a"})).as_deref(), Some("pets"));
}

#[test]
fn methods_make_actions() {
    let words = |options: &Options| {
        Method::ALL.map(|m| one(options, m.as_str(), "/a", &json!({"tags": ["a"], "operationId": "a"})).unwrap())
    };
    let plain = ["a:read", "a:read", "a:read", "a:write", "a:write", "a:write", "a:delete", "a:read"];
    for strategy in [Strategy::PathResource, Strategy::Tag, Strategy::OperationId] {
        assert_eq!(words(&by(strategy)), plain);
    }
    let methods = ["a:get", "a:head", "a:options", "a:post", "a:put", "a:patch", "a:delete", "a:trace"];
    assert_eq!(words(&by(Strategy::PathMethod)), methods);
    let mut actions: Actions = serde_json::from_value(json!({"post": "create", "head": "peek"})).unwrap();
    actions.set(Method::Delete, "remove".parse().unwrap());
    let other = Options { actions, ..Options::default() };
    assert_eq!(words(&other), ["a:read", "a:peek", "a:read", "a:create", "a:write", "a:write", "a:remove", "a:read"]);
    let other = Options { strategy: Strategy::PathMethod, ..other };
    assert_eq!(words(&other), ["a:get", "a:peek", "a:options", "a:create", "a:put", "a:patch", "a:remove", "a:trace"]);
}

#[test]
fn options_are_checked() {
    for good in ["shop", "acme:shop", "a.b-c_1", "1:2:3:4:5:6", "keyward2", "shop:keyward"] {
        assert_eq!(good.parse::<Namespace>().unwrap().as_str(), good);
    }
    let long = "a".repeat(101);
    for bad in ["", "Shop", "a:", ":a", "a::b", "a b", "*", "a:*", "keyward", "keyward:keys", "1:2:3:4:5:6:7", &long] {
        assert_eq!(bad.parse::<Namespace>(), Err(NotANamespace), "{bad}");
    }
    for good in ["create", "a.b-c_1", "1", &"a".repeat(50)] {
        assert!(good.parse::<Action>().is_ok(), "{good}");
    }
    for bad in ["", "Create", "a:b", "*", "a b", "ä", &"a".repeat(51)] {
        assert_eq!(bad.parse::<Action>(), Err(NotAnAction), "{bad}");
    }
    for strategy in Strategy::ALL {
        assert_eq!(strategy.as_str().parse(), Ok(strategy));
        assert_eq!(serde_json::from_value::<Strategy>(strategy.as_str().into()).unwrap(), strategy);
    }
    assert_eq!("path".parse::<Strategy>(), Err(NotAStrategy));
    for method in Method::ALL {
        assert_eq!((method.as_str().parse(), method.to_string()), (Ok(method), method.as_str().to_ascii_uppercase()));
    }
    assert_eq!("GET".parse::<Method>(), Err(NotAMethod));
    for bad in [json!({"fetch": "read"}), json!({"get": "a:b"}), json!({"get": 1}), json!({"GET": "a"})] {
        assert!(serde_json::from_value::<Actions>(bad.clone()).is_err(), "{bad}");
    }
    assert!(serde_json::from_str::<Actions>(r#"{"get": "a", "get": "b"}"#).is_err());
    assert!(serde_json::from_value::<Namespace>(json!("keyward")).is_err());
}

#[test]
fn keywards_own_names_are_never_made() {
    let own = Err("names that begin with keyward: belong to Keyward; choose a namespace".to_owned());
    let operation = json!({"tags": ["Keyward"], "operationId": "keyward/keys"});
    for strategy in Strategy::ALL {
        assert_eq!(one(&by(strategy), "get", "/v1/keyward/keys", &operation), own, "{strategy:?}");
        let within = Options { namespace: Some("shop".parse().unwrap()), ..by(strategy) };
        assert!(one(&within, "get", "/v1/keyward/keys", &operation).unwrap().starts_with("shop:keyward:"));
    }
}

#[test]
fn scopes_say_what_they_cover() {
    let paths = json!({
        "/orders/{id}": {"get": {"summary": "One order"}, "delete": {"summary": " Delete\n an\u{0} order "}},
        "/v1/orders": {"head": {}, "get": {"summary": "All orders"}, "post": {"description": "\n\nCreates one.\nSlowly."}},
        "/users": {"get": {"summary": " ", "description": "<p>Users</p>"}, "put": {"summary": "s".repeat(1200)}},
    });
    let derived = derived(&document(&paths));
    let text = serde_json::to_value(&derived).unwrap();
    let long = "s".repeat(999) + "…";
    assert_eq!(
        text,
        json!({
            "title": "Shop", "version": "1.2", "operations": 7, "unmapped": [],
            "scopes": [
                {"name": "orders:delete", "description": "Delete an order", "category": "orders", "operations": 1,
                    "sources": ["DELETE /orders/{id}"]},
                {"name": "orders:read", "description": "Read orders: GET /orders/{id}, GET /v1/orders, HEAD /v1/orders",
                    "category": "orders", "operations": 3, "sources": ["GET /orders/{id}", "GET /v1/orders", "HEAD /v1/orders"]},
                {"name": "orders:write", "description": "Creates one.", "category": "orders", "operations": 1,
                    "sources": ["POST /v1/orders"]},
                {"name": "users:read", "description": "Read users: GET /users", "category": "users", "operations": 1,
                    "sources": ["GET /users"]},
                {"name": "users:write", "description": long, "category": "users", "operations": 1, "sources": ["PUT /users"]},
            ],
        })
    );
}

#[test]
fn what_scopes_say_is_bounded() {
    let paths: serde_json::Map<String, Value> = (0..200)
        .map(|i| (format!("/orders/{{id}}/{}/{i:03}", "x".repeat(300 * (i % 2))), json!({"get": {}})))
        .collect();
    let derived = derived(&document(&paths.into()));
    let [scope] = derived.scopes.as_slice() else { panic!("{derived:?}") };
    assert_eq!((scope.operations, scope.sources.len()), (200, MAX_SOURCES));
    assert!(scope.sources.iter().all(|source| source.chars().count() <= 200));
    assert!(scope.description.chars().count() <= 1000 && scope.description.ends_with(" more"), "{}", scope.description);
    let listed = scope.description.matches("GET ").count();
    assert!(scope.description.ends_with(&format!(" and {} more", 200 - listed)), "{}", scope.description);
    let tag = json!({"/a": {"get": {"tags": ["ü".repeat(300) + "a"]}}});
    let derived = derive(document(&tag).as_bytes(), &by(Strategy::Tag)).unwrap();
    assert_eq!(derived.scopes[0].category.as_ref().map(|text| text.chars().count()), Some(100));
}

fn word() -> impl proptest::strategy::Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9/{}:._ -]{0,20}", "\\PC{0,12}", any::<String>(), "[a-z]{240,260}"]
}

proptest! {
    /// Whatever stands in a document: every name is a scope with its namespace and a known action, none is Keyward's own, and
    /// each operation is covered or named with a reason.
    #[test]
    fn every_operation_is_covered_or_named(
        paths in prop::collection::btree_map(word(), (word(), prop::collection::vec(word(), 0..3)), 0..8),
        strategy in 0..4_usize,
        namespace in prop::option::of("[a-z0-9_.-]{1,9}(:[a-z]){0,5}"),
    ) {
        let namespace = namespace.and_then(|text| text.parse::<Namespace>().ok());
        let options = Options { strategy: Strategy::ALL[strategy], namespace: namespace.clone(), ..Options::default() };
        let paths: serde_json::Map<String, Value> = paths.into_iter()
            .map(|(path, (id, tags))| (path, json!({"get": {"operationId": id, "tags": tags}, "delete": {"tags": tags}})))
            .collect();
        let derived = derive(document(&paths.into()).as_bytes(), &options).unwrap();
        for scope in &derived.scopes {
            let name = scope.name.as_str();
            prop_assert!(name.parse::<Scope>().is_ok() && !scope.name.is_own() && !name.contains('*'));
            let begins = namespace.as_ref().is_none_or(|n| name.starts_with(&(n.as_str().to_owned() + ":")));
            prop_assert!(begins, "{}", name);
            prop_assert!([":read", ":delete", ":get"].iter().any(|action| name.ends_with(action)), "{}", name);
            prop_assert!(!scope.sources.is_empty() && scope.sources.len() <= scope.operations);
            prop_assert!(scope.description.chars().count() <= 1000 && !scope.description.contains(char::is_control));
        }
        prop_assert!(derived.scopes.windows(2).all(|pair| pair[0].name < pair[1].name));
        if strategy != 2 {
            let covered: usize = derived.scopes.iter().map(|scope| scope.operations).sum();
            prop_assert_eq!(covered + derived.unmapped.len(), derived.operations);
        }
    }

    #[test]
    fn a_part_made_of_a_part_is_the_same(text in "\\PC{0,30}") {
        if let Some(part) = slug(&text) {
            prop_assert_eq!(slug(&part), Some(part));
        }
    }
}

/// The example of the documentation, and what it says comes of it.
#[test]
fn the_documentation_is_right() {
    let page = include_str!("../../../../../docs/scopes-from-openapi.md");
    let example = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    for strategy in Strategy::ALL {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}`", strategy.as_str()))).unwrap();
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let said: Vec<&str> = cell.split('`').filter(|text| !text.trim().is_empty()).collect();
        let derived = derive(example.as_bytes(), &by(strategy)).unwrap();
        assert_eq!((names(&derived), unmapped(&derived)), (said, vec![]), "{strategy:?}");
    }
    let derived = derive(example.as_bytes(), &Options::default()).unwrap();
    assert!(page.contains(&format!("`{}`", derived.scopes[1].description)), "{}", derived.scopes[1].description);
}
