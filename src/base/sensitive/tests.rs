use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Strategy;
use super::names::{Forms, Name};
use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn cleaner(rules: Vec<Rule>) -> Cleaner {
    Cleaner::new(vec![Arc::new(Layer::new(rules)), defaults::layer()], HashKey::new([1; 32]))
}

fn cleaned(cleaner: &Cleaner, value: &Value) -> Value {
    let mut value = value.clone();
    cleaner.clean(&mut value);
    value
}

#[test]
fn names_are_one_however_they_are_spelt() {
    let plain = cleaner(Vec::new());
    for field in [
        "api_key",
        "apiKey",
        "apikey",
        "API-Key",
        "APIKey",
        "api.key",
        "X-API-Key",
        "x_api_key",
        "xApiKey",
        "api key",
        "Api\u{200b}Key",
        "stripe_api_key",
        "stripeApiKey",
        "STRIPE-API-KEY",
        "Password",
        "passwordConfirmation",
        "old_password",
        "userPassword",
        "accessToken",
        "access-token",
        "AUTHORIZATION",
        "Set-Cookie",
        "db.password",
        "client_secret",
        "PRIVATE_KEY",
        "sshPrivateKey",
        "user[password]",
        "\"token\"",
    ] {
        assert!(plain.rule(field).is_some(), "{field}");
    }
    for field in
        ["key", "tokens_used", "secretary", "monkey", "author", "description", "spin", "", "_", "é", "passage", "x_"]
    {
        assert!(plain.rule(field).is_none(), "{field}");
    }
}

#[test]
fn patterns_follow_words_where_they_separate_them() {
    let fits = |pattern: &str, field: &str| name(pattern).pattern().unwrap().fits(&Forms::of(field).unwrap());
    for (pattern, yes, no) in [
        ("*_id", &["user_id", "userId", "USER-ID", "a.id"][..], &["valid", "id", "idx"][..]),
        ("secret*", &["secret", "secrets", "secretKey", "SECRET_KEY", "secretary"], &["asecret"]),
        ("*password*", &["password", "oldPasswordHash", "PASSWORD2"], &["passwd", "pass_word_"][..1]),
        ("db_*_url", &["db_main_url", "dbMainUrl", "DB-A-B-URL"], &["db_url", "dburl", "dbxurl"]),
        ("a*b*c", &["abc", "aXbXc", "abbc"], &["acb", "ab", "xabc"]),
    ] {
        for field in yes {
            assert!(fits(pattern, field), "{pattern} {field}");
        }
        for field in no {
            assert!(!fits(pattern, field), "{pattern} {field}");
        }
    }
    for bad in ["", "*", "**", "_", "a b", "é", &"a".repeat(101)] {
        assert!(bad.parse::<Name>().is_err(), "{bad}");
    }
    assert_eq!(name("Api-Key").key(), name("apiKey").key());
    assert_ne!(name("*_id").key(), name("*id").key());
}

#[test]
fn each_strategy_does_what_it_says() {
    let rule = |field: &str, strategy| Rule::new(name(field), strategy);
    let rules = vec![
        Rule { replacement: Some("(gone)".to_owned()), ..rule("a", Strategy::Redact) },
        Rule { show_start: 2, show_end: 2, mask_char: '#', ..rule("b", Strategy::Mask) },
        rule("c", Strategy::Hash),
        rule("d", Strategy::Remove),
        Rule { is_active: false, ..rule("token", Strategy::Redact) },
    ];
    let cleaner = cleaner(rules);
    let mut document = json!({
        "a": {"whole": ["thing"]}, "b": "0123456789", "B": "short", "c": "x", "C": 5, "d": 1, "token": "visible",
        "password": null, "deep": [{"deeper": {"Password": "p", "n": 1}}], "card_number": 4_111_111_111_111_111_u64,
    });
    let matches = cleaner.clean(&mut document);
    let hash = |text: &str| format!("hmac-sha256:{}", hex::encode(clean::mac(&[1; 32], &[text.as_bytes()])));
    let expected = json!({
        "a": "(gone)", "b": "01########89", "B": "########", "c": hash("x"), "C": hash("5"), "token": "visible",
        "password": null, "deep": [{"deeper": {"Password": REDACTED, "n": 1}}], "card_number": "********1111",
    });
    assert_eq!(document, expected);
    assert_eq!(matches.count, 8);
    for path in ["/a", "/b", "/B", "/c", "/C", "/d", "/deep/0/deeper/Password", "/card_number"] {
        assert!(matches.paths.iter().any(|found| found == path), "{path}: {:?}", matches.paths);
    }
}

#[test]
fn hashes_of_two_places_have_nothing_in_common() {
    let of = |place: &str| {
        let rules = vec![Rule::new(name("v"), Strategy::Hash)];
        let cleaner = Cleaner::new(vec![Arc::new(Layer::new(rules))], HashKey::new([1; 32]).of(place));
        cleaned(&cleaner, &json!({"v": "same"}))
    };
    assert_eq!(of("a"), of("a"));
    assert_ne!(of("a"), of("b"));
}

#[test]
fn a_nearer_layer_and_a_nearer_name_decide() {
    let rules = vec![
        Rule { is_active: false, ..Rule::new(name("public_token"), Strategy::Redact) },
        Rule::new(name("*_token"), Strategy::Remove),
        Rule::new(name("my_*_token"), Strategy::Hash),
    ];
    let cleaner = cleaner(rules);
    let strategy = |field: &str| cleaner.rule(field).map(|rule| rule.strategy);
    assert_eq!(strategy("public_token"), None);
    assert_eq!(strategy("a_token"), Some(Strategy::Remove));
    assert_eq!(strategy("my_own_token"), Some(Strategy::Hash));
    assert_eq!(strategy("token"), Some(Strategy::Redact), "the default");
}

#[test]
fn texts_are_treated_behind_names_and_announcements() {
    let cleaner = cleaner(vec![]);
    for (text, expected) in [
        ("https://h/p?a=1&api_key=hunter2&b=2", "https://h/p?a=1&api_key=[redacted]&b=2"),
        ("postgres://u:hunter2@h/db", "postgres://u:[redacted]@h/db"),
        ("https://u:p@ss:w@h:80/x", "https://u:[redacted]@h:80/x"),
        ("Authorization: Basic dTpodW50ZXIy\nHost: h", "Authorization: [redacted]\nHost: h"),
        ("cookie: a=b; c=d", "cookie: [redacted]"),
        ("sent Bearer abcdefgh12345678 to it", "sent Bearer [redacted] to it"),
        ("{\"password\": \"hunter2\", broken", "{\"password\": \"[redacted]\", broken"),
        ("{\\\"password\\\":\\\"hunter2\\\"}", "{\\\"password\\\":\\\"[redacted]\\\"}"),
        ("{\"a\":{\"password\":\"hunter2\"}}", "{\"a\":{\"password\":\"[redacted]\"}}"),
        ("spring.datasource.password=hunter2", "spring.datasource.password=[redacted]"),
        ("DB_PASSWORD='hunter 2' run", "DB_PASSWORD='[redacted]' run"),
        ("password: hunter2", "password: [redacted]"),
        ("card_number=4111111111111111;x", "card_number=********1111;x"),
    ] {
        assert_eq!(cleaner.clean_text(text), expected);
        assert_eq!(cleaner.clean_text(expected), expected, "twice");
    }
    for text in [
        "token:write",
        "secret:*",
        "see https://h/a:b?x=1",
        "the bearer of bad news and the basic idea",
        "password",
        "password=",
        "{\"a\":1}",
        "a@b:c",
        "12:30",
    ] {
        assert!(matches!(cleaner.clean_text(text), std::borrow::Cow::Borrowed(_)), "{text}");
    }
}

#[test]
fn lists_of_headers_are_fields() {
    let cleaner = cleaner(vec![]);
    let value = json!([{"name": "Authorization", "value": "x"}, {"key": "color", "value": "red"}]);
    let expected = json!([{"name": "Authorization", "value": REDACTED}, {"key": "color", "value": "red"}]);
    assert_eq!(cleaned(&cleaner, &value), expected);
}

#[test]
fn places_are_bounded() {
    let cleaner = cleaner(vec![]);
    let long = "n".repeat(10_000);
    let many: Vec<Value> = (0..3000).map(|_| json!({"token": "x"})).collect();
    let mut value = json!({ long: many });
    let matches = cleaner.clean(&mut value);
    assert_eq!((matches.count, matches.paths.len()), (3000, clean::MAX_MATCHES));
    assert!(matches.paths.iter().all(|path| path.len() < 200));
}

proptest! {
    #[test]
    fn any_text_can_be_treated(text in "(token|=|:|: |\"|\\\\|Bearer |://|@|a|…|é){0,60}") {
        let cleaner = cleaner(vec![]);
        let once = cleaner.clean_text(&text).into_owned();
        drop(cleaner.clean_text(&once));
    }

    #[test]
    fn any_name_can_be_asked_for(name in ".{0,300}") {
        let _ = cleaner(vec![]).rule(&name);
    }
}
